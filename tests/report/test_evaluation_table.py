"""The table of an evaluation on a terminal of 80 columns."""

from __future__ import annotations

import pytest
from report_evaluations import pair_outcome, ranking_outcome, template_outcome

from facenas.cli.evaluation_table import print_results
from facenas.evaluation.benches import HQ, Pairs
from facenas.evaluation.benches.result import BenchResult


@pytest.fixture
def lines(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    """Prints outcomes and gives the lines back, their cells separated by single bars."""

    def printed(outcomes: list[BenchResult]) -> list[str]:
        monkeypatch.setenv("COLUMNS", "80")
        print_results(outcomes)
        shown = capsys.readouterr().out.splitlines()
        assert max(map(len, shown)) <= 80
        return ["|".join(cell.strip() for cell in line.split("│")) for line in shown]

    return printed


def test_ours_beside_the_best_published(lines) -> None:
    table = lines([pair_outcome(accuracy=0.99, std=0.004)])
    assert any(line.startswith("|lfw|accuracy|99.00 ± 0.40|99.85|-0.85|IR50") for line in table)
    assert any(line.startswith("||TAR, FAR ≤ 1e-4|") for line in table)


def test_all_kinds_fit(lines) -> None:
    outcomes = [pair_outcome(bench) for bench in HQ]
    table = lines([*outcomes, template_outcome(2000), ranking_outcome()])
    mean = sum(outcome.accuracy for outcome in outcomes) / 5
    assert f"|average|of the five|{100 * mean:.2f}||||" in table
    assert any(line.startswith("|ijbc|TAR at FAR 1e-4|") for line in table)
    assert "||TAR, FAR ≤ 1e-6|" in "\n".join(table)
    assert "||rank 20|97.50||||" in table


def test_without_published_figures(lines) -> None:
    table = lines([BenchResult(bench=Pairs("own", "pairs.txt"), accuracy=0.5)])
    assert "|own|accuracy|50.00|-|-|-|" in table
