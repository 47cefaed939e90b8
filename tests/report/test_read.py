"""Run folders of all ages and stages, read: old journals, plug-ins, damage that is named with its remedy."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from report_runs import (
    cells,
    finish_training,
    graph,
    ir,
    line,
    macro_micro,
    make_run,
    plain,
    write_lines,
)

from facenas.errors import UserError
from facenas.report import write_search_page
from facenas.report.read import phases, read_run, stages


@pytest.mark.parametrize(
    ("told", "decision"),
    [
        ("best", "kept"),
        ("on the front", "kept"),
        ("baseline", "baseline"),
        ("ranked", "baseline"),
        ("go on", "rejected"),
        ("drop 1 of 3", "rejected"),
        ("undone", "rejected"),
        ("dominated", "rejected"),
    ],
)
def test_decisions_of_old_journals(tmp_path: Path, told: str, decision: str) -> None:
    old = line(0, "depth", plain(5, 8), 50.0, decision=told)
    del old["note"]
    (trial,) = read_run(make_run(tmp_path / "run", [old])).trials
    assert (trial.decision, trial.note) == (decision, told)


@pytest.mark.parametrize(
    "tree",
    [plain(5, 8, (2,)), ir(6, [1, 1, 2, 1]), cells(), graph(8, ["conv3"])],
    ids=lambda t: t["kind"],
)
def test_architectures_are_read_out_of_the_line(tmp_path: Path, tree: dict[str, object]) -> None:
    measured = {"values": {"latency": 2.5}, "energy": 4}  # of this version, and of earlier ones
    (trial,) = read_run(make_run(tmp_path / "run", [line(0, "p", tree, 50.0, **measured)])).trials
    assert trial.network.tree == tree
    assert trial.network.arch is not None
    assert (trial.value("latency"), trial.value("energy")) == (2.5, 4.0)
    assert trial.value("error") == 50.0
    assert trial.value("parameters") == trial.network.counted("parameters", None)


def test_phases_and_stages(tmp_path: Path) -> None:
    trials = read_run(make_run(tmp_path / "run", macro_micro())).trials
    assert [(p.name, len(p.trials), p.failed, p.wall) for p in phases(trials)] == [
        ("depth", 3, 1, 18.0),
        ("width", 1, 0, 6.0),
        ("ops", 2, 0, 12.0),
        ("kernels", 2, 0, 12.0),
    ]
    assert [[t.trial for t in stage] for stage in stages(trials)] == [[0, 1, 2, 3], [4, 5, 6, 7]]
    baselines = [t.model_copy(update={"decision": "baseline"}) for t in trials[:3]]
    assert len(stages([*baselines, trials[3]])) == 1  # baselines in a row begin one stage


def test_only_the_settings_must_be_there_and_a_torn_line_is_left_out(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", macro_micro())
    (run / "run.yaml").write_text("config: {}\n")
    with (run / "trials.jsonl").open("a") as file:
        file.write('{"trial": 8, "phase": "ker')
    assert len(read_run(run).trials) == 8
    assert write_search_page(run) == run / "report.html"
    assert not list(run.glob(".report*"))


def test_a_resumed_training_goes_on_from_its_last_start(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", macro_micro())
    epochs = [(1, 5.0), (2, 4.0), (3, 3.0), (2, None)]
    write_lines(run / "metrics.jsonl", [{"trial": "final", "epoch": e, "train_loss": x} for e, x in epochs])
    assert [(e.epoch, e.train_loss) for e in read_run(run).epochs] == [(1, 5.0), (2, None)]


def _write(name: str, text: str) -> Callable[[Path], None]:
    return lambda run: (run / name).unlink() if text == "-" else (run / name).write_text(text)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (_write("run.yaml", "-"), "run.yaml: is missing, so"),
        (_write("run.yaml", "a: ]"), "run.yaml: is not valid YAML"),
        (_write("run.yaml", "name: x"), "run.yaml: config: Field required"),
        (_write("trials.jsonl", '{"tri\n{"trial": 1}\n'), "trials.jsonl: line 1 is damaged"),
        (_write("trials.jsonl", '{"trial": 0}\n'), "trials.jsonl: line 1: phase: Field required"),
        (_write("best.json", "{"), "best.json: is not valid JSON"),
        (_write("best.json", "[]"), "best.json: should hold a JSON object"),
        (_write("train.json", '{"architecture": {}}'), "train.json: test_accuracy: Field required"),
    ],
)
def test_damage_is_named_with_its_remedy(tmp_path: Path, damage: Callable[[Path], None], words: str) -> None:
    run = make_run(tmp_path / "run", macro_micro())
    damage(run)
    with pytest.raises(UserError) as caught:
        write_search_page(run)
    message = str(caught.value)
    assert words in message
    assert str(run) in message
    assert "\n" not in message
    assert any(remedy in message for remedy in ("restore the file", "give a folder"))
    assert not list(run.glob("*.html"))


@pytest.mark.parametrize(
    ("confusion", "classes"), [([[1, 2]], None), ([[1, 2], [3, 4]], ["one"]), ([[1, 2], [3]], None)]
)
def test_a_confusion_that_is_not_square(tmp_path: Path, confusion: object, classes: object) -> None:
    run = make_run(tmp_path / "run", [])
    finish_training(run, plain(5, 8), confusion=confusion, classes=classes)
    with pytest.raises(
        UserError, match=r"train.json: .*as many rows and columns as there are classes; restore"
    ):
        write_search_page(run)


def test_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere: no such run folder; `facenas runs`"):
        write_search_page(tmp_path / "nowhere")


def test_a_damaged_architecture_is_shown_as_it_is(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", [line(0, "depth", plain(5, 8), 50.0) | {"ops": [7] * 5}])
    text = write_search_page(run).read_text()
    assert "Not a plain architecture" in text
    assert json.dumps([7] * 5) in text
