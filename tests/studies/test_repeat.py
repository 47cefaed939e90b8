"""The study of repeated searches: its comparison on journals made by hand."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from facenas.spaces import CellArchitecture, PlainArchitecture
from facenas.studies.networks import Network
from facenas.studies.repeat import Course, compared, findings, noise, shape


def line(depth, decision, accuracy=90.0, width=8, **other):
    """Of a journal, as far as the study reads it."""
    arch = PlainArchitecture.uniform(depth, width, 1, 10)
    told = {"phase": "depth", "reason_proposed": f"depth {depth}", "status": "ok", "data_fraction": 1.0}
    sizes = {"epochs": depth, "parameters": arch.count_parameters()}
    return {**told, **arch.to_json(), **sizes, "decision": decision, "accuracy": accuracy, **other}


def course(seed, *lines, macro=None):
    """A search that found its last kept network."""
    best = [told for told in lines if told["decision"] == "kept"][-1]
    arch = PlainArchitecture.uniform(best["depth"], best["width"], 1, 10)
    network = Network(f"search-{seed}", arch, arch.count_macs(28), best["accuracy"])
    return Course(seed, list(lines), network, macro)


FIRST = course(
    0, line(3, "kept", 80.0), line(4, "kept", 90.0), line(5, "rejected", 89.0), line(6, "kept", 91.0)
)
SECOND = course(1, line(3, "kept", 82.0), line(4, "kept", 91.0), line(5, "kept", 91.5))
THIRD = course(2, line(3, "kept", 81.0), line(4, "rejected", 79.0), line(4, "kept", 85.0, epochs=9))


def test_where_two_searches_part_and_what_they_decide_alike():
    pair = compared(FIRST, SECOND)
    assert (pair.parted, pair.shared, pair.equal) == (2, 3, 2)
    assert pair.how == "depth, depth 5: rejected (89.00 %) or kept (91.50 %)"
    pair = compared(SECOND, THIRD)
    assert (pair.parted, pair.shared, pair.equal) == (1, 2, 1)  # of other epochs it is another candidate
    same = course(3, *FIRST.lines)
    assert compared(FIRST, same).parted is None
    assert compared(FIRST, course(4, *FIRST.lines[:2])).how == "one of them had ended"
    pair = compared(FIRST, course(5, line(7, "kept")))
    assert (pair.parted, pair.shared) == (0, 0)


def test_the_same_candidate_asked_for_twice_is_compared_with_its_own_turn():
    """As the baseline of micro search, when it trains as long as the macro network did."""
    first = course(0, line(3, "kept"), line(3, "baseline"))
    second = course(1, line(3, "kept"), line(3, "kept"))
    pair = compared(first, second)
    assert (pair.shared, pair.equal, pair.parted) == (2, 1, 1)


@pytest.mark.parametrize(
    "other", [{"repeat": 1}, {"protocol": {"lr": 0.1}}, {"parent": "abc"}, {"data_fraction": 0.5}]
)
def test_what_trains_otherwise_is_another_candidate(other):
    assert compared(course(0, line(3, "kept")), course(1, line(3, "kept", **other))).shared == 0
    assert compared(course(0, line(3, "kept", **other)), course(1, line(3, "kept", **other))).shared == 1


def test_parents_are_the_same_candidate_under_other_keys():
    assert compared(course(0, line(3, "kept", parent="a")), course(1, line(3, "kept", parent="b"))).shared == 1


def test_the_noise_of_one_candidate_is_pooled_over_candidates():
    deviation, count = noise([FIRST, SECOND, THIRD])
    groups = [(80, 82, 81), (90, 91, 79), (89, 91.5)]
    squares = sum(np.var(group, ddof=1) * (len(group) - 1) for group in groups)
    assert (deviation, count) == (pytest.approx(math.sqrt(squares / 5)), 3)
    failed = course(1, line(3, "kept"), line(4, "rejected", 0.0, status="failed"))
    assert noise([FIRST, failed])[1] == 1
    assert noise([FIRST]) is None


def test_findings_tell_mean_deviation_and_range_and_are_plain_json():
    found = findings([FIRST, SECOND, THIRD])
    json.dumps(found.to_json(), allow_nan=False)
    rows = {row[0]: row[1:] for row in found.tables[0].rows}
    columns = found.tables[0].columns[1:]
    assert rows["seed 0"][columns.index("depth")] == 6
    assert rows["range"][columns.index("depth")] == 2
    assert rows["mean"][columns.index("accuracy, %")] == pytest.approx(np.mean([91, 91.5, 85]))
    assert rows["standard deviation"][columns.index("epochs trained")] == pytest.approx(
        np.std([18, 12, 16], ddof=1)
    )
    assert [row[:2] for row in found.tables[1].rows] == [("0 and 1", 2), ("0 and 2", 1), ("1 and 2", 1)]
    assert "finds 2 networks" not in found.summary[0]
    assert found.values["pairs"][0] == {"seeds": [0, 1], "parted": 2, "shared": 3, "equal": 2}
    depth = found.charts[1].series[0]
    assert depth.y == (3, 3, 4, 4, 4, 6)  # in steps, and not down to what was rejected
    assert len(findings([FIRST]).tables) == 1


def test_of_networks_without_depth_is_told_what_differs():
    plain = PlainArchitecture(8, (0, 1, 1), (3, 5, 3), 1, 10)
    assert shape(plain) == {"depth": 3, "width": 8, "plain convolutions": 2, "kernels above 3": 1}
    told = shape(PlainArchitecture.uniform(3, 8, 1, 10))
    assert told["kernels above 3"] == 0
    from facenas.spaces import Cells, ImageFacts

    cells = Cells().bind(ImageFacts(1, 10, 28)).start()
    assert isinstance(cells, CellArchitecture)
    assert all(isinstance(value, int) for value in shape(cells).values())
    assert shape(cells)
