"""What every search space is made of: frozen `Architecture`s, and the `SearchSpace` that they are drawn from.

One's own space is one file: a dataclass of numbers and texts, how it is built, and how one is drawn.

    @dataclass(frozen=True)
    class Mlp(Architecture):
        widths: tuple[int, ...]
        in_channels: int
        num_classes: int

        def build(self, seed):
            ...  # an nn.Module, its weights drawn from `seed` alone

    class MlpSpace(SearchSpace[Mlp]):
        Architecture = Mlp

        def sample(self, rng):
            return Mlp((rng.choice((16, 32)),), self.images.in_channels, self.images.num_classes)

JSON, counts and a start follow from these; `facenas.testing.check_search_space` says whether it all fits.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import MISSING, dataclass, fields, is_dataclass
from functools import cache, cached_property
from types import MappingProxyType
from typing import (
    TYPE_CHECKING,
    Any,
    ClassVar,
    Generic,
    Self,
    TypeVar,
    get_args,
    get_origin,
    get_type_hints,
)

from facenas.config import Config, Registry, validate
from facenas.errors import UserError

if TYPE_CHECKING:  # torch takes a second to import: this package never does
    from torch import nn

A = TypeVar("A", bound="Architecture")

SPACES: Registry[SearchSpace[Any]] = Registry("search space", "facenas.spaces")

CLASSIFICATION, FACE = "classification", "face"
FACE_SIZE = 112  # pixels a side of an aligned crop, as every face network of the literature takes it
LARGE = 64  # images of so many pixels a side are made smaller at once
STEM_STRIDES = (1, 2, 4, 8, 16, 32)  # the last for images of 1024 pixels, the largest there are
LEAST_SIDE = 2  # pixels that strides may leave: BatchNorm cannot learn from one image of one pixel

ADDED = {"added": True}  # metadata of a field that came when architectures were on disk: no key at its default


@dataclass(frozen=True)
class ImageFacts:
    """What images a space is for: channels, classes (0: they are faces), pixels a side.

    stem_stride: by how much a network's first layer divides the side: 1 below 64 pixels, 2 from 64, 4 from 128,
    8 from 256. So what comes behind it sees 32 to 63 pixels of large images: 56 of 224, as in ResNet. Of faces
    1: their networks take one size alone.
    """

    in_channels: int
    num_classes: int
    image_size: int
    stem_stride: int = 0  # 0: as the side says

    def __post_init__(self) -> None:
        if not self.stem_stride:
            stride = 1 << (self.image_size // LARGE).bit_length() if self.num_classes else 1
            object.__setattr__(self, "stem_stride", stride)

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Self:
        """Of a run's data, as `facenas.data.describe` tells them; stems had no stride once, nor a word here."""
        ends = data["in_channels"], data.get("classes", 0)
        return cls(*ends, data["image_size"], data.get("stem_stride", 1))

    def summary(self) -> str:
        """In a few words."""
        channels = f"{self.in_channels} channel{'s' * (self.in_channels != 1)}"
        return f"{channels}, {self.num_classes or 'no'} classes, {self.image_size} pixels"

    @property
    def task(self) -> str:
        """What networks are to do with them: "classification" or "face"."""
        return CLASSIFICATION if self.num_classes else FACE


class Architecture:
    """A frozen description of a network; subclasses are frozen dataclasses.

    Fields may be int, float, bool, str, tuples of these and of other dataclasses; then JSON needs no code.
    A field's key in JSON is its name, or `field(metadata={"json": ...})`. Face networks say `task = "face"`
    and have an `embedding` (the length of z) in place of classes. Equal descriptions have equal fingerprints.
    """

    space: ClassVar[type[SearchSpace[Any]]]  # set by the space that names this class first

    if TYPE_CHECKING:  # at runtime these would become the defaults of the fields of a subclass

        @property
        def task(self) -> str: ...
        @property
        def in_channels(self) -> int: ...
        @property
        def num_classes(self) -> int: ...
        @property
        def embedding(self) -> int: ...

    else:
        task = CLASSIFICATION

    @property
    def kind(self) -> str:
        """The name of its space: what `facenas.spaces.from_json` finds its class by."""
        return SPACES.name_of(self.space)

    def to_json(self) -> dict[str, Any]:
        """The description as plain JSON values, with its `kind`."""
        return {"kind": self.kind, **_as_json(self)}

    @classmethod
    def from_json(cls, tree: dict[str, Any]) -> Self:
        """The inverse of `to_json`; raises UserError when a field is missing or wrong.

        Other keys are not looked at: a line of a journal tells its architecture among other things.
        """
        made: Self = _from_json(cls, tree, "an architecture", strict=False)
        return made

    def build(self, seed: int) -> nn.Module:
        """The network, its weights drawn from `seed` alone.

        (n, in_channels, h, w) float32 -> logits (n, num_classes), or z (n, embedding), not normalized. Built-in
        kinds have their modules in `facenas.models.<kind>`; one's own override this.
        """
        module: nn.Module = _models().build(self, seed)
        return module

    def count_parameters(self) -> int:
        """Exact number of trainable parameters; of face networks without a classification head."""
        return int(_models().count_parameters(self))

    def count_macs(self, image_size: int) -> int:
        """Multiply-accumulates of convolutions and linear layers for one square image."""
        return int(_models().count_macs(self, image_size))

    def count_memory(self, image_size: int) -> int:
        """Bytes that inference on one float32 image of this side takes: weights and peak activations.

        Weights: parameters and buffers such as BatchNorm's running statistics. Peak: the most that lives at
        once while operations run one after another as PyTorch runs them, with BatchNorm not folded into its
        convolution and the image kept; what a kernel takes for itself is not counted.
        """
        return int(_models().count_memory(self, image_size))

    def adapted(self, images: ImageFacts) -> Self:
        """The same network for other images: their channels, classes, and the stem's stride by their size.

        All other tensors keep names and shapes, so that trained weights fit. A kind that can do this overrides
        it; others give themselves, and raise UserError for other channels or classes.
        """
        if (self.in_channels, self.num_classes) == (images.in_channels, images.num_classes):
            return self
        raise UserError(
            f"a network of kind {self.kind} takes {self.in_channels} channels and {self.num_classes} classes, "
            f"not {images.in_channels} and {images.num_classes}; its class has no `adapted` that changes them"
        )

    def extends(self, smaller: Architecture) -> bool:
        """Whether this network can begin with the weights of `smaller` and compute what that does.

        A kind that `facenas.models.inherit` knows overrides it; others cannot.
        """
        return False

    def summary(self) -> str:
        """What it is in a few words, for a progress bar or a table."""
        inside = {k: v for k, v in _as_json(self).items() if k not in ("in_channels", "num_classes")}
        return ", ".join(f"{name} {value}" for name, value in inside.items())


class SearchSpace(ABC, Generic[A]):
    """Bounds, and the moves that a strategy may make; every architecture returned lies within the bounds.

    Constructed from settings, or from their keys as arguments, and then bound to images:
    `Plain(max_depth=10).bind(ImageFacts(1, 10, 28))`. Strategies may need more than `sample` and `start`:
    `mutate(architecture, rng)` gives one with an elementary change, `crossover(first, second, rng)` one that
    takes parts of both. Same settings, same images: equal spaces.

    costs: what an architecture costs elsewhere, by name, such as `latency` on a target; infinity where nobody
    knows.
    """

    Settings: ClassVar[type[Config]] = Config
    Architecture: ClassVar[type[Any]]
    costs: Mapping[str, Callable[[Any], float]] = MappingProxyType({})
    tasks: ClassVar[tuple[str, ...]] = (CLASSIFICATION,)
    name: ClassVar[str]

    settings: Any

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        SPACES.name_of(cls)  # gives it settings of its own, so that they can be pickled by name
        members = vars(cls).get("Architecture")
        if members is not None and "space" not in vars(members):
            members.space = cls

    def __init__(self, settings: Config | None = None, **keys: Any) -> None:
        if settings is None:
            settings = validate(self.Settings, keys, f"search space {self.name}")
        elif keys or not isinstance(settings, self.Settings):
            raise TypeError(f"search space {self.name} takes its own Settings, or their keys")
        self.settings = settings
        self._images: ImageFacts | None = None

    def bind(self, images: ImageFacts) -> Self:
        """This space for such images; raises UserError when it is not made for them."""
        if images.task not in self.tasks:
            raise UserError(
                f"a space of kind {self.name} is for {' and '.join(self.tasks)}, and these images are for "
                f"{images.task}"
            )
        bound = copy(self)
        for name in list(vars(bound)):  # what was computed for other images
            if isinstance(getattr(type(bound), name, None), cached_property):
                del vars(bound)[name]
        bound._images = images
        return bound

    @property
    def images(self) -> ImageFacts:
        """What `bind` was told."""
        if self._images is None:
            raise UserError(f"the search space {self.name} is not bound to images yet: call bind first")
        return self._images

    @abstractmethod
    def sample(self, rng: random.Random) -> A:
        """A random member; all draws come from `rng`."""

    def start(self) -> A:
        """Where a growing search begins: a member, always the same one."""
        return self.sample(random.Random(0))

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and other._parts() == self._parts()

    def __hash__(self) -> int:
        return hash(self._parts())

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.settings!r}, {self._images})"

    def _parts(self) -> tuple[Any, ...]:
        return type(self), self.settings, self._images


SPACES.base = SearchSpace


class GeneSpace(SearchSpace[A]):
    """A space whose members are rows of whole numbers, as evolution works on them.

    All rows are equally long; each gene is the number of a choice, from 0, small networks first. A network may
    ignore genes: several rows may mean one network. Subclasses give `sizes`, `_decode` and `_genes`.
    """

    @property
    @abstractmethod
    def sizes(self) -> tuple[int, ...]:
        """How many choices every gene has."""

    @abstractmethod
    def _decode(self, row: Sequence[int]) -> A:
        """The network of a row within the bounds."""

    @abstractmethod
    def _genes(self, arch: A) -> list[int | None]:
        """The row of a network, None where a gene is ignored; raises UserError where none can mean it."""

    def start(self) -> A:
        """The smallest network: every gene at its lowest value."""
        return self.decode(self.bounds()[0])

    def bounds(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Lowest and highest value of every gene."""
        return (0,) * len(self.sizes), tuple(size - 1 for size in self.sizes)

    def decode(self, row: Sequence[int]) -> A:
        """The network of a row; raises UserError for one of another length or beyond the bounds."""
        if len(row) != len(self.sizes):
            raise UserError(f"a row has {len(self.sizes)} genes, not {len(row)}")
        for number, (gene, size) in enumerate(zip(row, self.sizes, strict=True)):
            if not 0 <= gene < size:
                raise UserError(f"gene {number} is {gene}, but should lie within 0 and {size - 1}")
        return self._decode(row)

    def encode(self, arch: A) -> tuple[int, ...]:
        """A row that decodes to `arch`, ignored genes at 0; raises UserError when there is none."""
        return tuple(gene or 0 for gene in self.genes(arch))

    def genes(self, arch: A) -> list[int | None]:
        """The row of `arch` with None where a gene is ignored; raises UserError when there is none."""
        found = self._genes(arch)
        if self._decode([gene or 0 for gene in found]) != arch:
            raise UserError("the network lies outside of the bounds of the space")
        return found

    def mutate(self, arch: A, rng: random.Random) -> A:
        """One gene changed at random; parts that appear are drawn. `arch` itself if nothing can be changed."""
        genes = list(zip(self.genes(arch), self.sizes, strict=True))
        for level in self._levels(rng):
            changes = [
                (number, value)
                for number in level
                for value in range(genes[number][1])
                if genes[number][0] not in (None, value)
            ]
            for number, value in rng.sample(changes, len(changes)):
                row = [rng.randrange(size) if gene is None else gene for gene, size in genes]
                row[number] = value
                changed = self.decode(row)
                if changed != arch and self._allows(changed):
                    return changed
        return arch

    def _levels(self, rng: random.Random) -> Sequence[range]:
        """Groups of genes that mutation tries one after another; within one, all changes are as likely."""
        return [range(len(self.sizes))]

    def _allows(self, arch: A) -> bool:
        """Whether a network within the bounds of its genes keeps all other bounds."""
        return True


def fingerprint(tree: Any) -> str:
    """sha256 (hex) of plain JSON values in canonical form: sorted keys, no spaces."""
    text = json.dumps(tree, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def check_choices(settings: Config, names: Sequence[str]) -> None:
    """Raises ValueError when one of these tuples of a group of settings is empty or names something twice."""
    for name in names:
        given = getattr(settings, name)
        if not given or len(set(given)) < len(given):
            raise ValueError(f"{name}: name one or more, each once")


def replaced(values: tuple[int, ...], index: int, value: int) -> tuple[int, ...]:
    """`values` with another one at `index`."""
    return (*values[:index], value, *values[index + 1 :])


def check_left(image_size: int, shrink: int) -> None:
    """Raises UserError when strides that divide a side by `shrink` leave too little of an image."""
    if (left := -(-image_size // shrink)) < LEAST_SIDE:
        raise UserError(
            f"images of {image_size} pixels are too small for this network: its strides would leave {left} "
            f"pixel a side, where {LEAST_SIDE} are needed"
        )


def check_face_size(height: int, width: int) -> None:
    """Raises UserError for any size but the one that the last layer of a face network fits."""
    if (height, width) != (FACE_SIZE, FACE_SIZE):
        size = f"{FACE_SIZE}x{FACE_SIZE}"
        raise UserError(f"a face network takes aligned crops of {size} pixels, not {height}x{width}")


def _models() -> Any:
    """What builds and measures networks; by name, as this package lies below that one and knows no torch."""
    return importlib.import_module("facenas.models.build")


def _as_json(value: Any) -> Any:
    # The driver makes keys of hundreds of candidates between two trials, most of whose values are plain.
    if type(value) in (int, str, bool):
        return value
    if isinstance(value, tuple):
        return [_as_json(one) for one in value]
    if is_dataclass(value):
        told = ((f.metadata.get("json", f.name), getattr(value, f.name), f) for f in fields(value))
        return {key: _as_json(v) for key, v, f in told if "added" not in f.metadata or v != f.default}
    return value


def _from_json(cls: Any, tree: Any, what: str, strict: bool = True) -> Any:
    """The dataclass `cls` that `_as_json` made a JSON object of; `what` is its name in messages."""
    if not isinstance(tree, dict):
        raise UserError(f"{what} should be a JSON object, not {tree!r}")
    hints, found, keys = _hints(cls), {}, {"kind"}
    for f in fields(cls):
        key = f.metadata.get("json", f.name)
        keys.add(key)
        if key in tree:
            try:
                found[f.name] = _converted(hints[f.name], tree[key])
            except TypeError:
                wanted = _described(hints[f.name])
                raise UserError(f"{what} has {tree[key]!r} as {key!r}, which should be {wanted}") from None
        elif f.default is MISSING and f.default_factory is MISSING:
            raise UserError(f"{what} needs the field {key!r}")
    if strict and (strange := sorted(set(tree) - keys, key=str)):
        raise UserError(f"{what} has no field {strange[0]!r}")
    return cls(**found)


@cache
def _hints(cls: Any) -> dict[str, Any]:
    """Types of a dataclass's fields."""
    return get_type_hints(cls)


def _converted(hint: Any, value: Any) -> Any:
    """A JSON value as what `hint` says; raises TypeError when it is something else."""
    if isinstance(hint, type) and is_dataclass(hint):
        return _from_json(hint, value, _described(hint))
    if get_origin(hint) is tuple:
        inner = get_args(hint)
        free = inner[1:] == (...,)
        if not isinstance(value, list) or not (free or len(value) == len(inner)):
            raise TypeError
        hints = inner[:1] * len(value) if free else inner
        return tuple(map(_converted, hints, value))
    if hint is float and type(value) is int:
        return float(value)
    if type(value) is not hint:
        raise TypeError
    return value


def _described(hint: Any, several: bool = False) -> str:
    """What a field should be, for messages."""
    if get_origin(hint) is tuple:
        return f"{'lists' if several else 'a list'} of {_described(get_args(hint)[0], several=True)}"
    name = getattr(hint, "__name__", str(hint))
    nouns: tuple[str, str] = getattr(hint, "nouns", None) or _NOUNS.get(hint, (name, name))
    return nouns[several]


_NOUNS: dict[Any, tuple[str, str]] = {
    int: ("a whole number", "whole numbers"),
    float: ("a number", "numbers"),
    bool: ("true or false", "true or false"),
    str: ("a text", "texts"),
}
