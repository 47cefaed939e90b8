"""Photographs -> crops of 112x112 pixels on the template, in the same tree of folders."""

from __future__ import annotations

import csv
import io
import logging
import os
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import cv2
from tqdm import tqdm

from facenas.data.faces.detection import Detector, crop_face
from facenas.data.faces.detector_file import find_detector
from facenas.data.faces.jpeg import encode, is_face
from facenas.data.images import Files, decode_image, find_images, reason_of
from facenas.device import core_count
from facenas.errors import UserError
from facenas.files import read_json, write_json, write_text

log = logging.getLogger(__name__)

FACES = ("largest", "all")
NOTE, SKIPPED = "align.json", "skipped.csv"
_FORMAT, _VERSION = "facenas aligned faces", 1
_AT_ONCE = 256  # images handed to the threads


class _Outcome(NamedTuple):
    """What became of an image: how many crops, whether an earlier call made them, or why there are none."""

    faces: int
    kept: bool = False
    reason: str = ""


def align_photographs(
    source: Path,
    out: Path,
    detector: Path | None = None,
    faces: str = "largest",
    workers: int | None = None,
) -> dict[str, Any]:
    """Writes the faces in the images at `source` (a folder, a .zip or one file) as crops below `out`.

    `<name>.jpg` for the largest face of an image, or `<name>_1.jpg`, `<name>_2.jpg`, ... for all, the
    largest first: JPEG of quality 95 without colour subsampling, which a store takes byte for byte. Images
    without a crop are listed in `out`/skipped.csv with the reason. A crop appears when it is whole, and a
    second call with the same `source` and `faces` goes on where the first was stopped.
    Raises UserError when `out` holds anything else, cannot be written, or no image gives a face.
    """
    started = time.perf_counter()
    if faces not in FACES:
        raise UserError(f"--faces {faces}: should be {' or '.join(FACES)}")
    files, names = find_images(source)
    finder = Detector(find_detector(detector))
    _claim(out, source, faces, finder.fingerprint)
    threads = workers or core_count()
    cv2.setNumThreads(1 if threads > 1 else 0)  # else each of our threads would use all cores
    work = partial(_align_one, files, finder, faces == "all")
    targets = [out / name for name in crop_names(names)]
    outcomes = list(
        tqdm(
            _mapped(work, names, targets, threads), "align", len(names), unit="image", disable=None
        )
    )
    skipped = [
        (name, found.reason) for name, found in zip(names, outcomes, strict=True) if found.reason
    ]
    _list_skipped(out, source, skipped, len(names))
    return {
        "out": str(out),
        "images": len(names),
        "faces": sum(found.faces for found in outcomes),
        "skipped": len(skipped),
        "kept": sum(found.kept for found in outcomes),
        "seconds": round(time.perf_counter() - started, 3),
    }


def crop_names(names: list[str]) -> list[str]:
    """What the crops are called, without an ending; `a.jpg` and `a.png` in one folder stay apart."""
    bare = [str(PurePosixPath(name).with_suffix("")) for name in names]
    often = Counter(name.casefold() for name in bare)  # some file systems do not tell case apart
    return [
        stem if often[stem.casefold()] == 1 else name
        for stem, name in zip(bare, names, strict=True)
    ]


def _mapped(
    work: partial[_Outcome], names: list[str], targets: list[Path], threads: int
) -> Iterator[_Outcome]:
    """The outcomes in order. A fault of the disk ends it; the crops until then stay."""
    with ThreadPoolExecutor(threads) as pool:
        for start in range(0, len(names), _AT_ONCE):
            some = slice(start, start + _AT_ONCE)
            yield from pool.map(work, names[some], targets[some])


def _align_one(files: Files, detector: Detector, every: bool, name: str, target: Path) -> _Outcome:
    paths = _crops_there(target, every)
    if paths:
        return _Outcome(len(paths), kept=True)
    try:
        image = decode_image(files.read(name))
        found = detector(image)
        crops = [encode(crop_face(image, face.points)) for face in (found if every else found[:1])]
    except Exception as error:  # Pillow's plugins and zipfile raise many kinds
        return _Outcome(0, reason=reason_of(error))
    if not crops:
        return _Outcome(0, reason="no face was found in it")
    for number in reversed(range(len(crops))):  # the first face last: when it is there, all are
        _write(_crop_path(target, number + 1 if every else None), crops[number])
    return _Outcome(len(crops))


def _crop_path(target: Path, number: int | None) -> Path:
    return target.with_name(
        f"{target.name}.jpg" if number is None else f"{target.name}_{number}.jpg"
    )


def _crops_there(target: Path, every: bool) -> list[Path]:
    """The whole set of crops that an earlier call wrote, or nothing."""
    if not every:
        path = _crop_path(target, None)
        return [path] if _is_whole(path) else []
    found: list[Path] = []
    while _is_whole(path := _crop_path(target, len(found) + 1)):
        found.append(path)
    return found


def _is_whole(path: Path) -> bool:
    """A power failure can leave a file without its bytes."""
    try:
        return is_face(path.read_bytes())
    except OSError:
        return False


def _write(path: Path, data: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(data)
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise UserError(
            f"{path}: cannot be written ({error.strerror}); make room and give the command again, it goes on"
        ) from None


def _claim(out: Path, source: Path, faces: str, detector: str) -> None:
    """Notes in `out` what it is for; raises UserError when it is for something else."""
    inside = out.resolve()
    if inside == source.resolve() or source.resolve() in inside.parents:
        raise UserError(f"{out}: lies in {source}; choose a folder beside it for the crops")
    note = {
        "format": _FORMAT,
        "version": _VERSION,
        "source": str(source.resolve()),
        "faces": faces,
        "detector": detector,
    }
    if (out / NOTE).is_file():
        old = read_json(out / NOTE)
        other = next((key for key in note if old.get(key) != note[key]), None)
        if other:
            raise UserError(
                f"{out}: holds crops of another {other} ({old.get(other)}); choose another folder"
            )
        return
    try:
        out.mkdir(parents=True, exist_ok=True)
        taken = any(out.iterdir())
    except OSError as error:
        raise UserError(f"{out}: cannot be written ({error.strerror})") from None
    if taken:
        raise UserError(
            f"{out}: is not empty and not made by `facenas align`; choose another folder"
        )
    write_json(out / NOTE, note)


def _list_skipped(out: Path, source: Path, skipped: list[tuple[str, str]], images: int) -> None:
    """Writes or removes the list; raises UserError when it names all images."""
    path = out / SKIPPED
    if not skipped:
        path.unlink(missing_ok=True)
        return
    text = io.StringIO()
    rows = [(name.encode(errors="backslashreplace").decode(), reason) for name, reason in skipped]
    csv.writer(text).writerows([("file", "reason"), *rows])
    write_text(path, text.getvalue())
    if len(skipped) == images:
        name, reason = skipped[0]
        raise UserError(
            f"{source}: none of its {images} images gives a face (the first, {name}: {reason})"
        )
    log.warning("%d images skipped; %s says why", len(skipped), path)
