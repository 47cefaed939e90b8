"""Pairs of one's own people: how often is a network wrong, how sure is that, and for whom is it worse?

pairs.csv     `image1,image2,same` (1/0, yes/no, same/different), and where folders do not tell the people,
              `identity1,identity2` beside; or any list that `pair_lists` reads. Without one, pairs are drawn
              from `<identity>/<image>`, or from a store of faces
groups.csv    `identity,<column>,...` or `image,<column>,...`: age band, sex, camera, ...
quality.csv   `image,<column>,...`: numbers, the higher the better; empty or NaN: not known
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PositiveInt

from facenas.data.faces.splits import draw_spread_pairs
from facenas.data.faces.store import is_store, open_store
from facenas.data.images import image_names, open_files
from facenas.data.parts import class_name, identities
from facenas.errors import UserError
from facenas.evaluation.benches import PROTOCOLS, Bench, Extract, Protocol
from facenas.evaluation.benches.images import EncodedImages, Images, file_images
from facenas.evaluation.benches.pairs import listed_images, mistake
from facenas.evaluation.benches.people_tables import ListedPair, Table, read_own_pairs, read_table
from facenas.evaluation.benches.result import Calibrated, GroupTable, PeopleResult, QualityColumn
from facenas.evaluation.metrics import calibration
from facenas.evaluation.metrics.checks import Floats, checked_pairs
from facenas.evaluation.metrics.discard import error_versus_discard, rank_correlation
from facenas.evaluation.metrics.groups import compare_groups
from facenas.evaluation.metrics.people import OperatingPoint, distinct, error_rate, operating_points
from facenas.evaluation.metrics.roc import auc, eer, tar_at_fars, worst_mistakes

Indices = NDArray[np.int64]

NORM = "norm"  # the quality that an embedding has, unless the network normalizes
_ROWS = 8192  # pairs that are scored at once
_LOOKED_AT, _ONE_LENGTH = 32, 1e-3  # images, and by how much of their mean norms of unit vectors differ


@dataclass(frozen=True, eq=False)
class PeopleData:
    """pairs: (n, 2) int64 numbers into `images`; same: (n,) bool; people: (m,) int64, whose image i is.

    general: (n,) bool, the pairs that figures of all people are of; the others were drawn within a group.
    names, identities: of image i and of its person. columns: groups of image i by column, "" where not known.
    """

    images: Images
    names: Sequence[str]
    identities: Sequence[str]
    people: Indices
    pairs: Indices
    same: NDArray[np.bool_]
    general: NDArray[np.bool_]
    columns: dict[str, NDArray[np.str_]] = field(default_factory=dict)
    quality: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


@PROTOCOLS.register("people")
class PeopleProtocol(Protocol):
    """FMR and FNMR with intervals over people, calibrated probabilities, quality, and groups."""

    class Settings(Bench):
        """pairs, groups, quality: tables of one's own, see the module.

        fmrs: wanted false match rates; fmr: the one whose threshold groups and qualities are judged at, unless
        a `threshold` (cosine) is given. genuine, impostors: how many pairs are drawn at most where none are
        given, of impostors as many again within the groups of each column; seed: of the draw and of
        resamples.
        """

        pairs: Path | None = None
        groups: Path | None = None
        quality: Path | None = None
        fmrs: tuple[float, ...] = Field((1e-2, 1e-3, 1e-4), min_length=1)
        fmr: float = Field(1e-3, gt=0, lt=1)
        threshold: float | None = Field(None, ge=-1, le=1)
        genuine: PositiveInt = 20_000
        impostors: PositiveInt = 200_000
        seed: int = 0

    bench: Settings

    def measure(self, data: Path, extract: Extract) -> PeopleResult:
        """See `Bench.measure`."""
        found = self.read(data)
        embeddings = np.asarray(extract(found.images))
        norms = np.linalg.norm(embeddings.astype(np.float64), axis=1)
        every, same, people = _scores(embeddings, norms, found.pairs), found.same, found.people[found.pairs]
        of = found.general
        checked_pairs(every[of], same[of], "scores")
        scores, kinds = every[of], same[of]
        fmrs = sorted({*self.bench.fmrs, self.bench.fmr}, reverse=True)
        points = operating_points(scores, kinds, people[of], fmrs, seed=self.bench.seed)
        point, warnings = self._judged_at(points, people[of][~kinds])
        threshold = point.threshold if self.bench.threshold is None else self.bench.threshold
        wrong = (every > threshold) != same
        if normalized := _normalizes(extract, found.images):
            warnings.append("the network's embeddings have one length: no quality to judge, so it is left out")
        columns: dict[str, Floats] = {**({} if normalized else {NORM: norms}), **found.quality}
        fmr, fnmr = point.fmr, point.fnmr
        if self.bench.threshold is not None:  # which owes nothing to these pairs
            fmr, fnmr = (error_rate(wrong[of & kind], people[of & kind]) for kind in (~same, same))
        left, right = found.pairs[of].T
        return PeopleResult(
            bench=self.bench,
            images=len(found.images),
            pairs=int(of.sum()),
            genuine=int(kinds.sum()),
            impostors=int((~kinds).sum()),
            people=len(np.unique(people)),
            threshold_cosine=threshold,
            fmr=fmr,
            fnmr=fnmr,
            points=tuple(points),
            tar_at_far=tar_at_fars(scores, kinds, fmrs),
            eer=eer(scores, kinds),
            auc=auc(scores, kinds),
            calibration=_calibrated(scores, kinds, people[of], self.bench.seed),
            quality=tuple(self._qualities(found, wrong, columns)),
            groups=tuple(_group_tables(found, wrong, self.bench.groups)),
            warnings=(*found.warnings, *warnings),
            scores=scores,
            same=kinds,
            mistakes=tuple(
                mistake(scores[i], kinds[i], found.images, np.array([left[i], right[i]]), found.names)
                for i in worst_mistakes(scores, kinds, threshold)
            ),
        )

    def _judged_at(self, points: list[OperatingPoint], impostors: Indices) -> tuple[OperatingPoint, list[str]]:
        """The point that all else is judged at, and which wanted FMRs so many impostors cannot show."""
        two, said = distinct(impostors), []
        if small := [f"{point.wanted:g}" for point in points if not point.carried]:
            said.append(
                f"an FMR of {' or '.join(small)} cannot be shown: of {two:,} pairs of different people, "
                "without a single false match, it would only be known to be below "
                f"{min(1, 3 / two):.2g} (rule of three)"
            )
        able = [point for point in points if point.carried] or points[:1]
        chosen = min(able, key=lambda point: abs(np.log(point.wanted / self.bench.fmr)))
        if self.bench.threshold is None and chosen.wanted != self.bench.fmr:
            said.append(f"groups and qualities are judged at the threshold of FMR {chosen.wanted:g}")
        return chosen, said

    def _qualities(
        self, found: PeopleData, wrong: NDArray[np.bool_], columns: dict[str, Floats]
    ) -> Iterator[QualityColumn]:
        """Of genuine pairs; with the norm among them, how it goes with each other column."""
        norms = columns.get(NORM)
        for name, values in columns.items():
            lowest = values[found.pairs].min(axis=1)
            judged = found.general & found.same & np.isfinite(lowest)
            if not judged.any():
                raise UserError(f"{self.bench.quality}: has no {name} of both images of any genuine pair")
            discard = error_versus_discard(
                wrong[judged], lowest[judged], found.people[found.pairs[judged]], seed=self.bench.seed
            )
            known = np.isfinite(values)
            with_norm = None
            if norms is not None and name != NORM:
                with_norm = rank_correlation(values[known], norms[known])
            yield QualityColumn(name, discard, int(judged.sum()), int((~known).sum()), with_norm)

    def read(self, data: Path) -> PeopleData:
        """Images, people and pairs: those of the list, else drawn; groups and qualities of the images.

        data: a folder or .zip of aligned crops, or, without a list, a store of faces. Raises UserError for
        files that are missing, damaged, or contradict each other.
        """
        if not data.exists():
            raise UserError(f"{data}: does not exist")
        found = self._listed(data) if self.bench.pairs else self._all_images(data)
        groups = read_table(self.bench.groups.expanduser()) if self.bench.groups else None
        quality = read_table(self.bench.quality.expanduser()) if self.bench.quality else None
        warnings = list(found.warnings)
        if groups:
            found.columns.update(_by_image(groups, found, warnings))
        if quality:
            texts = _by_image(quality, found, warnings)
            found.quality.update({name: quality.numbers(name, column) for name, column in texts.items()})
        if not self.bench.pairs:
            found = self._drawn(found, data)
        return _replace(found, warnings=tuple(warnings))

    def _listed(self, data: Path) -> PeopleData:
        rows, warnings = read_own_pairs(Path(str(self.bench.pairs)).expanduser())
        numbers: dict[str, int] = {}
        places = [[numbers.setdefault(path, len(numbers)) for path in (row.first, row.second)] for row in rows]
        names, pairs = list(numbers), np.array(places, np.int64).reshape(-1, 2)
        same = np.array([row.same for row in rows], bool)
        people, whose, doubt = _people(Path(str(self.bench.pairs)), rows, names, pairs, same)
        images = listed_images(open_files(data), names, Path(str(self.bench.pairs)).name)
        every = np.ones(len(pairs), bool)
        return PeopleData(images, names, whose, people, pairs, same, every, warnings=(*warnings, *doubt))

    def _all_images(self, data: Path) -> PeopleData:
        """All images of `<identity>/<image>`; pairs are to be drawn."""
        images: Images
        if is_store(data):
            store = open_store(data)
            images, whose = store, [class_name(store.names[label]) for label in store.labels.tolist()]
            names = [f"{identity}/{number}" for number, identity in enumerate(whose)]
        else:
            files = open_files(data)
            found = identities(image_names(files), data)
            names, whose = list(found), list(found.values())
            if not names:
                raise UserError(
                    f"{data}: has no images of <identity>/<image>; sort them so, or list pairs (--pairs)"
                )
            images = file_images(files, names)
        people = np.unique(whose, return_inverse=True)[1].astype(np.int64)
        none = np.empty((0, 2), np.int64)
        return PeopleData(images, names, whose, people, none, np.empty(0, bool), np.empty(0, bool))

    def _drawn(self, found: PeopleData, data: Path) -> PeopleData:
        """With pairs over all people, and within the groups of every column."""
        bench, everyone = self.bench, np.arange(len(found.people))
        try:
            genuine, impostors = draw_spread_pairs(
                found.people, everyone, bench.genuine, bench.impostors, bench.seed
            )
        except UserError as error:
            raise UserError(f"{data}: {error}") from None
        within = [np.empty((0, 2), np.int64)]
        for column in found.columns.values():
            groups = [group for group in np.unique(column) if group]
            for group in groups:
                members = np.flatnonzero(column == group)
                if len(np.unique(found.people[members])) > 1:
                    share = bench.impostors // len(groups)
                    within.append(draw_spread_pairs(found.people, members, 0, max(1, share), bench.seed)[1])
        pairs = np.sort(np.concatenate([genuine, impostors, *within]), axis=1)
        first = np.sort(np.unique(pairs, axis=0, return_index=True)[1])
        general = np.arange(len(pairs)) < len(genuine) + len(impostors)
        same = np.arange(len(pairs)) < len(genuine)
        return _replace(found, pairs=pairs[first], same=same[first], general=general[first])


def _replace(found: PeopleData, **changes: Any) -> PeopleData:
    return PeopleData(**{**vars(found), **changes})


def _people(
    where: Path, rows: Sequence[ListedPair], names: Sequence[str], pairs: Indices, same: NDArray[np.bool_]
) -> tuple[Indices, list[str], list[str]]:
    """(n,) whose each listed image is, what that person is called, and warnings.

    One person's are images that identities, pairs of one person and folders put together. Folders do not count
    where that would make two people one. Raises UserError for contradictions.
    """
    who = _listed_identities(where, rows, names)
    folders = [class_name(name.rpartition("/")[0]) for name in names]
    links = np.concatenate([pairs[same], _alike(who)])
    found, warnings = _joined(len(names), np.concatenate([links, _alike(folders)])), []
    if _contradiction(found, rows, pairs[~same], names, who):
        found, folders = _joined(len(names), links), [""] * len(names)
        if fault := _contradiction(found, rows, pairs[~same], names, who):
            raise UserError(f"{where}: {fault}")
        if not all(who):
            warnings.append(
                f"{where}: folders do not tell who is who; without identity1 and identity2, images of one "
                "person that no pair joins count as several people, and intervals are too narrow"
            )
    called: dict[int, str] = {}
    for labels in (who, folders, [class_name(name) for name in names]):
        for label, person in zip(labels, found.tolist(), strict=True):
            if label:
                called.setdefault(person, label)
    order = {person: place for place, person in enumerate(sorted(called, key=lambda one: (called[one], one)))}
    people = np.array([order[person] for person in found.tolist()], np.int64)
    return people, [called[person] for person in found.tolist()], warnings


def _listed_identities(where: Path, rows: Sequence[ListedPair], names: Sequence[str]) -> list[str]:
    """Of every image, "" where the list has none; raises UserError for an image of two."""
    given: dict[str, str] = {}
    for row in rows:
        for path, identity in ((row.first, row.identity1), (row.second, row.identity2)):
            if identity and given.setdefault(path, identity) != identity:
                raise UserError(
                    f"{where}: line {row.line} says {path} is {identity}, another line {given[path]}"
                )
    return [given.get(name, "") for name in names]


def _alike(labels: Sequence[str]) -> Indices:
    """(k, 2) links of each image that has a label to the first one that has the same."""
    _, first, places = np.unique(labels, return_index=True, return_inverse=True)
    links = np.stack([np.arange(len(labels)), first[places]], axis=1).astype(np.int64)
    known: Indices = links[np.array(labels) != ""]
    return known


def _joined(images: int, links: Indices) -> Indices:
    """(images,) numbers of the connected components."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    graph = coo_array((np.ones(len(links)), links.T), shape=(images, images))
    return np.asarray(connected_components(graph, directed=False)[1], np.int64)


def _contradiction(
    found: Indices, rows: Sequence[ListedPair], apart: Indices, names: Sequence[str], who: Sequence[str]
) -> str:
    """Why these people cannot be: two images of one who are listed as two, in words; "" if there are none.

    apart: (k, 2) the images of the rows that are of two people, in their order.
    """
    wrong = np.flatnonzero(found[apart[:, 0]] == found[apart[:, 1]])
    if len(wrong):
        row = [row for row in rows if not row.same][wrong[0]]
        return (
            f"line {row.line} calls {row.first} and {row.second} different, but other lines together say that "
            "they are one person; correct it, or give identity1 and identity2"
        )
    first: dict[int, tuple[str, str]] = {}
    for name, identity, person in zip(names, who, found.tolist(), strict=True):
        before = first.setdefault(person, (name, identity)) if identity else None
        if before and before[1] != identity:
            return (
                f"{before[0]} is {before[1]} and {name} is {identity}, but lines without identities together "
                "say that they are one person; correct one of them"
            )
    return ""


def _by_image(table: Table, found: PeopleData, warnings: list[str]) -> dict[str, NDArray[np.str_]]:
    """The columns of a table for every image, "" where it has no row; keyed by identity or by image."""
    known = table.rows
    by_identity = not known.keys().isdisjoint(found.identities)
    located = found.images.names if isinstance(found.images, EncodedImages) else found.names
    spelled = ([class_name(name) for name in names] for names in (found.names, located))
    pairs = zip(*spelled, strict=True)  # as the list has it, and as its file is called
    keys = found.identities if by_identity else [one if one in known else other for one, other in pairs]
    if known.keys().isdisjoint(keys):
        raise UserError(
            f"{table.path}: its first column names neither identities nor images of the data, such as "
            f"{found.identities[0]} or {found.names[0]}"
        )
    if missing := set(keys) - known.keys():
        warnings.append(
            f"{table.path}: has no row for {len(missing):,} of the {len(set(keys)):,} "
            f"{'identities' if by_identity else 'images'}, such as {min(missing)}: left out of its figures"
        )
    return {
        name: np.array([known[key][column] if key in known else "" for key in keys], str)
        for column, name in enumerate(table.columns)
    }


@dataclass(frozen=True, eq=False)
class _Some:
    """Images of `images`: those of `numbers`, (k,)."""

    images: Images
    numbers: Indices

    @property
    def fingerprint(self) -> str:
        """See `Images`."""
        return f"{self.images.fingerprint} {self.numbers.tolist()}"

    def __len__(self) -> int:
        return len(self.numbers)

    def read(self, numbers: Indices) -> NDArray[np.uint8]:
        """See `Images`."""
        return self.images.read(self.numbers[numbers])


def _normalizes(extract: Extract, images: Images) -> bool:
    """Whether embeddings have one length, as unit vectors do.

    Looked at without mirror images: the sum of two unit vectors is the longer the more alike they are.
    """
    some = np.linspace(0, len(images) - 1, min(len(images), _LOOKED_AT)).astype(np.int64)
    rows = extract(_Some(images, some), flip=False, keep=False)
    norms = np.linalg.norm(np.asarray(rows, np.float64), axis=1)
    return bool(np.ptp(norms) < _ONE_LENGTH * norms.mean())


def _scores(embeddings: Floats, norms: Floats, pairs: Indices) -> NDArray[np.float64]:
    """(n,) cosines, in float64."""
    found = np.empty(len(pairs))
    for start in range(0, len(pairs), _ROWS):
        first, second = pairs[start : start + _ROWS].T
        products = np.einsum("ij,ij->i", embeddings[first].astype(np.float64), embeddings[second])
        found[start : start + _ROWS] = products / (norms[first] * norms[second])
    return found


def _calibrated(scores: Floats, same: NDArray[np.bool_], people: Indices, seed: int) -> Calibrated | None:
    """By the method whose probabilities of people it was not fitted on cost least; None for too few people."""
    try:
        chances = {
            method: calibration.cross_fitted(method, scores, same, people, seed=seed)
            for method in calibration.METHODS
        }
    except ValueError:
        return None
    costs = {method: calibration.cllr(chance, same) for method, chance in chances.items()}
    method = min(calibration.METHODS, key=lambda one: costs[one])
    grid = np.linspace(scores.min(), scores.max(), 41)
    return Calibrated(
        method=method,
        cllr={str(one): cost for one, cost in costs.items()},
        reliability=calibration.reliability(chances[method], same),
        scores=grid,
        probabilities=calibration.fit(method, scores, same)(grid),
    )


def _group_tables(
    found: PeopleData, wrong: NDArray[np.bool_], groups_file: Path | None
) -> Iterator[GroupTable]:
    for column, groups in found.columns.items():
        left, right = groups[found.pairs].T
        alike = (left == right) & (left != "")
        told = {}
        for kind, of in (("fnmr", alike & found.same), ("fmr", alike & ~found.same)):
            told[kind] = compare_groups(wrong[of], found.people[found.pairs[of]], left[of].tolist())
        if not any(rates for rates, _ in told.values()):
            raise UserError(f"{groups_file}: {column}: no pair has both images in one of its groups")
        yield GroupTable(column, tuple(told["fnmr"][0]), told["fnmr"][1], tuple(told["fmr"][0]), told["fmr"][1])
