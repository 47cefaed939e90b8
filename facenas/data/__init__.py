"""Data: classification sets and stores of faces, prepared once on disk and memory-mapped by every process."""

from facenas.data.arrays import from_arrays, from_dataset
from facenas.data.cache import ImageSet, default_cache, open_image_set
from facenas.data.config import DataConfig
from facenas.data.datasets import ClassData, TrainingData, describe, open_data, prepare
from facenas.data.splits import split_indices

__all__ = [
    "ClassData",
    "DataConfig",
    "ImageSet",
    "TrainingData",
    "default_cache",
    "describe",
    "from_arrays",
    "from_dataset",
    "open_data",
    "open_image_set",
    "prepare",
    "split_indices",
]
