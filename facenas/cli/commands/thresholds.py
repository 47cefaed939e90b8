"""From which similarity on faces count as one person: said by the user, or measured.

Of two faces, on a bench. Among the people of a gallery, on the gallery: of a thousand strangers the most alike
is more alike than any one stranger.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from facenas.errors import UserError
from facenas.evaluation.embedders import Embedder
from facenas.evaluation.gallery import FPIR, LEAST_PEOPLE, Gallery
from facenas.files import read_json

REMEDY = "give --threshold, or measure one by `facenas eval --bench lfw --model ...`"
GALLERY_REMEDY = f"give --threshold; a gallery of {LEAST_PEOPLE} people or more has one of its own"


@dataclass(frozen=True)
class Threshold:
    """A cosine, above which two faces count as one person, and who says so; value None: nobody does."""

    value: float | None
    source: str

    def accepts(self, similarity: float) -> bool | None:
        """Whether the similarity is above the threshold; None when there is none."""
        return None if self.value is None else similarity > self.value


def find_threshold(
    given: float | None, results: Path | None, embedder: Embedder, model: str, runs_dir: Path
) -> Threshold:
    """The threshold `given`, else of `results`, else of the network's last evaluation, else none.

    results: a results.json of `facenas eval` on a bench of pairs. Raises UserError when both are given, when
    `given` is no cosine, and when `results` is of another network or says no threshold.
    """
    if given is not None and results is not None:
        raise UserError("--threshold and --results: both are given; give one of them")
    if given is not None:
        return _given(given)
    if results is not None:
        found = _read(results)
        if found.value is None:
            raise UserError(
                f"{results}: says no threshold, for its bench is not one of pairs; {REMEDY}"
            )
        if _fingerprint(results) != embedder.fingerprint:
            raise UserError(f"{results}: is of another network or of other input options; {REMEDY}")
        return found
    for path in _evaluations(model, runs_dir):
        if _fingerprint(path) == embedder.fingerprint and (found := _read(path)).value is not None:
            return found
    return Threshold(None, "")


def gallery_threshold(given: float | None, gallery: Gallery) -> Threshold:
    """The threshold `given`, else the gallery's own, else none; raises UserError when `given` is no cosine."""
    if given is not None:
        return _given(given)
    if gallery.threshold is None:
        return Threshold(None, "")
    return Threshold(gallery.threshold, f"the gallery: {100 * FPIR:g} % of unknown people named")


def _given(value: float) -> Threshold:
    if not -1 <= value <= 1:
        raise UserError(f"--threshold {value}: should be a cosine, from -1 to 1")
    return Threshold(value, "--threshold")


def _evaluations(model: str, runs_dir: Path) -> list[Path]:
    """Where `facenas eval` leaves results of `model`, the latest first."""
    folders = [
        run / "evaluations"
        for run in (runs_dir / model, Path(model))
        if (run / "run.yaml").is_file()
    ]
    paths = [path for folder in folders for path in folder.glob("*/results.json")]
    paths += Path("evaluations").glob(f"{Path(model).stem}-*/results.json")
    return sorted(paths, key=lambda path: -path.stat().st_mtime)


def _fingerprint(path: Path) -> str | None:
    """Of the network that was measured; None when it was measured without the mirror image."""
    results = read_json(path)
    network = results.get("network")
    if not isinstance(network, dict) or not results.get("flip"):
        return None
    return str(network.get("fingerprint"))


def _read(path: Path) -> Threshold:
    """The threshold in a results.json; of several benches, LFW's or the first one's."""
    results = read_json(path)
    benches: dict[str, Any] = {str(results.get("bench")): results}
    if isinstance(results.get("benches"), dict):
        benches = dict(sorted(results["benches"].items(), key=lambda item: item[0] != "lfw"))
    for bench, result in benches.items():
        value = result.get("threshold_cosine") if isinstance(result, dict) else None
        if isinstance(value, int | float):
            return Threshold(float(value), f"{bench} in {path}")
    return Threshold(None, "")
