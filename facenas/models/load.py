"""Trained networks out of files: of a run, of `facenas export`, or of other projects, with what they take."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from facenas._version import __version__
from facenas.config import Config, validate
from facenas.errors import UserError
from facenas.files import reading
from facenas.models.import_layouts import Color
from facenas.models.import_weights import load_foreign
from facenas.models.onnx_weights import read_onnx
from facenas.models.safe_load import read_tensors
from facenas.spaces import Architecture, from_json
from facenas.spaces.base import FACE, FACE_SIZE


class _Facts(Config):
    """What a file of ours says beside the weights; mean and std of one channel or each, on the 0..1 scale."""

    architecture: dict[str, Any]
    mean: tuple[float, ...]
    std: tuple[Annotated[float, Field(gt=0)], ...]
    colour: Literal["RGB", "BGR", "grey"] = "RGB"
    image_size: int = Field(ge=1, le=4096)
    classes: tuple[str, ...] = ()
    crop_fraction: float | None = Field(None, gt=0, le=1)


class TrainedNetwork(nn.Module):
    """A network with trained weights, in float32 on the CPU, in evaluation mode, and what it takes and gives.

    mean, std: per channel in the order of `color`, on the 0..1 scale; image_size: side in pixels;
    classes: their names in the order of the logits, none for faces; crop_fraction: what it sees of an image, a
    square in its middle of this part of the shorter side; None: all of it, squeezed to a square; format: of its
    file; turned: whether that was of a network trained on BGR, whose weights now take RGB.
    """

    def __init__(
        self,
        arch: Architecture,
        network: nn.Module,
        mean: Sequence[float],
        std: Sequence[float],
        color: str = "RGB",
        image_size: int = FACE_SIZE,
        classes: Sequence[str] = (),
        crop_fraction: float | None = None,
        *,
        format: str = "run",
        turned: bool = False,
    ) -> None:
        super().__init__()
        self.arch, self.network = arch, network.float()
        self.mean, self.std, self.color = tuple(mean), tuple(std), color
        self.image_size, self.classes, self.crop_fraction = image_size, tuple(classes), crop_fraction
        self.format, self.turned = format, turned
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """(n, c, h, w) float32, as `normalize` gives them -> logits, or z, not normalized."""
        outputs: Tensor = self.network(images)
        return outputs

    def normalize(self, images: Tensor) -> Tensor:
        """uint8 (n, h, w, c), of colors RGB -> float32 (n, c, h, w): (pixel / 255 - mean) / std."""
        if self.color == "BGR":
            images = images.flip(3)
        mean, std = (images.new_tensor(v, dtype=torch.float32) for v in (self.mean, self.std))
        return ((images.float() / 255 - mean) / std).permute(0, 3, 1, 2)

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(channels, height, width)."""
        return self.arch.in_channels, self.image_size, self.image_size

    @property
    def output(self) -> str:
        """What the network gives: embedding or logits."""
        return "embedding" if self.arch.task == FACE else "logits"

    def metadata(self) -> dict[str, str]:
        """What an exported file says about itself; lists and the architecture as JSON."""
        meanings = {
            "embedding": "embedding, not normalised: divide it by its L2 norm before you compare",
            "logits": "logits, one a class, in the order of classes",
        }
        facts = {
            "facenas_version": __version__,
            "architecture": json.dumps(self.arch.to_json()),
            "mean": json.dumps(self.mean),
            "std": json.dumps(self.std),
            "colour": self.color,
            "image_size": str(self.image_size),
            "layout": "NCHW float32, (pixel / 255 - mean) / std",
            "output": meanings[self.output],
        }
        facts |= {"classes": json.dumps(self.classes)} if self.classes else {}
        return facts | ({"crop_fraction": str(self.crop_fraction)} if self.crop_fraction else {})


def load_network(path: str | Path, color: Color | None = None, prefix: str | None = None) -> TrainedNetwork:
    """The network of a run's folder, its `checkpoints/model.pt`, an export of ours, or of others.

    color: order of the channels of a checkpoint of another project that does not tell it; prefix: which of its
    networks, if it has several. Raises UserError when
    there is no such file, it is damaged, or it holds no network that we know.
    """
    path = Path(path)
    if path.is_dir():
        return read_trained(path)
    if path.parent.name == "checkpoints" and (path.parents[1] / "run.yaml").is_file():
        return read_trained(path.parents[1])
    if path.suffix.lower() == ".onnx":
        with _remedied(path, "export it again"):
            return _of_export(path, *read_onnx(path), "facenas onnx")
    if path.name == "model.pt" and _is_ours(path):  # brought here without its run
        return _read_model(path, "bring it again")
    return _read_exported(path) or _imported(path, color, prefix)


def read_trained(run_folder: Path) -> TrainedNetwork:
    """The trained network of a run, from its `checkpoints/model.pt`.

    Raises UserError when the run is not trained yet or the file is damaged.
    """
    path = run_folder / "checkpoints" / "model.pt"
    if not path.is_file():
        raise UserError(f"{path}: is missing; `facenas train {run_folder}` trains the network first")
    return _read_model(path, "remove the run's train.json and train it again")


def _is_ours(path: Path) -> bool:
    """Whether a checkpoint is that of a run."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception:  # told by who reads it
        return False
    return isinstance(state, dict) and {"architecture", "image_size", "model"} <= state.keys()


def _read_model(path: Path, remedy: str) -> TrainedNetwork:
    with _remedied(path, remedy):
        state = torch.load(path, map_location="cpu", weights_only=True)
        if not isinstance(state, dict) or not isinstance(state.get("model"), dict):
            raise ValueError("it holds no model")
        return _filled(path, state, state["model"])


@contextmanager
def _remedied(path: Path, remedy: str) -> Iterator[None]:
    """`reading`, with the remedy added to our own sentences too."""
    with reading(path, remedy):
        try:
            yield
        except UserError as error:
            raise UserError(f"{error}; {remedy}") from None


def _read_exported(path: Path) -> TrainedNetwork | None:
    """The network of a file that `facenas export --format safetensors` wrote; None of any other file."""
    if path.suffix.lower() != ".safetensors":
        return None
    with _remedied(path, "export it again"):
        try:
            with safe_open(path, "pt") as file:
                said = file.metadata() or {}
        except (OSError, SafetensorError):
            return None  # told by who reads it as a checkpoint of another project
        if "facenas_version" not in said:
            return None
        return _of_export(path, said, read_tensors(path), "facenas safetensors")


def _of_export(path: Path, said: dict[str, str], weights: dict[str, Tensor], format: str) -> TrainedNetwork:
    """With what `TrainedNetwork.metadata` said."""
    listed = ("architecture", "mean", "std", "classes")
    facts = {key: json.loads(text) if key in listed else text for key, text in said.items()}
    return _filled(path, facts, weights, format=format)


def _imported(path: Path, color: Color | None, prefix: str | None) -> TrainedNetwork:
    with reading(path, "fetch it again"):
        found = load_foreign(path, color, prefix)
        tree, turned = found.architecture.to_json(), found.color == "BGR"
        mean, std = (0.5,) * 3, (found.std,) * 3
        said = {"architecture": tree, "mean": mean, "std": std, "colour": "RGB", "image_size": FACE_SIZE}
        return _filled(path, said, found.backbone, format="checkpoint", turned=turned)


def _filled(path: Path, said: dict[str, Any], weights: Any, **more: Any) -> TrainedNetwork:
    """Raises UserError when what the file says does not make sense or fit, and whatever torch does."""
    facts = validate(_Facts, {key: said[key] for key in _Facts.model_fields if key in said}, str(path))
    arch = from_json(facts.architecture)
    numbers = sum(tensor.numel() for tensor in weights.values())
    if arch.count_parameters() > numbers:  # before room is made for them
        raise UserError(f"{path}: holds {numbers:,} numbers, too few for its architecture")
    if arch.task != FACE and facts.classes and len(facts.classes) != arch.num_classes:
        raise UserError(f"{path}: names {len(facts.classes)} classes, but tells {arch.num_classes} apart")
    network = arch.build(0)
    network.load_state_dict(weights)
    shown = facts.mean, facts.std, facts.colour, facts.image_size, facts.classes, facts.crop_fraction
    return TrainedNetwork(arch, network, *shown, **more)
