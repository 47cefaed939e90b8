"""Long arrays in zarr's sharding codec, written in whole shards and read by memory-mapping them.

A shard file holds up to 32 uncompressed chunks in order, then an index of 32 (offset, bytes) pairs and
its CRC-32C (zarr v3 "sharding_indexed", index at the end). The chunks of our shards follow each
other, so the rows of a shard are one block of memory: no read goes through zarr. Any zarr library
can read the same files.
"""

from __future__ import annotations

import hashlib
import json
import math
import mmap
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from facenas.data.remote import origin_of
from facenas.errors import UserError

if TYPE_CHECKING:  # half a second to import, and only writing needs it
    import zarr

CHUNKS = 32  # a shard
_INDEX_BYTES = 16 * CHUNKS + 4
_NO_CHUNK = np.uint64(2**64 - 1)


class ShardedWriter:
    """Appends rows to a new array of a zarr group; holds one shard in memory.

    `chunk_bytes` is the most that one chunk holds; an array smaller than that becomes one chunk of
    its own size. `ship` is called with the name of every shard that is written, and may move it elsewhere.
    Raises OSError when a shard cannot be written.
    """

    def __init__(
        self,
        group: zarr.Group,
        name: str,
        dtype: str,
        row: tuple[int, ...],
        chunk_bytes: int,
        ship: Callable[[str], None] = lambda name: None,
    ) -> None:
        self._group, self._name, self._row, self._ship = group, name, row, ship
        self._dtype = np.dtype(dtype).newbyteorder("<")
        self._chunk = max(1, chunk_bytes // (self._dtype.itemsize * math.prod(row)))
        self._buffer = np.empty((self._chunk * CHUNKS, *row), self._dtype)  # pages come when used
        self._filled = 0
        self._array: zarr.Array[Any] | None = None
        self._digest = hashlib.sha256()
        self.rows = 0

    def append(self, rows: NDArray[Any]) -> None:
        """Adds (k, *row) values of the array's dtype."""
        self.rows += len(rows)
        while len(rows):
            part = rows[: len(self._buffer) - self._filled]
            self._buffer[self._filled : self._filled + len(part)] = part
            self._filled += len(part)
            rows = rows[len(part) :]
            if self._filled == len(self._buffer):
                self._flush()

    def finish(self) -> str:
        """Writes the last, partial shard; returns the sha256 of all values, little-endian."""
        if self._filled or self._array is None:
            self._flush()
        return self._digest.hexdigest()

    def _flush(self) -> None:
        """A shard at once: zarr would read and rewrite it whole for every part."""
        if self._array is None:
            chunk = min(self._chunk, max(1, self._filled))
            self._array = self._group.create_array(
                self._name,
                shape=(0, *self._row),
                dtype=self._dtype,
                chunks=(chunk, *self._row),
                shards=(chunk * CHUNKS, *self._row),
                compressors=None,  # JPEG does not compress, and bytes as they are can be mapped
                filters=None,
                fill_value=0,
                config={"write_empty_chunks": True},  # chunks of zeros too: all follow each other
            )
        start, block = self._array.shape[0], self._buffer[: self._filled]
        self._digest.update(block.reshape(-1).view(np.uint8).data)
        if self._filled:
            self._array.resize((start + self._filled, *self._row))
            self._array[start:] = block
            self._ship(_shard_name(self._name, start // len(self._buffer), len(self._row)))
        self._filled = 0


class ShardedArray:
    """An array that `ShardedWriter` wrote, memory-mapped for reading; rows are numbered from 0.

    Shards that a copy of a remote store lacks are read there, a range at a time.

    Raises UserError, naming the store, when it has another layout or shard files are missing or torn.
    """

    def __init__(self, store: Path, name: str, dtype: str, row: tuple[int, ...]) -> None:
        self._store, self._name, self._row = store, name, row
        self._dtype = np.dtype(dtype).newbyteorder("<")
        try:
            self._rows, self._chunk = _read_layout(store / name / "zarr.json", self._dtype, row)
        except (OSError, ValueError, TypeError, LookupError, AttributeError, RecursionError):
            raise UserError(
                f"{store}: its array {name!r} is missing or not laid out as facenas does; import it anew"
            ) from None
        self.per_shard = CHUNKS * self._chunk
        self._shards = -(-self._rows // self.per_shard)
        self._chunk_bytes = self._chunk * self._dtype.itemsize * math.prod(row)
        self._row_bytes = self._dtype.itemsize * math.prod(row)
        origin = origin_of(store)
        self._remote = origin.remote if origin else None
        self._away: set[int] = set()  # shards that only the origin has
        for number in range(self._shards):
            path, size = self._file(number), self._chunks_of(number) * self._chunk_bytes + _INDEX_BYTES
            if origin is not None and not path.exists() and origin.sizes.get(self._key(number)) == size:
                self._away.add(number)
            elif not path.is_file() or path.stat().st_size != size:
                raise UserError(f"{path}: is missing or torn; import the store anew")
        # Every mapped file keeps a descriptor open, of which a process may have some 1024.
        self.shard = lru_cache(_most_open_files(share=4))(self._map)

    def __len__(self) -> int:
        return self._rows

    def blocks(self) -> Iterator[NDArray[Any]]:
        """All rows in order, a shard at a time; none stays mapped."""
        return (
            self._rows_of([(i, 0, self._size_of(i))])[0] if i in self._away else self._map(i)
            for i in range(self._shards)
        )

    def release(self) -> None:
        """Unmaps all shards that nobody holds; else a pass over them counts as memory of its own."""
        self.shard.cache_clear()

    def span(self, start: int, stop: int) -> NDArray[Any]:
        """Rows start..stop-1: a view of the mapped file, or a copy where they lie in several."""
        if stop <= start:
            return np.empty((0, *self._row), self._dtype)
        step = self.per_shard
        first, last = start // step, (stop - 1) // step
        if first == last and first not in self._away:
            return self.shard(first)[start - first * step : stop - first * step]
        return np.concatenate(self._rows_of(self._cut(start, stop)))

    def spans(self, starts: Sequence[int], stops: Sequence[int]) -> list[NDArray[Any]]:
        """`span` of many, none empty: what has to be read far away is read at once."""
        if not self._away:
            return [self.span(start, stop) for start, stop in zip(starts, stops, strict=True)]
        cuts = [self._cut(start, stop) for start, stop in zip(starts, stops, strict=True)]
        parts = iter(self._rows_of([part for cut in cuts for part in cut]))
        return [np.concatenate([next(parts) for _ in cut]) for cut in cuts]

    def take(self, indices: NDArray[np.int64], out: NDArray[Any] | None = None) -> NDArray[Any]:
        """Rows at `indices` (m,), as a copy (m, *row)."""
        if out is None:
            out = np.empty((len(indices), *self._row), self._dtype)
        numbers = indices // self.per_shard
        for number in np.unique(numbers):
            here = np.flatnonzero(numbers == number)
            rows = indices[here] - number * self.per_shard
            if number in self._away:
                cuts = [(int(number), row, row + 1) for row in rows.tolist()]
                out[here] = np.concatenate(self._rows_of(cuts))
            else:
                out[here] = self.shard(int(number))[rows]
        return out

    def _cut(self, start: int, stop: int) -> list[tuple[int, int, int]]:
        """(shard, first row, last row + 1 within it) of the rows start..stop-1, at least one."""
        step = self.per_shard
        shards = range(start // step, (stop - 1) // step + 1)
        return [(i, max(start - i * step, 0), min(stop - i * step, step)) for i in shards]

    def _rows_of(self, cuts: Sequence[tuple[int, int, int]]) -> list[NDArray[Any]]:
        """Of each (shard, start, stop) those rows."""
        found = {
            i: self.shard(cut[0])[cut[1] : cut[2]] for i, cut in enumerate(cuts) if cut[0] not in self._away
        }
        if away := [(i, cut) for i, cut in enumerate(cuts) if i not in found]:
            assert self._remote is not None
            starts, stops = ([cut[k] * self._row_bytes for _, cut in away] for k in (1, 2))
            parts = self._remote.ranges([self._key(cut[0]) for _, cut in away], starts, stops)
            for (i, _), data in zip(away, parts, strict=True):
                found[i] = np.frombuffer(data, self._dtype).reshape(-1, *self._row)
        return [found[i] for i in range(len(cuts))]

    def _key(self, number: int) -> str:
        return _shard_name(self._name, number, len(self._row))

    def _file(self, number: int) -> Path:
        return self._store / self._key(number)

    def _size_of(self, number: int) -> int:
        """Rows of shard `number`."""
        return min(self.per_shard, self._rows - number * self.per_shard)

    def _chunks_of(self, number: int) -> int:
        """How many chunks shard `number` holds: all but the last shard are full."""
        return min(CHUNKS, -(-(self._rows - number * self.per_shard) // self._chunk))

    def _map(self, number: int) -> NDArray[Any]:
        """All rows of one shard, read-only."""
        path, chunks = self._file(number), self._chunks_of(number)
        try:
            with path.open("rb") as file:
                mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise UserError(f"{path}: cannot be read ({reason}); import the store anew") from None
        size = self._chunk_bytes
        index = np.full((CHUNKS, 2), _NO_CHUNK)
        index[:chunks] = np.stack([np.arange(chunks) * size, np.full(chunks, size)], axis=1)
        if mapped[chunks * size : -4] != index.astype("<u8").tobytes():
            raise UserError(f"{path}: its shard index is damaged; import the store anew")
        rows = self._size_of(number)
        values = np.frombuffer(mapped, self._dtype, rows * math.prod(self._row))
        return values.reshape(rows, *self._row)


def _shard_name(array: str, number: int, row_dims: int) -> str:
    """The file of a shard, relative to the store."""
    return "/".join([array, "c", str(number), *"0" * row_dims])


def _read_layout(path: Path, dtype: np.dtype[Any], row: tuple[int, ...]) -> tuple[int, int]:
    """(rows, rows of a chunk), out of the zarr.json of an array that `ShardedWriter` wrote.

    Read by the specification, https://zarr-specs.readthedocs.io/en/latest/v3/core/: zarr's own Python
    objects change from release to release. Any of many exceptions tells that the array is not as ours.
    """
    tree = json.loads(path.read_text(encoding="utf-8"))
    (codec,) = tree["codecs"]
    name, sharding = _extension(codec)
    rows, chunk = tree["shape"][0], sharding["chunk_shape"][0]
    keys = _extension(tree["chunk_key_encoding"])
    inner, index = ([_extension(c) for c in sharding[k]] for k in ("codecs", "index_codecs"))
    little = ("bytes", {"endian": "little"})
    ours = (
        (tree["zarr_format"], tree["node_type"], tree["data_type"]) == (3, "array", dtype.name)
        and type(rows) is type(chunk) is int
        and rows >= 0 < chunk
        and tree["shape"][1:] == sharding["chunk_shape"][1:] == list(row)
        and _extension(tree["chunk_grid"]) == ("regular", {"chunk_shape": [CHUNKS * chunk, *row]})
        and keys in [("default", {"separator": "/"}), ("default", {})]
        and not tree.get("storage_transformers")
        and name == "sharding_indexed"
        and (inner == [little] or (inner == [("bytes", {})] and dtype.itemsize == 1))
        and index == [little, ("crc32c", {})]
        and sharding.get("index_location", "end") == "end"
    )
    if not ours:
        raise ValueError(path)
    return rows, chunk


def _extension(tree: Any) -> tuple[str, dict[str, Any]]:
    """Name and configuration of a codec, grid or encoding; without a configuration its name will do."""
    return (tree, {}) if isinstance(tree, str) else (tree["name"], tree.get("configuration", {}))


def _most_open_files(share: int) -> int | None:
    """One in `share` of the files that this process may have open; None when there is no such limit."""
    if sys.platform == "win32":
        return None
    import resource

    allowed = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return None if allowed == resource.RLIM_INFINITY else allowed // share
