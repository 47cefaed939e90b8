"""`report.html` of a run: read it, make charts and drawings, fill the template, put the file in place.

The file to read first. What is shown hangs on what the run's files hold, never on the strategy that wrote them.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from facenas.errors import UserError
from facenas.files import write_text
from facenas.report import front as fronts
from facenas.report import plots
from facenas.report.format import (
    amount,
    count,
    duration,
    exactly,
    label,
    listed,
    many,
    moment,
    percent,
    rate,
    short,
    value,
)
from facenas.report.front import Budget, Front, Member
from facenas.report.html import Tile, render
from facenas.report.read import Final, Network, RunFolder, Trial, phases, read_run, stages
from facenas.strategies.rank_check import rank_warning

Rows = list[tuple[str, str]]

_MOST_FIELDS = 4  # of the architecture, as columns of the table of trials
_MOST_CONFUSIONS = 8
# Numbers of every journal line that have columns of their own, or none.
_ALWAYS = {
    "trial",
    "epochs",
    "params_millions",
    "data_fraction",
    "accuracy",
    "train_accuracy",
    "correct",
}
_ALWAYS |= {"validated", "images", "seconds", "threads", "search_seconds"}


@dataclass(frozen=True)
class Panel:
    """A network as the page draws it; command: what trains it from scratch."""

    network: Network
    told: str
    title: str = ""
    chips: tuple[str, ...] = ()
    command: str = ""
    hidden: bool = False


@dataclass(frozen=True)
class Confusion:
    """What test images were predicted as. balanced: balanced accuracy in percent, the mean of the recalls.

    recalls: (class, its images, percent right); worst: (true class, predicted class, images), most first.
    """

    balanced: float
    recalls: list[tuple[str, int, float]]
    worst: list[tuple[str, str, int]]


def write_search_page(run: Path, beside: Path | None = None, budget: Budget | None = None) -> Path:
    """Writes `report.html` into the run folder, at whatever stage the run is, and returns its path.

    Of a search for a Pareto front, `front.csv` too; `beside` is a run whose hypervolume is set beside its own
    (None: a random search in the same folder, if there is one), `budget` what to recommend a network for.
    Raises UserError when the folder is no run, one of its files is damaged or the two do not fit,
    SearchStoppedError when the disk is full.
    """
    read = read_run(run)
    front = fronts.read_front(read) if read.objectives else None
    if front is None and (beside or budget):
        raise UserError(f"{run}: is no search for a Pareto front; give neither beside nor budget")
    text = _render(read, front, beside, budget)
    if front:
        write_text(run / "front.csv", fronts.front_csv(front))
    write_text(run / "report.html", text)
    return run / "report.html"


def _render(run: RunFolder, front: Front | None, given: Path | None, budget: Budget | None) -> str:
    beside = fronts.find_beside(front, given) if front else None
    recommended = fronts.advise(front.members, budget) if front and budget else None
    check, final, network = fronts.rank_check(run), run.final, _network(run)
    best = recommended.member if recommended else None
    panels = [Panel(network, _size(run, network))] if network and not front else []
    if front and front.members:
        picked, done = best or front.members[0], fronts.trainings(run)
        panels = [_member_panel(front, m, m is picked, m is best, done) for m in front.members]
    selects = run.about.group("data").get("select_on")
    csv = base64.b64encode(fronts.front_csv(front).encode()).decode() if front else ""
    return render(
        "search.html.j2",
        dict(_figures(run, front, beside, check)),
        run=run,
        front=front,
        beside=beside,
        recommended=recommended,
        check=check,
        warning=rank_warning(check.tau) if check and check.complete else None,
        state=_state(run),
        subject=_subject(run),
        generated="generated" in (run.about.data.source or "").lower(),
        on_test=run.searches and not run.faces and selects == "test",  # of faces none can
        judged="pairs" if run.faces else "images",
        tiles=list(_tiles(run, front, beside, network)),
        phases=phases(run.trials),
        growth={one.phase: one for one in front.growth} if front else {},
        panels=panels,
        fields=_fields(run.trials),
        costs=front.costs if front else _costs(run.trials),
        cost_of=lambda trial, name: trial.value(name, run.image_size),
        csv_address=f"data:text/csv;charset=utf-8;base64,{csv}",
        confusion=read_confusion(final) if final and final.confusion else None,
        groups=list(_groups(run)),
    )


def _figures(
    run: RunFolder,
    front: Front | None,
    beside: fronts.Beside | None,
    check: fronts.RankCheck | None,
) -> Iterator[tuple[str, plots.Figure]]:
    final = run.final
    if front and front.growth:
        yield from ((f"front-{cost}", plots.front_plot(front, cost)) for cost in front.costs)
        name = run.strategy if beside else "this search"
        yield "hypervolume", plots.hypervolume_plot(front.growth, beside, name)
    elif run.trials and not front:
        accuracy = "verification accuracy" if run.faces else "selection accuracy"
        yield "course", plots.course_plot(run.trials, accuracy)
    if check and check.ranked:
        yield "ranks", plots.rank_plot(check)
    if run.supernet_epochs:
        yield "supernet", plots.training_plot(run.supernet_epochs)
    if run.epochs:
        yield "training", plots.training_plot(run.epochs, run.best_epoch)
    if final and final.verification:
        yield "roc", plots.verification_roc(final.verification)
    if final and final.confusion:
        yield "confusion", plots.confusion_plot(final.confusion, _class_names(final))


def read_confusion(final: Final) -> Confusion:
    """From the `confusion` of `train.json`; a class without test images has no recall."""
    names, table = _class_names(final), np.array(final.confusion)
    images = table.sum(axis=1)
    recalls = [
        (name, int(images[n]), 100 * float(table[n, n] / images[n]))
        for n, name in enumerate(names)
        if images[n]
    ]
    wrong = [(names[i], names[j], int(table[i, j])) for i, j in np.argwhere(table) if i != j]
    worst = sorted(wrong, key=lambda one: -one[2])[:_MOST_CONFUSIONS]
    return Confusion(float(np.mean([recall for *_, recall in recalls])), recalls, worst)


def _class_names(final: Final) -> list[str]:
    return [str(name) for name in final.classes or range(len(final.confusion or ()))]


def _state(run: RunFolder) -> str:
    """How far the run has come."""
    if run.final:
        return "trained"
    if run.epochs or not run.searches:
        return "training"
    return "found" if run.best else "searching"


def _subject(run: RunFolder) -> str:
    """What was searched how, on what data."""
    data = run.about.data
    facts = (
        f"{count(data.train_images)} {'images' if run.faces else 'training images'}",
        f"{count(data.test_images)} test images" if data.test_images else "",
        f"{data.classes} classes" if data.classes else "",
        f"{count(data.identities)} identities" if data.identities else "",
        f"{data.image_size}×{data.image_size} pixels" if data.image_size else "",
    )
    told = f" ({', '.join(filter(None, facts))})" if data.train_images else ""
    where = f"on {data.name or run.about.group('data').get('name', 'images')}{told}"
    if not run.searches:
        return f"Training of a given network {where}."
    space = run.about.group("space").get("kind", "plain")
    goals = f": {listed(map(label, run.objectives))} are to be small" if run.objectives else ""
    return f"Search by {run.strategy} in the space {space}, {where}{goals}."


def _fields(trials: Sequence[Trial]) -> list[str]:
    """Numbers of the architecture that differ between trials: depth and width of a chain, for instance."""
    trees = [trial.network.tree for trial in trials]
    numbers = [n for n, v in trees[0].items() if type(v) in (int, float)] if trees else []
    varied = [n for n in numbers if len({str(tree.get(n)) for tree in trees}) > 1]
    return [n for n in varied if all(n in tree for tree in trees)][:_MOST_FIELDS]


def _costs(trials: Sequence[Trial]) -> list[str]:
    """What the journal tells beside the accuracy: parameters, MACs, and whatever else was measured."""
    named = dict.fromkeys(name for trial in trials for name in trial.values)
    fields = {name for trial in trials for name in trial.network.tree} | _ALWAYS
    return [name for name in named if name not in fields]


def _network(run: RunFolder) -> Network | None:
    """The network found; before that the one the search holds: the last that was kept."""
    if ended := run.best or run.final:
        return ended.architecture
    ok = [t for t in run.trials if not t.failed]
    held = [t for t in ok if t.decision in ("kept", "baseline")]
    best = held[-1] if held else max(ok, key=lambda t: t.accuracy, default=None)
    return best.network if best else None


def _counts(run: RunFolder, network: Network) -> list[int | None]:
    """Parameters, MACs, parameters of the head that a face network was trained with."""
    told = (run.best.parameters, run.best.macs) if run.best else (None, None)
    counted = [network.counted(name, run.image_size) for name in ("parameters", "macs")]
    found = [c if t is None else t for t, c in zip(told, counted, strict=True)]
    head = run.final.head_parameters if run.final else None
    return [None if n is None else round(n) for n in (*found, head)]


def _size(run: RunFolder, network: Network) -> str:
    """Of faces, papers count the backbone's parameters or all."""
    parameters, macs, head = _counts(run, network)
    told = f"{count(parameters)} parameters{' (backbone, without a head)' if run.faces else ''}"
    if head is not None and parameters is not None:
        both = f"{count(head)} in the head, {count(parameters + head)} in total"
        told = f"Parameters: {count(parameters)} in the backbone, {both}"
    if parameters is None:
        return ""
    return f"{told}; {count(macs)} multiply-accumulates for one image."


def _member_panel(
    front: Front, member: Member, shown: bool, best: bool, done: Sequence[tuple[str, Network]]
) -> Panel:
    run, trial = front.run, member.trial
    chips = ["most accurate"] * (member is front.members[0]) + ["recommended"] * best
    chips += [words for words, network in done if network.tree == member.network.tree]
    judged = "pairs" if run.faces else "images"
    right = (
        f" ({count(trial.correct)} of {count(trial.validated)} {judged} right)"
        if trial.validated
        else ""
    )
    how = (
        f"trained for {many(trial.epochs, 'epoch')}"
        if trial.epochs
        else "judged by the supernet’s weights"
    )
    costs = ", ".join(exactly(name, cost) for name, cost in member.costs.items())
    told = f"Accuracy {percent(member.accuracy)}{right}; {costs}. Found in {trial.phase}, {how}."
    command = fronts.pick_command(run, member.id) if run.best else ""
    return Panel(member.network, told, f"Trial {member.id}", tuple(chips), command, not shown)


def _tiles(
    run: RunFolder, front: Front | None, beside: fronts.Beside | None, network: Network | None
) -> Iterator[Tile]:
    """The key figures, as far as they are known."""
    if run.searches:
        failed = sum(t.failed for t in run.trials)
        yield Tile("Trials", count(len(run.trials)), f"{failed or 'none'} failed")
        so_far = run.trials[-1].search_seconds if run.trials else None
        ended = run.best is not None and run.best.search_seconds is not None
        workers = (
            f"with {many(run.best.workers, 'worker')}"
            if run.best and run.best.workers
            else "wall clock"
        )
        yield Tile(
            f"Search time{'' if ended else ' so far'}",
            duration(run.best.search_seconds if ended and run.best else so_far),
            workers if ended else "until the latest trial",
        )
        yield from _front_tiles(front, beside) if front else _best_tiles(run)
    if network and not front:
        parameters, macs, head = _counts(run, network)
        hint = count(parameters) + (" in the backbone" if run.faces else "")
        hint += f"; with head {short(head + (parameters or 0))}" if head else ""
        if parameters is not None:
            yield Tile("Parameters", short(parameters), hint)
        if macs is not None:
            yield Tile("MACs", short(macs), "for one image")
    if run.final:
        yield _result(run.final)


def _best_tiles(run: RunFolder) -> Iterator[Tile]:
    """The best of the first stage, whose trainings are the longest as a rule; those of the others as hints."""
    ok = [[t for t in stage if not t.failed] for stage in stages(run.trials)]
    best = [max(stage, key=lambda t: t.accuracy) for stage in ok if stage]
    if not best:
        yield Tile("Best accuracy", percent(None), "no trial yet")
        return
    hint = "ten-fold verification; " if run.faces else ""
    hint += f"trial {best[0].trial}, {many(best[0].epochs, 'epoch')}"
    for other in best[1:]:
        hint += f"; {percent(other.accuracy)} after the baseline, {many(other.epochs, 'epoch')}"
    yield Tile("Best accuracy", percent(best[0].accuracy), hint)


def _front_tiles(front: Front, beside: fronts.Beside | None) -> Iterator[Tile]:
    if not front.members:
        hint = "none keeps all limits" if front.growth else "no trial yet"
        yield Tile("On the front", "0", hint)
        return
    best, cost = front.members[0], front.costs[0]
    ends = sorted(member.values[cost] for member in front.members)
    spread = " to ".join(dict.fromkeys(amount(cost, end) for end in (ends[0], ends[-1])))
    yield Tile("On the front", count(len(front.members)), f"{spread} {label(cost)}")
    costs = listed(f"{amount(n, best.values[n])} {label(n)}" for n in front.costs)
    yield Tile("Lowest error", percent(best.values["error"]), f"trial {best.id}: {costs}")
    hint = "share of the box that the front dominates"
    if beside and beside.growth:
        hint = f"{beside.label}: {beside.growth[-1].hypervolume:.4f}"
    yield Tile("Hypervolume", f"{front.growth[-1].hypervolume:.4f}", hint)


def _result(final: Final) -> Tile:
    """What the network trained in full is worth."""
    verified = final.verification
    if verified is None:
        right = f"{count(final.test_correct)} of {count(final.test_images)} right"
        hint = "on the test set" if final.test_correct is None else right
        return Tile("Test accuracy", percent(final.test_accuracy), hint)
    hint = f"on {count(verified.pairs)} pairs of {verified.identities} identities"
    far = min(verified.tar_at_far, key=lambda far: abs(far - 0.01), default=None)
    if far is not None:
        hint += f"; TAR {percent(verified.tar_at_far[far])} at FAR {rate(far)}"
    return Tile("Verification accuracy", percent(verified.accuracy), hint)


def _groups(run: RunFolder) -> Iterator[tuple[str, list[tuple[str, Rows]]]]:
    """Where the run comes from, and its settings: (heading, groups of rows)."""
    about = run.about
    told = {
        "seed": about.config.get("seed"),
        "created": moment(about.created),
        "git commit": about.git_commit,
    }
    images = {k.replace("_", " "): v for k, v in about.data.model_dump(exclude_none=True).items()}
    images = {k: count(v) if isinstance(v, int) else v for k, v in images.items()}
    origin = {"run": told, "images": images, "machine": about.machine, "versions": about.versions}
    for heading, groups in (("Origin", origin), ("Settings", about.config)):
        named = {name: group for name, group in groups.items() if isinstance(group, dict)}
        yield heading, [(name, list(_rows(group))) for name, group in named.items()]


def _rows(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """A group's settings; those of a group within it by dotted key."""
    for key, one in values.items():
        if isinstance(one, dict):
            yield from _rows(one, f"{prefix}{key}.")
        else:
            yield prefix + key, value(one)
