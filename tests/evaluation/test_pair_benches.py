"""Pair benches out of folders and .zip files: lists in three forms, wherever they lie."""

from __future__ import annotations

import pickle
import shutil
import zipfile
from unicodedata import normalize

import numpy as np
import pytest
from bench_files import SHARED, encoded, face, faces, read_pairs, write

from facenas.errors import UserError
from facenas.evaluation.benches import BenchNotThereError, find_bench

PEOPLE = [f"P_{i}" for i in range(6)]
IMAGES = [f"{name}/{name}_{number:04d}.jpg" for name in PEOPLE for number in (1, 12)]
PAIRS_TXT = "3\t2\n" + "".join(
    f"P_{2 * f}\t1\t12\nP_{2 * f + 1}\t1\t12\n"
    f"P_{2 * f}\t1\tP_{2 * f + 1}\t12\nP_{2 * f}\t12\tP_{2 * f + 1}\t1\n"
    for f in range(3)
)
ANNOTATION = "".join(f"{i % 2} {IMAGES[i]} {IMAGES[(5 * i + 1) % 12]}\n" for i in range(12))
ANNOTATION_AFTER = "".join(
    f"{first} {second} {label}\n" for label, first, second in map(str.split, ANNOTATION.splitlines())
)


@pytest.fixture(params=["lfw_112x112", "lfw.zip", "mine", "mine.zip"])
def place(request, tmp_path):
    return tmp_path / "data" / request.param


def written(place, extra=None):
    """The images at `place`, with other files among them."""
    place.parent.mkdir(exist_ok=True)
    return write(place, faces(IMAGES) | {n: t.encode() for n, t in (extra or {}).items()})


def pair_names(found):
    return [(found.names[a], found.names[b]) for a, b in found.pairs]


def check_lfw(found):
    expected = [line.split("\t") for line in PAIRS_TXT.splitlines()[1:]]
    rows = [w if len(w) == 4 else [w[0], w[1], w[0], w[2]] for w in expected]
    paths = [tuple(f"{p}/{p}_{int(i):04d}.jpg" for p, i in (w[:2], w[2:])) for w in rows]
    assert pair_names(found) == paths
    assert found.same.tolist() == [len(w) == 3 for w in expected]
    assert (found.folds, len(found.images)) == (3, 12)
    first = found.images.read(found.pairs[0])[1].astype(int)
    assert np.abs(first - face(IMAGES.index(paths[0][1]))).max() < 12


def test_pairs_txt_given_among_the_images_or_beside_them(place):
    given = place.parent.parent / "any name"
    given.write_text(PAIRS_TXT)
    check_lfw(read_pairs("calfw", written(place), given))
    check_lfw(read_pairs("lfw", written(place, {"pairs.txt": PAIRS_TXT})))
    (place.parent / "lfw_pairs.txt").write_text(PAIRS_TXT)
    shutil.rmtree(place) if place.is_dir() else place.unlink()
    check_lfw(read_pairs("lfw", written(place)))


def test_annotations(place):
    for bench, name in (("lfw", "lfw_ann.txt"), ("agedb_30", "agedb_30_ann.txt")):
        found = read_pairs(bench, written(place, {name: ANNOTATION}))
        assert pair_names(found) == [tuple(row.split()[1:]) for row in ANNOTATION.splitlines()]
        assert found.same.tolist() == [False, True] * 6
        assert found.folds == 10
    windows = ANNOTATION.replace("/", "\\").replace("\n", "\r\n").replace(" P_", " lfw_112x112\\P_")
    (place.parent / "a.txt").write_text(windows, encoding="utf-8-sig")
    assert len(read_pairs("cplfw", written(place), place.parent / "a.txt").images) == 12


def test_rows_with_the_label_last(tmp_path):
    images = write(tmp_path / "in", faces(IMAGES))
    found = []
    for name, text in (("before.txt", ANNOTATION), ("after.txt", ANNOTATION_AFTER)):
        (tmp_path / name).write_text(text)
        found.append(read_pairs("lfw", images, tmp_path / name))
    assert pair_names(found[0]) == pair_names(found[1])
    assert found[0].same.tolist() == found[1].same.tolist()


def test_images_deeper_and_of_another_ending(tmp_path):
    contents = {f"top/crops/{n[:-3]}png": encoded(face(i), "png") for i, n in enumerate(IMAGES)}
    check_lfw(read_pairs("lfw", write(tmp_path / "x.zip", contents | {"top/pairs.txt": PAIRS_TXT.encode()})))


def test_one_folder_of_all_benches(tmp_path):
    """Each bench under its own name; what is not there is told from what is faulty."""
    root = tmp_path / "benches"
    items = [encoded(face(i)) for i in range(4)]
    write(root, {"cplfw.bin": pickle.dumps((items, [True, False]))})
    write(root, {"faces/calfw.bin": pickle.dumps((items[:2], [True]))})
    write(root / "lfw" / "lfw_112x112", faces(IMAGES))
    (root / "lfw" / "pairs.txt").write_text(PAIRS_TXT)
    write(root / "agedb_30", faces(IMAGES) | {"pairs.txt": PAIRS_TXT.encode()})
    check_lfw(read_pairs("lfw", root))
    check_lfw(read_pairs("agedb_30", root))
    assert len(read_pairs("cplfw", root).same) == 2
    assert len(read_pairs("calfw", root / "faces").same) == 1
    for bench in ("cfp_fp", "calfw"):
        with pytest.raises(BenchNotThereError, match=f"has nothing of .* looked for {bench}.bin, "):
            read_pairs(bench, root)
    with pytest.raises(BenchNotThereError):  # a pairs.txt there is LFW's
        read_pairs("calfw", root / "lfw")
    write(root, {"lfw.bin": b"torn"})
    with pytest.raises(UserError, match=r"lfw\.bin: is not an InsightFace") as raised:
        read_pairs("lfw", root)
    assert not isinstance(raised.value, BenchNotThereError)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (PAIRS_TXT + "P_0\t1\t12\n", "has 13 pairs, but its first line says 12 in 3 folds"),
        (PAIRS_TXT.replace("P_1\t1\t12", "P_1\t1"), r"line 3 is not a pair: 'P_1\\t1'"),
        (PAIRS_TXT.replace("P_1\t1\t12", "P_1\tone\t2"), "line 3 is not a pair"),
        ("1\t1\nP_0\t1\t12\nP_0\t1\tP_1\t1\n", "in 1 folds"),
        (ANNOTATION + "2 a b\n", "line 13 is not `label path1 path2`"),
        (ANNOTATION + "1 a\n", "line 13 is not `label path1 path2`"),
        ("", "is no list of pairs"),
        ("P_0/P_0_0001.jpg P_1/P_1_0001.jpg yes\n", "is no list of pairs"),
        (ANNOTATION_AFTER + "a b 2\n", "line 13 is not `path1 path2 label`"),
        ("3\t2\n", "has 0 pairs, but its first line says 12"),
        (PAIRS_TXT.replace("P_0\t1\tP_1\t12", "P_0\t1\tP_0\t12"), "line 4 has one person where two are needed"),
        (PAIRS_TXT.replace("P_1\t1\t12", "P_1\t1\t1"), "line 3 compares an image with itself"),
        (
            PAIRS_TXT.replace("P_0\t1\tP_1\t12", "P_2\t1\t12"),
            "the fold from line 2 on holds 3 pairs of one person",
        ),
        (f"1 {IMAGES[0]} {IMAGES[1]}\n0 {IMAGES[1]} {IMAGES[0]}\n", "lines 1 and 2 call one pair the same and"),
        ("a.jpg 1\nb.jpg 1\nc.jpg 1\n", "has 3 lines, where two make a pair"),
        ("a.jpg 1\nb.jpg 0\n", "lines 1 and 2 make a pair, but have other labels"),
        ("a.jpg 1\nb.jpg\n", "line 2 is not `image label`"),
    ],
)
def test_faulty_lists(tmp_path, text, fault):
    (tmp_path / "list.txt").write_text(text)
    with pytest.raises(UserError, match=rf"list\.txt: .*{fault}"):
        read_pairs("lfw", write(tmp_path / "in", faces(IMAGES)), tmp_path / "list.txt")


def test_other_faults(tmp_path):
    images = write(tmp_path / "in", faces(IMAGES))
    listed = write(tmp_path, {"list.txt": PAIRS_TXT.encode(), "picture.txt": encoded(face(0))})
    with pytest.raises(UserError, match=r"picture.txt cannot be read \(it is no text\)"):
        read_pairs("lfw", images, listed / "picture.txt")
    with pytest.raises(UserError, match=r"no\.txt: does not exist"):
        read_pairs("lfw", images, tmp_path / "no.txt")
    with pytest.raises(UserError, match="nowhere: does not exist"):
        read_pairs("lfw", tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"has no Pair_list_F\.txt"):
        read_pairs("lfw", images, images)
    with pytest.raises(UserError, match=r"holds its own pairs; leave out .*list\.txt"):
        read_pairs("lfw", write(tmp_path, {"a.bin": b""}) / "a.bin", tmp_path / "list.txt")
    with pytest.raises(UserError, match=r"bench ijb: is unknown; there are .*lfw"):
        read_pairs("ijb", images)
    with pytest.raises(UserError, match=r"bench ijbb: has no setting pairs; it has folder, fusion"):
        read_pairs("ijbb", images)
    for name in IMAGES[2:4]:
        (images / name).unlink()
    with pytest.raises(UserError, match=r"in: P_1/P_1_0001\.jpg is missing; in all 2 of the 12 images that"):
        read_pairs("lfw", images, tmp_path / "list.txt")
    with pytest.raises(BenchNotThereError, match="holds none of the 12 images"):
        read_pairs("lfw", write(tmp_path / "else", faces(["a/1.jpg"])), tmp_path / "list.txt")


def cfp_protocol(folds=3, pairs=4):
    """A protocol of 12 frontal images and 6 profiles, and its FP pairs as numbers."""
    rng = np.random.default_rng(0)
    files = {
        f"Protocol/Pair_list_{letter}.txt": "".join(
            f"{n} ../Data/Images/{(n - 1) // each + 1:03d}/{side}/{(n - 1) % each + 1:02d}.jpg\n"
            for n in range(1, 3 * each + 1)
        )
        for letter, side, each in (("F", "frontal", 4), ("P", "profile", 2))
    }
    drawn = {}
    for part, top in (("FP", 6), ("FF", 12)):
        for fold in range(1, folds + 1):
            for kind in ("same", "diff"):
                rows = np.column_stack([rng.integers(1, 13, pairs), rng.integers(1, top + 1, pairs)])
                files[f"Protocol/Split/{part}/{fold:02d}/{kind}.txt"] = "".join(f"{i},{j}\n" for i, j in rows)
                drawn[part] = [
                    *drawn.get(part, []),
                    *((i, j, kind == "same") for i, j in rows.tolist()),
                ]
    return {name: text.encode() for name, text in files.items()}, drawn


CFP_IMAGES = [
    f"{person:03d}/{side}/{number:02d}.jpg"
    for person in (1, 2, 3)
    for side, each in (("frontal", 4), ("profile", 2))
    for number in range(1, each + 1)
]


@pytest.mark.parametrize("given", ["as handed out", "beside", "beside.zip", "given folder", "given.zip"])
def test_cfp(tmp_path, given):
    protocol, drawn = cfp_protocol()
    pictures, images, listed = faces(CFP_IMAGES), tmp_path / "cfp", None
    if given == "as handed out":
        write(
            tmp_path / "cfp-dataset",
            {f"Data/Images/{n}": v for n, v in pictures.items()} | protocol,
        )
        images = tmp_path
    elif given.startswith("beside"):
        write(images, pictures)
        write(tmp_path / "cfp_protocol.zip" if given.endswith("zip") else tmp_path, protocol)
    else:
        write(images, {f"Data/Images/{n}": v for n, v in pictures.items()})
        listed = write(tmp_path / ("p.zip" if given.endswith("zip") else "elsewhere"), protocol)
    for bench, part in (("cfp_fp", "FP"), ("cfp_ff", "FF")):
        found = read_pairs(bench, images, listed)
        assert found.folds == 3
        assert found.same.tolist() == [same for *_, same in drawn[part]]
        frontal = [n for n in CFP_IMAGES if "frontal" in n]
        second = [n for n in CFP_IMAGES if "profile" in n] if part == "FP" else frontal
        wanted = [(frontal[i - 1], second[j - 1]) for i, j, _ in drawn[part]]
        assert [tuple(x.removeprefix("Data/Images/") for x in pair) for pair in pair_names(found)] == wanted
        pixels = found.images.read(found.pairs[5])
        for row, name in enumerate(wanted[5]):
            assert np.abs(pixels[row].astype(int) - face(CFP_IMAGES.index(name))).max() < 12


@pytest.mark.parametrize(
    ("name", "text", "fault"),
    [
        ("Pair_list_P.txt", None, r"Pair_list_P\.txt cannot be read"),
        ("Pair_list_F.txt", "one two\n", "has a faulty row: 'one two'"),
        ("Split/FP/02/diff.txt", None, r"02/diff\.txt cannot be read"),
        ("Split/FP/02/diff.txt", "1,99\n", r"02/diff\.txt has a pair of numbers without image"),
        ("Split/FP/02/diff.txt", "1 2\n", "has a faulty row"),
        (
            "Split/FP/02/diff.txt",
            "1,2\n",
            "folds of .8, 5, 8. pairs where two or more of equal size",
        ),
    ],
)
def test_faulty_cfp_protocols(tmp_path, name, text, fault):
    protocol, _ = cfp_protocol()
    protocol.pop(f"Protocol/{name}")
    protocol |= {} if text is None else {f"Protocol/{name}": text.encode()}
    images = write(tmp_path / "cfp", faces(CFP_IMAGES))
    for listed in (write(tmp_path / "p.zip", protocol), write(tmp_path / "p", protocol)):
        with pytest.raises(UserError, match=fault):
            read_pairs("cfp_fp", images, listed)
    with pytest.raises(UserError, match="holds the protocol of CFP, which is not that of this bench"):
        read_pairs("calfw", images, listed)


def test_the_official_cfp_protocol(tmp_path):
    protocol = SHARED / "cfp_protocol.zip"
    if not protocol.is_file():
        pytest.skip("needs CFP's protocol in ../shared")
    picture = encoded(face(0))
    with zipfile.ZipFile(tmp_path / "cfp.zip", "w") as archive:
        for person in range(1, 501):
            for side, each in (("frontal", 10), ("profile", 4)):
                for number in range(1, each + 1):
                    archive.writestr(f"{person:03d}/{side}/{number:02d}.jpg", picture)
    found = read_pairs("cfp_fp", tmp_path / "cfp.zip", protocol)
    assert (found.pairs.shape, found.folds) == ((7000, 2), 10)
    np.testing.assert_array_equal(found.same.reshape(10, 2, 350).all(axis=2), [[True, False]] * 10)
    people = np.array([[found.names[i].split("/")[2] for i in pair] for pair in found.pairs])
    np.testing.assert_array_equal(people[:, 0] == people[:, 1], found.same)
    assert all("frontal" in found.names[a] and "profile" in found.names[b] for a, b in found.pairs)


def test_real_lfw():
    if not (SHARED / "lfw_112x112.zip").is_file():
        pytest.skip("needs LFW in ../shared")
    found = read_pairs("lfw", SHARED)
    assert (found.pairs.shape, found.folds, len(found.images)) == ((6000, 2), 10, 7701)
    np.testing.assert_array_equal(found.same.reshape(10, 2, 300).all(axis=2), [[True, False]] * 10)
    people = np.array([[found.names[i].split("/")[0] for i in pair] for pair in found.pairs])
    np.testing.assert_array_equal(people[:, 0] == people[:, 1], found.same)
    assert found.images.read(np.arange(0, 7701, 100)).mean() == pytest.approx(113, abs=5)


def test_official_lists_of_calfw_with_all_pairs_of_one_person_first(tmp_path):
    """Two lines a pair; label: the fold of a pair of one person, 0 of two."""
    names = [f"P\u00e9_{i}_{number:04d}.jpg" for i in range(20) for number in (1, 2)]
    decomposed = {normalize("NFD", name): data for name, data in faces(names).items()}
    same = "".join(f"{name} {1 + i // 4}\n" for i, name in enumerate(names))
    other = "".join(f"{names[2 * i]} 0\n{names[(2 * i + 3) % 40]} 0\n" for i in range(20))
    root = write(tmp_path / "calfw", decomposed | {"pairs_CALFW.txt": (same + other).encode()})
    found = read_pairs("calfw", root)
    assert found.folds == 10
    assert found.same.tolist() == [True, True, False, False] * 10
    assert pair_names(found)[:3] == [(names[0], names[1]), (names[2], names[3]), (names[0], names[3])]


def test_capitals_in_endings(tmp_path):
    write(tmp_path, {"LFW.BIN": pickle.dumps(([encoded(face(i)) for i in range(4)], [True, False]))})
    assert read_pairs("lfw", tmp_path).same.tolist() == [True, False]
    assert len(read_pairs("lfw", tmp_path / "LFW.BIN").images) == 4


def test_other_counts_than_official_and_embeddings_that_tell_nothing(tmp_path):
    images = [encoded(face(i)) for i in range(40)]
    write(tmp_path, {"lfw.bin": pickle.dumps((images, [True, False] * 10))})
    rows = np.random.default_rng(0).normal(size=(40, 4))
    result = find_bench("lfw").measure(tmp_path, lambda found: rows)
    told = "lfw: 20 pairs where the official bench has 6,000, 10 genuine where the official bench has 3,000"
    assert result.warnings[0].startswith(told)
    for spoilt, fault in (
        (rows * (np.arange(40) != 7)[:, None], "zero, first in row 7"),
        (rows * 0 + 1, "the same"),
    ):
        with pytest.raises(UserError, match=f"lfw cannot be measured: embeddings .*{fault}"):
            find_bench("lfw").measure(tmp_path, lambda found, spoilt=spoilt: spoilt)
