"""torchvision's Inception v3 as a backbone like the others."""

from __future__ import annotations

from typing import Any

from torch import nn
from torchvision.models import Inception3


def inception_v3() -> nn.Module:
    """Inception v3 without its auxiliary head: logits in train mode too.

    Pretrained inputs are expected at a mean and deviation of 0.5; `transform_input` gets them there from ImageNet's.
    """
    model: nn.Module = Inception3(aux_logits=False, transform_input=True, init_weights=True)

    def drop_auxiliary(_: nn.Module, state: dict[str, Any], *rest: Any) -> None:
        for key in [key for key in state if key.startswith("AuxLogits.")]:
            del state[key]

    model.register_load_state_dict_pre_hook(drop_auxiliary)
    return model
