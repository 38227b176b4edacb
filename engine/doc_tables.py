"""The tables of datasets and backbones in docs/, from the declarations."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from engine.console import size_text
from engine.data.declaration import Dataset
from engine.models.backbone import Backbone, WeightsFile, stated_top1


def dataset_table(datasets: Iterable[Dataset]) -> str:
    """A row a dataset: script, name, published counts, splits, input size, how it comes."""
    rows = [("command", "dataset", "train / test / classes (published)", "honest split", "input", "how it comes")]
    for dataset in datasets:
        command = f"`{dataset.script_name}.py {dataset.flags}".rstrip() + "`"
        counts = " / ".join(map(count_text, (dataset.train_images, dataset.test_images, dataset.classes)))
        height, width = dataset.size
        rows.append(
            (
                command,
                dataset.name,
                counts,
                dataset.split + _honest_counts(dataset),
                f"{height}x{width}" if height != width else str(height),
                how_it_comes(dataset),
            )
        )
    return _markdown(rows)


def count_text(count: int) -> str:
    """A count of a declaration, in which 0 stands for one that nobody knows."""
    return f"{count:,}" if count else "?"


def _honest_counts(dataset: Dataset) -> str:
    counts = dataset.counts.get("honest", ())
    return f": {counts[0]:,} / {counts[1]:,}" if len(counts) == 2 else f", of {counts[0]:,}" if counts else ""


def how_it_comes(dataset: Dataset) -> str:
    """Embedded, fetched or by hand, in a few words."""
    if not dataset.files:
        return "embedded"
    if not all(file.urls for file in dataset.files):
        return "by hand"
    sizes = [file.bytes for file in dataset.files]
    return "fetched" if None in sizes else f"fetched, {size_text(sum(size or 0 for size in sizes))}"


def backbone_table(backbones: Mapping[str, Backbone]) -> str:
    """A row a backbone: names, weights, parameters of the 1000-class model, published accuracy on ImageNet."""
    rows = [("`-model`", "torchvision's name", "weights of `--weights imagenet`", "M parameters", "ImageNet top-1")]
    for name, backbone in backbones.items():
        parameters = sum(parameter.numel() for parameter in backbone.build().parameters())
        pretrained = backbone.pretrained if backbone.weights else None
        top1 = pretrained and stated_top1(pretrained)
        if pretrained is None:
            theirs, weights = backbone.builder_name, "none"
        elif isinstance(pretrained, WeightsFile):
            theirs, weights = f"(package {name})", pretrained.name
        else:
            theirs, weights = backbone.builder_name, str(pretrained)
        accuracy = "not stated" if top1 is None else f"{top1:.2f}"
        rows.append((f"`{name}`", theirs, f"`{weights}`", f"{parameters / 1e6:.1f}", accuracy))
    return _markdown(rows)


def _markdown(rows: Sequence[tuple[str, ...]]) -> str:
    head, *body = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([head, "|" + "---|" * len(rows[0]), *body])


def put_table(text: str, name: str, table: str) -> str:
    """`text` with the table between its two marks, `<!-- name -->` and `<!-- /name -->`.

    ValueError: the pair of marks is missing.
    """
    pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
    text, count = pattern.subn(lambda match: f"{match[1]}{table}\n{match[2]}", text)
    if count != 1:
        raise ValueError(f"the marks <!-- {name} --> and <!-- /{name} --> are there {count} times, not once")
    return text
