"""Which options of a cell network's blocks matter: one is changed in all blocks, the rest stays as found.

    python tools/ablate_cells.py RUN [--pick ID] [--epochs 6] [--seeds 3] [--set data.data_fraction=0.2]

RUN is the folder of a search of cells; without --pick its most accurate network is taken. All variants are
trained like the search's candidates (its images, its recipe), each from as many seeds, on one core each, and
validated on the images held out. Prints parameters, multiply-accumulates, and the mean accuracy with the
range over the seeds. A variant that is the network as found (an option that it has anyway) is left out.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean

from facenas.errors import UserError
from facenas.execution import TrainAlone, TrialSpec, build_executor
from facenas.report.front import read_front
from facenas.report.read import read_run
from facenas.runs import Run, open_run
from facenas.runs.config import RunConfig
from facenas.runs.presets import load_run_config
from facenas.spaces.cells import ACTIVATIONS, MERGES, Block, Cell, CellArchitecture
from facenas.strategies import Budget, Candidate

CONVOLUTIONS = (("conv", 3), ("conv", 5), ("conv", 7), ("separable", 3), ("separable", 5))
FOUND = "as found"

Trained = dict[str, list[float]]  # accuracies in percent over the seeds, by variant


@dataclass(frozen=True)
class Variant:
    """A network and what was changed in it."""

    name: str
    arch: CellArchitecture


def variants(arch: CellArchitecture) -> list[Variant]:
    """The network as found, then every different one that a single option makes of it."""
    told = {arch: FOUND}
    for name, changed in _changed(arch):
        told.setdefault(changed, name)
    return [Variant(name, changed) for changed, name in told.items()]


def _changed(arch: CellArchitecture) -> Iterator[tuple[str, CellArchitecture]]:
    for on in (True, False):
        name = "BatchNorm in all blocks" if on else "no BatchNorm"
        yield name, _with_blocks(arch, lambda block, on=on: replace(block, batch_norm=on))
    for what in ACTIVATIONS:
        yield (
            f"activation {what}",
            _with_blocks(arch, lambda b, what=what: replace(b, activation=what)),
        )
    for on in (True, False):
        name = "skip around all blocks" if on else "no skip"
        yield name, _with_blocks(arch, lambda block, on=on: replace(block, skip=on))
    for operation, kernel in CONVOLUTIONS:
        name = f"all convolutions {operation} {kernel}x{kernel}"
        yield name, _with_blocks(arch, lambda b, to=(operation, kernel): _convolving(b, *to))
    for merge in MERGES:
        yield f"merge by {merge}", _with_cells(arch, lambda cell, to=merge: replace(cell, merge=to))


def _convolving(block: Block, operation: str, kernel: int) -> Block:
    return replace(block, operation=operation, kernel=kernel) if block.convolves else block


def _with_blocks(arch: CellArchitecture, change: Callable[[Block], Block]) -> CellArchitecture:
    def in_cell(cell: Cell) -> Cell:
        return replace(cell, pipelines=tuple(tuple(map(change, p)) for p in cell.pipelines))

    return _with_cells(arch, in_cell)


def _with_cells(arch: CellArchitecture, change: Callable[[Cell], Cell]) -> CellArchitecture:
    return replace(arch, cells=tuple(map(change, arch.cells)))


def picked(run: Run, number: int | None) -> CellArchitecture:
    """The network of this trial on the run's front, or its most accurate. Raises UserError for another kind."""
    read = read_run(run.folder)
    if not read.objectives:
        raise UserError(f"{run.folder}: is no search for a Pareto front; give a search of cells")
    front = read_front(read).members
    found = [member for member in front if number in (None, member.id)]
    if not found:
        raise UserError(f"--pick {number}: is not on the front of {run.folder}")
    arch = max(found, key=lambda member: member.accuracy).network.arch
    if not isinstance(arch, CellArchitecture):
        raise UserError(f"{run.folder}: its networks are of kind {arch.kind}, not cells")
    return arch


def train(run: Run, config: RunConfig, chosen: Sequence[Variant], epochs: int, seeds: int) -> Trained:
    """Trains every variant from every seed; a training that fails counts as accuracy 0."""
    folder, fingerprint = run.find_data(), run.about["data"]["fingerprint"]
    trained: Trained = {variant.name: [] for variant in chosen}
    for seed in range(seeds):
        evaluator = TrainAlone(folder, config.data, fingerprint, config.recipe, seed)
        candidates = {v.name: Candidate(v.arch, Budget(epochs), "ablation", v.name) for v in chosen}
        specs = [TrialSpec(c, evaluator.identity(c)) for c in candidates.values()]
        names = {spec.key: spec.candidate.reason for spec in specs}
        executor = build_executor(config.execution, evaluator, lambda key, metrics: None)
        try:
            for spec in specs:
                executor.submit(spec)
            while results := executor.wait():
                for result in results:
                    trained[names[result.key]].append(result.accuracy)
        finally:
            executor.close()
    return trained


def table(chosen: Sequence[Variant], trained: Trained, image_size: int) -> str:
    """Markdown rows, the network as found first."""
    lines = [
        "| blocks | parameters | MACs | accuracy | range | against as found |",
        "|---|---|---|---|---|---|",
    ]
    base = mean(trained[FOUND])
    for variant in chosen:
        accuracies, arch = trained[variant.name], variant.arch
        lines.append(
            f"| {variant.name} | {arch.count_parameters():,} | {arch.count_macs(image_size) / 1e6:.2f} M "
            f"| {mean(accuracies):.2f} % | {min(accuracies):.2f} to {max(accuracies):.2f} "
            f"| {mean(accuracies) - base:+.2f} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Trains the variants and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of a search of cells")
    parser.add_argument("--pick", type=int, help="trial on its front; default: the most accurate")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--set", action="append", default=[], help="a setting, as the search takes it")
    given = parser.parse_args()
    run = open_run(given.run.parent, given.run.name)
    config = load_run_config(run.config, given.set, {})
    chosen = variants(picked(run, given.pick))
    trained = train(run, config, chosen, given.epochs, given.seeds)
    print(f"\n{table(chosen, trained, run.about['data']['image_size'])}")


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        raise SystemExit(str(error)) from None
