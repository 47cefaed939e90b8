"""How far a search depends on its seed: what is found, and where two runs of it begin to decide otherwise.

The seed draws weights and batches, and which images are held out for validation. The paper tells of five runs
of its search by one figure alone (section 4.1, all of RI > 2).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import fmean, median, stdev
from typing import Any

import numpy as np

from facenas.errors import counted
from facenas.runs import Run
from facenas.runs.config import RunConfig
from facenas.runs.journal import read_journal
from facenas.spaces import Architecture, fingerprint, from_json
from facenas.spaces.plain import PLAIN, Chain
from facenas.strategies import Decision
from facenas.studies.base import Conduct, Member, Seeds, Study, register, varied
from facenas.studies.findings import Cell, Chart, Findings, Series, Table
from facenas.studies.networks import Network, found_by, seeds_of, spread

Line = dict[str, Any]  # of a journal
Asked = tuple[str, int]  # a candidate, and how often it was asked for before


@dataclass(frozen=True)
class Course:
    """One search: its journal and the network that it found."""

    seed: int
    lines: list[Line]
    found: Network
    macro_accuracy: float | None = None  # before micro search, of strategies that tell it

    @property
    def epochs(self) -> float:
        """Trained in all, each counted by the part of the images that it saw."""
        return float(sum(line["epochs"] * line["data_fraction"] for line in self.lines))

    def asked(self) -> dict[Asked, Line]:
        """The journal's lines by candidate, in order."""
        times: Counter[str] = Counter()
        told: dict[Asked, Line] = {}
        for line in self.lines:
            name = candidate_of(line)
            told[name, times[name]] = line
            times[name] += 1
        return told


@register("repeat")
class Repeat(Study):
    """The study: the search of the settings, `seeds` times."""

    class Settings(Seeds):
        """seeds: how many searches, alike but for their seed."""

    title = "The same search by several seeds"

    def conduct(self, config: RunConfig, facts: dict[str, Any]) -> Conduct:
        """One search after another."""
        courses = []
        for seed in seeds_of(config, self.settings.seeds):
            run = yield Member(f"search-{seed}", varied(config, seed=seed))
            courses.append(read_course(run))
        return findings(courses)


def read_course(run: Run) -> Course:
    """Of a search that has ended."""
    lines = read_journal(run.folder / "trials.jsonl")
    return Course(run.config.seed, lines, found_by(run, run.name), run.found().get("macro_accuracy"))


def candidate_of(line: Line) -> str:
    """What was asked for: architecture, epochs, images, and what else its training differs in."""
    told = {name: line.get(name) for name in ("epochs", "data_fraction", "repeat", "protocol")}
    # Keys of parents tell the seed.
    return fingerprint({**from_json(line).to_json(), **told, "parent": "parent" in line})


@dataclass(frozen=True)
class Pair:
    """Two courses. parted: number of the first trial that differs, None if none does; how: in words.

    shared: candidates that both asked for; equal: of these, how many were decided alike.
    """

    seeds: tuple[int, int]
    parted: int | None
    how: str
    shared: int
    equal: int


def compared(first: Course, second: Course) -> Pair:
    """Where they part, and how often they decide alike."""
    parted, how = _parting(first.lines, second.lines)
    one, two = first.asked(), second.asked()
    both = one.keys() & two.keys()
    equal = sum(one[asked]["decision"] == two[asked]["decision"] for asked in both)
    return Pair((first.seed, second.seed), parted, how, len(both), equal)


def _parting(first: Sequence[Line], second: Sequence[Line]) -> tuple[int | None, str]:
    for number, (one, two) in enumerate(zip(first, second, strict=False)):
        if candidate_of(one) != candidate_of(two):
            return number, f"{_named(one)} or {_named(two)}"
        if one["decision"] != two["decision"]:
            told = (f"{line['decision']} ({line['accuracy']:.2f} %)" for line in (one, two))
            return number, f"{_named(one)}: {' or '.join(told)}"
    if len(first) != len(second):
        return min(len(first), len(second)), "one of them had ended"
    return None, "never"


def _named(line: Line) -> str:
    return f"{line['phase']}, {line['reason_proposed']}"


def noise(courses: Sequence[Course]) -> tuple[float, int] | None:
    """The standard deviation of a candidate's accuracy over seeds, pooled, and over how many candidates.

    Of the candidates that two or more asked for and none failed; None where there is none.
    """
    values: dict[Asked, list[float]] = {}
    for course in courses:
        for asked, line in course.asked().items():
            if line["status"] == "ok":
                values.setdefault(asked, []).append(float(line["accuracy"]))
    some = [v for v in values.values() if len(v) > 1]
    if not some:
        return None
    squares = sum((len(v) - 1) * stdev(v) ** 2 for v in some)
    return float(np.sqrt(squares / sum(len(v) - 1 for v in some))), len(some)


def findings(courses: Sequence[Course]) -> Findings:
    """What the searches found, how they differ, and where each two of them part."""
    pairs = [compared(first, second) for first, second in combinations(courses, 2)]
    columns = _columns(courses)
    return Findings(
        summary=tuple(_sentences(courses, columns, pairs)),
        tables=(_searches(courses, columns), *([_pairs(pairs)] if pairs else [])),
        charts=_charts(courses, columns),
        values=_values(courses, columns, pairs),
    )


Columns = dict[str, Sequence[float]]  # by head, a value for each search
MACRO = "before micro search, %"


def _columns(courses: Sequence[Course]) -> Columns:
    """What is told of each search: the network's shape and size, its accuracy, and what it cost."""
    found = [course.found for course in courses]
    shapes = [shape(network.architecture) for network in found]
    named = {name: [one.get(name, 0) for one in shapes] for name in dict.fromkeys(n for s in shapes for n in s)}
    always = ("depth", "width")
    told: Columns = {name: values for name, values in named.items() if name in always or len(set(values)) > 1}
    told["parameters"] = [network.parameters for network in found]
    told["MACs"] = [network.macs for network in found]
    if macro := [course.macro_accuracy for course in courses if course.macro_accuracy is not None]:
        told[MACRO] = macro
    told["accuracy, %"] = [network.accuracy or 0.0 for network in found]
    told["trials"] = [len(course.lines) for course in courses]
    return told | {"epochs trained": [course.epochs for course in courses]}


def shape(architecture: Architecture) -> dict[str, int]:
    """The whole numbers that describe it; of lists, how long they are."""
    if isinstance(architecture, Chain):
        kernels = sum(kernel > 3 for kernel in architecture.kernels)
        plain = architecture.operations.count(PLAIN)
        sizes = {"depth": architecture.depth, "width": architecture.width}
        return {**sizes, "plain convolutions": plain, "kernels above 3": kernels}
    tree = architecture.to_json()
    lists = {f"{name}, how many": len(value) for name, value in tree.items() if isinstance(value, list)}
    return {name: value for name, value in tree.items() if type(value) is int} | lists


def _sentences(courses: Sequence[Course], columns: Columns, pairs: Sequence[Pair]) -> Iterator[str]:
    accuracies, sizes = columns.get(MACRO, columns["accuracy, %"]), columns["parameters"]
    when = " before micro search" if MACRO in columns else ""
    different = len({fingerprint(course.found.architecture.to_json()) for course in courses})
    yield (
        f"By {counted(len(courses), 'seed')} it finds {counted(different, 'network')} of {min(sizes):,} to "
        f"{max(sizes):,} parameters; their accuracy{when} is {spread(accuracies)} % (mean and standard "
        f"deviation), from {min(accuracies):.2f} to {max(accuracies):.2f} %."
    )
    if not pairs:
        return
    parted = [pair.parted for pair in pairs if pair.parted is not None]
    if parted:
        yield (
            f"Of {len(pairs)} pairs of searches {len(parted)} part, at trial {min(parted)} at the earliest and "
            f"{median(parted):g} in the middle; trials are counted from 0."
        )
    else:
        yield f"None of the {len(pairs)} pairs of searches parts."
    if shared := sum(pair.shared for pair in pairs):
        share = 100 * sum(pair.equal for pair in pairs) / shared
        yield f"Of what both of a pair asked for, {share:.1f} % is decided alike ({shared} decisions)."
    if found := noise(courses):
        deviation, count = found
        yield (
            f"One candidate's accuracy varies by {deviation:.2f} points from seed to seed (pooled standard "
            f"deviation of {count} candidates)."
        )


def _searches(courses: Sequence[Course], columns: Columns) -> Table:
    rows: list[tuple[Cell, ...]] = []
    for number, course in enumerate(courses):
        rows.append((f"seed {course.seed}", *(_whole(values[number]) for values in columns.values())))
    if len(courses) > 1:
        rows.append(("mean", *(fmean(values) for values in columns.values())))
        rows.append(("standard deviation", *(stdev(values) for values in columns.values())))
        rows.append(("range", *(max(values) - min(values) for values in columns.values())))
    note = "Accuracies are those of the search, on validation images; an epoch is one of all training images."
    return Table("searches", "What each search found", ("search", *columns), tuple(rows), note)


def _whole(value: float) -> Cell:
    return int(value) if value == int(value) else value


def _pairs(pairs: Sequence[Pair]) -> Table:
    rows = tuple(
        (
            f"{pair.seeds[0]} and {pair.seeds[1]}",
            pair.parted,
            pair.how,
            pair.shared,
            100 * pair.equal / pair.shared if pair.shared else None,
        )
        for pair in pairs
    )
    return Table(
        "pairs",
        "Where two searches part",
        ("seeds", "first trial that differs", "there", "asked for by both", "decided alike, %"),
        rows,
        "Both ask for a candidate when architecture, epochs and part of the images are the same.",
    )


def _charts(courses: Sequence[Course], columns: Columns) -> tuple[Chart, ...]:
    measured = MACRO if MACRO in columns else "accuracy, %"
    found = [
        Series(f"seed {course.seed}", (size,), (accuracy,), text=(course.found.architecture.summary(),))
        for course, size, accuracy in zip(courses, columns["parameters"], columns[measured], strict=True)
    ]
    y = f"accuracy {measured}".replace("accuracy accuracy", "accuracy")
    charts = [Chart("found", "What each search found", "parameters", y, tuple(found))]
    of = "depth" if all(isinstance(course.found.architecture, Chain) for course in courses) else "parameters"
    best = tuple(_best_so_far(course, of) for course in courses)
    charts.append(Chart("course", f"{of.capitalize()} of the network kept last", "trial", of, best))
    judged = tuple(_judged(course) for course in courses)
    return (*charts, Chart("trials", "Accuracy of every trial", "trial", "accuracy, %", judged))


def _best_so_far(course: Course, of: str) -> Series:
    """Steps, as two points for each change."""
    points: list[tuple[float, float]] = []
    for number, line in enumerate(course.lines):
        value = float(line[of])
        if line["decision"] == Decision.REJECTED and points:
            value = points[-1][1]
        if points and value != points[-1][1]:
            points.append((float(number), points[-1][1]))
        points.append((float(number), value))
    x, y = zip(*points, strict=True)
    return Series(f"seed {course.seed}", x, y, "line")


def _judged(course: Course) -> Series:
    ok = [(float(n), line) for n, line in enumerate(course.lines) if line["status"] == "ok"]
    return Series(
        f"seed {course.seed}",
        tuple(number for number, _ in ok),
        tuple(float(line["accuracy"]) for _, line in ok),
        text=tuple(f"{_named(line)}: {line['decision']}" for _, line in ok),
    )


def _values(courses: Sequence[Course], columns: Columns, pairs: Sequence[Pair]) -> dict[str, Any]:
    deviation = noise(courses)
    return {
        "seeds": [course.seed for course in courses],
        "searches": columns,
        "architectures": [course.found.architecture.to_json() for course in courses],
        "pairs": [
            {"seeds": list(p.seeds), "parted": p.parted, "shared": p.shared, "equal": p.equal} for p in pairs
        ],
        "noise": deviation and deviation[0],
    }
