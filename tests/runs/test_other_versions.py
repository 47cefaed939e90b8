"""A run that goes on with other packages says so, and its journal says from which trial on."""

from __future__ import annotations

import json
import logging

import yaml

import facenas


def accuracy(candidate):
    return 50 + candidate.architecture.width


def test_a_run_that_goes_on_with_other_packages_says_so(tmp_path, caplog):
    settings = {"min_depth": 4, "max_depth": 6, "max_width": 8, "min_width": 4}
    run = tmp_path / "run"
    facenas.search(
        space=facenas.spaces.Plain(**settings),
        strategy=facenas.strategies.MacroMicro(min_epochs=1, micro=False),
        data="digits",
        evaluate=accuracy,
        run=run,
    )
    journal = run / "trials.jsonl"
    lines = journal.read_text().splitlines(keepends=True)
    assert "versions" not in json.loads(lines[-1])
    journal.write_text("".join(lines[:2]))
    (run / "best.json").unlink()
    about = yaml.safe_load((run / "run.yaml").read_text())
    now = about["versions"]["numpy"]
    about["versions"]["numpy"] = "1.0"
    (run / "run.yaml").write_text(yaml.safe_dump(about))
    with caplog.at_level(logging.WARNING):
        facenas.resume(run)
    told = f"run: was begun with numpy 1.0 (now {now}); what is trained from here on may round otherwise"
    assert told in caplog.messages
    again = [json.loads(line) for line in journal.read_text().splitlines()]
    assert [line.get("versions") for line in again] == [None] * 2 + [{"numpy": now}] * (len(lines) - 2)
    assert [line["key"] for line in again] == [json.loads(line)["key"] for line in lines]
