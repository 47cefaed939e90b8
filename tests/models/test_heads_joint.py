"""AdaFace in two processes: statistics and loss are those of the joint batch."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from facenas.models.heads.adaface import AdaFace

E, C = 8, 12
CUT = 5  # the first process takes 5 of 7 images


def joint_batches() -> list[tuple[torch.Tensor, torch.Tensor]]:
    drawn = torch.Generator().manual_seed(0)
    return [
        (torch.randn(7, E, generator=drawn) * 10, torch.randint(C, (7,), generator=drawn)) for _ in range(3)
    ]


def train(head: AdaFace, part: slice) -> list[float]:
    """Statistics after three steps, then the sum of losses of each step."""
    losses = []
    for z, labels in joint_batches():
        logits = head(z[part], labels[part])
        loss = torch.nn.functional.cross_entropy(logits, labels[part], reduction="sum")
        losses.append(loss.item())
    return [head.batch_mean.item(), head.batch_std.item(), *losses]


def one_of_two(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    head = AdaFace(E, C, 0, AdaFace.Settings(t_alpha=0.5)).train()
    found = train(head, slice(0, CUT) if rank == 0 else slice(CUT, None))
    # Evaluation must not wait for the other process: it may call the head another number of times.
    head.eval()
    for _ in range(rank):
        head(torch.ones(1, E), torch.zeros(1, dtype=torch.int64))
    torch.save(found, f"{folder}/{rank}")
    dist.destroy_process_group()


@pytest.mark.skipif(not dist.is_available(), reason="this torch has no torch.distributed")
def test_two_processes_equal_one_with_the_joint_batch(tmp_path: Path):
    mp.spawn(one_of_two, args=(str(tmp_path),), nprocs=2)
    first, second = (torch.load(tmp_path / str(rank)) for rank in (0, 1))
    alone = train(AdaFace(E, C, 0, AdaFace.Settings(t_alpha=0.5)).train(), slice(None))
    assert first[:2] == second[:2] == pytest.approx(alone[:2], rel=1e-6)
    assert [a + b for a, b in zip(first[2:], second[2:], strict=True)] == pytest.approx(alone[2:])
