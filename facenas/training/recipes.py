"""How a network is trained."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import combinations_with_replacement, product
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

from pydantic import Field, ValidationInfo, field_validator, model_validator

from facenas.config import ADDED, Config, choice, deciding, validate
from facenas.errors import UserError
from facenas.models.heads import HEADS

if TYPE_CHECKING:
    HeadSettings: TypeAlias = Config
else:
    HeadSettings = choice(HEADS, "kind", "adaface")

Beta: TypeAlias = Annotated[float, Field(ge=0, lt=1)]


class Optimization(Config):
    """The optimizer and its schedule.

    `optimizer`: sgd with `momentum`, or adamw with `betas`; `lr` and `weight_decay` are for either.
    `schedule`: by epochs, a cosine to 0 or steps; or, by batches, triangular: from a fifth of `lr` up to it,
    where the part `peak` of the training is done, then down to 7 % (`KellerJordan/cifar10-airbench`).
    `milestones`: of a training of `final_epochs`, before which the rate drops.
    `accumulate`: a batch is worked off in so many parts, for GPUs whose memory does not hold it at once. The
    step is that of the whole batch, and so are the norm statistics of AdaFace; those of BatchNorm are of each
    part.
    `layer_decay`, `freeze`: of a full training alone. The rate of each stage is that of the one behind it times
    `layer_decay`; and the stem, or all of the body, stays as it is.
    """

    batch_size: int = Field(64, ge=2)
    lr: float = Field(0.025, gt=0)
    momentum: float = Field(0.9, ge=0, lt=1)
    weight_decay: float = Field(3e-4, ge=0)
    decay_norms: bool = True
    grad_clip: float | None = Field(5.0, gt=0)
    schedule: Literal["cosine", "steps", "triangular"] = "cosine"
    milestones: tuple[int, ...] = ()
    gamma: float = Field(0.1, gt=0, le=1)
    final_epochs: int = Field(600, ge=1)
    optimizer: Annotated[Literal["sgd", "adamw"], ADDED] = "sgd"
    betas: Annotated[tuple[Beta, Beta], ADDED] = (0.9, 0.999)
    accumulate: Annotated[int, ADDED, Field(ge=1)] = 1
    peak: Annotated[float, ADDED, Field(gt=0, lt=1)] = 0.23
    nesterov: Annotated[bool, ADDED] = False
    layer_decay: Annotated[float, ADDED, Field(gt=0, le=1)] = 1.0
    freeze: Annotated[Literal["stem", "body"] | None, ADDED] = None

    @field_validator("accumulate")
    @classmethod
    def _parts_have_two_images(cls, parts: int, info: ValidationInfo) -> int:
        batch = info.data.get("batch_size", 2 * parts)
        if 2 * parts > batch:
            raise ValueError(f"{parts} parts of a batch of {batch} have fewer than 2 images each")
        return parts

    @field_validator("nesterov")
    @classmethod
    def _looks_ahead_by_momentum(cls, nesterov: bool, info: ValidationInfo) -> bool:
        if nesterov and not (info.data.get("momentum", 1) and info.data.get("optimizer", "sgd") == "sgd"):
            raise ValueError("is a kind of momentum: it needs optimizer sgd and a momentum above 0")
        return nesterov

    def deciding(self, final: bool = False) -> dict[str, Any]:
        """What decides the weights of a candidate, or of the `final` network, as JSON for their keys."""
        tree = deciding(self)
        for name in () if final else _UNREAD:
            tree.pop(name, None)
        return tree


class Recipe(Optimization):
    """How a classification network is trained. Defaults: the authors' recipe for a candidate.

    `flip` and `crop` left at null take the data set's own value (no flip for characters; 32x32 crops of
    28x28 and 32x32 images, else the image size).
    `alternating_flip`: what is mirrored in one epoch is not in the next, half of the images in each; else every
    image by chance.
    `augment`: pad_crop, the whole image padded by `pad` and cropped to `crop`; or, of stores alone,
    random_resized_crop: 8 to 100 % of the image, of a ratio of 3:4 to 4:3, at the image size. `color_jitter`:
    by how much brightness, contrast and saturation change at most, each by a factor of its own, in any order.
    """

    kind: Literal["classification"] = "classification"
    pad: int = Field(4, ge=0)
    crop: int | None = Field(None, ge=8)
    flip: bool | None = None
    cutout: int = Field(16, ge=0)
    augment: Annotated[Literal["pad_crop", "random_resized_crop"], ADDED] = "pad_crop"
    color_jitter: Annotated[float, ADDED, Field(ge=0, le=1)] = 0.0
    label_smoothing: Annotated[float, ADDED, Field(ge=0, lt=1)] = 0.0
    alternating_flip: Annotated[bool, ADDED] = False

    @model_validator(mode="before")
    @classmethod
    def _has_no_teacher(cls, tree: Any) -> Any:
        if isinstance(tree, dict) and tree.get("distill"):
            raise ValueError("a teacher is of faces, but this recipe is for classification; leave it out")
        return tree

    @property
    def crop_fraction(self) -> float:
        """What is judged of an image of a store: a square in its middle, of this part of its shorter side.

        As ImageNet is judged, 224 of 256, after random resized crops; else all of it.
        """
        return 224 / 256 if self.augment == "random_resized_crop" else 1.0


class TeacherInput(Config):
    """What a teacher takes, where its file does not say: as `facenas.evaluation.embedders.InputOptions`."""

    color: Literal["rgb", "bgr"] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    embedding: str | None = None
    prefix: str | None = None


class Distill(Config):
    """A teacher: a trained network whose embeddings the one in training is to give (docs/distillation.md).

    `teacher`: a run's folder, a checkpoint or an ONNX file; `input`: see `TeacherInput`.
    `kind`: what is compared: cosine or squared distance of the two embeddings, or relational, all cosines
    between two images of the batch. `weight`: of that loss beside the head's.
    `labels` false: the teacher alone, without a head; then identities are not looked at.
    `online`: the teacher sees the augmented images, in every step; else each image and its mirror image as they
    are, once, and its embeddings are kept as numbers of `dtype`.
    `agreement`: held-out crops are judged by agreement with the teacher in place of pairs; always so without
    labels.
    """

    teacher: Path
    weight: float = Field(64.0, gt=0)
    kind: Literal["cosine", "squared", "relational"] = "cosine"
    labels: bool = True
    online: bool = False
    agreement: bool = False
    dtype: Literal["float32", "float16"] = "float32"
    input: TeacherInput = TeacherInput()


class FaceRecipe(Optimization):
    """How a face network is trained; `crop`, `low_res`, `photometric`: how probable each augmentation is.

    `hold_out` false: the final training holds out no identities to choose its best epoch on, trains on them
    too, and keeps the last epoch, as published trainings do. Candidates are judged on them all the same.
    `distill`: a teacher, none by default.
    """

    kind: Literal["faces"] = "faces"
    # As a mapping: the settings themselves lie beside the head, whose file imports torch.
    head: HeadSettings = Field({"kind": "adaface"}, validate_default=True)
    crop: float = Field(0.2, ge=0, le=1)
    low_res: float = Field(0.2, ge=0, le=1)
    photometric: float = Field(0.2, ge=0, le=1)
    flip: bool = True
    hold_out: Annotated[bool, ADDED] = True
    distill: Annotated[Distill | None, ADDED] = None

    @property
    def labelled(self) -> bool:
        """Whether it looks at identities."""
        return self.distill is None or self.distill.labels

    def deciding(self, final: bool = False) -> dict[str, Any]:
        """See `Optimization`; wherever the teacher lies, its fingerprint counts (`training.teachers`)."""
        tree = super().deciding(final)
        tree.get("distill", {}).pop("teacher", None)
        return tree


def with_protocol(recipe: Recipe | FaceRecipe, protocol: Iterable[tuple[str, Any]]) -> Recipe | FaceRecipe:
    """The recipe with other settings, by dotted names such as `lr` or `head.margin`; raises UserError."""
    changes = dict(protocol)
    if not changes:
        return recipe
    tree = recipe.model_dump(mode="json")
    for name, value in changes.items():
        group, last = _place(recipe, tree, name)
        group[last] = value
    return validate(type(recipe), tree, "protocol")


_UNREAD = ("hold_out", "layer_decay", "freeze")  # by candidates
_OF_FINAL = ("final_epochs", *_UNREAD)


def check_protocol(recipe: Recipe | FaceRecipe, protocol: Mapping[str, Iterable[Any]]) -> None:
    """Whether the recipe has these settings, by dotted names, each a number, and takes these values for them.

    Raises UserError for the first that is not so.
    """
    for name in protocol:
        if name in _OF_FINAL:
            raise UserError(f"protocol: {name} is of the full training alone: no candidate tells its worth")
        if name.startswith("distill.") and name != "distill.weight":
            raise UserError(f"protocol: {name} is one for all candidates; distill.weight alone may vary")
        group, last = _place(recipe, recipe.model_dump(mode="json"), name)
        if not isinstance(group[last], int | float):
            raise UserError(f"protocol: {name} is {group[last]!r} in the recipe; make it a number there first")
    pairs = [[(name, value) for value in values] for name, values in protocol.items()]
    for one, other in combinations_with_replacement(pairs, 2):
        for both in product(one, other):  # some settings bound each other, such as batch_size and accumulate
            with_protocol(recipe, both)


def _place(recipe: Recipe | FaceRecipe, tree: dict[str, Any], name: str) -> tuple[dict[str, Any], str]:
    """The group in `tree` that has the setting, and its key there; raises UserError when there is none."""
    *groups, last = name.split(".")
    inside: Any = tree
    for group in groups:
        inside = inside.get(group) if isinstance(inside, dict) else {}
    if not isinstance(inside, dict) or last not in inside:
        raise UserError(f"protocol: a recipe for {recipe.kind} has no setting {name}")
    return inside, last
