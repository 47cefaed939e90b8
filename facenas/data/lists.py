"""Lists of images with what they show: CSV, text and im2rec's `.lst`, as people write them.

.csv        `path,label`, or with `;` or tabs between; a header is passed over. One that names a third column
            `split` (or `part`, `subset`, `set`) says that it tells the part: train, val, test, ...
.txt .tsv   `path label`, the label being the last word
.lst        im2rec's `number<TAB>label[<TAB>more labels]<TAB>path`, or InsightFace's `1<TAB>path<TAB>label`
"""

from __future__ import annotations

import csv
import io
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from hashlib import blake2b
from itertools import chain, pairwise
from os.path import splitext
from pathlib import Path
from typing import NamedTuple
from unicodedata import normalize

from facenas.data.images import Files, FolderFiles, image_names
from facenas.data.parts import part_of
from facenas.errors import UserError
from facenas.files import open_regular

LISTS = (".csv", ".txt", ".tsv", ".lst")
_PATHS = (
    *("path", "paths", "filepath", "filepaths", "file", "filename", "file_name"),
    *("image", "img", "image_path", "name", "image_id"),
)
_LABELS = ("identity", "label", "labels", "class", "classes", "id", "person", "target", "category")
_SPLITS = ("split", "part", "subset", "set", "data set", "dataset")
_SAMPLE = 200  # listed images that tell in which folder all of them lie


class Row(NamedTuple):
    """One row: the number of its line, the path as it is written, the label, and the part if one is told."""

    line: int
    path: str
    label: str
    part: str = ""


def read_list(path: Path, with_parts: bool = False) -> Iterator[Row]:
    """The rows of a list, in order; with_parts: whether a column may tell the part.

    Raises UserError, naming the line, for what is no row.
    """
    try:
        with io.TextIOWrapper(open_regular(path), encoding="utf-8-sig", newline="") as file:
            lines = iter(file)
            first = next(lines, "")
            again, mark = chain([first], lines), _delimiter(path, first)
            head = [cell.strip() for cell in next(csv.reader([first], delimiter=mark or ","), [])]
            width = 3 if mark and with_parts and _is_header(head, 3) else 2
            rows = _csv_rows(again, mark) if mark else _text_rows(again)
            for number, cells in rows:
                if len(cells) == width and all(cells):
                    part = _part(path, number, cells[2]) if width == 3 else ""
                    yield Row(number, cells[0], _plain_label(cells[1]), part)
                else:
                    columns = "path,identity,split" if width == 3 else "path,identity"
                    raise UserError(f"{path}: line {number} is not `{columns}`; correct it")
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: is not UTF-8 CSV ({error}); correct it") from None


def _delimiter(path: Path, first: str) -> str | None:
    """Of a CSV file, told by its first line; None for tabs and spaces: paths in other lists may have commas."""
    if path.suffix.lower() != ".csv" and len(first.split()) != 1:
        return None
    return next((mark for mark in ",;" if mark in first), None)


def _csv_rows(lines: Iterable[str], delimiter: str) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader(lines, delimiter=delimiter)
    for row in reader:
        cells = [cell.strip() for cell in row]
        if any(cells) and not (reader.line_num == 1 and _is_header(cells, len(cells))):
            yield reader.line_num, cells


def _text_rows(lines: Iterable[str]) -> Iterator[tuple[int, list[str]]]:
    path_last: bool | None = None
    for number, line in enumerate(lines, 1):
        words = [word.strip() for word in line.strip().split("\t")]
        if not any(words) or (number == 1 and _is_header(line.split(), 2)):
            continue
        if len(words) == 1:
            yield number, line.strip().rsplit(maxsplit=1)
        elif len(words) == 2:
            yield number, words
        else:
            if path_last is None:
                path_last = not _is_number(words[-1])
            yield number, [words[-1], words[1]] if path_last else [words[1], words[-1]]


def _is_header(cells: Sequence[str], width: int) -> bool:
    known = (_PATHS, _LABELS, _SPLITS)[:width]
    return len(cells) == len(known) == width and all(c.lower() in k for c, k in zip(cells, known, strict=True))


def _part(path: Path, line: int, cell: str) -> str:
    """train, validation or test. Raises UserError for another word, and for images without labels."""
    found = part_of(cell)
    if found is None or found.part == "unlabelled":
        raise UserError(
            f"{path}: line {line} tells the part {cell!r}, which is not train, val or test; correct it"
        )
    return found.part


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _plain_label(text: str) -> str:
    """`3.000000`, as im2rec writes it, is 3; one composed form of letters with accents."""
    whole, point, rest = text.partition(".")
    if point and whole.isdecimal() and rest and not rest.strip("0"):
        return whole
    return normalize("NFC", text)


def refuse_repeated(path: Path, with_parts: bool = False) -> int:
    """The number of rows of the list at `path`; raises UserError, naming the lines, when a path comes twice."""
    digests = array("Q", (_digest(row.path) for row in read_list(path, with_parts)))
    ordered = sorted(digests)
    twice = {a for a, b in pairwise(ordered) if a == b}
    seen: dict[str, Row] = {}
    for row in read_list(path, with_parts) if twice else ():
        if _digest(row.path) in twice:
            before = seen.setdefault(_plain(row.path), row)
            if before is not row:
                other = "" if before.label == row.label else f", as {before.label!r} and {row.label!r}"
                raise UserError(
                    f"{path}: lines {before.line} and {row.line} both list {row.path}{other}; remove one"
                )
    return len(digests)


def _plain(path: str) -> str:
    return normalize("NFC", path.replace("\\", "/").removeprefix("./"))


def _digest(path: str) -> int:
    return int.from_bytes(blake2b(_plain(path).encode(errors="surrogatepass"), digest_size=8).digest())


def listed_name(files: FolderFiles, path: str) -> str | None:
    """The file listed as `path`: with backslashes of Windows, or accents as macOS or others write them."""
    plain = path.replace("\\", "/")
    for name in (path, plain, normalize("NFC", plain), normalize("NFD", plain)):
        try:
            if (files.root / name).is_file():
                return name
        except (OSError, ValueError):  # too long, or with a zero byte
            return None
    return None


def read_listed(files: FolderFiles, path: str) -> bytes:
    """The content of `listed_name`; raises OSError and ValueError as `FolderFiles.read` does."""
    return files.read(listed_name(files, path) or path)


def locate(files: Files, listed: Sequence[str]) -> list[str | None]:
    """For every listed path the name of its image in `files`, or None where there is none.

    All of them lie in one folder, however deep, with the ending listed or another one. Leading folders that
    all listed paths share need not be there. Raises UserError when two folders fit.
    """
    names = image_names(files)
    # a.jpg and a.png: the exact name goes first. macOS writes an accent as a letter of its own: NFC has one.
    by_stem = {normalize("NFC", splitext(name)[0]): name for name in names}
    exact = {normalize("NFC", name): name for name in names}
    shorter = [normalize("NFC", name) for name in listed]
    while shorter:
        folder = _folder(files.root, by_stem, shorter)
        if folder is not None:
            places = [folder + name for name in shorter]
            return [exact.get(name) or by_stem.get(splitext(name)[0]) for name in places]
        tops = {name.partition("/")[0] for name in shorter}
        if len(tops) > 1 or not all("/" in name for name in shorter):
            break
        shorter = [name.partition("/")[2] for name in shorter]
    return [None] * len(listed)


def _folder(root: Path, by_stem: dict[str, str], listed: list[str]) -> str | None:
    """The folder, "" or with a slash at its end, in which most of a sample of listed images lie."""
    sample = [splitext(name)[0] for name in listed[:: max(1, len(listed) // _SAMPLE)]]
    by_last: dict[str, list[str]] = {name.rpartition("/")[2]: [] for name in sample}
    for stem in by_stem:
        if (last := stem.rpartition("/")[2]) in by_last:
            by_last[last].append(stem)
    votes = Counter(
        stem[: -len(name)]
        for name in sample
        for stem in by_last[name.rpartition("/")[2]]
        if stem == name or stem.endswith("/" + name)
    )
    if not votes or votes[""] == len(sample):
        return "" if votes else None
    first, second = [*votes.most_common(2), ("", 0)][:2]
    if second[1] > first[1] / 2:
        raise UserError(
            f"{root}: holds the listed images twice, in {first[0]!r} and {second[0]!r}; give one of these"
        )
    return first[0]
