"""The model card of a hub folder, made from what an export says of itself."""

from __future__ import annotations

import json
from typing import Any

from engine.console import duration
from engine.training.metrics import METRICS

MOST_CLASSES = 50  # that are named; config.json has all
HUB_TYPES = {"top1": "accuracy", "macro_f1": "f1"}  # of the metrics that the hub has a name for
PROTOCOLS = {
    "honest": "The epoch was chosen on a validation part; the test part was scored once, at the end.",
    "paper": "The test part itself chose the epoch, as in the published comparison: the numbers are optimistic.",
}
CODE = """```python
import timm

model = timm.create_model("hf-hub:YOUR_NAME/YOUR_MODEL", pretrained=True).eval()
transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
```"""


def model_card(facts: dict[str, Any], architecture: str | None, not_in_timm: str = "") -> str:
    """README.md, with the front matter that the hub reads.

    architecture: timm's name; None: timm can't load it, and `not_in_timm` says why.
    """
    name = f"{facts['backbone']['name']} on {facts['dataset']['name']}"
    sections = [
        _front_matter(facts, name, architecture),
        f"# {_text(name)}\n\n{_summary(facts)}",
        f"## Results\n\n{_results(facts)}",
        f"## Data\n\n{_data(facts)}",
        f"## Training and its cost\n\n{_training(facts)}",
        f"## Use\n\n{_use(facts, architecture, not_in_timm)}",
        f"## Limits\n\n{_limits(facts)}",
        f"## Licences\n\n{_licences(facts)}",
    ]
    return "\n\n".join(sections) + "\n"


def _front_matter(facts: dict[str, Any], name: str, architecture: str | None) -> str:
    """YAML, whose texts are as JSON has them."""
    lines = ["---", "pipeline_tag: image-classification", "license: other", "license_name: see-model-card"]
    lines += ["library_name: timm"] if architecture else []
    lines += ["tags:", "- image-classification", "- pytorch", *(["- timm"] if architecture else [])]
    lines += ["model-index:", f"- name: {json.dumps(name)}", "  results:", "  - task:"]
    lines += ["      type: image-classification", "    dataset:", f"      name: {json.dumps(facts['dataset']['name'])}"]
    lines += [f"      type: {json.dumps(facts['dataset']['key'])}", "      split: test", "    metrics:"]
    for metric, kind in HUB_TYPES.items():
        if metric in facts["metrics"]:
            label = json.dumps(METRICS[metric].label)
            lines += [f"    - type: {kind}", f"      name: {label}", f"      value: {facts['metrics'][metric]!r}"]
    return "\n".join([*lines, "---"])


def _summary(facts: dict[str, Any]) -> str:
    backbone, counts = facts["backbone"], facts["dataset"]["counts"]
    pretrained = backbone["weights"] != "none"
    begun = f"fine-tuned from the weights {_text(backbone['weights'])}" if pretrained else "trained from random weights"
    return (
        f"{_text(backbone['builder'])}, {begun} on {counts['train']:,} images of "
        f"{_text(facts['dataset']['name'])}, to tell {len(facts['classes']):,} classes apart. Run `{facts['run']}`."
    )


def _results(facts: dict[str, Any]) -> str:
    metrics = facts["metrics"]
    rows = ["| on the test part | |", "|---|---|", f"| images | {metrics['images']:,} |"]
    for name, metric in METRICS.items():
        if name not in metrics:
            continue
        value = f"{metrics[name]:.2%}" if metric.percent else f"{metrics[name]:.4f}"
        if ends := metrics.get(f"{name}_interval"):
            value += f" (95 % interval {ends[0]:.2%} to {ends[1]:.2%})"
        rows.append(f"| {metric.label} | {value} |")
    note = (
        "The intervals are Wilson's, for the number of test images; they do not say how much another training would "
        f"differ. {PROTOCOLS[facts['protocol']]}"
    )
    return "\n".join(rows) + f"\n\n{note}"


def _data(facts: dict[str, Any]) -> str:
    dataset = facts["dataset"]
    counts = dataset["counts"]
    rows = [
        f"- {_text(dataset['name'])}, version {_text(dataset['version'])}: {counts['train']:,} images to train, "
        f"{counts['val']:,} to choose the epoch, {counts['test']:,} to test",
        f"- sha256 of the split (every name, label and pixel): `{dataset['split']}`",
    ]
    rows += [f"- sha256 of the test part: `{dataset['test_part']}`"] if dataset["test_part"] else []
    rows += [f"- {dataset[key]}" for key in ("citation", "page") if dataset.get(key)]
    classes = facts["classes"]
    more = f" and {len(classes) - MOST_CLASSES:,} more, in config.json" if len(classes) > MOST_CLASSES else ""
    return "\n".join([*rows, f"- classes: {', '.join(map(_text, classes[:MOST_CLASSES]))}{more}"])


def _training(facts: dict[str, Any]) -> str:
    costs = facts["costs"]
    rows = [
        f"- protocol {facts['protocol']}, recipe {_text(facts['recipe'])}, seed {facts['seed']}",
        f"- {costs['parameters'] / 1e6:.1f} million parameters, {costs['macs'] / 1e9:.2f} billion multiply-accumulates "
        "an image",
        f"- {duration(costs['train_seconds'])} of training on {_text(costs['device'])}: {costs['epochs']:,} epochs, "
        f"{costs['images']:,} images processed",
    ]
    if "energy_joules" in costs:
        rows.append(f"- {costs['energy_joules'] / 3.6e6:.3f} kWh of the card while it trained")
    return "\n".join(rows)


def _use(facts: dict[str, Any], architecture: str | None, not_in_timm: str) -> str:
    preprocessing = facts["preprocessing"]
    height, width = preprocessing["stored_size"]
    steps = f"Images are decoded and resized to {height}x{width} pixels: {preprocessing['decoding']}."
    if preprocessing["size"] != preprocessing["stored_size"]:
        steps += " They are then resized, bilinear and in floating point, to {}x{}.".format(*preprocessing["size"])
    again = "`--weights FOLDER` of the program that trained it begins from this folder."
    if architecture is None:
        return f"timm can't load it: {not_in_timm}. {steps} {again}"
    return f"{CODE}\n\n{steps} {again}"


def _limits(facts: dict[str, Any]) -> str:
    dataset = facts["dataset"]
    temperature = facts["temperature"]
    rows = [
        "- It knows the classes above and nothing else: whatever it is shown, it names one of them.",
        "- What is measured holds for images like those of the test part: the same source, camera and population.",
    ]
    if temperature is None:
        rows.append("- Its probabilities are not calibrated.")
    else:
        rows.append(f"- Logits divided by {temperature:.4g}, as fitted on val, give calibrated probabilities.")
    if facts["backbone"]["weights"] == "none":
        rows.append("- It was not pretrained.")
    if dataset["partial"]:
        rows.append("- The dataset was not complete.")
    rows += [f"- {_text(note)}" for note in dataset.get("notes", ())]
    return "\n".join(rows)


def _licences(facts: dict[str, Any]) -> str:
    licences = facts["licences"]
    return (
        f"- of the images: {_text(licences['images'])}\n- of the weights that training began from: "
        f"{_text(licences['weights'])}\n\nWhoever publishes this model must see to both, and state the licence above."
    )


def _text(value: str) -> str:
    """The value in a line of Markdown, in which nothing of it is taken for a mark or for HTML."""
    escaped = "".join(f"\\{letter}" if letter in "\\`*_[]<>#|&~" else letter for letter in value)
    return escaped if escaped.isprintable() else "".join(each if each.isprintable() else "?" for each in escaped)
