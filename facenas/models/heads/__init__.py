"""Classification heads of face training, one in a file: z and labels -> logits, with a margin at the labels.

A head of one's own is a `Head` in a file here, with `@HEADS.register("name")`, or anywhere as module:Class.
"""

from typing import Any

from facenas.config import Registry

# Importing this package must not import torch, which its files need: recipes are read without it.
HEADS: Registry[Any] = Registry("head", "facenas.models.heads")

__all__ = ["HEADS"]
