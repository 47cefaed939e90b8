"""Data: classification sets and stores of faces, prepared once on disk and memory-mapped by every process."""

from facenas.data.image_sets import ImageSet, crop_side, open_image_set
from facenas.data.opening import TrainingData, describe, open_data, prepare
from facenas.data.splits import split_indices

__all__ = [
    "ImageSet",
    "TrainingData",
    "crop_side",
    "describe",
    "open_data",
    "open_image_set",
    "prepare",
    "split_indices",
]
