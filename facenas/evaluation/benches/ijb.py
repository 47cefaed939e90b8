"""IJB-B and IJB-C in the layout that InsightFace hands out: loose face crops and text files.

IJBC/loose_crop/<k>.jpg
IJBC/meta/                 ijbc_face_tid_mid.txt, ijbc_name_5pts_score.txt, ijbc_template_pair_label.txt;
                           for 1:N: ijbc_1N_gallery_G1.csv, _G2.csv (IJB-B: _S1, _S2), ijbc_1N_probe_mixed.csv
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from facenas.errors import UserError
from facenas.evaluation.benches import PROTOCOLS, Bench, BenchNotThereError, Extract, Protocol
from facenas.evaluation.benches import ijb_meta as files
from facenas.evaluation.benches.ijb_crops import open_crops
from facenas.evaluation.benches.images import Images
from facenas.evaluation.benches.pairs import mistake
from facenas.evaluation.benches.result import Mistake, TemplateResult
from facenas.evaluation.metrics.identification import (
    Subjects,
    identify_templates,
    identify_templates_merged,
)
from facenas.evaluation.metrics.roc import auc, eer, worst_mistakes
from facenas.evaluation.metrics.templates import (
    FUSIONS,
    Templates,
    places_of,
    pool_templates,
    verify_pooled,
)


@dataclass(frozen=True, eq=False)
class Meta:
    """What the text files say of n images and p pairs of templates.

    names: (n,) of the crops; points: (n, 5, 2) float32 pixels; detector_scores: (n,) float32; templates,
    media: (n,) int64; pairs: (p, 2) int64 template ids; same: (p,) bool; galleries, probes: the 1:N lists,
    none when a file of them is missing, which `warnings` then says.
    """

    names: NDArray[np.str_]
    points: NDArray[np.float32]
    detector_scores: NDArray[np.float32]
    templates: NDArray[np.int64]
    media: NDArray[np.int64]
    pairs: NDArray[np.int64]
    same: NDArray[np.bool_]
    galleries: tuple[Subjects, ...]
    probes: Subjects | None
    warnings: tuple[str, ...]


@PROTOCOLS.register("templates")
class TemplateProtocol(Protocol):
    """1:1 and 1:N of templates: sets of images of one person, pooled."""

    class Settings(Bench):
        """folder: IJBB or IJBC, its small letters begin the text files' names; galleries: of 1:N.

        fusion: whose way to pool; keep_norm, use_detector_score: what an image weighs, if not as `fusion` says.
        """

        folder: str
        galleries: tuple[str, ...]
        fusion: Literal["adaface", "insightface", "cvlface"] = "adaface"
        keep_norm: bool | None = None
        use_detector_score: bool | None = None

    bench: Settings

    def measure(self, data: Path, extract: Extract) -> TemplateResult:
        """See `Bench.measure`."""
        meta, images = self.read(data)
        weights: dict[str, Any] = {**FUSIONS[self.bench.fusion]}
        for key in weights:
            if (given := getattr(self.bench, key)) is not None:
                weights[key] = given
        pooled = pool_templates(
            extract(images),
            meta.templates,
            meta.media,
            detector_scores=meta.detector_scores if weights["use_detector_score"] else None,
            keep_norm=weights["keep_norm"],
        )
        found = verify_pooled(pooled, meta.pairs, meta.same)
        figures, warnings = _identification(pooled, meta)
        return TemplateResult(
            bench=self.bench,
            images=len(images),
            tar_at_far=found.tar_at_far,
            tar_at_nearest_far=found.tar_at_nearest_far,
            eer=eer(found.scores, meta.same),
            auc=auc(found.scores, meta.same),
            **weights,
            pairs=len(meta.same),
            genuine=int(meta.same.sum()),
            templates=len(pooled.ids),
            warnings=(*meta.warnings, *warnings),
            scores=found.scores,
            same=meta.same,
            mistakes=tuple(_mistakes(meta, images, found.scores)),
            **figures,
        )

    def read(self, data: Path) -> tuple[Meta, Images]:
        """The text files in `data`, its folder IJBB or IJBC or the folder above, and its crops, aligned.

        The first call parses the text files and aligns the crops into facenas' cache, later ones take them from
        there until a file changes. Raises UserError, naming file and line, when something is missing, damaged
        or does not fit together.
        """
        root = self._root(data)
        meta = read_meta(self.bench, root)
        crops = open_crops(root / "loose_crop", meta.names, meta.points, meta.templates)
        return meta, crops

    def _root(self, data: Path) -> Path:
        folder = self.bench.folder
        for root in (data, data / folder):
            if (root / "meta").is_dir() and (root / "loose_crop").is_dir():
                return root
        raise BenchNotThereError(
            f"{data}: has no folders meta and loose_crop, nor a folder {folder} with them; give the folder "
            f"{folder} as InsightFace hands it out"
        )


def read_meta(bench: TemplateProtocol.Settings, root: Path) -> Meta:
    """The text files in `root`/meta, checked against each other."""
    faces_file, points_file, pairs_file = (
        root / "meta" / f"{bench.folder.lower()}_{name}.txt"
        for name in ("face_tid_mid", "name_5pts_score", "template_pair_label")
    )
    faces, points = files.read_faces(faces_file), files.read_points(points_file)
    _check_order(faces_file, faces["names"], points_file, points["names"])
    pairs = files.read_template_pairs(pairs_file)
    ids = np.unique(faces["templates"])
    for wanted in pairs["pairs"].T:
        _check_known(pairs_file, ids, wanted, numbered=True)
    galleries, probes, warnings = _read_lists(bench, root / "meta", ids)
    return Meta(**{**faces, **points, **pairs}, galleries=galleries, probes=probes, warnings=warnings)


def _check_order(
    faces_file: Path, faces: NDArray[np.str_], points_file: Path, points: NDArray[np.str_]
) -> None:
    both = min(len(faces), len(points))
    if (faces[:both] != points[:both]).any():
        row = int(np.argmax(faces[:both] != points[:both]))
        raise UserError(
            f"{points_file}: line {files.line_of(points_file, row)} is of {points[row]}, but "
            f"{faces_file.name} has {faces[row]} there; both should list the same images in the same order"
        )
    if len(faces) != len(points):
        raise UserError(
            f"{points_file}: has {len(points)} images but {faces_file.name} has {len(faces)}; get both anew"
        )


def _read_lists(
    bench: TemplateProtocol.Settings, folder: Path, ids: NDArray[np.int64]
) -> tuple[tuple[Subjects, ...], Subjects | None, tuple[str, ...]]:
    """Galleries, probes and warnings."""
    names = (*(f"gallery_{name}" for name in bench.galleries), "probe_mixed")
    paths = [folder / f"{bench.folder.lower()}_1N_{name}.csv" for name in names]
    missing = [path.name for path in paths if not path.is_file()]
    if missing:
        return (), None, (f"{folder}: has no {', '.join(missing)}: 1:N is left out",)
    lists = []
    for path, name in zip(paths, names, strict=True):
        templates, subjects = files.read_subjects(path)
        _check_known(path, ids, templates)
        lists.append(Subjects(name.removeprefix("gallery_"), templates, subjects))
    return tuple(lists[:-1]), lists[-1], ()


def _check_known(path: Path, ids: NDArray[np.int64], wanted: NDArray[np.int64], numbered: bool = False) -> None:
    """Every wanted template has images; numbered: row by row of the file, so that a line can be named."""
    places = places_of(ids, wanted)
    if places.min() < 0:
        row = int(np.argmin(places))
        line = f" line {files.line_of(path, row)}" if numbered else ""
        raise UserError(
            f"{path}:{line} names template {wanted[row]}, but no image is of it; get the meta files anew, "
            "all of one release"
        )


def _identification(pooled: Templates, meta: Meta) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Fields of the result for 1:N, and a warning where the lists allow none: 1:1 does not need them."""
    if meta.probes is None:
        return {}, ()
    try:
        found = identify_templates(pooled, meta.galleries, meta.probes)
        merged = identify_templates_merged(pooled, meta.galleries, meta.probes)
    except ValueError as error:
        return {}, (f"1:N is left out: {error}",)
    peers = {f"rank_{k}": share for k, share in merged.rank.items()}
    return {
        "rank": found.rank,
        "tpir_at_fpir": found.tpir,
        "merged": {**peers, "recall_by_share": merged.recall_by_share},
    }, ()


def _mistakes(meta: Meta, images: Images, scores: NDArray[np.float64]) -> list[Mistake]:
    """Of each template its first image; wrong at the threshold where genuine and impostor errors are equal."""
    impostors = scores[~meta.same]
    threshold = float(np.quantile(impostors, 1 - eer(scores, meta.same)))
    ids, first = np.unique(meta.templates, return_index=True)
    shown = []
    for i in worst_mistakes(scores, meta.same, threshold):
        pair = first[np.searchsorted(ids, meta.pairs[i])]
        shown.append(mistake(scores[i], meta.same[i], images, pair, meta.names))
    return shown
