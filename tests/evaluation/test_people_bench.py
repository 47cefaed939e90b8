"""The bench `pairs`: one's own people, from a list or drawn, with groups and qualities."""

from __future__ import annotations

import json
from itertools import combinations

import numpy as np
import pytest
from bench_files import encoded, face, write
from markupsafe import escape

import facenas
from facenas.cli.evaluation_table import print_results
from facenas.errors import UserError
from facenas.evaluation.benches import find_bench
from facenas.evaluation.benches.people_tables import read_own_pairs, read_table
from facenas.evaluation.metrics.discard import rank_correlation
from facenas.report import people, write_evaluation_page

PEOPLE, SHOTS = 24, 3


def embed(images: np.ndarray) -> np.ndarray:
    """Means of cells: the odd people are harder, see `shot`."""
    return images.reshape(len(images), 7, 16, 7, 16, 3).mean((2, 4)).reshape(len(images), -1) / 127.5 - 1


def shot(person: int, number: int) -> np.ndarray:
    coarse = np.random.default_rng([person, number]).normal(0, 60 + 90 * (person % 2), (7, 7, 3))
    return np.clip(face(person) + coarse.repeat(16, 0).repeat(16, 1), 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Crops of 24 people, three of each; half of the people, `odd`, vary more."""
    root = tmp_path_factory.mktemp("people")
    names = [f"p{person:02}/{number}.png" for person in range(PEOPLE) for number in range(SHOTS)]
    write(root / "crops", {n: encoded(shot(int(n[1:3]), int(n[4])), "png") for n in names})
    rows = [f"p{person:02},{'odd' if person % 2 else 'even'},all" for person in range(PEOPLE)]
    (root / "groups.csv").write_text("\n".join(["identity,parity,one", *rows]))
    (root / "quality.csv").write_text("image;noise\n" + "\n".join(f"{n};{-(int(n[1:3]) % 2)}" for n in names))
    listed = [f"{a},{b},{int(a[:3] == b[:3])}" for a, b in combinations(names, 2)]
    (root / "pairs.csv").write_text("\n".join(["image1,image2,same", *listed]))
    return root


@pytest.fixture(scope="module")
def drawn(home):
    """With everything."""
    tables = {"groups": home / "groups.csv", "quality": home / "quality.csv"}
    return facenas.evaluate(embed, "pairs", home / "crops", fmrs=(0.1, 1e-4), fmr=0.1, **tables)


def restated(home, threshold):
    """(wrong, same, people) of all pairs, by plain loops."""
    rows = {}
    for person in range(PEOPLE):
        for number in range(SHOTS):
            image = shot(person, number)[None]
            rows[person, number] = (embed(image) + embed(image[:, :, ::-1]))[0]
    found = [
        (float(x @ y / np.linalg.norm(x) / np.linalg.norm(y)), a[0] == b[0], (a[0], b[0]))
        for (a, x), (b, y) in combinations(rows.items(), 2)
    ]
    return [((score > threshold) != same, same, who) for score, same, who in found]


def test_all_that_is_told(home, drawn):
    assert (drawn.genuine, drawn.impostors, drawn.people, drawn.images) == (72, 2484, 24, 72)  # all there are
    wanted = restated(home, drawn.threshold_cosine)
    for same, rate in ((True, drawn.fnmr), (False, drawn.fmr)):
        wrong = [one for one, kind, _ in wanted if kind == same]
        assert (rate.errors, rate.pairs) == (sum(wrong), len(wrong))
        assert rate.low < rate.value < rate.high
    assert drawn.fmr.value <= 0.1
    point = drawn.points[1]
    assert (point.wanted, point.carried, point.fmr.errors) == (1e-4, False, 0)
    assert "an FMR of 0.0001 cannot be shown: of 276 pairs of different people" in drawn.warnings[0]
    assert drawn.calibration.cllr[drawn.calibration.method] < 0.7
    told = json.loads(json.dumps(drawn.to_json()))
    assert told["points"][0]["fnmr"]["high"] == drawn.points[0].fnmr.high
    assert told["calibration"]["reliability"]["error"] == drawn.calibration.reliability.error


def test_the_group_that_varies_more_is_found(home, drawn):
    parity, one = drawn.groups
    wanted = restated(home, drawn.threshold_cosine)
    for rate in parity.fnmr:
        wrong = [w for w, same, who in wanted if same and who[0] % 2 == (rate.group == "odd")]
        assert rate.rate.value == pytest.approx(np.mean(wrong))
    for rate in parity.fmr:
        inside = [w for w, same, who in wanted if not same and {a % 2 for a in who} == {rate.group == "odd"}]
        assert (rate.rate.errors, rate.rate.pairs) == (sum(inside), len(inside))
    assert parity.fnmr_gap.highest == "odd"
    assert all(rate.differs for rate in parity.fnmr)
    assert (one.fnmr_gap, one.fnmr[0].p, one.fnmr[0].rate.pairs) == (None, None, 72)  # nothing to compare with


def test_quality_that_tells_errors(drawn):
    norm, noise = drawn.quality
    assert (norm.name, noise.name, noise.pairs) == ("norm", "noise", 72)
    assert noise.discard.discarded.tolist() == [0.0, 0.5]  # two values: half of the pairs at once
    assert noise.discard.rate[1] < noise.discard.rate[0]
    assert noise.discard.change is None  # a fifth cannot be left out
    assert -1 <= noise.with_norm <= 1


def test_the_length_of_unit_vectors_is_no_quality(home, tmp_path):
    """Nor is that of a sum of two: it tells how alike image and mirror image are."""

    def unit(images: np.ndarray) -> np.ndarray:
        return embed(images) / np.linalg.norm(embed(images), axis=1, keepdims=True)

    found = facenas.evaluate(unit, "pairs", home / "crops", quality=home / "quality.csv")
    assert [(one.name, one.with_norm) for one in found.quality] == [("noise", None)]
    assert any("embeddings have one length" in said for said in found.warnings)
    plain = facenas.evaluate(unit, "pairs", home / "crops")
    page = write_evaluation_page(tmp_path, {"name": "unit"}, [plain]).read_text(encoding="utf-8")
    assert plain.quality == ()
    assert "Error versus discard" not in page
    assert "embeddings have one length" in page
    assert rank_correlation(np.ones(3), np.arange(3.0)) is None


def test_a_list_of_ones_own_is_the_same_as_all_drawn(home, drawn):
    listed = facenas.evaluate(embed, "pairs", home / "crops", pairs=home / "pairs.csv", fmrs=(0.1,), fmr=0.1)
    assert (listed.fnmr, listed.fmr.value) == (drawn.fnmr, drawn.fmr.value)
    assert listed.threshold_cosine == drawn.threshold_cosine
    given = facenas.evaluate(embed, "pairs", home / "crops", pairs=home / "pairs.csv", threshold=0.5)
    assert given.threshold_cosine == 0.5


def test_a_store_of_faces_and_groups_of_images(home, faces, tmp_path):
    found = facenas.evaluate(embed, "pairs", faces, impostors=500)
    assert (found.images, found.people, found.genuine, found.impostors) == (112, 14, 14 * 28, 500)
    names = [f"p{person:02}/{number}.png" for person in range(PEOPLE) for number in range(SHOTS)]
    rows = [f"{name},{'front' if name[4] < '2' else 'side'}" for name in names]
    (tmp_path / "views.csv").write_text("\n".join(["image,view", *rows]))
    (table,) = facenas.evaluate(embed, "pairs", home / "crops", groups=tmp_path / "views.csv").groups
    (front,) = table.fnmr  # of `side` everybody has one image
    assert (front.group, front.rate.pairs, table.fnmr_gap) == ("front", PEOPLE, None)
    assert [(one.group, one.rate.people) for one in table.fmr] == [("front", PEOPLE), ("side", PEOPLE)]


def test_draws_are_spread_and_repeat(home):
    read = [
        find_bench("pairs", genuine=24, impostors=276, seed=s).protocol.read(home / "crops") for s in (1, 1, 2)
    ]
    first, again, other = read
    assert np.array_equal(first.pairs, again.pairs)
    assert not np.array_equal(first.pairs, other.pairs)
    assert np.bincount(first.people[first.pairs[first.same]][:, 0]).tolist() == [1] * PEOPLE
    of_two = first.people[first.pairs[~first.same]]
    assert len(np.unique(np.sort(of_two), axis=0)) == 276  # every two people once


def test_people_of_a_list_without_folders(tmp_path):
    """Genuine pairs put images together; a column says it in their place."""
    write(tmp_path / "flat", {f"{n}.png": encoded(face(n), "png") for n in range(6)})
    (tmp_path / "a.csv").write_text(
        "path1,path2,label\n0.png,1.png,1\n1.png,2.png,1\n3.png,4.png,yes\n0.png,5.png,no\n"
    )
    found = find_bench("pairs", pairs=tmp_path / "a.csv").protocol.read(tmp_path / "flat")
    people = dict(zip(found.names, found.people.tolist(), strict=True))
    assert people["0.png"] == people["2.png"] != people["3.png"] == people["4.png"]
    assert len(set(people.values())) == 3
    text = "image1\timage2\tidentity1\tidentity2\n0.png\t1.png\tann\tann\n0.png\t5.png\tann\tbob\n"
    (tmp_path / "b.csv").write_text(text, encoding="utf-8-sig")
    found = find_bench("pairs", pairs=tmp_path / "b.csv").protocol.read(tmp_path / "flat")
    assert (found.identities, found.same.tolist()) == (["ann", "ann", "bob"], [True, False])


def listed_people(folder, text):
    """Names of images by the person that a list of pairs puts them to, in order, and warnings."""
    (folder / "list.csv").write_text(text, encoding="utf-8")
    names = sorted({cell for line in text.split() for cell in line.split(",") if cell.endswith(".png")})
    write(folder / "crops", {name: encoded(face(0), "png") for name in names})
    found = find_bench("pairs", pairs=folder / "list.csv").protocol.read(folder)
    told: dict[int, str] = {}
    for name, person in zip(found.names, found.people.tolist(), strict=True):
        told[person] = f"{told.get(person, '')} {name}".strip()
    return list(told.values()), found


FLAT = "crops/a1.png,crops/a2.png,1\ncrops/b1.png,crops/b2.png,1\ncrops/a1.png,crops/b1.png,0\n"
FACING = "enrol/a.png,probe/a.png,1\nenrol/b.png,probe/b.png,1\nenrol/a.png,probe/b.png,0\n"
BLANK = "crops/1.png,crops/2.png,0,ann,bob\ncrops/2.png,crops/3.png,0,bob,\ncrops/3.png,crops/4.png,1,,\n"


@pytest.mark.parametrize(
    ("head", "text", "people", "called"),
    [
        ("", FLAT, ["crops/a1.png crops/a2.png", "crops/b1.png crops/b2.png"], "crops/a1.png"),
        ("", FACING, ["enrol/a.png probe/a.png", "enrol/b.png probe/b.png"], "enrol/a.png"),
        (
            ",identity1,identity2",
            BLANK,
            ["crops/1.png", "crops/2.png", "crops/3.png crops/4.png"],
            "ann",
        ),
    ],
)
def test_people_who_share_folders_stay_apart(tmp_path, head, text, people, called):
    told, found = listed_people(tmp_path, f"image1,image2,same{head}\n{text}")
    assert (told, found.identities[0]) == (people, called)
    assert "folders do not tell who is who" in found.warnings[0]


def test_listed_identities_and_folders_go_together(tmp_path):
    text = "image1,image2,same,identity1,identity2\nx/1.png,y/1.png,0,ann,\nx/2.png,z/1.png,1,,ann\n"
    told, found = listed_people(tmp_path, text)
    assert told == ["x/1.png x/2.png z/1.png", "y/1.png"]
    assert (found.identities, found.warnings) == (["ann", "y", "ann", "ann"], ())


def test_a_person_is_the_folder_at_the_top(tmp_path):
    """Of folders below folders, nobody knows who they are."""
    names = [
        f"{who}/{part}{number}.png" for who in ("ann", "bob") for part in ("", "old/") for number in (1, 2)
    ]
    write(tmp_path / "deep", {name: encoded(face(0), "png") for name in names})
    with pytest.raises(UserError, match="old/ lies in ann/ and in bob/"):
        find_bench("pairs").protocol.read(tmp_path / "deep")
    for name in ("old/1.png", "old/2.png"):
        (tmp_path / "deep" / "bob" / name).unlink()
    found = find_bench("pairs").protocol.read(tmp_path / "deep")
    assert found.identities == ["ann"] * 4 + ["bob"] * 2


def test_accents_in_two_spellings_are_one(tmp_path):
    """On macOS, folders have an accent as a letter of its own."""
    names = [f"{who}/{number}.png" for who in ("Jose\u0301", "Zoe") for number in (1, 2)]
    write(tmp_path / "crops", {name: encoded(face(0), "png") for name in names})
    (tmp_path / "groups.csv").write_text("identity,sex\nJos\u00e9,m\nZoe,f\n", encoding="utf-8")
    (tmp_path / "quality.csv").write_text("image,sharp\nJos\u00e9/1.png,3\n", encoding="utf-8")
    (tmp_path / "pairs.csv").write_text(
        "image1,image2,identity1,identity2\n"
        + f"{names[0]},{names[1]},Jos\u00e9,Jose\u0301\n{names[1]},{names[2]},Jos\u00e9,Zoe\n",
        encoding="utf-8",
    )
    for pairs in (None, tmp_path / "pairs.csv"):
        tables = {"groups": tmp_path / "groups.csv", "quality": tmp_path / "quality.csv"}
        found = find_bench("pairs", pairs=pairs, **tables).protocol.read(tmp_path / "crops")
        assert found.columns["sex"].tolist()[:3] == ["m", "m", "f"]
        assert found.quality["sharp"][0] == 3


LISTS = {
    "image1,image2,same\np00/0.png,p00/1.png,1\n": "all 1 pairs are genuine",
    "image1,image2,same\np00/0.png,p77/1.png,0\n": r"p77/1\.png is missing",
    "image1,image2,same\np00/0.png,p00/1.png,perhaps\n": "line 2 says 'perhaps' where 1 or 0",
    "image1;image2;same\np00/0.png;p00/0.png;1\n": "line 2 compares p00/0.png with itself",
    "image1,image2,same\na,b,1\nb,a,0\n": "lines 2 and 3 call b and a the same and different",
    "image1,image2,identity1,identity2\na,b,ann,\n": "line 2 lacks an identity",
    "image1,image2,same,identity1,identity2\na,b,0,ann,bob\na,c,1,,\nb,c,1,,\n": "line 2 calls a and b diff",
    "image1,image2,same,identity1,identity2\na,d,0,ann,z\nb,d,0,bob,z\na,b,1,,\n": "a is ann and b is bob, but",
    "image1,image2,same\na,b\n": "line 2 has 2 cells where the first line has 3",
    "x,y\n1,2\n": "first line should name the columns image1,image2,same",
    "image1,image2,same\n": "lists no pairs",
    "\n": "is empty",
    "image1,image2,same\nx/1,y/1,1\ny/1,z/1,1\nx/1,z/1,0\n": "line 4 calls x/1 and z/1 different, but other",
}
TABLES = {
    "sex\n": "needs a first line of column names",
    "identity,sex\np00,f\np00,m\n": "lines 2 and 3 say different things of p00",
    "identity,sex\nnobody,f\n": "its first column names neither identities nor images",
    "identity,sex,sex\np00,f,f\n": "column name twice",
}


@pytest.mark.parametrize("text", LISTS)
def test_faults_of_a_list_are_one_sentence(home, tmp_path, text):
    (tmp_path / "list.csv").write_text(text)
    with pytest.raises(UserError, match=LISTS[text]) as caught:
        facenas.evaluate(embed, "pairs", home / "crops", pairs=tmp_path / "list.csv")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", TABLES)
def test_faults_of_a_table_are_one_sentence(home, tmp_path, text):
    (tmp_path / "table.csv").write_text(text)
    with pytest.raises(UserError, match=TABLES[text]):
        find_bench("pairs", groups=tmp_path / "table.csv").protocol.read(home / "crops")


def test_what_is_missing_is_left_out_and_said(home, tmp_path):
    (tmp_path / "groups.csv").write_text("\ufeffidentity\tsex\np00\tf\np00\tf\np01\t\n")
    (tmp_path / "quality.csv").write_text("image,sharp\np00/0.png,3\np00/1.png,NaN\np00/2.png,1e2\n")
    tables = {"groups": tmp_path / "groups.csv", "quality": tmp_path / "quality.csv"}
    found = find_bench("pairs", **tables).protocol.read(home / "crops")
    assert found.columns["sex"].tolist() == ["f"] * 3 + [""] * 69
    assert np.isfinite(found.quality["sharp"]).nonzero()[0].tolist() == [0, 2]
    assert "no row for 22 of the 24 identities, such as p02" in found.warnings[0]
    (tmp_path / "quality.csv").write_text("image,sharp\np00/0.png,blurred\n")
    with pytest.raises(UserError, match="sharp 'blurred' is no number"):
        find_bench("pairs", **tables).protocol.read(home / "crops")
    (tmp_path / "twice.csv").write_text("image1,image2,same\na,b,1\nb,a,1\n")
    assert "lists 1 of its pairs again" in read_own_pairs(tmp_path / "twice.csv")[1][0]
    assert read_table(tmp_path / "groups.csv").columns == ("sex",)


def test_data_without_people(tmp_path):
    write(tmp_path / "flat", {"1.png": encoded(face(1), "png")})
    with pytest.raises(UserError, match="has no images of <identity>/<image>"):
        facenas.evaluate(embed, "pairs", tmp_path / "flat")
    write(tmp_path / "one", {"a/1.png": encoded(face(1), "png"), "a/2.png": encoded(face(2), "png")})
    with pytest.raises(UserError, match="2 images make no pair of two people"):
        facenas.evaluate(embed, "pairs", tmp_path / "one")


def test_page_and_terminal_say_the_same(drawn, tmp_path, capsys):
    page = write_evaluation_page(tmp_path, {"name": "cells"}, [drawn]).read_text(encoding="utf-8")
    print_results([drawn], {})
    shown = " ".join(capsys.readouterr().out.split())
    (parity, _, _), (one, (part, *_), _) = people.page(drawn)["groups"]
    assert (parity, one) == ("parity", "one")
    assert part.summary == "Fewer than two groups have 10 people or more: nothing is compared."
    for words in (people.summary(drawn), people.calibration(drawn.calibration), *people.qualities(drawn)):
        assert " ".join(words.split()) in shown
        assert str(escape(words)) in page
    assert page.count("higher than the others") >= 1
    charts = ("reliability", "probability", "discard", "FNMR-0", "FMR-0", "FNMR-1")
    assert all(f'id="figure-pairs-{name}"' in page for name in charts)
    assert page.count("Face image ") == 2 * len(drawn.mistakes) > 0
