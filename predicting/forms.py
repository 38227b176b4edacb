"""In which form a checkpoint's model is computed here."""

from __future__ import annotations

from engine.inference.checkpoint import Trained
from engine.training.plan import Plan, choose_plan


def plan_of(trained: Trained, device: str) -> Plan:
    """The run's own plan, where this is such a device as it had, so that it computes the same; else what is usual."""
    begun = Plan(**trained.record["plan"])
    here = choose_plan(device, "auto")
    if begun.sound and begun.device == here.device and _model(begun.device_name) == _model(here.device_name):
        return begun
    return here


def _model(device_name: str) -> str:
    """What a device is called, without the number of threads that there were to be had."""
    return device_name.partition(",")[0]
