"""Faces brought to the template of all published 112x112 face networks, one or a folder of photographs.

Source of the template and of the procedure: `deepinsight/insightface:recognition/_evaluation_/ijb/ijb_11.py`
(the 96x112 points of SphereFace, moved 8 pixels to the right).
"""

from __future__ import annotations

import csv
import io
import json
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import count, takewhile
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple, cast

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from facenas.data.faces.detection import Detector, Face, find_detector
from facenas.data.faces.store import SIDE, encode_jpeg, is_face_jpeg
from facenas.data.found import SKIPPED
from facenas.data.images import Files, FolderFiles, Pixels, decode_image, find_images, reason_of
from facenas.device import core_count
from facenas.errors import SearchStoppedError, UserError, counted
from facenas.files import as_cells, check_place, read_json, sweep, write_bytes, write_json, write_text

log = logging.getLogger(__name__)

# Where an aligned crop has its (right eye, left eye, nose, right and left corner of the mouth), x and y
# in pixels; right and left are those of the person, so the first point lies on the left of the picture.
REFERENCE: NDArray[np.float32] = np.array(
    [
        [38.2946, 51.6963],
        [73.5318, 51.5014],
        [56.0252, 71.7366],
        [41.5493, 92.3655],
        [70.7299, 92.2041],
    ],
    np.float32,
)
_LEAST_SPREAD = 1e-3  # pixels; points closer together are one point, and fit any size of face
_FARTHEST = 1e9  # pixels; beyond it, squares of distances lose the face
_LONGEST_SIDE = 32_766  # pixels; OpenCV counts source pixels in 16 bits

FACES = ("largest", "all")
NOTE = "align.json"
RECORD = "align.jsonl"
SEVERAL_FACES = "several.csv"
SEVERAL = 0.5  # of the largest face's side; whom the photograph is of may be as large as that
_REMEDY = "make room and align again, it goes on"
_AT_ONCE = 256  # images handed to the threads


def similarity(points: NDArray[np.floating]) -> NDArray[np.float64]:
    """(2, 3) float64: the rotation, scale and shift that bring `points` closest to `REFERENCE`.

    points: (5, 2) x and y in pixels, in the template's order. Least squares without reflection, Umeyama
    1991 (doi 10.1109/34.88573); of points in the plane the solution is one complex factor and one shift.
    Raises ValueError when points are not five, not finite, beyond 1e9, or all in one place.
    """
    if np.shape(points) != REFERENCE.shape:
        raise ValueError(f"landmarks of shape {np.shape(points)}; they should be five of x, y")
    given, wanted = (  # x + iy
        np.ascontiguousarray(array, np.float64).view(np.complex128)[:, 0] for array in (points, REFERENCE)
    )
    if not (np.abs(given) < _FARTHEST).all():
        raise ValueError("a landmark is not a number, or lies far outside any image")
    spread = given - given.mean()
    size = float(np.vdot(spread, spread).real)
    factor = np.vdot(spread, wanted - wanted.mean()) / max(size, _LEAST_SPREAD**2)
    if size <= _LEAST_SPREAD**2 or not factor:
        raise ValueError("the landmarks lie all in one place")
    shift = wanted.mean() - factor * given.mean()
    return np.array([[factor.real, -factor.imag, shift.real], [factor.imag, factor.real, shift.imag]])


def align(image: Pixels, points: NDArray[np.floating]) -> Pixels:
    """(112, 112, 3) uint8: the face with landmarks `points` in `image`, on the template.

    image: (h, w, 3) uint8, of any order of colors; points: (5, 2) as for `similarity`. Bilinear; what
    lies outside the image is black. Raises ValueError as `similarity` does, and for an image that is
    empty or has a side of more than 32,766 pixels.
    """
    if image.ndim != 3 or image.dtype != np.uint8 or not image.size:
        raise ValueError(f"pixels of shape {image.shape} and type {image.dtype}")
    if max(image.shape) > _LONGEST_SIDE:
        raise ValueError(f"it has a side of more than {_LONGEST_SIDE} pixels")
    crop = cv2.warpAffine(image, similarity(points), (SIDE, SIDE), flags=cv2.INTER_LINEAR)
    return cast(Pixels, crop)


def crop_face(image: Pixels, points: NDArray[np.floating]) -> Pixels:
    """(112, 112, 3) uint8: the face with landmarks (5, 2) in a photograph (h, w, 3) of any size.

    A large face is halved first, each pixel the mean of four, until it is less than twice the template's
    size: `align` alone would take one pixel in many, noise and all. Raises ValueError as `align` does.
    """
    scaled, places = image, np.asarray(points, np.float64)
    while np.hypot(*similarity(places)[:, 0]) <= 0.5 and min(scaled.shape[:2]) > 1:
        height, width = scaled.shape[0] // 2, scaled.shape[1] // 2
        # An odd row or column is left out, so that the scale is exactly a half.
        even = scaled[: 2 * height, : 2 * width]
        scaled = cv2.resize(even, (width, height), interpolation=cv2.INTER_AREA).astype(np.uint8)
        places = (places + 0.5) / 2 - 0.5  # a pixel's place is that of its centre
    return align(scaled, places)


class Cut(NamedTuple):
    """Crops out of a photograph; second: the side of its second face to that of the largest, 0..1; 0: alone."""

    crops: list[Pixels]
    second: float

    @property
    def several(self) -> bool:
        """Whether the second face is no bystander: it may be the one that is meant."""
        return self.second >= SEVERAL


def upright_crops(image: Pixels, detector: Detector, every: bool = False, any_rotation: bool = False) -> Cut:
    """The crop of the largest face in a photograph (h, w, 3), or of every, the largest first.

    Raises ValueError when there is none, and when the largest (of every: all) would not stand upright in its
    crop. With `any_rotation` the photograph is turned by 0, 90, 180, 270 degrees until there is one that does.
    """
    reason = ""
    for turn in range(4 if any_rotation else 1):
        turned = np.ascontiguousarray(np.rot90(image, turn))
        found = detector(turned)
        crops = [crop_face(turned, face.points) for face in (found if every else found[:1])]
        upright = [crop for crop in crops if detector.is_upright(crop)]
        if upright:
            return Cut(upright, _second(found))
        reason = reason or (_NOT_UPRIGHT if crops else "")
    raise ValueError(reason or "no face was found in it")


def _second(found: list[Face]) -> float:
    """See `Cut`; found: the largest first."""
    return round((found[1].area / found[0].area) ** 0.5, 3) if len(found) > 1 else 0.0


_NOT_UPRIGHT = "its face is upside down or on its side; turn the photograph, or align with --any-rotation"


def told_of_several(names: Collection[str]) -> str:
    """The sentence about photographs, by name, that hold more than the face that was taken."""
    held = counted(len(names), "photograph")
    return f"several faces in {held}: the largest is taken (the first, {min(names)})"


class _Outcome(NamedTuple):
    """How many crops an image has; second: see `Cut`; kept: from an earlier call; why there are none."""

    faces: int
    second: float = 0.0
    kept: bool = False
    reason: str = ""


class _Record:
    """Which photographs are aligned: a line of JSON for each, added when its crops are whole.

    A photograph is the same while its stamp is: bytes and time of modification; in a .zip, bytes and CRC.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._lock = path, threading.Lock()
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []
        self._known = dict(entry for line in lines if (entry := _recorded(line)))
        # Without what a kill cut off, and each photograph once.
        write_text(path, "".join(map(_line, self._known.items())))

    def find(self, name: str, stamp: list[object]) -> _Outcome | None:
        """What became of the photograph, when that is known."""
        then, faces, second = self._known.get(name, (None, 0, 0.0))
        return _Outcome(faces, second, kept=True) if then == stamp else None

    def add(self, name: str, stamp: list[object], outcome: _Outcome) -> None:
        """Raises SearchStoppedError when it cannot be written."""
        line = _line((name, (stamp, outcome.faces, outcome.second)))
        try:
            with self._lock, self._path.open("a", encoding="utf-8") as file:
                file.write(line)
        except OSError as error:
            raise SearchStoppedError(f"{self._path}: cannot be written ({error.strerror}); {_REMEDY}") from None


_Entry = tuple[str, tuple[list[object], int, float]]  # name, (stamp, faces, second)


def _line(entry: _Entry) -> str:
    name, (stamp, faces, second) = entry
    return json.dumps({"file": name, "stamp": stamp, "faces": faces, "second": second}) + "\n"


def _recorded(line: str) -> _Entry | None:
    """None for a line that is not whole."""
    try:
        tree = json.loads(line)
        return str(tree["file"]), (list(tree["stamp"]), int(tree["faces"]), float(tree["second"]))
    except (ValueError, TypeError, KeyError):
        return None


def align_photographs(
    source: Path,
    out: Path,
    detector: Path | None = None,
    faces: str = "largest",
    workers: int | None = None,
    any_rotation: bool = False,
) -> dict[str, Any]:
    """Writes the faces in the images at `source` (a folder, a .zip or one file) as crops below `out`.

    `<name>.jpg` for the largest face of an image, or `<name>_1.jpg`, `<name>_2.jpg`, ... for all, the
    largest first: JPEG of quality 95 without color subsampling, which a store takes byte for byte. Images
    without a crop (see `upright_crops`) are listed in `out`/skipped.csv with the reason, those with a second
    face at least half as large (its side) as the one taken in `out`/several.csv. A crop appears when it is
    whole. A second call with the same arguments goes on where the first was stopped, aligns what has changed
    since (`_Record`), and warns of crops whose photographs are gone. Returns how many images there were,
    faces were written, images skipped, of several faces and kept from before, crops gone, and the seconds.
    Raises UserError when `out` holds anything else or no image gives a face, SearchStoppedError when the
    disk is full.
    """
    started = time.perf_counter()
    if faces not in FACES:
        raise UserError(f"faces {faces!r}: should be {' or '.join(FACES)}")
    files, names = find_images(source)
    finder = Detector(find_detector(detector))
    _claim(out, source, faces, finder.fingerprint, any_rotation)
    every = faces == "all"
    cut = partial(upright_crops, detector=finder, every=every, any_rotation=any_rotation)
    align_one = partial(_align_one, files, cut, every, _Record(out / RECORD))
    targets = [out / name for name in crop_names(names)]
    found = _mapped(align_one, names, targets, workers or core_count())
    outcomes = list(tqdm(found, "align", len(names), unit="image", disable=None))
    named = list(zip(names, outcomes, strict=True))
    skipped = [(name, one.reason) for name, one in named if one.reason]
    several = [(name, one.second) for name, one in named if one.second >= SEVERAL and not every]
    made = (
        _crop_path(target, every, number)
        for target, one in zip(targets, outcomes, strict=True)
        for number in range(one.faces)
    )
    gone = _warn_of_gone(out, source, {path.relative_to(out).as_posix() for path in made})
    _list_several(out, several)
    _list_skipped(out, source, skipped, len(names))
    return {
        "out": str(out),
        "images": len(names),
        "faces": sum(outcome.faces for outcome in outcomes),
        "skipped": len(skipped),
        "several": len(several),
        "gone": gone,
        "kept": sum(outcome.kept for outcome in outcomes),
        "seconds": round(time.perf_counter() - started, 3),
    }


def crop_names(names: list[str]) -> list[str]:
    """What the crops are called, without an ending; `a.jpg` and `a.png` in one folder stay apart."""
    bare = [str(PurePosixPath(name).with_suffix("")) for name in names]
    often = Counter(name.casefold() for name in bare)  # some file systems do not tell case apart
    return [stem if often[stem.casefold()] == 1 else name for stem, name in zip(bare, names, strict=True)]


def _mapped(
    align_one: Callable[[str, Path], _Outcome], names: list[str], targets: list[Path], threads: int
) -> Iterator[_Outcome]:
    """The outcomes in order. A fault of the disk ends it; the crops until then stay."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(1 if threads > 1 else 0)  # else each of our threads would use all cores
    try:
        with ThreadPoolExecutor(threads) as pool:
            for start in range(0, len(names), _AT_ONCE):
                some = slice(start, start + _AT_ONCE)
                yield from pool.map(align_one, names[some], targets[some])
    finally:
        cv2.setNumThreads(before)


def _align_one(
    files: Files,
    cut: Callable[[Pixels], Cut],
    every: bool,
    record: _Record,
    name: str,
    target: Path,
) -> _Outcome:
    try:
        stamp = files.stamp(name)  # before its bytes: what changes in between is seen by the next call
        known = record.find(name, stamp)
        if known and all(_is_whole(_crop_path(target, every, number)) for number in range(known.faces)):
            return known
        _remove(target, every)
        found = cut(decode_image(files.read(name)))
        crops = [encode_jpeg(crop) for crop in found.crops]
    except Exception as error:  # Pillow's plugins and zipfile raise many kinds
        return _Outcome(0, reason=reason_of(error))
    for number, crop in enumerate(crops):
        _write(_crop_path(target, every, number), crop)
    outcome = _Outcome(len(crops), found.second)
    record.add(name, stamp, outcome)
    return outcome


def _crop_path(target: Path, every: bool, number: int) -> Path:
    """Of a face of an image, the largest being number 0."""
    return target.with_name(f"{target.name}_{number + 1}.jpg" if every else f"{target.name}.jpg")


def _remove(target: Path, every: bool) -> None:
    """The crops of what a photograph was before, the last first, so that none is left behind a gap."""
    paths = (_crop_path(target, every, number) for number in (count() if every else range(1)))
    for path in reversed(list(takewhile(Path.exists, paths))):
        path.unlink()


def _is_whole(path: Path) -> bool:
    """A power failure can leave a file without its bytes."""
    try:
        return is_face_jpeg(path.read_bytes())
    except OSError:
        return False


def _write(path: Path, data: bytes) -> None:
    write_bytes(path, data, remedy=_REMEDY)


def _claim(out: Path, source: Path, faces: str, detector: str, any_rotation: bool) -> None:
    """Notes in `out` what it is for; raises UserError when it is for something else."""
    inside = out.resolve()
    if inside == source.resolve() or source.resolve() in inside.parents:
        raise UserError(f"{out}: lies in {source}; choose a folder beside it for the crops")
    check_place(out)
    note = {"format": "facenas aligned faces", "version": 1, "source": str(source.resolve())}
    note |= {"faces": faces, "detector": detector}
    if any_rotation:  # else the note is that of earlier versions
        note |= {"rotation": "any"}
    if (out / NOTE).is_file():
        old = read_json(out / NOTE)
        other = next((key for key in {**note, **old} if old.get(key) != note.get(key)), None)
        if other:
            made, asked = (tree.get(other, "none") for tree in (old, note))
            raise UserError(f"{out}: was made with {other} {made}, not {asked}; choose another folder")
        return
    try:
        out.mkdir(parents=True, exist_ok=True)
        sweep(out)  # an earlier call may have been killed while it wrote its note
        taken = any(out.iterdir())
    except OSError as error:
        raise UserError(f"{out}: cannot be written ({error.strerror})") from None
    if taken:
        raise UserError(f"{out}: is not empty and not made by `facenas align`; choose another folder")
    write_json(out / NOTE, note)


def _warn_of_gone(out: Path, source: Path, made: set[str]) -> int:
    """How many crops in `out` are of no photograph any more, or of a person's own."""
    there = (name for name in FolderFiles(out).names() if name.endswith(".jpg"))
    gone = [name for name in there if name not in made]
    if gone:
        log.warning(
            "%s: %s that no photograph of %s gives any more (the first, %s); delete such crops, or align "
            "into another folder",
            *(out, counted(len(gone), "crop"), source, gone[0]),
        )
    return len(gone)


def _list_several(out: Path, several: list[tuple[str, float]]) -> None:
    """Writes or removes the list of photographs with their second faces."""
    _write_list(out / SEVERAL_FACES, ("file", "second"), several)
    if several:
        sentence = told_of_several([name for name, _ in several])
        log.warning("%s; %s lists them", sentence, out / SEVERAL_FACES)


def _list_skipped(out: Path, source: Path, skipped: list[tuple[str, str]], images: int) -> None:
    """Writes or removes the list; raises UserError when it names all images."""
    _write_list(out / SKIPPED, ("file", "reason"), skipped)
    if skipped and len(skipped) == images:
        name, reason = skipped[0]
        held = counted(images, "image")
        raise UserError(f"{source}: holds {held} but none that gives a face (the first, {name}: {reason})")
    if skipped:
        log.warning("%s skipped; %s says why", counted(len(skipped), "image"), out / SKIPPED)


def _write_list(path: Path, head: tuple[str, str], rows: Sequence[tuple[str, str | float]]) -> None:
    if not rows:
        path.unlink(missing_ok=True)
        return
    text = io.StringIO()
    cells = ((name.encode(errors="backslashreplace").decode(), what) for name, what in rows)
    csv.writer(text).writerows([head, *map(as_cells, cells)])
    write_text(path, text.getvalue())
