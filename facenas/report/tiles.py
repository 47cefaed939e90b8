"""The key figures at the head of the page."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from facenas.report.reading import RunFolder
from facenas.report.records import Final, Verification
from facenas.report.summary import Network, best_of, network
from facenas.report.wording import count, duration, many, percent, rate, short


@dataclass(frozen=True)
class Tile:
    """A key figure."""

    label: str
    value: str
    hint: str


def tiles(run: RunFolder) -> Iterator[Tile]:
    """The key figures, as far as they are known."""
    if run.searches:
        failed = sum(t.failed for t in run.trials)
        hint = f"{failed} failed" if failed else "none failed"
        yield Tile("Trials", count(len(run.trials)), hint)
        yield clock(run)
        yield _selection(run)
    found = network(run)
    if found:
        yield _parameters(run, found)
    if found and found.macs is not None:
        yield Tile("MACs", short(found.macs), "for one image")
    if run.final:
        yield result(run.final)


def clock(run: RunFolder) -> Tile:
    """How long the search took, or has taken so far."""
    if run.best and run.best.search_seconds is not None:
        workers = run.best.workers
        hint = f"with {many(workers, 'worker')}" if workers else "wall clock"
        return Tile("Search time", duration(run.best.search_seconds), hint)
    seconds = run.trials[-1].search_seconds if run.trials else None
    return Tile("Search time so far", duration(seconds), "until the latest trial")


def _selection(run: RunFolder) -> Tile:
    """Macro candidates train longest, so theirs is the accuracy worth a tile; that of micro is the hint."""
    label = "Selection accuracy"
    macro, micro = (best_of(run.trials, stage) for stage in ("macro", "micro"))
    if macro is None:
        return Tile(label, percent(None), "no trial yet")
    hint = "ten-fold verification; " if run.terms.faces else ""
    hint += f"best of macro, {many(macro.epochs, 'epoch')}"
    if micro:
        hint += f"; micro {percent(micro.accuracy)} after {many(micro.epochs, 'epoch')}"
    return Tile(label, percent(macro.accuracy), hint)


def _parameters(run: RunFolder, found: Network) -> Tile:
    which = "" if run.best or run.final else "best so far: "
    hint = which + count(found.parameters)
    if run.terms.faces:
        hint += " in the backbone"
    if found.head_parameters is not None:
        hint += f"; with head {short(found.parameters + found.head_parameters)}"
    return Tile("Parameters", short(found.parameters), hint)


def result(final: Final) -> Tile:
    """What the network trained in full is worth."""
    if final.verification:
        verified = final.verification
        return Tile("Verification accuracy", percent(verified.accuracy), _verified(verified))
    return Tile("Test accuracy", percent(final.test_accuracy), _right(final))


def _right(final: Final) -> str:
    """How many test images were told right."""
    if final.test_correct is None:
        return "on the test set"
    return f"{count(final.test_correct)} of {count(final.test_images)} right"


def _verified(verified: Verification) -> str:
    """On what, and the true accept rate at the false accept rate nearest to 1 %."""
    hint = f"on {count(verified.pairs)} pairs of {verified.identities} identities"
    far = min(verified.tar_at_far, key=lambda far: abs(far - 0.01), default=None)
    if far is None:
        return hint
    return f"{hint}; TAR {percent(verified.tar_at_far[far])} at FAR {rate(far)}"
