"""Embedding, verifying and identifying faces from Python, with a function of one's own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from bench_files import encoded, face, write

from facenas.errors import UserError
from facenas.evaluation.gallery import open_gallery
from facenas.evaluation.identify import Threshold, embed_faces, enroll, identify, verify


def coarse(images: np.ndarray) -> np.ndarray:
    return images[:, ::16, ::16].reshape(len(images), -1) / 127.5 - 1


def other(images: np.ndarray) -> np.ndarray:
    return coarse(images)[:, ::-1]


@pytest.fixture
def people(tmp_path: Path) -> Path:
    contents = {f"p{person}/{i}.png": shot(person, i) for person in range(4) for i in (0, 1)}
    return write(tmp_path / "people", contents)


def shot(person: int, number: int) -> bytes:
    noise = np.random.default_rng([person, number]).normal(0, 10, (112, 112, 3))
    return encoded(np.clip(face(person) + noise, 0, 255).astype(np.uint8), "png")


def test_from_faces_to_answers(people: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = embed_faces(coarse, people)
    assert rows.shape == (8, 147)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)
    found = verify(coarse, people / "p0/0.png", people / "p0/1.png", 0.9)
    assert found.similarity == pytest.approx(float(rows[0] @ rows[1]), abs=1e-6)
    assert (found.same, verify(coarse, people / "p0/0.png", people / "p1/0.png").same) == (
        True,
        None,
    )
    made = enroll(coarse, people, tmp_path / "g")
    assert (made.identities, made.images, made.model) == (
        ("p0", "p1", "p2", "p3"),
        (2,) * 4,
        "coarse",
    )
    assert made.warnings == ()
    for name in ("absent", "gone", ".hidden"):
        (people / name).mkdir()
    (people / "gone/notes.txt").write_text("no image")
    made = enroll(coarse, people, tmp_path / "g", overwrite=True)
    assert made.warnings == ("ignored: 2 people without an image (the first, absent)",)
    assert "people: ignored: 1 file without an image" in caplog.text
    write(tmp_path / "new", {"a.png": shot(2, 7), "b.png": shot(9, 7)})
    known, stranger = identify(coarse, tmp_path / "new", tmp_path / "g", threshold=0.9, top_k=2)
    assert (known.identity, known.known, len(known.candidates)) == ("p2", True, 2)
    assert (stranger.identity, stranger.known) == (None, False)
    assert identify(coarse, tmp_path / "new", made)[0].known is None  # too few people for a threshold
    with pytest.raises(UserError, match=r"by another network .* \(then the network was coarse\)"):
        identify(other, tmp_path / "new", open_gallery(tmp_path / "g"))


def test_a_threshold_is_a_cosine() -> None:
    assert [Threshold(0.5).accepts(score) for score in (0.5, 0.51)] == [False, True]
    assert Threshold().accepts(1.0) is None
    with pytest.raises(UserError, match=r"threshold 1\.5: should be a cosine"):
        Threshold(1.5)
