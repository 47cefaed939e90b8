"""How deep the parts of a network lie: rates by depth, and parts that do not train."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from facenas.errors import UserError
from facenas.models.build import skeleton
from facenas.spaces import Architecture
from facenas.training.recipes import Optimization
from facenas.training.tasks import Task


@dataclass(frozen=True)
class Depths:
    """What a recipe says of the parts of a network, by their names in `task.network`.

    factors: of the learning rate, by parameter; 0: it does not train. still: modules that stay as they are.
    """

    factors: dict[str, float] = field(default_factory=dict)
    still: tuple[str, ...] = ()

    def freeze(self, network: nn.Module) -> None:
        """Before processes join: what does not train has no gradient."""
        for name, parameter in network.named_parameters():
            if self.factors.get(name) == 0:
                parameter.requires_grad = False


def depths_of(task: Task, arch: Architecture, image_size: int, recipe: Optimization) -> Depths | None:
    """Rates by depth and frozen parts, as the recipe has them; None: one rate for all.

    A head apart is one stage more; a classifier is the last. Raises UserError when there is nothing to freeze.
    """
    if recipe.layer_decay == 1 and recipe.freeze is None:
        return None
    stages = stages_of(arch, image_size)
    if recipe.freeze and len(stages) < 2:
        raise UserError(f"recipe.freeze {recipe.freeze}: the network, of kind {arch.kind}, is in one part")
    frozen = {None: 0, "stem": 1, "body": len(stages) - 1}[recipe.freeze]
    model = next(name for name, module in task.network.named_modules() if module is task.model)
    stage_of = {f"{model}.{part}": number for number, parts in enumerate(stages) for part in parts}
    names = [name for name, _ in task.network.named_parameters()]
    inside = [name for name in names if name.startswith(f"{model}.")]
    last = len(stages) - (len(inside) == len(names))
    factors = {}
    for name in inside:
        stage = next((number for part, number in stage_of.items() if name.startswith(f"{part}.")), 0)
        factors[name] = 0.0 if stage < frozen else recipe.layer_decay ** (last - stage)
    return Depths(factors, tuple(part for part, number in stage_of.items() if number < frozen))


def stages_of(arch: Architecture, image_size: int) -> list[list[str]]:
    """Names of the network's parts by the side of what they give: 112, 56, ... pixels, at last no side at all.

    The first stage is the stem, the last the output: what gives the embedding or the logits.
    """
    network, sides = skeleton(arch), dict[str, int]()

    def look(name: str, output: Any) -> None:
        if isinstance(output, Tensor) and name not in sides:
            last = next(reversed(sides.values()), image_size)
            side = output.shape[-1] if output.dim() == 4 else 0 if output.dim() == 2 else last
            sides[name] = side if side > 1 else 0

    for name, part in _parts(network, ""):
        part.register_forward_hook(lambda _m, _i, output, name=name: look(name, output))
    with torch.no_grad(), torch.device("meta"):
        network(torch.zeros(2, arch.in_channels, image_size, image_size))
    stages: dict[int, list[str]] = defaultdict(list)
    for name, side in sides.items():
        stages[side].append(name)
    trained = (side for side, names in stages.items() if any(_has_weights(network, name) for name in names))
    return [stages[side] for side in sorted(trained, reverse=True)]


def _has_weights(network: nn.Module, part: str) -> bool:
    return next(network.get_submodule(part).parameters(), None) is not None


def _parts(module: nn.Module, prefix: str) -> Iterator[tuple[str, nn.Module]]:
    """The network's parts by name: what lies in containers is a part each."""
    for name, child in module.named_children():
        if isinstance(child, nn.Sequential | nn.ModuleList | nn.ModuleDict) and len(child):
            yield from _parts(child, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", child
