"""The text files of IJB-B and IJB-C, read at speed and kept as arrays.

Layout: `deepinsight/insightface:recognition/_evaluation_/ijb/ijb_11.py`, for IJB-B with `ijbb`:

    meta/ijbc_face_tid_mid.txt         "<k>.jpg template medium", a line for each image
    meta/ijbc_name_5pts_score.txt      "<k>.jpg x1 y1 .. x5 y5 score", the same images in the same order
    meta/ijbc_template_pair_label.txt  "template template 0|1", 15.7 million lines
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facenas.data.cache import default_cache
from facenas.errors import UserError
from facenas.files import open_regular, publish_folder

Arrays = dict[str, NDArray[Any]]

_VERSION = 2  # of what is kept in the cache
_LONGEST_NAME = 64
_NAME = ("names", f"U{_LONGEST_NAME}")
_FACES = np.dtype([_NAME, ("templates", "i8"), ("media", "i8")])
_POINTS = np.dtype([_NAME, ("points", "f4", (5, 2)), ("detector_scores", "f4")])
_PAIRS = np.dtype([("first", "i8"), ("second", "i8"), ("same", "i8")])
_LINES_AT_ONCE = 4096


def _kept(parse: Callable[[Path], Arrays]) -> Callable[[Path], Arrays]:
    """Decorator: of a file that was read before and has not changed, the arrays come mapped from the cache."""

    @wraps(parse)
    def read(path: Path) -> Arrays:
        entry = _entry(path)
        with suppress(OSError, ValueError):  # torn
            if kept := _load(entry):
                return kept
        arrays = parse(path)

        def write(folder: Path) -> None:
            for name, array in arrays.items():
                np.save(folder / f"{name}.npy", array)

        publish_folder(entry, write, remedy="set FACENAS_CACHE to another folder")
        return _load(entry)

    return read


def _entry(path: Path) -> Path:
    try:
        facts = path.stat()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    key = repr((_VERSION, str(path.resolve()), facts.st_size, facts.st_mtime_ns))
    digest = hashlib.sha256(key.encode(errors="backslashreplace")).hexdigest()
    return default_cache() / f"{path.stem}-{digest[:16]}"


def _load(entry: Path) -> Arrays:
    return {path.stem: np.asarray(np.load(path, mmap_mode="r")) for path in entry.glob("*.npy")}


@_kept
def read_faces(path: Path) -> Arrays:
    """The names (n,) str, templates and media (n,) int64, of `..._face_tid_mid.txt`.

    As the other readers, raises UserError, naming the line, when one is not as it should be.
    """
    return _images(path, _FACES, "<k>.jpg template medium")


@_kept
def read_points(path: Path) -> Arrays:
    """The names (n,) str, points (n, 5, 2), detector_scores (n,) float32, of `..._name_5pts_score.txt`."""
    found = _images(path, _POINTS, "<k>.jpg x1 y1 x2 y2 x3 y3 x4 y4 x5 y5 score")
    finite = np.isfinite(found["points"]).all((1, 2)) & np.isfinite(found["detector_scores"])
    if not finite.all():
        row = int(np.argmin(finite))
        raise UserError(
            f"{path}: line {line_of(path, row)}: {found['names'][row]} has a number that is not finite; "
            "correct it, or take the image out of all meta files"
        )
    return found


@_kept
def read_template_pairs(path: Path) -> Arrays:
    """The pairs (p, 2) int64, columns contiguous, and same (p,) bool, of `..._template_pair_label.txt`."""
    table = _table(path, _PAIRS, "template template 0|1")
    wrong = (table["same"] != 0) & (table["same"] != 1)
    if wrong.any():
        row = int(np.argmax(wrong))
        raise UserError(
            f"{path}: line {line_of(path, row)}: the label is {table['same'][row]}, not 0 or 1; "
            "get the file anew"
        )
    # Transposed as a whole: each column is one block of memory, and stays so in the cache.
    return {"pairs": np.stack([table["first"], table["second"]]).T, "same": table["same"] == 1}


def read_subjects(path: Path) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(t,) rising template ids and (t,) subject ids, of a 1:N list.

    A line of headings, then `template,subject`; more columns are ignored, and a template may have a line for
    each of its images.
    """
    try:
        with open_regular(path) as file:
            lines = file.read().decode("utf-8").splitlines()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: is not a text file; get it anew") from None
    subject_of: dict[int, int] = {}
    for number, line in enumerate(lines[1:], start=2):
        try:
            template, subject = (int(np.int64(word)) for word in line.split(",")[:2])
        except (ValueError, OverflowError):
            raise _bad_line(path, number, line, "template,subject") from None
        if subject_of.setdefault(template, subject) != subject:
            raise UserError(
                f"{path}: line {number}: template {template} is subject {subject} here but "
                f"{subject_of[template]} above; correct one of them"
            )
    if not subject_of:
        raise UserError(f"{path}: lists no templates; get the file anew")
    table = np.array(sorted(subject_of.items()), np.int64)
    return table[:, 0], table[:, 1]


def line_of(path: Path, row: int) -> int:
    """The number, from 1, of the line that is row `row`, from 0: empty lines are not rows."""
    with path.open(encoding="utf-8") as lines:
        filled = (number for number, line in enumerate(lines, start=1) if line.strip())
        return next(islice(filled, row, None))


def _images(path: Path, dtype: np.dtype[np.void], form: str) -> Arrays:
    """The columns of a file with names, which become no wider than they need to be."""
    table = _table(path, dtype, form)
    longest = int(np.char.str_len(table["names"]).max())
    if longest == _LONGEST_NAME:  # or longer, and cut
        raise UserError(f"{path}: has a name of {longest} letters or more; shorten it")
    columns = {name: table[name] for name in dtype.names or ()}
    return {**columns, "names": table["names"].astype(f"U{longest}")}


def _table(path: Path, dtype: np.dtype[np.void], form: str) -> NDArray[np.void]:
    """The lines of a file as (rows,) of `dtype`; `form` is what one looks like, for messages."""
    try:
        open_regular(path).close()
        return _parsed(path, dtype)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from None
    except UserWarning:
        raise UserError(f"{path}: is empty; get the file anew") from None
    except (ValueError, DeprecationWarning) as error:  # the latter for 5.5 as a whole number
        raise _first_bad_line(path, dtype, form) or UserError(f"{path}: {error}") from None


def _parsed(lines: Path | list[str], dtype: np.dtype[np.void]) -> NDArray[np.void]:
    with warnings.catch_warnings(action="error"):
        return np.loadtxt(lines, dtype, comments=None, encoding="utf-8", ndmin=1)


def _first_bad_line(path: Path, dtype: np.dtype[np.void], form: str) -> UserError | None:
    """Parses again, in ever smaller parts: NumPy's own messages count rows, of which empty lines are none."""
    with path.open(encoding="utf-8", errors="replace") as file:
        start = 1
        while lines := list(islice(file, _LINES_AT_ONCE)):
            if not _parses(lines, dtype):
                for number, line in enumerate(lines, start):
                    if not _parses([line], dtype):
                        return _bad_line(path, number, line, form)
            start += len(lines)
    return None


def _parses(lines: list[str], dtype: np.dtype[np.void]) -> bool:
    try:
        _parsed(lines, dtype)
    except UserWarning:  # empty lines alone
        return True
    except (ValueError, DeprecationWarning):
        return False
    return True


def _bad_line(path: Path, number: int, line: str, form: str) -> UserError:
    shown = line.strip()[:80]
    return UserError(f'{path}: line {number} is {shown!r}, not "{form}"; get the file anew')
