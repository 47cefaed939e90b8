"""A face network in int8: quantised, its costliest layers left in float, compared, timed, written or refused.

The images are parted once, by a fixed seed: half of them give the ranges of activations, a quarter chooses
among settings and layers, a quarter is compared: once, or up to three times where too much is lost (`rounds`).
"""

from __future__ import annotations

import heapq
import json
import logging
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from facenas._version import __version__
from facenas.data.faces.store import is_store, open_store
from facenas.data.images import find_images
from facenas.errors import SearchStoppedError, UserError, first_line
from facenas.evaluation.benches import Pairs, find_bench
from facenas.evaluation.benches.images import file_images
from facenas.evaluation.embedders import Embedder, InputOptions, open_embedder
from facenas.evaluation.embedders.cache import extract
from facenas.evaluation.embedders.onnx import entry_of, open_onnx, open_session
from facenas.export.calibration import Histogram, channel_means, channel_peaks, histograms
from facenas.export.files import encode_onnx, make_room
from facenas.files import scratch_folder, write_atomically, write_bytes
from facenas.models.load import load_network
from facenas.models.onnx_weights import FOLDED

if TYPE_CHECKING:  # of the extra
    from onnx import ModelProto


log = logging.getLogger(__name__)

_BAR: dict[str, Any] = {"disable": None, "leave": False}  # None: only on a terminal

Pixels = NDArray[np.uint8]
Floats = NDArray[np.float32]

PERCENTILES = (100.0, 99.999, 99.99, 99.95)  # of an activation's values; the others are clipped
LEAST_IMAGES, MOST_IMAGES = 32, 256
LOSS_PER_POINT = 0.05  # of cosine, where no pairs tell the accuracy: see `least_cosine`
ROUNDS = 3  # of leaving more layers in float
GIVEN_BACK = 0.15  # at most, of the bytes that int8 saves, for layers in float
_STEP = 8  # images at once
_SEED = 64
_REMEDY = "make room and try again"


def least_cosine(tolerance: float) -> float:
    """The mean cosine to the float network that stands for a loss of `tolerance` points of accuracy.

    1 - 0.05 tolerance: 0.995 for 0.1 points. MobileFaceNet on LFW lost less at every cosine (docs/int8.md).
    """
    return 1 - LOSS_PER_POINT * tolerance


class PairsGiven(NamedTuple):
    """Pairs to measure: the list, or the .bin, folder or .zip that has its own; data: its images."""

    pairs: Path
    data: Path | None = None

    def measure(self, embedder: Embedder, keep: bool) -> Accuracy:
        """Ten-fold, images and mirror images together, as `facenas eval` does."""
        if self.data is None and self.pairs.is_file() and self.pairs.suffix.lower() not in (".zip", ".bin"):
            raise UserError(f"{self.pairs}: is a list of pairs; add its images with --pairs-data (pairs_data)")
        bench = find_bench("lfw") if self.data is None else Pairs(self.pairs.stem, self.pairs)
        result: Any = bench.measure(
            self.data or self.pairs, lambda images: extract(embedder, images, keep=keep)
        )
        return Accuracy(result.accuracy, result.threshold_cosine, result.pairs)


class Accuracy(NamedTuple):
    """Of pairs, a fraction; threshold: the cosine above which a pair counts as one person."""

    value: float
    threshold: float
    pairs: int


def export_int8(
    model: Path,
    calibrate: Path,
    out: Path,
    *,
    tolerance: float = 0.1,
    pairs: PairsGiven | None = None,
    threshold: float | None = None,
    options: InputOptions | None = None,
) -> dict[str, Any]:
    """Writes a network of faces as an int8 ONNX file that loses at most `tolerance` points of accuracy.

    model: a run's folder, a checkpoint, or an ONNX file, read with `options`. calibrate: a store, or a folder
    or .zip of crops; 256 of them are used, 32 at least. With `pairs` the loss is measured on them, and the file
    has their threshold; else the mean cosine to the float network stands for it (`least_cosine`), and
    `threshold`, the float network's, is moved as similarities move. The same arguments give the same file.
    Returns what was chosen and measured. Raises UserError for bad input, SearchStoppedError when the tolerance
    cannot be kept or the disk is full; then nothing is written.
    """
    if not 0 < tolerance < 20:
        raise UserError(f"tolerance {tolerance}: should be above 0 and below 20 points of accuracy")
    if out.exists() and model.exists() and out.samefile(model):
        raise UserError(f"{out}: is the model itself, whose weights would be lost; give another out")
    make_room(out)
    images = _calibration_images(calibrate)
    with scratch_folder(out.parent) as scratch:
        path = _as_onnx(model, scratch)
        original = open_embedder(path, options, "cpu")
        expected = pairs.measure(original, keep=path == model) if pairs else None
        network = _Network(path, original, options or InputOptions(), images)
        found = _within(tolerance, model, network, original, scratch / "int8.onnx", pairs, expected)
        if found.accuracy is not None:
            threshold = found.accuracy.threshold
        elif threshold is not None:
            threshold = _moved(threshold, original, found.embedder, images.compare)
        said = {**network.metadata(), **found.metadata(network, expected, threshold)}
        content = _with_metadata(network.quantized, said)
        speeds = _images_per_second([original, found.embedder], images.compare[:_STEP])
        write_atomically(
            out, lambda temporary: _write(temporary, content, found.embedder, images.compare[:_STEP])
        )
    if speeds[1] < speeds[0]:
        log.warning(
            "int8 is slower than float32 on this processor: %.0f images/s in place of %.0f; it may pay on the "
            "one that it is for",
            *reversed(speeds),
        )
    return {
        "file": str(out),
        "format": "onnx int8",
        "bytes": len(content),
        "float_bytes": network.float_bytes,
        **json.loads(said["int8"]),
        "threshold_cosine": threshold,
        "images_per_second": speeds[1],
        "float_images_per_second": speeds[0],
    }


def _within(
    tolerance: float,
    model: Path,
    network: _Network,
    original: Embedder,
    path: Path,
    pairs: PairsGiven | None,
    expected: Accuracy | None,
) -> _Found:
    """Leaves layers in float until no more is lost than that; raises SearchStoppedError if it cannot be."""
    wanted = least_cosine(tolerance)
    for _ in range(ROUNDS):
        network.leave_in_float(wanted)
        found = _measure(network, original, path, pairs)
        lost = found.lost(expected)
        if found.mean >= least_cosine(tolerance) if lost is None else lost <= tolerance:
            return found
        log.info("%s: too much is lost", found.sentence(expected))
        if network.cosine < wanted:  # no layer is left that gains anything
            break
        wanted = (1 + network.cosine) / 2
    needed = "" if expected else f"a mean cosine of {least_cosine(tolerance):.4f} is needed; "
    raise SearchStoppedError(
        f"{model}: loses more in int8 than the tolerance of {tolerance:g} points ({found.sentence(expected)}); "
        f"{needed}no file was written: give more or other images to calibrate by, or a larger tolerance"
    )


class _Images(NamedTuple):
    """(n, 112, 112, 3) uint8 RGB each."""

    calibrate: Pixels
    choose: Pixels
    compare: Pixels


def _calibration_images(data: Path) -> _Images:
    """Crops evenly spread over the data, in three parts."""
    if is_store(data):
        source: Any = open_store(data)
    else:
        files, names = find_images(data)
        source = file_images(files, names)
    if len(source) < LEAST_IMAGES:
        raise UserError(f"{data}: holds {len(source)} images; calibration needs {LEAST_IMAGES} or more")
    count = min(len(source), MOST_IMAGES)
    chosen = np.random.default_rng(_SEED).choice(len(source), count, replace=False)
    pixels = np.concatenate([source.read(np.array([number])) for number in chosen])
    return _Images(*np.split(pixels, [count // 2, 3 * count // 4]))


def _as_onnx(model: Path, scratch: Path) -> Path:
    """The model itself, or what its float export is."""
    if model.suffix.lower() == ".onnx":
        return model
    path = scratch / f"{model.resolve().stem}.onnx"
    write_bytes(path, encode_onnx(load_network(model)), remedy=_REMEDY)
    return path


class _Network:
    """A network that is quantised again and again, until it is near enough to itself in float.

    cosine: of `quantized` to it, mean over the images to choose by; in_float: the layers left so, in that
    order; rounds: how often more of them were sought.
    """

    def __init__(self, path: Path, original: Embedder, options: InputOptions, images: _Images) -> None:
        from facenas.evaluation.embedders.onnx_graph import read_graph
        from facenas.export import int8_graph as graphs

        self.path, self.output, self.images = path, str(original.facts["output"]), images
        self.in_float: list[str] = []
        self.rounds = 0
        self._biases: dict[str, Floats] = {}
        read = read_graph(path)
        self.entry, self.takes = entry_of(path, read, open_session(path, read), options)
        self.float_bytes: int = read.ByteSize()
        with _guarded(path):
            prepared = graphs.prepare(read, options.embedding)
        if not graphs.layers(prepared):
            raise UserError(f"{path}: has no convolution or product by constant weights to quantise")
        calibrate, self._choose = self._feeds(images.calibrate), self._feeds(images.choose)
        self._expected = self._embed(prepared)

        def watch(model: ModelProto, what: str) -> Any:
            return lambda names: self._run(model, tqdm(calibrate, what, **_BAR), names)

        tensors = [name for chain in graphs.chains(prepared) for name in chain.tensors]
        peaks = channel_peaks(watch(prepared, "peaks of channels"), tensors)
        self.model = graphs.expand_prelu(graphs.equalize(prepared, peaks))
        observe = watch(self.model, "ranges of activations")
        self._choose_ranges(histograms(observe, graphs.quantized_tensors(self.model)))
        self._correct_biases(channel_means(observe, [node.input[0] for node in graphs.layers(self.model)]))

    def _feeds(self, pixels: Pixels) -> list[dict[str, NDArray[Any]]]:
        step = self.entry.batch or _STEP
        whole = max(1, len(pixels) // step) * step
        pixels = np.resize(
            pixels, (whole, *pixels.shape[1:])
        )  # of a network for many images at once, some again
        return [self.entry.feed(pixels[at : at + step], self.takes) for at in range(0, whole, step)]

    def _run(
        self, model: ModelProto, feeds: Iterable[dict[str, NDArray[Any]]], names: Sequence[str]
    ) -> Iterator[dict[str, Floats]]:
        """Tensors of the graph by name, a few images at a time; raises UserError when one is not finite."""
        from facenas.export.int8_graph import with_outputs

        session = open_session(self.path, with_outputs(model, names))
        for feed in feeds:
            found = dict(zip(names, session.run(list(names), feed), strict=True))
            for name, values in found.items():
                if not np.isfinite(values).all():  # which have no range
                    raise UserError(
                        f"{self.path}: gives numbers that are not finite on these images (in {name}); check "
                        "the network, and mean and std"
                    )
            yield found

    def _embed(self, model: ModelProto) -> Floats:
        rows = [found[self.output] for found in self._run(model, self._choose, [self.output])]
        return np.concatenate([row.reshape(len(row), -1) for row in rows])

    def _quantized(self, in_float: Sequence[str]) -> tuple[ModelProto, float]:
        """And its mean cosine."""
        from facenas.export.int8_graph import quantize, with_biases

        # A layer in float rounds no weights: nothing is to be taken off its bias.
        biases = {name: bias for name, bias in self._biases.items() if name not in in_float}
        with _guarded(self.path):
            made = quantize(with_biases(self.model, biases), self._ranges, in_float)
        return made, float(cosines(self._expected, self._embed(made)).mean())

    def _choose_ranges(self, found: dict[str, Histogram]) -> None:
        """Those of the percentile that gives the highest cosine."""
        tried = []
        for percentile in tqdm(PERCENTILES, "ranges of activations", **_BAR):
            self._ranges = {name: one.range(percentile) for name, one in found.items()}
            quantized, cosine = self._quantized(())
            log.info("%g %% of the activations' values: cosine %.4f", percentile, cosine)
            tried.append((cosine, percentile, self._ranges, quantized))
        self.cosine, self.percentile, self._ranges, self.quantized = max(tried, key=lambda one: one[0])
        self._least_bytes: int = self.quantized.ByteSize()

    def _correct_biases(self, means: dict[str, NDArray[np.float64]]) -> None:
        from facenas.export.int8_graph import corrected_biases

        self._biases = corrected_biases(self.model, self.quantized, means)
        quantized, cosine = self._quantized(())
        log.info("biases corrected: cosine %.4f", cosine)
        self.biases_corrected = cosine > self.cosine
        if self.biases_corrected:
            self.quantized, self.cosine = quantized, cosine
        else:
            self._biases = {}

    def leave_in_float(self, wanted: float) -> None:
        """Layer by layer what gains most cosine for a byte, until `wanted` is reached or none gains any.

        Gains are measured one by one; afterwards, as gains shrink when others are taken, only that of the best
        is measured anew, and it is taken if it stays the best (Minoux's lazy greedy algorithm).
        """
        self.rounds += 1
        if self.cosine >= wanted:
            return
        waiting = [(-gain, name) for name, gain in self._gains() if gain > 0]
        heapq.heapify(waiting)
        while waiting and self.cosine < wanted:
            _, name = heapq.heappop(waiting)
            quantized, cosine = self._quantized([*self.in_float, name])
            gain = (cosine - self.cosine) / self._bytes_of(name)
            if gain <= 0 or quantized.ByteSize() > self._most_bytes:
                continue
            if waiting and gain < -waiting[0][0]:
                heapq.heappush(waiting, (-gain, name))
                continue
            self.in_float.append(name)
            self.quantized, self.cosine = quantized, cosine
            log.info("%s in float: cosine %.4f, %d bytes", name, cosine, quantized.ByteSize())

    @property
    def _most_bytes(self) -> float:
        least = self._least_bytes
        return least + GIVEN_BACK * max(0, self.float_bytes - least)

    def _gains(self) -> Iterator[tuple[str, float]]:
        """Of every layer, of cosine for a byte."""
        from facenas.export.int8_graph import layers

        names = [node.name for node in layers(self.model) if node.name not in self.in_float]
        for name in tqdm(names, "what each layer costs", unit="layer", **_BAR):
            yield name, (self._quantized([*self.in_float, name])[1] - self.cosine) / self._bytes_of(name)

    def _bytes_of(self, name: str) -> int:
        """More in float than in int8."""
        from facenas.export.int8_graph import layers, weight_count

        return 3 * next(weight_count(self.model, node) for node in layers(self.model) if node.name == name)

    def metadata(self) -> dict[str, str]:
        """What the file says of its input, as `TrainedNetwork.metadata` does."""
        said = {item.key: item.value for item in self.quantized.metadata_props if item.key != FOLDED}
        if "facenas_version" not in said:
            said["facenas_version"] = __version__
            said["output"] = "embedding, not normalised: divide it by its L2 norm before you compare"
        return said | {
            "mean": json.dumps([value / 255 for value in self.takes.mean]),
            "std": json.dumps([value / 255 for value in self.takes.std]),
            "colour": self.takes.color.upper(),
        }


@dataclass(frozen=True)
class _Found:
    """A quantised network, loaded as a user loads it: its cosines to the float one, and its accuracy."""

    embedder: Embedder
    mean: float
    least: float
    accuracy: Accuracy | None

    def lost(self, expected: Accuracy | None) -> float | None:
        """Points of accuracy; None without pairs."""
        if expected is None or self.accuracy is None:
            return None
        return round(100 * (expected.value - self.accuracy.value), 9)  # six pairs of 6,000 are 0.1, not more

    def sentence(self, expected: Accuracy | None) -> str:
        """What was measured."""
        told = f"cosine {self.mean:.4f}, the least {self.least:.4f}"
        if expected and self.accuracy:
            told += f"; {100 * self.accuracy.value:.2f} % of {expected.pairs:,} pairs right"
            told += f", in float {100 * expected.value:.2f} %"
        return told

    def metadata(self, network: _Network, expected: Accuracy | None, threshold: float | None) -> dict[str, str]:
        """How the file came to be int8, and its threshold."""
        told: dict[str, Any] = {
            "percentile": network.percentile,
            "images_calibrated": len(network.images.calibrate),
            "biases_corrected": network.biases_corrected,
            "float_layers": network.in_float,
            "images_compared": len(network.images.compare),
            "rounds": network.rounds,
            "cosine_mean": round(self.mean, 6),
            "cosine_least": round(self.least, 6),
        }
        if expected and self.accuracy:
            told |= {"pairs": expected.pairs, "accuracy": self.accuracy.value, "float_accuracy": expected.value}
        said = {"int8": json.dumps(told)}
        return said if threshold is None else {**said, "threshold_cosine": json.dumps(threshold)}


def _measure(network: _Network, original: Embedder, path: Path, pairs: PairsGiven | None) -> _Found:
    """The network as a file of its own: loaded, and compared with the float one."""
    write_bytes(path, _with_metadata(network.quantized, network.metadata()), remedy=_REMEDY)
    embedder = open_onnx(path, InputOptions(), "cpu")
    images = network.images.compare
    found = cosines(original(images), embedder(images))
    accuracy = pairs.measure(embedder, keep=False) if pairs else None
    return _Found(embedder, float(found.mean()), float(found.min()), accuracy)


def _with_metadata(model: ModelProto, said: dict[str, str]) -> bytes:
    import onnx

    made = onnx.ModelProto()
    made.CopyFrom(model)
    del made.metadata_props[:]
    onnx.helper.set_model_props(made, said)
    content: bytes = made.SerializeToString(deterministic=True)
    return content


def _write(path: Path, content: bytes, measured: Embedder, images: Pixels) -> None:
    """Writes the file, and reads it back: it has to give what was measured."""
    path.write_bytes(content)
    if not np.array_equal(open_onnx(path, InputOptions(), "cpu")(images), measured(images)):
        raise SearchStoppedError(f"{path}: does not give what was measured; no file was written; try again")


def _moved(threshold: float, original: Embedder, embedder: Embedder, images: Pixels) -> float:
    """Where a similarity in float that is `threshold` comes to lie: on the line through those of all pairs."""
    before, after = (
        (rows @ rows.T)[np.triu_indices(len(rows), 1)]
        for rows in (original.embed(images), embedder.embed(images))
    )
    slope, start = np.polyfit(before.astype(np.float64), after.astype(np.float64), 1)
    return float(slope * threshold + start)


def _images_per_second(embedders: Sequence[Embedder], images: Pixels) -> list[float]:
    """The fastest of five rounds of each, in turns, on one thread."""
    fastest = [float("inf")] * len(embedders)
    for _ in range(5):
        for number, embedder in enumerate(embedders):
            started = time.perf_counter()
            embedder(images)
            fastest[number] = min(fastest[number], time.perf_counter() - started)
    return [round(len(images) / seconds, 1) for seconds in fastest]


def cosines(one: Floats, other: Floats) -> NDArray[np.float64]:
    """(n,) of the rows of two matrices (n, E); not-a-number where one is zero."""
    a, b = one.astype(np.float64), other.astype(np.float64)
    with np.errstate(invalid="ignore"):
        found: NDArray[np.float64] = (a * b).sum(1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))
    return found


@contextmanager
def _guarded(path: Path) -> Iterator[None]:
    """A graph that onnxruntime's quantiser does not take becomes a UserError."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{path}: cannot be quantised ({first_line(error)}); export it again") from None
