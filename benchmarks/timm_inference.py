"""Images/s of timm's inference.py, whose loop is written here by timm's own parts: the wheel does not have the script.

python benchmarks/timm_inference.py NAME FOLDER SIDE [--workers 2] [--batch-size 256]

The flags have inference.py's defaults, as has what it does: create_dataset and create_loader with the prefetcher,
forward in fp32, NCHW, topk, and a CSV of file names and classes. Prints the images and their seconds, without those of
imports and of building the model.
"""

from __future__ import annotations

import argparse
import csv
import tempfile
import time

import numpy as np
import torch
from timm.data.config import resolve_data_config
from timm.data.dataset_factory import create_dataset
from timm.data.loader import create_loader
from timm.models import create_model


@torch.inference_mode()
def main() -> None:
    """Classify all images of a folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name")
    parser.add_argument("folder")
    parser.add_argument("side", type=int)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--topk", type=int, default=2)
    arguments = parser.parse_args()
    model = create_model(arguments.name, num_classes=2, in_chans=3, pretrained=False).eval()
    config = resolve_data_config({"img_size": arguments.side}, model=model)
    start = time.perf_counter()
    dataset = create_dataset(root=arguments.folder, name="")
    loader = create_loader(
        dataset,
        batch_size=arguments.batch_size,
        use_prefetcher=True,
        num_workers=arguments.workers,
        device=torch.device("cpu"),
        **config,
    )
    indices, chances = [], []
    for images, _ in loader:
        output, found = model(images).softmax(-1).topk(arguments.topk)
        indices.append(found.cpu().numpy())
        chances.append(output.float().cpu().numpy())
    with tempfile.TemporaryFile("w", newline="") as file:
        rows = zip(dataset.filenames(basename=True), np.concatenate(indices), np.concatenate(chances), strict=True)
        csv.writer(file).writerows([name, *of, *sure] for name, of, sure in rows)
    print(f"images {len(dataset)} seconds {time.perf_counter() - start:.3f}")


if __name__ == "__main__":
    main()
