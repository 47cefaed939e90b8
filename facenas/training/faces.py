"""Training of a face network: identities as classes of a margin head, judged on identities it never saw."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from facenas.data.config import DataConfig
from facenas.data.faces.augment import FaceAugment
from facenas.data.faces.loader import FaceLoader, to_input
from facenas.data.faces.splits import (
    draw_pairs,
    hold_out_identities,
    relabelled,
    stratified_subset,
)
from facenas.data.faces.store import FaceStore
from facenas.device import Device
from facenas.evaluation.embedders.module import pair_distances
from facenas.evaluation.metrics.roc import roc_points, tar_at_fars
from facenas.evaluation.metrics.ten_fold import ten_fold_of
from facenas.models.dropout import place_dropout
from facenas.training import distributed
from facenas.training.recipes import FaceRecipe
from facenas.training.tasks import Score, TaskContext

Indices = NDArray[np.int64]
Pairs = tuple[Indices, NDArray[np.bool_]]

_FARS = (0.1, 0.01, 0.001)


class FaceTask:
    """The task (`facenas.training.tasks.Task`) of telling the identities of `store` apart.

    Three sets of identities, apart from each other and fixed by `split_seed`: to test on
    (`test_fraction`, may be none), to choose on (`validation_fraction`) and to train on.
    A candidate sees `data_fraction` of the images of the latter, the `final` network all.
    """

    def __init__(self, context: TaskContext) -> None:
        arch, store, recipe = context.arch, context.data, context.recipe
        assert isinstance(store, FaceStore)
        assert isinstance(recipe, FaceRecipe)
        self.store, self.seed, self.device = store, context.seed, context.device
        config, split_seed = context.data_config, context.split_seed
        if context.final and not recipe.hold_out:
            config = config.model_copy(update={"validation_fraction": 0.0})
        train, self._judged, self._tested = split_faces(store.labels, config, split_seed)
        if not context.final:
            train = stratified_subset(store.labels, train, config.data_fraction, split_seed)
        labels = relabelled(store.labels[train])
        self.images, self.identities = len(train), int(labels.max()) + 1
        augment = FaceAugment(recipe.crop, recipe.low_res, recipe.photometric, recipe.flip)
        self.loader = FaceLoader(
            store,
            train,
            labels,
            recipe.batch_size,
            augment,
            self.seed,
            readers(self.device),
            distributed.rank(),
            distributed.world(),
        )
        # The head's class is known by its settings: a head of one's own needs no line here.
        head = recipe.head.owner(arch.embedding, self.identities, self.seed, recipe.head)
        self._head: nn.Module = head.to(self.device.torch_device)
        self.restart(context.model or arch.build(self.seed), self.seed)

    def restart(self, model: nn.Module, seed: int) -> None:
        """Puts another network before the same head; draws begin anew from `seed`."""
        self.seed = self.loader.seed = seed
        self.model = self.device.place(model)
        self.network = FaceNetwork(self.model, self._head)

    def batches(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """This process's slices of the joint batches; dropout is told which rows they are."""
        on = self.device.torch_device
        for number, (images, labels) in enumerate(self.loader.epoch(epoch)):
            seed = int(np.random.default_rng([self.seed, epoch, number, 2]).integers(2**62))
            place_dropout(self.network, seed, *self.loader.place(number))
            yield to_input(images.to(on)), labels.to(on)

    def score(self) -> Score | None:
        """Mean accuracy of ten-fold verification on the identities held out for choosing, if there are any."""
        if self._judged is None:
            return None
        pairs, same = self._judged
        found = ten_fold_of(pair_distances(self.model, self.store, pairs, self.device), same)
        return Score(100 * found.accuracy, found.right)

    def test(self) -> dict[str, Any]:
        """Verification on identities that nothing was chosen on, or, without such, on those held out."""
        verification = self._verify()
        tested = verification is not None and verification["identities"] == "test"
        return {
            "test_accuracy": verification["accuracy"] if verification and tested else None,
            "head_parameters": sum(p.numel() for p in self.network.head.parameters()),
            "identities": self.identities,
            "verification": verification,
        }

    def _verify(self) -> dict[str, Any] | None:
        held_out = self._tested or self._judged
        if held_out is None:
            return None
        pairs, same = held_out
        distances = pair_distances(self.model, self.store, pairs, self.device)
        found, scores = ten_fold_of(distances, same), 1 - distances / 2
        far, tar = roc_points(scores, same)
        rates = tar_at_fars(scores, same, _FARS)
        return {
            "identities": "test" if self._tested else "validation",
            "pairs": len(same),
            "accuracy": 100 * found.accuracy,
            "std": 100 * found.std,
            "tar_at_far": {str(at): 100 * rate for at, rate in rates.items()},
            "roc": {"far": far, "tar": tar},
        }

    def state_dict(self) -> dict[str, Any]:
        """Nothing: every draw depends on seed, epoch and batch alone."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See `state_dict`."""


class FaceNetwork(nn.Module):
    """Backbone and head, as the training loop calls them; the head computes in float32."""

    def __init__(self, backbone: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.backbone, self.head = backbone, head

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        """(n, 3, 112, 112), (n,) -> logits (n, identities) with the margin at the labels."""
        logits: Tensor = self.head(self.backbone(images), labels)
        return logits


def readers(device: Device) -> int:
    """Threads that decode ahead: on a CPU none, the network needs its cores; beside a GPU those there are."""
    if device.torch_device.type == "cpu":
        return 1
    return max(1, min(8, (os.cpu_count() or 1) // distributed.world()))


def split_faces(
    labels: NDArray[np.int32], config: DataConfig, seed: int
) -> tuple[Indices, Pairs | None, Pairs | None]:
    """(images to train on, pairs to choose on, pairs to test on), of disjoint identities.

    There are no pairs where the fraction to hold out for them is 0.
    """
    rest, judged, tested = np.arange(len(labels)), None, None
    if config.test_fraction:
        rest, held = hold_out_identities(labels, config.test_fraction, seed)
        tested = draw_pairs(labels, held, config.pairs, seed)
    if config.validation_fraction:
        train, held = hold_out_identities(labels[rest], config.validation_fraction, seed + 1)
        judged = draw_pairs(labels, rest[held], config.pairs, seed)
        rest = rest[train]
    return rest, judged, tested
