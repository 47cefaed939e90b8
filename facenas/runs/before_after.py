"""What fine-tuning gains and forgets: held-out people and an old bench, before the first epoch and after."""

from __future__ import annotations

import logging
from typing import Any

from facenas.errors import UserError
from facenas.evaluation import evaluate
from facenas.evaluation.benches.result import BenchResult
from facenas.evaluation.network import Network
from facenas.files import read_json, write_json
from facenas.models.load import TrainedNetwork
from facenas.runs.run import Run
from facenas.spaces import Architecture
from facenas.spaces.base import FACE
from facenas.training import distributed
from facenas.training.tasks import Task

log = logging.getLogger(__name__)

_HALF = (0.5, 0.5, 0.5)


def tell_before(run: Run, arch: Architecture, task: Task) -> None:
    """Measures a face network as it begins and writes `before.json`; the first of the processes does."""

    def measure() -> None:
        found = _measured(run, arch, task, task.test())
        write_json(run.folder / "before.json", found)
        for name, value in _told(run, found).items():
            log.info("before the first epoch: %s %.2f %%", name, value)

    if arch.task == FACE:
        distributed.first_does(measure)


def tell_after(run: Run, arch: Architecture, task: Task, tested: dict[str, Any]) -> dict[str, Any]:
    """What `train.json` says of both; nothing where nothing was measured before. tested: of `task.test`."""
    path = run.folder / "before.json"
    if not path.exists():
        return {}
    before = read_json(path)
    try:
        after = _measured(run, arch, task, tested)
    except UserError as error:  # a trained network is kept, whatever became of the bench's files
        log.warning("%s; what was forgotten is not told", error)
        return {"before": before}
    for name, value in _told(run, after).items():
        log.info("%s: %.2f %% before, %.2f %% after", name, _told(run, before)[name], value)
    if after["chosen"]:
        log.info("the best epoch was chosen on these people; data.test_fraction holds out others")
    return {"before": before, "after": after}


def _told(run: Run, found: dict[str, Any]) -> dict[str, float]:
    """The figures by what people call them."""
    bench = run.config.bench
    names = {"verification": "held-out people", "bench": f"{bench.name} {found['measure']}" if bench else ""}
    return {name: found[key] for key, name in names.items() if found.get(key) is not None}


def _measured(run: Run, arch: Architecture, task: Task, tested: dict[str, Any]) -> dict[str, Any]:
    """Percent: of held-out people, if there are any, and the bench's first measure, if there is one.

    chosen: whether the best epoch is chosen on these people, which flatters what is measured afterwards.
    """
    pairs = tested.get("verification") or {}
    found = {"verification": pairs.get("accuracy"), "chosen": pairs.get("identities") == "validation"}
    if run.config.bench is None:
        return found
    trained = TrainedNetwork(arch, task.model, _HALF, _HALF)
    result = evaluate(Network(trained), run.config.bench.name, run.config.bench.data)
    measure, value = _headline(result)
    return {**found, "measure": measure, "bench": 100 * value}


def _headline(result: BenchResult) -> tuple[str, float]:
    """The figure that people know a bench by: accuracy, else rank 1, else TAR at the smallest FAR."""
    if result.accuracy is not None:
        return "accuracy", result.accuracy
    if result.rank and not result.tar_at_far:
        return "rank 1", result.rank[1]
    far = min(result.tar_at_far)
    return f"TAR at FAR {far:g}", result.tar_at_far[far]
