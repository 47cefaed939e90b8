"""What is trained, on what: the seam between the training loop and images or faces."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from facenas.data import TrainingData
from facenas.data.config import DataConfig
from facenas.data.faces.store import FaceStore
from facenas.device import Device
from facenas.errors import UserError
from facenas.spaces import Architecture
from facenas.training.capture import Batch
from facenas.training.recipes import FaceRecipe, Recipe

if TYPE_CHECKING:
    from facenas.training.teachers import Teacher


@dataclass(frozen=True)
class Score:
    """How a network does on what is held out: accuracy in percent, and (n,) bool, which items are right.

    An agreement with a teacher has no right items. values: what else was measured of the same images, by name,
    such as the worst group's error.
    """

    accuracy: float
    right: NDArray[np.bool_]
    values: dict[str, float] = field(default_factory=dict)


class LossNetwork(nn.Module):
    """A network with its loss, as the training loop calls them; this one's outputs are logits.

    label_smoothing: what part of each label is spread over all classes.
    """

    def __init__(self, model: nn.Module, label_smoothing: float = 0.0) -> None:
        super().__init__()
        self.model, self.label_smoothing = model, label_smoothing

    def forward(self, inputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Images (n, c, h, w), labels (n,) int64 -> mean loss, number of right answers."""
        return self.judge(self.embed(inputs), labels)

    def embed(self, inputs: Tensor) -> Tensor:
        """What the network itself makes of the images, each by itself."""
        outputs: Tensor = self.model(inputs)
        return outputs

    def judge(self, outputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Cross-entropy, in float32, and right answers of what `embed` gave for a whole batch."""
        loss = F.cross_entropy(outputs.float(), labels, label_smoothing=self.label_smoothing)
        return loss, (outputs.argmax(1) == labels).sum()


class Task(Protocol):
    """What is trained, on what: the loop knows nothing else of images or faces.

    `model` is the network that is kept. `network` holds all that is trained with it, such as a margin head:
    `network(inputs, labels)` gives the mean loss of the images and how many of them it puts right.
    """

    @property
    def model(self) -> nn.Module:
        """See above."""
        ...

    @property
    def network(self) -> LossNetwork:
        """See above."""
        ...

    @property
    def images(self) -> int:
        """How many images an epoch trains on."""
        ...

    @property
    def capturable(self) -> bool:
        """Whether batches of the same shapes are worked off by the same operations."""
        ...

    def batches(self, epoch: int) -> Iterator[Batch]:
        """Of every batch of this process, in a new order: all that differs from the others, on the device."""
        ...

    def prepare(self, *batch: Tensor) -> tuple[Tensor, Tensor]:
        """Augmented inputs and labels (n,) int64 of a batch. Draws nothing and never waits for the device."""
        ...

    def score(self) -> Score | None:
        """On the images held out for choosing; None when there are none."""
        ...

    def facts(self) -> dict[str, Any]:
        """Where the images are while it trains, for the run's facts."""
        ...

    def test(self) -> dict[str, Any]:
        """What the final result tells of images that nothing was chosen on."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """States of random generators that a resumed training needs."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from what `state_dict` told."""
        ...


class NetworkTask(Task, Protocol):
    """A task of one network at a time, which can go on with another."""

    def restart(self, model: nn.Module, seed: int) -> None:
        """Puts another network on the same data; draws are those of a new task of this `seed`."""
        ...


@dataclass(frozen=True)
class TaskContext:
    """All that a task is made of.

    `split_seed` decides what is held out, `seed` weights and draws. A `final` network trains on all that is
    not held out, a candidate on `data_config.data_fraction` of it. `model`: the network of `arch`, when it is
    not to be built anew. `teacher`: the one that the recipe names.
    """

    arch: Architecture
    data: TrainingData
    data_config: DataConfig
    recipe: Recipe | FaceRecipe
    split_seed: int
    seed: int
    device: Device
    final: bool = False
    model: nn.Module | None = None
    teacher: Teacher | None = None


def build_task(context: TaskContext) -> NetworkTask:
    """The task of the data's kind.

    Raises UserError when architecture, data and recipe do not belong together.
    """
    from facenas.training.classification import ClassificationTask
    from facenas.training.faces import FaceTask

    faces = isinstance(context.data, FaceStore)
    if not context.final:
        context.data_config.check_candidates_are_judged()
    if faces == (context.arch.task == "face") == isinstance(context.recipe, FaceRecipe):
        return FaceTask(context) if faces else ClassificationTask(context)
    raise UserError(
        f"{context.data_config.name}: an architecture of kind {context.arch.kind} and a recipe for "
        f"{context.recipe.kind} do not fit this data; faces (a store made by `facenas data import`) go with "
        "kind ir, images of classes with others"
    )
