"""Embeddings of LFW's images and their mirror images, against a plain script that takes one image at a time.

    python -m tools.evaluation_bench.extraction [--zip CROPS.zip] [--onnx MODEL.onnx] [--images N]

Networks: the ONNX file through onnxruntime, and our `ir18` through torch, with random weights. Theirs: unzip
and decode one image, run the network on it, run it on its mirror image, add; the libraries take as many
threads as they like. Ours: `extract`, with a new cache each time. In turn, the fewest seconds of some rounds.
Without CROPS.zip the images are noise; without MODEL.onnx there is `ir18` alone.
"""

from __future__ import annotations

import argparse
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from facenas.data.images import ZipFiles
from facenas.device import core_count
from facenas.evaluation.benches.images import file_images
from facenas.evaluation.embedders import Embedder, open_embedder
from facenas.evaluation.embedders.cache import extract
from facenas.spaces.ir import NAMED

from . import Row, show, timed

SHARED = Path(__file__).parents[2].parent / "shared" / "data"
ZIP, ONNX = SHARED / "faces/lfw_112x112.zip", SHARED / "models/mobilefacenet_y1.onnx"
IMAGES, ROUNDS = 400, 4
BATCH = 8  # small, so that few images keep all cores busy to the end as many do
HEAVY = 8  # of ir18, which costs 2.6 GMACs an image, so many times fewer images

One = Callable[[NDArray[np.float32]], NDArray[np.float32]]  # (1, 3, 112, 112) -> (1, E)


def rows(crops: Path = ZIP, onnx: Path = ONNX, images: int = IMAGES) -> list[Row]:
    """Seconds of ours and theirs for each network. AssertionError when the embeddings differ."""
    with tempfile.TemporaryDirectory() as folder:
        if not crops.exists():
            crops = make_up(Path(folder, "noise.zip"), images)
        found = []
        if onnx.exists():
            embedder, one = open_embedder(onnx), onnxruntime_one(onnx)
            found.append(compare("onnxruntime", embedder, one, crops, images, 0.0, 1.0))
        network = NAMED["ir18"].build(0).eval()
        path = Path(folder, "ir18.pt")
        torch.save({f"net.{name}": value for name, value in network.state_dict().items()}, path)
        embedder = open_embedder(path)
        few = max(8, images // HEAVY)
        found.append(compare("torch", embedder, torch_one(network), crops, few, 127.5, 127.5))
    return found


def compare(
    library: str, embedder: Embedder, one: One, crops: Path, count: int, mean: float, std: float
) -> Row:
    """One row of the table."""
    names = [name for name in zipfile.ZipFile(crops).namelist() if name.endswith(".jpg")][:count]
    times: list[tuple[float, float]] = []
    for _ in range(ROUNDS):
        torch.set_num_threads(1)
        ours, found = timed(lambda: fresh(embedder, crops, names))
        torch.set_num_threads(core_count())  # as torch by itself
        theirs, wanted = timed(lambda: plain_script(one, crops, names, mean, std))
        times.append((ours, theirs))
    difference = np.abs(found - wanted).max() / np.abs(wanted).max()
    assert difference < 1e-4, difference
    ours, theirs = (min(column) for column in zip(*times, strict=True))
    rates = f"{count / ours:.0f} images/s, theirs {count / theirs:.0f}; within {difference:.0e}"
    return f"{embedder.name} by {library}, {count} images and mirror images", ours, theirs, rates


def fresh(embedder: Embedder, crops: Path, names: list[str]) -> NDArray[np.float32]:
    """Ours, with nothing in the cache."""
    images = file_images(ZipFiles(crops), names)
    with tempfile.TemporaryDirectory() as cache:
        return extract(embedder, images, batch_size=BATCH, cache=Path(cache))


def plain_script(one: One, crops: Path, names: list[str], mean: float, std: float) -> NDArray[np.float32]:
    """Theirs, as `deepinsight/insightface:python-package/insightface/model_zoo/arcface_onnx.py` is used."""
    found = []
    with zipfile.ZipFile(crops) as archive:
        for name in names:
            data = np.frombuffer(archive.read(name), np.uint8)
            image = cv2.imdecode(data, cv2.IMREAD_COLOR)[:, :, ::-1]
            turned = [
                ((view.astype(np.float32) - mean) / std).transpose(2, 0, 1)[None]
                for view in (image, image[:, ::-1])
            ]
            found.append(sum(one(np.ascontiguousarray(view, np.float32)) for view in turned))
    return np.concatenate(found)


def onnxruntime_one(path: Path) -> One:
    """A session as it comes."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda values: session.run(None, {name: values})[0]


def torch_one(network: torch.nn.Module) -> One:
    """The network as it comes."""

    @torch.no_grad()
    def run(values: NDArray[np.float32]) -> NDArray[np.float32]:
        return network(torch.from_numpy(values)).numpy()

    return run


def make_up(path: Path, count: int) -> Path:
    """A .zip of JPEGs of noise."""
    rng = np.random.default_rng(0)
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(count):
            pixels = rng.integers(0, 256, (112, 112, 3), np.uint8)
            archive.writestr(f"{number}.jpg", cv2.imencode(".jpg", pixels)[1].tobytes())
    return path


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--zip", type=Path, default=ZIP)
    parser.add_argument("--onnx", type=Path, default=ONNX)
    parser.add_argument("--images", type=int, default=IMAGES)
    arguments = parser.parse_args()
    show(rows(arguments.zip, arguments.onnx, arguments.images))
