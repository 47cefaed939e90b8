"""IJB-B and IJB-C in the layout that InsightFace hands out: loose face crops and text files.

IJBC/loose_crop/<k>.jpg
IJBC/meta/                 ijbc_face_tid_mid.txt, ijbc_name_5pts_score.txt, ijbc_template_pair_label.txt;
                           for 1:N: ijbc_1N_gallery_G1.csv, _G2.csv (IJB-B: _S1, _S2), ijbc_1N_probe_mixed.csv
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from facenas.errors import UserError
from facenas.evaluation.metrics.identification import Subjects
from facenas.evaluation.metrics.templates import places_of
from facenas.evaluation.protocols import ijb_meta as files
from facenas.evaluation.protocols.ijb_crops import open_crops
from facenas.evaluation.protocols.images import Images
from facenas.evaluation.protocols.kinds import BenchNotThereError

_GALLERIES = {"ijbb": ("S1", "S2"), "ijbc": ("G1", "G2")}


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


@dataclass(frozen=True, eq=False)
class TemplateProtocol(Meta):
    """IJB-B or IJB-C: what the text files say, and the n images, aligned."""

    images: Images


def read_ijb(bench: str, data: Path) -> TemplateProtocol:
    """`bench` "ijbb" or "ijbc"; `data`: its folder IJBB or IJBC, or the folder above.

    The first call parses the text files and aligns the crops into facenas' cache, later ones take them from
    there until a file changes. Raises UserError, naming file and line, when something is missing, damaged
    or does not fit together.
    """
    root = find_root(bench, data)
    meta = read_meta(bench, root)
    images = open_crops(root / "loose_crop", meta.names, meta.points, meta.templates)
    return TemplateProtocol(**vars(meta), images=images)


def find_root(bench: str, data: Path) -> Path:
    """The folder that holds `meta` and `loose_crop`; raises BenchNotThereError when it is not there."""
    for root in (data, data / bench.upper()):
        if (root / "meta").is_dir() and (root / "loose_crop").is_dir():
            return root
    raise BenchNotThereError(
        f"{data}: has no folders meta and loose_crop, nor a folder {bench.upper()} with them; give the folder "
        f"{bench.upper()} as InsightFace hands it out"
    )


def read_meta(bench: str, root: Path) -> Meta:
    """The text files in `root`/meta, checked against each other; raises UserError as `read_ijb` does."""
    faces_file, points_file, pairs_file = (
        root / "meta" / f"{bench}_{name}.txt"
        for name in ("face_tid_mid", "name_5pts_score", "template_pair_label")
    )
    faces, points = files.read_faces(faces_file), files.read_points(points_file)
    _check_order(faces_file, faces["names"], points_file, points["names"])
    pairs = files.read_template_pairs(pairs_file)
    ids = np.unique(faces["templates"])
    for side in (0, 1):
        _check_known(pairs_file, ids, pairs["pairs"][:, side])
    galleries, probes, warnings = _read_lists(bench, root / "meta", ids)
    return Meta(
        faces["names"],
        points["points"],
        points["scores"],
        faces["templates"],
        faces["media"],
        pairs["pairs"],
        pairs["same"],
        galleries,
        probes,
        warnings,
    )


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


def _check_known(path: Path, ids: NDArray[np.int64], wanted: NDArray[np.int64]) -> None:
    places = places_of(ids, wanted)
    if places.min() < 0:
        row = int(np.argmin(places))
        raise UserError(
            f"{path}: line {files.line_of(path, row)} names template {wanted[row]}, but no image is of it; "
            "get the meta files anew, all of one release"
        )


def _read_lists(
    bench: str, folder: Path, ids: NDArray[np.int64]
) -> tuple[tuple[Subjects, ...], Subjects | None, tuple[str, ...]]:
    """Galleries, probes and warnings."""
    names = (*(f"gallery_{name}" for name in _GALLERIES[bench]), "probe_mixed")
    paths = [folder / f"{bench}_1N_{name}.csv" for name in names]
    missing = [path.name for path in paths if not path.is_file()]
    if missing:
        return (), None, (f"{folder}: has no {', '.join(missing)}: 1:N is left out",)
    *galleries, probes = (
        _read_list(path, name, ids) for path, name in zip(paths, names, strict=True)
    )
    return tuple(galleries), probes, ()


def _read_list(path: Path, name: str, ids: NDArray[np.int64]) -> Subjects:
    templates, subjects = files.read_subjects(path)
    lost = templates[places_of(ids, templates) < 0]
    if len(lost):
        raise UserError(
            f"{path}: names template {lost[0]}, but no image is of it; get the meta files anew, all of one "
            "release"
        )
    return Subjects(name.removeprefix("gallery_"), templates, subjects)
