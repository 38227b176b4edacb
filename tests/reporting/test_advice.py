"""reporting/advice.py and chance.py: the answer in plain words, and what to run next."""

import json
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import grid
import report
from engine.training.metrics import evaluate
from reporting.build import build
from reporting.chance import Chance, beats_chance, chance_of
from reporting.collect import collect
from reporting.comparable import divide
from tests.reporting import synthetic

NOTHING = {"weights": "none", "weights_sha256": None}


def own(place: Path | str = "/photos") -> dict[str, Any]:
    """What a record says of a folder of photographs."""
    part = {"key": "folder-photos", "name": "photos", "domain": "own", "published": False, "place": str(place)}
    return part | {"subjects": ""}


def right(hits: int) -> list[bool]:
    return [index < hits for index in range(100)]


def photos(folder: Path, name: str, /, *hits: int, **changes: Any) -> list[Path]:
    """A run a seed, on two classes of equal sizes, of whose test images it got so many right."""
    return [
        synthetic.write_outcome(folder, "dtd", name, seed, right(of), dataset=own(), recipe="cosine", **changes)
        for seed, of in enumerate(hits)
    ]


def advised(runs: Path) -> dict[str, Any]:
    advice: dict[str, Any] = build(collect(runs), runs)["groups"][0]["budgets"][0]["advice"]
    return advice


def test_one_that_is_ahead_and_one_for_speed(tmp_path: Path) -> None:
    photos(tmp_path, "convnext", 97, 98, 97)
    photos(tmp_path, "mobilenet", 88, 89, 88)
    photos(tmp_path, "resnet", 70, 71, 70)
    advice = advised(tmp_path)
    assert advice["headline"] == "Take convnext: 97.3 % of 100 test images right (average of 3 trainings)."
    assert advice["open"] is False
    speed, ahead, other, guess = advice["more"]
    assert speed.startswith("If speed matters, take mobilenet: 4.")
    assert speed.endswith(" times as fast (images/s in training on NVIDIA A100-SXM4-40GB), for 9 points less.")
    assert ahead == "It is ahead of every other by more than chance gives; next is mobilenet, 88.3 %."
    assert other == "Of other images of the kind, convnext may get 92 to 99 % right: 100 test images say no more."
    assert guess == "Guessing among 2 classes gives 50.0 %."


def test_too_close_to_tell_takes_the_cheapest_of_those_that_are_as_good(tmp_path: Path) -> None:
    photos(tmp_path, "convnext", 90, 92, 91)
    photos(tmp_path, "mobilenet", 91, 90, 91)
    photos(tmp_path, "shufflenet", 85, 88, 88)
    photos(tmp_path, "resnet", 65, 66, 65)
    advice = advised(tmp_path)
    assert advice["headline"] == (
        "Too close to tell: take mobilenet, 90.7 % of 100 test images right (average of 3 trainings)."
    )
    close, behind, *_ = advice["more"]
    assert close.startswith(
        "convnext (91.0 %), mobilenet and shufflenet differ by no more than chance gives; of those within 1 point of "
        "the highest, mobilenet is the cheapest: 4."
    )
    assert close.endswith("for 0.3 points less.")
    assert behind == "Behind by more than chance gives: resnet."
    assert any(each["why"].startswith("To tell closer ones apart") for each in advice["commands"])


def test_one_that_is_not_as_good_in_practice_is_not_taken_for_its_speed(tmp_path: Path) -> None:
    """Not significantly below by so few images and seeds, but five points are no trifle."""
    photos(tmp_path, "convnext", 90, 92, 91)
    photos(tmp_path, "shufflenet", 93, 80, 86)
    advice = advised(tmp_path)
    assert advice["headline"].startswith("Too close to tell: take convnext, 91.0 %")
    assert advice["more"][0].endswith("differ by no more than chance gives; convnext is the highest.")
    assert advice["more"][1].endswith(", for 4.7 points less, which chance alone can give.")


def test_three_seeds_at_half_of_two_classes_are_no_better_than_guessing(tmp_path: Path) -> None:
    for name in ("convnext", "swin"):
        photos(tmp_path, name, 50, 50, 50, backbone=NOTHING, config={"weights": "none"})
    advice = advised(tmp_path)
    assert advice["headline"] == (
        "No better than guessing: convnext, like swin, has 50.0 % of 100 test images right (average of 3 trainings)."
    )
    assert advice["more"][0] == "Guessing among 2 classes gives 50.0 %."
    assert "begin from pretrained ones" in advice["more"][1]
    assert (advice["open"], advice["taken"]) == (True, None)
    first, look = advice["commands"]
    assert "pretrained" in first["why"]
    assert "--weights" not in first["command"]
    assert look["command"].endswith("folder.py /photos --check")


def test_a_little_above_guessing_is_not_clearly_better(tmp_path: Path) -> None:
    photos(tmp_path, "convnext", 55, 56, 55)
    advice = advised(tmp_path)
    assert advice["headline"].startswith("Not clearly better than guessing: convnext has 55.3 %")
    assert "a look at the labels" in advice["more"][1]


def uneven(folder: Path, backbone: str, found: int, lost: int) -> None:
    """Three runs on 80 images of one class and 20 of another, of which it found so many, and so many less of the 80."""
    labels = np.repeat([0, 1], (80, 20))
    predicted = np.concatenate([np.arange(80) < lost, np.arange(20) < found]).astype(int)
    for seed in range(3):
        part = own() | {"classes": ["benign", "malignant"]}
        made = synthetic.record(
            "dtd", backbone, seed, test=evaluate(np.eye(2, dtype=np.float32)[predicted], labels), dataset=part
        )
        made["dataset"]["counts"]["test"] = 100
        synthetic.write(folder, made)


def test_guessing_is_to_answer_with_the_largest_class(tmp_path: Path) -> None:
    uneven(tmp_path, "convnext", 0, 0)
    advice = advised(tmp_path)
    assert advice["headline"].startswith("No better than guessing: convnext has 80.0 %")
    assert advice["more"][0] == (
        "Always answering “benign” gives 80.0 %; with every class counted alike (balanced accuracy) convnext has "
        "50.0 %, and guessing 50.0 %."
    )


def test_finding_a_rare_class_is_better_than_guessing(tmp_path: Path) -> None:
    """Though no more images are right than if all were called benign."""
    uneven(tmp_path, "convnext", 16, 16)
    advice = advised(tmp_path)
    assert advice["headline"].startswith("Only convnext has a result so far: 80.0 %")
    assert "convnext has 80.0 %, and guessing 50.0 %." in advice["more"][-1]


def test_what_beats_chance(tmp_path: Path) -> None:
    photos(tmp_path, "convnext", 10, 50, 90)  # of which one is at luck's mercy
    photos(tmp_path, "swin", 65, 66, 64)
    photos(tmp_path, "resnet", 58)
    ((group,), _) = divide(collect(tmp_path).entries)
    cells = {cell.backbone: cell for cell in group.cells.values()}
    chance = chance_of(cells["swin"])
    assert chance == Chance(0.5, chance.largest, 2, True)
    assert {name: beats_chance(cell, chance) for name, cell in cells.items()} == {
        "convnext": False,
        "swin": True,
        "resnet": False,  # 0.48 to 0.67 by 100 images
    }


def test_few_seeds_are_said_to_be_few(tmp_path: Path) -> None:
    photos(tmp_path, "convnext", 90)
    photos(tmp_path, "mobilenet", 80, 81)
    advice = advised(tmp_path)
    assert advice["headline"] == (
        "So far, take convnext: 90.0 % of 100 test images right (one training), 9.5 points ahead of mobilenet."
    )
    assert advice["open"] is True
    assert advice["more"][0].startswith("That may be chance: to tell, each backbone takes 3 trainings")
    first = advice["commands"][0]
    assert first["why"] == ("What is missing, 3 runs (convnext has 1 of 3 trainings; mobilenet has 2 of 3 trainings)")
    assert " --models convnext mobilenet --seeds 1-2 " in first["command"]


def test_no_more_datasets_for_whoever_has_one(tmp_path: Path) -> None:
    photos(tmp_path, "convnext", 90, 92, 91)
    photos(tmp_path, "swin", 70, 71, 70)
    made = build(collect(tmp_path), tmp_path)
    ranking = made["groups"][0]["budgets"][0]["rankings"]["overall"]
    assert ranking["answer"] == "convnext: best mean top-1 on photos, 91.00%; swin is significantly below it."
    assert ranking["missing"] == []
    said = "\n".join(report.lines(made, tmp_path))
    assert "rank" not in said
    assert "answer     Take convnext: 91.0 % of 100 test images right" in said


def test_without_one_machine_the_cost_is_what_is_computed(tmp_path: Path) -> None:
    photos(tmp_path, "convnext", 97, 98, 97)
    photos(tmp_path, "mobilenet", 88, 89, 88, plan={"device_name": "Apple M1"})
    (speed, *_) = advised(tmp_path)["more"]
    assert speed.startswith("If speed matters, take mobilenet: 22 times less to compute (GMACs an image), for 9 points")


def test_the_trained_network_is_that_of_the_best_val(tmp_path: Path) -> None:
    runs = photos(tmp_path, "convnext", 97, 98, 99)
    for run, top1 in zip(runs, (0.8, 0.9, 0.7), strict=True):
        made = json.loads((run / "record.json").read_text())
        made["selection"]["top1"] = top1
        (run / "record.json").write_text(json.dumps(made))
    absent = advised(tmp_path)
    assert absent["taken"]["path"] == ""
    assert not any("--weights" in each["command"] for each in absent["commands"])
    for run in runs:
        (run / "checkpoint.pt").touch()
    taken = advised(tmp_path)
    path = str(runs[1] / "checkpoint.pt")
    assert taken["taken"]["path"] == path
    assert taken["taken"]["why"] == (
        "of its 3 trainings that with seed 1, the best on the images that chose the epoch (90.0 % of val; test chose "
        "nothing)"
    )
    assert taken["commands"][-1]["command"].endswith(f"--weights {path}")


def test_what_failed_and_what_was_interrupted_is_run_by_one_command(tmp_path: Path) -> None:
    runs = tmp_path / "my runs"
    photos(runs, "convnext", 90, 92, 91)
    photos(runs, "swin", 70, 71)
    half: dict[str, Any] = {"dataset": own(), "recipe": "cosine", "finished": None}
    synthetic.write(runs, synthetic.record("dtd", "resnet", 0, status="running", **half))
    other = synthetic.record("dtd", "regnet", 0, status="running", **half, config={"tune": "linear"})
    synthetic.write(runs, other)
    (runs / "grid").mkdir()
    failure = {"dataset": "folder-photos", "model": "swin", "seed": 2, "budget": "all", "reason": "out of\nmemory"}
    (runs / "grid" / "one.json").write_text(json.dumps(failure))
    (runs / "grid" / "done since.json").write_text(json.dumps(failure | {"model": "convnext"}))
    (runs / "grid" / "few.json").write_text(json.dumps(failure | {"budget": "shots 5"}))
    with_flags = ["python", "folder.py", "/photos", "-model", "regnet", "--seed", "1", "--folds", "5"]
    (runs / "grid" / "folds.json").write_text(json.dumps(failure | {"model": "regnet", "command": with_flags}))
    first = advised(runs)["commands"][0]
    assert first["why"] == (
        "What is missing, 4 runs (swin has 2 of 3 trainings; 1 not finished; swin, seed 2, failed: out of memory)"
    )
    words = shlex.split(first["command"])
    assert words[words.index("--models") + 1 : words.index("--seeds")] == ["resnet", "swin"]
    assert words[-3:] == ["--out", str(runs), "--retry-failed"]


def test_where_nothing_is_finished_the_commands_are_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "the photos").mkdir()
    part: dict[str, Any] = {"dataset": own(tmp_path / "the photos"), "recipe": "cosine", "config": {"recipe": "cosine"}}
    for seed, status in ((0, "failed"), (1, "running")):
        made = synthetic.record("dtd", "swin", seed, status=status, error="RunError: nan", **part)
        synthetic.write(Path("runs"), made)
    assert report.main([]) == 0
    printed = capsys.readouterr().out
    assert "answer     none yet" in printed
    assert "next       photos: 2 runs not finished (RunError: nan):" in printed
    (command,) = [line.strip() for line in printed.split("\n") if "grid.py" in line]
    words = shlex.split(command)
    options = grid.parser().parse_args(words[2:])
    assert (options.datasets, options.seeds, options.retry_failed) == (["folder:the photos"], ["0-1"], True)
    page = (tmp_path / "report" / "report.html").read_text("utf-8")
    assert "No answer yet: no run is finished that can be compared." in page


def test_of_several_datasets_ones_own_are_answered_for_one_by_one(tmp_path: Path) -> None:
    photos(tmp_path, "convnext", 90, 92, 91)
    photos(tmp_path, "swin", 70, 71, 70)
    for name, level in (("convnext", 0.9), ("swin", 0.8)):
        for seed in range(3):
            synthetic.write(tmp_path, synthetic.record("eurosat", name, seed, top1=level, recipe="cosine"))
    made = build(collect(tmp_path), tmp_path)
    budget = made["groups"][0]["budgets"][0]
    assert budget["advice"]["headline"].startswith("Take convnext: the best on average over 2 datasets, ")
    assert budget["advice"]["more"] == [
        "Whether that holds on other datasets takes 6 of them to tell.",
        "photos alone: Take convnext: 91.0 % of 100 test images right (average of 3 trainings).",
    ]
    assert "more datasets for the rank test" in budget["rankings"]["overall"]["missing"][0]
    said = report.lines(made, tmp_path)
    assert any(line.startswith("           convnext: best mean top-1 on EuroSAT and photos") for line in said)


def test_every_output_says_it(tmp_path: Path) -> None:
    photos(tmp_path / "runs", "convnext", 90, 92, 91)
    photos(tmp_path / "runs", "swin", 70, 71, 70)
    made = report.make(tmp_path / "runs", tmp_path / "out")
    headline = "Take convnext: 91.0 % of 100 test images right (average of 3 trainings)."
    texts = {path.name: path.read_text("utf-8") for path in (tmp_path / "out").iterdir()}
    assert f'<p class="answer">{headline}</p>' in texts["report.html"]
    assert f"**{headline}**" in texts["results.md"]
    assert f"% {headline}".replace("1.0 %", "1.0 \\%") in texts["results.tex"]
    assert f"answer     {headline}" in report.lines(made, tmp_path / "out")
    command = made["groups"][0]["budgets"][0]["advice"]["commands"][0]["command"]
    assert f"    {command}\n" in texts["results.md"]


def sized(folder: Path, backbone: str, sizes: list[int], found: list[int], seeds: int = 1) -> None:
    """Runs that found so many of each class, and took all other images for the first."""
    labels = np.repeat(np.arange(len(sizes)), sizes)
    inside = np.concatenate([np.arange(size) for size in sizes])
    predicted = np.where(inside < np.repeat(found, sizes), labels, labels == 0).astype(int)
    for seed in range(seeds):
        part = own() | {"classes": synthetic.class_names(len(sizes))}
        test = evaluate(np.eye(len(sizes), dtype=np.float32)[predicted], labels)
        made = synthetic.record("dtd", backbone, seed, test=test, dataset=part)
        made["dataset"]["counts"]["test"] = len(labels)
        synthetic.write(folder, made)


def test_a_network_that_never_finds_small_classes_is_no_better_than_guessing(tmp_path: Path) -> None:
    """Intervals that take a few images for half right would put it above one by the number of classes."""
    sized(tmp_path, "convnext", [100, *[3] * 9], [100, *[0] * 9])
    advice = advised(tmp_path)
    assert advice["headline"].startswith("No better than guessing: convnext has 78.7 % of 127 test images right")
    assert "convnext has 10.0 %, and guessing 10.0 %." in advice["more"][0]


def test_of_many_that_guess_one_seems_better_by_luck(tmp_path: Path) -> None:
    """61 of 100, of two classes, is more than one that guesses gets; of eleven, the best often gets as many."""
    ((group,), _) = divide(collect(photos(tmp_path, "convnext", 61)[0].parents[2]).entries)
    (cell,) = group.cells.values()
    assert beats_chance(cell, chance_of(cell))
    assert not beats_chance(cell, chance_of(cell), 11)


def test_who_finds_the_rare_class_is_not_said_to_be_ahead_of_who_finds_none(tmp_path: Path) -> None:
    """That has more of all images right, and is no better than guessing."""
    sized(tmp_path, "swin", [80, 20], [80, 0], seeds=3)
    sized(tmp_path, "convnext", [80, 20], [56, 20], seeds=3)
    sized(tmp_path, "resnet", [80, 20], [36, 20], seeds=3)
    advice = advised(tmp_path)
    assert advice["headline"] == "Take convnext: 76.0 % of 100 test images right (average of 3 trainings)."
    assert not any("ahead" in line for line in advice["more"])
    assert "Behind by more than chance gives: resnet." in advice["more"]
    assert advice["more"][-1] == "Not shown to be better than guessing: swin (80.0 %)."


def test_classes_of_about_one_size_give_a_little_more_than_one_by_their_number(tmp_path: Path) -> None:
    sized(tmp_path, "convnext", [52, 48], [50, 46])
    assert advised(tmp_path)["more"][-1] == "Guessing among 2 classes gives up to 52.0 %."


def test_equal_ones_are_not_ahead(tmp_path: Path) -> None:
    photos(tmp_path, "convnext", 90)
    photos(tmp_path, "swin", 90)
    assert advised(tmp_path)["headline"].endswith(" 90.0 % of 100 test images right (one training), as many as swin.")


def test_of_many_test_images_the_ends_of_the_interval_are_told_apart(tmp_path: Path) -> None:
    sized(tmp_path, "convnext", [5000, 5000], [4980, 4990])
    assert "convnext may get 99.6 to 99.8 % right: 10,000 test images say no more." in advised(tmp_path)["more"][1]


def test_the_trained_network_is_the_best_by_the_metric_that_chose_the_epochs(tmp_path: Path) -> None:
    runs = photos(tmp_path, "convnext", 97, 98, 99, config={"select": "balanced_accuracy"})
    for run, top1, balanced in zip(runs, (0.9, 0.8, 0.7), (0.5, 0.6, 0.4), strict=True):
        made = json.loads((run / "record.json").read_text())
        made["selection"] |= {"top1": top1, "balanced_accuracy": balanced}
        (run / "record.json").write_text(json.dumps(made))
    assert advised(tmp_path)["taken"]["why"] == (
        "of its 3 trainings that with seed 1, the best on the images that chose the epoch (balanced accuracy 60.00% on "
        "val; test chose nothing)"
    )


def test_on_which_of_few_datasets_another_is_better_is_said(tmp_path: Path) -> None:
    for dataset, convnext, swin in (("eurosat", 0.99, 0.9), ("dtd", 0.6, 0.65)):
        for name, level in (("convnext", convnext), ("swin", swin)):
            for seed in range(3):
                synthetic.write(tmp_path, synthetic.record(dataset, name, seed, top1=level))
    advice = advised(tmp_path)
    assert advice["headline"] == "Take convnext: the best on average over 2 datasets, 79.50%."
    assert advice["more"] == [
        "Not on each: better, by more than chance gives, is swin on DTD.",
        "Whether that holds on other datasets takes 6 of them to tell.",
    ]


def test_under_the_paper_protocol_the_number_is_said_to_flatter(tmp_path: Path) -> None:
    photos(tmp_path, "convnext", 97, 98, 97, protocol="paper")
    more = advised(tmp_path)["more"]
    assert "Of other images of the kind, convnext may get fewer right: test chose the epoch." in more
    assert not any("say no more" in line for line in more)
