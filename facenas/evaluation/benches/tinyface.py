"""TinyFace: probes to find in a gallery with distractors.

tinyface/Testing_Set/{Probe,Gallery_Match,Gallery_Distractor}/   the official set: which images there are
aligned_pad_0.1_pad_high/{Probe,...}/                            the same names, aligned by AdaFace's author

(mk-minchul/AdaFace:validation_lq/tinyface_helper.py.) The integer before a name's first `_` is the person;
distractors have -100. The `.mat` files say the same and are not read.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from facenas.data.images import Files, image_names, open_files
from facenas.errors import UserError
from facenas.evaluation.benches import PROTOCOLS, BenchNotThereError, Extract, Protocol
from facenas.evaluation.benches.images import EncodedImages, file_images
from facenas.evaluation.benches.result import Mistake, RankResult
from facenas.evaluation.metrics.checks import Floats, unit_rows
from facenas.evaluation.metrics.ranking import Ranking, rank_k

DISTRACTOR = -100
_OFFICIAL, _AUTHORS = "Testing_Set", "aligned_pad_0.1_pad_high"
_PROBE, _MATCH, _DISTRACTOR = _PARTS = ("Probe", "Gallery_Match", "Gallery_Distractor")
_CROPS = f"the crops of AdaFace's author ({_AUTHORS})"
_SHOWN = 10  # mistakes
_FEW_TIES = 0.01  # of the probes: with more, the embeddings hardly differ
_Key = tuple[str, str]  # part, and name without ending


class _Folder(NamedTuple):
    """A folder with TinyFace's parts; its files by part and by name without ending."""

    name: str
    images: dict[_Key, str]


@dataclass(frozen=True, eq=False)
class RankData:
    """Probes to find in a gallery. probe_ids: (p,) int64, gallery_ids: (g,) int64, -100 for distractors."""

    probe: EncodedImages
    gallery: EncodedImages
    probe_ids: NDArray[np.int64]
    gallery_ids: NDArray[np.int64]
    warnings: tuple[str, ...]


@PROTOCOLS.register("ranking")
class RankProtocol(Protocol):
    """Rank-k of probes in a gallery with distractors, as TinyFace is measured."""

    def measure(self, data: Path, extract: Extract) -> RankResult:
        """See `Bench.measure`."""
        found = read_tinyface(data)
        probe, gallery = (
            unit_rows(np.asarray(extract(images), np.float32), "embeddings")
            for images in (found.probe, found.gallery)
        )
        ranking = rank_k(probe, gallery, found.probe_ids, found.gallery_ids)
        warnings = found.warnings
        if ranking.probes_with_tie > _FEW_TIES * len(probe):
            sentence = (
                f"{ranking.probes_with_tie} of {len(probe)} probes score others exactly as their mate: the "
                "embeddings hardly differ, and the ranks mean nothing"
            )
            warnings = (*warnings, sentence)
        return RankResult(
            bench=self.bench,
            images=len(probe) + len(gallery),
            rank=ranking.rank,
            map=ranking.mean_average_precision,
            probes=len(probe),
            gallery=len(gallery),
            probes_without_mate=ranking.probes_without_mate,
            probes_with_tie=ranking.probes_with_tie,
            warnings=warnings,
            cmc=ranking.cmc,
            mistakes=tuple(_mistakes(found, ranking, probe, gallery)),
        )


def _mistakes(found: RankData, ranking: Ranking, probe: Floats, gallery: Floats) -> Iterator[Mistake]:
    """The probes whose mate stands lowest, each with the image of another person that stands first."""
    for number in np.argsort(-ranking.ranks, kind="stable")[:_SHOWN]:
        if ranking.ranks[number] > 1:
            scores = gallery @ probe[number]
            scores[found.gallery_ids == found.probe_ids[number]] = -np.inf
            first = int(scores.argmax())
            (left,), (right,) = (
                found.probe.read(np.array([number])),
                found.gallery.read(np.array([first])),
            )
            names = (f"probe {number}, mate at rank {ranking.ranks[number]}", f"gallery {first}")
            yield Mistake(float(scores[first]), False, names, (left, right))


def read_tinyface(data: Path) -> RankData:
    """The aligned images below the folder or .zip `data`; `warnings` tell what keeps numbers from comparing.

    Raises BenchNotThereError when no folder of TinyFace's lies there, and UserError when none is aligned or
    a name tells of no person.
    """
    files = open_files(data)
    folders = _folders(files)
    pixels = _aligned(files, folders)
    official = next((f for f in folders if f.name == _OFFICIAL and f is not pixels), pixels)
    there = sorted(official.images.keys() & pixels.images.keys())
    probe, match, others = ([key for key in there if key[0] == part] for part in _PARTS)
    if not probe or not match:
        raise UserError(f"{data}: {pixels.name} has no image that {official.name} lists")
    return RankData(
        file_images(files, [pixels.images[key] for key in probe]),
        file_images(files, [pixels.images[key] for key in match + others]),
        np.array([_person(data, key) for key in probe], np.int64),
        np.array([*(_person(data, key) for key in match), *[DISTRACTOR] * len(others)], np.int64),
        tuple(_warnings(official, pixels)),
    )


def _folders(files: Files) -> list[_Folder]:
    """All folders with probes and their matches, by name."""
    found: dict[str, _Folder] = {}
    top = Path(os.path.abspath(files.root))
    for name in image_names(files):
        *above, part, file = ("", *name.split("/"))
        if part in _PARTS:
            path = "/".join(above)
            own = above[-1] or (top.name if top.is_dir() else top.stem)
            folder = found.setdefault(path, _Folder(own, {}))
            folder.images[part, file.rpartition(".")[0]] = name
    complete = [f for f in found.values() if {_PROBE, _MATCH} <= {part for part, _ in f.images}]
    return sorted(complete, key=lambda folder: folder.name)


def _aligned(files: Files, folders: list[_Folder]) -> _Folder:
    """The author's folder, else the only other one, else the official one if its images are aligned."""
    if not folders:
        raise BenchNotThereError(
            f"{files.root}: has nothing of TinyFace: no folder that holds {_PROBE} and {_MATCH}"
        )
    authors = [folder for folder in folders if folder.name == _AUTHORS]
    others = [folder for folder in folders if folder.name != _OFFICIAL]
    chosen = authors or others or folders
    if len(chosen) > 1:
        raise UserError(
            f"{files.root}: holds TinyFace more than once, as {chosen[0].name} and {chosen[1].name}; "
            "give a folder with one"
        )
    try:
        file_images(files, [min(chosen[0].images.values())]).read(np.zeros(1, np.int64))
    except UserError as error:
        raise UserError(f"{error}; published numbers used {_CROPS}") from None
    return chosen[0]


def _person(data: Path, key: _Key) -> int:
    try:
        return int(key[1].partition("_")[0])
    except ValueError:
        raise UserError(f"{data}: {'/'.join(key)} does not begin with a person's number and _") from None


def _warnings(official: _Folder, pixels: _Folder) -> Iterator[str]:
    if pixels.name != _AUTHORS:
        yield f"the images of {pixels.name} are not those of published numbers, which used {_CROPS}"
    if official is pixels:
        yield f"without {_OFFICIAL}, images that were lost in aligning are not known of"
    if missing := sorted(official.images.keys() - pixels.images.keys()):
        probes = sum(part == _PROBE for part, _ in missing)
        yield (
            f"{len(missing)} images of {official.name} are not in {pixels.name} and are left out, "
            f"{probes} of them probes, {'/'.join(missing[0])} the first"
        )
    if not any(part == _DISTRACTOR for part, _ in pixels.images):
        yield f"{pixels.name} has no {_DISTRACTOR}: ranks are better than with it"
