"""InsightFace's `.bin` files: a pickle of (2 n encoded images, n bools); pair i is images 2i and 2i + 1.

(deepinsight/insightface:recognition/arcface_torch/eval/verification.py `load_bin`, and
recognition/arcface_mxnet/common/build_eval_pack.py, which writes them.) Old ones come from Python 2. The
images are `bytes` or uint8 arrays, the bools Python's or NumPy's. A pickle can have any function called, so
here none is: something inert stands in for the few names that these files have, and any other name ends the
reading. Nor is NumPy's own unpickling trusted with them.
"""

from __future__ import annotations

import hashlib
import io
import pickle
import pickletools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facenas.errors import UserError
from facenas.evaluation.benches.images import EncodedImages
from facenas.files import open_regular

# Lists, tuples, texts, numbers, and calls of what `_Unpickler.find_class` gives: no other instruction.
_INSTRUCTIONS = frozenset(
    "PROTO FRAME STOP MARK EMPTY_LIST LIST APPEND APPENDS EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 NONE "  # noqa: SIM905
    "NEWTRUE NEWFALSE INT BININT BININT1 BININT2 LONG LONG1 STRING BINSTRING SHORT_BINSTRING BINBYTES "
    "BINFLOAT FLOAT "
    "SHORT_BINBYTES BINBYTES8 BYTEARRAY8 UNICODE BINUNICODE SHORT_BINUNICODE PUT BINPUT LONG_BINPUT "
    "MEMOIZE GET BINGET LONG_BINGET GLOBAL STACK_GLOBAL REDUCE BUILD".split()
)
_DTYPES = (
    "u1",
    "b1",
    "uint8",
    "bool",
    "O8",
    "O",
    *(f"{kind}{size}" for kind in "iuf" for size in (1, 2, 4, 8)),
)
_STARTS = (b"\x80", b"(")  # a protocol's number, or the first mark of protocols 0 and 1


def read_bin(path: Path) -> tuple[EncodedImages, NDArray[np.bool_]]:
    """(2 n images, which stay encoded in memory; (n,) labels of the pairs of neighbors).

    Raises UserError when the file is something else, damaged or hostile.
    """
    try:
        with open_regular(path) as file:
            head = file.read(16)
            content = head + file.read() if head.startswith(_STARTS) else b""
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    images, same = _parsed(path, content)
    if len(images) != 2 * len(same) or not images:
        raise UserError(
            f"{path}: holds {len(images)} images and {len(same)} labels; a pair is two images and a label"
        )
    names = [f"image {number}" for number in range(len(images))]
    fingerprint = hashlib.sha256(content).hexdigest()
    return EncodedImages(names, images.__getitem__, path, fingerprint), same


def _parsed(path: Path, content: bytes) -> tuple[list[bytes], NDArray[np.bool_]]:
    if not content:
        raise UserError(f"{path}: is not an InsightFace .bin file: it does not begin as a pickle")
    try:
        _check_instructions(content)
        images, labels = _Unpickler(content).load()
        images, labels = (x.values() if isinstance(x, _Array) else x for x in (images, labels))
        return [_image(item) for item in images], np.array([_bool(x) for x in labels], bool)
    except _HostileError as error:
        raise UserError(f"{path}: is refused, and nothing of it was run: {error}") from None
    except Exception as error:  # unpickling raises many kinds
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{path}: is damaged or not an InsightFace .bin file ({reason})") from None


class _HostileError(Exception):
    """What no InsightFace file has."""


def _check_instructions(content: bytes) -> None:
    """Also of lengths: `genops` finds those that claim more than there is, for which room would be made."""
    for count, (instruction, argument, _) in enumerate(pickletools.genops(content)):
        if instruction.name not in _INSTRUCTIONS:
            raise _HostileError(f"it has the pickle instruction {instruction.name}")
        # The memo is as long as its greatest number: one instruction could ask for 64 GB.
        if instruction.name in ("PUT", "BINPUT", "LONG_BINPUT") and int(argument or 0) > count:
            raise _HostileError(f"it puts number {argument} into its memo of at most {count}")


class _Inert:
    """Stands in for a function or class: can be called and nothing else."""

    __slots__ = ("_call",)

    def __init__(self, call: Callable[..., Any]) -> None:
        self._call = call

    def __call__(self, *arguments: Any) -> Any:
        return self._call(*arguments)

    def __setstate__(self, state: object) -> None:
        raise _HostileError("it changes a function")


class _Dtype:
    """Stands in for `numpy.dtype`: numbers of any size, and objects; the state tells the order of bytes."""

    def __init__(self, name: str | bytes, *_: object) -> None:
        self.name = name.decode() if isinstance(name, bytes) else name
        if self.name.lstrip("|<>=") not in _DTYPES:
            raise ValueError(f"an array of {self.name}, where images have one byte and labels are numbers")
        self.of_bytes = self.name.lstrip("|") in ("u1", "b1", "uint8", "bool")
        self.of_objects = self.name.startswith("O")
        self.order = "<"

    def __setstate__(self, state: object) -> None:
        if isinstance(state, tuple) and len(state) > 1 and state[1] in (">", b">"):
            self.order = ">"


class _Array:
    """Stands in for `numpy.ndarray` and NumPy's scalars."""

    def __init__(self, dtype: object = None, data: object = b"") -> None:
        self.data: bytes | bytearray = b""
        self.dtype = _Dtype("u1")
        if dtype is not None:
            self.__setstate__((1, (), dtype, False, data))

    def __setstate__(self, state: tuple[object, ...]) -> None:
        _version, _shape, dtype, _fortran, data = state
        if isinstance(dtype, _Dtype) and dtype.of_objects and isinstance(data, list):
            self._objects = data
        elif not isinstance(dtype, _Dtype) or dtype.of_objects or not isinstance(data, bytes | bytearray):
            raise ValueError("an array without type or bytes")
        else:
            self.data = data
        self.dtype = dtype

    def values(self) -> list[Any]:
        """Its elements, in one row."""
        if self.dtype.of_objects:
            return self._objects
        name = self.dtype.name.lstrip("|<>=")
        dtype = np.dtype(name if self.dtype.of_bytes else self.dtype.order + name)
        return list(np.frombuffer(self.data, dtype).tolist())


class _Unpickler(pickle.Unpickler):
    def __init__(self, content: bytes) -> None:
        super().__init__(io.BytesIO(content), encoding="bytes")
        # One text can be asked for again and again, and is copied each time.
        self._to_encode = len(content)

    def find_class(self, module: str, name: str) -> _Inert:
        known: dict[tuple[str, str], Callable[..., Any]] = {
            ("numpy", "ndarray"): _Array,
            ("numpy", "dtype"): _Dtype,
            ("numpy.core.multiarray", "_reconstruct"): lambda kind, shape, code: _Array(),
            ("numpy.core.multiarray", "scalar"): _Array,
            ("numpy.core.numeric", "_frombuffer"): lambda data, dtype, *_: _Array(dtype, data),
            ("_codecs", "encode"): self._encode,  # bytes, in pickles that Python 2 can read
        }
        call = known.get((module.replace("numpy._core", "numpy.core"), name))
        if call is None:
            raise _HostileError(f"it names {module}.{name}, which such a file has no use for")
        return _Inert(call)

    def _encode(self, text: str, encoding: str | bytes) -> bytes:
        self._to_encode -= len(text)
        if self._to_encode < 0 or encoding not in ("latin1", "latin-1", b"latin1"):
            raise _HostileError("it has a text encoded in a way no such file has")
        return text.encode("latin-1")


def _image(item: object) -> bytes:
    if isinstance(item, _Array) and not item.dtype.of_bytes:
        raise ValueError(f"an image is an array of {item.dtype.name}, not of bytes")
    data = item.data if isinstance(item, _Array) else item
    if not isinstance(data, bytes | bytearray):
        raise ValueError(f"an image is no bytes but {type(data).__name__}")
    return bytes(data)


def _bool(item: object) -> bool:
    values = item.values() if isinstance(item, _Array) else [item]
    value = values[0] if len(values) == 1 else item
    if not isinstance(value, int | float) or value not in (0, 1):
        raise ValueError(f"a label is neither true nor false but {type(item).__name__}")
    return bool(value)
