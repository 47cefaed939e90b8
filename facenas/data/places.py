"""Where a store is written: a folder, a folder whose shards lie on several disks, or a URL.

All begin in a folder, take one shard after the other, and are there under their name when they are whole.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

from facenas.data.cache import default_cache
from facenas.data.remote import META, Remote, is_url
from facenas.errors import UserError
from facenas.files import (
    check_place,
    folder_beside,
    put_in_place,
    remedy_of,
    scratch_folder,
    tidy_beside,
)

_ARRAYS = "labels|names|name_offsets|files|file_offsets|offsets|jpeg|pixels"  # of a store of faces
_OF_STORES = re.compile(rf"zarr\.json|skipped\.csv|({_ARRAYS})/(zarr\.json|c/[\d/]+)")
_OWNER = "store.txt"  # in a folder of shards: which store they are of
_SHARDS = re.compile(r".+\.[0-9a-f]{8}\.shards")  # a folder with the shards of a store that lies elsewhere


class Place(Protocol):
    """begin gives a folder to write in; ship: a shard in it is whole; publish: all is; clear: always, last."""

    def begin(self) -> Path: ...
    def ship(self, name: str) -> None: ...
    def publish(self) -> None: ...
    def clear(self) -> None: ...


def place_of(out: str | Path, disks: Sequence[Path] = ()) -> Place:
    """The place that `out` names. Raises UserError when it, or one of the disks, cannot be written in."""
    if is_url(str(out)):
        if disks:
            raise UserError(f"{out}: is elsewhere, so its shards cannot be spread over disks of this machine")
        return UrlPlace(str(out))
    for disk in disks:
        if not disk.is_dir():
            raise UserError(f"{disk}: no such folder; make it, or see whether its disk is mounted")
    for folder in (Path(out).parent, *disks):
        check_place(folder)
    return FolderPlace(Path(out), disks)


class FolderPlace:
    """A folder that appears in one step. With `disks`, shards go to folders there, and links lead to them."""

    def __init__(self, path: Path, disks: Sequence[Path]) -> None:
        self._path, self._disks, self._links = path, disks, len(disks) * [0]

    def begin(self) -> Path:
        self._folder = folder_beside(self._path)
        name = f"{self._path.name}.{uuid.uuid4().hex[:8]}.shards"
        self._targets = [disk.resolve() / name for disk in self._disks]
        # Under the store's name: should this process be killed, the next import of it clears up.
        self._partial = [folder_beside(disk.resolve() / self._path.name) for disk in self._disks]
        for folder in self._partial:
            (folder / _OWNER).write_text(str(self._path.resolve()), encoding="utf-8")
        return self._folder

    def ship(self, name: str) -> None:
        """To the disk with the most room; of those that have as much, to the one with the fewest shards."""
        if not self._disks:
            return
        shard = self._folder / name
        size = shard.stat().st_size
        room = [shutil.disk_usage(folder).free // (4 * size) for folder in self._partial]
        chosen = max(range(len(room)), key=lambda i: (room[i], -self._links[i]))
        moved = self._partial[chosen] / name
        moved.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(shard, moved)
        shard.symlink_to(self._targets[chosen] / name)
        self._links[chosen] += 1

    def publish(self) -> None:
        before = _linked(self._path)
        for partial, target in zip(self._partial, self._targets, strict=True):
            put_in_place(partial, target)
        put_in_place(self._folder, self._path)
        self._targets = []
        for folder in before:
            shutil.rmtree(folder, ignore_errors=True)

    def clear(self) -> None:
        for folder in (self._folder, *self._partial, *self._targets):
            shutil.rmtree(folder, ignore_errors=True)


def _linked(store: Path) -> set[Path]:
    """Folders elsewhere that links in a store lead to, and that no other store uses."""
    targets = {target for path in store.rglob("*") if path.is_symlink() for target in path.resolve().parents}
    return {folder for folder in targets if _SHARDS.fullmatch(folder.name) and _is_own(folder, store)}


def _is_own(folder: Path, store: Path) -> bool:
    """Whether shards are this store's, made under its name or moved here; a copy has the original's links."""
    try:
        owner = Path((folder / _OWNER).read_text(encoding="utf-8"))
    except OSError:
        return False
    return owner == store.resolve() or not owner.exists()


class UrlPlace:
    """An object store or another server. Shards leave this machine one by one, and the root's zarr.json last.

    So whoever opens it sees nothing or all of it. A store that was there is removed when the first is to go.
    """

    def __init__(self, url: str) -> None:
        self._remote, self._written = Remote(url), list[str]()
        self._scratch = ExitStack()

    def begin(self) -> Path:
        self._folder = self._scratch.enter_context(scratch_folder(default_cache()))
        return self._folder

    def ship(self, name: str) -> None:
        self._put(name)
        (self._folder / name).unlink()

    def publish(self) -> None:
        names = (str(path.relative_to(self._folder)) for path in self._folder.rglob("*") if path.is_file())
        for name in sorted(names, key=lambda name: name == META):
            self._put(name)
        self._written = []

    def _put(self, name: str) -> None:
        if not self._written:
            before = self._remote.sizes()
            self._remote.remove(sorted(before, key=lambda name: name != META))
        self._written.append(name)
        self._remote.put(self._folder / name, name)

    def clear(self) -> None:
        self._scratch.close()
        with suppress(UserError):  # of a connection that is lost: what ended the work is told
            there = self._remote.sizes() if self._written else {}
            self._remote.remove([name for name in self._written if name in there])


def check_folder(path: Path, overwrite: bool, is_store: Callable[[Path], bool], kind: str) -> None:
    """Raises UserError when something is at `path`; with `overwrite`, when that is no store of this kind.

    What an import left there that was killed is removed.
    """
    tidy_beside(path)
    if not os.path.lexists(path):
        return
    if not path.is_dir():
        fault = "is a file where the store's folder should be written; move it away"
    elif not overwrite:
        fault = "is there already; overwrite (--overwrite) replaces it"
    elif not is_store(path):
        fault = f"is a folder but no {kind}, so it is not overwritten; choose another name"
    else:
        return
    raise UserError(f"{path}: {fault}")


@contextmanager
def writing(store: str | Path) -> Iterator[None]:
    """Turns the OSErrors of writing into a UserError that names the store."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or error
        raise UserError(
            f"{store}: cannot be written ({reason}); {remedy_of(error, 'make room or choose another place')}"
        ) from None


def check_url(url: str, overwrite: bool, store_format: str) -> None:
    """Raises UserError when something is at `url`; with `overwrite`, when that is no store of that format."""
    remote = Remote(url)
    there = remote.sizes()
    if there and not overwrite:
        raise UserError(f"{url}: is there already; overwrite (--overwrite) replaces it")
    if META in there and _format_of(remote.read(META)) != store_format:
        raise UserError(f"{url}: is a zarr group, but no store of ours; choose another name")
    if other := [name for name in there if not _OF_STORES.fullmatch(name)]:
        raise UserError(f"{url}: holds {other[0]!r} and so is no store; choose another name")


def _format_of(meta: bytes) -> Any:
    """What a group's zarr.json says it is; None: nothing of ours."""
    try:
        return json.loads(meta)["attributes"]["format"]
    except (ValueError, TypeError, KeyError):
        return None
