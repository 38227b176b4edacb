"""record.json: what is read, of which schema, what is refused, and what tells one run from another."""

import copy
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import jsonschema
import pytest

import engine.run
from engine.paths import PROJECT
from engine.records.identity import identity_of, matches
from engine.records.schema import (
    COSTS,
    LARGEST_BYTES,
    NEEDED,
    NEEDED_OF_DONE,
    BackboneRecord,
    Confusion,
    DatasetRecord,
    Record,
    RecordError,
    as_record,
    json_schema,
    read_record,
)
from engine.training.metrics import METRICS
from engine.training.plan import Plan
from engine.training.recipe import default_epochs
from tests.conftest import Command, only_run
from tests.engine.records.kept import SCHEMA_1, SCHEMA_2, as_schema_1, content

QUICK = "-model tiny -bs 16 --weights none --plan off --epochs 1"


@pytest.fixture
def old() -> dict[str, Any]:
    """A finished record of schema 1."""
    return content(SCHEMA_1)


@pytest.fixture
def new() -> dict[str, Any]:
    """A finished record of schema 2."""
    return content(SCHEMA_2)


def valid(record: Any) -> bool:
    return jsonschema.Draft202012Validator(json_schema()).is_valid(record)


def test_a_record_of_today_is_read_as_it_is(new: dict[str, Any]) -> None:
    assert read_record(SCHEMA_2) == new
    assert valid(new)


def test_a_plan_may_say_that_it_is_graphed(new: dict[str, Any]) -> None:
    """Records that do not are from before there were graphs."""
    assert "graphed" not in new["plan"]
    assert valid({**new, "plan": {**new["plan"], "graphed": True}})
    assert not valid({**new, "plan": {**new["plan"], "graphed": "yes"}})
    assert {field.name for field in fields(Plan)} == json_schema()["properties"]["plan"]["properties"].keys()


def test_a_record_of_schema_1_is_read_as_one_of_schema_2(old: dict[str, Any], new: dict[str, Any]) -> None:
    found: Any = read_record(SCHEMA_1)
    assert found["schema"] == 2
    assert found["dataset"] == new["dataset"]
    assert found["dataset"]["counts"] == {"available": 1437, "train": 1295, "val": 142, "test": 360}
    assert found["selection"] == {"part": "val", "top1": old["selection"]["top1"], "epoch": 4, "stage": "sgd"}
    assert found["costs"] == old["costs"] | {"epochs": 4}
    assert found["lr"] == 0.001
    assert found["sweep"] is None
    matrix = [[0] * 10 for _ in range(10)]
    for true, predicted, images in zip(*found["test"]["confusion"].values(), strict=True):
        matrix[true][predicted] = images
    assert matrix == old["test"]["confusion_matrix"]
    assert "confusion_matrix" not in found["test"]
    same = set(old) - {"schema", "dataset", "selection", "test", "costs"}
    assert {name: found[name] for name in same} == {name: old[name] for name in same}
    assert found["epochs"] == 2
    # what the version that wrote it did not record stays unsaid
    assert "decoder" not in found


def test_reading_leaves_the_content_alone(old: dict[str, Any]) -> None:
    before = copy.deepcopy(old)
    as_record(old)
    assert old == before


def test_under_the_paper_protocol_test_chose_the_epoch(old: dict[str, Any]) -> None:
    found = as_record(old | {"selection": old["selection"] | {"part": "test"}, "protocol": "paper"})
    assert found["selection"]["part"] == "test"


@pytest.mark.parametrize(
    ("recipe", "asked_for", "status", "epochs"),
    [
        ("adamw-sgd", 2, "done", 2),
        ("adamw-sgd", None, "done", None),
        ("cosine", 7, "running", 7),
        ("cosine", None, "done", 4),  # those that it had: of its only stage
    ],
)
def test_epochs_of_a_stage_that_schema_1_did_not_name(
    old: dict[str, Any], recipe: str, asked_for: int | None, status: str, epochs: int | None
) -> None:
    config = old["config"] | {"epochs": asked_for, "recipe": recipe}
    assert as_record(old | {"recipe": recipe, "config": config, "status": status})["epochs"] == epochs


def test_epochs_of_an_unfinished_run_are_those_that_it_was_to_have(old: dict[str, Any]) -> None:
    """Else a run of other epochs would go on with it."""
    config = old["config"] | {"epochs": None, "recipe": "cosine"}
    running = {name: value for name, value in old.items() if name not in ("selection", "test")}
    steps = -(-old["dataset"]["counts"]["fit"] // old["batch_size"])
    found = as_record(running | {"recipe": "cosine", "config": config, "status": "running"})
    assert found["epochs"] == default_epochs("cosine", steps)
    assert found["epochs"]


def test_epochs_of_a_recipe_that_is_gone_stay_unsaid(old: dict[str, Any]) -> None:
    config = old["config"] | {"epochs": None}
    running = {name: value for name, value in old.items() if name not in ("selection", "test")}
    assert "epochs" not in as_record(running | {"recipe": "gone", "config": config, "status": "running"})


def test_no_images_a_step(old: dict[str, Any]) -> None:
    config = old["config"] | {"epochs": None}
    with pytest.raises(RecordError, match="division by zero"):
        as_record(old | {"recipe": "cosine", "config": config, "batch_size": 0})


def test_subjects_that_schema_1_did_not_name(old: dict[str, Any]) -> None:
    for key, subjects in (("breakhis_40x", "breakhis"), ("digits", "")):
        assert as_record(old | {"dataset": old["dataset"] | {"key": key}})["dataset"]["subjects"] == subjects


def test_a_run_of_schema_1_that_is_not_done(old: dict[str, Any]) -> None:
    running = {name: value for name, value in old.items() if name not in ("selection", "test")}
    found = as_record(running | {"status": "running", "finished": None})
    assert found["dataset"]["counts"]["available"] == 1437
    assert not {"selection", "test"} & found.keys()


def test_the_first_records_spelled_the_learning_rate_out(old: dict[str, Any]) -> None:
    """They had it among the flags alone, the recipe's own as well."""
    first = {name: value for name, value in old.items() if name not in ("lr", "sweep")}
    for spelled, asked_for in ((1e-3, None), (0.5, 0.5)):
        found = as_record(first | {"config": old["config"] | {"lr": spelled}})
        assert (found["lr"], found["config"]["lr"]) == (spelled, asked_for)
        assert found["sweep"] is None


def test_the_conversion_that_tests_use_is_the_opposite(old: dict[str, Any], new: dict[str, Any]) -> None:
    running = {name: value for name, value in new.items() if name not in ("selection", "test")} | {"status": "running"}
    found = as_record(as_schema_1(running))
    assert found["dataset"] == new["dataset"]
    assert set(as_schema_1(running)) <= set(old)
    assert as_schema_1(running)["config"].keys() == old["config"].keys()


def test_no_file_is_no_record(tmp_path: Path) -> None:
    assert read_record(tmp_path / "record.json") is None
    (tmp_path / "file").touch()
    assert read_record(tmp_path / "file" / "record.json") is None


@pytest.mark.parametrize("name", NEEDED + NEEDED_OF_DONE)
@pytest.mark.parametrize("kept", [SCHEMA_1, SCHEMA_2], ids=["schema 1", "schema 2"])
def test_every_needed_field_that_is_lacking_is_named(kept: Path, name: str) -> None:
    record = content(kept)
    for damaged in (record | {name: None}, {key: value for key, value in record.items() if key != name}):
        # without a status, what only a finished run has is not needed
        with pytest.raises(RecordError, match=rf"^a damaged record: lacks {name}$"):
            as_record(damaged)


@pytest.mark.parametrize("name", NEEDED_OF_DONE)
def test_what_only_a_finished_run_has_is_not_needed_before(new: dict[str, Any], name: str) -> None:
    assert as_record(new | {"status": "running", name: None})


@pytest.mark.parametrize(
    ("place", "lacking"),
    [
        (("dataset", "counts", "fit"), "'fit'"),
        (("dataset", "counts"), "'counts'"),
        (("dataset", "key"), "'key'"),
        (("dataset", "classes"), "'classes'"),
        (("config", "lr"), "'lr'"),
        (("selection", "epochs"), "'epochs'"),
        (("selection", "part"), "'part'"),
        (("test", "confusion_matrix"), "'confusion_matrix'"),
    ],
)
def test_what_schema_1_needs_inside_is_named(old: dict[str, Any], place: tuple[str, ...], lacking: str) -> None:
    *above, last = place
    holder = old
    for name in above:
        holder = holder[name]
    del holder[last]
    with pytest.raises(RecordError, match=f"^a damaged record: lacks {lacking}$"):
        as_record(old)


@pytest.mark.parametrize(
    "change",
    [
        {"dataset": 3},
        {"dataset": []},
        {"config": "x"},
        {"selection": 3},
        {"test": [1]},
        {"costs": 3},
        {"test": {"confusion_matrix": [[1, 2]]}},
        {"test": {"confusion_matrix": 3}},
    ],
    ids=str,
)
def test_a_field_of_another_kind_is_an_error_of_the_record(old: dict[str, Any], change: dict[str, Any]) -> None:
    with pytest.raises(RecordError, match="a damaged record: "):
        as_record(old | change)


def in_depth(record: dict[str, Any], place: str, value: Any) -> dict[str, Any]:
    """The record with `value` at "dataset.counts.train"."""
    *above, last = place.split(".")
    holder = record
    for name in above:
        holder = holder[name]
    holder[last] = value
    return record


@pytest.mark.parametrize(
    "value", [5, "x", [], ["x"], {"a": None}, float("nan"), 10**400, -1], ids=lambda value: f"{value!r:.9}"
)
@pytest.mark.parametrize(
    "place",
    [
        "dataset.counts",
        "dataset.counts.val",
        "environment.code",
        "resumed",
        "test.top1",
        "costs.test_images_per_second",
        "calibration",
        "calibration.temperature",
    ],
)
def test_what_grid_and_script_count_on_is_looked_at_in_depth(new: dict[str, Any], place: str, value: Any) -> None:
    """Every one of these ended the whole grid, or the script, as a fault of the program."""
    fine = (place, value) in [
        ("dataset.counts.val", 5),
        ("test.top1", 5),
        ("costs.test_images_per_second", 5),
        ("calibration.temperature", 5),
        ("resumed", []),
    ]
    fine |= place == "environment.code" and value == []
    harmed = in_depth({**new, "calibration": {"temperature": 1.5}}, place, value)
    if fine:
        assert as_record(harmed) == harmed
    else:
        with pytest.raises(RecordError, match=r"^a damaged record: "):
            as_record(harmed)


@pytest.mark.parametrize(
    "resume", [None, 5, {}, {"at": "2026"}, {"environment": None}, {"environment": {"code": "x"}}], ids=str
)
def test_a_resume_that_is_none_is_damage(new: dict[str, Any], resume: Any) -> None:
    with pytest.raises(RecordError, match=r"^a damaged record: (resumed|the code) is "):
        as_record(new | {"resumed": [resume]})


@pytest.mark.parametrize("schema", [0, 3, 2.5, "2", None, [2], {}])
def test_another_schema_is_named(new: dict[str, Any], schema: Any) -> None:
    with pytest.raises(RecordError, match="this version reads 1 to 2") as caught:
        as_record(new | {"schema": schema})
    assert f"has schema {schema}" in str(caught.value)


@pytest.mark.parametrize("found", [[], 3, "record", None, {}, {"schema": 2}, {"run": "x"}], ids=str)
def test_json_that_is_no_record(found: Any) -> None:
    with pytest.raises(RecordError, match=r"^no record of this project$"):
        as_record(found)


def huge(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(LARGEST_BYTES + 1)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (os.mkfifo, "^can't be read: it is no regular file$"),  # which would be waited for without end
        (Path.mkdir, "^can't be read: it is no regular file$"),
        (huge, "^not readable JSON: it is larger than 67,108,864 bytes$"),
        (lambda path: path.write_bytes(b""), "^not readable JSON: "),
        (lambda path: path.write_bytes(b'{"schema": 2'), "^not readable JSON: "),
        (lambda path: path.write_bytes(b"\xff\xfe\xfd"), "^not readable JSON: "),
        (lambda path: path.write_bytes(b"[" * 200_000), "^not readable JSON: "),
        (lambda path: path.symlink_to(path), "^can't be read: "),
    ],
    ids=["pipe", "folder", "huge", "empty", "cut short", "bytes", "deep", "link to itself"],
)
def test_files_that_are_no_records(tmp_path: Path, make: Callable[[Path], object], says: str) -> None:
    path = tmp_path / "record.json"
    make(path)
    with pytest.raises(RecordError, match=says):
        read_record(path)


def test_the_json_schema_describes_records_of_every_status(command: Command, tmp_path: Path) -> None:
    jsonschema.Draft202012Validator.check_schema(json_schema())

    def cut_off(*_: Any) -> Any:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("engine.run.predict", cut_off)
        assert command(QUICK) == 130
    path = only_run(tmp_path / "runs") / "record.json"
    for command_line, status in ((None, "running"), (QUICK, "done"), (f"{QUICK} --rerun --lr 1e6", "failed")):
        if command_line:
            out = "" if status == "done" else " --out other"
            command(f"{command_line}{out} --precision fp32" if status == "failed" else command_line)
            path = only_run(tmp_path / ("other" if status == "failed" else "runs")) / "record.json"
        record = content(path)
        assert record["status"] == status
        jsonschema.validate(record, json_schema())


def test_the_json_schema_refuses_what_is_not_whole(new: dict[str, Any]) -> None:
    running = {name: value for name, value in new.items() if name not in ("selection", "test")}
    running |= {"status": "running", "finished": None}
    before = {name: new["costs"][name] for name, cost in COSTS.items() if cost.known_before}
    assert valid(running | {"costs": before})
    assert not valid(new | {"costs": before})
    assert not valid(running | {"status": "done"})
    assert not valid(new | {"more": 1})
    assert not valid(new | {"schema": 1})
    for name in new:
        assert not valid({key: value for key, value in new.items() if key != name}), name
    for group, entries in (("test", METRICS), ("costs", COSTS)):
        for name in entries:
            without = {key: value for key, value in new[group].items() if key != name}
            may_lack = name != "top1" if group == "test" else COSTS[name].added
            assert valid(new | {group: without}) == may_lack, name
            assert not valid(new | {group: new[group] | {name: -1}}), name
            assert not valid(new | {group: new[group] | {name: "1"}}), name
    for name, metric in METRICS.items():
        assert valid(new | {"test": new["test"] | {name: None}}) == metric.optional, name
    for name, cost in COSTS.items():
        assert valid(new | {"costs": new["costs"] | {name: None}}) == cost.optional, name


def test_the_types_and_the_json_schema_name_the_same_fields() -> None:
    properties = json_schema()["properties"]
    assert Record.__annotations__.keys() == properties.keys()
    assert DatasetRecord.__annotations__.keys() == properties["dataset"]["properties"].keys()
    assert BackboneRecord.__annotations__.keys() == properties["backbone"]["properties"].keys()
    assert Confusion.__annotations__.keys() == properties["test"]["properties"]["confusion"]["properties"].keys()


def test_the_json_schema_is_printed_in_full() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "engine.records.schema"], cwd=PROJECT, capture_output=True, text=True, check=True
    )
    printed = json.loads(done.stdout)
    assert printed == json_schema()
    properties = printed["properties"]
    assert METRICS.keys() <= properties["test"]["properties"].keys()
    assert COSTS.keys() == properties["costs"]["properties"].keys()
    assert all(each["description"] for group in ("test", "costs") for each in properties[group]["properties"].values())


IDENTITY = ("asked", "dataset", "version", "decoder", "split", "weights", "batch_size", "lr", "epochs")


@pytest.mark.parametrize(
    "flags",
    [
        "",
        "--recipe cosine --lr 1e-4",
        "--protocol paper",
        "--tune linear --seed 3",
        "-bs 500",
        "--recipe cosine --lr-sweep",
    ],
)
def test_a_record_tells_the_identity_that_its_run_was_found_by(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: str
) -> None:
    given: list[dict[str, Any]] = []

    def watched(*all_of_it: Any) -> dict[str, Any]:
        given.append(identity(*all_of_it))
        return given[-1]

    identity = engine.run.identity
    monkeypatch.setattr(engine.run, "identity", watched)
    assert command(f"{QUICK} {flags}") == 0
    record = content(only_run(tmp_path / "runs") / "record.json")
    found = identity_of(record)
    assert tuple(given[0]) == IDENTITY
    expected = {name: value for name, value in given[0].items() if name != "lr" or record["sweep"] is None}
    assert found == expected
    assert matches(record, given[0])


def test_an_older_record_of_the_same_run_matches(old: dict[str, Any], new: dict[str, Any]) -> None:
    identity = identity_of(new)
    assert set(identity) == set(IDENTITY)
    assert matches(new, identity)
    assert matches(as_record(old), identity)


OTHERS: dict[str, Any] = {
    "dataset": "eurosat",
    "version": "2",
    "decoder": 7,
    "split": "0" * 64,
    "weights": "0" * 64,
    "batch_size": 8,
    "lr": 0.5,
    "epochs": 7,
}


@pytest.mark.parametrize("name", OTHERS)
def test_what_differs_is_another_run(old: dict[str, Any], new: dict[str, Any], name: str) -> None:
    identity = identity_of(new) | {name: OTHERS[name]}
    assert not matches(new, identity)
    # what the older record does not say is not held against it
    assert matches(as_record(old), identity) == (name == "decoder")


@pytest.mark.parametrize(
    "change",
    [{"seed": 2}, {"size": [32, 64]}, {"tune": "linear"}, {"ema": True}, {"layer_decay": 0.7}, {"device": "cpu"}],
    ids=str,
)
def test_another_flag_is_another_run(old: dict[str, Any], new: dict[str, Any], change: dict[str, Any]) -> None:
    identity = identity_of(new)
    for record in (new, old):
        assert not matches(as_record(record | {"config": record["config"] | change}), identity)


def test_the_learning_rate_that_a_sweep_chose_is_not_the_one_that_it_began_with(new: dict[str, Any]) -> None:
    swept = new | {"sweep": [{"lr": 0.0001}], "lr": 0.0001}
    assert matches(swept, identity_of(new))
    assert not matches(new | {"lr": 0.0001}, identity_of(new))
