"""Are the networks of a Pareto search better than what one would take without it?

    python tools/compare_front.py RUN --macs 3M 6M 12M --out DIR [--epochs 4] [--set recipe.cutout=0]

RUN is the folder of a classification search in the three-level space (`--preset pareto`). For every limit of
multiply-accumulates these are trained from scratch, equally long, and tested once on the test images:

* the most accurate network of the front within the limit;
* two hand-made networks, as wide as the limit allows: ResNet-20 (three stages of three blocks of two 3x3
  convolutions) and MobileNetV2's design (the same with inverted bottlenecks, 6 times wider inside);
* random networks of the search's space that cost 80 to 100 % of the limit.

All have the stem, shortcuts and end of the space, so that the blocks alone differ. One network a core at a
time. DIR keeps runs: the same command after an interruption goes on. Prints a table, writes DIR/compared.json.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import redirect_stderr
from dataclasses import dataclass
from itertools import count, takewhile
from pathlib import Path
from typing import Any

import yaml

import facenas
from facenas.device import core_count
from facenas.errors import UserError
from facenas.files import write_json, write_text
from facenas.report.front import parse_budget, read_front, recommend
from facenas.report.read import read_run
from facenas.runs import Run, open_run
from facenas.runs.config import RunConfig
from facenas.runs.presets import load_run_config
from facenas.spaces import Graph, GraphArchitecture, ImageFacts

FOUND, RESNET, MOBILENET, RANDOM = "found", "ResNet-20", "MobileNetV2", "random"
MOBILENET_EXPANSION = 6
LEAST_SHARE = 0.8  # of the limit, that a random network should cost
DRAWS = 5_000  # a third of a millisecond each


@dataclass(frozen=True)
class Entry:
    """A network to train, and where it comes from."""

    limit: float
    origin: str
    arch: GraphArchitecture

    @property
    def name(self) -> str:
        """Of its run."""
        return f"{self.origin}-{self.limit:.0f}".lower().replace(" ", "-")


def entries(run: Run, limits: list[str], randoms: int) -> list[Entry]:
    """All networks to train. Raises UserError when the run, or a limit, does not fit."""
    read, facts = read_run(run.folder), run.about["data"]
    if not read.objectives:
        raise UserError(f"{run.folder}: is no search for a Pareto front; give one")
    size = facts["image_size"]
    images = ImageFacts(facts["in_channels"], facts.get("classes", 0), size)
    space = run.config.space.owner(run.config.space).bind(images)
    if not isinstance(space, Graph) or images.task == "face":
        raise UserError(f"{run.folder}: give a classification search in the three-level space")
    front, rng = read_front(read).members, random.Random(run.config.seed)
    found = []
    for text in limits:
        budget = parse_budget(f"macs={text}")
        member, limit = recommend(front, budget), budget["macs"]
        if member is None or not isinstance(member.network.arch, GraphArchitecture):
            raise UserError(f"--macs {text}: no network of the front is as small")
        found += [
            Entry(limit, f"{FOUND} {member.id}", member.network.arch),
            Entry(limit, RESNET, hand_made(space, "conv3", 1, limit)),
            Entry(limit, MOBILENET, hand_made(space, "bottleneck3", MOBILENET_EXPANSION, limit)),
        ]
        drawn = random_networks(space, limit, randoms, rng)
        found += [Entry(limit, f"{RANDOM} {n}", arch) for n, arch in enumerate(drawn, start=1)]
    return found


def hand_made(space: Graph, operation: str, expansion: int, limit: float) -> GraphArchitecture:
    """Three stages of three equal blocks, each twice as wide as the one before: the widest within the limit.

    The first stage grows by sixteenths of a channel, and all are rounded, so that one stage widens at a time:
    whole steps would leave half of a small limit unused.
    """
    stages = ((operation,) * 3,) * 3

    def network(sixteenths: int) -> GraphArchitecture:
        widths = tuple(max(1, round(sixteenths * times / 16)) for times in (1, 2, 4))
        ends = (space.images.in_channels, space.images.num_classes)
        return GraphArchitecture("classification", widths, stages, 1, expansion, *ends)

    wider = map(network, count(1))
    fitting = list(takewhile(lambda a: a.count_macs(space.images.image_size) <= limit, wider))
    if not fitting:
        raise UserError(f"--macs {limit:.0f}: three stages of {operation} cost more at any width")
    return fitting[-1]


def random_networks(space: Graph, limit: float, wanted: int, rng: random.Random) -> list[GraphArchitecture]:
    """Different networks, drawn like the candidates of random search until they cost nearly the limit."""
    drawn: dict[GraphArchitecture, None] = {}
    for _ in range(DRAWS):
        if len(drawn) == wanted:
            return list(drawn)
        arch = space.sample(rng)
        if LEAST_SHARE * limit <= arch.count_macs(space.images.image_size) <= limit:
            drawn[arch] = None
    raise UserError(f"--macs {limit:.0f}: too few networks of the space cost as much")


def train_all(wanted: list[Entry], config: RunConfig, out: Path) -> list[dict[str, Any]]:
    """Trains one network a core, and tells what came of each, in the order of `wanted`."""
    context = multiprocessing.get_context("spawn")
    cores = context.Queue()
    for core in range(core_count()):
        cores.put(core)
    _keep(wanted, config, out)
    with ProcessPoolExecutor(core_count(), context, _take_core, (cores,)) as pool:
        futures = {pool.submit(_train, entry, out): entry for entry in wanted}
        for number, future in enumerate(as_completed(futures), start=1):
            entry, accuracy = futures[future], future.result()["test_accuracy"]
            print(f"{number}/{len(wanted)} {entry.name}: {accuracy:.2f} %", flush=True)
    return [future.result() for future in futures]


def _keep(wanted: list[Entry], config: RunConfig, out: Path) -> None:
    """Writes the settings and networks of all trainings, or finds the same from an interrupted comparison."""
    files = {out / f"{entry.name}.json": json.dumps(entry.arch.to_json()) for entry in wanted}
    files[out / "settings.yaml"] = yaml.safe_dump(config.model_dump(mode="json"))
    for path, told in files.items():
        if path.exists() and path.read_text() != told:
            raise UserError(f"{path}: is of a comparison with other settings; give another --out")
    out.mkdir(parents=True, exist_ok=True)
    for path, told in files.items():
        write_text(path, told)


def _take_core(cores: Any) -> None:
    """Each process on a core of its own, where the system can: small networks gain nothing from two."""
    if hasattr(os, "sched_setaffinity"):
        allowed = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {allowed[cores.get() % len(allowed)]})


def _train(entry: Entry, out: Path) -> dict[str, Any]:
    begun = (out / entry.name / "best.json").exists()  # then the training goes on
    with (out / f"{entry.name}.log").open("a") as log, redirect_stderr(log):
        result = facenas.train(
            entry.name if begun else out / f"{entry.name}.json",
            preset=None if begun else out / "settings.yaml",
            run=None if begun else entry.name,
            runs_dir=out,
            command="tools/compare_front.py",
        )
    assert result is not None
    return result.to_json()


def table(wanted: list[Entry], trained: list[dict[str, Any]], image_size: int) -> str:
    """Markdown rows, those of a limit from the most accurate."""
    lines = [
        "| MACs at most | network | parameters | MACs | memory | test accuracy | seconds |",
        "|---|---|---|---|---|---|---|",
    ]
    pairs = sorted(zip(wanted, trained, strict=True), key=lambda p: (p[0].limit, -p[1]["test_accuracy"]))
    for entry, result in pairs:
        arch = entry.arch
        lines.append(
            f"| {entry.limit / 1e6:g} M | {entry.origin} | {arch.count_parameters():,} "
            f"| {arch.count_macs(image_size) / 1e6:.2f} M | {arch.count_memory(image_size) / 1e3:.0f} kB "
            f"| {result['test_accuracy']:.2f} % | {result['seconds']:.0f} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Trains all networks and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of the search")
    parser.add_argument("--macs", nargs="+", required=True, help="limits, e.g. 3M 6M")
    parser.add_argument("--out", type=Path, required=True, help="folder for the trainings")
    parser.add_argument("--randoms", type=int, default=3, help="random networks for each limit")
    parser.add_argument("--epochs", type=int, help="default: the recipe's final_epochs")
    parser.add_argument("--set", action="append", default=[], help="a setting, as the search takes it")
    given = parser.parse_args()
    run = open_run(given.run.parent, given.run.name)
    config = load_run_config(run.config, given.set, {"recipe.final_epochs": given.epochs})
    wanted = entries(run, given.macs, given.randoms)
    trained = train_all(wanted, config, given.out)
    rows = [
        {"limit": entry.limit, "origin": entry.origin, **result}
        for entry, result in zip(wanted, trained, strict=True)
    ]
    write_json(given.out / "compared.json", {"compared": rows})
    print(f"\n{table(wanted, trained, run.about['data']['image_size'])}")


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        raise SystemExit(str(error)) from None
