"""From images to embeddings, from two images to one answer, from an image to a name."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facenas.cli.commands.networks import open_model
from facenas.cli.commands.thresholds import Threshold, find_threshold, gallery_threshold
from facenas.data.image_sets import default_cache
from facenas.errors import UserError
from facenas.evaluation.arrays import unit_rows
from facenas.evaluation.embedders import Embedder, InputOptions
from facenas.evaluation.extraction import extract
from facenas.evaluation.face_images import FaceImages
from facenas.evaluation.gallery import Gallery, check_target, open_gallery, search, write_gallery
from facenas.files import write_atomically

Rows = NDArray[np.float32]


@dataclass(frozen=True)
class Network:
    """Which network makes the embeddings, what is said of its input, and where it runs."""

    model: str
    options: InputOptions
    device: str | None
    runs_dir: Path

    def open(self) -> Embedder:
        """The network; raises UserError when there is none."""
        return open_model(self.model, self.runs_dir, self.options, self.device)


def embed(images: Path, out: Path, network: Network, detector: Path | None) -> dict[str, Any]:
    """Writes `out`, an .npz of `names` (n,) and `embeddings` (n, E) float32 of unit length.

    images: a folder, .zip or file. Raises UserError when one gives no face or `out` cannot be written.
    """
    started = time.perf_counter()
    if out.suffix != ".npz":
        raise UserError(f"--out {out}: should end in .npz")
    faces = FaceImages(images, detector)
    _make_folder(out.parent, "choose another place")
    embedder = network.open()
    rows = _embed(faces, embedder)

    def write(path: Path) -> None:
        with path.open("wb") as file:  # given a name, numpy would add an ending
            np.savez(file, names=np.array(faces.names), embeddings=rows)

    write_atomically(out, write)
    return {
        "out": str(out),
        "images": len(rows),
        "size": embedder.size,
        "model": network.model,
        "seconds": round(time.perf_counter() - started, 3),
    }


def verify(
    first: Path,
    second: Path,
    network: Network,
    given: float | None,
    results: Path | None,
    detector: Path | None,
) -> dict[str, Any]:
    """The cosine of two images' embeddings, and whether it is above the threshold: then it is one person.

    given, results: the threshold, see `find_threshold`; `same` is None when none is known. Raises UserError
    when an image gives no face.
    """
    faces = [FaceImages(path, detector) for path in (first, second)]
    for path, images in zip((first, second), faces, strict=True):
        if len(images) != 1:
            raise UserError(f"{path}: holds {len(images)} images; verify compares one with one")
    embedder = network.open()
    threshold = find_threshold(given, results, embedder, network.model, network.runs_dir)
    (one,), (other,) = (_embed(images, embedder) for images in faces)
    similarity = float(one @ other)
    return {
        "similarity": similarity,
        "threshold": threshold.value,
        "same": threshold.accepts(similarity),
        "threshold_from": threshold.source or None,
        "model": network.model,
    }


def enroll(
    folder: Path, gallery: Path, network: Network, detector: Path | None, overwrite: bool
) -> dict[str, Any]:
    """Writes a gallery of the people in `folder`, or a .zip: `<person>/.../<image>`.

    Raises UserError when an image lies in no person's folder or gives no face, and for a `gallery` that is
    there already or cannot be written.
    """
    started = time.perf_counter()
    check_target(gallery, overwrite)
    faces = FaceImages(folder, detector)
    people = _people(folder, faces.names)
    names = list(dict.fromkeys(people))
    number = {name: i for i, name in enumerate(names)}
    labels = np.array([number[person] for person in people], np.int64)
    embedder = network.open()
    rows = _embed(faces, embedder)
    try:
        made = write_gallery(
            gallery, names, rows, labels, network.model, embedder.fingerprint, overwrite
        )
    except ValueError as error:
        raise UserError(f"{folder}: {error}; check the network and its input options") from None
    return {
        "gallery": str(gallery),
        "identities": len(made.identities),
        "images": len(rows),
        "size": embedder.size,
        "threshold": made.threshold,
        "model": network.model,
        "seconds": round(time.perf_counter() - started, 3),
    }


def identify(
    images: Path,
    gallery: Path,
    network: Network,
    given: float | None,
    top_k: int,
    detector: Path | None,
) -> dict[str, Any]:
    """Who of a gallery is in each image: the `top_k` most alike with their cosines, the best first.

    `identity` is the best one when it is above the threshold (`known` True), else None; without a threshold
    (see `gallery_threshold`) `known` is None too. Raises UserError when the gallery is of another network, or
    an image gives no face.
    """
    known = open_gallery(gallery)
    embedder = network.open()
    if known.fingerprint != embedder.fingerprint:
        raise UserError(
            f"{gallery}: its faces were embedded by another network or with other input options (then "
            f"--model {known.model}); give the same, or enroll the people anew"
        )
    threshold = gallery_threshold(given, known)
    faces = FaceImages(images, detector)
    try:
        scores, numbers = search(known.templates, _embed(faces, embedder), top_k)
    except ValueError as error:
        raise UserError(f"{gallery}: {error}; enroll its people anew") from None
    return {
        "gallery": str(gallery),
        "identities": len(known.identities),
        "images": len(faces),
        "threshold": threshold.value,
        "threshold_from": threshold.source or None,
        "results": [
            _answer(name, known, threshold, *found)
            for name, *found in zip(faces.names, scores, numbers, strict=True)
        ],
    }


def _answer(
    image: str, gallery: Gallery, threshold: Threshold, scores: Rows, numbers: NDArray[np.int64]
) -> dict[str, Any]:
    candidates = [
        {"identity": gallery.identities[number], "score": score}
        for score, number in zip(scores.tolist(), numbers.tolist(), strict=True)
    ]
    known = threshold.accepts(candidates[0]["score"])
    best = candidates[0]["identity"] if known else None
    return {"image": image, "identity": best, "known": known, "candidates": candidates}


def _embed(faces: FaceImages, embedder: Embedder) -> Rows:
    """(n, E) float32 of unit length, of each image and its mirror image together, as `facenas eval` does.

    Nothing stays in the cache: these are people's faces, not a bench's.
    """
    folder = default_cache()
    _make_folder(folder, "set FACENAS_CACHE to another folder")
    with TemporaryDirectory(prefix="faces-", dir=folder) as scratch:
        rows = extract(embedder, faces, cache=Path(scratch))
        return np.array(unit_rows(rows, "embeddings"), np.float32)


def _make_folder(folder: Path, remedy: str) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder}: cannot be made ({error.strerror}); {remedy}") from None


def _people(folder: Path, names: tuple[str, ...]) -> list[str]:
    """Whose each image is: the folder at the top, or below the one folder that everything lies in."""
    parts = [name.split("/") for name in names]
    wrapped = len({part[0] for part in parts}) == 1 and any(len(part) > 2 for part in parts)
    for name, part in zip(names, parts, strict=True):
        if len(part) < 2 + wrapped:
            raise UserError(
                f"{folder}: {name} lies in no person's folder; sort the images as <person>/<image>"
            )
    return [part[wrapped] for part in parts]
