"""The shipped facts of every bench against the tables they come from, and in the wheel."""

from __future__ import annotations

import subprocess
import sys
import zipfile

import pytest
from conftest import ROOT

from facenas.errors import UserError
from facenas.evaluation.benches import HQ, bench_names, find_bench

ADAFACE = "mk-minchul/AdaFace:README.md"
CVLFACE = "mk-minchul/CVLface:cvlface/pretrained_models/README.md"
# Each table's own last column: the mean of what stands before it, in its order of rows.
ADAFACE_AVERAGES = [0.9282, 0.9526, 0.9621, 0.9468, 0.9688, 0.9734, 0.9719, 0.9736, 0.9751, 0.9755]
CVLFACE_AVERAGES = [
    93.13, 92.76, 92.48, 92.13, 91.98, 91.76, 90.99, 90.90, 89.96, 91.48, 77.43, 89.55, 88.12, 72.40
]  # fmt: skip


def rows(name: str, source: str, loss: str = "") -> dict[str, dict[str, float]]:
    found = find_bench(name).published
    return {row.name: row.values for row in found if row.source == source and loss in row.model}


def test_every_file_is_a_bench_of_a_known_kind():
    assert set(HQ) <= set(bench_names())
    for name in bench_names():
        bench = find_bench(name)
        assert (bench.name, bench.kind in ("pairs", "people", "templates", "ranking")) == (name, True)
        assert bench.title
        assert bench.formula


@pytest.mark.parametrize(
    ("name", "pairs"),
    [
        ("lfw", 6000),
        ("cfp_fp", 7000),
        ("cfp_ff", 7000),
        ("agedb_30", 6000),
        ("calfw", 6000),
        ("cplfw", 6000),
    ],
)
def test_pair_benches(name, pairs):
    facts = find_bench(name)
    assert (facts.kind, facts.folds) == ("pairs", 10)
    assert facts.counts == {"pairs": pairs, "genuine": pairs // 2}
    assert facts.files[0] == f"{name}.bin"
    assert {f"{name}_ann.txt"} <= set(facts.lists)
    assert all(set(row.values) == {"accuracy"} for row in facts.published)


def test_template_and_ranking_benches():
    for name, sizes in (
        ("ijbb", (227_630, 12_115, 8_010_270, 10_270)),
        ("ijbc", (469_375, 23_124, 15_658_489, 19_557)),
    ):
        facts = find_bench(name)
        assert facts.kind == "templates"
        assert tuple(facts.counts[key] for key in ("images", "templates", "pairs", "genuine")) == sizes
        assert all(set(row.values) == {"tar_at_nearest_far@1e-4"} for row in facts.published)
    assert (
        find_bench("ijbc").counts["gallery_templates"] + find_bench("ijbc").counts["probe_templates"] == 23_124
    )
    tiny = find_bench("tinyface")
    assert tiny.kind == "ranking"
    assert tiny.counts["mates"] + tiny.counts["distractors"] == tiny.counts["gallery"] == 157_871
    assert (tiny.counts["probes"], tiny.counts["people"]) == (3728, 2569)
    assert all(set(row.values) == {"rank_1", "rank_5"} for row in tiny.published)


def test_rows_average_to_what_adaface_printed():
    tables = [rows(name, ADAFACE, "AdaFace") for name in HQ]
    assert len({tuple(table) for table in tables}) == 1  # the same models in the same order
    for model, printed in zip(tables[0], ADAFACE_AVERAGES, strict=True):
        mean = sum(table[model]["accuracy"] for table in tables) / 5
        assert mean == pytest.approx(printed, abs=1.01e-4), model


def test_rows_average_to_what_cvlface_printed():
    names = (*HQ, "ijbb", "ijbc", "tinyface")
    tables = [rows(name, CVLFACE) for name in names]
    assert len({tuple(table) for table in tables}) == 1
    for model, printed in zip(tables[0], CVLFACE_AVERAGES, strict=True):
        values = [value for table in tables for value in table[model].values()]
        assert len(values) == 9
        assert 100 * sum(values) / 9 == pytest.approx(printed, abs=0.0101), model


def test_some_rows_by_hand():
    assert rows("lfw", ADAFACE)["R18 AdaFace, CASIA-WebFace"] == {"accuracy": 0.9913}
    assert rows("cfp_fp", ADAFACE)["R18 AdaFace, CASIA-WebFace"] == {"accuracy": 0.9259}
    assert rows("cfp_fp", CVLFACE)["IR18 AdaFace, CASIA-WebFace"] == {"accuracy": 0.9493}
    assert rows("agedb_30", ADAFACE)["R50 ArcFace, CASIA-WebFace"] == {"accuracy": 0.9490}
    assert rows("ijbb", CVLFACE)["IR50 AdaFace, CASIA-WebFace"] == {"tar_at_nearest_far@1e-4": 0.4604}
    assert rows("ijbc", ADAFACE)["R100 AdaFace, WebFace12M"] == {"tar_at_nearest_far@1e-4": 0.9766}
    assert rows("tinyface", CVLFACE)["IR18 AdaFace, CASIA-WebFace"] == {
        "rank_1": 0.5620,
        "rank_5": 0.6143,
    }
    assert rows("tinyface", ADAFACE)["R100 AdaFace, MS1MV2"] == {"rank_1": 0.6821, "rank_5": 0.7154}


def test_every_value_is_a_fraction_and_every_source_a_file():
    for name in bench_names():
        for row in find_bench(name).published:
            assert all(0.2 < value < 1 for value in row.values.values())
            assert row.trained_on
            assert row.source in (ADAFACE, CVLFACE) or (row.macs or 0) < 7000  # of tables/light.yaml


def test_what_is_unknown_is_refused(tmp_path):
    with pytest.raises(
        UserError,
        match=r"bench megaface: is unknown; there are agedb_30, .*, tinyface, or give a YAML",
    ):
        find_bench("megaface")
    with pytest.raises(UserError, match=r"no\.yaml: cannot be read"):
        find_bench(tmp_path / "no.yaml")
    for text, fault in {
        "kind: faces\n": "kind of bench 'faces' is unknown; there are pairs, people, ranking, templates",
        "fold: 10\n": "fold: is not a known setting",
        "published: [{model: x, values: {}, source: a page}]\n": r"published\.0\.source: ",
    }.items():
        (tmp_path / "mine.yaml").write_text(text)
        with pytest.raises(UserError, match=rf"mine\.yaml: {fault}"):
            find_bench(tmp_path / "mine.yaml")
        (tmp_path / "mine.yaml").unlink()
    with pytest.raises(UserError, match="bench lfw: has no setting fusion; it has folds, lists, pairs"):
        find_bench("lfw", fusion="adaface")
    with pytest.raises(UserError, match="bench ijbc: fusion: "):
        find_bench("ijbc", fusion="sum")


def test_the_wheel_ships_them(tmp_path):
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "--wheel-dir", str(tmp_path), str(ROOT)], check=True, timeout=120)
    (wheel,) = tmp_path.glob("facenas-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        for name in bench_names():
            found = archive.read(f"facenas/eval_protocols/{name}.yaml")
            assert found == (ROOT / "eval_protocols" / f"{name}.yaml").read_bytes()
