"""Heads against a plain restatement of their formulas in float64; statistics, precision, settings."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch._subclasses import FakeTensorMode
from torch.nn import functional as F

from facenas.config import validate
from facenas.errors import UserError
from facenas.models.heads import HEADS
from facenas.models.heads.adaface import AdaFace
from facenas.models.heads.base import Head
from facenas.training.capture import HostOperations
from facenas.training.recipes import FaceRecipe

E, C, N = 24, 40, 32
KINDS = ["adaface", "arcface", "cosface", "softmax"]


def build(kind: str, seed: int = 0, **settings: float) -> Head:
    """The head called `kind` as a face training builds it, by its settings."""
    made = HEADS.get(kind).Settings(**settings)
    return made.owner(E, C, seed, made)


class Restated:
    """The heads, formula by formula, in float64 and with one-hot masks."""

    def __init__(self, kind: str, kernel: torch.Tensor, bias: torch.Tensor | None) -> None:
        self.kind = kind
        self.kernel = kernel.detach().double().requires_grad_()
        self.bias = None if bias is None else bias.detach().double()
        self.mean, self.std = 20.0, 100.0

    def __call__(self, z: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        if self.kind == "softmax":
            return z @ self.kernel + self.bias
        eps, s = (1e-3 if self.kind == "adaface" else 1e-4), 64
        norm = z.pow(2).sum(1, keepdim=True).sqrt()
        columns = self.kernel / self.kernel.pow(2).sum(0, keepdim=True).sqrt()
        c = torch.clamp(z / norm @ columns, -1 + eps, 1 - eps)
        theta, hot = torch.acos(c), torch.zeros_like(c)
        hot[range(len(z)), labels] = 1
        angle, add = self.margins(norm.detach())
        return s * (torch.cos(torch.clamp(theta + angle * hot, eps, math.pi - eps)) - add * hot)

    def margins(self, norm: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if self.kind != "adaface":
            return torch.tensor(0.5 * (self.kind == "arcface")), torch.tensor(0.4 * (self.kind == "cosface"))
        n = norm.clip(0.001, 100)
        self.mean = 0.01 * n.mean() + 0.99 * self.mean
        self.std = 0.01 * n.std() + 0.99 * self.std  # torch.std divides by N - 1
        quality = (0.333 * (n - self.mean) / (self.std + 1e-3)).clip(-1, 1)
        return -0.4 * quality, 0.4 + 0.4 * quality


def batch(kernel: torch.Tensor, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Random z with norms from 1e-4 to 500, and cosines of exactly 1 and -1 with their label's column."""
    drawn = torch.Generator().manual_seed(seed)
    z = torch.randn(N, E, generator=drawn)
    labels = torch.randint(C, (N,), generator=drawn)
    towards = kernel.detach().T[labels]
    z = z + torch.linspace(-6, 6, N)[:, None] * towards  # all angles
    z[0], z[1] = towards[0], -towards[1]
    norms = torch.rand(N, generator=drawn) * 60
    norms[2:6] = torch.tensor([1e-4, 500.0, 1e-4, 500.0])
    return z / z.norm(dim=1, keepdim=True) * norms[:, None], labels


def same(found: torch.Tensor, expected: torch.Tensor, share: float) -> None:
    """Row by row, no entry is off by more than `share` of the row's largest."""
    scale = expected.abs().amax(1, keepdim=True)
    assert ((found.double() - expected).abs() <= share * scale).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_logits_and_gradients_equal_the_formula(kind, seed):
    head = build(kind, seed).train()
    with torch.no_grad():
        head.kernel.mul_(torch.linspace(0.5, 1.5, C))  # columns do not stay unit vectors in training
    oracle = Restated(kind, head.kernel, getattr(head, "bias", None))
    for step in range(4):
        z, labels = batch(head.kernel, 10 * seed + step)
        z32, z64 = z.clone().requires_grad_(), z.double().requires_grad_()
        found, expected = head(z32, labels), oracle(z64, labels)
        same(found, expected, 1e-5)
        # Random gradients: those of cross-entropy vanish for images that are told apart already.
        upstream = torch.randn(N, C, generator=torch.Generator().manual_seed(seed))
        found.backward(upstream)
        expected.backward(upstream.double())
        same(z32.grad, z64.grad, 1e-4)
        same(head.kernel.grad.T, oracle.kernel.grad.T, 1e-4)
        head.kernel.grad = oracle.kernel.grad = None
    if kind == "adaface":
        assert head.batch_mean.item() == pytest.approx(float(oracle.mean), rel=1e-6)
        assert head.batch_std.item() == pytest.approx(float(oracle.std), rel=1e-6)


def test_quality_moves_the_margin_between_the_three_known_cases():
    """Norms far below, at and far above the mean: ArcFace, CosFace, and a negative angle."""
    head = build("adaface", h=1.0).eval()
    head.batch_mean.fill_(50)
    head.batch_std.fill_(10 - 1e-3)
    z, labels = batch(head.kernel, 4)
    unit = z[7:8] / z[7:8].norm()
    label = labels[7:8]
    theta = torch.acos(unit.double() @ head.kernel[:, label].double()).item()
    known = {
        1.0: math.cos(theta + 0.4),
        50.0: math.cos(theta) - 0.4,
        99.0: math.cos(theta - 0.4) - 0.8,
    }
    for norm, cosine in known.items():
        logit = head(unit * norm, label)[0, label].item()
        assert logit == pytest.approx(64 * cosine, abs=1e-3)


def test_statistics_move_in_training_alone_and_by_t_alpha():
    head = build("adaface", t_alpha=0.25)
    z, labels = torch.full((4, E), 2.0) * torch.tensor([[1.0], [2], [3], [4]]), torch.arange(4)
    head.eval()(z, labels)
    assert (head.batch_mean.item(), head.batch_std.item()) == (20, 100)
    head.train()(z, labels)
    norms = z.norm(dim=1)
    assert head.batch_mean.item() == pytest.approx(15 + 0.25 * norms.mean().item())
    assert head.batch_std.item() == pytest.approx(75 + 0.25 * norms.std().item())


def test_a_batch_of_one_leaves_the_deviation_alone():
    head = AdaFace(E, C, 0).train()
    logits = head(torch.ones(1, E), torch.tensor([3]))
    assert torch.isfinite(logits).all()
    assert head.batch_std.item() == 100
    assert head.batch_mean.item() == pytest.approx(0.99 * 20 + 0.01 * E**0.5)


def test_a_zero_vector_gives_finite_logits_and_gradients():
    head, z = AdaFace(E, C, 0).train(), torch.zeros(2, E, requires_grad=True)
    logits = head(z, torch.tensor([0, 1]))
    logits.sum().backward()
    assert torch.isfinite(logits).all()
    assert torch.isfinite(z.grad).all()


def test_statistics_travel_in_the_state_dict_under_the_peers_names():
    head = AdaFace(E, C, 0).train()
    head(*batch(head.kernel, 5))
    state = head.state_dict()
    shapes = {name: tuple(value.shape) for name, value in state.items()}
    assert shapes == {"kernel": (E, C), "t": (1,), "batch_mean": (1,), "batch_std": (1,)}
    other = AdaFace(E, C, 1)
    other.load_state_dict(state)
    z, labels = batch(head.kernel, 6)
    assert torch.equal(head(z, labels), other.train()(z, labels))


@pytest.mark.parametrize("kind", KINDS)
def test_autocast_changes_nothing(kind):
    heads = [build(kind, 7) for _ in range(2)]
    z, labels = batch(heads[0].kernel, 8)
    z = z.bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = heads[0](z, labels)
    assert found.dtype == torch.float32
    assert torch.equal(found, heads[1](z.float(), labels))


@pytest.mark.parametrize("kind", KINDS)
def test_the_kernel_has_unit_columns_from_the_seed_alone(kind):
    state = torch.get_rng_state()
    first, again, other = (build(kind, seed) for seed in (1, 1, 2))
    assert torch.equal(state, torch.get_rng_state())
    assert first.kernel.shape == (E, C)
    torch.testing.assert_close(first.kernel.norm(dim=0), torch.ones(C))
    assert torch.equal(first.kernel, again.kernel)
    assert not torch.equal(first.kernel, other.kernel)


def placed(kind: str, rate: float, key: tuple[int, int] = (12345, 678)) -> Head:
    """A head that may sample, before a batch of N."""
    head = build(kind, 1, **({"sample_rate": rate} if rate < 1 else {})).train()
    head.place(torch.tensor(key), 0, N)
    return head


@pytest.mark.parametrize("kind", KINDS)
def test_judge_is_the_cross_entropy_and_counts_what_is_right(kind):
    heads = [build(kind, 1).train() for _ in range(2)]
    z, labels = batch(heads[0].kernel, 2)
    loss, hits = heads[0].judge(z, labels)
    logits = heads[1](z, labels)
    assert loss == F.cross_entropy(logits, labels)
    assert hits == (logits.argmax(1) == labels).sum() > 0


@pytest.mark.parametrize("kind", KINDS[:3])
def test_a_sampled_step_is_that_of_a_head_with_fewer_columns(kind):
    head = placed(kind, 0.9)
    z, labels = batch(head.kernel, 2)
    loss, _ = head.judge(z, labels)
    loss.backward()
    columns = head.sample(labels)
    assert len(columns) == len(columns.unique()) == 36
    fewer = build(kind, 1).train()
    fewer.kernel.data = head.kernel.data[:, columns]
    expected = F.cross_entropy(
        fewer(z, torch.searchsorted(columns, labels)), torch.searchsorted(columns, labels)
    )
    torch.testing.assert_close(loss, expected)
    expected.backward()
    torch.testing.assert_close(head.kernel.grad[:, columns], fewer.kernel.grad)
    head.kernel.grad[:, columns] = 0
    assert not head.kernel.grad.any()
    assert head.eval().judge(z, labels)[0] == F.cross_entropy(head(z, labels), labels)  # of all columns


def test_the_key_decides_what_is_sampled():
    draws = torch.zeros(C)
    labels = torch.tensor([3, 3, 17, -1])
    head = placed("cosface", 0.25)
    for number in range(1000):
        head.place(torch.from_numpy(np.random.default_rng(number).integers(2**31, size=2) | [1, 0]), 0, N)
        columns = head.sample(labels)
        assert torch.equal(columns, head.sample(labels))
        assert len(columns) == 10
        draws[columns] += 1
    assert (draws[[3, 17]] == 1000).all()
    others = draws[[number for number in range(C) if number not in (3, 17)]]
    assert (others - 1000 * 8 / 38).abs().max() < 5 * (1000 * 8 / 38 * 30 / 38) ** 0.5  # standard deviations
    # Those in the batch are all there, also where they are more than the rate allows.
    assert set(range(0, C, 2)) <= set(placed("cosface", 0.1).sample(torch.arange(0, C, 2)).tolist())
    with pytest.raises(RuntimeError, match="needs `place` before each batch"):
        build("cosface", sample_rate=0.5).train().judge(torch.ones(1, E), torch.zeros(1, dtype=torch.int64))


@pytest.mark.parametrize(("kind", "rate"), [*((kind, 1.0) for kind in KINDS), ("adaface", 0.5)])
def test_a_step_on_a_gpu_can_be_captured(kind, rate):
    head = placed(kind, rate)
    z, labels = batch(head.kernel, 2)
    with HostOperations() as watch:
        head.judge(z.requires_grad_(), labels)[0].backward()
    assert watch.found is None
    # Tensors that only say that they are on a GPU: to read one, or to mix devices, raises.
    with FakeTensorMode(allow_non_fake_inputs=True):
        for name, tensor in [*head.named_parameters(), *head.named_buffers()]:
            delattr(head, name)
            setattr(head, name, torch.empty(tensor.shape, device="cuda:0"))
        head.place(torch.ones(2, dtype=torch.int64, device="cuda:0"), 0, N)
        z, labels = torch.ones(N, E, device="cuda:0"), torch.ones(N, dtype=torch.int64, device="cuda:0")
        loss, hits = head.judge(z, labels)
    assert loss.device == hits.device == torch.device("cuda:0")


DEFAULTS = {
    "adaface": {"margin": 0.4, "scale": 64, "sample_rate": 1, "h": 0.333, "t_alpha": 0.01},
    "arcface": {"margin": 0.5, "scale": 64, "sample_rate": 1},
    "cosface": {"margin": 0.4, "scale": 64, "sample_rate": 1},
    "softmax": {},
}


def test_every_shipped_head_is_known_by_name():
    assert HEADS.names() == sorted(DEFAULTS)


@pytest.mark.parametrize("kind", KINDS)
def test_a_head_has_its_own_settings_and_refuses_others(kind):
    assert build(kind).settings.model_dump() == DEFAULTS[kind]
    assert FaceRecipe(head={"kind": kind}).model_dump()["head"] == {"kind": kind, **DEFAULTS[kind]}
    assert FaceRecipe(head={"kind": kind}).deciding()["head"].keys() == {"kind", *DEFAULTS[kind]} - {
        "sample_rate"
    }
    for name in DEFAULTS["adaface"].keys() - DEFAULTS[kind].keys():
        with pytest.raises(UserError, match=f"head.{name}: is not a known setting"):
            validate(FaceRecipe, {"kind": "faces", "head": {"kind": kind, name: 0.1}}, "here")


@pytest.mark.parametrize("kind", ["adaface", "arcface", "cosface"])
def test_margin_and_scale_change_the_logits(kind):
    z, labels = batch(build(kind).kernel, 9)
    usual, other = build(kind).eval()(z, labels), build(kind, margin=0.1).eval()(z, labels)
    at = torch.arange(N), labels
    assert (other[at] > usual[at])[6:].float().mean() > 0.9
    half = build(kind, scale=32).eval()(z, labels)
    torch.testing.assert_close(2 * half, usual)


def test_softmax_is_a_linear_layer():
    head = build("softmax")
    assert sum(p.numel() for p in head.parameters()) == E * C + C
    assert not head.bias.any()


def test_recipes_are_known_without_torch():
    code = "import sys, facenas.training.recipes, facenas.models.heads; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
