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

    def printed(outcomes: list[BenchResult], **network: float) -> list[str]:
        monkeypatch.setenv("COLUMNS", "80")
        print_results(outcomes, network)
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


def test_networks_of_nearly_its_size_by_train_set(lines) -> None:
    table = lines([pair_outcome(bench) for bench in HQ], parameters=1.2e6, macs=200e6)
    shown = table[next(i for i, line in enumerate(table) if "of nearly this size" in line) :]
    assert any(line.startswith("|this one|1.2 M|200 M|91.00|") for line in shown)
    starts = [line.split("|")[2] for line in shown if line.count("|") == 9 and line.split("|")[2]]
    named = [line.split("|")[1] for line in shown if line.count("|") == 9]
    sets = [name for name in named if name.startswith(("CASIA", "MS"))]
    assert sets[:3] == ["CASIA-WebFace"] * 3
    assert "CASIA-WebFace" not in sets[3:]
    assert len(sets) == 6
    assert starts[1:4] == ["1 M", "24 M", "24 M"]
    said = " ".join(line.strip() for line in shown)
    assert "MS1MV2 contains 46.93 % of the identities of Labeled Faces in the Wild" in said
    assert "compare within one" in said


def test_both_families_of_ijbc_on_casia(lines) -> None:
    text = "\n".join(lines([template_outcome(2000)], parameters=43e6, macs=6.3e9))
    assert text.count("|CASIA-WebFace|") == 3
    assert {"52.97", "87.22"} <= set(text.replace("\n", "|").split("|"))
    assert "37 to 53 % (CVLface) and 85 to 87 %" in " ".join(text.split())


def test_of_unknown_size_no_neighbours_are_told(lines) -> None:
    assert not any("nearly this size" in line for line in lines([pair_outcome()]))
