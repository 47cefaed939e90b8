"""Mistakes as the page shows them: face images inside the page, and what went wrong in words."""

from __future__ import annotations

import base64
from dataclasses import dataclass

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from facenas.evaluation.benches.result import Mistake

QUALITY = 85  # to look at only: half the bytes of the quality that images are stored with


@dataclass(frozen=True)
class Picture:
    """A face: what it is called, and its JPEG as a data URI."""

    name: str
    uri: str


@dataclass(frozen=True)
class Shown:
    """A mistake: its pictures, its score, and in words what the network made of it and what is true."""

    pictures: tuple[Picture, ...]
    score: float
    words: str


_WORDS = {  # by whether a gallery was ranked, and whether it is one person
    (False, True): "rejected, but it is one person",
    (False, False): "accepted, but these are two people",
    (True, True): "not found first, but it is this person",
    (True, False): "found first, but it is another person",
}


def show(mistake: Mistake, ranked: bool) -> Shown:
    """What the page tells of a mistake of pair verification, or, when `ranked`, of a search in a gallery."""
    pairs = zip(mistake.names, mistake.images, strict=True)
    pictures = tuple(Picture(name, data_uri(image)) for name, image in pairs)
    return Shown(pictures, mistake.score, _WORDS[ranked, mistake.same])


def data_uri(pixels: NDArray[np.uint8]) -> str:
    """(height, width, 3) uint8 RGB pixels as a JPEG within the page."""
    jpeg = simplejpeg.encode_jpeg(np.ascontiguousarray(pixels), QUALITY, "RGB", "420")
    return "data:image/jpeg;base64," + base64.b64encode(jpeg).decode("ascii")
