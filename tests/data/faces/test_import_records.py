"""Importing RecordIO: labels as they are, memory that does not grow, faults that leave nothing."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from face_files import MAGIC, decoded, framed, insightface, jpeg, payload, write_records

from facenas.data.faces.importing import import_faces
from facenas.data.faces.store import check, open_store
from facenas.errors import UserError

REAL_ZIP = Path(__file__).parents[3].parent / "shared/data/faces/celeba_299ids_112x112.zip"


def with_comment(image, comment):
    """The same JPEG with a comment, so that its bytes can hold the magic where we want it."""
    return image[:2] + b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment + image[2:]


def make(folder, count=12):
    """A RecordIO folder of `count` faces; returns the (label, JPEG) pairs."""
    images = []
    for i in range(count):
        comment = b"x" * (i % 4) + MAGIC * (i % 3) + b"y" * i + MAGIC
        images.append(((7 * i) % 4, with_comment(jpeg(i), comment)))
    write_records(folder / "train.rec", insightface(images))
    (folder / "property").write_text("6,112,112\n")
    return images


@pytest.mark.parametrize("target", ["", "train.rec"])
def test_records_become_a_store(target, tmp_path):
    images = make(tmp_path / "faces")
    result = import_faces(tmp_path / "faces" / target, tmp_path / "a.zarr")
    assert (result["images"], result["identities"], result["skipped"]) == (12, 6, 0)
    store = open_store(tmp_path / "a.zarr")
    assert store.labels.tolist() == [label for label, _ in images]
    assert [bytes(store.encoded(i)) for i in range(12)] == [image for _, image in images]
    assert list(store.names) == list("012345")
    assert store.source == "RecordIO faces/train.rec"
    check(tmp_path / "a.zarr")


def test_into_the_raw_layout(tmp_path):
    images = make(tmp_path / "faces", 3)
    import_faces(tmp_path / "faces", tmp_path / "a.zarr", "raw")
    expected = [decoded(image) for _, image in images]
    np.testing.assert_array_equal(open_store(tmp_path / "a.zarr").read(np.arange(3)), expected)


def test_images_that_do_not_decode_are_skipped(tmp_path):
    images = [(0, jpeg(0)), (1, b"no image"), (1, jpeg(2)[:500])]
    write_records(tmp_path / "faces/train.rec", insightface(images))
    result = import_faces(tmp_path / "faces", tmp_path / "a.zarr")
    assert (result["images"], result["identities"], result["skipped"]) == (1, 2, 2)
    assert "record 2,it is no image" in (tmp_path / "a.zarr/skipped.csv").read_text()


def cut(rec):
    os.truncate(rec, rec.stat().st_size // 2)


def wrong_magic(rec):
    content = rec.read_bytes()
    place = content.index(framed(b"")[:4], 5000)
    rec.write_bytes(content[:place] + b"oops" + content[place + 4 :])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (cut, "truncated"),
        (wrong_magic, "magic number is wrong|without its last part"),
        (lambda rec: rec.with_suffix(".idx").unlink(), "train.idx: cannot be read"),
        (lambda rec: rec.unlink(), "train.rec: cannot be read"),
        (lambda rec: rec.with_name("property").write_text("3,112,112"), "record 2 has label 3"),
    ],
)
def test_damage_leaves_nothing(damage, message, tmp_path):
    make(tmp_path / "faces")
    damage(tmp_path / "faces/train.rec")
    with pytest.raises(UserError, match=message) as caught:
        import_faces(tmp_path / "faces", tmp_path / "a.zarr")
    assert "\n" not in str(caught.value)
    assert [p.name for p in tmp_path.iterdir()] == ["faces"]


def test_damage_leaves_the_older_store(tmp_path):
    make(tmp_path / "faces")
    import_faces(tmp_path / "faces", tmp_path / "a.zarr")
    cut(tmp_path / "faces/train.rec")
    with pytest.raises(UserError, match="truncated"):
        import_faces(tmp_path / "faces", tmp_path / "a.zarr", overwrite=True)
    assert check(tmp_path / "a.zarr")["images"] == 12


def test_memory_does_not_grow_with_the_number_of_images(tmp_path):
    """After the first 1,000 images of 8 kB, 4,000 more (32 MB) need no more than 10 MB."""
    filler = np.random.default_rng(0).integers(0, 256, 4000, np.uint8).tobytes()
    faces = [jpeg(i) for i in range(20)]
    images = [(i % 50, with_comment(faces[i % 20], filler)) for i in range(5000)]
    write_records(tmp_path / "faces/train.rec", insightface(images))
    program = """
import resource
from pathlib import Path
from facenas.data.faces import writer
writer.FIELDS["jpeg"] = tuple(f._replace(chunk_bytes=1 << 17) for f in writer.FIELDS["jpeg"])
append, peaks = writer.StoreWriter.append, []
def watched(self, *faces):
    append(self, *faces)
    if self.images >= 1000 and not peaks or self.images == 5000:
        peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
writer.StoreWriter.append = watched
from facenas.data.faces.importing import import_faces
import_faces(Path("faces"), Path("a.zarr"))
print(peaks[1] - peaks[0])
"""
    ended = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert int(ended.stdout) < 10_000


def test_identities_of_records_with_several_labels(tmp_path):
    payloads = {0: payload([1.0, 0.5], jpeg(0)), 1: payload([0.0, 0.1], jpeg(1))}
    write_records(tmp_path / "faces/any.rec", payloads)
    (tmp_path / "faces/property").write_text("2,112,112")
    import_faces(tmp_path / "faces/any.rec", tmp_path / "a.zarr")
    assert open_store(tmp_path / "a.zarr").labels.tolist() == [1, 0]


def test_two_workers_find_what_one_does(tmp_path):
    make(tmp_path / "faces", 100)
    fingerprints = set()
    for workers in (1, 2):
        import_faces(tmp_path / "faces", tmp_path / f"{workers}.zarr", workers=workers)
        fingerprints.add(check(tmp_path / f"{workers}.zarr", workers)["fingerprint"])
    assert len(fingerprints) == 1
    store = open_store(tmp_path / "2.zarr")
    start = int(store.arrays["offsets"].span(80, 81)[0])
    with (tmp_path / "2.zarr/jpeg/c/0").open("r+b") as file:
        file.seek(start)
        file.write(b"no")
    with pytest.raises(UserError, match="image 80 is damaged"):
        check(tmp_path / "2.zarr", 2)


def test_the_real_celeba_subset(tmp_path):
    if not REAL_ZIP.is_file():
        pytest.skip("needs the real faces in ../shared/data/faces/celeba_299ids_112x112.zip")
    result = import_faces(REAL_ZIP, tmp_path / "a.zarr")
    assert (result["images"], result["identities"], result["skipped"]) == (6289, 299, 0)


def test_lists_from_1_without_record_0_and_a_property_of_windows(tmp_path):
    images = [(i // 2, jpeg(i)) for i in range(6)]
    records = {key: payload(label, image) for key, (label, image) in enumerate(images, 1)}
    index = write_records(tmp_path / "faces/train.rec", records).with_suffix(".idx")
    index.write_text(index.read_text().replace("\t", " ").replace("\n", "\r\n"))
    (tmp_path / "faces/property").write_text("\ufeff5 112 112\r\n", encoding="utf-8")
    result = import_faces(tmp_path / "faces", tmp_path / "a.zarr")
    assert (result["images"], result["identities"]) == (6, 5)
    assert open_store(tmp_path / "a.zarr").labels.tolist() == [label for label, _ in images]


def test_a_property_that_names_more_than_there_are_is_told(tmp_path, caplog):
    make(tmp_path / "faces")
    import_faces(tmp_path / "faces", tmp_path / "a.zarr")
    assert "a: 2 of 6 identities have no images; `property` may name too many" in caplog.messages
