"""The table of an evaluation on a terminal: `facenas eval`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from facenas.evaluation.benches.result import BenchResult, PeopleResult
from facenas.report import people
from facenas.report.evaluation_results import Measure, Published, average, measures, rates, rows
from facenas.report.format import NBSP, short
from facenas.report.nearest import nearest, sentences

_SETS = (
    "The train set moves a network more than its design: compare within one. MACs are as published, where some "
    "are twice as many, or counted by the authors' code."
)
_CAPTION = """In percent; diff.: ours less the best published. TAR: share of genuine pairs
accepted; FAR: share of impostors accepted, the nearest to it or (≤) at most it."""


def print_results(results: Sequence[BenchResult], network: dict[str, Any]) -> None:
    """What was measured, in percent, each beside the best published value, then networks of nearly its size.

    network: its `parameters` and `macs`, as far as known. Fits 80 columns.
    """
    for result in results:
        if isinstance(result, PeopleResult):
            _print_people(result)
    if all(isinstance(result, PeopleResult) for result in results):
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(caption=_CAPTION, caption_justify="left")
    for heading in ("bench", "measure", "ours", "best", "diff.", "best published"):
        right = heading in ("ours", "best", "diff.")
        table.add_column(heading, justify="right" if right else "left", no_wrap=right)
    for result in results:
        for number, cells in enumerate(_lines(result)):
            table.add_row("" if number else result.bench.name, *cells)
        table.add_section()
    if (mean := average(results)) is not None:
        table.add_row("average", "of the five", f"{mean:.2f}")
    Console().print(table)
    _print_nearest(results, network)


def _print_nearest(results: Sequence[BenchResult], network: dict[str, Any]) -> None:
    """Ours, then published networks by train set; then what to know of the figures."""
    from rich.console import Console
    from rich.table import Table

    peers, console = nearest(results, network), Console(highlight=False)
    if peers:
        benches = [one.bench.name for one in results if any(one.bench.name in peer.values for peer in peers)]
        table = Table(title="Published networks of nearly this size, and what they were trained on")
        table.add_column("network, train set")
        for heading in ("params", "MACs", *benches):
            table.add_column(heading, justify="right", no_wrap=True)
        ours = {one.bench.name: row.measure.value for one in results for row in list(rows(one))[:1]}
        table.add_row("this one", *_sizes(network), *(_cell(ours.get(name)) for name in benches))
        for peer in peers:
            table.add_section()
            values = (_cell(peer.values.get(name)) for name in benches)
            table.add_row(f"{peer.model}\n{peer.trained_on}", *_sizes(vars(peer)), *values)
        console.print(table)
        console.print(_SETS, markup=False)
    for sentence in sentences(results, peers):
        console.print(sentence, markup=False)


def _sizes(network: dict[str, Any]) -> Iterator[str]:
    """Parameters and MACs."""
    for key in ("parameters", "macs"):
        value = network.get(key)
        yield "-" if value is None else short(value).replace(NBSP, " ")


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _print_people(found: PeopleResult) -> None:
    """FNMR by wanted FMR, then probabilities, qualities and groups in sentences."""
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    table = Table(caption="In percent, with 95 % intervals over people.", caption_justify="left")
    for heading in ("wanted FMR", "threshold", "FMR", "FNMR"):
        table.add_column(heading, justify="right")
    for point in found.points:
        wanted = people.share(point.wanted) + ("" if point.carried else " (too few people)")
        rates = [people.interval(rate) for rate in (point.fmr, point.fnmr)]
        table.add_row(wanted, f"{point.threshold:.3f}", *rates)
    console.print(table)
    said = [people.summary(found), *people.qualities(found)]
    if found.calibration:
        said.insert(1, people.calibration(found.calibration))
    for sentence in said:
        console.print(sentence, markup=False)
    for column in found.groups:
        for part in people.group_parts(column):
            table = Table(title=f"{part.error} by {column.column}", title_justify="left")
            for heading in ("group", "people", f"{part.error}, %", ""):
                table.add_column(heading, justify="right" if heading == "people" else "left")
            for one in part.rates:
                verdict = people.verdict(one, part.rates)
                table.add_row(one.group, str(one.rate.people), people.interval(one.rate), verdict)
            console.print(table)
            console.print(f"{part.error}: {part.summary}", markup=False)


def _lines(result: BenchResult) -> Iterator[tuple[str, ...]]:
    """The measures beside published ones; then the other ranks, or the true accept rates that are kept."""
    listed = list(rows(result))
    for row in listed:
        best = row.published[0] if row.published else None
        yield row.measure.label, _ours(row.measure), *_beside(best)
    if result.bench.kind == "ranking":
        others = [one for one in measures(result) if one not in [row.measure for row in listed]]
        yield from ((one.label, _ours(one)) for one in others)
    for one in rates(result):
        if one.strict is not None:
            yield f"TAR, FAR ≤ {one.name}", f"{one.strict:.2f}"


def _ours(measure: Measure) -> str:
    spread = f" ± {measure.std:.2f}" if measure.std is not None else ""
    return f"{measure.value:.2f}{spread}"


def _beside(best: Published | None) -> tuple[str, str, str]:
    if best is None:
        return "-", "-", "-"
    return f"{best.value:.2f}", "-" if best.told is None else f"{best.told:+.2f}", best.model
