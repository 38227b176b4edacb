"""What is exported: the network with its preprocessing in it, so that whoever serves it can't get that wrong."""

from __future__ import annotations

import torch
from torch import nn

from engine.errors import RunError, one_line
from engine.inference.checkpoint import Trained
from engine.inference.preprocessing import Preprocessing


class Served(nn.Module):
    """uint8 (B, H, W, 3) of the stored size -> logits, and probabilities by the temperature that was fitted, if any.

    Resizing and normalising are what training did on the device; decoding stays outside.
    """

    def __init__(self, network: nn.Module, preprocessing: Preprocessing, temperature: float | None) -> None:
        super().__init__()
        self.network = network
        self.preprocessing = preprocessing
        self.temperature = 1.0 if temperature is None else temperature

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """float32 (B, classes) each."""
        logits = self.network(self.preprocessing.to_input(pixels))
        return logits, (logits / self.temperature).softmax(1)


def served(trained: Trained) -> Served:
    """What the run trained, on the processor, ready to be exported. UserError: its weights do not fit its backbone."""
    return Served(trained.model(), trained.preprocessing, trained.temperature).eval()


def not_taken(by: str, problem: Exception) -> RunError:
    """The error to raise where PyTorch can't export the network."""
    reason = one_line((str(problem).strip() or type(problem).__name__).partition("\n")[0])[:300]
    return RunError(f"{by} does not take this network: {reason}. Nothing is written; --to safetensors takes any.")


def captured(network: Served) -> torch.export.ExportedProgram:
    """Its computation as torch.export has it, for any number of images; without the paths of the files it is from."""
    example = torch.zeros(2, *network.preprocessing.stored_size, 3, dtype=torch.uint8)  # of 1, it would be for 1 alone
    try:
        program = torch.export.export(network, (example,), dynamic_shapes={"pixels": {0: torch.export.Dim.DYNAMIC}})
    except Exception as problem:  # whatever a network of one's own leads it to
        raise not_taken("torch.export", problem) from problem
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)
    return program
