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
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from facenas.errors import UserError

if TYPE_CHECKING:  # half a second to import, and only writing needs it
    import zarr

CHUNKS = 32  # a shard
_INDEX_BYTES = 16 * CHUNKS + 4
_NO_CHUNK = np.uint64(2**64 - 1)


class ShardedWriter:
    """Appends rows to a new array of a zarr group; holds one shard in memory.

    `chunk_bytes` is the most that one chunk holds; an array smaller than that becomes one chunk of
    its own size. Raises OSError when a shard cannot be written.
    """

    def __init__(
        self, group: zarr.Group, name: str, dtype: str, row: tuple[int, ...], chunk_bytes: int
    ) -> None:
        self._group, self._name, self._row = group, name, row
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
        self._filled = 0


class ShardedArray:
    """An array that `ShardedWriter` wrote, memory-mapped for reading; rows are numbered from 0.

    Raises UserError, naming the store, when it has another layout or shard files are missing or torn.
    """

    def __init__(self, store: Path, name: str, dtype: str, row: tuple[int, ...]) -> None:
        self._folder, self._row = store / name, row
        self._dtype = np.dtype(dtype).newbyteorder("<")
        try:
            self._rows, self._chunk = _read_layout(self._folder / "zarr.json", self._dtype, row)
        except (OSError, ValueError, TypeError, LookupError, AttributeError, RecursionError):
            raise UserError(
                f"{store}: its array {name!r} is missing or not laid out as facenas does; import it anew"
            ) from None
        self.per_shard = CHUNKS * self._chunk
        self._shards = -(-self._rows // self.per_shard)
        self._chunk_bytes = self._chunk * self._dtype.itemsize * math.prod(row)
        for number in range(self._shards):
            path, size = self._file(number), self._chunks_of(number) * self._chunk_bytes
            if not path.is_file() or path.stat().st_size != size + _INDEX_BYTES:
                raise UserError(f"{path}: is missing or torn; import the store anew")
        # Every mapped file keeps a descriptor open, of which a process may have some 1024.
        self.shard = lru_cache(_most_open_files(share=4))(self._map)

    def __len__(self) -> int:
        return self._rows

    def blocks(self) -> Iterator[NDArray[Any]]:
        """All rows in order, a shard at a time; none stays mapped."""
        return map(self._map, range(self._shards))

    def release(self) -> None:
        """Unmaps all shards that nobody holds; else a pass over them counts as memory of its own."""
        self.shard.cache_clear()

    def span(self, start: int, stop: int) -> NDArray[Any]:
        """Rows start..stop-1: a view of the mapped file, or a copy where they lie in several."""
        if stop <= start:
            return np.empty((0, *self._row), self._dtype)
        step = self.per_shard
        first, last = start // step, (stop - 1) // step
        if first == last:
            return self.shard(first)[start - first * step : stop - first * step]
        shards = range(first, last + 1)
        return np.concatenate([self.shard(i)[max(start - i * step, 0) : stop - i * step] for i in shards])

    def take(self, indices: NDArray[np.int64], out: NDArray[Any] | None = None) -> NDArray[Any]:
        """Rows at `indices` (m,), as a copy (m, *row)."""
        if out is None:
            out = np.empty((len(indices), *self._row), self._dtype)
        numbers = indices // self.per_shard
        for number in np.unique(numbers):
            here = np.flatnonzero(numbers == number)
            out[here] = self.shard(int(number))[indices[here] - number * self.per_shard]
        return out

    def _file(self, number: int) -> Path:
        return self._folder.joinpath("c", str(number), *("0" for _ in self._row))

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
        rows = min(self.per_shard, self._rows - number * self.per_shard)
        values = np.frombuffer(mapped, self._dtype, rows * math.prod(self._row))
        return values.reshape(rows, *self._row)


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
