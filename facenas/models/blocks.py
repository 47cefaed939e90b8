"""A network cut into the blocks that a runtime does as one: what a table of latencies is made of.

The network runs once without values, on the device "meta", while every function of torch that it calls is
recorded. An operation begins a block; the BatchNorm, activations and reshapes that alone use its result belong
to it, as runtimes fuse them. So any network falls into blocks, one's own too, and two networks share a block
where operations, arguments and all shapes are the same.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map

from facenas.models.build import skeleton
from facenas.spaces import Architecture
from facenas.spaces.base import fingerprint

# What a runtime does in passing, on the result of the operation before.
_FUSED = {
    "batch_norm", "relu", "relu_", "relu6", "silu", "prelu", "leaky_relu", "elu", "gelu", "sigmoid", "tanh",
    "hardswish", "hardsigmoid", "hardtanh", "mul", "div", "flatten", "view", "reshape", "squeeze",
}  # fmt: skip


@dataclass(frozen=True)
class Value:
    """A tensor that the image decides: result number `part` of step `step`, or the image itself (-1)."""

    step: int
    part: int
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Weight:
    """A tensor that the image does not decide."""

    shape: tuple[int, ...]


@dataclass(frozen=True)
class Step:
    """One call of a function of torch; its arguments hold `Value` and `Weight` in place of tensors."""

    function: Callable[..., Any]
    args: Any
    kwargs: dict[str, Any]

    @property
    def name(self) -> str:
        """As torch calls it: conv2d, batch_norm."""
        return str(getattr(self.function, "__name__", self.function))

    @property
    def values(self) -> list[Value]:
        """What it needs of other steps, each once."""
        return list(dict.fromkeys(v for v in tree_leaves((self.args, self.kwargs)) if isinstance(v, Value)))


class _Recorder(TorchFunctionMode):
    """Notes every call whose result the image decides."""

    def __init__(self, image: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.steps: list[Step] = []
        self._kept = [image]  # an id is a tensor's only as long as it lives
        self._values = {id(image): Value(-1, 0, tuple(image.shape))}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        positional, named = tree_map(self._described, (tuple(args), dict(kwargs or {})))
        results = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        if results and any(isinstance(leaf, Value) for leaf in tree_leaves((positional, named))):
            named.pop("inplace", None)  # changes where the result lies alone
            for part, tensor in enumerate(results):
                self._values[id(tensor)] = Value(len(self.steps), part, tuple(tensor.shape))
            self.steps.append(Step(func, positional, named))
            self._kept += results
        return result

    def _described(self, leaf: Any) -> Any:
        if not isinstance(leaf, Tensor):
            return leaf
        return self._values.get(id(leaf)) or Weight(tuple(leaf.shape))


@dataclass(frozen=True)
class Block:
    """Steps one after another; a `Value` of step -1 - i is input number i.

    inputs: their shapes.
    """

    steps: tuple[Step, ...]
    inputs: tuple[tuple[int, ...], ...]

    @cached_property
    def key(self) -> str:
        """sha256 (hex) of operations, arguments and shapes."""
        return fingerprint([[s.name, repr(s.args), repr(sorted(s.kwargs.items()))] for s in self.steps])

    @property
    def summary(self) -> str:
        """For people: conv2d+batch_norm+relu of 1x16x28x28, weights 32x16x3x3."""
        weights = [leaf.shape for leaf in tree_leaves(self.steps[0].args) if isinstance(leaf, Weight)]
        told = "+".join(step.name for step in self.steps) + " of " + " and ".join(map(_sides, self.inputs))
        return told + (f", weights {_sides(weights[0])}" if weights else "")

    def module(self) -> nn.Module:
        """The block by itself, with weights of its own: inputs in order -> what the last step gives."""
        return _BlockModule(self).eval()


def _sides(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


class _BlockModule(nn.Module):
    """Calls the steps one after another."""

    def __init__(self, block: Block) -> None:
        super().__init__()
        self.steps = [(step.function, step.args, step.kwargs) for step in block.steps]
        for number, leaf in enumerate(self._weights()):
            self.register_buffer(f"weight{number}", _drawn(leaf.shape))

    def forward(self, *inputs: Tensor) -> Any:
        """The inputs -> the result of the last step."""
        weights, results = iter(self.buffers()), list[Any]()

        def found(leaf: Any) -> Any:
            if isinstance(leaf, Weight):
                return next(weights)
            if not isinstance(leaf, Value):
                return leaf
            if leaf.step < 0:
                return inputs[-1 - leaf.step]
            result = results[leaf.step]
            return result if isinstance(result, Tensor) else result[leaf.part]

        for function, args, kwargs in self.steps:
            args, kwargs = tree_map(found, (args, kwargs))
            results.append(function(*args, **kwargs))
        return results[-1]

    def _weights(self) -> Iterator[Weight]:
        for _, args, kwargs in self.steps:
            yield from (leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Weight))


def _drawn(shape: tuple[int, ...]) -> Tensor:
    """Weights that keep the scale of values; those of one dimension are shifts, scales or variances."""
    if len(shape) < 2:
        return torch.full(shape, 0.5)
    generator = torch.Generator().manual_seed(0)
    return torch.randn(shape, generator=generator) / math.sqrt(math.prod(shape[1:]))


@torch.no_grad()
def blocks_of(arch: Architecture, image_size: int) -> list[Block]:
    """The blocks of a network for one square image, in the order of their first operation."""
    network = skeleton(arch)
    with torch.device("meta"):
        image = torch.zeros(1, arch.in_channels, image_size, image_size)
        recorder = _Recorder(image)
        with recorder:
            network(image)
    return _grouped(recorder.steps)


@lru_cache(maxsize=4096)
def block_keys(arch: Architecture, image_size: int) -> tuple[str, ...]:
    """The keys of `blocks_of`."""
    return tuple(block.key for block in blocks_of(arch, image_size))


def _grouped(steps: list[Step]) -> list[Block]:
    """Every step in one block: that of the step before it, where it is fused with that, else a new one."""
    uses = Counter(value for step in steps for value in step.values)
    groups: dict[int, list[int]] = {}  # by the last step, the numbers of all
    for number, step in enumerate(steps):
        before, *others = step.values
        fused = step.name in _FUSED and not others and uses[before] == 1 and before.step in groups
        groups[number] = [*(groups.pop(before.step) if fused else ()), number]
    return [_block(numbers, steps) for numbers in sorted(groups.values())]


def _block(numbers: list[int], steps: list[Step]) -> Block:
    """The steps with these numbers by themselves."""
    local = {number: place for place, number in enumerate(numbers)}
    inputs: list[Value] = []

    def renumbered(leaf: Any) -> Any:
        if not isinstance(leaf, Value):
            return leaf
        if leaf.step in local:
            return replace(leaf, step=local[leaf.step])
        if leaf not in inputs:
            inputs.append(leaf)
        return Value(-1 - inputs.index(leaf), 0, leaf.shape)

    made = []
    for step in (steps[number] for number in numbers):
        args, kwargs = tree_map(renumbered, (step.args, step.kwargs))
        made.append(replace(step, args=args, kwargs=kwargs))
    return Block(tuple(made), tuple(value.shape for value in inputs))
