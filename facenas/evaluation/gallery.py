"""A gallery of known people, and the exact search for who is most like a face.

A gallery is a folder: `templates.npy` (one row an identity) and `embeddings.npy` (one row an image, by
identity), float32 rows of unit length, and `gallery.json`. In int8, these hold int8, and `templates_steps.npy`
and `embeddings_steps.npy` what makes a row of them one of unit length. Plain .npy files are memory-mapped, so a
command that looks up one face does not read 2 GB of a million identities first; within an .npz they cannot be.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from facenas.config import Config, validate
from facenas.errors import UserError
from facenas.evaluation.int8_rows import Int8Rows, as_int8, int8_rows
from facenas.evaluation.metrics.checks import unit_rows
from facenas.files import publish_folder, read_json, read_npy

Floats = NDArray[np.float32]

_TOLD = 5  # pairs of images
_ROWS = 16_384  # of the gallery compared at once: with 1,024 probes, 64 MiB of scores
_PROBES = 1024
_SPARE = 16  # candidates of an int8 search beyond the k wanted, which exact cosines then put in order
_PAIRS_AT_ONCE = 1_000_000
_PAIRS = 5_000_000_000  # of images compared at most, to find those that two people share
NEARLY_ONE = 0.9  # cosine; see `shared_images`
FPIR = 0.01  # of unknown people who are given a name, at a gallery's own threshold
LEAST_PEOPLE = 100  # for that; with fewer, 1 in 100 cannot be told


@dataclass(frozen=True, eq=False)
class Gallery:
    """identities: (p,) names; templates: (p, E) unit rows; images: (p,) how many images of each.

    model: what made the embeddings, for people; fingerprint: of that model and its preprocessing; threshold: of
    the gallery itself, see `own_threshold`; warnings: when it was made, what looked wrong, in sentences.
    """

    path: Path
    identities: tuple[str, ...]
    templates: Floats | Int8Rows
    images: tuple[int, ...]
    model: str
    fingerprint: str
    threshold: float | None
    warnings: tuple[str, ...] = ()


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


def own_threshold(
    templates: Floats, rows: Floats, labels: NDArray[np.int64], shared: Sequence[tuple[int, int]] = ()
) -> float | None:
    """The cosine that one in 100 of the enrolled images exceeds with another person; None below 100 people.

    templates (p, E), rows (n, E) with labels (n,). To all others, an enrolled person is a stranger: so at this
    threshold about one stranger in 100 is given a name. It rises with the gallery, as the threshold of two
    faces, which a bench gives, does not. Taken from 1,024 images at most.

    shared: as `shared_images` finds them. Two people who share a photograph may well be one, so neither counts
    as a stranger to the other. None also when fewer than 100 images have anybody left to be a stranger to.
    """
    if len(templates) < LEAST_PEOPLE:
        return None
    chosen = _spread(len(rows), _PROBES)
    alike: dict[int, list[int]] = {}
    for one, other in labels[np.array(shared, np.int64).reshape(-1, 2)].tolist():
        alike.setdefault(one, []).append(other)
        alike.setdefault(other, []).append(one)
    no_strangers = [(i, who) for i, own in enumerate(labels[chosen]) for who in (own, *alike.get(int(own), ()))]
    probes, people = np.array(no_strangers).T
    best = np.full(len(chosen), -np.inf, np.float32)
    for start in range(0, len(templates), _ROWS):
        scores = rows[chosen] @ templates[start : start + _ROWS].T
        here = (people >= start) & (people < start + _ROWS)
        scores[probes[here], people[here] - start] = -np.inf
        best = np.maximum(best, scores.max(axis=1))
    strangers = np.sort(best[np.isfinite(best)])[::-1]
    return float(strangers[int(FPIR * len(strangers))]) if len(strangers) >= LEAST_PEOPLE else None


def shared_images(rows: Floats, labels: NDArray[np.int64]) -> list[tuple[int, int]]:
    """Pairs of rows that are one photograph under two names: cosine 0.9 or more, the most alike first.

    rows (n, E) unit, labels (n,). Of two people who share several, the most alike pair. All images are compared
    up to 70,000; of more, so many as make 5e9 pairs are compared with all. When there are more pairs than
    people, the network does not tell people apart, and not all pairs are given.

    Measured on LFW by MobileFaceNet: a photograph has 0.98 to itself at JPEG quality 75, 0.91 at 30 or 2 pixels
    on, 0.92 at half its size; 999 in 1,000 pairs of photographs of one person have less than 0.89.
    """
    found: dict[int, tuple[float, int, int]] = {}  # by the two people
    people = int(labels[-1]) + 1
    chosen = _spread(len(rows), max(1, _PAIRS // len(rows)))
    for begin in range(0, len(chosen), _PROBES):
        some = chosen[begin : begin + _PROBES]
        for start in range(0, len(rows), _ROWS):
            scores = rows[some] @ rows[start : start + _ROWS].T
            scores[labels[some, None] == labels[start : start + _ROWS]] = -1
            i, j = (places[:_PAIRS_AT_ONCE] for places in np.nonzero(scores >= NEARLY_ONE))
            alike = scores[i, j]
            pairs = np.sort(np.stack([some[i], start + j]), axis=0)
            keys = labels[pairs[0]] * people + labels[pairs[1]]
            order = np.argsort(-alike, kind="stable")
            _, first = np.unique(keys[order], return_index=True)
            for at in order[first].tolist():
                this = (float(alike[at]), *pairs[:, at].tolist())
                found[int(keys[at])] = max(found.get(int(keys[at]), this), this)
            if len(found) > people:
                return _pairs(found)
    return _pairs(found)


def _pairs(found: dict[int, tuple[float, int, int]]) -> list[tuple[int, int]]:
    return [(one, other) for _, one, other in sorted(found.values(), key=lambda pair: -pair[0])]


def genuine_similarities(rows: Floats, labels: NDArray[np.int64]) -> Floats:
    """(n,) cosine of each unit row (n, E) to the mean of its person's others; NaN where there are none.

    What a known person's next image may be expected to have, but for the one image less. labels (n,) ascending.
    """
    counts = np.bincount(labels)
    found = np.full(len(rows), np.nan, np.float32)
    for end, count in zip(counts.cumsum(), counts, strict=True):
        own = rows[end - count : end].astype(np.float64)
        others = own.sum(0) - own
        norms = np.linalg.norm(others, axis=1)
        if count > 1 and norms.all():
            found[end - count : end] = (own * others).sum(1) / norms
    return found


def _spread(count: int, most: int) -> NDArray[np.int64]:
    """Numbers 0..count-1, or `most` of them, evenly spread."""
    return np.linspace(0, count - 1, min(count, most)).astype(np.int64)


def search(templates: Floats | Int8Rows, probes: Floats, k: int) -> tuple[Floats, NDArray[np.int64]]:
    """The k rows of `templates` most like each probe: (cosines (m, k), numbers (m, k)), best first.

    templates: (p, E), probes: (m, E), both unit rows. Exact; among equal scores the lower number wins; k is at
    most p. The gallery is passed once for every 1,024 probes, in blocks, so memory does not grow. In int8 the
    probes are rounded too, to find k + 16 candidates; these are ordered by the cosines of the probes
    themselves. Raises ValueError for an empty gallery, another width, and what is not finite.
    """
    if not templates.shape[0]:
        raise ValueError("the gallery is empty")
    if probes.ndim != 2 or probes.shape[1] != templates.shape[1]:
        raise ValueError(f"probes of shape {probes.shape} for a gallery of {templates.shape}")
    if not np.isfinite(probes).all():
        raise ValueError("a probe is not finite")
    k = min(k, templates.shape[0])
    scores, numbers = [np.empty((0, k), np.float32)], [np.empty((0, k), np.int64)]
    for start in range(0, len(probes), _PROBES):
        some = probes[start : start + _PROBES]
        if isinstance(templates, Int8Rows):
            found = _search_int8(templates, some, k)
        else:
            found = _search_floats(templates, some, k)
        scores.append(found[0])
        numbers.append(found[1])
    return np.concatenate(scores), np.concatenate(numbers)


def write_gallery(
    path: Path,
    identities: list[str],
    embeddings: Floats,
    labels: NDArray[np.int64],
    model: str,
    fingerprint: str,
    overwrite: bool = False,
    images: Sequence[str] = (),
    int8: bool = False,
) -> Gallery:
    """A gallery of raw or unit embeddings (n, E) with ascending labels (n,), indices into `identities`.

    images: their n names, for warnings; int8: in a quarter of the bytes.
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
    shared = shared_images(rows, labels)
    apart = 2 * len(shared) <= len(identities)
    threshold = own_threshold(templates, rows, labels, shared) if apart else None
    about = {
        "format": "facenas gallery",
        "version": 1,
        "model": model,
        "fingerprint": fingerprint,
        "identities": identities,
        "images": counts.tolist(),
        "threshold": threshold,
    } | ({"precision": "int8"} if int8 else {})

    def write(folder: Path) -> None:
        for name, unit in (("templates", templates), ("embeddings", rows)):
            found = int8_rows(unit) if int8 else None
            np.save(folder / f"{name}.npy", unit if found is None else found.values)
            if found is not None:
                np.save(folder / f"{name}_steps.npy", found.steps)
        (folder / "gallery.json").write_text(json.dumps(about), encoding="utf-8")

    publish_folder(path, write)
    named = images or [f"{identities[label]} (image {number})" for number, label in enumerate(labels)]
    warnings = (*_of_shared(shared, apart, rows, named), *_of_threshold(threshold, rows, labels, named))
    return replace(open_gallery(path), warnings=warnings)


def _of_shared(shared: list[tuple[int, int]], apart: bool, rows: Floats, named: Sequence[str]) -> Iterator[str]:
    """Says which images two people share, and what to do about it."""
    if not shared:
        return
    pairs = [f"{named[i]} and {named[j]} ({float(rows[i] @ rows[j]):.4f})" for i, j in shared[:_TOLD]]
    more = f", and {len(shared) - _TOLD} more" if len(shared) > _TOLD else ""
    listed = f"{', '.join(pairs)}{more}"
    if not apart:
        yield (
            f"images of different people are as good as equal ({listed}), so the gallery has no threshold: "
            "either the network does not tell people apart (check it and its input options), or many people "
            "are there under two names"
        )
        return
    yield (
        f"one photograph under two names: {listed}; the gallery's threshold leaves such people out against "
        "each other, but they cannot be told apart: put the images of one person into one folder, remove the "
        "wrong ones, and enroll anew"
    )


def _of_threshold(
    threshold: float | None, rows: Floats, labels: NDArray[np.int64], named: Sequence[str]
) -> Iterator[str]:
    """Says whom of the enrolled the gallery's own threshold would turn away."""
    genuine = genuine_similarities(rows, labels)
    measured = int(np.isfinite(genuine).sum())
    if threshold is None or not measured:
        return
    turned_away = int((genuine <= threshold).sum())
    if turned_away:
        least = int(np.nanargmin(genuine))
        yield (
            f"the gallery's threshold {threshold:.4f} is above the least genuine similarity: by it, "
            f"{turned_away} of {measured} enrolled images would not be recognized by their person's others, "
            f"least of all {named[least]} ({genuine[least]:.4f}); look whether such images show who they "
            "should, or give --threshold"
        )


def open_gallery(path: Path) -> Gallery:
    """The gallery at `path`, memory-mapped; raises UserError when it is none, empty, or damaged."""
    if not is_gallery(path):
        raise UserError(f"{path}: is no gallery; make one by `facenas enroll FOLDER {path}`")
    try:
        about = validate(_About, read_json(path / "gallery.json"), str(path))
        templates = _read_templates(path, about.precision)
    except UserError:
        raise _damaged(path) from None
    if not about.identities:
        raise UserError(f"{path}: is an empty gallery; enroll people into a new one")
    if not templates.shape[0] == len(about.identities) == len(about.images):
        raise _damaged(path)
    return Gallery(
        *(path, about.identities, templates, about.images, about.model, about.fingerprint, about.threshold)
    )


def _read_templates(path: Path, precision: str) -> Floats | Int8Rows:
    if precision == "float32":
        rows: Floats = read_npy(path / "templates.npy", np.float32, 2)
        return rows
    values = read_npy(path / "templates.npy", np.int8, 2, "c")
    steps = read_npy(path / "templates_steps.npy", np.float32, 1, "c")
    if len(steps) != len(values):
        raise _damaged(path)
    return Int8Rows(values, steps)


class _About(Config):
    """`gallery.json`."""

    format: Literal["facenas gallery"]
    version: Literal[1]
    model: str
    fingerprint: str
    identities: tuple[str, ...]
    images: tuple[Annotated[int, Field(ge=1)], ...]
    threshold: Annotated[float, Field(ge=-1, le=1)] | None
    precision: Literal["float32", "int8"] = "float32"


def is_gallery(path: Path) -> bool:
    """Whether a gallery, whole or damaged, lies at `path`."""
    return (path / "gallery.json").is_file()


def check_target(path: Path, overwrite: bool) -> None:
    """Raises UserError when something lies at `path` that a new gallery may not replace."""
    if not os.path.lexists(path):
        return
    if not overwrite:
        raise UserError(f"{path}: is there already; overwrite (--overwrite) replaces it")
    if not is_gallery(path):
        raise UserError(f"{path}: is no gallery, so it is not overwritten; choose another name")


def _search_floats(templates: Floats, probes: Floats, k: int) -> tuple[Floats, NDArray[np.int64]]:
    def block(start: int) -> Floats:
        with np.errstate(invalid="ignore", over="ignore"):
            found: Floats = probes @ templates[start : start + _ROWS].T
        return found

    return _search(block, len(templates), len(probes), k)


def _search_int8(templates: Int8Rows, probes: Floats, k: int) -> tuple[Floats, NDArray[np.int64]]:
    people, asked = templates.shape[0], as_int8(probes)
    _, numbers = _search(
        lambda start: templates.scores(asked, start, min(start + _ROWS, people)),
        *(people, len(probes), min(k + _SPARE, people)),
    )
    scores = np.matmul(templates.floats(numbers), probes[:, :, None])[:, :, 0]
    order = np.lexsort((numbers, -scores), axis=1)[:, :k]
    return np.take_along_axis(scores, order, 1), np.take_along_axis(numbers, order, 1)


def _search(
    scores_from: Callable[[int], Floats], people: int, count: int, k: int
) -> tuple[Floats, NDArray[np.int64]]:
    """`search` for `count` probes: what a block has above a probe's k-th score so far is merged with its best.

    scores_from: the scores (count, rows) of the block that begins at a row.

    torch.topk of each block takes as long for one probe and 1.5 times as long for 1,024, and leaves it open
    which of equal scores it gives.
    """
    scores = np.full((count, k), -np.inf, np.float32)
    numbers = np.full((count, k), people, np.int64)
    for start in range(0, people, _ROWS):
        block = scores_from(start)
        if not np.isfinite(block.sum()):
            raise ValueError("a row of the gallery is not finite")
        least = scores[:, -1:]
        if np.isneginf(least).any() and block.shape[1] > k:  # else all of the first block is merged
            least = np.nextafter(np.partition(block, -k, axis=1)[:, [-k]], np.float32(-np.inf))
        rows, columns = np.divmod(np.flatnonzero(block > least), block.shape[1])  # 4 times faster than nonzero
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
