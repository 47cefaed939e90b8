"""Writing files and folders so that a crash leaves the old one or the new one, never a half; finding them."""

from __future__ import annotations

import csv
import ctypes
import errno
import heapq
import io
import json
import os
import re
import shutil
import socket
import sys
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, TYPE_CHECKING, Any, Literal, NamedTuple

from facenas.errors import CandidateError, SearchStoppedError, StoppedError, UserError, first_line

if TYPE_CHECKING:
    from numpy.typing import NDArray

_FORMULAS = ("=", "+", "-", "@", "\t", "\r", "'")  # how a cell begins that is not taken for a text
_MOST_CSV = 2_000_000_000  # bytes
MOST_JSON = 200_000_000  # bytes; in memory, ten times as much


def write_atomically(
    path: Path, write: Callable[[Path], object], *, remedy: str = "make room and try again"
) -> None:
    """Calls `write` with a temporary path beside `path`, forces it to disk and renames it.

    Raises SearchStoppedError, with `remedy`, when it cannot be written, UserError when the place is at fault
    (`is_place`); then `path` is as it was.
    """
    if path.exists() and not path.is_file():  # renaming would put a file in place of /dev/null
        raise UserError(f"{path}: cannot be written (it is a folder, a pipe or a device); {_OTHER_PLACE}")
    temporary = temporary_for(path)
    try:
        write(temporary)
        _sync(temporary)
        temporary.replace(path)
    except (OSError, RuntimeError) as error:  # torch.save tells of a full disk by a RuntimeError
        reason = getattr(error, "strerror", None) or error
        kind = UserError if is_place(error) else SearchStoppedError
        raise kind(f"{path}: cannot be written ({reason}); {remedy_of(error, remedy)}") from None
    finally:
        with suppress(OSError):  # gone already when all went well
            temporary.unlink()


_PLACE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG)

_OTHER_PLACE = "choose another place, or have this one made writable"


def is_place(error: BaseException) -> bool:
    """Whether something cannot be written where it should be, however much room there is."""
    return isinstance(error, OSError) and error.errno in _PLACE


def remedy_of(error: BaseException, remedy: str) -> str:
    """`remedy` for what cannot be written, unless it is to make room and the place is at fault."""
    return _OTHER_PLACE if is_place(error) and "make room" in remedy else remedy


def check_place(folder: Path) -> None:
    """Raises UserError when nothing can be written in a folder, there or to be made: told before the work."""
    there = folder
    while not os.path.lexists(there) and there != there.parent:
        there = there.parent
    try:
        temporary = temporary_for(there / "place")
        temporary.touch()
        temporary.unlink()
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({error.strerror}); {_OTHER_PLACE}") from None


def temporary_for(path: Path) -> Path:
    """A hidden name beside `path`, of this process; what killed ones left beside it is removed."""
    if path.parent not in _SWEPT:
        _SWEPT.add(path.parent)
        sweep(path.parent)
    return path.with_name(f"{_mark(path)}{os.getpid()}.tmp")


_SWEPT: set[Path] = set()


def sweep(folder: Path) -> None:
    """Removes what killed processes of this machine left there, of `temporary_for` and `scratch_folder`."""
    host = re.escape(socket.gethostname())
    with suppress(OSError):  # whoever writes there is told what is wrong with the folder
        for left in folder.iterdir():
            found = re.fullmatch(rf"\..+\.{host}-(\d+)\.tmp|{_SCRATCH}{host}-(\d+)-.*", left.name)
            if found and not _runs(int(found[1] or found[2])):
                shutil.rmtree(left) if left.is_dir() else left.unlink()


_SCRATCH = "scratch-"


@contextmanager
def scratch_folder(root: Path) -> Iterator[Path]:
    """A folder in `root` that is gone afterwards; after a kill, at the next call there."""
    root.mkdir(parents=True, exist_ok=True)
    sweep(root)
    with TemporaryDirectory(prefix=f"{_SCRATCH}{socket.gethostname()}-{os.getpid()}-", dir=root) as folder:
        yield Path(folder)


def write_text(path: Path, text: str) -> None:
    """Writes UTF-8 text atomically."""
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def write_bytes(path: Path, data: bytes, *, remedy: str) -> None:
    """Writes a file atomically and makes the folders it lies in; see `write_atomically`."""

    def write(temporary: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(data)

    write_atomically(path, write, remedy=remedy)


def write_json(path: Path, tree: Any) -> None:
    """Writes indented JSON atomically."""
    write_text(path, json.dumps(tree, indent=2, allow_nan=False) + "\n")


@contextmanager
def reading(path: Path, remedy: str = "give a whole copy") -> Iterator[None]:
    """The guard around what reads somebody's file: whatever goes wrong within it becomes a UserError.

    Its sentence names the file, the fault and `remedy`; the error itself is its cause. A pipe, a device or a
    socket is refused before anything opens it, as reading might never end.
    """
    try:
        if os.path.exists(path) and not os.path.isdir(path):
            open_regular(path).close()
        yield
    except (UserError, SearchStoppedError, CandidateError, StoppedError):
        raise
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or first_line(error)})") from error
    except MemoryError as error:
        raise UserError(f"{path}: needs more memory than there is; {remedy}") from error
    except RecursionError as error:
        raise UserError(f"{path}: is nested too deeply; {remedy}") from error
    except Exception as error:  # a damaged file fails in many ways, deep inside the libraries that read it
        kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
        raise UserError(f"{path}: is damaged ({kind}{first_line(error)}); {remedy}") from error


def open_regular(path: Path, buffering: int = -1) -> IO[bytes]:
    """`path.open("rb")`; raises OSError for a pipe, a device or a socket too, as reading might never end."""
    if os.path.exists(path) and not (os.path.isfile(path) or os.path.isdir(path)):
        raise OSError(errno.EINVAL, "it is a pipe or a device", str(path))
    return path.open("rb", buffering)


def read_whole(path: Path, most: int) -> bytes:
    """All bytes of a regular file; raises UserError when it cannot be read or has more than `most`."""
    with reading(path), path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size > most:
            raise UserError(f"{path}: has {size:,} bytes, more than the {most:,} that such a file may have")
        return file.read()


def read_csv(path: Path) -> list[tuple[int, list[str]]]:
    """(line, stripped cells) of what is not empty, with commas, semicolons or tabs: the first line tells.

    Raises UserError when it cannot be read, is no CSV or is empty.
    """
    try:
        text = read_whole(path, _MOST_CSV).decode("utf-8-sig")
        first = text.lstrip().partition("\n")[0]
        mark = max("\t;,", key=first.count)
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=mark)
        rows = [(reader.line_num, [cell.strip() for cell in cells]) for cells in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: is not UTF-8 CSV ({error}); save it as such") from None
    found = [(line, cells) for line, cells in rows if any(cells)]
    if not found:
        raise UserError(f"{path}: is empty")
    return found


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file; raises UserError when it is missing or damaged, or holds Infinity or NaN."""
    data = read_whole(path, MOST_JSON)
    try:
        tree = json.loads(data.decode("utf-8-sig"), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: is not valid JSON ({error})") from None
    if not isinstance(tree, dict):
        raise UserError(f"{path}: should hold a JSON object")
    return tree


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")


def read_npy(path: Path, dtype: Any, ndim: int, mode: Literal["r", "c"] = "r") -> NDArray[Any]:
    """The array of a .npy file, mapped and read-only; raises UserError when it is damaged or another kind.

    mode: "c" for torch, which takes no array that is read-only: what is written to it stays in memory.
    Objects are never unpickled, and the size that its header tells is compared with the file's.
    """
    import numpy as np

    with reading(path):
        array = np.load(path, mmap_mode=mode, allow_pickle=False)
        if not isinstance(array, np.ndarray) or (array.dtype, array.ndim) != (np.dtype(dtype), ndim):
            raise ValueError(f"it should hold {np.dtype(dtype)} in {ndim} dimensions")
        return array


def as_cells(row: Iterable[Any]) -> list[Any]:
    """A row for a CSV file that a spreadsheet may open: texts that it would take for formulas get a `'` before.

    So do texts that begin with `'`: without it, `name_in_cell` gives every text as it was.
    """
    return [f"'{cell}" if isinstance(cell, str) and cell.startswith(_FORMULAS) else cell for cell in row]


def name_in_cell(cell: str) -> str:
    """What `as_cells` made the text of a cell of."""
    return cell.removeprefix("'")


class Walked(NamedTuple):
    """files: names relative to the root with forward slashes, sorted; skipped: (name, reason) likewise."""

    files: list[str]
    skipped: list[tuple[str, str]]


def walk_files(root: Path) -> Walked:
    """The regular files in a folder and its subfolders, hidden folders left out.

    Links are followed, but each folder is walked once, under its own name before any link's, and a link to a
    folder above it or above `root` is not: so no circle, and nothing twice. What is skipped is named with a
    reason: those links, links to nothing, and pipes, devices and sockets, which would block whoever reads
    them. Raises UserError when a folder cannot be listed.
    """
    folders = list(walk_folders(root))
    return Walked(
        sorted(chain(*(one.files for one in folders))), sorted(chain(*(one.skipped for one in folders)))
    )


def walk_folders(root: Path) -> Iterator[Walked]:
    """What `walk_files` finds, a folder at a time: a large set's names take more memory than it needs."""
    seen: dict[tuple[int, int], str] = {}
    waiting = [(False, "")]  # (is a link, name): the folders before the links
    try:
        while waiting:
            files: list[str] = []
            skipped: list[tuple[str, str]] = []
            linked, name = heapq.heappop(waiting)
            status = os.stat(root / name)
            first = seen.setdefault((status.st_dev, status.st_ino), name)
            if linked and _leads_up(root, root / name):
                skipped.append((name, "is a link to a folder above it"))
            elif first != name:
                skipped.append((name, f"is the folder {first or '.'} again"))
            else:
                _list_folder(root, name, files, skipped, waiting)
            yield Walked(sorted(files), sorted(skipped))
    except OSError as error:
        raise UserError(f"{error.filename}: cannot be listed ({error.strerror})") from None


def _leads_up(root: Path, link: Path) -> bool:
    target = link.resolve()
    return any(target in (place, *place.parents) for place in (root.resolve(), link.parent.resolve()))


def _list_folder(
    root: Path,
    name: str,
    files: list[str],
    skipped: list[tuple[str, str]],
    waiting: list[tuple[bool, str]],
) -> None:
    """Sorts what lies in the folder `name` into the three lists of `walk_files`."""
    with os.scandir(root / name) as entries:
        for entry in entries:
            inside = f"{name}/{entry.name}" if name else entry.name
            linked = entry.is_symlink()
            # Of a link in a circle, the entry's own methods raise; for half a million files they are faster.
            if os.path.isdir(entry.path) if linked else entry.is_dir():
                if not entry.name.startswith("."):
                    heapq.heappush(waiting, (linked, inside))
            elif os.path.isfile(entry.path) if linked else entry.is_file():
                files.append(inside)
            else:
                gone = linked and not os.path.exists(entry.path)
                skipped.append((inside, "is a link to nothing" if gone else "is no regular file"))


def publish_folder(
    path: Path,
    write: Callable[[Path], object],
    *,
    replace: bool = True,
    remedy: str = "make room or choose another place",
) -> None:
    """Has `write` fill a new folder beside `path`, forces it to disk and gives it the name `path`.

    A folder that is there already is replaced; without `replace` it stays, and the new one is
    dropped: another process was faster, and wrote the same. Parents are made. Raises UserError,
    with `remedy`, when it cannot be written, OSErrors of `write` included; then `path` is as it was.
    """
    folder = None
    try:
        folder = folder_beside(path)
        write(folder)
        put_in_place(folder, path, replace=replace)
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"{path}: cannot be written ({reason}); {remedy_of(error, remedy)}") from None
    finally:
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)


def folder_beside(path: Path) -> Path:
    """A new, hidden folder that `put_in_place` can rename to `path`; raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tidy_beside(path)
    folder = path.with_name(f"{_mark(path)}{os.getpid()}-{uuid.uuid4().hex[:8]}.partial")
    folder.mkdir()
    return folder


def put_in_place(folder: Path, path: Path, *, replace: bool = True) -> None:
    """Forces a folder of `folder_beside` to disk and renames it to `path`; raises OSError.

    An older folder changes places with it in one step, where the system can do so; else it steps aside first.
    It is deleted last, so at every moment one of them is whole. `replace` as in `publish_folder`.
    """
    for parent, _, names in os.walk(folder):
        for name in names:
            _sync(Path(parent, name))
        _sync(Path(parent))
    aside = folder.with_suffix(".old")
    if replace and path.is_dir():
        if _exchanged(folder, path):
            shutil.rmtree(folder, ignore_errors=True)
            return
        path.rename(aside)
    try:
        folder.rename(path)
    except OSError:
        if aside.exists():
            aside.rename(path)
        elif not replace and path.is_dir():
            return
        raise
    shutil.rmtree(aside, ignore_errors=True)


def _exchanged(one: Path, other: Path) -> bool:
    """Whether two folders have swapped their names, in one step: Linux can, on most file systems."""
    swap = getattr(ctypes.CDLL(None), "renameat2", None) if sys.platform == "linux" else None
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    return bool(swap and swap(here, os.fsencode(one), here, os.fsencode(other), exchange) == 0)


def tidy_beside(path: Path) -> None:
    """Clears up after processes of this machine that were killed while they made `path`.

    Removes what they left unfinished, and gives an older folder its name back that had stepped aside.
    """
    with suppress(OSError):  # whoever makes `path` next is told what is wrong with the folder
        for left in path.parent.iterdir():
            owner = left.name.removeprefix(_mark(path)).partition("-")[0]
            if left.name.startswith(_mark(path)) and owner.isdigit() and not _runs(int(owner)):
                if left.suffix == ".old" and not path.exists():
                    left.rename(path)
                else:
                    shutil.rmtree(left, ignore_errors=True)


def _mark(path: Path) -> str:
    """How the names of this machine's hidden folders for `path` begin; a process number follows."""
    return f".{path.name}.{socket.gethostname()}-"


def _runs(process: int) -> bool:
    if sys.platform == "win32":  # there, signal 0 is Ctrl-C
        return True
    try:
        os.kill(process, 0)
    except OSError as error:  # PermissionError: it runs, as another user
        return not isinstance(error, ProcessLookupError)
    return True


def _sync(path: Path) -> None:
    """Without it, a power failure after a rename could leave files without bytes, folders without names."""
    if path.is_dir() and sys.platform == "win32":  # where folders cannot be opened
        return
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
