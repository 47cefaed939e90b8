"""How many images strategies train on until they have found a network of the same quality.

    python tools/compare_strategies.py PRESET --data DATA --runs-dir runs/compare --seeds 3
    python tools/compare_strategies.py PRESET --strategies macro_micro trend random tpe

Every strategy searches the preset's space by its recipe, once a seed; then all networks found are trained alike
(`--epochs`, on the part `--fraction` of the training images, several draws) and tested after the last epoch. So
quality is that of the final network, whatever a search thought of it. Images: epochs x images of all trials,
finalists included. `joint`, random search and Optuna's TPE may cost what macro_micro took, and what they had
found after a fifth and after half of that is trained as well.

All runs lie in `--runs-dir` and are resumed by the same command; trials of the same key are trained once.
Prints a Markdown table and writes `comparison.json` beside the runs. Ranges are 95 % intervals of the mean over
seeds of the search; all networks are tested on the same images, whose choice is in no interval. Random search
and TPE train every network for as long as macro_micro does in the mean; of few trials, half of TPE's are drawn.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optuna_tpe import TPE

import facenas
from facenas.api.settings import anchored
from facenas.errors import UserError
from facenas.files import write_json
from facenas.runs import open_run
from facenas.runs.config import RunConfig
from facenas.runs.journal import read_journal
from facenas.runs.presets import load_run_config
from facenas.runs.search_log import read_results
from facenas.spaces import Architecture, fingerprint, from_json
from facenas.strategies import STRATEGIES, Listed, Strategy
from facenas.studies.findings import mean_interval
from facenas.studies.networks import Network, accuracies_of

SUBSET = {"fidelity": {"fraction": 0.25, "confirm": 1.0, "finalists": 2}}
METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "macro_micro": ("macro_micro", {}),
    "macro_micro + subset": ("macro_micro", SUBSET),
    "trend": ("trend", {}),
    "trend, no micro": ("trend", {"micro": False}),
    "trend + inherit": ("trend", {"inherit": 2, "micro": False, "fidelity": {"fraction": 1.0, "finalists": 1}}),
    "trend + subset": ("trend", SUBSET),
    "joint": ("joint", {}),
    "random": ("random", {}),
    "random + subset": ("random", SUBSET),
    "tpe": ("tpe", {}),
}
ANYTIME = ("joint", "random", "random + subset", "tpe")  # cost what macro_micro does
SHARES = (0.2, 0.5)  # of that, at which most of them are seen as well


@dataclass(frozen=True)
class Found:
    """What a search has found after these trials; share: of macro_micro's images, 1 at its own end."""

    method: str
    seed: int
    share: float
    trials: list[dict[str, Any]]
    architecture: Architecture
    protocol: dict[str, Any]

    @property
    def name(self) -> str:
        """Of the training that tells its quality."""
        return fingerprint([self.architecture.to_json(), self.protocol])[:12]

    @property
    def images(self) -> int:
        """Trained on in all trials."""
        return int(summed(self.trials, "images"))

    @property
    def seconds(self) -> float:
        """Of all trials together, one after another."""
        return summed(self.trials, "seconds")


def summed(trials: list[dict[str, Any]], name: str) -> float:
    """Over trials; one that came twice was made once."""
    return float(sum({line["key"]: line[name] for line in trials}.values()))


def main(arguments: Sequence[str] | None = None) -> None:
    """Everything, resumed where it was stopped."""
    options = _options(arguments)
    config = load_run_config(options.preset, options.set, {"data.name": options.data})
    found = [one for seed in range(options.seeds) for one in search_all(config, options, seed)]
    told = list(rows(found, train_alike(options, found)))
    write_json(options.runs_dir / "comparison.json", {"rows": told})
    print(table(told))


@dataclass(frozen=True)
class Cost:
    """What macro_micro took: images of all trials, epochs of its usual long trial, images of an epoch."""

    images: int
    epochs: int
    epoch: int


def search_all(config: RunConfig, options: argparse.Namespace, seed: int) -> Iterator[Found]:
    """Of one seed, all methods; macro_micro first, by whose cost others are measured."""
    cost: Cost | None = None
    for method in ["macro_micro", *(name for name in options.strategies if name != "macro_micro")]:
        folder = options.runs_dir / f"{method.replace(' + ', '-')}-{seed}"
        done = search_or_resume(folder, options, strategy_of(method, config, cost), seed)
        lines = read_journal(folder / "trials.jsonl")
        cost = cost or _cost(lines)
        if method in ANYTIME and method != "random + subset":
            yield from (so_far(method, seed, folder, share, share * cost.images) for share in SHARES)
        arch, protocol = from_json(done["architecture"]), done.get("protocol", {})
        yield Found(method, seed, 1.0, lines, arch, protocol)


def strategy_of(method: str, config: RunConfig, cost: Cost | None) -> Strategy:
    """With the settings that the preset's strategy shares with it; others at equal cost."""
    name, more = METHODS[method]
    cls = TPE if name == "tpe" else STRATEGIES.get(name)
    known = cls.Settings.model_fields.keys() - {"epochs"}
    kept = {key: value for key, value in config.search.model_dump(mode="json").items() if key in known}
    if method in ANYTIME and cost:
        part = more["fidelity"]["fraction"] if more else 1.0  # its finalists cost two whole trainings
        count = max(4, round((cost.images / (cost.epochs * cost.epoch) - 2 * (part < 1)) / part))
        size = {"population": count, "generations": 1} if name == "random" else {"trials": count}
        more = {**more, "epochs": cost.epochs, **size}
    return cls(**{**kept, **more})


def search_or_resume(
    folder: Path, options: argparse.Namespace, strategy: Strategy, seed: int, more: Sequence[str] = ()
) -> dict[str, Any]:
    """What the search in `folder` found, made or finished now; raises UserError when it is another's."""
    settings = [*options.set, *more]
    if not (folder / "run.yaml").exists():
        return facenas.search(
            options.preset,
            strategy=strategy,
            data=options.data,
            seed=seed,
            workers=options.workers,
            settings=settings,
            run=folder,
            reuse=options.reuse,
        ).details
    group = {"strategy": STRATEGIES.name_of(type(strategy)), **strategy.settings.model_dump(mode="json")}
    given = {"data.name": options.data, "seed": seed, "search": group}
    config = anchored(load_run_config(options.preset, settings, given))
    run, elsewhere = open_run(folder.parent, folder.name), {"execution"}
    if run.config.model_dump(exclude=elsewhere) != config.model_dump(exclude=elsewhere):
        raise UserError(f"{folder}: is a run of other settings; give another --runs-dir")
    if run.best() is None:
        facenas.resume(folder, reuse=options.reuse)
    return run.found()


def so_far(method: str, seed: int, folder: Path, share: float, most: float) -> Found:
    """What the search had found after the trials that cost up to `most` images, the first trial at least."""
    run, lines = open_run(folder.parent, folder.name), read_journal(folder / "trials.jsonl")
    count = next((n for n in range(len(lines), 1, -1) if summed(lines[:n], "images") <= most), 1)
    strategy = run.config.build_strategy(run.config.build_space(run.about["data"]))
    for result in read_results(folder)[:count]:
        strategy.ask()
        strategy.tell(result)
    told = strategy.result()
    arch, protocol = from_json(told["architecture"]), told.get("protocol", {})
    return Found(method, seed, share, lines[:count], arch, protocol)


def train_alike(options: argparse.Namespace, found: list[Found]) -> dict[str, list[float]]:
    """Test accuracies of every network after its last epoch, by `Found.name`, one for each draw."""
    named = {one.name: Network(one.name, one.architecture, macs=0, protocol=one.protocol) for one in found}
    networks = [network.listed() for network in named.values()]
    listed = Listed(networks=networks, epochs=options.epochs, repeats=options.repeats)
    folder = options.runs_dir / f"final-{fingerprint(listed.settings.model_dump(mode='json'))[:8]}"
    earlier = [path for path in sorted(options.runs_dir.glob("final-*")) if path != folder]
    options = argparse.Namespace(**{**vars(options), "reuse": [*options.reuse, *earlier]})
    on_test = ["data.select_on=test", f"data.data_fraction={options.fraction}"]
    search_or_resume(folder, options, listed, 0, on_test)
    accuracies = accuracies_of(open_run(folder.parent, folder.name), list(named.values()))
    return dict(zip(named, accuracies, strict=True))


def rows(found: list[Found], quality: dict[str, list[float]]) -> Iterator[dict[str, Any]]:
    """A row for every method and share: means over seeds, and what each differs from macro_micro by."""
    base = {one.seed: one for one in found if one.method == "macro_micro"}
    mean = {one.name: statistics.fmean(quality[one.name]) for one in found}
    for method, share in dict.fromkeys((one.method, one.share) for one in found):
        ours = [one for one in found if (one.method, one.share) == (method, share)]
        gains = [mean[one.name] - mean[base[one.seed].name] for one in ours]
        yield {
            "method": method,
            "share": share,
            "images": statistics.fmean(one.images for one in ours),
            "ratio": statistics.fmean(one.images / base[one.seed].images for one in ours),
            "trials": statistics.fmean(len(one.trials) for one in ours),
            "seconds": statistics.fmean(one.seconds for one in ours),
            "parameters": statistics.fmean(one.architecture.count_parameters() for one in ours),
            "accuracy": statistics.fmean(mean[one.name] for one in ours),
            "range": half_range([mean[one.name] for one in ours]),
            "gain": statistics.fmean(gains),
            "gain_range": half_range(gains),
        }


def half_range(values: list[float]) -> float | None:
    """Half of the 95 % interval of the mean; None of fewer than two."""
    interval = mean_interval(values)
    return None if interval.high is None else interval.high - interval.value


def table(found: list[dict[str, Any]]) -> str:
    """As Markdown."""
    heads = ("strategy", "images", "of macro_micro's", "trials", "training", "parameters", "final accuracy")
    lines = [[*heads, "against macro_micro"], ["---"] * 8]
    for row in found:
        stopped = f", at {100 * row['share']:.0f} %" * (row["share"] < 1)
        lines.append(
            [
                row["method"] + stopped,
                f"{row['images']:,.0f}",
                f"{100 * row['ratio']:.0f} %",
                f"{row['trials']:.0f}",
                f"{row['seconds']:.0f} s",
                f"{row['parameters']:,.0f}",
                f"{row['accuracy']:.2f} %{_plus_minus(row['range'])}",
                f"{row['gain']:+.2f}{_plus_minus(row['gain_range'])}",
            ]
        )
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _plus_minus(half: float | None) -> str:
    return "" if half is None else f" ± {half:.2f}"


def _cost(lines: list[dict[str, Any]]) -> Cost:
    """The usual long trial: the mean of those of the first two phases, weighed by their epochs."""
    long = [line["epochs"] for line in lines if line["phase"] in ("depth", "width")]
    epochs = round(sum(n * n for n in long) / sum(long))
    return Cost(int(summed(lines, "images")), epochs, lines[0]["images"] // lines[0]["epochs"])


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("preset", help="a preset of macro_micro, or a YAML file")
    parser.add_argument("--data", help="instead of the preset's")
    parser.add_argument("--runs-dir", type=Path, required=True)
    parser.add_argument("--strategies", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--seeds", type=int, default=3, help="searches of each")
    parser.add_argument("--epochs", type=int, default=20, help="of the final training")
    parser.add_argument("--fraction", type=float, default=1.0, help="of the images in the final training")
    parser.add_argument("--repeats", type=int, default=3, help="final trainings of each network")
    parser.add_argument("--workers", type=int, help="default: one a core")
    parser.add_argument("--reuse", nargs="*", default=[], help="runs whose results need no training again")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
