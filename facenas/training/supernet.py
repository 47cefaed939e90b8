"""Training a supernet path by path, and judging a candidate by its path.

"Single Path One-Shot Neural Architecture Search", arXiv 1904.00420, sections 3.2 and 3.4: every batch trains
one path, drawn uniformly; a path is judged after BatchNorm's statistics were taken anew for it. The
sandwich rule (arXiv 1903.05134, section 3.2) trains the largest, the smallest and two random paths at once.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from facenas.errors import UserError
from facenas.models.graph import recalibrate
from facenas.models.supernet import Supernet
from facenas.spaces import Graph
from facenas.spaces.graph import GraphArchitecture
from facenas.strategies.pareto import SupernetSettings
from facenas.training.capture import Batch
from facenas.training.tasks import Score, Task, TaskContext, build_task
from facenas.training.trainer import Trainer

_RANDOM_PATHS = 2  # of a sandwich


class Paths(nn.Module):
    """A supernet as the training loop calls it: it runs the paths that were chosen last."""

    def __init__(self, supernet: Supernet, first: GraphArchitecture) -> None:
        super().__init__()
        self.supernet = supernet
        self.chosen: tuple[GraphArchitecture, ...] = (first,)

    def forward(self, images: Tensor) -> Tensor:
        """Outputs (paths * n, ...) of the same images (n, c, h, w) by every chosen path, one after another."""
        return torch.cat([self.supernet(images, arch) for arch in self.chosen])


class SupernetTask:
    """A task (`facenas.training.tasks.Task`) whose network is all networks of `space`.

    task: whose `model` is `paths`; it brings images, labels and, for faces, the head that all paths share.
    """

    # A graph holds one path; a path comes back once in thousands of steps.
    capturable = False

    def __init__(self, task: Task, paths: Paths, space: Graph, settings: SupernetSettings, seed: int) -> None:
        self.task, self.paths, self.space, self.settings = task, paths, space, settings
        self._rng = random.Random(seed)
        self.model, self.network, self.images = paths, task.network, task.images

    def batches(self, epoch: int) -> Iterator[Batch]:
        """Those of the task; the paths that each trains are chosen before it is given out."""
        for batch in self.task.batches(epoch):
            self.paths.chosen = tuple(self._choose())
            yield batch

    def prepare(self, *batch: Tensor) -> tuple[Tensor, Tensor]:
        """Those of the task; the labels once for every path."""
        images, labels = self.task.prepare(*batch)
        return images, labels.repeat(len(self.paths.chosen))

    def score(self) -> Score | None:
        """Nothing: a supernet is judged path by path."""
        return None

    def facts(self) -> dict[str, Any]:
        """Those of the task."""
        return self.task.facts()

    def test(self) -> dict[str, Any]:
        """Nothing is tested on a supernet."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """The task's own, and the generator that chooses paths."""
        version, numbers, gauss = self._rng.getstate()
        return {"task": self.task.state_dict(), "paths": [version, list(numbers), gauss]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on with the same draws."""
        self.task.load_state_dict(state["task"])
        version, numbers, gauss = state["paths"]
        self._rng.setstate((version, tuple(numbers), gauss))

    def _choose(self) -> Iterator[GraphArchitecture]:
        if not self.settings.sandwich:
            yield self.space.sample(self._rng)
            return
        yield self.space.largest()
        yield self.space.smallest()
        for _ in range(_RANDOM_PATHS):
            yield self.space.sample(self._rng)


def supernet_trainer(
    context: TaskContext, space: Graph, settings: SupernetSettings
) -> tuple[Trainer, Supernet]:
    """What trains a supernet of `space` on the context's data, and the supernet."""
    paths = Paths(Supernet(space, context.seed), space.largest())
    task = build_task(replace(context, model=paths))
    whole = SupernetTask(task, paths, space, settings, context.seed)
    trainer = Trainer(whole, context.recipe, settings.epochs, context.device)
    # torch's fused SGD cannot begin with some gradients missing, as those off the path are; a momentum of 0
    # gives the same first step.
    if context.recipe.optimizer == "sgd":
        for parameter in whole.network.parameters():
            trainer.optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return trainer, paths.supernet


class PathJudge:
    """Judges candidates as paths of one trained supernet; pairs and loader are made once for all of them.

    context: of the search's data, with any architecture of `space`; path: the supernet's checkpoint; images:
    BatchNorm's statistics are taken of about so many. Raises UserError when the file is missing or damaged.
    """

    def __init__(self, context: TaskContext, path: Path, space: Graph, images: int) -> None:
        self.supernet, self.images = read_supernet(path, space), images
        self.device, self.task = context.device, build_task(context)
        teacher = context.teacher
        self._agrees = teacher is None or teacher.compares(context.arch.embedding)

    def __call__(self, arch: GraphArchitecture, seed: int) -> tuple[Score, nn.Module]:
        """How the path does on what is held out, and its network; `seed` draws the images of the statistics."""
        self.task.restart(self.supernet.extract(arch), seed)
        with self.device.autocast():
            recalibrate(self.task.model, self._inputs())
        score = self.task.score()
        assert score is not None, "a candidate is always judged"
        if not self._agrees:  # through a projection that nobody has trained
            score = replace(score, values={k: v for k, v in score.values.items() if k != "agreement"})
        return score, self.task.model

    def _inputs(self) -> Iterator[Tensor]:
        seen = 0
        for batch in self.task.batches(0):
            if seen >= self.images:
                return
            inputs, _ = self.task.prepare(*batch)
            seen += len(inputs)
            yield inputs


def read_supernet(path: Path, space: Graph) -> Supernet:
    """The trained supernet of `space` in the file `path`; raises UserError when it is missing or damaged."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        supernet = Supernet(space, seed=0)
        supernet.load_state_dict(state["supernet"])
    except Exception as error:  # whatever a damaged file makes torch raise
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(
            f"{path}: is no supernet of this search ({reason}); remove it and resume: it is trained anew"
        ) from None
    return supernet
