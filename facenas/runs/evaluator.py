"""What a run's candidates are judged by: one's own function, a training alone, or a supernet."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from facenas.execution import Evaluator, SupernetPath, TrainAlone
from facenas.execution.evaluators import function_evaluator
from facenas.runs.run import Run


def build_evaluator(
    run: Run, space: Any, on_epoch: Callable[[dict[str, Any], int], None]
) -> Evaluator:
    """The evaluator of a run over `space`; a supernet is trained first, if its strategy has one.

    Raises UserError when images or packages are missing, SearchStoppedError when the supernet diverges.
    """
    config, search = run.config, run.config.search
    if config.evaluate:
        return function_evaluator(config.evaluate, config.seed)
    latency = "latency" in getattr(search, "objectives", ())
    if latency:
        from facenas.models.latency import check_packages  # needs torch

        check_packages()
    folder, fingerprint = run.find_data(), run.about["data"]["fingerprint"]
    settings = (folder, config.data, fingerprint, config.recipe, config.seed, latency)
    if getattr(search, "supernet", None) is None:
        return TrainAlone(*settings)
    from facenas.runs.supernet_training import train_supernet  # needs torch

    supernet = train_supernet(run, space, search.supernet, folder, on_epoch)
    return SupernetPath(*settings, supernet)
