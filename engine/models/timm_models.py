"""Backbones of timm: `-model timm:NAME`, or `timm:NAME.TAG`, of which the tag says with which pretrained weights."""

from __future__ import annotations

import re
from collections import OrderedDict
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any

from engine.cli import importing, nearest
from engine.errors import UserError, one_line
from engine.models.backbone import Backbone, HubFile, WeightsFile
from engine.models.weights_folder import TENSORS

if TYPE_CHECKING:
    import torch
    from torch import nn

TIMM = "timm:"
NEEDED = "timm>=1.0.20,<2"
MOST_TAGS = 12  # that are named
# of a tag: the weights have seen ImageNet-1k alone
IMAGENET_ALONE = re.compile(r"(?!.*(?:_ft_|jft|ig1b|yfcc))(?:.*_)?in1k(?:_\w+)?")


@dataclass(frozen=True)
class TimmBuilder:
    """Makes a model of timm; called without arguments, as builders are."""

    architecture: str
    classes: int  # that its pretrained weights tell apart; 0: they have no head
    fixed: bool  # whether it is built for one size of images
    head: str  # the dotted name of its classifier
    size: tuple[int, int] | None = None  # that it is built for; None: its own

    library = "timm"

    def __repr__(self) -> str:
        return self.architecture

    def __call__(self) -> nn.Module:
        """The model, randomly initialised, with a head of 1000 classes where its weights have none."""
        from torch import nn

        model = self._made(num_classes=self.classes or 1000)
        layer = model.get_submodule(self.head)
        if not isinstance(layer, nn.Linear):
            raise UserError(
                f"the head of {TIMM}{self.architecture} is a {type(layer).__name__}, and a backbone here has a linear "
                "layer, which a new one replaces. Take another model."
            )
        return model

    def at(self, size: tuple[int, int]) -> TimmBuilder:
        """The same for images of `size` (height, width)."""
        return replace(self, size=size) if self.fixed else self

    def adapted(self, state: OrderedDict[str, torch.Tensor]) -> OrderedDict[str, torch.Tensor]:
        """The state dict as timm loads it: by today's names, and position embeddings resampled for the size.

        It is returned as it is where timm can't load it; whoever then loads it says what does not fit.
        """
        body = {key: value for key, value in state.items() if not key.startswith(f"{self.head}.")}
        overlay = {"state_dict": body, "num_classes": 0, "custom_load": False}
        try:
            loaded = self._made(num_classes=0, pretrained=True, pretrained_cfg_overlay=overlay).state_dict()
        except Exception:  # whatever a foreign file leads its rules to
            return state
        own = {key: value for key, value in state.items() if key.startswith(f"{self.head}.")}
        return OrderedDict({**loaded, **own})

    def _made(self, **options: Any) -> nn.Module:
        import timm

        if self.fixed and self.size:
            options["img_size"] = self.size
        model: nn.Module = timm.create_model(self.architecture, **options)
        return model


def find_timm(text: str) -> tuple[str, Backbone]:
    """The name, with the tag of its weights, and the backbone that `timm:text` means.

    UserError: timm is not installed, has no such model or tag, or one whose head is not a linear layer.
    """
    name, backbone = _found(text)
    return f"{TIMM}{name}", backbone


@cache
def _found(text: str) -> tuple[str, Backbone]:
    config = _config(text)
    architecture, tag, classifier = config.architecture, config.tag, config.classifier
    if not isinstance(classifier, str):
        found = f"{len(classifier)} heads ({', '.join(classifier)})" if classifier else "no head of its own"
        raise UserError(f"{TIMM}{text} has {found}, and a backbone here has one, a linear layer. Take another model.")
    name = f"{architecture}.{tag}" if tag else architecture
    weights: HubFile | WeightsFile | None = None
    mean, std = tuple(config.mean), tuple(config.std)
    if config.hf_hub_id:
        repository = f"{config.hf_hub_id}{name}" if config.hf_hub_id.endswith("/") else config.hf_hub_id
        files = (config.hf_hub_filename,) if config.hf_hub_filename else TENSORS
        weights = HubFile(f"timm/{name}", repository, files, mean, std)
    elif config.url:
        weights = WeightsFile(f"timm/{name}", config.url, None, mean, std)
    builder = TimmBuilder(architecture, config.num_classes, bool(config.fixed_input_size), classifier)
    return name, Backbone(builder, weights, classifier)


def _config(text: str) -> Any:
    """timm's own description of the model and its weights."""
    try:
        with importing():
            from timm.models import get_pretrained_cfg, list_models, list_pretrained
    except ImportError as problem:
        raise UserError(
            f"-model {TIMM}{one_line(text)} needs the package timm ({problem}): pip install '{NEEDED}'"
        ) from problem
    architecture, dot, tag = text.partition(".")
    try:
        config = get_pretrained_cfg(text) if tag or not dot else None
    except RuntimeError:  # no such tag
        config = None
    if config is not None:
        return config
    known = list_models()
    if architecture not in known:
        near = nearest(architecture, known, 0.6).replace("mean ", f"mean {TIMM}")
        raise UserError(
            f"timm has no model {one_line(architecture or text)!r}.{near} It lists them by: python -c "
            f"\"import timm; print(timm.list_models('*{_letters(architecture)}*'))\""
        )
    tags = [each.partition(".")[2] for each in list_pretrained(f"{architecture}.*")]
    if not tags:
        raise UserError(f"{TIMM}{one_line(text)}: timm has no pretrained weights of it. Leave .{one_line(tag)} out.")
    more = f" and {len(tags) - MOST_TAGS} more" if len(tags) > MOST_TAGS else ""
    raise UserError(
        f"timm has no weights {one_line(tag)!r} of {architecture}.{nearest(tag, tags, 0.5)} Known: "
        f"{', '.join(tags[:MOST_TAGS])}{more}."
    )


def _letters(name: str) -> str:
    """As much of the beginning of a name as is one word."""
    match = re.match(r"[A-Za-z]+", name)
    return match[0] if match else ""


def saw_more_than_imagenet(weights: str) -> bool:
    """Whether weights of timm's, by the name that a record has, were trained on other images than ImageNet-1k's."""
    tag = weights.partition("timm/")[2].partition(".")[2]
    return bool(tag) and not IMAGENET_ALONE.fullmatch(tag)
