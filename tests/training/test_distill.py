"""Distillation: losses against loops in float64, what a teacher says of which image, and trainings with one."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from conftest import ROOT
from teachers import ARCH, teacher_of, write_teacher
from trainings import weights, whole_and_resumed

from facenas.data.config import DataConfig
from facenas.data.faces.store import open_store
from facenas.device import Device, pick_device
from facenas.errors import UserError
from facenas.evaluation.embedders import InputOptions, open_embedder
from facenas.training import distributed
from facenas.training.capture import HostOperations
from facenas.training.distill import (
    Distillation,
    correlation,
    cosine_loss,
    relational_loss,
    squared_loss,
)
from facenas.training.faces import FaceTask
from facenas.training.recipes import Distill, FaceRecipe, check_protocol
from facenas.training.tasks import TaskContext
from facenas.training.teachers import find_teacher
from facenas.training.trainer import Trainer

sys.path += [str(ROOT / "tests" / folder) for folder in ("evaluation", "models")]
KINDS = ["cosine", "squared", "relational"]
DATA = DataConfig(validation_fraction=0.3, pairs=20)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory) -> Path:
    return write_teacher(tmp_path_factory.mktemp("teacher") / "run")


def task_of(store: Path, teacher: Path, seed: int = 5, final: bool = False, **settings) -> FaceTask:
    distill = Distill(teacher=teacher, **settings)
    recipe = FaceRecipe(batch_size=15, distill=distill)
    opened = open_store(store)
    context = TaskContext(ARCH, opened, DATA, recipe, 0, seed, pick_device(), final)
    return FaceTask(replace(context, teacher=teacher_of(teacher, opened, **settings)))


def batch_of(n=7, e=5, t=5) -> tuple[torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(0)
    return torch.randn(n, e, generator=rng), 3 * torch.randn(n, t, generator=rng)


# The losses.


def cos(a, b) -> float:
    return float(a @ b / np.sqrt((a @ a) * (b @ b)))


def test_the_losses_are_what_their_formulas_say():
    z, teacher = batch_of()
    first, second = z.double().numpy(), teacher.double().numpy()
    n, e = first.shape
    plain = sum(1 - cos(a, b) for a, b in zip(first, second, strict=True)) / n
    assert float(cosine_loss(z, teacher)) == pytest.approx(plain, rel=1e-5)
    apart = [a / np.sqrt(e) - b / np.linalg.norm(b) for a, b in zip(first, second, strict=True)]
    assert float(squared_loss(z, teacher)) == pytest.approx(sum(x @ x for x in apart) / n, rel=1e-5)


def test_relations_are_those_of_every_image_to_every_other():
    """Of another size than the teacher's; and the parts of several processes make up the whole."""
    z, teacher = batch_of(e=5, t=8)
    first, second = z.double().numpy(), teacher.double().numpy()
    pairs = [(i, j) for i in range(7) for j in range(7) if i != j]
    ours, theirs = ([cos(x[i], x[j]) for i, j in pairs] for x in (first, second))
    plain = np.square(np.subtract(ours, theirs)).mean()
    assert float(relational_loss(z, teacher)) == pytest.approx(plain, rel=1e-5)
    assert float(correlation(z, teacher)) == pytest.approx(np.corrcoef(ours, theirs)[0, 1], rel=1e-4)
    parts = [relational_loss(z, teacher, own) for own in (slice(0, 3), slice(3, 7))]
    assert float(3 * parts[0] + 4 * parts[1]) / 7 == pytest.approx(plain, rel=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_a_network_that_turns_into_its_teacher_has_no_loss(kind):
    """By a turn of the space, which the projection, or a relational loss, makes up for."""
    rng = torch.Generator().manual_seed(0)
    z = torch.randn(50, 8, generator=rng)
    turn = torch.linalg.qr(torch.randn(8, 8, generator=rng))[0]
    module = Distillation(Distill(teacher="t", kind=kind, weight=3), 8, 8, seed=0)
    module.place(z @ turn, 0, 50)
    loss, agreement = module(torch.nn.functional.normalize(z @ turn, dim=1) * 8**0.5)
    assert (float(loss), float(agreement)) == pytest.approx((0, 50), abs=1e-4)
    loss, _ = module(z)
    assert (float(loss) < 1e-6) == (kind == "relational")


def test_every_path_of_a_supernet_has_the_rows_of_the_batch():
    z, teacher = batch_of(n=8)
    module = Distillation(Distill(teacher="t", weight=2), 5, 5, seed=0)
    module.place(teacher[:4], 0, 4)
    loss, _ = module(z)
    one, other = (cosine_loss(part, teacher[:4]) for part in z.split(4))
    torch.testing.assert_close(loss, one + other)


def one_rank(rank: int, folder: Path, start: int, stop: int) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{folder}/meet", rank=rank, world_size=2)
    torch.save(gradient(start, stop), folder / f"{rank}.pt")
    dist.destroy_process_group()


def gradient(start: int, stop: int) -> torch.Tensor:
    """Of rows of z, by a process that has these."""
    z, teacher = batch_of(e=5, t=8)
    own = z[start:stop].clone().requires_grad_()
    module = Distillation(Distill(teacher="t", kind="relational"), 5, 8, seed=0)
    module.place(teacher[start:stop], start, len(z))
    loss, _ = module(own)
    (loss * distributed.weight(stop - start, loss.device)).backward()
    return own.grad


def test_processes_relate_the_images_of_all(tmp_path):
    """DDP takes the mean over both: of 3 and 4 rows of a batch of 7."""
    context = mp.get_context("spawn")
    ranks = [(0, tmp_path, 0, 3), (1, tmp_path, 3, 7)]
    processes = [context.Process(target=one_rank, args=arguments) for arguments in ranks]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    both = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1)]
    torch.testing.assert_close(torch.cat(both) / 2, gradient(0, 7))


# What the teacher says.


def test_what_is_kept_is_the_unit_embedding_of_each_image_and_of_its_mirror_image(faces, teacher, tmp_path):
    store, run = open_store(faces), find_teacher(Distill(teacher=teacher))
    images, mirrored = np.array([5, 0, 77, 5]), np.array([False, True, False, True])
    pixels = store.read(images)
    pixels[mirrored] = pixels[mirrored][:, :, ::-1]
    plain = run.open()(pixels)
    plain /= np.linalg.norm(plain, axis=1, keepdims=True)
    kept = run.keep(store).embeddings(store)
    np.testing.assert_allclose(kept.rows(images, mirrored), plain, atol=1e-6)
    half = teacher_of(teacher, store, dtype="float16").embeddings(store)
    assert half.rows(images, mirrored).dtype == np.float16
    np.testing.assert_allclose(half.rows(images, mirrored), plain, atol=1e-3)
    fused = np.stack([kept.rows(images, np.full(4, side)) for side in (False, True)]).sum(0)
    np.testing.assert_allclose(kept.fused(images), fused, atol=1e-6)
    online = find_teacher(Distill(teacher=teacher, online=True))
    np.testing.assert_allclose(online.fused(store, images[:3]), fused[:3], atol=1e-6)


def test_a_teacher_is_known_by_its_weights_and_what_it_takes(faces, teacher, tmp_path):
    store, here = open_store(faces), find_teacher(Distill(teacher=teacher))
    assert here.size == 24
    file = tmp_path / "model.pt"
    file.write_bytes((teacher / "checkpoints" / "model.pt").read_bytes())
    moved = find_teacher(Distill(teacher=file))
    assert moved.facts == here.facts
    assert moved.keep(store).kept == here.keep(store).kept
    other = find_teacher(Distill(teacher=write_teacher(tmp_path / "other", seed=2)))
    bgr = find_teacher(Distill(teacher=teacher, input={"color": "bgr"}))
    assert len({found.fingerprint for found in (here, other, bgr)}) == 3
    assert len({found.keep(store).kept for found in (here, other, bgr)}) == 3
    with pytest.raises(UserError, match="no such file"):
        find_teacher(Distill(teacher=tmp_path / "gone.onnx"))


def test_a_teacher_elsewhere_takes_the_colors_that_a_file_beside_it_tells(tmp_path):
    from test_import_weights import SMALL, AdaFaceNet

    for name in ("here", "there"):
        (tmp_path / name).mkdir()
    file = tmp_path / "here" / "model.pt"
    torch.save({f"net.{key}": value for key, value in AdaFaceNet(8, SMALL, 8).state_dict().items()}, file)
    (tmp_path / "here" / "model.yaml").write_text("name: ir18\ncolor_space: BGR\n")
    here = find_teacher(Distill(teacher=file, online=True))
    there = here.at(file.rename(tmp_path / "there" / "model.pt"))  # as on another node
    pixels = np.random.default_rng(0).integers(0, 256, (2, 112, 112, 3), np.uint8)
    told = open_embedder(there.file, InputOptions(color="bgr"), tell=False)
    np.testing.assert_array_equal(there.open()(pixels), told(pixels))
    assert not np.allclose(open_embedder(there.file, tell=False)(pixels), told(pixels))


def test_each_of_two_networks_of_one_checkpoint_is_a_teacher_of_its_own(tmp_path, faces):
    from test_import_weights import SMALL, AdaFaceNet

    networks = {name: AdaFaceNet(8, SMALL, 8) for name in ("student", "teacher")}
    state = {f"{name}.net.{key}": v for name, net in networks.items() for key, v in net.state_dict().items()}
    torch.save({"state_dict": state}, tmp_path / "two.ckpt")
    found = [find_teacher(Distill(teacher=tmp_path / "two.ckpt", input={"prefix": name})) for name in networks]
    assert found[0].fingerprint != found[1].fingerprint
    assert found[0].open().fingerprint != found[1].open().fingerprint


def test_a_teacher_is_known_by_weights_in_a_file_beside_it(tmp_path):
    from onnx_files import summing

    found = []
    for name, factor in (("one", 1.0), ("other", 2.0)):
        (tmp_path / name).mkdir()
        model = onnx.load(summing(tmp_path / "net.onnx", before=[("Sub", factor)]))
        place = {"save_as_external_data": True, "location": "weights.bin", "size_threshold": 0}
        onnx.save(model, tmp_path / name / "net.onnx", **place)
        found.append(find_teacher(Distill(teacher=tmp_path / name / "net.onnx")).fingerprint)
    assert (tmp_path / "one" / "net.onnx").read_bytes() == (tmp_path / "other" / "net.onnx").read_bytes()
    assert found[0] != found[1]


def test_a_candidates_own_weight_of_the_teacher_counts(faces, teacher):
    """As joint search moves `distill.weight`: the teacher was opened by the run's recipe, which has another."""
    opened, recipe = open_store(faces), FaceRecipe(batch_size=15, distill=Distill(teacher=teacher, weight=8))
    found = teacher_of(teacher, opened, weight=1)
    context = TaskContext(ARCH, opened, DATA, recipe, 0, 5, pick_device(), teacher=found)
    distillation = FaceTask(context)._distillation
    assert distillation is not None
    assert distillation.settings.weight == 8
    with pytest.raises(UserError, match=r"distill\.labels is one for all"):
        check_protocol(recipe, {"distill.labels": [0, 1]})


def test_keys_know_the_teacher_and_not_its_place():
    plain, taught = FaceRecipe().deciding(), FaceRecipe(distill={"teacher": "a.onnx"}).deciding()
    assert "distill" not in plain
    assert taught == FaceRecipe(distill={"teacher": "b.onnx"}).deciding()
    assert taught != FaceRecipe(distill={"teacher": "a.onnx", "weight": 2}).deciding()


# Training.


def first_batch(task: FaceTask) -> tuple[tuple, torch.Tensor, torch.Tensor]:
    batch = next(iter(task.batches(0)))
    return batch, *task.prepare(*batch)


@pytest.mark.parametrize("labels", [True, False])
def test_the_loss_of_a_batch_is_the_heads_and_the_weighted_distance(faces, teacher, labels):
    task = task_of(faces, teacher, labels=labels, weight=7)
    (*_, taught), inputs, labels_of = first_batch(task)
    rows, draws = next(iter(task.loader.drawn(0)))
    kept = teacher_of(teacher, task.store).embeddings(task.store)
    np.testing.assert_array_equal(taught, kept.rows(task.loader.indices[rows], draws.flip))
    assert draws.flip.any()
    z = task.network.embed(inputs)
    loss, right = task.network.judge(z, labels_of)
    distance = cosine_loss(z @ task.network.distillation.projection.weight.T, taught)
    expected = 7 * distance + (task.network.head.judge(z, labels_of)[0] if labels else 0)
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-5)
    assert labels or float(right) == pytest.approx(15 * (1 - distance.item()), rel=1e-4)


def test_a_teacher_alone_teaches_and_the_network_that_is_kept_has_no_projection(faces, teacher):
    task = task_of(faces, teacher, labels=False)
    assert (task.network.head, task.images) == (None, 112 - 34)
    before = task.score()
    trainer = Trainer(task, FaceRecipe(batch_size=15, lr=0.1), 4, pick_device())
    epochs = [trainer.run_epoch(epoch) for epoch in range(4)]
    assert epochs[-1]["train_loss"] < epochs[0]["train_loss"]
    assert epochs[-1]["train_accuracy"] > epochs[0]["train_accuracy"]
    after = task.score()
    assert after.accuracy > before.accuracy
    assert (after.values, len(after.right)) == ({"agreement": after.accuracy}, 0)
    assert "distillation.projection.weight" in task.network.state_dict()
    assert not any("projection" in name for name in task.model.state_dict())
    assert task.test()["verification"] is None


def test_with_labels_the_score_is_of_pairs_or_agreement_and_tells_both(faces, teacher):
    pairs, agreement = (task_of(faces, teacher, agreement=by) for by in (False, True))
    one, other = pairs.score(), agreement.score()
    assert one.values == other.values
    assert (one.accuracy, other.accuracy) == (one.values["verification"], one.values["agreement"])
    assert (len(one.right), len(other.right)) == (20, 0)
    images = pairs._looked_at
    kept = teacher_of(teacher, pairs.store).embeddings(pairs.store).fused(images)
    z = np.stack([pairs.model.eval()(_input(pairs, images, side)).detach().numpy() for side in (1, -1)]).sum(0)
    projected = z @ pairs.network.distillation.projection.weight.detach().numpy().T
    mean = np.mean([cos(a, b) for a, b in zip(projected, kept, strict=True)])
    assert one.values["agreement"] == pytest.approx(100 * max(0, mean), abs=1e-3)


def _input(task: FaceTask, images: np.ndarray, side: int) -> torch.Tensor:
    pixels = task.store.read(images)[:, :, ::side].astype(np.float32)
    return torch.from_numpy(pixels.transpose(0, 3, 1, 2) / 127.5 - 1)


@pytest.mark.parametrize("settings", [{}, {"online": True, "labels": False}])
def test_a_resumed_training_goes_on_with_the_same_bits(faces, teacher, tmp_path, settings):
    def make() -> Trainer:
        return Trainer(task_of(faces, teacher, **settings), FaceRecipe(batch_size=15), 2, pick_device())

    whole, resumed = whole_and_resumed(make, 2, tmp_path)
    assert torch.equal(weights(whole), weights(resumed))


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_in_parts_has_the_loss_of_the_batch(faces, teacher, kind):
    """And the gradients of the projection: the teacher's loss sees all parts at once, as the head does."""
    losses, gradients = [], []
    for parts in (1, 3):
        task = task_of(faces, teacher, kind=kind)
        task.model.eval()  # BatchNorm's statistics are those of a part
        recipe = FaceRecipe(batch_size=15, accumulate=parts, grad_clip=None)
        trainer = Trainer(task, recipe, 1, pick_device())
        _, inputs, labels = first_batch(task)
        losses.append(float(trainer.learn(inputs, labels)[0]))
        gradients.append(torch.cat([p.grad.flatten() for p in task.network.parameters()]))
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    apart = (gradients[0] - gradients[1]).norm() / gradients[0].norm()
    assert apart < 1e-3  # single numbers are sums that nearly cancel out


def test_online_the_teacher_sees_what_the_network_sees(faces, teacher, tmp_path):
    """Of a checkpoint and of an ONNX file."""
    from onnx_files import summing

    file = summing(tmp_path / "net.onnx", before=[("Sub", 127.5), ("Div", 127.5)])
    for model in (teacher, file):
        task = task_of(faces, model, online=True)
        batch, inputs, _ = first_batch(task)
        assert len(batch) == 3
        pixels = ((inputs + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
        expected = find_teacher(Distill(teacher=model)).open()(np.ascontiguousarray(pixels))
        placed = task.network.distillation._placed[0]
        np.testing.assert_allclose(placed, expected, atol=1e-4)


class Card(Device):
    """The CPU, taken for a GPU."""

    is_gpu = True


@pytest.mark.parametrize("settings", [{"kind": kind} for kind in KINDS] + [{"online": True, "labels": False}])
def test_a_step_with_a_teacher_can_be_captured(faces, teacher, settings):
    """Nothing in it waits for the device; the teacher's embeddings come with the batch."""
    store, card = open_store(faces), Card(torch.device("cpu"), False)
    recipe = FaceRecipe(batch_size=15, distill=Distill(teacher=teacher, **settings))
    context = TaskContext(ARCH, store, DATA, recipe, 0, 5, card, teacher=teacher_of(teacher, store, **settings))
    task = FaceTask(context)
    assert task.capturable
    trainer = Trainer(task, recipe, 1, card)
    trainer.network.train()
    batch = next(iter(task.batches(0)))
    with HostOperations() as watch:
        trainer.step(*batch)
    assert watch.found is None
    on_cpu = first_batch(task_of(faces, teacher, **settings))[0]
    if not settings.get("online"):
        torch.testing.assert_close(batch[-1], on_cpu[-1])
