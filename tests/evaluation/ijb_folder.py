"""A small IJB-C in the official layout."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import simplejpeg

from facenas.data.faces.align import REFERENCE
from facenas.evaluation.benches import find_bench

IMAGES = 12
LISTS = {
    "gallery_G1": ("1,11", "2,12"),
    "gallery_G2": ("3,13",),
    "probe_mixed": ("6,13", "4,11", "4,11", "5,12"),
}


def write_ijb(root: Path) -> None:
    """Image k of template (k - 1) // 2 + 1, media shared by neighbours, in the new folder `root`."""
    rng = np.random.default_rng(0)
    (root / "loose_crop").mkdir(parents=True)
    (root / "meta").mkdir()
    faces, points = [], []
    for k in range(1, IMAGES + 1):
        image = cv2.resize(rng.integers(0, 256, (9, 9, 3), np.uint8), (130 + k, 140))
        encoded = simplejpeg.encode_jpeg(image, 95, "RGB", "444")
        (root / "loose_crop" / f"{k}.jpg").write_bytes(encoded)
        faces.append(f"{k}.jpg {(k - 1) // 2 + 1} {60000 + k // 2}")
        marks = (REFERENCE + rng.normal(size=(5, 2)) * 3).ravel()
        points.append(f"{k}.jpg {' '.join(f'{x:.3f}' for x in marks)} 0.{900 + k}")
    _write(root, "face_tid_mid.txt", faces)
    _write(root, "name_5pts_score.txt", points)
    _write(root, "template_pair_label.txt", ["1 4 1", "1 5 0", "2 5 1", "2 4 0", "3 6 0"])
    for name, lines in LISTS.items():
        _write(root, f"1N_{name}.csv", ["TEMPLATE_ID,SUBJECT_ID", *lines])


def read_ijb(bench: str, data: Path):
    """(what the text files say, the aligned images)"""
    return find_bench(bench).protocol.read(data)


def _write(root: Path, name: str, lines: list[str]) -> None:
    (root / "meta" / f"ijbc_{name}").write_text("".join(f"{line}\n" for line in lines))
