"""checkpoint.pt, while a run lasts and afterwards; what others make of a finished one is in test_weights.py."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.errors import UserError
from engine.records.checkpoint import NEEDED, finished, read_checkpoint, write_checkpoint
from engine.records.schema import CHECKPOINT
from engine.training.state import State
from tests import toy


def unfinished() -> dict[str, Any]:
    return {"state": asdict(State()), **{name: {} for name in NEEDED}}


def test_what_was_written_is_read(tmp_path: Path) -> None:
    assert read_checkpoint(tmp_path, ()) is None
    write_checkpoint(tmp_path, unfinished())
    assert read_checkpoint(tmp_path, ()) == unfinished()
    assert [path.name for path in tmp_path.iterdir()] == [CHECKPOINT]


@pytest.mark.parametrize("name", ["state", *NEEDED])
def test_what_is_needed_to_go_on(tmp_path: Path, name: str) -> None:
    write_checkpoint(tmp_path, {key: value for key, value in unfinished().items() if key != name})
    with pytest.raises(UserError, match=r"(?s)checkpoint\.pt can't be read, .*KeyError\)\..*--rerun"):
        read_checkpoint(tmp_path, ())


@pytest.mark.parametrize("content", [[1], {"state": 3}, {"state": {"history": [], "more": 1}}])
def test_something_else_is_refused(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / CHECKPOINT)
    with pytest.raises(UserError, match="--rerun"):
        read_checkpoint(tmp_path, ())


def test_a_finished_one_has_the_weights_the_record_and_what_a_second_look_needs(tmp_path: Path) -> None:
    model = toy.tiny().to(memory_format=torch.channels_last)
    content = finished(model, asdict(State()), {"run": "x", "status": "done"}, {})
    write_checkpoint(tmp_path, content)
    found = read_checkpoint(tmp_path, ["x"])
    assert found is not None
    assert (found["run"], found["status"], found["state"]["epochs"]) == ("x", "done", 0)
    assert found.keys() == {"model", "state", "run", "status"}
    for name, value in model.state_dict().items():
        assert torch.equal(found["model"][name], value)
        assert found["model"][name].is_contiguous()
    # a copy: training on changes nothing in it
    with torch.no_grad():
        model.get_parameter("0.weight").zero_()
    assert content["model"]["0.weight"].any()
