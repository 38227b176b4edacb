"""What `-model` and `--models` name: an entry of BACKBONES, a model of timm's, or a function in a file of one's own."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from engine.cli import at_home, nearest
from engine.errors import UserError, one_line
from engine.models.backbone import Backbone
from engine.models.own_file import find_own
from engine.models.timm_models import TIMM, find_timm
from engine.models.weights_folder import is_path
from engine.paths import is_file, with_home, without_home

OWN = re.compile(r"(?P<file>.+\.py):(?P<function>[^:/@]*)", re.DOTALL)
OTHERS = "Or timm:NAME, a model of timm's; or FILE.py:FUNCTION, one of your own."
# a member of one of torchvision's enums of weights
MEMBER = re.compile(r"[A-Z][A-Z0-9_]+")
NO_FOLDER = re.compile(r'[<>:"/\\|?*\x00-\x1f\x7f]')  # what names of folders can't have on every system
LONGEST_FOLDER = 80  # letters


@dataclass(frozen=True)
class Found:
    """What a name means."""

    name: str  # by which it is found again, whatever folder that is asked in; a record calls it so
    backbone: Backbone
    weights: str | None = None  # that follow an @, as `--weights` takes them

    @property
    def row(self) -> str:
        """What sets it apart from the same backbone with other weights, and is found again likewise."""
        return row_name(self.name, self.weights, self.backbone) if self.weights else self.name


def find_backbone(text: str, known: Mapping[str, Backbone], by_user: bool = True) -> Found:
    """The backbone that is meant: by its name in `known`, by torchvision's, as timm:NAME, or as FILE.py:FUNCTION.

    Behind an @ stand the weights that it is to begin from. by_user: whether the user names it; a file that somebody
    else names is not run unless the user has named it before. UserError, with the nearest, where there is none.
    """
    # of several that the same function builds, the first has its name
    names = {entry.builder_name: own for own, entry in reversed([*known.items()])} | {own: own for own in known}
    if text in names:
        return Found(names[text], known[names[text]])
    name, weights = divided(text)
    if weights is not None:
        weights = _weights(name, weights)
    if name in names:
        return Found(names[name], known[names[name]], weights)
    if name.startswith(TIMM):
        return Found(*find_timm(name.removeprefix(TIMM)), weights)
    if own := OWN.fullmatch(name):
        return Found(*find_own(own["file"], own["function"], by_user), weights)
    if name.endswith(".py"):
        raise UserError(f"{one_line(name)} names no function in it: {one_line(name)}:FUNCTION.")
    raise UserError(
        f"unknown backbone {one_line(name)!r}.{nearest(name, names, 0.5)} Known: {', '.join(known)}. {OTHERS}"
    )


def divided(text: str) -> tuple[str, str | None]:
    """A name, and the weights that follow it behind an @; None: none do."""
    own = re.match(OWN.pattern, text, re.DOTALL)
    end = own.end() if own else 0  # the path of a file may have an @ itself
    name, at, weights = text[end:].partition("@")
    return f"{text[:end]}{name}", weights if at else None


def is_elsewhere(text: str) -> bool:
    """Whether such a name is of a model of timm's, or of a file of one's own."""
    name, _ = divided(text)
    return name.startswith(TIMM) or OWN.fullmatch(name) is not None


def _weights(name: str, weights: str) -> str:
    if not weights:
        raise UserError(
            f"{one_line(name)}@ names no weights. Expected what --weights takes behind the @: NAME@WEIGHTS."
        )
    path = Path(at_home(weights))
    return str(path.absolute()) if not MEMBER.fullmatch(weights) and is_path(str(path)) else weights


def row_name(name: str, weights: str, backbone: Backbone | None) -> str:
    """What a backbone with `--weights` is called beside the same with others: NAME, or NAME@WEIGHTS."""
    usual = weights in ("imagenet", "auto") or (backbone is not None and backbone.is_usual(weights))
    return name if usual else f"{name}@{without_home(weights)}"


def is_here(text: str, known: Mapping[str, Backbone]) -> bool:
    """Whether such a name can be used here, as far as can be told without running anything."""
    name, _ = divided(text)
    own = OWN.fullmatch(name)
    if own:
        return is_file(with_home(own["file"]))
    return name in known or (name.startswith(TIMM) and find_spec("timm") is not None)


def may_have_weights(text: str, known: Mapping[str, Backbone]) -> bool:
    """Whether pretrained weights of such a backbone are known of, as far as can be told without running anything."""
    name, _ = divided(text)
    return known[name].weights is not None if name in known else name.startswith(TIMM)


def folder_name(name: str) -> str:
    """What the folder of a backbone's runs is called: its name, as far as every system takes that.

    Of names that are not taken as they are, no two have the same: the end is a hash of the name.
    """
    name = without_home(name)
    if not NO_FOLDER.search(name) and len(name) <= LONGEST_FOLDER:
        return name
    if name.startswith(TIMM):  # which has no such letters in its names
        return f"timm-{NO_FOLDER.sub('-', name.removeprefix(TIMM))}"
    own = OWN.fullmatch(name)
    short = f"{Path(own['file']).stem}-{own['function']}" if own else name
    return f"{NO_FOLDER.sub('-', short)[:LONGEST_FOLDER]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
