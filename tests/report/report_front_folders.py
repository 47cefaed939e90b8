"""Run folders of searches for a Pareto front, by the real strategies with accuracies made up by formula."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from report_run_folders import make_run, trial

from facenas.runs.config import RunConfig
from facenas.spaces import Architecture, CellArchitecture, ImageFacts
from facenas.spaces.base import fingerprint
from facenas.strategies import Outcome, build_strategy

SIZE = 28
SPACE = {"kind": "cells", "base_widths": [4, 8, 16], "max_cells": 4, "max_parameters": 200_000}
FACTS = {"name": "digits", "source": "scikit-learn", "fingerprint": "f00d", "train_images": 1295}
FACTS |= {"classes": 10, "image_size": SIZE, "in_channels": 1}


def accuracy_of(arch: Architecture) -> float:
    """Better with more parameters and by chance, out of a thousand images; some trainings fail: 0."""
    chance = int(fingerprint(arch.to_json())[:8], 16) / 2**32
    if chance > 0.97:
        return 0.0
    return round(100 - 60 * (arch.count_parameters() / 300) ** -0.4 * (0.5 + chance), 1)


def settings(**search: Any) -> dict[str, Any]:
    """Settings of a small search; `search` changes some of it."""
    plain = {"strategy": "nsga2", "epochs": 2, "population": 6, "generations": 3}
    return {"space": SPACE, "search": {**plain, "objectives": ["parameters"], **search}}


@cache
def _searched(words: str, told: int | None) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """(lines of the journal, the result) after `told` candidates (None: all), by settings as JSON."""
    config = RunConfig.model_validate(json.loads(words))
    strategy = build_strategy(
        config.space.owner(config.space).bind(ImageFacts(1, 10, SIZE)), config.search, 0, SIZE
    )
    lines: list[dict[str, Any]] = []
    while (wanted := strategy.ask()) and len(lines) != told:
        arch, accuracy = wanted[0].architecture, accuracy_of(wanted[0].architecture)
        decision = strategy.tell(Outcome(accuracy))
        more = {"status": "ok" if accuracy else "failed", "reason_proposed": wanted[0].reason}
        more |= {"correct": round(accuracy * 10), "validated": 1000, "epochs": 2}
        more |= {"macs": arch.count_macs(SIZE), "decision": decision}
        more |= {"seconds": 2 + arch.count_macs(SIZE) / 1e6}
        lines.append(trial(len(lines), wanted[0].phase, arch, accuracy, **more))
    clock = 0.0
    for line in lines:
        clock += line["seconds"] / 2
        line["search_seconds"] = clock
    return lines, strategy.result()


def make_front_run(run: Path, told: int | None = None, **search: Any) -> Path:
    """A run whose search is under way: the first `told` candidates are trained (None: all)."""
    config = settings(**search)
    lines, _ = _searched(json.dumps(config), told)
    make_run(run, lines, config)
    about = yaml.safe_load((run / "run.yaml").read_text())
    (run / "run.yaml").write_text(yaml.safe_dump(about | {"data": FACTS}))
    return run


def finish_front_search(run: Path, **search: Any) -> dict[str, Any]:
    """Adds `best.json` and returns it; `search` as for `make_front_run`."""
    lines, result = _searched(json.dumps(settings(**search)), None)
    arch = CellArchitecture.from_json(result["architecture"])
    counts = {"parameters": arch.count_parameters(), "macs": arch.count_macs(SIZE)}
    clock = {"search_seconds": lines[-1]["search_seconds"], "workers": 2}
    best = {**result, **counts, **clock}
    (run / "best.json").write_text(json.dumps(best))
    return best
