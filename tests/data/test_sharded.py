"""Sharded arrays: what is appended is read back, whatever the blocks, by us and by zarr."""

import numpy as np
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from facenas.data.sharded import CHUNKS, ShardedArray, ShardedWriter


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(0, 70), max_size=12), st.integers(1, 9), st.randoms())
def test_sharded_arrays_give_back_their_rows(tmp_path, sizes, chunk, rng):
    group = zarr.create_group(tmp_path / "x.zarr", zarr_format=3, overwrite=True)
    writer = ShardedWriter(group, "a", "i4", (2,), 8 * chunk)
    values = np.arange(2 * sum(sizes), dtype=np.int32).reshape(-1, 2) * (chunk % 2)  # also all zero
    for size in sizes:
        writer.append(values[writer.rows : writer.rows + size])
    writer.finish()
    array = ShardedArray(tmp_path / "x.zarr", "a", "i4", (2,))
    assert len(array) == len(values)
    assert array.per_shard <= chunk * CHUNKS
    start, stop = sorted(rng.randint(0, len(values)) for _ in range(2))
    np.testing.assert_array_equal(array.span(start, stop), values[start:stop])
    if len(values):
        indices = np.array([rng.randrange(len(values)) for _ in range(20)])
        np.testing.assert_array_equal(array.take(indices), values[indices])
        np.testing.assert_array_equal(np.concatenate(list(array.blocks())), values)
    np.testing.assert_array_equal(zarr.open_group(tmp_path / "x.zarr")["a"][:], values)
