"""Where a Ray cluster is, as a command line says it."""

from __future__ import annotations

import argparse
import re

LOCAL, AUTO = "local", "auto"  # a Ray that is started here; the one that this machine belongs to
HELP = (
    "cells run on a Ray cluster: HOST:PORT of its head, or auto, the one that this machine belongs to; without an "
    "address, on a Ray that is started here"
)


def ray_address(text: str) -> str:
    """A type for argparse: HOST:PORT of a cluster's head, "auto" or "local"."""
    if text in (LOCAL, AUTO):
        return text
    if text.startswith("ray://"):
        raise argparse.ArgumentTypeError(
            f"{text!r} is the address for clients outside of a cluster. Start the grid on one of its nodes, with "
            "--ray auto"
        )
    match = re.fullmatch(r"(?:[\w.-]+|\[[0-9A-Fa-f:.]+\]):(\d{1,5})", text)
    if not match or not 0 < int(match[1]) < 65536:
        raise argparse.ArgumentTypeError(f"{text!r} is no address of a Ray cluster, such as 10.0.0.1:6379, or auto")
    return text
