"""Commands killed at every change of the disk: the old thing or the new one is whole, and nothing is left over.

A copy of this process runs the command and kills itself before the n-th change. Some n here; all of them with
FACENAS_ALL_CRASHES=1.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import traceback
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from facenas import files
from facenas.cli.faces import register
from facenas.cli.model_options import ModelOptions
from facenas.data.classes.importing import import_classes
from facenas.data.classes.store import check_images
from facenas.data.faces import align as align_module
from facenas.data.faces.align import REFERENCE, align_photographs
from facenas.data.faces.detection import Face
from facenas.data.faces.importing import import_faces
from facenas.data.faces.store import check, decode_jpeg, encode_jpeg
from facenas.evaluation.embedders import embedder_of
from facenas.evaluation.gallery import open_gallery
from facenas.evaluation.identify import enroll

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="copies this process")
CHANGES = ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate", "os.link", "os.symlink")
POINTS = 5  # of a command, without FACENAS_ALL_CRASHES
app = typer.Typer()
register(app)


def is_change(event: str, arguments: tuple, root: Path) -> bool:
    """Whether the audit event is one that changes what lies below `root`."""
    if event == "open":
        path, _, flags = arguments
        if not flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            return False
    elif event in CHANGES:
        path = arguments[0]
    else:
        return False
    # A relative path is one beside an open folder, as shutil.rmtree goes about it.
    return isinstance(path, str | os.PathLike) and (not os.path.isabs(path) or root in Path(path).parents)


def crashed(command: Callable[[], object], root: Path, point: int) -> int:
    """Runs the command in a copy of this process, killed before change `point` (from 0); how many it made."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        made = 0

        def tick() -> None:
            nonlocal made
            if made == point:
                os.kill(os.getpid(), signal.SIGKILL)
            made += 1

        exchanged = files._exchanged
        files._exchanged = lambda *paths: (tick(), exchanged(*paths))[1]  # no audit event tells of it
        sys.addaudithook(lambda event, arguments: tick() if is_change(event, arguments, root) else None)
        try:
            command()
            os.write(writer, str(made).encode())
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)
    os.close(writer)
    with open(reader, "rb") as answer:
        told = answer.read()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert told or status == -signal.SIGKILL, "the command failed"
    return int(told or point)


def try_points(
    tmp_path: Path,
    prepare: Callable[[Path], object],
    command: Callable[[Path], object],
    whole: Callable[[Path], object],
) -> None:
    """Kills `command(root)` at points of it, each in a folder that `prepare` filled.

    After each `whole(root)` must hold, and once the command was called again as well, with nothing else there.
    """
    prepare(template := tmp_path / "template")
    shutil.copytree(template, first := tmp_path / "never")
    changes = crashed(lambda: command(first), first, -1)
    whole(first)
    expected = names(first)
    chosen = (
        range(changes)
        if "FACENAS_ALL_CRASHES" in os.environ
        else np.linspace(0, changes - 1, POINTS).astype(int)
    )
    for point in map(int, chosen):
        shutil.copytree(template, root := tmp_path / f"at{point}")
        assert crashed(lambda root=root: command(root), root, point) == point
        whole(root)
        crashed(lambda root=root: command(root), root, -1)
        whole(root)
        assert names(root) == expected, point


def names(root: Path) -> list[str]:
    """Of all files and folders below, locks aside."""
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.name != ".lock")


def picture(seed: int) -> bytes:
    return encode_jpeg(np.random.default_rng(seed).integers(0, 256, (112, 112, 3), np.uint8))


def put(folder: Path, people: range) -> None:
    for person in people:
        (folder / f"p{person}").mkdir(parents=True)
        (folder / f"p{person}/0.jpg").write_bytes(picture(person))


def coarse(images: np.ndarray) -> np.ndarray:
    return images[:, ::16, ::16].reshape(len(images), -1) / 127.5 - 1


def test_import(tmp_path: Path) -> None:
    def prepare(root: Path) -> None:
        put(root / "old", range(2))
        put(root / "new", range(2, 5))
        (root / "new/p2/text.jpg").write_text("no image")
        import_faces(root / "old", root / "out.zarr")

    def whole(root: Path) -> None:
        assert check(root / "out.zarr")["images"] in (2, 3)

    try_points(
        tmp_path,
        prepare,
        lambda root: import_faces(root / "new", root / "out.zarr", overwrite=True),
        whole,
    )


def test_import_classes(tmp_path: Path) -> None:
    def prepare(root: Path) -> None:
        for part in ("old", "new"):
            put(root / part / "train", range(2))
            put(root / part / "val", range(2))
        (root / "new/train/p1/text.jpg").write_text("no image")
        import_classes(root / "old", root / "out.zarr")

    def whole(root: Path) -> None:
        assert check_images(root / "out.zarr")["images"] == 4

    try_points(
        tmp_path,
        prepare,
        lambda root: import_classes(root / "new", root / "out.zarr", overwrite=True),
        whole,
    )


def test_enroll(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def prepare(root: Path) -> None:
        put(root / "old", range(2))
        put(root / "new", range(2, 5))
        monkeypatch.setenv("FACENAS_CACHE", str(root / "cache"))
        enroll(coarse, root / "old", root / "people.gallery")

    def command(root: Path) -> None:
        os.environ["FACENAS_CACHE"] = str(root / "cache")  # of the copy
        enroll(coarse, root / "new", root / "people.gallery", overwrite=True)

    def whole(root: Path) -> None:
        made = open_gallery(root / "people.gallery")
        assert made.identities in (("p0", "p1"), ("p2", "p3", "p4"))
        assert (
            len(np.load(root / "people.gallery/embeddings.npy")) == len(made.templates) == len(made.identities)
        )

    try_points(tmp_path, prepare, command, whole)


def test_embed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ModelOptions, "open", lambda _: nullcontext(embedder_of(coarse).__enter__()))

    def prepare(root: Path) -> None:
        put(root / "faces", range(3))
        np.savez(root / "out.npz", names=["old"], embeddings=np.zeros((1, 4)))

    def command(root: Path) -> None:
        os.environ["FACENAS_CACHE"] = str(root / "cache")
        arguments = ["embed", str(root / "faces"), "--model", "none", "--out", str(root / "out.npz")]
        assert CliRunner().invoke(app, arguments, catch_exceptions=False).exit_code == 0

    def whole(root: Path) -> None:
        with np.load(root / "out.npz") as found:
            assert len(found["names"]) == len(found["embeddings"]) in (1, 3)

    try_points(tmp_path, prepare, command, whole)


class OneFace:
    """A face in the middle of every picture."""

    fingerprint = "one"

    def __init__(self, _: Path) -> None:
        pass

    def __call__(self, _: np.ndarray) -> list[Face]:
        return [Face(np.array([0, 0, 9, 9]), REFERENCE, 1.0)]

    def is_upright(self, _: np.ndarray) -> bool:
        return True


def test_align(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(align_module, "Detector", OneFace)

    def prepare(root: Path) -> None:
        put(root / "photos", range(3))
        (root / "photos/text.jpg").write_text("no image")
        (root / "yunet.onnx").touch()

    def whole(root: Path) -> None:
        for crop in root.glob("crops/**/*.jpg"):
            decode_jpeg(crop.read_bytes())

    try_points(
        tmp_path,
        prepare,
        lambda root: align_photographs(root / "photos", root / "crops", root / "yunet.onnx", workers=1),
        whole,
    )
