"""Image data: classification sets, prepared once on disk and memory-mapped by every process."""

from facenas.data.image_sets import ImageSet, crop_side, open_image_set, prepare
from facenas.data.splits import split_indices

__all__ = ["ImageSet", "crop_side", "open_image_set", "prepare", "split_indices"]
