"""A damaged run folder: one sentence that names the file, the fault and the remedy."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from report_run_folders import FOUND, make_run, small_search

from facenas.errors import UserError
from facenas.report import write_report


def _remove(name: str) -> Callable[[Path], None]:
    return lambda run: (run / name).unlink()


def _write(name: str, text: str) -> Callable[[Path], None]:
    def damage(run: Path) -> None:
        (run / name).write_text(text)

    return damage


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (_remove("run.yaml"), "run.yaml: is missing"),
        (_write("run.yaml", "a: [1"), "run.yaml: is not valid YAML"),
        (_write("run.yaml", "name: x"), "run.yaml: config: Field required"),
        (_write("run.yaml", "config: {seed: -1}"), "run.yaml: config.seed: "),
        (_write("trials.jsonl", '{"tri\n{"trial": 1}\n'), "trials.jsonl: line 1 is damaged"),
        (_write("trials.jsonl", '{"trial": 0}\n'), "trials.jsonl: line 1: phase: Field required"),
        (_write("best.json", "{"), "best.json: is not valid JSON"),
        (_write("best.json", "[]"), "best.json: should hold a JSON object"),
        (
            _write("best.json", '{"architecture": {}, "parameters": 1}'),
            "best.json: architecture: an architecture needs",
        ),
        (
            _write("train.json", json.dumps({"architecture": FOUND.to_json()})),
            "train.json: test_accuracy: Field required",
        ),
        (
            _write("trials.jsonl", json.dumps(small_search()[0] | {"ops": [7] * 5}) + "\n"),
            "trials.jsonl: line 1: architecture: not a plain architecture",
        ),
        (
            _write("trials.jsonl", json.dumps(small_search()[0] | {"kind": "ir"}) + "\n"),
            "trials.jsonl: line 1: architecture: an architecture needs the field 'stages'",
        ),
    ],
)
def test_damage_is_named_with_its_remedy(
    tmp_path: Path, damage: Callable[[Path], None], words: str
) -> None:
    run = make_run(tmp_path / "run", small_search())
    damage(run)
    with pytest.raises(UserError) as caught:
        write_report(run)
    message = str(caught.value)
    assert words in message
    assert str(run) in message
    assert "\n" not in message
    assert any(remedy in message for remedy in ("restore the file", "give a folder"))
    assert not list(run.glob("*.html"))


def test_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere: no such run folder; `facenas runs`"):
        write_report(tmp_path / "nowhere")
