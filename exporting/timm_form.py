"""The same networks as timm builds them: which they are there, and its names of their tensors."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn

from engine.inference.checkpoint import Trained
from engine.inference.preprocessing import Preprocessing
from engine.models.backbone import IMAGENET_MEAN, IMAGENET_STD
from engine.models.timm_models import TIMM

State = dict[str, torch.Tensor]
Shapes = Mapping[str, torch.Tensor]  # timm's own tensors, by name
INCEPTION = (0.5, 0.5)  # mean and standard deviation of what Inception v3 takes, of each channel


def as_it_is(state: State, _: Shapes) -> State:
    """By names that timm reads as well: they are its own, or it knows torchvision's."""
    return state


def in_order(state: State, shapes: Shapes) -> State:
    """Tensors of which both have as many in the same order, in the shapes that timm has. ValueError: they have not."""
    found = {}
    for (name, wanted), tensor in zip(shapes.items(), state.values(), strict=True):
        if tensor.numel() != wanted.numel():
            raise ValueError(f"{name} has another size in timm")
        found[name] = tensor.reshape(wanted.shape)
    return found


def of_swin(state: State, _: Shapes) -> State:
    """Swin: stages and what lies between them are told apart by name, and the indices of positions are computed."""
    found = {}
    for name, tensor in state.items():
        # torchvision's features are the patches, then blocks (odd) and merging (even) in turn
        name = name.replace("features.0.0.", "patch_embed.proj.").replace("features.0.2.", "patch_embed.norm.")
        name = re.sub(r"^features\.(\d)\.(\d+)\.", lambda at: f"layers.{int(at[1]) // 2}.blocks.{at[2]}.", name)
        name = re.sub(r"^features\.(\d)\.", lambda at: f"layers.{int(at[1]) // 2}.downsample.", name)
        name = name.replace(".mlp.0.", ".mlp.fc1.").replace(".mlp.3.", ".mlp.fc2.").replace("head.", "head.fc.")
        found[name] = tensor
    return {name: tensor for name, tensor in found.items() if not name.endswith("relative_position_index")}


def of_swin_v2(state: State, shapes: Shapes) -> State:
    """Swin v2: like Swin; its queries and values have a bias each, and its keys, which are given zeros, none."""
    found = of_swin(state, shapes)
    for name in [name for name in found if name.endswith("qkv.bias")]:
        query, _, value = found.pop(name).chunk(3)
        attention = name.removesuffix("qkv.bias")
        found |= {f"{attention}q_bias": query, f"{attention}v_bias": value}
    return {name: tensor for name, tensor in found.items() if not name.endswith("relative_coords_table")}


@dataclass(frozen=True)
class TimmForm:
    """How a network is built by timm."""

    architecture: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    convert: Callable[[State, Shapes], State] = as_it_is
    transforms_input: bool = False  # whether ours takes ImageNet's normalisation and turns it into INCEPTION

    def preprocessing(self, ours: Preprocessing) -> Preprocessing:
        """What timm's network is to be given, where that normalises otherwise."""
        if not self.transforms_input:
            return ours
        # ours: ((x - mean) / std) * imagenet_std / 0.5 + (imagenet_mean - 0.5) / 0.5, as one difference and quotient
        factors = [std / INCEPTION[1] for std in IMAGENET_STD]
        offsets = [(mean - INCEPTION[0]) / INCEPTION[1] for mean in IMAGENET_MEAN]
        red, green, blue = (
            (mean - offset * std / factor, std / factor)
            for mean, std, offset, factor in zip(ours.mean, ours.std, offsets, factors, strict=True)
        )
        return replace(ours, mean=(red[0], green[0], blue[0]), std=(red[1], green[1], blue[1]))


# by the name of torchvision's builder
FORMS_OF_TIMM = {
    "resnet50": TimmForm("resnet50"),
    "resnext50_32x4d": TimmForm("resnext50_32x4d"),
    "densenet161": TimmForm("densenet161"),
    "regnet_y_3_2gf": TimmForm("regnety_032"),
    "inception_v3": TimmForm("inception_v3", transforms_input=True),
    "convnext_tiny": TimmForm("convnext_tiny", convert=in_order),
    "mobilenet_v3_large": TimmForm("mobilenetv3_large_100", {"bn_eps": 1e-3}, in_order),
    "efficientnet_v2_s": TimmForm("efficientnetv2_s", {"bn_eps": 1e-3}, in_order),
    "swin_t": TimmForm("swin_tiny_patch4_window7_224", convert=of_swin),
    "swin_v2_t": TimmForm("swinv2_tiny_window8_256", convert=of_swin_v2),
}


def timm_form(trained: Trained) -> TimmForm | None:
    """How timm builds the run's network; None: it has no such one."""
    name, builder = trained.record["backbone"]["name"], trained.record["backbone"]["builder"]
    return TimmForm(builder) if name.startswith(TIMM) else FORMS_OF_TIMM.get(builder)


def built(form: TimmForm, trained: Trained) -> nn.Module:
    """timm's network, randomly initialised, for the run's classes and size of images."""
    import timm

    arguments: dict[str, Any] = {"num_classes": len(trained.classes), **form.arguments}
    known = timm.models.get_pretrained_cfg(form.architecture)
    if known and known.fixed_input_size:
        arguments["img_size"] = trained.preprocessing.size
    model: nn.Module = timm.create_model(form.architecture, **arguments)
    return model


def config_of(model: nn.Module) -> dict[str, Any]:
    """What timm knows of a network that it built: its first layer, its head, whether it takes one size of images."""
    return dict(vars(model)["pretrained_cfg"])
