"""The identification trial on LFW: counts by hand, and a picture that is whole."""

from __future__ import annotations

import importlib
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest


@pytest.fixture
def tool(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "tools")
    return importlib.import_module("lfw_identification")


def test_people_with_one_image_are_unknown(tool):
    names = ["lfw/ann/0.jpg", "lfw/ann/1.jpg", "lfw/bob/0.jpg", "lfw/eve/0.jpg", "lfw/eve/1.jpg"]
    found = tool.people_of(names)
    assert (found.known, found.unknown) == ([[0, 1], [3, 4]], [2])


def test_a_trial_counts_names_and_alarms(tool):
    rows = np.array([[1, 0], [0.8, 0.6], [0, 1], [0.9, np.sqrt(0.19)], [0.6, 0.8]], np.float32)
    people = tool.People([[0, 1], [2, 3]], [4])
    found = tool.trial("first", rows, people, slice(0, 1), slice(1, None))
    assert found.right.tolist() == [True, False]  # the second looks like the first person
    assert found.right_in_5.all()
    np.testing.assert_allclose(found.known, [0.8, 0.9])
    np.testing.assert_allclose(found.unknown, [0.8])
    assert (found.identified(0.5), found.mistaken(0.5), found.alarms(0.5)) == (0.5, 0.5, 1.0)
    assert (found.identified(0.85), found.mistaken(0.85), found.alarms(0.85)) == (0.0, 0.5, 0.0)
    assert tool.best_image_rank_1(rows, people) == 0.5


def test_tables_and_picture(tool, capsys):
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((160, 16)).astype(np.float32)
    rows[:80] += 3 * np.repeat(rng.standard_normal((40, 16)), 2, axis=0)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    people = tool.People([[2 * i, 2 * i + 1] for i in range(40)], list(range(80, 160)))
    trials = [tool.trial(title, rows, people, slice(0, 1), slice(1, None)) for title in "ab"]
    limit = trials[0].threshold_at(0.1)
    assert trials[0].alarms(limit) == 0.1
    tool.print_tables(trials)
    printed = capsys.readouterr().out
    assert printed.count("|---") == 14
    assert "nan" not in printed
    picture = ET.fromstring(tool.chart(trials))
    assert len(picture.findall("{*}polyline")) == 4
