"""Run folders of searches with a supernet, by the real strategies with accuracies made up by formula."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml
from report_run_folders import make_run, trial

from facenas.runs.config import RunConfig
from facenas.spaces import Architecture, ImageFacts
from facenas.spaces.base import fingerprint
from facenas.strategies import Outcome, build_strategy

SIZE = 16
SPACE = {"kind": "graph", "widths": [8, 16], "max_blocks": 2}
FACTS = {"name": "digits", "source": "scikit-learn", "fingerprint": "f00d", "train_images": 1295}
FACTS |= {"classes": 10, "image_size": SIZE, "in_channels": 1}
EPOCHS, NETWORKS = 3, 6


def settings(**search: Any) -> dict[str, Any]:
    """Settings of a small search; `search` changes some of it."""
    supernet = {"epochs": EPOCHS, "rank_networks": NETWORKS, "rank_epochs": 2}
    plain: dict[str, Any] = {"strategy": "nsga2", "population": 4, "generations": 2}
    plain |= {"objectives": ["macs", "memory"], "supernet": supernet}
    return {"space": SPACE, "search": {**plain, **search}}


def accuracy_of(arch: Architecture, alone: bool, doubt: float) -> float:
    """Out of a thousand images; training alone and the supernet agree when `doubt` is 0, else by chance."""
    chance = int(fingerprint(arch.to_json())[: 8 if alone else 4], 16) % 997 / 997
    merit = 1 - (arch.count_macs(SIZE) / 1000) ** -0.5
    return round(90 * ((1 - doubt) * merit + doubt * chance) + (5 if alone else 0), 1)


def make_supernet_run(
    run: Path, told: int | None = None, *, trained: int = EPOCHS, doubt: float = 0.0, **search: Any
) -> dict[str, Any] | None:
    """A run after `trained` epochs of its supernet and `told` trials; None: all, and `best.json`, returned."""
    config = settings(**search)
    full = RunConfig.model_validate(config)
    strategy = build_strategy(
        full.space.owner(full.space).bind(ImageFacts(1, 10, SIZE)), full.search, 0, SIZE
    )
    lines: list[dict[str, Any]] = []
    while (wanted := strategy.ask()) and len(lines) != told:
        arch, epochs = wanted[0].architecture, wanted[0].epochs
        accuracy = accuracy_of(arch, epochs > 0, doubt)
        more = {"decision": strategy.tell(Outcome(accuracy)), "epochs": epochs}
        more |= {"train_accuracy": 0.0 if epochs == 0 else 99.0, "macs": arch.count_macs(SIZE)}
        lines.append(trial(len(lines), wanted[0].phase, arch, accuracy, **more))
    make_run(run, lines, config)
    about = yaml.safe_load((run / "run.yaml").read_text())
    (run / "run.yaml").write_text(yaml.safe_dump(about | {"data": FACTS}))
    epochs_told = [
        {"trial": "supernet", "epoch": epoch, "lr": 0.1, "train_loss": 2 / epoch}
        for epoch in range(1, trained + 1)
    ]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in epochs_told))
    if told is not None:
        return None
    found = strategy.result()
    best = {**found, "parameters": 1, "macs": 1, "search_seconds": 60.0, "workers": 2}
    (run / "best.json").write_text(json.dumps(best))
    return best
