"""IDX files: what is written comes back, and every kind of damage is named."""

import gzip
import struct

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from facenas.data.idx import IdxLayout, read_idx
from facenas.errors import UserError


def idx_bytes(array):
    return (
        bytes([0, 0, 8, array.ndim])
        + struct.pack(f">{array.ndim}I", *array.shape)
        + array.tobytes()
    )


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    array=arrays(np.uint8, array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=9)),
    zipped=st.booleans(),
)
def test_round_trip(array, zipped, tmp_path):
    path = tmp_path / "some-ubyte"
    path.write_bytes(gzip.compress(idx_bytes(array), 1) if zipped else idx_bytes(array))
    np.testing.assert_array_equal(read_idx(path, array.ndim), array)


IMAGES = np.arange(3 * 4 * 4, dtype=np.uint8).reshape(3, 4, 4)
WHOLE = idx_bytes(IMAGES)
ZIPPED = gzip.compress(WHOLE, mtime=0)


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"", "not an IDX file"),
        (b"<html>404</html>", "not an IDX file"),
        (WHOLE[:3], "not an IDX file"),
        (WHOLE[:10], "not an IDX file"),
        (idx_bytes(IMAGES.reshape(-1)), "not an IDX file of unsigned bytes with 3"),
        (WHOLE[:2] + b"\x0d" + WHOLE[3:], "not an IDX file"),
        (WHOLE[:-1], "holds 47 bytes where its header promises 48"),
        (WHOLE + b"\0", "holds 49 bytes where its header promises 48"),
        (WHOLE[:4] + b"\xff" * 12 + WHOLE[16:], "holds 48 bytes where its header promises 79,"),
        (ZIPPED[:-9], "truncated or corrupt gzip"),
        (ZIPPED[:5], "truncated or corrupt gzip"),
        (ZIPPED[:14] + b"\xff\xff\xff" + ZIPPED[17:], "truncated or corrupt gzip"),
        (ZIPPED[:-5] + b"\0" + ZIPPED[-4:], "truncated or corrupt gzip"),
    ],
)
def test_damage_is_named_in_one_sentence(content, fault, tmp_path):
    path = tmp_path / "train-images-idx3-ubyte"
    path.write_bytes(content)
    with pytest.raises(UserError, match=fault) as caught:
        read_idx(path, 3)
    assert str(caught.value).startswith(f"{path}: ")
    assert str(caught.value).endswith("; delete it and fetch it again")
    assert "\n" not in str(caught.value)


def test_an_unreadable_file_is_named(tmp_path):
    with pytest.raises(UserError, match="cannot be read"):
        read_idx(tmp_path, 1)


def test_a_layout_is_whole_or_not_there(tmp_path):
    layout = IdxLayout((".",))
    for name in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3"):
        (tmp_path / f"{name}-ubyte").write_bytes(WHOLE)
    assert layout.files(tmp_path) is None
    (tmp_path / "t10k-labels-idx1-ubyte.gz").write_bytes(ZIPPED)
    found = layout.files(tmp_path)
    assert [path.name for path in found] == [
        "train-images-idx3-ubyte",
        "train-labels-idx1-ubyte",
        "t10k-images-idx3-ubyte",
        "t10k-labels-idx1-ubyte.gz",
    ]
