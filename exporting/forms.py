"""A form that a network is exported in: its files, written into a folder and checked as they are read from there."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from engine.data.part import Pixels
from engine.files import atomic, write_json
from engine.inference.checkpoint import Trained
from engine.models.weights import SEEN, SEEN_FILE
from engine.models.weights_folder import TENSORS
from exporting.agreement import Agreement, Network, Numbers, require_agreement
from exporting.facts import as_texts
from exporting.images import Images
from exporting.served import Served, captured, not_taken, served

OPSET = 18  # the lowest that PyTorch's exporter writes: what reads a later one reads this one, too
FACTS = "model.json"
ONNX, PT2, SAFETENSORS = "model.onnx", "model.pt2", TENSORS[0]


@dataclass(frozen=True)
class Job:
    """What is exported."""

    trained: Trained
    network: Served
    images: Images
    facts: dict[str, Any]


def write_onnx(job: Job, folder: Path) -> Agreement:
    """model.onnx, its facts in its metadata: pixels uint8 (batch, H, W, 3) -> logits, probabilities."""
    import onnx
    import onnxruntime

    model = _onnx_model(job.network)
    for node in model.graph.node:  # what each came of, with the paths of this machine's files
        node.ClearField("metadata_props")
        node.ClearField("doc_string")
    onnx.helper.set_model_props(model, as_texts(job.facts))
    onnx.checker.check_model(model)
    with atomic(folder / ONNX) as file:
        file.write(model.SerializeToString())
    write_json(folder / FACTS, job.facts)
    session = onnxruntime.InferenceSession(str(folder / ONNX), providers=["CPUExecutionProvider"])

    def network(pixels: Pixels) -> tuple[Numbers, Numbers]:
        logits, probabilities = session.run(["logits", "probabilities"], {"pixels": pixels})
        return logits, probabilities

    return require_agreement(ONNX, network, job.network, job.images.pixels)


def _onnx_model(network: Served) -> Any:
    """As PyTorch's exporter writes it. RunError: it can't."""
    program = captured(network)
    names = ["logits", "probabilities"]
    try:
        written = torch.onnx.export(
            program, (), dynamo=True, opset_version=OPSET, input_names=["pixels"], output_names=names, verbose=False
        )
    except Exception as problem:  # an operator that ONNX lacks, in a network of one's own
        raise not_taken("the ONNX exporter", problem) from problem
    assert written is not None
    return written.model_proto


def write_torch(job: Job, folder: Path) -> Agreement:
    """model.pt2, its facts in an extra file: pixels uint8 (batch, H, W, 3) -> logits, probabilities."""
    content = io.BytesIO()
    torch.export.save(captured(job.network), content, extra_files={FACTS: json.dumps(job.facts)})
    with atomic(folder / PT2) as file:
        file.write(content.getbuffer())
    write_json(folder / FACTS, job.facts)
    return require_agreement(PT2, in_torch(torch.export.load(folder / PT2).module()), job.network, job.images.pixels)


def write_safetensors(job: Job, folder: Path) -> Agreement:
    """model.safetensors, a state dict by the run's own names, with the facts in its header and beside it."""
    put_tensors(folder / SAFETENSORS, dict(job.trained.state), job.facts)
    write_json(folder / FACTS, job.facts)
    put_seen(job.trained, folder)
    return require_agreement(SAFETENSORS, reloaded(job, folder / SAFETENSORS), job.network, job.images.pixels)


def put_tensors(path: Path, tensors: dict[str, torch.Tensor], facts: dict[str, Any]) -> None:
    """Write them, each in memory of its own, with the facts in the header."""
    from safetensors.torch import save

    content = save({name: tensor.clone().contiguous() for name, tensor in tensors.items()}, as_texts(facts))
    with atomic(path) as file:
        file.write(content)


def put_seen(trained: Trained, folder: Path) -> None:
    """Write what the checkpoint has of the images that its weights have seen, uint8 (N, 16); nothing if it has none."""
    if trained.seen is not None:
        put_tensors(folder / SEEN_FILE, {SEEN: trained.seen}, {"run": trained.record["run"]})


def reloaded(job: Job, path: Path) -> Network:
    """The run's network with the weights of a file."""
    from safetensors.torch import load_file

    return in_torch(served(replace(job.trained, path=path, state=load_file(path))))


def in_torch(module: torch.nn.Module) -> Network:
    """What gives logits and probabilities, by arrays."""

    def network(pixels: Pixels) -> tuple[Numbers, Numbers]:
        with torch.inference_mode():
            logits, probabilities = module(torch.from_numpy(pixels))
        return logits.numpy(), probabilities.numpy()

    return network
