"""What is wrong with a store of faces: duplicates, wrong labels, people and images of a bench in it.

Behind `facenas data check --duplicates --labels --overlap`. A finding names images of the store; the CSV that
lists them is what `facenas data import STORE OUT.zarr --drop` takes, once a person has looked at it.
"""

from __future__ import annotations

import csv
import hashlib
import io
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from facenas.data.faces.drops import COLUMNS, DROP, KEEP, described, image_name
from facenas.data.faces.store import FaceStore, is_store, open_store
from facenas.data.images import image_names, open_files
from facenas.data.parts import identities
from facenas.errors import UserError
from facenas.evaluation import label_errors as errors
from facenas.evaluation.benches.images import Images, file_images
from facenas.evaluation.embedders import Embedder, embedder_of
from facenas.evaluation.embedders.cache import extract
from facenas.evaluation.metrics.checks import check_embeddings, unit_rows
from facenas.files import as_cells

Floats = NDArray[np.float32]
Indices = NDArray[np.int64]
Kind = Literal[
    "duplicate",
    "one_photograph",
    "mislabeled",
    "unlike",
    "two_people",
    "one_person",
    "shared_image",
    "shared_person",
]

# One photograph: both are above. Measured on LFW and CelebA by MobileFaceNet: saved anew (JPEG of quality 10),
# at half its size, brighter, 4 pixels on or mirrored, a crop has 0.92 and more of the latter to itself; of
# pairs of photographs of one person with a cosine of 0.8 and more, 1 in 100 has 0.75. See docs/results.
NEAR_COSINE, NEAR_PIXELS = 0.85, 0.85
_SIDE, _BLUR, _SHIFT = 56, 4, 4  # pixels: crops are compared at half their size, moved by so much
_PICTURES = 3  # of either side of a finding
_LEAST_PEOPLE = 20  # for limits from their scores
_READ = 256  # images at a time


@dataclass(frozen=True)
class Finding:
    """One thing found; images: numbers in the store, a line of the CSV each; beside: what they are like.

    other: whether `beside` are numbers in the other set; identity, with_: names of identities, or of an image;
    score: see `words`; own: cosine of the image to its own identity, where it matters; action: drop or keep.
    """

    kind: Kind
    identity: str
    images: tuple[int, ...]
    with_: str
    beside: tuple[int, ...]
    score: float
    action: str
    own: float | None = None
    other: bool = False


@dataclass(frozen=True, eq=False)
class People:
    """Faces with their identities: images by number, labels (n,) in 0..p-1, names of the p identities."""

    path: Path
    images: Images
    labels: Indices
    names: Sequence[str]
    image_names: Sequence[str]


@dataclass(frozen=True, eq=False)
class DataCheck:
    """What was found, kind by kind, the surest first; limits: cosines that decided; None without labels.

    other: the set beside the store, if one was given; warnings: sentences on what could not be judged.
    """

    store: FaceStore
    people: People
    model: str
    findings: tuple[Finding, ...]
    limits: errors.Limits | None = None
    other: People | None = None
    warnings: tuple[str, ...] = ()
    asked: tuple[str, ...] = field(default=())

    def counts(self) -> dict[str, int]:
        """Findings by kind."""
        return dict(Counter(one.kind for one in self.findings))

    def csv(self) -> str:
        """The list of images, as text; with nothing found, its head alone."""
        text = io.StringIO()
        rows = csv.writer(text, lineterminator="\n")
        rows.writerow(COLUMNS)
        for one in self.findings:
            for number in one.images:
                name = image_name(self.store, number)
                row = (name, one.identity, one.kind, one.with_, round(one.score, 3), one.action)
                file = self.store.files[number] if self.store.files is not None else ""
                rows.writerow(as_cells([*row, self.store.fingerprint, file]))
        return text.getvalue()

    def to_json(self) -> dict[str, Any]:
        """As `facenas data check --json` prints it."""
        drop = {number for one in self.findings if one.action == DROP for number in one.images}
        limits = vars(self.limits) if self.limits else None
        return {"found": self.counts(), "drop": len(drop), "limits": limits, "warnings": list(self.warnings)}


def check_faces(
    net: Any,
    store: str | Path | FaceStore,
    *,
    duplicates: bool = False,
    labels: bool = False,
    overlap: str | Path | None = None,
    workers: int | None = None,
    cache: Path | None = None,
) -> DataCheck:
    """Looks for duplicates, wrong labels, and what the store shares with another set, `overlap`.

    net: whatever `embedder_of` takes, if possible one that was trained on other faces; its embeddings of image
    and mirror image are kept in the cache. overlap: a store, or a folder or .zip of <identity>/<image>.
    Duplicates among n images of E numbers take n * n * E / 65e9 seconds of one core (half an hour for half a
    million of 512), the rest a few minutes; memory holds the embeddings, float32, twice.
    Raises UserError for a store or set that cannot be read, and for a store of fewer than two identities.

    >>> check_faces("mobilefacenet_y1.onnx", "lfw.zarr", labels=True).counts()  # doctest: +SKIP
    {'mislabeled': 11, 'unlike': 11, 'two_people': 5, 'one_person': 24}
    """
    opened = store if isinstance(store, FaceStore) else open_store(Path(store).expanduser())
    people = _people_of(opened)
    if len(np.unique(people.labels)) < 2:
        raise UserError(f"{opened.path}: has one identity, so there is nobody to compare it with")
    beside = open_people(Path(overlap).expanduser()) if overlap is not None else None
    with embedder_of(net) as embedder:
        rows = _embedded(embedder, people, workers, cache)
        others = _embedded(embedder, beside, workers, cache) if beside else None
    means = errors.class_means(rows, people.labels, len(people.names))
    nearest = errors.nearest_identities(rows, people.labels, means)
    limits = errors.limits_of(rows, people.labels, means, nearest)
    theirs = (
        errors.class_means(others, beside.labels, len(beside.names)) if beside and others is not None else None
    )
    if theirs is not None:
        limits = replace(limits, shared=errors.shared_limit(means, theirs))
    check = _Check(people, opened, rows, means, nearest, limits)
    findings: list[Finding] = []
    if duplicates:
        findings += check.duplicates()
    if labels:
        findings += check.labels()
    if beside is not None and others is not None and theirs is not None:
        findings += check.overlap(beside, others, theirs)
    wanted = {"duplicates": duplicates, "labels": labels, "overlap": beside is not None}
    return DataCheck(
        store=opened,
        people=people,
        model=embedder.name,
        findings=tuple(findings),
        limits=limits,
        other=beside,
        warnings=tuple(check.warnings(labels)),
        asked=tuple(name for name, given in wanted.items() if given),
    )


def open_people(path: Path) -> People:
    """The faces in a store, or in a folder or .zip of <identity>/<image>; UserError for anything else."""
    if not path.exists():
        raise UserError(f"{path}: no such store, folder or .zip")
    if is_store(path):
        return _people_of(open_store(path))
    files = open_files(path)
    whose = identities(image_names(files), path)
    if not whose:
        raise UserError(f"{path}: has no images of <identity>/<image>; sort them so, or give a store")
    names = list(whose)
    who, labels = np.unique(list(whose.values()), return_inverse=True)
    return People(path, file_images(files, names), labels.astype(np.int64), who.tolist(), names)


def _people_of(store: FaceStore) -> People:
    labels, names = store.labels.astype(np.int64), [store.names[i] for i in range(store.identities)]
    return People(store.path, store, labels, names, _StoreNames(store))


class _StoreNames(Sequence[str]):
    """Names of a store's images, made when they are asked for."""

    def __init__(self, store: FaceStore) -> None:
        self._store = store

    def __len__(self) -> int:
        return len(self._store)

    def __getitem__(self, number: Any) -> Any:
        return described(self._store, number)


def _embedded(embedder: Embedder, people: People, workers: int | None, cache: Path | None) -> Floats:
    raw = extract(embedder, people.images, workers=workers, cache=cache)
    try:
        check_embeddings(raw, "embeddings")
        return np.asarray(unit_rows(raw, "embeddings"), np.float32)
    except ValueError as error:
        raise UserError(f"{people.path}: {error}; check the network and its input options") from None


@dataclass(frozen=True, eq=False)
class _Check:
    people: People
    store: FaceStore
    rows: Floats
    means: errors.Means
    nearest: errors.Nearest
    limits: errors.Limits

    def warnings(self, labels: bool) -> Iterator[str]:
        """What the findings cannot be trusted in."""
        limits, known = self.limits, int((self.means.counts > 0).sum())
        if known < _LEAST_PEOPLE:
            yield f"{known} identities are few: below {_LEAST_PEOPLE}, limits that come from scores are rough"
        if int(self.means.counts.max()) > errors.MOST:
            yield f"identities of more than {errors.MOST:,} images are not looked through for other people"
        if labels and limits.genuine is None:
            yield "no identity has two images, so none can be unlike its own; only identities are compared"
        elif not limits.telling:
            yield (
                "the network hardly tells these people apart: the median cosine of images to their own "
                f"identity is {limits.genuine or 0:.2f}, and strangers reach "
                f"{min(1.0, max(limits.nearest, limits.unlike)):.2f}; check it and its input options"
            )

    def duplicates(self) -> Iterator[Finding]:
        """One photograph twice, of each group all but the first; under two names, the one that fits worse."""
        exact = _same_bytes(self.store)
        pairs, _ = errors.close_pairs(self.rows, floor=NEAR_COSINE)
        alike = _same_pixels(self.people, self.people, pairs)
        near = np.flatnonzero(alike >= NEAR_PIXELS)
        score = {tuple(pair): 1.0 for pair in exact.tolist()}
        for at in near.tolist():
            score.setdefault((int(pairs[at, 0]), int(pairs[at, 1])), float(alike[at]))
        found = list(self._of_groups(score))
        yield from sorted(found, key=lambda one: (one.kind, -one.score))

    def _of_groups(self, score: dict[tuple[int, int], float]) -> Iterator[Finding]:
        labels = self.people.labels
        for group in _groups(score):
            first: dict[int, int] = {}  # image, by identity
            for number in group:
                kept = first.setdefault(int(labels[number]), number)
                if kept != number:
                    yield self._finding("duplicate", (number,), (kept,), _linked(score, kept, number), DROP)
            head, *rest = first.values()
            for number in rest:
                worse, better = sorted((head, number), key=self._fit)
                fits = self._fit(better) >= self.limits.nearest > self._fit(worse)
                action = DROP if fits else KEEP
                yield self._finding("one_photograph", (worse,), (better,), _linked(score, head, number), action)

    def _fit(self, number: int) -> float:
        """How well an image fits its identity; alone in it, not at all."""
        return float(np.nan_to_num(self.nearest.own[number], nan=-1))

    def labels(self) -> Iterator[Finding]:
        """Images, then identities, each kind by itself, the surest first."""
        same = errors.same_people(self.rows, self.people.labels, self.means, self.limits)
        alike = {frozenset(pair[1:]) for pair in same}
        wrong = set()
        for number in errors.mislabeled(self.nearest, self.limits).tolist():
            who = int(self.nearest.who[number])
            if frozenset((int(self.people.labels[number]), who)) not in alike:
                wrong.add(number)
                yield self._mislabeled(number, who)
        groups = sorted(
            errors.strangers(self.rows, self.people.labels, self.limits.unlike), key=lambda one: one.score
        )
        several = []
        for one in groups:
            left = tuple(number for number in one.images.tolist() if number not in wrong)
            if not left:
                continue
            alone = len(one.images) == 1 and len(one.rest) > 1
            if alone:
                yield self._finding("unlike", left, tuple(one.rest.tolist()), one.score, DROP)
            elif not wrong.issuperset(one.rest.tolist()):
                several.append(self._finding("two_people", left, tuple(one.rest.tolist()), one.score, KEEP))
        yield from several
        for score, *pair in same:
            few, many = sorted(pair, key=lambda who: (int(self.means.counts[who]), -who))
            found = (self.people.names[many], self._images(many), score, KEEP)
            yield Finding("one_person", self.people.names[few], self._images(few), *found)

    def _mislabeled(self, number: int, who: int) -> Finding:
        """To drop where others tell which label is wrong, not where one of two images stands against one."""
        label = int(self.people.labels[number])
        told = self.means.counts[label] > 2 or self.means.counts[who] > 1
        return Finding(
            kind="mislabeled",
            identity=self.people.names[label],
            images=(number,),
            with_=self.people.names[who],
            beside=self._most_alike(number, who),
            score=float(self.nearest.other[number]),
            action=DROP if told else KEEP,
            own=float(self.nearest.own[number]),
        )

    def _most_alike(self, number: int, who: int) -> tuple[int, ...]:
        images = np.array(self._images(who), np.int64)
        return tuple(images[np.argsort(-(self.rows[images] @ self.rows[number]))][:_PICTURES].tolist())

    def _images(self, who: int) -> tuple[int, ...]:
        return _numbers(self.people.labels == who)

    def overlap(self, other: People, rows: Floats, means: errors.Means) -> Iterator[Finding]:
        """Photographs, then people, that are in both sets."""
        pairs, _ = errors.close_pairs(self.rows, rows, floor=NEAR_COSINE)
        alike = _same_pixels(self.people, other, pairs)
        best: dict[int, tuple[float, int]] = {}
        for at in np.flatnonzero(alike >= NEAR_PIXELS).tolist():
            one, two = pairs[at].tolist()
            best[one] = max(best.get(one, (0.0, 0)), (float(alike[at]), two))
        for one, (score, two) in sorted(best.items(), key=lambda item: -item[1][0]):
            identity, name = self.people.names[int(self.people.labels[one])], other.image_names[two]
            yield Finding("shared_image", identity, (one,), name, (two,), score, DROP, other=True)
        left, right = (self.rows, self.people.labels, self.means), (rows, other.labels, means)
        for score, mine, theirs in errors.shared_people(left, right, self.limits):
            found = (other.names[theirs], _numbers(other.labels == theirs), score, DROP)
            yield Finding("shared_person", self.people.names[mine], self._images(mine), *found, other=True)

    def _finding(
        self, kind: Kind, images: tuple[int, ...], beside: tuple[int, ...], score: float, action: str
    ) -> Finding:
        identity = self.people.names[int(self.people.labels[images[0]])]
        return Finding(kind, identity, images, described(self.store, beside[0]), beside, score, action)


def _same_bytes(store: FaceStore) -> Indices:
    """(m, 2) pairs of images with the same bytes (in the layout raw: pixels), each with the first such."""
    seen: dict[bytes, int] = {}
    pairs = []
    for number in tqdm(range(len(store)), desc="exact duplicates", unit="image", disable=None, leave=False):
        content = store.encoded(number) if store.layout == "jpeg" else store.read(np.array([number]))
        first = seen.setdefault(hashlib.blake2b(content.tobytes(), digest_size=16).digest(), number)
        if first != number:
            pairs.append((first, number))
    return np.array(pairs, np.int64).reshape(-1, 2)


def pixel_correlation(one: Floats, two: Floats) -> float:
    """How far two pictures of `fine_pixels` are one photograph: 1 for the same, at any size and brightness.

    The largest correlation of the inner part at shifts of up to 8 pixels of the crop, mirrored too. With the
    coarse brightness gone, two photographs of one person have little in common.
    """
    inner = slice(_SHIFT, -_SHIFT)
    parts = (np.ascontiguousarray(part[inner, inner]) for part in (one, one[:, ::-1]))
    return float(max(cv2.matchTemplate(two, part, cv2.TM_CCOEFF_NORMED).max() for part in parts))


def fine_pixels(pixels: NDArray[np.uint8]) -> Floats:
    """(112, 112, 3) uint8 RGB -> (56, 56) grey without what is coarser than some 16 pixels of the crop."""
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    small = cv2.resize(grey, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA).astype(np.float32)
    return np.asarray(small - cv2.GaussianBlur(small, (0, 0), _BLUR), np.float32)


def _same_pixels(left: People, right: People, pairs: Indices) -> Floats:
    """(m,) `pixel_correlation` of pairs (m, 2), for 256 of which pictures are held at a time."""
    found = np.empty(len(pairs), np.float32)
    with tqdm(desc="pixels", total=len(pairs), unit="pair", disable=None, leave=False) as bar:
        for start in range(0, len(pairs), _READ):
            some = pairs[start : start + _READ]
            ours, theirs = (_fine(part, some[:, side]) for side, part in enumerate((left, right)))
            for at, (one, two) in enumerate(some.tolist()):
                found[start + at] = pixel_correlation(ours[one], theirs[two])
            bar.update(len(some))
    return found


def _fine(people: People, numbers: Indices) -> dict[int, Floats]:
    wanted = np.unique(numbers)
    return {n: fine_pixels(one) for n, one in zip(wanted.tolist(), people.images.read(wanted), strict=True)}


def _numbers(chosen: NDArray[np.bool_]) -> tuple[int, ...]:
    return tuple(np.flatnonzero(chosen).tolist())


def _groups(pairs: Iterable[tuple[int, int]]) -> list[list[int]]:
    """Numbers that pairs join, directly or by others; each group ascending."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    ends = np.array(list(pairs), np.int64).reshape(-1, 2)
    if not len(ends):
        return []
    numbers, places = np.unique(ends, return_inverse=True)
    graph = coo_array((np.ones(len(ends)), places.reshape(-1, 2).T), shape=(len(numbers),) * 2)
    group = connected_components(graph, directed=False)[1]
    order = np.argsort(group, kind="stable")
    return [part.tolist() for part in np.split(numbers[order], np.flatnonzero(np.diff(group[order])) + 1)]


def _linked(score: dict[tuple[int, int], float], one: int, two: int) -> float:
    """Of a pair; joined by others alone, the least that any pair has."""
    return score.get((min(one, two), max(one, two)), NEAR_PIXELS)
