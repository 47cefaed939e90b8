"""The parts of the evaluation's benchmark: each has `rows`, and run alone prints them.

    python -m tools.evaluation_bench.ten_fold

The peers' procedures are restated plainly from their code, with the same operations in the same order.
Both programs run in one process, on as many threads as OMP_NUM_THREADS says.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

Row = tuple[str, float, float, str]  # what; seconds of ours; seconds of theirs; a remark


def timed(call: Callable[[], Any], rounds: int = 1) -> tuple[float, Any]:
    """(fewest seconds of `rounds` calls, what the last gave): others on the machine only make it slower."""
    seconds, result = float("inf"), None
    for _ in range(rounds):
        began = time.perf_counter()
        result = call()
        seconds = min(seconds, time.perf_counter() - began)
    return seconds, result


def show(rows: list[Row]) -> None:
    """Prints them as a table."""
    print("| what | ours, s | theirs, s | ratio | |\n|---|---|---|---|---|")
    for what, ours, theirs, remark in rows:
        print(f"| {what} | {ours:.4g} | {theirs:.4g} | **{theirs / ours:.1f}x** | {remark} |")
