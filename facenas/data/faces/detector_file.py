"""The file of the face detector: given, found in the cache, or fetched once.

YuNet of March 2023, 232,589 bytes, MIT licence; its sha256 is the one that `opencv/opencv_zoo:models/
face_detection_yunet/face_detection_yunet_2023mar.onnx` (a Git LFS pointer) states.
"""

from __future__ import annotations

import hashlib
from http.client import HTTPException
from pathlib import Path
from urllib.request import urlopen

from facenas.data.cache import default_cache
from facenas.errors import UserError
from facenas.files import write_atomically

NAME = "face_detection_yunet_2023mar.onnx"
SHA256 = "8f2383e4dd3cfbb4553ea8718107fc0423210dc964f9f4280604804ed2552fa4"
URL = (
    "https://media.githubusercontent.com/media/opencv/opencv_zoo/main/models/"
    f"face_detection_yunet/{NAME}"
)
_SECONDS = 20  # without an answer
_MOST_BYTES = 10_000_000


def find_detector(given: Path | None = None) -> Path:
    """The detector's file: `given`, else the one in the cache, fetched there when it is missing.

    Raises UserError when `given` is no file, and when there is none in the cache and it cannot be
    fetched; SearchStoppedError when the cache cannot be written. What is fetched or found in the
    cache has the pinned sha256; `given` may be another one.
    """
    if given is not None:
        if not given.is_file():
            raise UserError(f"{given}: there is no such file; --detector takes {NAME}")
        return given
    path = default_cache() / NAME
    if not path.is_file():
        _fetch(path)
    elif sha256_of(path) != SHA256:
        raise UserError(f"{path}: is damaged; delete it to have it fetched anew")
    return path


def sha256_of(path: Path) -> str:
    """The sha256 of a file, in hexadecimal; raises UserError when it cannot be read."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None


def _fetch(path: Path) -> None:
    """Downloads to `path` what has the right sha256."""
    data = _download(path)
    if hashlib.sha256(data).hexdigest() != SHA256:
        raise UserError(
            f"{URL}: gave another file than expected (its sha256 differs); get {NAME} elsewhere and "
            f"give it by --detector, or put it at {path}"
        )

    def write(temporary: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(data)

    remedy = "set FACENAS_CACHE to another folder, or give the detector by --detector"
    write_atomically(path, write, remedy=remedy)


def _download(path: Path) -> bytes:
    try:
        with urlopen(URL, timeout=_SECONDS) as answer:
            return bytes(answer.read(_MOST_BYTES))
    except (OSError, HTTPException) as error:  # URLError is an OSError
        cause = getattr(error, "reason", error)  # URLError's
        reason = getattr(cause, "strerror", None) or cause
        raise UserError(
            f"the face detector is not at hand and cannot be fetched ({reason}); get {URL} and give "
            f"it by --detector, or put it at {path}"
        ) from None
