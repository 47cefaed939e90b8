"""Faces to import out of a folder or .zip by identity, a CSV list, or InsightFace's RecordIO."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from facenas.data.faces.items import FaceSource, Item
from facenas.data.faces.records import RecordSource
from facenas.data.images import ENDINGS, FolderFiles, ZipFiles, image_names
from facenas.errors import UserError


def open_source(path: Path) -> FaceSource:
    """What lies at `path`, told by its name; raises UserError when it is nothing that can be imported."""
    if path.is_dir():
        return RecordSource(path / "train.rec") if _has_records(path) else FolderSource(path)
    if not path.exists():
        raise UserError(f"{path}: no such file or folder")
    kinds: dict[str, Callable[[Path], FaceSource]] = {
        ".rec": RecordSource,
        ".zip": ZipSource,
        ".csv": ListSource,
    }
    kind = kinds.get(path.suffix.lower())
    if kind is None:
        raise UserError(
            f"{path}: is neither a folder nor a .rec, .zip or .csv file, so there is nothing to import"
        )
    return kind(path)


def _has_records(folder: Path) -> bool:
    return any((folder / name).exists() for name in ("train.rec", "train.idx"))


class FolderSource:
    """`<identity>/.../<image>` below a folder; one folder around it all is looked through.

    Listed an identity at a time: the names of all images of a large set would not fit in memory.
    """

    numbered: int | None = None

    def __init__(self, path: Path) -> None:
        self.title = f"folder {path.resolve().name}"
        self._path = path

    def total(self) -> int:
        return sum(1 for _ in self.items())

    def items(self) -> Iterator[Item]:
        root = self._identities_root()
        files = FolderFiles(root)
        for entry in _visible(root):
            if not entry.is_dir():
                names = [entry] if entry.name.lower().endswith(ENDINGS) else []
            else:
                found = image_names(FolderFiles(entry))
                names = [entry / name for name in sorted(found, key=_parts)]
            for path in names:
                name = path.relative_to(root).as_posix()
                yield _item(name, _parts(name), partial(files.read, name))

    def _identities_root(self) -> Path:
        """The folder itself, or the only folder in it when that holds folders."""
        inside = [entry for entry in _visible(self._path) if entry.is_dir()]
        wrapped = len(inside) == 1 and any(entry.is_dir() for entry in _visible(inside[0]))
        return inside[0] if wrapped else self._path


class ZipSource:
    """`<identity>/.../<image>` in a .zip file, never extracted; memory grows with its table of contents."""

    numbered: int | None = None

    def __init__(self, path: Path) -> None:
        self.title = f"zip {path.name}"
        self._zip = ZipFiles(path)
        names = sorted(image_names(self._zip), key=_parts)
        wrapped = len({_parts(n)[0] for n in names}) == 1 and any(len(_parts(n)) > 2 for n in names)
        self._files = [(name, _parts(name)[wrapped:]) for name in names]

    def total(self) -> int:
        return len(self._files)

    def items(self) -> Iterator[Item]:
        for name, parts in self._files:
            yield _item(name, parts, partial(self._zip.read, name))


class ListSource:
    """Rows `path,identity` of a UTF-8 CSV file; paths are relative to it; such a header is passed over."""

    numbered: int | None = None

    def __init__(self, path: Path) -> None:
        self.title = f"list {path.name}"
        self._path = path

    def total(self) -> int:
        return sum(1 for _ in self.items())

    def items(self) -> Iterator[Item]:
        files = FolderFiles(self._path.parent)
        for name, identity in self._rows():
            yield Item(name, identity, partial(files.read, name))

    def _rows(self) -> Iterator[list[str]]:
        try:
            with self._path.open(encoding="utf-8-sig", newline="") as file:
                rows = csv.reader(file)
                for row in rows:
                    cells = [cell.strip() for cell in row]
                    if rows.line_num == 1 and [c.lower() for c in cells] == ["path", "identity"]:
                        continue
                    if len(cells) == 2 and all(cells):
                        yield cells
                    elif any(cells):
                        raise UserError(
                            f"{self._path}: line {rows.line_num} is not `path,identity`; correct it"
                        )
        except OSError as error:
            raise UserError(f"{self._path}: cannot be read ({error.strerror})") from None
        except (UnicodeDecodeError, csv.Error) as error:
            raise UserError(f"{self._path}: is not UTF-8 CSV ({error}); correct it") from None


def _item(name: str, parts: list[str], read: Callable[[], bytes]) -> Item:
    """An image in a tree: its identity is the folder at the top."""
    if len(parts) == 1:
        return Item(name, "", _refuse_strayed)
    return Item(name, parts[0], read)


def _refuse_strayed() -> bytes:
    raise ValueError("it lies in no identity's folder")


def _visible(folder: Path) -> list[Path]:
    """What lies in `folder`, by name, without hidden things and macOS's leftovers."""
    try:
        names = sorted(os.listdir(folder))
    except OSError as error:
        raise UserError(f"{folder}: cannot be listed ({error.strerror})") from None
    return [folder / name for name in names if not name.startswith(".") and name != "__MACOSX"]


def _parts(name: str) -> list[str]:
    return name.split("/")
