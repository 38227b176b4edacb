"""The post between a grid and its cells: an actor on the grid's own node, that knows what is wanted of each attempt."""

from __future__ import annotations

from collections.abc import Mapping

from engine.errors import UserError
from grids.ledger import grid_folder
from grids.on_ray.errand import Order, Parcel, Sign
from grids.on_ray.parcel import packed, unpack


class Post:
    """Takes signs of life and folders of runs from nodes, and hands orders out.

    It serves one call after another: what is kept of an attempt after the grid has left it is refused.
    """

    def __init__(self) -> None:
        self._orders: Mapping[str, Order] = {}
        self._signs: dict[str, Sign] = {}

    def exchange(self, orders: Mapping[str, Order]) -> dict[str, Sign]:
        """The grid says which attempts there are, by token, and what is wanted of them; returns their last signs."""
        self._orders = orders
        self._signs = {token: sign for token, sign in self._signs.items() if token in orders}
        return self._signs

    def report(self, token: str, sign: Sign) -> Order | None:
        """An attempt is at it; returns what is wanted of it, None: nothing is known of it, or no more."""
        self._signs[token] = sign
        return self._orders.get(token)

    def earlier(self, token: str) -> Parcel:
        """The runs of the attempt's cell that were begun earlier, for a node that does not see them."""
        order = self._orders.get(token)
        return packed(order.out, order.begun) if order else {}

    def keep(self, token: str, parcel: Parcel) -> str:
        """Put the attempt's runs, as far as they are, in their places; returns why that can't be, "": it is done."""
        order = self._orders.get(token)
        if order is None:
            return "the grid has left this attempt"
        try:
            unpack(parcel, order.out, grid_folder(order.out) / f"{order.cell}.parcel")
        except (OSError, UserError) as problem:
            return f"{problem}"
        return ""
