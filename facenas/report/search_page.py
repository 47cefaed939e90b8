"""`report.html` of a run: read it, make charts and drawings, fill the template, put the file in place.

The file to read first. What is shown hangs on what the run's files hold, never on the strategy that wrote them.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from facenas.errors import UserError
from facenas.files import write_text
from facenas.report import format as fmt
from facenas.report import front as fronts
from facenas.report import plots
from facenas.report.expected import Expected, Interval, expected
from facenas.report.front import Beside, Budget, Front, Member, RankCheck
from facenas.report.html import Tile, render
from facenas.report.read import Final, Network, RunFolder, Trial, phases, read_network, read_run, stages
from facenas.runs import open_run
from facenas.strategies.rank_check import rank_warning
from facenas.studies.findings import Chart, Series

_MOST_FIELDS = 4  # of the architecture, as columns of the table of trials
_MOST_CONFUSIONS = 8
# Numbers of every journal line that have columns of their own, or none.
_ALWAYS = {"trial", "epochs", "params_millions", "data_fraction", "accuracy", "train_accuracy"}
_ALWAYS |= {"correct", "validated", "images", "seconds", "threads", "search_seconds"}


@dataclass(frozen=True)
class Panel:
    """A network as the page draws it; command: what trains it from scratch.

    protocol: (setting, the recipe's value, the value found) of all settings that were searched.
    """

    network: Network
    shown: str = ""
    title: str = ""
    chips: Sequence[str] = ()
    command: str = ""
    hidden: bool = False
    protocol: Sequence[tuple[str, Any, Any]] = ()


@dataclass(frozen=True)
class Confusion:
    """What test images were predicted as. balanced: balanced accuracy in percent, the mean of the recalls.

    recalls: (class, its images, percent right); worst: (true class, predicted class, images), most first.
    """

    balanced: float
    recalls: list[tuple[str, int, float]]
    worst: list[tuple[str, str, int]]


def write_search_page(
    run: Path, beside: Path | None = None, budget: Budget | None = None, live: bool = False
) -> Path:
    """Writes `report.html` into the run folder, at whatever stage the run is, and returns its path.

    Of a search for a Pareto front, `front.csv` too; `beside` is a run whose hypervolume is set beside its own
    (None: a random search in the same folder, if there is one), `budget` what to recommend a network for. live:
    whether the page is to load itself anew, since it will be written again.
    Raises UserError when the folder is no run, one of its files is damaged or the two do not fit,
    SearchStoppedError when the disk is full.
    """
    read = read_run(run)
    front = fronts.read_front(read) if read.objectives else None
    if front is None and (beside or budget):
        raise UserError(f"{run}: is no search for a Pareto front; give neither beside nor budget")
    csv = fronts.front_csv(front) if front else ""
    text = _render(read, front, beside, budget, csv, live)
    if front:
        write_text(run / "front.csv", csv)
    write_text(run / "report.html", text)
    return run / "report.html"


def _render(
    run: RunFolder, front: Front | None, given: Path | None, budget: Budget | None, csv: str, live: bool
) -> str:
    beside = fronts.find_beside(front, given) if front else None
    recommended = None
    if front and budget:
        recommended = fronts.Recommendation(budget, fronts.recommend(front.members, budget))
    check, final, panel = fronts.rank_check(run), run.final, None if front else _panel(run)
    network = panel.network if panel else None
    panels = [panel] if panel else []
    if front:
        panels = _member_panels(front, recommended.member if recommended else None)
    selects = run.about.group("data").get("select_on")
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
        generated="generated" in run.about.data.get("source", "").lower(),
        on_test=run.searches and not run.faces and selects == "test",  # of faces none can
        judged="pairs" if run.faces else "images",
        tiles=list(_tiles(run, front, beside, network)),
        phases=phases(run.trials),
        parents=_parents(run.trials),
        growth={one.phase: one for one in front.growth} if front else {},
        panels=panels,
        fields=_fields(run.trials),
        costs=front.costs if front else _costs(run.trials),
        csv_address=f"data:text/csv;charset=utf-8;base64,{base64.b64encode(csv.encode()).decode()}",
        confusion=read_confusion(final) if final and final.confusion else None,
        groups=list(_groups(run)),
        sure=[] if run.by_agreement else _sure(run, expected(run)),
        written=datetime.now().astimezone() if live else None,
    )


def _figures(
    run: RunFolder, front: Front | None, beside: Beside | None, check: RankCheck | None
) -> Iterator[tuple[str, plots.Figure]]:
    final = run.final
    if front and front.growth:
        yield from ((f"front-{cost}", plots.front_plot(front, cost)) for cost in front.costs)
        name = run.strategy if beside else "this search"
        yield "hypervolume", plots.hypervolume_plot(front.growth, beside, name)
    elif run.trials and not front:
        yield "course", plots.course_plot(run.trials, run.judged_by)
        yield from _trends(run)
    if check and check.ranked:
        yield "ranks", plots.rank_plot(check)
    if run.supernet_epochs:
        yield "supernet", plots.training_plot(run.supernet_epochs)
    if run.epochs:
        words = {"judged_by": run.judged_by} if run.faces else {}
        words |= {"learned": "training agreement"} if run.unlabeled else {}
        yield "training", plots.training_plot(run.epochs, run.best_epoch, **words)
    if final and final.verification:
        yield "roc", plots.verification_roc(final.verification)
    if final and final.confusion:
        yield "confusion", plots.confusion_plot(final.confusion, final.class_names)


def _trends(run: RunFolder) -> Iterator[tuple[str, plots.Figure]]:
    """What a size was read off, by phase."""
    for phase, trend in (run.best.trends if run.best else {}).items():
        sizes, accuracies = (tuple(point[i] for point in trend.points) for i in range(2))
        curve = Series("trend", trend.sizes, trend.mean, "line", trend.low, trend.high)
        at = dict(zip(trend.sizes, trend.mean, strict=True)).get(trend.chosen)
        chosen = Series(f"chosen: {trend.chosen:g}", (trend.chosen,), (at or 0.0,))
        shown = (curve, Series("trained", sizes, accuracies), chosen)
        yield f"trend-{phase}", plots.chart_plot(Chart(phase, phase, phase, "accuracy, %", shown))


def read_confusion(final: Final) -> Confusion:
    """From the `confusion` of `train.json`; a class without test images has no recall."""
    names, table = final.class_names, np.array(final.confusion)
    counted = zip(names, table.sum(axis=1).tolist(), table.diagonal().tolist(), strict=True)
    recalls = [(name, images, 100 * right / images) for name, images, right in counted if images]
    wrong = [(names[i], names[j], int(table[i, j])) for i, j in np.argwhere(table) if i != j]
    worst = sorted(wrong, key=lambda one: -one[2])[:_MOST_CONFUSIONS]
    return Confusion(float(np.mean([recall for *_, recall in recalls])), recalls, worst)


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
    nouns = {"train_images": "images" if run.faces else "training images"}
    nouns |= {"test_images": "test images", "classes": "classes", "identities": "identities"}
    facts = [f"{fmt.count(data[key])} {noun}" for key, noun in nouns.items() if data.get(key)]
    facts += [f"{size}×{size} pixels" for size in (data.get("image_size"),) if size]
    shown = f" ({', '.join(facts)})" if data.get("train_images") else ""
    where = f"on {data.get('name') or run.about.group('data').get('name', 'images')}{shown}"
    if not run.searches:
        return f"Training of a given network {where}."
    goals = f": {fmt.listed(map(fmt.label, run.objectives))} are to be small" if run.objectives else ""
    space = run.about.group("space").get("kind", "plain")
    return f"Search by {run.strategy} in the space {space}, {where}{goals}."


def _fields(trials: Sequence[Trial]) -> list[str]:
    """Numbers of the architecture that differ between trials: depth and width of a chain, for instance."""
    trees = [trial.network.tree for trial in trials]
    numbers = [n for n, v in trees[0].items() if type(v) in (int, float)] if trees else []
    shared = [n for n in numbers if all(n in tree for tree in trees)]
    return [n for n in shared if len({str(tree[n]) for tree in trees}) > 1][:_MOST_FIELDS]


def _parents(trials: Sequence[Trial]) -> dict[int, int]:
    """By the number of a trial, that of the one whose weights it began with."""
    numbers = {trial.key: trial.trial for trial in reversed(trials)}  # a finalist may have a trial's key
    return {trial.trial: numbers[trial.parent] for trial in trials if trial.parent in numbers}


def _costs(trials: Sequence[Trial]) -> list[str]:
    """What the journal tells beside the accuracy: parameters, MACs, and whatever else was measured."""
    named = dict.fromkeys(name for trial in trials for name in trial.values)
    fields = {name for trial in trials for name in trial.network.tree} | _ALWAYS
    return [name for name in named if name not in fields]


def _panel(run: RunFolder) -> Panel | None:
    """The network found; before that what the search would give now, as its strategy says."""
    if ended := run.best or run.final:
        protocol = _protocol(run, run.best.protocol if run.best else {})
        return Panel(ended.architecture, protocol=protocol) if ended.architecture else None
    try:
        best = open_run(run.path.parent, run.path.name).best_so_far()
    except Exception:  # a strategy or a space that is not here, a journal of another version
        best = None
    if best is None or best["architecture"] is None:
        held = _last_kept(run)
        return Panel(held) if held else None
    command = fronts.train_command(run, "--so-far")
    shown = f"{fmt.percent(best['accuracy'])} in the search until now."
    protocol = _protocol(run, best.get("protocol", {}))
    return Panel(read_network(best["architecture"]), shown, command=command, protocol=protocol)


def _protocol(run: RunFolder, found: dict[str, Any]) -> list[tuple[str, Any, Any]]:
    """Settings in which trials or the best differ from the recipe, with its value and the one found."""
    searched = dict.fromkeys(
        name for differing in (found, *(t.protocol for t in run.trials)) for name in differing
    )
    recipe = dict(_flat(run.about.group("recipe")))
    return [(name, recipe.get(name), found.get(name, recipe.get(name))) for name in sorted(searched)]


def _last_kept(run: RunFolder) -> Network | None:
    ok = [t for t in run.trials if not t.failed]
    held = [t for t in ok if t.decision in ("kept", "baseline")]
    best = held[-1] if held else max(ok, key=lambda t: t.accuracy, default=None)
    return best.network if best else None


def _member_panels(front: Front, recommended: Member | None) -> list[Panel]:
    """Of every member; the recommended one is shown, else the most accurate."""
    run, done, panels = front.run, fronts.trainings(front.run), []
    for member in front.members:
        trial, first, best = member.trial, member is front.members[0], member is recommended
        chips = ["most accurate"] * first + ["recommended"] * best
        chips += [words for words, network in done if network.tree == member.network.tree]
        right = f"{fmt.count(trial.correct)} of {fmt.count(trial.validated)}"
        right = f" ({right} {'pairs' if run.faces else 'images'} right)" if trial.validated else ""
        how = f"trained for {fmt.many(trial.epochs, 'epoch')}"
        how = how if trial.epochs else "judged by the supernet’s weights"
        costs = ", ".join(fmt.exactly(name, cost) for name, cost in member.costs.items())
        shown = f"Accuracy {fmt.percent(member.accuracy)}{right}; {costs}."
        shown += f" Found in {trial.phase}, {how}."
        command = fronts.pick_command(run, member.id) if run.best else ""
        hidden = not (best or (first and recommended is None))
        panels.append(Panel(member.network, shown, f"Trial {member.id}", chips, command, hidden))
    return panels


def _tiles(
    run: RunFolder, front: Front | None, beside: Beside | None, network: Network | None
) -> Iterator[Tile]:
    """The key figures, as far as they are known."""
    if run.searches:
        failed, best = sum(t.failed for t in run.trials), run.best
        yield "Trials", fmt.count(len(run.trials)), f"{failed or 'none'} failed"
        if best and best.search_seconds is not None:
            hint = f"with {fmt.many(best.workers, 'worker')}" if best.workers else "wall clock"
            yield "Search time", fmt.duration(best.search_seconds), hint
        else:
            seconds = run.trials[-1].search_seconds if run.trials else None
            yield "Search time so far", fmt.duration(seconds), "until the latest trial"
        yield from _front_tiles(front, beside) if front else _best_tiles(run)
    if network and not front:
        yield from _size_tiles(run, network)
    if run.final:
        yield _result(run.final, run.unlabeled)


def _best_tiles(run: RunFolder) -> Iterator[Tile]:
    """The best of the first stage, whose trainings are the longest as a rule; those of the others as hints."""
    ok = [[t for t in stage if not t.failed] for stage in stages(run.trials)]
    best = [max(stage, key=lambda t: t.accuracy) for stage in ok if stage]
    if not best:
        yield "Best accuracy", fmt.MISSING, "no trial yet"
        return
    hint = "ten-fold verification; " if run.faces else ""
    hint = "agreement with the teacher; " if run.by_agreement else hint
    hint += f"trial {best[0].trial}, {fmt.many(best[0].epochs, 'epoch')}"
    for one in best[1:]:
        epochs = fmt.many(one.epochs, "epoch")
        hint += f"; {fmt.percent(one.accuracy)} after the baseline, {epochs}"
    yield "Best accuracy", fmt.percent(best[0].accuracy), hint


def _size_tiles(run: RunFolder, network: Network) -> Iterator[Tile]:
    """Of faces, papers count the backbone's parameters or all."""
    counted = [network.counted(name, run.image_size) for name in ("parameters", "macs")]
    parameters, macs = (run.best.parameters, run.best.macs) if run.best else counted
    head = run.final.head_parameters if run.final else None
    if parameters is not None:
        hint = fmt.count(round(parameters)) + " in the backbone" * run.faces
        hint += f", {fmt.count(head)} in the head" if head else ""
        yield "Parameters", fmt.short(parameters), hint
    if macs is not None:
        yield "MACs", fmt.short(macs), f"{fmt.count(round(macs))} for one image"


def _front_tiles(front: Front, beside: Beside | None) -> Iterator[Tile]:
    if not front.members:
        hint = "none keeps all limits" if front.growth else "no trial yet"
        yield "On the front", "0", hint
        return
    best, cost = front.members[0], front.costs[0]
    ends = sorted(member.values[cost] for member in front.members)
    spread = " to ".join(dict.fromkeys(fmt.amount(cost, end) for end in (ends[0], ends[-1])))
    yield "On the front", fmt.count(len(front.members)), f"{spread} {fmt.label(cost)}"
    costs = fmt.listed(f"{fmt.amount(n, best.values[n])} {fmt.label(n)}" for n in front.costs)
    yield "Lowest error", fmt.percent(best.values["error"]), f"trial {best.id}: {costs}"
    hint = "share of the box that the front dominates"
    if beside and beside.growth:
        hint = f"{beside.label}: {beside.growth[-1].hypervolume:.4f}"
    yield "Hypervolume", f"{front.growth[-1].hypervolume:.4f}", hint


def _sure(run: RunFolder, told: Expected | None) -> list[str]:
    """What the winner is worth, in sentences: expected accuracy, runner-up, after the full training."""
    if told is None:
        return []
    winner, other = told.winner, told.runner_up
    images = "pairs" if run.faces else "images"
    chosen = "no other comes near it" if told.near == 1 else f"it is the best of {told.near} within noise"
    seen = f"Its {fmt.percent(winner.accuracy)} (trial {winner.trial}) is what was seen, and {chosen}"
    shown = f"{seen}: trained again as in the search and judged on other {images}, "
    sentences = [f"{shown}{_ranged(told.again)} are expected."]
    if other:
        named = f"trial {other.trial} ({other.network.summary}, {fmt.percent(other.accuracy)})"
        sentences.append(f"The runner-up, {named}, is truly better by {fmt.rate(told.probability)} chance.")
    if told.final and not run.final:
        epochs = fmt.many(run.about.group("recipe")["final_epochs"], "epoch")
        sentences.append(
            f"After the full training ({epochs} on all images) {_ranged(told.final)} are expected, roughly: as "
            "errors fell from search to full training in other searches."
        )
    return sentences


def _ranged(interval: Interval) -> str:
    ends = f"{fmt.percent(interval.low)} to {fmt.percent(interval.high)}"
    return f"{fmt.percent(interval.value)} (95 %: {ends})"


def _result(final: Final, unlabeled: bool) -> Tile:
    """What the network trained in full is worth."""
    if unlabeled:
        return "Agreement", fmt.percent(final.agreement), "with the teacher, on held-out crops"
    verified = final.verification
    if verified is None:
        right = f"{fmt.count(final.test_correct)} of {fmt.count(final.test_images)} right"
        hint = "on the test set" if final.test_correct is None else right
        return "Test accuracy", fmt.percent(final.test_accuracy), hint
    hint = f"on {fmt.count(verified.pairs)} pairs of {verified.identities} identities"
    far = min(verified.tar_at_far, key=lambda far: abs(far - 0.01), default=None)
    if far is not None:
        hint += f"; TAR {fmt.percent(verified.tar_at_far[far])} at FAR {fmt.rate(far)}"
    return "Verification accuracy", fmt.percent(verified.accuracy), hint


def _groups(run: RunFolder) -> Iterator[tuple[str, list[tuple[str, list[tuple[str, str]]]]]]:
    """Where the run comes from, and its settings: (heading, groups of rows)."""
    about = run.about
    shown = {"seed": about.config.get("seed"), "created": fmt.moment(about.created)}
    shown |= {"git commit": about.git_commit}
    if run.best and run.best.beginning:
        shown["weights from"] = run.best.beginning.get("source")
    images = {key: fmt.fact(one) for key, one in about.data.items()}
    origin = {"run": shown, "images": images, "machine": about.machine, "versions": about.versions}
    for heading, groups in (("Origin", origin), ("Settings", about.config)):
        named = {name: group for name, group in groups.items() if isinstance(group, dict)}
        yield heading, [(name, list(_rows(group))) for name, group in named.items()]


def _rows(values: dict[str, Any]) -> Iterator[tuple[str, str]]:
    yield from ((name, fmt.value(one)) for name, one in _flat(values))


def _flat(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """A group's settings; those of a group within it by dotted key."""
    for key, one in values.items():
        if isinstance(one, dict):
            yield from _flat(one, f"{prefix}{key}.")
        else:
            yield prefix + key, one
