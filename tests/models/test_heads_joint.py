"""Heads in two processes, whole and split: statistics, losses, gradients and states are those of one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn

from facenas.models.heads import HEADS
from facenas.models.heads.adaface import AdaFace
from facenas.models.heads.base import Head
from facenas.models.heads.split import MANY, build_head, split_head
from facenas.training import distributed

E, C = 8, 13
CUT = 5  # the first process takes 5 of 7 images
KEY = torch.tensor([12345, 678])
# Of the heads, how each is trained; softmax has columns that tie.
CASES: dict[str, tuple[dict[str, float], type[torch.optim.Optimizer], dict[str, float]]] = {
    "adaface": ({"t_alpha": 0.5}, torch.optim.SGD, {"momentum": 0.9, "weight_decay": 0.01}),
    "arcface": ({"scale": 8}, torch.optim.SGD, {"momentum": 0.9}),
    "cosface": ({"scale": 8}, torch.optim.AdamW, {}),
    "softmax": ({}, torch.optim.SGD, {"momentum": 0.9}),
}


def joint_batches() -> list[tuple[torch.Tensor, torch.Tensor]]:
    drawn = torch.Generator().manual_seed(0)
    return [
        (torch.randn(rows, E, generator=drawn) * 10, torch.randint(C, (rows,), generator=drawn))
        for rows in (7, 7, 7, 5)
    ]


def settings(kind: str, **others: float) -> Any:
    return HEADS.get(kind).Settings(**CASES[kind][0], **others)


class Network(nn.Module):
    """A backbone and a head, as a face training has them."""

    def __init__(self, head: Head) -> None:
        super().__init__()
        self.backbone, self.head = nn.Linear(E, E), head

    def forward(self, x: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.head.judge(self.backbone(x), labels)


class Training:
    """Steps as the trainer makes them."""

    def __init__(self, kind: str, head: Head) -> None:
        self.network = Network(head).train()
        # One as the trainer does it for a batch in parts.
        self.averages = kind == "cosface"
        self.wrapped = self.network if self.averages else distributed.wrap(self.network)
        optimizer, options = CASES[kind][1:]
        self.optimizer = optimizer(self.network.parameters(), lr=0.1, **options)

    def step(self, x: torch.Tensor, labels: torch.Tensor) -> list[torch.Tensor]:
        """Sums of loss and hits of the joint batch; gradients of the backbone's weight and of the kernel."""
        world, rank = distributed.world(), distributed.rank()
        start, total = len(x) * rank // world, len(x)
        own = slice(start, total * (rank + 1) // world)
        head = self.network.head
        head.place(KEY, start, total)
        self.optimizer.zero_grad(set_to_none=True)
        loss, hits = self.wrapped(x[own], labels[own])
        rows = len(labels[own])
        (loss * distributed.weight(rows, x.device)).backward()
        if self.averages:
            distributed.average_gradients(self.network)
        gradient = head.share.whole(head.kernel.grad) if head.share else head.kernel.grad
        gradients = [self.network.backbone.weight.grad.clone(), gradient.clone()]
        distributed.clip_gradients(self.network, 1.0)
        self.optimizer.step()
        return [*distributed.total(torch.stack([loss.detach() * rows, hits])), *gradients]


def first_state(kind: str) -> dict[str, Any]:
    torch.manual_seed(1)
    training = Training(kind, settings(kind).owner(E, C, 4, settings(kind)))
    if kind == "softmax":
        with torch.no_grad():
            training.network.head.kernel[:, 9] = training.network.head.kernel[:, 2] * 30
            training.network.head.kernel[:, 2] *= 30
    return distributed.whole_state(training.network, training.optimizer)


def statistics(head: AdaFace, part: slice) -> list[float]:
    """Of AdaFace after all steps, then the sum of losses of each step."""
    losses = []
    for z, labels in joint_batches()[:3]:
        logits = head(z[part], labels[part])
        loss = torch.nn.functional.cross_entropy(logits, labels[part], reduction="sum")
        losses.append(loss.item())
    return [head.batch_mean.item(), head.batch_std.item(), *losses]


def one_of_two(rank: int, folder: str, states: dict[str, Any]) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    head = AdaFace(E, C, 0, AdaFace.Settings(t_alpha=0.5)).train()
    found: dict[str, Any] = {"statistics": statistics(head, slice(0, CUT) if rank == 0 else slice(CUT, None))}
    # Evaluation must not wait for the other process: it may call the head another number of times.
    head.eval()
    for _ in range(rank):
        head(torch.ones(1, E), torch.zeros(1, dtype=torch.int64))
    for kind, state in states.items():
        head = split_head(E, C, 4, settings(kind))
        drawn = head.share.whole(head.kernel.detach())
        training = Training(kind, head)
        distributed.load_whole_state(training.network, training.optimizer, state)
        steps = [training.step(*batch) for batch in joint_batches()]
        found[kind] = drawn, steps, distributed.whole_state(training.network, training.optimizer), head.size
    found["sampled"] = sampled_step()
    torch.save(found, f"{folder}/{rank}")
    dist.destroy_process_group()


def sampled_step() -> tuple[list[torch.Tensor], torch.Tensor]:
    """The step of 8 columns of 20 in each process, and which ones these are."""
    assert build_head(E, C, 4, settings("arcface")).share is None
    assert build_head(1, MANY, 4, settings("arcface")).share is not None
    head = build_head(E, 40, 4, settings("arcface", sample_rate=0.4))
    assert head.share is not None
    torch.manual_seed(1)
    x, labels = joint_batches()[0]
    step = Training("arcface", head).step(x, 3 * labels)
    own = 3 * labels - head.share.start
    return step, head.sample(torch.where((own >= 0) & (own < 20), own, -1)) + head.share.start


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What the two processes found."""
    if not dist.is_available():
        pytest.skip("this torch has no torch.distributed")
    folder: Path = tmp_path_factory.mktemp("two")
    mp.spawn(one_of_two, args=(str(folder), {kind: first_state(kind) for kind in CASES}), nprocs=2)
    return [torch.load(folder / str(rank)) for rank in (0, 1)]


def test_two_processes_equal_one_with_the_joint_batch(both):
    first, second = (found["statistics"] for found in both)
    alone = statistics(AdaFace(E, C, 0, AdaFace.Settings(t_alpha=0.5)).train(), slice(None))
    assert first[:2] == second[:2] == pytest.approx(alone[:2], rel=1e-6)
    assert [a + b for a, b in zip(first[2:], second[2:], strict=True)] == pytest.approx(alone[2:])


@pytest.mark.parametrize("kind", CASES)
def test_a_split_head_equals_the_whole_one(kind, both):
    drawn, steps, state, size = both[0][kind]
    whole = settings(kind).owner(E, C, 4, settings(kind))
    assert torch.equal(drawn, whole.kernel)
    assert size == whole.size == sum(p.numel() for p in whole.parameters())
    alone = Training(kind, whole)
    distributed.load_whole_state(alone.network, alone.optimizer, first_state(kind))
    for batch, found in zip(joint_batches(), steps, strict=True):
        torch.testing.assert_close(found, alone.step(*batch), rtol=1e-3, atol=1e-4)
    # What the two wrote goes on in one process as if there had been one all the time.
    goes_on = Training(kind, settings(kind).owner(E, C, 0, settings(kind)))
    distributed.load_whole_state(goes_on.network, goes_on.optimizer, state)
    goes_on.step(*joint_batches()[0])
    alone.step(*joint_batches()[0])
    ours, theirs = (distributed.whole_state(t.network, t.optimizer) for t in (goes_on, alone))
    torch.testing.assert_close(dict(ours["network"]), dict(theirs["network"]), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(ours["optimizer"]["state"], theirs["optimizer"]["state"], rtol=1e-3, atol=1e-4)


def test_each_process_samples_of_its_own_columns(both):
    (step, first), (_, second) = (found["sampled"] for found in both)
    columns, (x, labels) = torch.cat([first, second]), joint_batches()[0]
    assert (len(first), len(second)) == (8, 8)
    assert set((3 * labels).tolist()) < set(columns.tolist())
    torch.manual_seed(1)
    network = Network(settings("arcface").owner(E, 40, 4, settings("arcface")))
    at = torch.searchsorted(columns, 3 * labels)
    logits = network.head.logits(network.backbone(x), at, columns)
    loss = nn.functional.cross_entropy(logits, at)
    loss.backward()
    expected = [
        7 * loss,
        (logits.argmax(1) == at).sum(),
        network.backbone.weight.grad,
        network.head.kernel.grad,
    ]
    torch.testing.assert_close(step, expected, rtol=1e-3, atol=1e-4, check_dtype=False)
    assert set(step[3].any(0).nonzero().squeeze(1).tolist()) == set(columns.tolist())
