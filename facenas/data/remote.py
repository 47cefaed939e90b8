"""Stores elsewhere, named by a URL that fsspec knows: a copy of what fits lies in the cache.

The copy is a store as any other, but for the shards of images that did not fit: these are read where they
are, a range at a time, as its file origin.json says. Images are read in any order, so no choice of shards is
better than another: the first are copied, and none is exchanged for another. Retries, endpoints and
credentials are fsspec's own, configured as it says (environment variables, ~/.config/fsspec).
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from shutil import disk_usage
from typing import Any
from urllib.parse import urlsplit

from filelock import FileLock
from tqdm import tqdm

from facenas.data.cache import default_cache
from facenas.errors import SearchStoppedError, StoppedError, UserError, first_line
from facenas.files import read_json, scratch_folder, temporary_for, write_bytes, write_json

ORIGIN = "origin.json"
LIMIT = "FACENAS_COPY_LIMIT"
META = "zarr.json"
IMAGES = ("jpeg", "pixels")  # arrays of images; the others are small, and needed by whoever opens a store
_OF_IMAGES = tuple(f"{name}/c/" for name in IMAGES)
_AT_ONCE = 8  # files that are copied at the same time


def is_url(text: str) -> bool:
    """Whether it names something that fsspec opens: s3://bucket/casia.zarr."""
    return "://" in text


class Remote:
    """The files below a URL. All methods raise UserError, naming it, when they cannot be read or written."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        if any(_holds_secret(part) for part in url.split("::")):
            raise UserError("the URL of a store holds a password, which runs would note; have fsspec find it")

    @cached_property
    def _opened(self) -> tuple[Any, str]:
        from fsspec.core import url_to_fs

        with self.talking("opened"):
            files, root = url_to_fs(self.url)
        return files, root

    def sizes(self) -> dict[str, int]:
        """Names and bytes of all files, sorted; none when there is no such thing."""
        files, root = self._opened
        with self.talking("listed"):
            files.invalidate_cache()
            found = files.find(root, detail=True)
            return {path[len(root) :].lstrip("/"): int(found[path]["size"]) for path in sorted(found)}

    def read(self, name: str) -> bytes:
        """A whole file."""
        files, root = self._opened
        with self.talking("read"):
            return bytes(files.cat_file(f"{root}/{name}"))

    def ranges(self, names: Sequence[str], starts: Sequence[int], stops: Sequence[int]) -> list[bytes]:
        """Bytes starts..stops-1 of each file, all at once where the file system can."""
        files, root = self._opened
        with self.talking("read"):
            paths = [f"{root}/{name}" for name in names]
            found: list[bytes] = files.cat_ranges(paths, list(starts), list(stops), on_error="return")
            for part, start, stop in zip(found, starts, stops, strict=True):
                if isinstance(part, BaseException):
                    raise part
                if len(part) != stop - start:
                    raise EOFError("a file is shorter than it was")
        return found

    def fetch(self, name: str, path: Path) -> None:
        """Copies a file to `path`, which appears when it is whole."""
        files, root = self._opened
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = temporary_for(path)
        try:
            with self.talking("read"):
                files.get_file(f"{root}/{name}", str(temporary))
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)

    def put(self, path: Path, name: str) -> None:
        """Copies the file at `path` there."""
        files, root = self._opened
        with self.talking("written"):
            if parent := f"{root}/{name}".rpartition("/")[0]:
                files.makedirs(parent, exist_ok=True)
            files.put_file(str(path), f"{root}/{name}")

    def remove(self, names: Sequence[str]) -> None:
        """Removes files."""
        files, root = self._opened
        with self.talking("removed"):
            for name in names:
                files.rm_file(f"{root}/{name}")

    @contextmanager
    def talking(self, done: str) -> Iterator[None]:
        """Turns whatever goes wrong on the way there into a UserError: each file system has its own errors."""
        try:
            yield
        except (UserError, SearchStoppedError, StoppedError):
            raise
        except Exception as error:
            reason = getattr(error, "strerror", None) or first_line(error)
            raise UserError(f"{self.url}: cannot be {done} ({reason})") from error


def _holds_secret(url: str) -> bool:
    parts = urlsplit(url)
    web = parts.scheme in ("http", "https")  # where a token may stand for a user, and a signature in the query
    return bool(parts.password or (web and (parts.username or parts.query)))


class Origin:
    """Where the shards are that a copy lacks; sizes: bytes of all shards of images, by name."""

    def __init__(self, url: str, sizes: dict[str, int]) -> None:
        self.sizes, self.remote = sizes, Remote(url)


def origin_of(store: Path) -> Origin | None:
    """None: the store at `store` is no copy."""
    if not (store / ORIGIN).is_file():
        return None
    tree = read_json(store / ORIGIN)
    return Origin(tree["url"], tree["shards"])


def stored_bytes(store: Path) -> int:
    """Bytes of all files of a store, wherever they are."""
    sizes = {
        str(p.relative_to(store)): p.stat().st_size
        for p in store.rglob("*")
        if p.is_file() and p.name != ORIGIN
    }
    origin = origin_of(store)
    return sum({**(origin.sizes if origin else {}), **sizes}.values())


def local_copy(url: str, cache: Path, images: bool = True) -> Path:
    """The copy in `cache` of the store at `url`, made or completed; images: whether to copy shards of images.

    As many shards are copied as LIMIT in the environment says (100GB), by default half of the disk's free room.
    A store that has changed gets another copy. Raises UserError when there is none, or it cannot be read.
    """
    remote = Remote(url)
    sizes = remote.sizes()
    if META not in sizes:
        raise UserError(
            f"{url}: no such store, or one that is not yet whole; `facenas data import SOURCE {url}` makes it"
        )
    meta = remote.read(META)
    digest = hashlib.sha256(remote.url.encode() + meta).hexdigest()[:16]
    parts = urlsplit(remote.url)
    copy = cache / f"remote-{digest}" / (Path(parts.path).name or parts.netloc)
    shards = {name: size for name, size in sizes.items() if name.startswith(_OF_IMAGES)}
    copy.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(copy.parent / ".lock"):
        rest = [name for name in sizes if name not in shards and name != META]
        _fetch(remote, copy, {name: sizes[name] for name in rest})
        write_json(copy / ORIGIN, {"url": remote.url, "shards": shards})
        write_bytes(copy / META, meta, remedy="set FACENAS_CACHE to another folder")
        if images:
            _fetch(remote, copy, _that_fit(copy, shards))
    os.utime(copy.parent)
    return copy


@contextmanager
def folder_of(store: Path | str) -> Iterator[Path]:
    """The store's folder; of one at a URL, a copy without shards of images, which is gone afterwards."""
    if not is_url(str(store)):
        yield Path(store)
        return
    with scratch_folder(default_cache()) as cache:
        copy = local_copy(str(store), cache, images=False)
        try:
            yield copy
        except UserError as error:
            raise UserError(str(error).replace(str(copy), str(store))) from None


def _that_fit(copy: Path, shards: dict[str, int]) -> dict[str, int]:
    there = sum(size for name, size in shards.items() if (copy / name).exists())
    left = _limit((disk_usage(copy).free + there) // 2)
    chosen = {}
    for name, size in shards.items():
        left -= size
        if left < 0:
            break
        chosen[name] = size
    return chosen


def _limit(default: int) -> int:
    from pydantic import ByteSize, TypeAdapter, ValidationError

    try:
        return int(TypeAdapter(ByteSize).validate_python(os.environ.get(LIMIT, default)))
    except ValidationError:
        raise UserError(f"{LIMIT} {os.environ[LIMIT]}: should be a size, as 100GB") from None


def _fetch(remote: Remote, copy: Path, sizes: dict[str, int]) -> None:
    """Copies what is not there yet."""
    wanted = [name for name, size in sizes.items() if not _is_there(copy / name, size)]
    with (
        tqdm(
            total=sum(sizes[name] for name in wanted),
            desc=f"copy {remote.url}",
            unit="B",
            unit_scale=True,
            disable=None,
            delay=1,
        ) as bar,
        ThreadPoolExecutor(_AT_ONCE) as pool,
    ):
        futures = [pool.submit(remote.fetch, name, copy / name) for name in wanted]
        try:
            for name, future in zip(wanted, futures, strict=True):
                future.result()
                bar.update(sizes[name])
        finally:
            pool.shutdown(cancel_futures=True)


def _is_there(path: Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size
