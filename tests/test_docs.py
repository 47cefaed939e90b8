"""Every block of the README, CONTRIBUTING and the pages of docs/ runs: in order, scaled down, a folder a page.

Not the results: their commands take minutes to hours, and each tells on what machine it ran.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import ROOT
from documents import blocks
from PIL import Image
from test_configs import home, unpack  # noqa: F401  (a fixture)

PAGES = [
    "README.md",
    "CONTRIBUTING.md",
    *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")),
]
SHARED = ROOT.parent / "shared" / "data"
YUNET = SHARED / "models" / "face_detection_yunet_2023mar.onnx"
LFW = SHARED / "faces" / "lfw_112x112.zip"
sys.path += [str(ROOT / "tests" / folder) for folder in ("evaluation", "export", "models")]


def furnish(home: Path, faces: Path, lfw: Path) -> None:  # noqa: F811
    """What the pages take as given: small data in the forms that they name."""
    unpack(faces, home / "faces_webface_112x112")
    for name in ("people", "new"):
        (home / name).symlink_to(home / "faces_webface_112x112")
    (home / "lfw_pairs.txt").symlink_to(lfw.parent / "pairs.txt")
    for name in ("benches", "disk1", "disk2"):
        (home / name).mkdir()
    (home / "benches" / "lfw").symlink_to(lfw)
    (home / "benches" / "lfw_pairs.txt").symlink_to(lfw.parent / "pairs.txt")
    for folder, name in (
        (home / "pictures", "pictures"),
        (home / "faces_webface_112x112", "photos"),
    ):
        shutil.make_archive(str(home / name), "zip", folder)
    shutil.make_archive(str(home / "lfw_112x112"), "zip", lfw)
    listed = sorted((home / "pictures").rglob("*.*"))
    (home / "labels.csv").write_text("".join(f"{p.relative_to(home)},{p.parent.name}\n" for p in listed))
    crops = sorted((home / "faces_webface_112x112").rglob("*.jpg"))
    for crop, name in zip(crops, ("a.jpg", "b.jpg"), strict=False):
        shutil.copy(crop, home / name)
    (home / "digits").mkdir()
    digit = cv2.circle(np.zeros((40, 40), np.uint8), (20, 20), 12, 255, 3)
    for name in ("0.png", "7.png"):
        Image.fromarray(digit).save(home / "digits" / name)
    (home / "data" / "fashion_mnist").symlink_to(home / "data" / "fashion-mnist")


def trained_networks(home: Path) -> None:  # noqa: F811
    """The run `final`, `net.onnx` and a checkpoint of AdaFace, for pages that begin with trained networks."""
    import torch
    from onnx_files import summing
    from test_import_weights import SMALL, AdaFaceNet, lightning, trained
    from trained_runs import face_network, make_run

    run = make_run(home / "runs" / "final", "ir", face_network())
    (run / "run.yaml").write_text("config: {}\n")
    summing(home / "net.onnx", before=[("Sub", 127.5), ("Div", 127.5)])
    torch.save(lightning(trained(AdaFaceNet(8, SMALL, 8))), home / "adaface_ir50_casia.ckpt")


def own_photographs(home: Path) -> None:  # noqa: F811
    """What `align` would write, other people, and a network that teaches."""
    from onnx_files import summing

    summing(home / "net.onnx", before=[("Sub", 127.5), ("Div", 127.5)])
    for name in ("crops", "visitors"):
        (home / name).symlink_to(home / "faces_webface_112x112")


def big_benches(home: Path) -> None:  # noqa: F811
    """IJBC and TinyFace in the official layouts."""
    from bench_files import write
    from ijb_folder import write_ijb
    from test_tinyface import part_files

    write_ijb(home / "IJBC")
    write(home / "tinyface_root", part_files("tinyface/aligned_pad_0.1_pad_high/"))


def own_pairs(home: Path) -> None:  # noqa: F811
    """A list of each image with the next two, in the form of a table."""
    names = sorted(path.relative_to(home / "people/").as_posix() for path in (home / "people/").rglob("*.jpg"))
    pairs = [(a, b) for step in (1, 20) for a, b in zip(names, names[step:], strict=False)]
    rows = [f"{a},{b},{int(a.split('/')[0] == b.split('/')[0])}" for a, b in pairs]
    (home / "pairs.csv").write_text("\n".join(["image1,image2,same", *rows]))


def photographs(home: Path) -> None:  # noqa: F811
    """Faces in front of a grey wall, where the detector is at hand; the crops else."""
    if not (YUNET.exists() and LFW.exists()):
        shutil.copytree(home / "people", home / "crops")
        return
    (home / "photos").mkdir()
    with zipfile.ZipFile(LFW) as archive:
        names = [name for name in archive.namelist() if name.endswith("_0001.jpg")][::2000]
        for number, name in enumerate(names):
            crop = cv2.imdecode(np.frombuffer(archive.read(name), np.uint8), cv2.IMREAD_COLOR)
            photo = np.full((300, 420, 3), 120, np.uint8)
            photo[65:235, 125:295] = cv2.resize(crop, (170, 170), interpolation=cv2.INTER_CUBIC)
            cv2.imwrite(str(home / "photos" / f"{number}.jpg"), photo)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("page", PAGES)
def test_every_block_of_a_page_runs(python, page, home, faces, lfw):  # noqa: F811
    furnish(home, faces, lfw)
    if page == "docs/networks.md":
        from test_import_light import saved

        saved("EdgeFace-XS(0.6)", home).rename(home / "edgeface_xs_gamma_06.pt")
    if page == "README.md":
        own_photographs(home)
    if page == "docs/own-people.md":
        own_pairs(home)
    trained = ("evaluation.md", "identification.md", "distillation.md", "own-people.md", "int8.md")
    if page.removeprefix("docs/") in trained:
        trained_networks(home)
    if page in ("docs/evaluation.md", "docs/identification.md"):
        big_benches(home)
        photographs(home)
    wanted = [block for block in blocks(page) if block.language in ("sh", "python") or block.title]
    (home / "steps.json").write_text(json.dumps([vars(block) for block in wanted]))
    done = python.run(
        str(ROOT / "tests" / "run_page.py"),
        cwd=home,
        timeout=580,
        HOME=str(home),
        PYTHONPATH=f"{home}:{ROOT / 'tests'}:{os.environ.get('PYTHONPATH', '')}",
        PAGE=page,
        PAGE_FACES=str(faces),
        PAGE_YUNET=str(YUNET),
    )
    print(done.stderr)
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-4000:]}"


def test_commands_of_the_results_name_what_there_is():
    """Their tools, presets and files are still there."""
    presets = {path.stem for path in (ROOT / "configs" / "presets").glob("*.yaml")}
    for page in sorted((ROOT / "docs" / "results").glob("*.md")):
        text = page.read_text(encoding="utf-8")
        assert set(re.findall(r"--preset ([\w-]+)", text)) <= presets, page
        for tool in re.findall(r"\b((?:tools|tests)/[\w/]+\.py)", text):
            assert (ROOT / tool).exists(), f"{page}: {tool}"
