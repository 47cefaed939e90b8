"""Several trials on one card: one process a card, and in it slots, threads with a CUDA stream of their own.

A small network leaves most of a card idle. On an H200, plain networks of depth 20 and width 64 (bf16, batch 64)
saw 26,153 images/s on one stream, 41,633 on four, 42,944 on eight. As many processes would each hold a CUDA
context, import torch, and take turns on the card.
"""

from __future__ import annotations

import gc
import importlib
import os
import threading
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from facenas import device
from facenas.errors import UserError
from facenas.execution.base import EXECUTORS
from facenas.execution.processes import ProcessExecutor
from facenas.execution.worker import Place

_PER_CARD = 4  # slots: see above; eight give 3 % more
_SLOT_BYTES = 4 * 2**30  # free memory for each slot; a candidate that needs more is tried again, alone


@dataclass(frozen=True)
class Card(Place):
    """One GPU. visible: what CUDA_VISIBLE_DEVICES says in its process; None leaves it as it is."""

    visible: str | None = None

    @property
    def environment(self) -> dict[str, str]:
        """The process sees no other card: nothing it does can open a context there."""
        return super().environment | ({} if self.visible is None else {"CUDA_VISIBLE_DEVICES": self.visible})

    def prepare(self) -> None:
        """Raises UserError when torch finds no card, though the driver does."""
        import torch

        if not torch.cuda.is_available():
            raise UserError(
                "the driver finds a GPU, but torch cannot use it: install a torch for the driver's version of "
                "CUDA, or search with the executor 'process'"
            )
        # The first optimizer imports it, which takes seconds: meanwhile the card can be made ready.
        threading.Thread(target=importlib.import_module, args=("torch._dynamo",), daemon=True).start()

    def slot(self) -> AbstractContextManager[Any]:
        """All that the thread does is queued on a stream of its own."""
        import torch

        return torch.cuda.stream(torch.cuda.Stream())  # type: ignore[no-untyped-call]

    def is_broken(self) -> bool:
        """After an illegal access, say, every later call fails too, until the process ends."""
        import torch

        try:
            # Not the whole card: a stream that is being captured must not be waited for.
            torch.cuda.current_stream().synchronize()
        except RuntimeError:
            return True
        return False

    def free_memory(self) -> None:
        """What torch keeps for other streams."""
        import torch

        gc.collect()
        torch.cuda.empty_cache()


@EXECUTORS.register("gpu")
class GpuExecutor(ProcessExecutor):
    """`workers` trials at once over all cards; None: 4 a card, fewer where memory is short, at least one.

    A process for every card. Raises UserError when there is none, and as `ProcessExecutor` does. `places` stand
    in for the cards: a CPU place with several slots is one.
    """

    def _places(self, workers: int | None) -> Sequence[Place]:
        return cards(workers)


def cards(workers: int | None = None) -> list[Card]:
    """The cards of this machine with `workers` slots in all; raises UserError when there is no card."""
    memory = device.card_memory()
    if not memory:
        raise UserError("executor gpu: there is no NVIDIA card here; leave the executor out, or take 'process'")
    if workers is None:
        slots = [max(1, min(_PER_CARD, free // _SLOT_BYTES)) for free in memory]
    else:
        slots = [len(range(number, workers, len(memory))) for number in range(len(memory))]
    names: list[str | None] = [None]  # a single card is what the process sees anyway
    if len(memory) > 1:
        named = os.environ.get("CUDA_VISIBLE_DEVICES")
        names = list(named.split(",") if named else map(str, range(len(memory))))
    return [Card(count, name) for count, name in zip(slots, names, strict=False) if count]
