"""How many epochs a recipe saves: those after which it reaches the accuracy that another one ends with.

    python tools/bench_recipes.py --data DATA --runs-dir runs/recipes --set data.data_fraction=0.1 \
        --networks 6x8 10x10p 20x8 --epochs 2 4 8 --targets 8 16 --repeats 2

Networks of the plain space (depth x width, separable; p: plain convolutions) are trained by `--usual` for each
of `--targets` epochs and by `--recipe` for each of `--epochs`, several times, and tested after the last epoch.
Between these, straight lines over the logarithm of the epochs tell how many are needed: by the means, and in
brackets the least and the most by single trainings.

All runs lie in `--runs-dir` and are resumed by the same command. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import re
import statistics
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np

import facenas
from facenas.errors import UserError
from facenas.runs import open_run
from facenas.runs.search_log import read_results
from facenas.spaces import Plain, PlainArchitecture, fingerprint
from facenas.spaces.plain import PLAIN, SEPARABLE
from facenas.strategies import Listed

# Of each network, by epochs: the accuracies of its trainings.
Curves = dict[int, list[float]]


def main(arguments: Sequence[str] | None = None) -> None:
    """Everything, resumed where it was stopped."""
    options = _options(arguments)
    print(
        "| network | epochs, usual | accuracy | accuracy after as many | epochs for the same accuracy | saved |"
    )
    print("|---|---|---|---|---|---|")
    ways = ((options.usual, options.targets), (options.recipe, options.epochs))
    usual, fast = ({n: trained(options, recipe, n) for n in epochs} for recipe, epochs in ways)
    for number, name in enumerate(options.networks):
        curve = {epochs: found[number] for epochs, found in fast.items()}
        for epochs, found in usual.items():
            print(row(name, epochs, found[number], curve))


def trained(options: argparse.Namespace, recipe: str, epochs: int) -> list[list[float]]:
    """Of each network, the accuracies after the last epoch, in percent."""
    alike = [options.data, options.networks, options.repeats, options.set]
    folder = options.runs_dir / f"{recipe}-{epochs}-{fingerprint(alike)[:8]}"
    if not (folder / "run.yaml").exists():
        settings = ["data.select_on=test", *options.set]
        facenas.search(
            space=Plain(),
            strategy=Listed(
                networks=[network(name) for name in options.networks], epochs=epochs, repeats=options.repeats
            ),
            data=options.data,
            recipe=recipe,
            workers=options.workers,
            settings=settings,
            run=folder,
        )
    elif not open_run(folder.parent, folder.name).best():
        facenas.resume(folder)
    last = [result.history[-1]["accuracy"] if result.history else 0.0 for result in read_results(folder)]
    return [last[number :: len(options.networks)] for number in range(len(options.networks))]


def network(name: str) -> dict[str, object]:
    """As the strategy takes it, which makes it fit the images."""
    found = re.fullmatch(r"(\d+)x(\d+)(p?)", name)
    if found is None:
        raise UserError(f"--networks {name}: write depth x width, as 20x8, or 20x8p of plain convolutions")
    depth, width, plain = found.groups()
    arch = PlainArchitecture.uniform(int(depth), int(width), 1, 2, PLAIN if plain else SEPARABLE)
    return {"architecture": arch.to_json(), "name": name}


def row(name: str, epochs: int, usual: list[float], curve: Curves) -> str:
    """Of one network: what the usual recipe reaches in so many epochs, and how the other one compares."""
    means = {n: statistics.fmean(found) for n, found in curve.items()}
    needed = epochs_for(statistics.fmean(usual), means)
    each = [epochs_for(target, {n: curve[n][i] for n in curve}) for i, target in enumerate(usual)]
    alike = _spread(curve[epochs]) if epochs in curve else ""
    low, most = min(curve), max(curve)
    told = _epochs(needed, low, most)
    span = f"{told} ({_epochs(min(each), low, most)} to {_epochs(max(each), low, most)})"
    times = (
        f"{'' if low < needed <= most else '> ' if needed <= low else '< '}{epochs / min(needed, most):.1f}x"
    )
    return f"| {name} | {epochs} | {_spread(usual)} | {alike} | {span} | {times} |"


def epochs_for(accuracy: float, curve: dict[int, float]) -> float:
    """Where the curve reaches it first; the fewest epochs if it does there, infinite if it never does."""
    epochs = sorted(curve)
    if curve[epochs[0]] >= accuracy:
        return epochs[0]
    for before, after in pairwise(epochs):
        if curve[after] >= accuracy:
            part = (accuracy - curve[before]) / (curve[after] - curve[before])
            return float(before * (after / before) ** part)
    return float(np.inf)


def _epochs(count: float, low: int, most: int) -> str:
    return f"> {most}" if count > most else f"< {low}" if count <= low else f"{count:.1f}"


def _spread(values: list[float]) -> str:
    """Mean, and the lowest and the highest."""
    return f"{statistics.fmean(values):.2f} % ({min(values):.2f} to {max(values):.2f})"


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--runs-dir", type=Path, required=True)
    parser.add_argument("--recipe", default="fast-classification")
    parser.add_argument("--usual", default="classification", help="the recipe it is measured against")
    parser.add_argument("--networks", nargs="+", default=["6x8", "10x10p", "20x8"], metavar="DEPTHxWIDTH[p]")
    parser.add_argument("--epochs", nargs="+", type=int, default=[2, 4, 8])
    parser.add_argument("--targets", nargs="+", type=int, default=[8, 16])
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--workers", type=int, help="default: one a core")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
