"""Networks on published benches."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from facenas.cli.commands.networks import open_model
from facenas.errors import UserError
from facenas.files import write_json

if TYPE_CHECKING:  # torch takes a second to import
    from facenas.evaluation.embedders import InputOptions
    from facenas.evaluation.outcome import Outcome

HQ = "hq"  # the five benches of high quality together


@dataclass(frozen=True)
class Settings:
    """How embeddings are made and pooled; `fusion`: one of `facenas.evaluation.metrics.templates.FUSIONS`."""

    flip: bool = True
    batch_size: int = 64
    workers: int | None = None
    device: str | None = None
    fusion: str = "adaface"
    detector_score: bool | None = None
    keep_norm: bool | None = None
    input: InputOptions | None = None


@dataclass
class Measured:
    """Outcomes by bench, and of those that are not there, the sentence that says so."""

    outcomes: dict[str, Outcome] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)


def evaluate(
    bench: str,
    model: str,
    data: Path,
    pairs: Path | None,
    settings: Settings,
    out: Path | None,
    runs_dir: Path,
) -> tuple[dict[str, Any], Measured]:
    """Measures `model` on `bench`, or on all five of "hq"; rates are fractions.

    Writes `results.json` and `evaluation.html` into `out`: by default `evaluations/<bench>` in a run's
    folder, or `evaluations/<model>-<bench>` here. What is returned is what `results.json` holds, and the
    outcomes behind it.
    """
    from facenas.evaluation.benches import bench_facts
    from facenas.report.evaluation import write_evaluation

    if bench != HQ:
        bench_facts(bench)  # an unknown name is told before a network is read
    network = open_model(model, runs_dir, settings.input, settings.device)
    measured = _measure_all(bench, network, data, pairs, settings)
    for outcome in measured.outcomes.values():
        outcome.result["flip"] = settings.flip
    folder = out or _default_folder(bench, model, runs_dir)
    results = {
        "bench": bench,
        "model": model,
        "flip": settings.flip,
        **_summary(bench, measured),
        "network": {
            "name": network.name,
            "size": network.size,
            **network.facts,
            "fingerprint": network.fingerprint,
        },
        "report": str(folder / "evaluation.html"),
    }
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "results.json", results)
    write_evaluation(folder, results["network"], list(measured.outcomes.values()))
    return results, measured


def _measure_all(
    bench: str, network: Any, data: Path, pairs: Path | None, settings: Settings
) -> Measured:
    from facenas.evaluation.benches import HQ as FIVE
    from facenas.evaluation.extraction import extract
    from facenas.evaluation.measuring import measure
    from facenas.evaluation.protocols import BenchNotThereError

    def embed(images: Any) -> Any:
        return extract(
            network,
            images,
            flip=settings.flip,
            batch_size=settings.batch_size,
            workers=settings.workers,
        )

    measured, fusion = Measured(), _fusion(settings)
    if bench != HQ:
        measured.outcomes[bench] = measure(bench, data, pairs, embed, fusion)
        return measured
    if pairs is not None:
        raise UserError(
            f"--pairs {pairs}: of hq every bench has its own; lay them beside the images"
        )
    for name in FIVE:
        try:
            measured.outcomes[name] = measure(name, data, None, embed, fusion)
        except BenchNotThereError as error:
            measured.missing[name] = str(error)
    if not measured.outcomes:
        raise UserError(f"{data}: has none of {', '.join(FIVE)}; {measured.missing[FIVE[0]]}")
    return measured


def _fusion(settings: Settings) -> Any:
    from facenas.evaluation.metrics.templates import FUSIONS

    if settings.fusion not in FUSIONS:
        known = ", ".join(FUSIONS)
        raise UserError(f"--fusion {settings.fusion}: is unknown; there are {known}")
    chosen = {"use_detector_score": settings.detector_score, "keep_norm": settings.keep_norm}
    return FUSIONS[settings.fusion] | {k: v for k, v in chosen.items() if v is not None}


def _summary(bench: str, measured: Measured) -> dict[str, Any]:
    """One bench's figures; of hq each one's, and the mean accuracy, which is null unless all five are there."""
    if bench != HQ:
        return measured.outcomes[bench].result
    results = {name: outcome.result for name, outcome in measured.outcomes.items()}
    mean = sum(result["accuracy"] for result in results.values()) / len(results)
    return {
        "accuracy": None if measured.missing else mean,
        "benches": results,
        "missing": measured.missing,
    }


def _default_folder(bench: str, model: str, runs_dir: Path) -> Path:
    for run in (runs_dir / model, Path(model)):
        if (run / "run.yaml").is_file():
            return run / "evaluations" / bench
    return Path("evaluations") / f"{Path(model).stem}-{bench}"


def told(measured: Measured) -> Iterator[str]:
    """What people should know beside the table."""
    for outcome in measured.outcomes.values():
        yield from outcome.result.get("warnings", ())
    yield from measured.missing.values()
