"""Training of a face network: identities as classes of a margin head, judged on identities it never saw."""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from facenas.data.config import DataConfig
from facenas.data.faces.augment import FaceAugment, FaceDraws
from facenas.data.faces.batch_augment import BatchAugment
from facenas.data.faces.loader import FaceLoader, decode_to, to_input
from facenas.data.faces.splits import (
    draw_pairs,
    hold_out_identities,
    least_held_out,
    relabelled,
    stratified_subset,
    subset_of_identities,
)
from facenas.data.faces.store import SIDE, FaceStore
from facenas.data.feed import images_at, readers, resident, streamed, uploaded
from facenas.data.splits import split_indices
from facenas.errors import UserError
from facenas.evaluation.embedders.module import (
    pair_distances,
    squared_distances_of,
    store_embeddings,
    summed_embeddings,
)
from facenas.evaluation.metrics.roc import roc_points, tar_at_fars
from facenas.evaluation.metrics.ten_fold import ten_fold_of
from facenas.models.dropout import place_dropout
from facenas.models.heads.base import Head
from facenas.models.heads.split import build_head
from facenas.training import distributed
from facenas.training.capture import Batch
from facenas.training.distill import Distillation
from facenas.training.face_groups import GroupPairs, draw_group_pairs
from facenas.training.recipes import FaceRecipe
from facenas.training.tasks import LossNetwork, Score, TaskContext
from facenas.training.teachers import Targets

Indices = NDArray[np.int64]
Pairs = tuple[Indices, NDArray[np.bool_]]

log = logging.getLogger(__name__)

EMBEDDED = 512  # images of a batch that is judged on a GPU; their mirror images come beside them

_FARS = (0.1, 0.01, 0.001)
_FEW = 10  # people held out: with fewer, some folds of the pairs have one person alone
_FEWEST = 3  # crops to choose on: the fewest that have similarities to correlate
_NOTHING = np.zeros(0, bool)


class FaceTask:
    """The task (`facenas.training.tasks.Task`) of telling the identities of `store` apart.

    Three sets of identities, apart from each other and fixed by `split_seed`: to test on
    (`test_fraction`, may be none), to choose on (`validation_fraction`) and to train on.
    A candidate sees `data_fraction` of the latter, the `final` network all.

    On a CPU, images are read and augmented one by one (`FaceAugment`). On a GPU they are augmented by whole
    batches there (`BatchAugment`), with the same draws, and live there when they fit.

    With a teacher, its loss (`Distillation`) joins the head's. Without labels it is the only one, all images
    are of one class, and crops are held out in place of identities.
    """

    def __init__(self, context: TaskContext) -> None:
        arch, store, recipe = context.arch, context.data, context.recipe
        assert isinstance(store, FaceStore)
        assert isinstance(recipe, FaceRecipe)
        self.store, self.seed, self.device = store, context.seed, context.device
        split_seed = context.split_seed
        config = _held_out(context.data_config, recipe) if context.final else context.data_config
        known = store.labels if recipe.labelled else np.zeros(len(store), np.int32)
        train = self._split(known, recipe, config, split_seed)
        if not context.final:
            by_identity = config.subset_of == "identities"
            subset = subset_of_identities if by_identity else stratified_subset
            train = subset(known, train, config.data_fraction, split_seed)
        labels = relabelled(known[train])
        self.images, self.identities = len(train), int(labels.max()) + 1
        augment = FaceAugment(recipe.crop, recipe.low_res, recipe.photometric, recipe.flip)
        on = self.device.torch_device
        self.loader = FaceLoader(
            store,
            train,
            labels,
            recipe.batch_size,
            augment,
            self.seed,
            readers(on, distributed.world()),
            distributed.rank(),
            distributed.world(),
        )
        self.pixels: Tensor | None = None
        self._judged_pixels: Tensor | None = None
        self._residency = config.residency
        if self.device.is_gpu:
            self._augment = BatchAugment(augment, on)
            self.pixels = self._resident(train)
        self._head: Head | None = None
        if recipe.labelled:
            # The head's class is known by its settings: a head of one's own needs no line here.
            self._head = build_head(arch.embedding, self.identities, self.seed, recipe.head)
            self.device.place(self._head)
        self._targets: Targets | None = None
        self._distillation: Distillation | None = None
        if teacher := context.teacher:
            assert recipe.distill, "the recipe names its teacher"
            self._targets = Targets(teacher, store, self._looked_at, self.device)
            self._distillation = Distillation(recipe.distill, arch.embedding, teacher.size, self.seed)
            self.device.place(self._distillation)
        self.capturable = self._targets is None or self._targets.capturable
        self.restart(context.model or arch.build(self.seed), self.seed)

    def _split(self, labels: NDArray[np.int32], recipe: FaceRecipe, config: DataConfig, seed: int) -> Indices:
        """Numbers of the images to train on; notes those to look at after every epoch, and pairs of them."""
        self._judged: Pairs | None = None
        self._tested: Pairs | None = None
        self._looked_at: Indices | None = None
        self._groups: GroupPairs | None = None
        if not recipe.labelled:
            train, self._looked_at = split_crops(len(labels), config, seed)
            return train
        train, self._judged, self._tested = split_faces(labels, config, seed)
        if self._judged is not None and config.groups:
            self._groups = draw_group_pairs(self.store, held_out(labels, config, seed)[1], config, seed)
        if self._judged is not None:
            within = [self._groups.pairs] if self._groups else []
            self._looked_at = np.unique(np.concatenate([self._judged[0], *within]))
        return train

    def restart(self, model: nn.Module, seed: int) -> None:
        """Puts another network before the same head; draws begin anew from `seed`."""
        self.seed = self.loader.seed = seed
        self.model = self.device.place(model)
        self.network = FaceNetwork(self.model, self._head, self._distillation)
        self._place = 0, 0

    def batches(self, epoch: int) -> Iterator[Batch]:
        """Of this process's slices of the joint batches: images, labels (m,), and what chance decides.

        Images are (m, 112, 112, 3) uint8; of resident ones, their numbers (m,). The key of dropout comes third,
        (2,) int64, then, on a GPU, what `BatchAugment.plan` gives, and last the teacher's embeddings, if kept.
        """
        for number, batch in enumerate(self._feed(epoch)):
            self._place = self.loader.place(number)
            yield batch

    def _feed(self, epoch: int) -> Iterator[Batch]:
        on = self.device.torch_device
        if not self.device.is_gpu:
            for number, (rows, draws) in enumerate(self.loader.drawn(epoch)):
                images, labels = self.loader.augmented(rows, draws)
                yield images, labels, self._dropout_key(epoch, number), *self._taught(rows, draws)
            return
        drawn = enumerate(self.loader.drawn(epoch))
        if self.pixels is None:
            yield from streamed(lambda job: self._plan(epoch, *job), drawn, on, self.loader.readers)
        else:
            yield from uploaded((self._plan(epoch, *job) for job in drawn), on)

    def _plan(self, epoch: int, number: int, drawn: tuple[Indices, FaceDraws]) -> Batch:
        rows, draws = drawn
        images = torch.from_numpy(rows if self.pixels is not None else self.loader.read(rows))
        labels, key = torch.from_numpy(self.loader.labels[rows]), self._dropout_key(epoch, number)
        return images, labels, key, *self._augment.plan(draws), *self._taught(rows, draws)

    def _taught(self, rows: Indices, draws: FaceDraws) -> Batch:
        return self._targets.batch(self.loader.indices[rows], draws.flip) if self._targets else ()

    def _dropout_key(self, epoch: int, number: int) -> Tensor:
        """(2,) int64: below 2^31, the first one odd, as the hash of `facenas.models.dropout` needs them."""
        key = np.random.default_rng([self.seed, epoch, number, 2]).integers(2**31, size=2)
        return torch.from_numpy(key | [1, 0])

    def prepare(self, *batch: Tensor) -> tuple[Tensor, Tensor]:
        """Inputs (m, 3, 112, 112) float32 in [-1, 1], and labels; what else the step needs is placed."""
        images, labels, key, *plan = batch
        start, total = self._place
        place_dropout(self.network, key, start)
        if self._head is not None:
            self._head.place(key, start, total)
        taught = plan.pop() if self._targets and self._targets.travel else None
        inputs = self._augmented(images, plan)
        if self._targets and self._distillation:
            self._distillation.place(self._targets.of(inputs, taught), start, total)
        return inputs, labels

    def _augmented(self, images: Tensor, plan: list[Tensor]) -> Tensor:
        if not self.device.is_gpu:
            return to_input(images)
        pixels = images if self.pixels is None else self.pixels[images]
        return self._augment.apply(pixels, *plan)

    def _resident(self, images: Indices) -> Tensor | None:
        """The images of these numbers on the GPU, when they fit there."""
        store, on = self.store, self.device.torch_device
        key = store.fingerprint, hashlib.sha256(images.tobytes()).hexdigest()
        nbytes = len(images) * 3 * SIDE**2
        load = partial(decode_to, store, images, on, self.loader.readers)
        return resident(key, nbytes, on, self._residency, load)

    def facts(self) -> dict[str, Any]:
        """Where the training images are, and their bytes when they are decoded."""
        on = torch.device("cpu") if self.pixels is None else self.pixels.device
        return images_at(on, self.images * 3 * SIDE**2)

    def score(self) -> Score | None:
        """On what is held out for choosing, if anything is.

        Mean accuracy of ten-fold verification on pairs, or the agreement with the teacher; with a teacher,
        `values` has both.
        """
        if self._looked_at is None:
            return None
        raw, score, values = self._embeddings(self._looked_at), Score(0.0, _NOTHING), {}
        if self._judged is not None:
            pairs, same = self._judged
            distances = squared_distances_of(raw, np.searchsorted(self._looked_at, pairs))
            found = ten_fold_of(distances, same)
            score = Score(100 * found.accuracy, found.right)
            if self._groups is not None:
                within = squared_distances_of(raw, np.searchsorted(self._looked_at, self._groups.pairs))
                score = replace(score, values=self._groups.values(within, found.threshold_squared))
            values = {"verification": score.accuracy, **score.values}
        if self._distillation is None or self._targets is None:
            return score
        assert self._targets.judged is not None
        values["agreement"] = self._distillation.percent(raw, self._targets.judged)
        if self._judged is None or self._distillation.settings.agreement:
            return Score(values["agreement"], _NOTHING, values)
        return replace(score, values=values)

    def test(self) -> dict[str, Any]:
        """Verification on identities that nothing was chosen on, or, without such, on those held out."""
        verification = self._verify()
        tested = verification is not None and verification["identities"] == "test"
        return {
            "test_accuracy": verification["accuracy"] if verification and tested else None,
            "head_parameters": self._head.size if self._head else 0,
            "identities": self.identities if self._head else None,
            "verification": verification,
        }

    def _embeddings(self, images: Indices) -> Tensor:
        """(n, E) raw, of image and mirror image together, of those that every epoch looks at."""
        if self.device.is_gpu and self._judged_pixels is None:
            self._judged_pixels = self._resident(images)
        if self._judged_pixels is None:
            return store_embeddings(self.model, self.store, images, self.device)
        return summed_embeddings(self.model, torch.split(self._judged_pixels, EMBEDDED), self.device)

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


class FaceNetwork(LossNetwork):
    """Backbone, and what judges its embeddings, in float32: a head, a teacher, or both."""

    def __init__(
        self, backbone: nn.Module, head: Head | None, distillation: Distillation | None = None
    ) -> None:
        nn.Module.__init__(self)
        self.backbone, self.head, self.distillation = backbone, head, distillation

    def embed(self, inputs: Tensor) -> Tensor:
        """(n, 3, 112, 112) -> z (n, E)."""
        z: Tensor = self.backbone(inputs)
        return z

    def judge(self, outputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """With the head's margin at the labels; what is right of a teacher alone is the agreement with it."""
        if self.distillation is None:
            assert self.head is not None, "a network is told something"
            return self.head.judge(outputs, labels)
        loss, agreement = self.distillation(outputs)
        if self.head is None:
            return loss, agreement
        of_labels, right = self.head.judge(outputs, labels)
        return of_labels + loss, right


def split_faces(
    labels: NDArray[np.int32], config: DataConfig, seed: int
) -> tuple[Indices, Pairs | None, Pairs | None]:
    """(images to train on, pairs to choose on, pairs to test on), of disjoint identities.

    There are no pairs where the fraction to hold out for them is 0.
    """
    rest, judged, tested = held_out(labels, config, seed)
    tests = choices = None
    if config.test_fraction:
        with _fraction_told("test_fraction", labels, config, seed):
            tests = draw_pairs(labels, tested, config.pairs, seed)
    if config.validation_fraction:
        others = labels[np.concatenate([rest, judged])]
        with _fraction_told("validation_fraction", others, config, seed + 1):
            choices = draw_pairs(labels, judged, config.pairs, seed)
    return rest, choices, tests


@contextmanager
def _fraction_told(setting: str, labels: NDArray[np.int32], config: DataConfig, seed: int) -> Iterator[None]:
    """Where too few of these identities are held out, the sentence says what fraction would do."""
    try:
        yield
    except UserError as error:
        needed, of = least_held_out(labels, seed), np.count_nonzero(np.bincount(labels))
        would = f"{math.ceil(100 * needed / of) / 100:g} would do, and " if needed else ""
        raise UserError(
            f"data.{setting} {getattr(config, setting):g}: {error}; {would}0 holds out none"
        ) from None


def check_groups(store: FaceStore, config: DataConfig, seed: int) -> None:
    """Tells which groups candidates are judged by; raises UserError as `draw_group_pairs` does."""
    found = draw_group_pairs(store, held_out(store.labels, config, seed)[1], config, seed)
    for column, groups in found.groups.items():
        log.info("judged by %s: %s", column, ", ".join(groups))


def held_out(labels: NDArray[np.int32], config: DataConfig, seed: int) -> tuple[Indices, Indices, Indices]:
    """Images to train on, to choose on and to test on, of disjoint identities."""
    rest = np.arange(len(labels))
    judged = tested = rest[:0]
    if config.test_fraction:
        with _fraction_told("test_fraction", labels, config, seed):
            rest, tested = hold_out_identities(labels, config.test_fraction, seed)
    if config.validation_fraction:
        with _fraction_told("validation_fraction", labels[rest], config, seed + 1):
            train, held = hold_out_identities(labels[rest], config.validation_fraction, seed + 1)
        rest, judged = rest[train], rest[held]
    return rest, judged, tested


def split_crops(images: int, config: DataConfig, seed: int) -> tuple[Indices, Indices | None]:
    """(images to train on, at most `pairs` images to choose on), at random: nothing tells who is on them.

    Raises UserError when that leaves fewer than three to choose on.
    """
    train, held = split_indices(np.zeros(images, np.int64), config.validation_fraction, 1.0, seed)
    if not len(held):
        return train, None
    if len(held) < _FEWEST:
        raise UserError(f"{config.name}: {len(held)} of {images} crops are too few to choose on; hold out more")
    return train, np.sort(np.random.default_rng(seed).permutation(held)[: config.pairs])


def tell_split(
    labels: NDArray[np.int32], config: DataConfig, recipe: FaceRecipe, seed: int, final: bool = True
) -> None:
    """Says who is trained on and who is held out, and whether these are few.

    final: of a full training, else of candidates. Raises UserError where they cannot be held out.
    """
    config = _held_out(config, recipe) if final else config
    if not recipe.labelled:
        rest, crops = split_crops(len(labels), config, seed)
        held_crops = "" if crops is None else f"; {len(crops):,} held out to choose on"
        log.info("%s: %s crops to train on%s", config.name, f"{len(rest):,}", held_crops)
        return
    train, *held = split_faces(labels, config, seed)
    each = np.bincount(labels[train])
    single = f" ({(each == 1).sum():,} of one image)" if (each == 1).any() else ""
    told = [f"{len(train):,} images of {(each > 0).sum():,} people to train on{single}"]
    people = [0 if pairs is None else len(np.unique(labels[pairs[0]])) for pairs in held]
    for pairs, count, why in zip(held, people, ("choose", "test"), strict=True):
        if pairs is not None:
            told.append(f"{count:,} held out to {why} on, by {len(pairs[0]):,} pairs")
    log.info("%s: %s", config.name, "; ".join(told))
    if 0 < people[0] < _FEW:
        log.warning(
            "%s people are few to choose on: what is chosen depends on who they are; "
            "data.validation_fraction %g holds out %s",
            people[0],
            math.ceil(100 * _FEW / np.count_nonzero(np.bincount(labels))) / 100,
            _FEW,
        )


def _held_out(config: DataConfig, recipe: FaceRecipe) -> DataConfig:
    """What a final training holds out. Its groups are told by `facenas eval --bench pairs`."""
    config = config.model_copy(update={"groups": None})
    return config if recipe.hold_out else config.model_copy(update={"validation_fraction": 0.0})
