"""CIFAR-10 and CIFAR-100 as their authors ship them: Python pickles, loose or in the .tar.gz.

A pickle can run any code, and numpy's own unpickling can be led to treat bytes as object pointers.
So nothing of numpy is handed to the unpickler: it gets stand-ins that only keep what they are told,
and every other global is refused.
"""

from __future__ import annotations

import codecs
import pickle
import re
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from facenas.data.images import Pixels
from facenas.data.source import Labels
from facenas.errors import UserError


@dataclass(frozen=True)
class CifarLayout:
    """Batch files in `folder`, in the root itself, or in the unextracted `archive`.

    label_key: which of a batch's lists holds the labels; batches: training files in order.
    """

    folder: str
    archive: str
    batches: tuple[str, ...]
    test_batch: str
    label_key: str

    def places(self, root: Path) -> list[Path]:
        """Folders and archives to look at, the first that is whole wins."""
        return [root / self.folder, root, root / self.archive]

    def files(self, place: Path) -> list[Path] | None:
        """The training batches, then the test batch, or the archive; None when one is missing."""
        if place.name == self.archive:
            return [place] if place.is_file() else None
        found = [place / name for name in (*self.batches, self.test_batch)]
        return found if all(path.is_file() for path in found) else None

    def read(self, files: list[Path]) -> tuple[Pixels, Labels, Pixels, Labels]:
        """The files of `files()`: images (n, 32, 32, 3) uint8 and labels (n,) int64, twice."""
        if len(files) == 1:
            batches = self._read_archive(files[0])
        else:
            batches = {path.name: self._read_file(path) for path in files}
        images, labels = zip(*(batches[name] for name in self.batches), strict=True)
        return np.concatenate(images), np.concatenate(labels), *batches[self.test_batch]

    def _read_file(self, path: Path) -> tuple[Pixels, Labels]:
        with _faults_of(str(path)), path.open("rb") as stream:
            return read_batch(stream, self.label_key)

    def _read_archive(self, path: Path) -> dict[str, tuple[Pixels, Labels]]:
        # Members are taken in the order they lie: going back in a gzip stream unpacks it anew.
        wanted = {f"{self.folder}/{name}": name for name in (*self.batches, self.test_batch)}
        batches = {}
        with _faults_of(str(path)), tarfile.open(path) as archive:
            for member in archive:
                stream = archive.extractfile(member) if member.name in wanted else None
                if stream is not None:
                    with _faults_of(f"{path}/{member.name}"):
                        batches[wanted[member.name]] = read_batch(stream, self.label_key)
            missing = wanted.values() - batches.keys()
            if missing:
                raise ValueError(f"{min(missing)} is missing in it")
        return batches


def read_batch(stream: IO[bytes], label_key: str) -> tuple[Pixels, Labels]:
    """One batch: images (n, 32, 32, 3) uint8 and labels (n,) int64.

    Raises pickle.UnpicklingError for a pickle that asks for more than arrays, ValueError and others
    for one that holds something else.
    """
    batch = _BatchUnpickler(stream, encoding="bytes").load()
    if not isinstance(batch, dict):
        raise ValueError("it holds no batch of images")
    # Keys are bytes in the authors' files (Python 2), and text in some repacked ones.
    batch = {k.decode() if isinstance(k, bytes) else k: v for k, v in batch.items()}
    if label_key not in batch or "data" not in batch:
        raise ValueError(f"it lacks 'data' or '{label_key}'")
    rows = _array(batch["data"])
    if rows.dtype != np.uint8 or rows.ndim != 2 or rows.shape[1] != 3 * 32 * 32:
        raise ValueError("its images are not rows of 3,072 unsigned bytes")
    labels = _array(batch[label_key]).astype(np.int64)
    if labels.shape != (len(rows),):
        raise ValueError(f"it has {len(rows)} images and labels of shape {labels.shape}")
    return np.ascontiguousarray(rows.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)), labels


class _Dtype:
    """Stands in for numpy.dtype: a spelling like 'u1' and a byte order."""

    def __init__(self, spelling: bytes | str, *_: Any) -> None:
        self.spelling = _text(spelling)
        self.order = "|"

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = _text(state[1])


class _Array:
    """Stands in for numpy.ndarray: the state that numpy pickles, untouched."""

    shape: tuple[int, ...]
    dtype: _Dtype
    fortran: bool
    data: bytes

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, self.shape, self.dtype, self.fortran, self.data = state


def _new_array(*_: Any) -> _Array:
    return _Array()


class _BatchUnpickler(pickle.Unpickler):
    """Knows the globals that pickled arrays name, by numpy 1's and numpy 2's spelling."""

    _KNOWN: ClassVar[dict[tuple[str, str], Any]] = {
        ("numpy", "ndarray"): _Array,
        ("numpy", "dtype"): _Dtype,
        ("numpy.core.multiarray", "_reconstruct"): _new_array,
        ("numpy._core.multiarray", "_reconstruct"): _new_array,
        ("_codecs", "encode"): codecs.encode,
    }

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self._KNOWN:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no image needs")
        return self._KNOWN[module, name]


def _array(value: Any) -> NDArray[Any]:
    """A stand-in, or a list of integers, as an array of integers."""
    if not isinstance(value, _Array):
        return np.array(value, np.int64)
    if not re.fullmatch("[iu][1248]", value.dtype.spelling) or value.dtype.order not in "<>|=":
        raise ValueError(f"it holds an array of {value.dtype.spelling!r}")
    dtype = np.dtype(value.dtype.order + value.dtype.spelling)
    flat: NDArray[Any] = np.frombuffer(value.data, dtype)
    return flat.reshape(value.shape[::-1]).T if value.fortran else flat.reshape(value.shape)


def _text(value: bytes | str) -> str:
    return value.decode("ascii") if isinstance(value, bytes) else value


@contextmanager
def _faults_of(where: str) -> Iterator[None]:
    """Any fault inside becomes a UserError that names the file."""
    try:
        yield
    except UserError:
        raise
    except pickle.UnpicklingError as error:
        raise UserError(f"{where}: refused as a CIFAR batch: {error}; fetch it again") from None
    except (tarfile.TarError, EOFError, zlib.error):
        raise UserError(f"{where}: is truncated or corrupt; fetch it again") from None
    except Exception as error:  # a bad pickle can fail in any way
        raise UserError(f"{where}: cannot be read as CIFAR ({error}); fetch it again") from None
