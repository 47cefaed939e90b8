"""The study of parts of the images: its measures against scipy, and a small one on digits."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from scipy import stats

from facenas.errors import UserError
from facenas.studies.subset import Part, findings, regret


def made_up(n=30):
    """Parts whose accuracies are the nearer to those of all images the larger they are."""
    rng = np.random.default_rng(0)
    final = rng.uniform(60, 90, n)
    parts = [
        Part(fraction, False, final + rng.normal(0, noise, n), int(1000 * fraction), 10 * fraction)
        for fraction, noise in ((0.1, 20), (0.5, 5))
    ]
    return [
        *parts,
        Part(1.0, False, final, 1000, 10.0),
        Part(1.0, True, final + rng.normal(0, 1, n), 1000, 10.0),
    ]


def test_agreement_is_scipys_and_grows_with_the_part():
    parts = made_up()
    found = findings(parts, 5, 50, 0)
    json.dumps(found.to_json(), allow_nan=False)
    assert found.values["parts"][0]["kendall"][0] == pytest.approx(
        stats.kendalltau(parts[0].accuracies, parts[2].accuracies).statistic
    )
    assert found.values["parts"][1]["spearman"][0] == pytest.approx(
        stats.spearmanr(parts[1].accuracies, parts[2].accuracies).statistic
    )
    taus = [part["kendall"] for part in found.values["parts"]]
    assert taus[0][0] < taus[1][0] < taus[2][0]
    assert all(low <= tau <= high for tau, low, high in taus)
    names = [row[0] for row in found.tables[0].rows]
    assert names == ["10 %", "50 %", "100 %", "100 %, again"]
    assert [row[5] for row in found.tables[0].rows] == [10, 50, 100, 100]


def test_regret_is_what_the_winner_of_the_part_lacks():
    final = np.array([90.0, 92.0, 95.0, 91.0])
    assert regret(np.array([1.0, 2.0, 3.0, 2.0]), final) == 0
    assert regret(np.array([9.0, 2.0, 3.0, 2.0]), final) == 5
    assert regret(np.array([9.0, 9.0, 3.0, 2.0]), final) == 4  # of equals, the mean


def test_a_network_that_failed_on_one_part_is_left_out_of_all():
    parts = made_up(5)
    parts[0].accuracies[3] = math.nan
    found = findings(parts, 5, 20, 0)
    assert found.values["networks"] == 4
    assert found.tables[1].rows[3][2] is None
    parts[1].accuracies[4] = math.nan
    with pytest.raises(UserError, match=r"only 3 networks trained on every part"):
        findings(parts, 5, 20, 0)


def test_by_command(facenas, tmp_path):
    sizes = [
        "--networks",
        "4",
        "--epochs",
        "1",
        "--set",
        "study.fractions=[0.25]",
        "--set",
        "data.data_fraction=0.4",
    ]
    done = facenas(
        "study", "subset-demo", "--run", "parts", *sizes, "--set", "execution.executor=serial", "--json"
    )
    assert done.returncode == 0, done.stderr
    values = json.loads(done.stdout)["values"]
    assert [(part["fraction"], part["again"]) for part in values["parts"]] == [(0.25, False), (1.0, True)]
    assert values["parts"][0]["images"] == pytest.approx(values["all"]["images"] / 4, rel=0.05)
    folder = tmp_path / "runs" / "parts"
    lines = {
        name: [json.loads(line) for line in (folder / name / "trials.jsonl").read_text().splitlines()]
        for name in ("images-25", "images-100", "again")
    }
    # The same networks on every part; and the second training alone is new.
    drawn = [[(line["width"], line["ops"], line["kernels"]) for line in some] for some in lines.values()]
    assert drawn[0] == drawn[1] == drawn[2][:4] == drawn[2][4:]
    assert [line.get("reused") for line in lines["again"]] == ["images-100"] * 4 + [None] * 4
    assert "Agreement with all images" in (folder / "report.html").read_text()
