"""Recipes: what of them decides a training, and so its key and its random draws."""

from __future__ import annotations

import pytest

from facenas.config import validate
from facenas.errors import UserError
from facenas.spaces.base import fingerprint
from facenas.training.recipes import FaceRecipe, Recipe

# From before heads had settings of their own and `hold_out` and all that is `ADDED` was there.
FACES = "d18b9714646ed0f4ce701b3b3acd06a6fc5c1f3429a808ac7119206f3600b16b"
IMAGES = "ab48039905e53a660eeecb82f712ff3e6eeb81dd2ef29edc2632933973273923"


def test_keys_are_those_of_the_recorded_searches():
    for final in (False, True):
        assert fingerprint(FaceRecipe().deciding(final)) == FACES
        assert fingerprint(Recipe().deciding(final)) == IMAGES


@pytest.mark.parametrize("of_final", [{"hold_out": False}, {"layer_decay": 0.7}, {"freeze": "body"}])
def test_what_no_candidate_reads_decides_the_final_training_alone(of_final):
    usual, other = FaceRecipe(), FaceRecipe(**of_final)
    assert other.deciding() == usual.deciding()
    assert other.deciding(final=True) == usual.deciding(final=True) | of_final


@pytest.mark.parametrize(
    "added",
    [
        {"augment": "random_resized_crop"},
        {"color_jitter": 0.4},
        {"label_smoothing": 0.1},
        {"alternating_flip": True},
    ],
)
def test_so_does_one_of_classification_alone(added):
    assert Recipe(**added).deciding() == Recipe().deciding() | added


@pytest.mark.parametrize(
    "added",
    [
        {"optimizer": "adamw"},
        {"betas": (0.9, 0.99)},
        {"accumulate": 4},
        {"peak": 0.3},
        {"nesterov": True},
    ],
)
def test_a_setting_that_was_added_decides_once_it_is_another_than_before(added):
    for model in (Recipe, FaceRecipe):
        assert model(**added).deciding() == model().deciding() | model(**added).model_dump(
            mode="json", include=set(added)
        )


@pytest.mark.parametrize("other", [{"momentum": 0}, {"optimizer": "adamw"}])
def test_nesterov_is_a_kind_of_momentum(other):
    with pytest.raises(UserError, match="here: nesterov: is a kind of momentum: it needs optimizer sgd and"):
        validate(Recipe, {"nesterov": True, **other}, "here")


def test_every_part_of_a_batch_has_two_images():
    assert validate(Recipe, {"batch_size": 64, "accumulate": 32}, "here").accumulate == 32
    with pytest.raises(UserError, match="here: accumulate: 33 parts of a batch of 64 have fewer than 2 images"):
        validate(Recipe, {"batch_size": 64, "accumulate": 33}, "here")
