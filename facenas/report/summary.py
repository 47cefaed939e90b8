"""What the page says in words: state and subject of a run, the network it draws, its phases."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from facenas.report.phases import PHASES, Phase
from facenas.report.reading import RunFolder
from facenas.report.records import DataFacts, Trial
from facenas.report.wording import count
from facenas.spaces import Architecture
from facenas.spaces.plain import Bounds
from facenas.strategies.macro_micro import MacroMicro

TAKEN = (
    "best",
    "baseline",
    "kept",
)  # decisions after which the search goes on from a trial's network
STRATEGIES = {
    "macro_micro": "Macro-micro search",
    "nsga2": "NSGA-II",
    "weighted_sum": "weighted-sum search",
    "random": "random search",
}


@dataclass(frozen=True)
class PhaseRow:
    """What one phase of the search did; `best` in percent."""

    phase: Phase
    tries: str
    trials: int
    failed: int
    best: float | None
    seconds: float


@dataclass(frozen=True)
class Network:
    """The network that the page draws, and what it is.

    `head_parameters`: of the head a face network was trained with; None where there is none, or not yet.
    """

    title: str
    architecture: Architecture
    parameters: int
    macs: int | None
    head_parameters: int | None = None


def state(run: RunFolder) -> str:
    """How far the run has come: searching, found, training or trained."""
    if run.final:
        return "trained"
    if run.epochs or not run.searches:
        return "training"
    return "found" if run.best else "searching"


def subject(run: RunFolder) -> str:
    """What was searched, on what data, in what bounds."""
    if not run.searches:
        return f"Training of a given network {where(run)}."
    search, space = run.about.config.search, run.about.config.space
    assert isinstance(search, MacroMicro.Settings)
    assert isinstance(space, Bounds)
    what = STRATEGIES[search.owner.name]
    what = what if search.micro else what.replace("Macro-micro", "Macro")
    return (
        f"{what} {where(run)}; depth {space.min_depth} to {space.max_depth}, "
        f"width {space.min_width} to {space.max_width} in steps of {space.width_step}."
    )


def where(run: RunFolder) -> str:
    """On what data."""
    data = run.about.data
    facts = _face_facts(run) if run.terms.faces else _image_facts(data)
    told = ", ".join(fact for fact in facts if fact)
    return f"on {data.name or run.about.config.data.name}" + (f" ({told})" if told else "")


def generated(run: RunFolder) -> bool:
    """Whether the faces are drawn by a program: no person is shown."""
    return "generated" in (run.about.data.source or "").lower()


def selected_on_test(run: RunFolder) -> bool:
    """Whether a search compared its candidates on the test images; of faces none can."""
    return run.searches and not run.terms.faces and run.about.config.data.select_on == "test"


def judged(run: RunFolder) -> str:
    """How many pairs of faces a candidate is judged on."""
    pairs = max((t.validated or 0 for t in run.trials), default=0)
    return f"{count(pairs)} pairs" if pairs else "pairs"


def network(run: RunFolder) -> Network | None:
    """The network found; before that the one the search holds; None when there is nothing yet."""
    title = "The architecture found" if run.trials else "The architecture trained"
    head = run.final.head_parameters if run.final else None
    if run.best:
        return Network(title, run.best.architecture, run.best.parameters, run.best.macs, head)
    if run.final:
        arch = run.final.architecture
        return Network(title, arch, arch.count_parameters(), None, head)
    best = leader(run.trials)
    if best is None:
        return None
    return Network("The best architecture so far", best.architecture, best.parameters, best.macs)


def parameters(found: Network, faces: bool) -> str:
    """How many there are; of faces, backbone, head and both, as papers count one or the other."""
    if not faces:
        return f"{count(found.parameters)} parameters"
    if found.head_parameters is None:
        return f"{count(found.parameters)} parameters (backbone, without a head)"
    counts = (found.parameters, found.head_parameters, found.parameters + found.head_parameters)
    return "Parameters: {:,} in the backbone, {:,} in the head, {:,} in total".format(*counts)


def phase_rows(run: RunFolder) -> Iterator[PhaseRow]:
    """A summary of every phase that has begun."""
    for key, phase in PHASES.items():
        mine = [t for t in run.trials if t.phase == key]
        if mine:
            failed = sum(t.failed for t in mine)
            best = max((t.accuracy for t in mine if not t.failed), default=None)
            seconds = sum(t.seconds or 0 for t in mine)
            yield PhaseRow(phase, run.terms.tries[key], len(mine), failed, best, seconds)


def best_of(trials: Sequence[Trial], stage: str) -> Trial | None:
    """The first of the most accurate: a tie changes nothing in the search either."""
    mine = (t for t in trials if PHASES[t.phase].stage == stage and not t.failed)
    return max(mine, key=lambda t: t.accuracy, default=None)


def leader(trials: Sequence[Trial]) -> Trial | None:
    """The network the search holds: the last one taken, which need not be the most accurate."""
    taken = [t for t in trials if t.decision in TAKEN and not t.failed]
    return taken[-1] if taken else best_of(trials, "micro") or best_of(trials, "macro")


def _image_facts(data: DataFacts) -> Iterator[str]:
    yield f"{count(data.train_images)} training images" if data.train_images else ""
    yield f"{count(data.test_images)} test images" if data.test_images else ""
    yield f"{data.classes} classes" if data.classes else ""
    yield f"{data.image_size}×{data.image_size} pixels" if data.image_size else ""


def _face_facts(run: RunFolder) -> Iterator[str]:
    """The counts are of all that is there, with the identities held out."""
    data, kind = run.about.data, "generated images" if generated(run) else "images"
    yield f"{count(data.train_images)} {kind}" if data.train_images else ""
    yield f"{count(data.identities)} identities" if data.identities else ""
    yield f"{data.image_size}×{data.image_size} pixels" if data.image_size else ""
