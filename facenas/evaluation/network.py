"""A trained network ready to use: images in, embeddings or labels out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from facenas.data.classes.crops import decode_center
from facenas.data.images import decode_image, find_images, open_image, reason_of, to_pixels
from facenas.errors import UserError
from facenas.evaluation.embedders.device_batches import without_tf32
from facenas.files import open_regular
from facenas.spaces.base import FACE, FACE_SIZE

if TYPE_CHECKING:
    from facenas.models.load import TrainedNetwork

Pixels = NDArray[np.uint8]
# An array (n, h, w, c) or (n, h, w), one path, or several.
Images = Pixels | Tensor | str | Path | Sequence[str | Path]

_BATCH = 256


class Network(nn.Module):
    """A trained network with its preprocessing, on the CPU until it is moved (`.to("cuda")`), evaluating.

    trained: the network and what it takes (`mean`, `std`, `color`, `image_size`, `classes`, `arch`).
    """

    def __init__(self, trained: TrainedNetwork) -> None:
        super().__init__()
        self.trained = trained
        self.eval()

    @property
    def classes(self) -> tuple[str, ...]:
        """Names in the order of the logits; none of a face network."""
        return self.trained.classes

    def forward(self, images: Tensor) -> Tensor:
        """(n, c, h, w) float32, normalized as `trained.normalize` does -> logits, or z, not normalized."""
        outputs: Tensor = self.trained(images)
        return outputs

    def embed(self, images: Images) -> NDArray[np.float32]:
        """Unit embeddings (n, E) of aligned crops (n, 112, 112, 3) uint8 RGB, or of their files.

        Raw embeddings of image and mirror image are added first, as published figures have it. Compare two by
        their dot product. Raises UserError for a classification network.
        """
        if self.trained.arch.task != FACE:
            raise UserError("a classification network gives no embeddings: call predict")
        return unit_embeddings(images, self._outputs)

    def predict(self, images: Images) -> tuple[list[str], NDArray[np.float32]]:
        """The likeliest class of each image by name, and the probabilities (n, classes).

        images: (n, h, w, c) or (n, h, w) uint8, or files, which are resized as those of the data set were.
        Raises UserError for a face network, and for arrays of another size.
        """
        if self.trained.arch.task == FACE:
            raise UserError("a face network knows no classes: call embed")
        channels, side, _ = self.trained.input_shape
        logits = self._outputs(_pixels(images, side, channels, False, self.trained.crop_fraction))
        probabilities = torch.from_numpy(logits).softmax(1).numpy()
        return [self.classes[best] for best in probabilities.argmax(1)], probabilities

    @torch.inference_mode()
    def _outputs(self, pixels: Pixels) -> NDArray[np.float32]:
        device = next(self.parameters()).device
        with without_tf32(device):
            outputs = [
                self(self.trained.normalize(batch.to(device))).float().cpu()
                for batch in torch.split(torch.from_numpy(pixels), _BATCH)
            ]
        return torch.cat(outputs).numpy()


def unit_embeddings(images: Images, embed: Callable[[Pixels], NDArray[np.float32]]) -> NDArray[np.float32]:
    """(n, E) of unit length: what `embed` gives for images and for their mirror images, added."""
    pixels = _pixels(images, FACE_SIZE, 3, face=True)
    raw = embed(pixels) + embed(np.ascontiguousarray(pixels[:, :, ::-1]))
    return np.asarray(raw / np.maximum(np.linalg.norm(raw, axis=1, keepdims=True), 1e-12), np.float32)


def _pixels(images: Images, side: int, channels: int, face: bool, crop_fraction: float | None = None) -> Pixels:
    """(n, side, side, channels) uint8; files of classes are resized, those of faces must be that large."""
    if isinstance(images, Tensor):
        images = images.cpu().numpy()
    if not isinstance(images, np.ndarray):
        names = [images] if isinstance(images, str | Path) else list(images)
        read = [_read(Path(name), side, channels, face, crop_fraction) for name in names]
        images = np.stack(read) if read else np.empty((0, side, side, channels), np.uint8)
    pixels = images[..., None] if images.ndim == 3 else images
    if pixels.dtype != np.uint8 or pixels.shape[1:] != (side, side, channels):
        raise UserError(
            f"images: should be uint8 of shape (n, {side}, {side}, {channels}), not {images.dtype} of "
            f"{images.shape}"
        )
    if not len(pixels):
        raise UserError("images: there are none")
    return np.ascontiguousarray(pixels)


def _read(path: Path, side: int, channels: int, face: bool, crop_fraction: float | None) -> Pixels:
    try:
        with open_regular(path) as file:
            data = file.read()
        if crop_fraction:
            return decode_center(data, crop_fraction, side, grey=channels == 1)
        if not face:
            with open_image(data) as image:
                return to_pixels(image, grey=channels == 1, size=side)
        pixels = decode_image(data)
    except Exception as error:  # whatever a damaged image makes Pillow raise
        raise UserError(f"{path}: cannot be read as an image ({reason_of(error)})") from None
    if pixels.shape[:2] != (side, side):
        raise UserError(
            f"{path}: is {pixels.shape[1]}x{pixels.shape[0]} pixels; a face network takes aligned crops of "
            f"{side}x{side}, which `facenas align` makes"
        )
    return pixels


def list_images(paths: Sequence[Path]) -> list[Path]:
    """Image files, and those in folders, in order; raises UserError as `find_images` does."""
    found: list[Path] = []
    for path in paths:
        if path.suffix.lower() == ".zip":
            raise UserError(f"{path}: give images or folders of them; unpack the zip first")
        files, names = find_images(path)
        found += [files.root / name for name in names]
    return found
