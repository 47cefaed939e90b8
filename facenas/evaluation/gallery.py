"""A gallery of known people, and the exact search for who is most like a face.

A gallery is a folder: `templates.npy` (one row an identity) and `embeddings.npy` (one row an image, by
identity), float32 rows of unit length, and `gallery.json`. Plain .npy files are memory-mapped, so a command
that looks up one face does not read 2 GB of a million identities first; within an .npz they cannot be.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from facenas.config import Config, validate
from facenas.errors import UserError
from facenas.evaluation.metrics.checks import unit_rows
from facenas.files import publish_folder, read_json, read_npy

Floats = NDArray[np.float32]

_ROWS = 16_384  # of the gallery compared at once: with 1,024 probes, 64 MiB of scores
_PROBES = 1024
FPIR = 0.01  # of unknown people who are given a name, at a gallery's own threshold
LEAST_PEOPLE = 100  # for that; with fewer, 1 in 100 cannot be told


@dataclass(frozen=True, eq=False)
class Gallery:
    """identities: (p,) names; templates: (p, E) unit rows; images: (p,) how many images of each.

    model: what made the embeddings, for people; fingerprint: of that model and its preprocessing; threshold: of
    the gallery itself, see `own_threshold`.
    """

    path: Path
    identities: tuple[str, ...]
    templates: Floats
    images: tuple[int, ...]
    model: str
    fingerprint: str
    threshold: float | None


def mean_templates(embeddings: Floats, labels: NDArray[np.int64]) -> Floats:
    """(p, E) unit means of the unit embeddings (n, E) of each label 0..p-1; labels (n,) ascending.

    One template an identity, not its best image: the mean is steadier against one bad image, and a search
    costs the same however many images were enrolled. Raises ValueError when a mean is zero.
    """
    counts = np.bincount(labels)
    starts = np.concatenate([[0], counts.cumsum()[:-1]])
    sums = np.stack([embeddings[s : s + n].sum(0, np.float64) for s, n in zip(starts, counts, strict=True)])
    norms = np.linalg.norm(sums, axis=1, keepdims=True)
    if not norms.all():
        raise ValueError("the embeddings of an identity cancel out")
    return np.asarray(sums / norms, np.float32)


def own_threshold(templates: Floats, rows: Floats, labels: NDArray[np.int64]) -> float | None:
    """The cosine that one in 100 of the enrolled images exceeds with another person; None below 100 people.

    templates (p, E), rows (n, E) with labels (n,). To all others, an enrolled person is a stranger: so at this
    threshold about one stranger in 100 is given a name. It rises with the gallery, as the threshold of two
    faces, which a bench gives, does not. Taken from 1,024 images at most.
    """
    if len(templates) < LEAST_PEOPLE:
        return None
    chosen = np.linspace(0, len(rows) - 1, min(len(rows), _PROBES)).astype(np.int64)
    scores, numbers = search(templates, rows[chosen], 2)
    own_first = numbers[:, 0] == labels[chosen]
    others = np.sort(np.where(own_first, scores[:, 1], scores[:, 0]))[::-1]
    return float(others[int(FPIR * len(others))])


def search(templates: Floats, probes: Floats, k: int) -> tuple[Floats, NDArray[np.int64]]:
    """The k rows of `templates` most like each probe: (cosines (m, k), numbers (m, k)), best first.

    templates: (p, E), probes: (m, E), both unit rows. Exact; among equal scores the lower number wins; k is
    at most p. The gallery is passed once for every 1,024 probes, in blocks, so memory does not grow.
    Raises ValueError for an empty gallery, another width, and what is not finite.
    """
    if not len(templates):
        raise ValueError("the gallery is empty")
    if probes.ndim != 2 or probes.shape[1] != templates.shape[1]:
        raise ValueError(f"probes of shape {probes.shape} for a gallery of {templates.shape}")
    if not np.isfinite(probes).all():
        raise ValueError("a probe is not finite")
    k = min(k, len(templates))
    parts = [_search(templates, probes[start : start + _PROBES], k) for start in range(0, len(probes), _PROBES)]
    empty = (np.empty((0, k), np.float32), np.empty((0, k), np.int64))
    scores, numbers = zip(*(parts or [empty]), strict=True)
    return np.concatenate(scores), np.concatenate(numbers)


def write_gallery(
    path: Path,
    identities: list[str],
    embeddings: Floats,
    labels: NDArray[np.int64],
    model: str,
    fingerprint: str,
    overwrite: bool = False,
) -> Gallery:
    """A gallery of raw or unit embeddings (n, E) with ascending labels (n,), indices into `identities`.

    It appears under its name when it is whole. Raises UserError when `path` is there (with `overwrite`: when
    it is no gallery) or cannot be written, and ValueError for no images, labels in another order, identities
    without an image, and embeddings that are zero or not finite.
    """
    check_target(path, overwrite)
    counts = np.bincount(labels, minlength=len(identities))
    if not len(labels) or not counts.all() or (np.diff(labels) < 0).any():
        raise ValueError("a gallery needs images, at least one of each identity, in their order")
    rows = np.asarray(unit_rows(embeddings, "embeddings"), np.float32)
    if not rows.any(axis=1).all():
        raise ValueError("an embedding is zero")
    templates = mean_templates(rows, labels)
    about = {
        "format": "facenas gallery",
        "version": 1,
        "model": model,
        "fingerprint": fingerprint,
        "identities": identities,
        "images": counts.tolist(),
        "threshold": own_threshold(templates, rows, labels),
    }

    def write(folder: Path) -> None:
        np.save(folder / "templates.npy", templates)
        np.save(folder / "embeddings.npy", rows)
        (folder / "gallery.json").write_text(json.dumps(about), encoding="utf-8")

    publish_folder(path, write)
    return open_gallery(path)


def open_gallery(path: Path) -> Gallery:
    """The gallery at `path`, memory-mapped; raises UserError when it is none, empty, or damaged."""
    if not is_gallery(path):
        raise UserError(f"{path}: is no gallery; make one by `facenas enroll FOLDER {path}`")
    try:
        about = validate(_About, read_json(path / "gallery.json"), str(path))
        templates = read_npy(path / "templates.npy", np.float32, 2)
    except UserError:
        raise _damaged(path) from None
    if not about.identities:
        raise UserError(f"{path}: is an empty gallery; enroll people into a new one")
    if not len(templates) == len(about.identities) == len(about.images):
        raise _damaged(path)
    return Gallery(
        *(path, about.identities, templates, about.images, about.model, about.fingerprint, about.threshold)
    )


class _About(Config):
    """`gallery.json`."""

    format: Literal["facenas gallery"]
    version: Literal[1]
    model: str
    fingerprint: str
    identities: tuple[str, ...]
    images: tuple[Annotated[int, Field(ge=1)], ...]
    threshold: Annotated[float, Field(ge=-1, le=1)] | None


def is_gallery(path: Path) -> bool:
    """Whether a gallery, whole or damaged, lies at `path`."""
    return (path / "gallery.json").is_file()


def check_target(path: Path, overwrite: bool) -> None:
    """Raises UserError when something lies at `path` that a new gallery may not replace."""
    if not os.path.lexists(path):
        return
    if not overwrite:
        raise UserError(f"{path}: is there already; overwrite says to replace it")
    if not is_gallery(path):
        raise UserError(f"{path}: is no gallery, so it is not overwritten; choose another name")


def _search(templates: Floats, probes: Floats, k: int) -> tuple[Floats, NDArray[np.int64]]:
    """`search` for a few probes: what a block has above a probe's k-th score so far is merged with its best.

    torch.topk of each block takes as long for one probe and 1.5 times as long for 1,024, and leaves it open
    which of equal scores it gives.
    """
    count = len(probes)
    scores = np.full((count, k), -np.inf, np.float32)
    numbers = np.full((count, k), len(templates), np.int64)
    for start in range(0, len(templates), _ROWS):
        with np.errstate(invalid="ignore", over="ignore"):
            block = probes @ templates[start : start + _ROWS].T
        if not np.isfinite(block.sum()):
            raise ValueError("a row of the gallery is not finite")
        least = scores[:, -1:]
        if np.isneginf(least).any() and block.shape[1] > k:  # else all of the first block is merged
            least = np.nextafter(np.partition(block, -k, axis=1)[:, [-k]], np.float32(-np.inf))
        rows, columns = np.nonzero(block > least)
        all_rows = np.concatenate([np.repeat(np.arange(count), k), rows])
        all_scores = np.concatenate([scores.ravel(), block[rows, columns]])
        all_numbers = np.concatenate([numbers.ravel(), start + columns])
        order = np.lexsort((all_numbers, -all_scores, all_rows))
        # How many of a probe's come before it: the first k stay. Every probe has k or more.
        first = np.searchsorted(all_rows[order], np.arange(count))
        best = order[(first[:, None] + np.arange(k)).ravel()]
        scores, numbers = all_scores[best].reshape(-1, k), all_numbers[best].reshape(-1, k)
    return scores, numbers


def _damaged(path: Path) -> UserError:
    return UserError(f"{path}: the gallery is damaged; overwrite it by enrolling its people anew")
