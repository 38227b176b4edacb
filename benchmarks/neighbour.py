"""Training that keeps a machine busy: steps of a small convolutional network without end, at low priority.

python benchmarks/neighbour.py PARENT

It says "busy" when it has made its first step, and ends with the process of the number PARENT.
"""

from __future__ import annotations

import os
import sys

import torch
from torch import nn

NICE = 10  # on a scale from -20 to 19: the higher, the later others let it go


def main() -> None:
    """Train until the process that started this one ends."""
    if hasattr(os, "nice"):  # Windows has none
        os.nice(NICE)
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 64, 3, 2, 1),
        nn.BatchNorm2d(64),
        nn.ReLU(),
        nn.Conv2d(64, 128, 3, 2, 1),
        nn.BatchNorm2d(128),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(128, 10),
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    images, labels = torch.randn(16, 3, 128, 128), torch.randint(10, (16,))
    said = False
    while os.getppid() == int(sys.argv[1]):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()
        if not said:
            print("busy", flush=True)
        said = True


if __name__ == "__main__":
    main()
