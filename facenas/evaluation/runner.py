"""`evaluate`: any network on any bench. The long part, the embeddings, is `extract`'s; metrics take seconds."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from facenas.errors import UserError
from facenas.evaluation.benches import HQ, Bench, BenchNotThereError, find_bench
from facenas.evaluation.benches.result import BenchResult
from facenas.evaluation.embedders import InputOptions, embedder_of
from facenas.evaluation.embedders.cache import extract


def evaluate(
    net: Any,
    bench: str | Path | Bench,
    data: str | Path,
    *,
    flip: bool = True,
    batch_size: int | None = None,
    workers: int | None = None,
    device: str | None = None,
    precision: str = "fp32",
    input: InputOptions | None = None,
    cache: Path | None = None,
    **settings: Any,
) -> BenchResult:
    """Measures a network on a bench; `.accuracy`, `.tar_at_far`, `.rank`, ... of the result are fractions.

    net: a run's folder, a file (checkpoint, .safetensors, .onnx), an `nn.Module` that takes (n, 3, 112,
    112) float RGB in [-1, 1], an object with a method `embed`, or a function of (n, 112, 112, 3) uint8 RGB
    that gives (n, E). bench: the name of a shipped one, the path of a YAML file, or `benches.Pairs("mine",
    "pairs.txt")`; data: its files, e.g. a folder or .zip of crops of 112x112 pixels; settings: keys of the
    bench's YAML, such as `pairs` of a bench of pairs, `groups` and `quality` of one's own people, or `fusion`,
    `keep_norm` and `use_detector_score` of IJB-B and IJB-C. flip: add the mirror image's embedding; batch_size:
    images at a time, by default 64, on a GPU 512, and fewer when its memory is too small; workers: threads that
    read and embed; device: of a file; precision: fp32, or bf16, faster on a GPU but with figures of its own
    (`open_embedder`); input: what the network takes, if its file does not say; cache: where embeddings of files
    are kept. The process is left as it was. Raises UserError, in one sentence, for whatever is missing, damaged
    or cannot be measured.

    >>> evaluate("net.onnx", "lfw", "lfw_112x112.zip").accuracy  # doctest: +SKIP
    0.9937
    """
    chosen = find_bench(bench, **settings)
    with embedder_of(net, input, device, precision) as embedder:
        embed = partial(extract, embedder, flip=flip, batch_size=batch_size, workers=workers, cache=cache)
        result = chosen.measure(Path(data).expanduser(), embed)
    return replace(result, flip=flip)


@dataclass(frozen=True, eq=False)
class HqResult:
    """The five benches of high quality: results by bench, and of those not there, the sentence that says so."""

    results: dict[str, BenchResult] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)

    @property
    def accuracy(self) -> float | None:
        """Mean over all five; None when one is missing."""
        found = [result.accuracy or 0.0 for result in self.results.values()]
        return None if self.missing else sum(found) / len(found)

    def to_json(self) -> dict[str, Any]:
        """As `results.json` has it."""
        results = {name: result.to_json() for name, result in self.results.items()}
        return {"accuracy": self.accuracy, "benches": results, "missing": self.missing}


def evaluate_hq(
    net: Any,
    data: str | Path,
    *,
    device: str | None = None,
    precision: str = "fp32",
    input: InputOptions | None = None,
    **options: Any,
) -> HqResult:
    """`evaluate` on LFW, CFP-FP, AgeDB-30, CALFW and CPLFW, as far as they lie in the folder `data`.

    Raises UserError when none of them is there, or one is faulty.
    """
    found = HqResult()
    with embedder_of(net, input, device, precision) as embedder:
        for name in HQ:
            try:
                found.results[name] = evaluate(embedder, name, data, **options)
            except BenchNotThereError as error:
                found.missing[name] = str(error)
    if not found.results:
        raise UserError(f"{data}: has none of {', '.join(HQ)}; {found.missing[HQ[0]]}")
    return found
