"""Long trainings: what lies on disk agrees whenever it is killed, and processes that train together stay so."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from facenas.data import open_image_set
from facenas.data.config import DataConfig
from facenas.device import core_count, pick_device
from facenas.errors import SearchStoppedError, UserError
from facenas.spaces import PlainArchitecture
from facenas.training import distributed
from facenas.training.classification import ClassificationTask
from facenas.training.fit import TrainState, fit, kept_threads, read_checkpoint, write_metrics
from facenas.training.recipes import Recipe
from facenas.training.tasks import Score, TaskContext
from facenas.training.trainer import Trainer

ARCH = PlainArchitecture.uniform(3, 4, 1, 10)
RECIPE = Recipe(batch_size=30, pad=1, cutout=2)


class Scored(ClassificationTask):
    """Told how well each epoch does."""

    scores: tuple[float, ...] = ()
    asked = 0

    def score(self) -> Score | None:
        self.asked += 1
        return Score(self.scores[self.asked - 1], np.ones(1, bool)) if self.scores else None


def state_of(
    digits: Path,
    folder: Path,
    scores: tuple[float, ...] = (),
    images: int = 90,
    dtype: torch.dtype = torch.float32,
) -> TrainState:
    context = TaskContext(ARCH, open_image_set(digits), DataConfig(), RECIPE, 0, 3, pick_device(), final=True)
    task = Scored(context)
    task.scores, task.indices = scores, torch.arange(images)
    task.model.to(dtype)
    return TrainState(Trainer(task, RECIPE, 4, context.device), folder / "checkpoints" / "t.pt", "key")


def weights(state: TrainState) -> torch.Tensor:
    return torch.cat([p.detach().flatten().clone() for p in state.trainer.task.model.parameters()])


class KilledError(Exception):
    """In place of kill -9."""


def test_weights_and_checkpoint_agree_when_it_is_killed_between_them(digits, tmp_path):
    """Epoch 3 is the best. Killed before its weights are stored, they are stored when it goes on."""
    kept: list[torch.Tensor] = []
    killed = state_of(digits, tmp_path, (1.0, 0.5, 9.0))

    def keep() -> None:
        if len(killed.history) == 3:
            raise KilledError
        kept.append(weights(killed))

    with pytest.raises(KilledError):
        fit(killed, tmp_path, "final", lambda *_: None, keep)
    best = weights(killed)
    assert not torch.equal(kept[0], best)

    resumed = state_of(digits, tmp_path, (2.0,))
    resumed.restore(read_checkpoint(resumed.path, "key"))
    assert resumed.best_epoch == 3
    fit(resumed, tmp_path, "final", lambda *_: None, lambda: kept.append(weights(resumed)))
    assert torch.equal(kept[1], best)
    assert len(kept) == 2, "the last epoch is no better"


def test_without_scores_nothing_is_kept_on_the_way(digits, tmp_path):
    state, told = state_of(digits, tmp_path), []
    fit(state, tmp_path, "final", lambda metrics, epochs: told.append((metrics["epoch"], epochs)))
    assert (state.best_epoch, told) == (None, [(1, 4), (2, 4), (3, 4), (4, 4)])
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert lines == [{"trial": "final", **metrics} for metrics in state.history]


def test_metrics_of_others_stay_and_a_torn_line_goes(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"trial": "final", "epoch": 1}\n{"trial": 7, "epoch": 1}\n{"trial": 8, "ep')
    write_metrics(tmp_path, "final", [{"epoch": 1}, {"epoch": 2}])
    assert path.read_text().splitlines() == [
        '{"trial": 7, "epoch": 1}',
        '{"trial": "final", "epoch": 1}',
        '{"trial": "final", "epoch": 2}',
    ]
    before = path.read_text()
    write_metrics(tmp_path, "supernet", [])
    assert path.read_text() == before


def test_divergence_stops_it_and_says_what_to_do(digits, tmp_path):
    state = state_of(digits, tmp_path)
    state.trainer.recipe = RECIPE.model_copy(update={"lr": 1e30})
    with pytest.raises(SearchStoppedError, match=r"final training: the loss .*; try a lower recipe.lr"):
        fit(state, tmp_path, "final", lambda *_: None)
    assert not state.path.exists()


def test_a_checkpoint_of_another_training_is_refused(digits, tmp_path):
    state = state_of(digits, tmp_path)
    assert read_checkpoint(state.path, "key") is None
    state.save()
    with pytest.raises(UserError, match="belongs to a training with other settings"):
        read_checkpoint(state.path, "another")
    state.path.write_bytes(state.path.read_bytes()[:1000])
    with pytest.raises(UserError, match="is damaged"):
        read_checkpoint(state.path, "key")


def test_threads_are_those_of_the_checkpoint_else_as_many_as_asked_for(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    with kept_threads(None):
        assert torch.get_num_threads() == 1
    with kept_threads({"threads": 3}):
        assert torch.get_num_threads() == 3
    monkeypatch.delenv("OMP_NUM_THREADS")
    with kept_threads(None):
        assert torch.get_num_threads() == core_count()


# Two processes.


def fit_with_scores_of_its_own(rank: int, folder: Path, digits: Path) -> list[float]:
    """The first process finds the second epoch best, the second the first one."""
    state = state_of(digits, folder, ((1.0, 2.0, 1.5, 0.0), (9.0, 8.0, 7.0, 6.0))[rank])
    # Saving waits for all processes, as storing the weights does.
    fit(state, folder, "final", lambda *_: None, state.save)
    return [metrics["accuracy"] for metrics in state.history]


def classified_in_double(rank: int, folder: Path, digits: Path) -> list[float]:
    """Joint losses and counts of two epochs' steps, then the joint running variances, in float64."""
    trainer = state_of(digits, folder, images=95, dtype=torch.float64).trainer
    trainer.network.train()
    found = []
    for epoch in range(2):
        for batch in trainer.task.batches(epoch):
            images, labels = trainer.task.prepare(*batch)
            loss, _ = trainer.learn(images.double(), labels)
            counts = torch.tensor([loss.item() * len(labels), len(labels)]).double()
            sums = distributed.total(counts)
            found += [(sums[0] / sums[1]).item(), sums[1].item()]
    norms = trainer.task.model.state_dict().items()
    return found + [float(value.sum()) for name, value in norms if "running_var" in name]


def share_few(rank: int, folder: Path, digits: Path) -> list[int]:
    """Images of each batch of 63 images by 30, and what is said of batches of 3."""
    state = state_of(digits, folder, images=63)
    recipe = Recipe(batch_size=3)
    context = TaskContext(ARCH, open_image_set(digits), DataConfig(), recipe, 0, 3, pick_device(), final=True)
    with pytest.raises(UserError, match="in batches of 3 are too few for 2 processes"):
        ClassificationTask(context)
    task = state.trainer.task
    return [len(task.prepare(*batch)[1]) for batch in task.batches(0)]


def wait_for_the_first(rank: int, folder: Path, digits: Path) -> bool:
    """Whether what the first process takes its time for is done."""

    def work() -> None:
        time.sleep(0.5)
        (folder / "done").touch()

    distributed.first_does(work)
    return (folder / "done").exists()


JOBS = (fit_with_scores_of_its_own, classified_in_double, share_few, wait_for_the_first)


def run_jobs(rank: int, folder: Path, digits: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{folder}/meet", rank=rank, world_size=2)
    torch.save([job(rank, folder, digits) for job in JOBS], folder / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def together(digits, tmp_path_factory) -> list[tuple]:
    """What each job gave, in the first process and in the second."""
    folder = tmp_path_factory.mktemp("together")
    mp.spawn(run_jobs, (folder, digits), nprocs=2)
    return list(zip(*(torch.load(folder / f"{rank}.pt") for rank in (0, 1)), strict=True))


def test_the_first_process_judges_for_all(together):
    """Each by its own score would store, and wait for the others, after other epochs: for ever."""
    assert together[0] == ([1.0, 2.0, 1.5, 0.0],) * 2


def test_two_processes_classify_as_one(together, digits, tmp_path):
    """Batches of 30, 30, 30 and 5 images, shared 15 and 15, 2 and 3: each image trains once."""
    alone = classified_in_double(0, tmp_path, digits)
    assert alone[1:16:2] == [30, 30, 30, 5, 30, 30, 30, 5]
    for found in together[1]:
        np.testing.assert_allclose(found, alone, rtol=1e-4)


def test_a_last_batch_too_small_to_be_shared_is_left_out(together):
    assert together[2] == ([15, 15],) * 2


def test_the_others_wait_for_what_the_first_process_does(together):
    assert together[3] == (True, True)
