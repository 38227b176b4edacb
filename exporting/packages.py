"""The packages that single formats need, which are installed by those who export."""

from __future__ import annotations

from importlib import import_module

from engine.errors import UserError

INSTALL = "pip install -r requirements-export.txt"
NEEDED: dict[str, tuple[str, ...]] = {
    "onnx": ("onnx", "onnxscript", "onnxruntime"),
    "torch": (),
    "safetensors": ("safetensors",),
    "hub": ("safetensors", "timm"),
}


def require_packages(form: str) -> None:
    """UserError, with the line that installs them, where a package that the format needs can't be imported."""
    for name in NEEDED[form]:
        try:
            import_module(name)
        except ImportError as problem:
            raise UserError(f"--to {form} needs the package {name} ({problem}): {INSTALL}") from problem
