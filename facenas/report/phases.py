"""The four phases of macro-micro search, as the page names, colours and groups them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Phase:
    """How one phase is shown. `stage`: macro or micro, whose accuracies are not comparable.

    The colours keep a contrast of 3:1 or more on the light and on the dark page; every phase has its own
    symbol too, so that nothing hangs on colour alone.
    """

    key: str
    label: str
    stage: str
    colour: str
    symbol: str


PHASES = {
    phase.key: phase
    for phase in (
        Phase("depth", "grow", "macro", "#3b7fd0", "circle"),
        Phase("width", "prune", "macro", "#cf7a1c", "square"),
        Phase("ops", "replace", "micro", "#159a83", "diamond"),
        Phase("kernels", "update", "micro", "#c2559f", "triangle-up"),
    )
}
STAGES = ("macro", "micro")
