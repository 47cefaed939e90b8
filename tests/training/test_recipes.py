"""Recipes: what of them decides a training, and so its key and its random draws."""

from __future__ import annotations

from facenas.spaces.base import fingerprint
from facenas.training.recipes import FaceRecipe, Recipe

# From before heads had settings of their own and `hold_out` was there.
FACES = "d18b9714646ed0f4ce701b3b3acd06a6fc5c1f3429a808ac7119206f3600b16b"
IMAGES = "ab48039905e53a660eeecb82f712ff3e6eeb81dd2ef29edc2632933973273923"


def test_keys_are_those_of_the_recorded_searches():
    for final in (False, True):
        assert fingerprint(FaceRecipe().deciding(final)) == FACES
        assert fingerprint(Recipe().deciding(final)) == IMAGES


def test_holding_nothing_out_decides_the_final_training_alone():
    usual, whole = FaceRecipe(), FaceRecipe(hold_out=False)
    assert whole.deciding() == usual.deciding()
    assert whole.deciding(final=True) == usual.deciding(final=True) | {"hold_out": False}
