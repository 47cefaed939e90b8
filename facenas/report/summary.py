"""What the page says in words and figures: head, tiles, phases. Pure functions of a run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from facenas.arch import PlainArchitecture, from_json
from facenas.arch.plain import PLAIN
from facenas.errors import UserError
from facenas.report.phases import PHASES, Phase
from facenas.report.reading import RunFolder, Trial
from facenas.report.wording import count, duration, many, percent, ranges, short

TAKEN = (
    "best",
    "baseline",
    "kept",
)  # decisions after which the search goes on from a trial's network
STRATEGIES = {"macro_micro": "Macro-micro search"}


@dataclass(frozen=True)
class Tile:
    """A key figure."""

    label: str
    value: str
    hint: str


@dataclass(frozen=True)
class PhaseRow:
    """What one phase of the search did; `best` in percent."""

    phase: Phase
    trials: int
    failed: int
    best: float | None
    seconds: float


@dataclass(frozen=True)
class Network:
    """The network that the page draws, and what it is."""

    title: str
    architecture: PlainArchitecture
    parameters: int
    macs: int | None


def state(run: RunFolder) -> str:
    """How far the run has come: searching, found or trained."""
    return "trained" if run.final else "found" if run.best else "searching"


def subject(run: RunFolder) -> str:
    """What was searched, on what data, in what bounds."""
    config, data = run.about.config, run.about.data
    facts = [f"{count(data.train_images)} training images"] if data.train_images else []
    facts += [f"{count(data.test_images)} test images"] if data.test_images else []
    facts += [f"{data.classes} classes"] if data.classes else []
    facts += [f"{data.image_size}×{data.image_size} pixels"] if data.image_size else []
    images = f" ({', '.join(facts)})" if facts else ""
    where = f"on {data.name or config.data.name}{images}"
    if not run.searches:
        return f"Training of a given network {where}."
    what = STRATEGIES.get(config.search.strategy, config.search.strategy)
    space = config.space
    return (
        f"{what} {where}; depth {space.min_depth} to {space.max_depth}, "
        f"width {space.min_width} to {space.max_width} in steps of {space.width_step}."
    )


def network(run: RunFolder) -> Network | None:
    """The network found; before that the one the search holds; None when there is nothing yet.

    Raises UserError when its description is damaged.
    """
    told = run.best or run.final
    if told:
        file = run.path / ("best.json" if run.best else "train.json")
        arch = architecture(told.architecture, str(file))
        title = "The architecture found" if run.trials else "The architecture trained"
        parameters = run.best.parameters if run.best else arch.count_parameters()
        return Network(title, arch, parameters, run.best.macs if run.best else None)
    best = _leader(run.trials)
    if best is None:
        return None
    return Network("The best architecture so far", best.architecture, best.parameters, best.macs)


def architecture(tree: dict[str, Any], file: str) -> PlainArchitecture:
    """`tree` as a network; raises UserError that names `file`."""
    try:
        return from_json(tree)
    except UserError as error:
        raise UserError(f"{file}: {error}; restore the file, or resume the run") from None


def tiles(run: RunFolder) -> Iterator[Tile]:
    """The key figures, as far as they are known."""
    if run.searches:
        failed = sum(t.failed for t in run.trials)
        hint = f"{failed} failed" if failed else "none failed"
        yield Tile("Trials", count(len(run.trials)), hint)
        yield _clock(run)
        yield _selection(run)
    found = network(run)
    if found:
        which = "" if run.best or run.final else "best so far: "
        yield Tile("Parameters", short(found.parameters), which + count(found.parameters))
    if found and found.macs is not None:
        yield Tile("MACs", short(found.macs), "for one image")
    if run.final:
        yield Tile("Test accuracy", percent(run.final.test_accuracy), test_counts(run))


def test_counts(run: RunFolder) -> str:
    """How many test images were told right."""
    final = run.final
    if final is None or final.test_correct is None:
        return "on the test set"
    return f"{count(final.test_correct)} of {count(final.test_images)} right"


def phase_rows(run: RunFolder) -> Iterator[PhaseRow]:
    """A summary of every phase that has begun."""
    for key, phase in PHASES.items():
        mine = [t for t in run.trials if t.phase == key]
        if mine:
            failed = sum(t.failed for t in mine)
            best = max((t.accuracy for t in mine if not t.failed), default=None)
            yield PhaseRow(phase, len(mine), failed, best, sum(t.seconds or 0 for t in mine))


def special_layers(trial: Trial) -> str:
    """The layers that are not separable 3x3, counted from 1."""
    plain = [i for i, op in enumerate(trial.ops, start=1) if op == PLAIN]
    words = [f"plain at {ranges(plain)}"] if plain else []
    for kernel in sorted(set(trial.kernels) - {3}):
        places = [i for i, k in enumerate(trial.kernels, start=1) if k == kernel]
        words.append(f"{kernel}×{kernel} at {ranges(places)}")
    return "; ".join(words)


def _clock(run: RunFolder) -> Tile:
    if run.best and run.best.search_seconds is not None:
        workers = run.best.workers
        hint = f"with {many(workers, 'worker')}" if workers else "wall clock"
        return Tile("Search time", duration(run.best.search_seconds), hint)
    seconds = run.trials[-1].search_seconds if run.trials else None
    return Tile("Search time so far", duration(seconds), "until the latest trial")


def _selection(run: RunFolder) -> Tile:
    """Macro candidates train longest, so theirs is the accuracy worth a tile; that of micro is the hint."""
    label = "Selection accuracy"
    macro, micro = (_best(run.trials, stage) for stage in ("macro", "micro"))
    if macro is None:
        return Tile(label, percent(None), "no trial yet")
    hint = f"best of macro, {many(macro.epochs, 'epoch')}"
    if micro:
        hint += f"; micro {percent(micro.accuracy)} after {many(micro.epochs, 'epoch')}"
    return Tile(label, percent(macro.accuracy), hint)


def _best(trials: Sequence[Trial], stage: str) -> Trial | None:
    """The first of the most accurate: a tie changes nothing in the search either."""
    mine = (t for t in trials if PHASES[t.phase].stage == stage and not t.failed)
    return max(mine, key=lambda t: t.accuracy, default=None)


def _leader(trials: Sequence[Trial]) -> Trial | None:
    """The network the search holds: the last one taken, which need not be the most accurate."""
    taken = [t for t in trials if t.decision in TAKEN and not t.failed]
    return taken[-1] if taken else _best(trials, "micro") or _best(trials, "macro")
