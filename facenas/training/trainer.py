"""The training loop: an optimizer, a schedule, a loss. Read it top to bottom.

Sections and settings: "Efficient Global Neural Architecture Search", section 4.1, and
`siddikui/Efficient-Macro-Micro-NAS:search.py`. There, the scheduler steps before the epoch, so the last
epoch runs at a learning rate of 0; here the first epoch runs at `lr` and a cosine would reach 0 after the last.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils._python_dispatch import _get_current_dispatch_mode

from facenas.device import Device
from facenas.errors import CandidateError, StoppedError
from facenas.models.dropout import shift_dropout
from facenas.models.sync_batchnorm import unmoved_statistics
from facenas.training import distributed
from facenas.training.capture import CapturedSteps, cuda_graphs, side_stream, stream_of
from facenas.training.depth import Depths
from facenas.training.recipes import Optimization
from facenas.training.tasks import Task

log = logging.getLogger(__name__)

CHECK_EVERY = 200  # steps


class NonFiniteLossError(CandidateError):
    """The loss became infinite or not a number: training has diverged."""


class Trainer:
    """A task on its way. The same arguments and thread count give the same weights, bit for bit."""

    def __init__(
        self,
        task: Task,
        recipe: Optimization,
        epochs: int,
        device: Device,
        compiled: bool = False,
        skipped: int = 0,
        depths: Depths | None = None,
    ) -> None:
        """compiled: by `torch.compile`, on a GPU; that takes a minute, and so pays for long trainings alone.

        skipped: epochs by which the schedule is longer; it begins behind them. depths: rates by depth and
        frozen parts; None: one rate for all.
        """
        self.task, self.recipe, self.epochs, self.device = task, recipe, epochs, device
        self.skipped = skipped
        depths = depths or Depths()
        depths.freeze(task.network)
        self.network = distributed.wrap(task.network)
        self.still = [task.network.get_submodule(name) for name in depths.still]
        self._compiled = compile_network(self.network) if compiled and device.is_gpu else None
        self.optimizer = build_optimizer(task.network, recipe, device, depths.factors)
        self._options = [_options(group) for group in self.optimizer.param_groups]
        on = device.torch_device
        # A captured step holds the address of what it reads, so on a GPU rates are tensors.
        self._rates = [torch.zeros((), device=on) for _ in self._options] if device.is_gpu else []
        # Of this epoch: loss, right answers, images; float64: exact over any number of processes.
        self._sums = torch.zeros(3, dtype=torch.float64, device=on)
        captured = device.is_gpu and task.capturable and distributed.world() == 1
        self._stream = stream_of(on) if captured else None
        self.steps = CapturedSteps(cuda_graphs(on) if captured else None)

    def run_epoch(self, epoch: int, stop: Callable[[], bool] = lambda: False) -> dict[str, Any]:
        """Trains epoch number `epoch` (from 0) and returns its metrics; accuracy in percent.

        A GPU is waited for at its end alone. Raises NonFiniteLossError when it diverges, StoppedError once
        `stop()` says so.
        """
        lr = self._scheduled(epoch)
        steps = math.ceil(self.task.images / self.recipe.batch_size)
        self.network.train()
        for part in self.still:  # its BatchNorm's statistics stay as they are, its dropout drops nothing
            part.eval()
        watch = _Watch(epoch)
        with side_stream(self._stream):
            self._set_rate(lr)
            self._sums.zero_()
            for number, batch in enumerate(self.task.batches(epoch)):
                if stop():
                    raise StoppedError
                if self.recipe.schedule == "triangular":
                    self._set_rate(self._scheduled(epoch + number / steps))
                self.steps(self.step, batch)
                watch.step(self._sums[0])
        loss_sum, right, seen = distributed.total(self._sums).tolist()
        mean_loss = loss_sum / max(seen, 1)
        watch.check(mean_loss)
        accuracy = 100 * right / max(seen, 1)
        return {"epoch": epoch + 1, "lr": lr, "train_loss": mean_loss, "train_accuracy": accuracy}

    def _scheduled(self, epoch: float) -> float:
        return learning_rate(self.recipe, self.skipped + epoch, self.skipped + self.epochs)

    def facts(self) -> dict[str, Any]:
        """Where its images are, and how its steps run on a GPU, for the run's facts."""
        how = {"captured": self.steps.graphs > 0, "compiled": self._compiled is not None}
        return {**self.task.facts(), "bf16": self.device.bf16, **how}

    def step(self, *batch: Tensor) -> None:
        """All that is done with a batch. No wait for the device, no draw: it must be possible to capture it."""
        inputs, labels = self.task.prepare(*batch)
        loss, hits = self.learn(inputs, labels)
        self._sums[:2] += torch.stack([loss.double() * len(labels), hits.double()])
        self._sums[2] += len(labels)

    def learn(self, inputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """One step of the optimizer; gives the mean loss and the number of right answers."""
        parts = min(self.recipe.accumulate, len(labels) // 2)
        if parts > 1:
            loss, hits = self._learn_in_parts(inputs, labels, parts)
        else:
            with self.device.autocast():
                loss, hits = self._forward(inputs, labels)
            self._go_back(loss, len(labels))
        if self.recipe.grad_clip is not None:
            distributed.clip_gradients(self.task.network, self.recipe.grad_clip)
        self.optimizer.step()
        return loss.detach(), hits

    def _go_back(self, loss: Tensor, rows: int) -> None:
        """New gradients in place of the old, of what this process adds to the joint batch's mean loss."""
        share = distributed.weight(rows, loss.device)
        # Not before the forward pass: on a CPU their memory would go to the system and back, a fifth of
        # a step.
        self.optimizer.zero_grad(set_to_none=True)
        (loss * share).backward()  # type: ignore[no-untyped-call]

    def _forward(self, inputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Loss and right answers. Another size of batch, as the last, is not worth another compilation."""
        # Before 2.14, torch never compiles code that it first met under a dispatch mode (pytorch#190286).
        watched = _get_current_dispatch_mode() is not None
        if watched or self._compiled is None or len(labels) < self.recipe.batch_size // distributed.world():
            found: tuple[Tensor, Tensor] = self.network(inputs, labels)
            return found
        try:
            found = self._compiled(inputs, labels)
        except Exception as error:
            if not type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
                raise
            log.warning("torch.compile fails and is left out: %s", str(error).splitlines()[0])
            self._compiled = None
            found = self.network(inputs, labels)
        return found

    def _learn_in_parts(self, inputs: Tensor, labels: Tensor, parts: int) -> tuple[Tensor, Tensor]:
        """The gradients of the whole batch with the memory of a part of it.

        The head sees the embeddings of all parts at once, so that statistics of their norms are those of the
        batch; then every part runs again and is handed its share of the head's gradient ("Scaling Deep
        Contrastive Learning Batch Size under Memory Limited Setup", arXiv 2101.06983, section 3.2).
        """
        network, pieces = self.task.network, inputs.tensor_split(parts)
        with torch.no_grad(), unmoved_statistics(network):
            z = torch.cat(list(self._embedded(pieces)))
        z.requires_grad_()
        with self.device.autocast():
            loss, hits = network.judge(z, labels)
        self._go_back(loss, len(labels))
        assert z.grad is not None
        for embedding, gradient in zip(self._embedded(pieces), z.grad.tensor_split(parts), strict=True):
            embedding.backward(gradient)  # type: ignore[no-untyped-call]
        distributed.average_gradients(network)
        return loss, hits

    def _embedded(self, pieces: tuple[Tensor, ...]) -> Iterator[Tensor]:
        """Of each piece of a batch; dropout takes the piece's rows of the mask."""
        network = self.task.network
        for piece in pieces:
            with self.device.autocast():
                embedding = network.embed(piece)
            shift_dropout(network, len(piece))
            yield embedding
        shift_dropout(network, -sum(map(len, pieces)))

    def state_dict(self) -> dict[str, Any]:
        """All that a later process needs to go on exactly here."""
        return {
            **distributed.whole_state(self.task.network, self.optimizer),
            "task": self.task.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from what `state_dict` told, also on another device or with more or fewer processes."""
        distributed.load_whole_state(self.task.network, self.optimizer, state)
        for group, options in zip(self.optimizer.param_groups, self._options, strict=True):
            group.update(options)
        self.task.load_state_dict(state["task"])
        self.steps.forget()

    def _set_rate(self, lr: float) -> None:
        """The rate from now on. A GPU reads it when it comes there; nobody waits."""
        for number, group in enumerate(self.optimizer.param_groups):
            rate = lr * group["factor"]
            group["lr"] = self._rates[number].fill_(rate) if self._rates else rate


class _Watch:
    """Looks every `CHECK_EVERY` steps whether the loss is finite: an epoch of WebFace takes an hour.

    A GPU is not waited for: what is looked at was copied to the host `CHECK_EVERY` steps ago.
    """

    def __init__(self, epoch: int) -> None:
        self._epoch, self._steps = epoch, 0
        self._copied: tuple[Tensor, torch.cuda.Event] | None = None

    def step(self, loss_sum: Tensor) -> None:
        """Another step is done, with this sum of losses so far. Raises NonFiniteLossError."""
        self._steps += 1
        if self._steps % CHECK_EVERY:
            return
        joint = distributed.total(loss_sum.clone())  # so that all processes stop at the same step
        if not joint.is_cuda:
            self.check(float(joint))
            return
        if self._copied is not None:
            copy, arrived = self._copied
            arrived.synchronize()
            self.check(float(copy))
        copy = joint.to("cpu", non_blocking=True)
        self._copied = copy, torch.cuda.current_stream(joint.device).record_event()

    def check(self, loss: float) -> None:
        """Raises NonFiniteLossError unless this is a number."""
        if not math.isfinite(loss):
            raise NonFiniteLossError(f"the loss became {loss} in epoch {self._epoch + 1}")


# The rate of a triangular schedule before its first batch and after its last, in parts of the highest.
_FIRST, _LAST = 0.2, 0.07


def learning_rate(recipe: Optimization, epoch: float, epochs: int) -> float:
    """The rate of epoch number `epoch` (from 0) of `epochs`; of a triangular schedule, 2.5 is half the third.

    Milestones are epochs of a training of `final_epochs`; a shorter one reaches them proportionally sooner.
    """
    if recipe.schedule == "cosine":
        return recipe.lr * 0.5 * (1 + math.cos(math.pi * epoch / epochs))
    if recipe.schedule == "triangular":
        done = epoch / epochs
        if done < recipe.peak:
            return recipe.lr * (_FIRST + (1 - _FIRST) * done / recipe.peak)
        return recipe.lr * (_LAST + (1 - _LAST) * (1 - done) / (1 - recipe.peak))
    passed = sum(epoch * recipe.final_epochs >= m * epochs for m in recipe.milestones)
    return float(recipe.lr * recipe.gamma**passed)


def compile_network(network: nn.Module) -> Callable[..., Any]:
    """The network by `torch.compile`, for batches of one size."""
    import torch._functorch.config as functorch

    # Else the backward pass is traced in bf16, that of heads too, which compute in float32.
    functorch.backward_pass_autocast = "off"  # type: ignore[assignment]
    return torch.compile(network, dynamic=False)


def build_optimizer(
    network: nn.Module, recipe: Optimization, device: Device, factors: Mapping[str, float]
) -> torch.optim.Optimizer:
    """What the recipe asks for. Fused: on a CPU 3 to 4 times faster than the default.

    factors: of the rate, by parameter name; 1 where left out, and what has 0 is left to itself.
    """
    groups = _parameter_groups(network, recipe, factors)
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(
            groups, recipe.lr, momentum=recipe.momentum, nesterov=recipe.nesterov, fused=True
        )
    adamw = torch.optim.AdamW(groups, recipe.lr, recipe.betas, fused=True, capturable=device.is_gpu)
    # Else it warns of steps that are not captured: here the first ones are not, and on several GPUs none.
    adamw._warned_capturable_if_run_uncaptured = True  # type: ignore[attr-defined]
    return adamw


def _options(group: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in group.items() if name != "params"}


def _parameter_groups(
    network: nn.Module, recipe: Optimization, factors: Mapping[str, float]
) -> list[dict[str, Any]]:
    """A group for each `factor` of the rate, and for each of two weight decays, if BatchNorm's do not decay."""
    norms = {id(p) for m in network.modules() if isinstance(m, _BatchNorm) for p in m.parameters()}
    groups: dict[tuple[bool, float], list[Tensor]] = {}
    for name, parameter in network.named_parameters():
        kept, factor = not recipe.decay_norms and id(parameter) in norms, factors.get(name, 1.0)
        if factor:
            groups.setdefault((kept, factor), []).append(parameter)
    # What decays comes first: checkpoints number parameters in this order.
    return [
        {"params": groups[key], "weight_decay": 0.0 if key[0] else recipe.weight_decay, "factor": key[1]}
        for key in sorted(groups, key=lambda key: key[0])
    ]
