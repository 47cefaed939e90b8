"""Moving batches: one copy for many tensors, and what is shared on a device."""

from __future__ import annotations

import gc

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from facenas.data.feed import _packed, _unpacked, ahead, resident

DTYPES = (torch.uint8, torch.bool, torch.int64, torch.float32)
tensors = st.builds(
    lambda dtype, shape, seed: (
        torch.randint(0, 2, shape, generator=torch.Generator().manual_seed(seed)).to(dtype).mT
        if len(shape) == 2
        else torch.randint(0, 2, shape, generator=torch.Generator().manual_seed(seed)).to(dtype)
    ),
    st.sampled_from(DTYPES),
    st.lists(st.integers(0, 5), max_size=3).map(tuple),
    st.integers(0, 99),
)


@given(st.lists(st.lists(tensors, max_size=4).map(tuple), max_size=4))
def test_what_is_moved_in_one_copy_comes_out_as_it_went_in(batches):
    found = _unpacked(_packed(batches, pin=False), batches)
    assert len(found) == len(batches)
    for batch, again in zip(batches, found, strict=True):
        assert len(batch) == len(again)
        for before, after in zip(batch, again, strict=True):
            assert (before.dtype, before.shape) == (after.dtype, after.shape)
            assert torch.equal(before, after)


def test_images_are_on_a_device_once_while_somebody_holds_them():
    device, loads = torch.device("meta"), []

    def load(size=3):
        loads.append(size)
        return torch.empty(size, device=device)

    first = resident("images", 3, device, "auto", load)
    assert resident("images", 3, device, "auto", load) is first
    assert resident("others", 3, device, "auto", load) is not first
    assert resident(None, 3, device, "auto", load) is not resident(None, 3, device, "auto", load)
    assert resident("more", 3, device, "host", load) is None
    assert len(loads) == 4
    del first
    gc.collect()
    resident("images", 3, device, "auto", load)
    assert len(loads) == 5


def test_what_is_read_ahead_comes_in_order_and_errors_in_their_place():
    def make(job):
        if job == 5:
            raise ValueError("the fifth")
        return job

    made = ahead(make, range(9), readers=3)
    assert [next(made) for _ in range(5)] == [0, 1, 2, 3, 4]
    with pytest.raises(ValueError, match="the fifth"):
        next(made)
