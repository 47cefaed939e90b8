"""`evaluate` as a notebook calls it: one's own network, one's own pairs, and a process left as it was."""

from __future__ import annotations

import dataclasses
import json
import os
import pickle

import numpy as np
import pytest
import torch
from bench_files import encoded, face, write
from torch import nn

from facenas.errors import UserError
from facenas.evaluation import PairResult, benches, evaluate, evaluate_hq

PEOPLE = 20


def shot(person: int, number: int) -> np.ndarray:
    noise = np.random.default_rng([person, number]).normal(0, 12, (112, 112, 3))
    return np.clip(face(person) + noise, 0, 255).astype(np.uint8)


@pytest.fixture
def data(tmp_path):
    """Crops of twenty people, two of each, and `pairs.txt`: each with himself and with the next, in turn."""
    names = [f"{person}/{number}.png" for person in range(PEOPLE) for number in (0, 1)]
    folder = write(
        tmp_path / "crops",
        {name: encoded(shot(*map(int, name[:-4].split("/"))), "png") for name in names},
    )
    rows = [f"{p}/0.png {(p + k) % PEOPLE}/1.png {1 - k}" for p in range(PEOPLE) for k in (0, 1)]
    (tmp_path / "pairs.txt").write_text("\n".join(rows))
    return folder


class Coarse(nn.Module):
    """Means of cells of the picture, through a linear map."""

    def __init__(self) -> None:
        super().__init__()
        self.pool, self.drop = nn.AvgPool2d(16), nn.Dropout(0.5)
        self.map = nn.Linear(147, 12)

    def forward(self, images):
        return self.map(self.drop(self.pool(images).flatten(1)))


def coarse(images: np.ndarray) -> np.ndarray:
    """What a function of one's own may look like."""
    cells = images.reshape(len(images), 7, 16, 7, 16, 3).mean((2, 4))
    return cells.reshape(len(images), -1) / 127.5 - 1


def restated(pairs, folds):
    """Accuracy of `coarse` by plain loops."""
    rows = {}
    for path in {path for pair in pairs for path in pair[:2]}:
        image = shot(*map(int, path[:-4].split("/")))[None]
        row = (coarse(image) + coarse(image[:, :, ::-1]))[0]
        rows[path] = row / np.linalg.norm(row)
    distances = np.array([((rows[a] - rows[b]) ** 2).sum() for a, b, _ in pairs])
    same = np.array([label == "1" for *_, label in pairs])
    accuracies = []
    for fold in np.array_split(np.arange(len(same)), folds):
        others = np.setdiff1d(np.arange(len(same)), fold)
        right = [np.mean((distances[others] < t) == same[others]) for t in np.arange(0, 4, 0.01)]
        threshold = np.arange(0, 4, 0.01)[int(np.argmax(right))]
        accuracies.append(np.mean((distances[fold] < threshold) == same[fold]))
    return accuracies


def test_a_function_on_ones_own_pairs(data):
    listed = data.parent / "pairs.txt"
    result = evaluate(coarse, benches.Pairs("mine", listed), data)
    wanted = restated([row.split() for row in listed.read_text().splitlines()], 10)
    assert isinstance(result, PairResult)
    assert result.accuracies == pytest.approx(wanted)
    assert result.accuracy == pytest.approx(np.mean(wanted))
    assert result.std == pytest.approx(np.std(wanted))
    assert result.auc > 0.9
    assert len(result.scores) == result.pairs == 2 * PEOPLE
    told = json.loads(json.dumps(result.to_json()))
    assert (told["bench"], told["accuracy"], told["flip"]) == ("mine", result.accuracy, True)
    assert told["tar_at_far"] == {
        "0.001": result.tar_at_far[1e-3],
        "0.0001": result.tar_at_far[1e-4],
    }
    with pytest.raises(dataclasses.FrozenInstanceError):
        result.accuracy = 1.0


def test_a_module_of_ones_own_and_the_process_as_it_was(data):
    module, before = Coarse().train(), (dict(os.environ), torch.get_num_threads())
    mine = benches.Pairs("mine", data.parent / "pairs.txt", folds=4)
    result = evaluate(module, mine, data)
    assert (module.training, module.drop.training) == (True, True)
    assert (dict(os.environ), torch.get_num_threads()) == before
    assert len(result.accuracies) == 4
    again = evaluate(module, mine, data)  # without dropout the same
    assert np.array_equal(again.scores, result.scores)
    with torch.no_grad():
        for value in module.parameters():
            value.mul_(-3).add_(0.1)
    assert not np.array_equal(evaluate(module, mine, data).scores, result.scores)  # nothing was kept


def test_a_yaml_of_ones_own_from_anywhere(data, monkeypatch):
    folder = data.parent
    (folder / "office.yaml").write_text("title: Office\npairs: pairs.txt\nfolds: 5\n")
    monkeypatch.chdir("/")
    result = evaluate(coarse, folder / "office.yaml", data)
    assert (result.bench.name, result.bench.title, len(result.accuracies)) == (
        "office",
        "Office",
        5,
    )
    assert result.accuracy == evaluate(coarse, str(folder / "office.yaml"), str(data)).accuracy
    (folder / "office.yaml").write_text("pairs: pairs.txt\nfolds: 2\n")
    assert len(evaluate(coarse, folder / "office.yaml", data).accuracies) == 2  # read anew


class Doubled(benches.Protocol):
    """A kind of bench of somebody's own: the share of images whose embedding has a positive sum."""

    class Settings(benches.Bench):
        limit: float = 0.0

    def measure(self, data, extract):
        from facenas.data.images import find_images
        from facenas.evaluation.benches.images import file_images
        from facenas.evaluation.benches.result import BenchResult

        images = file_images(*find_images(data))
        share = float((extract(images).sum(1) > self.bench.limit).mean())
        return BenchResult(bench=self.bench, images=len(images), rank={1: share})


def test_a_kind_of_bench_of_ones_own(data):
    path = data.parent / "sums.yaml"
    path.write_text(f"kind: {__name__}:Doubled\nlimit: 2.5\n")
    result = evaluate(coarse, path, data, flip=False)
    sums = [coarse(shot(p, n)[None]).sum() for p in range(PEOPLE) for n in (0, 1)]
    assert result.rank == {1: np.mean(np.array(sums) > 2.5)}
    assert (result.images, result.flip) == (2 * PEOPLE, False)
    assert evaluate(coarse, path, data, limit=-1e9).rank == {1: 1.0}


def test_the_five(tmp_path):
    items = [encoded(shot(p // 2, p % 2), "png") for p in range(40)]
    content = pickle.dumps((items + items[::-2] + items[1::2], [True] * 20 + [False] * 20))
    for name in benches.HQ[:2]:
        (tmp_path / f"{name}.bin").write_bytes(content)
    found = evaluate_hq(coarse, tmp_path)
    assert (list(found.results), found.accuracy) == (list(benches.HQ[:2]), None)
    assert set(found.to_json()["missing"]) == set(benches.HQ[2:])
    for name in benches.HQ[2:]:
        (tmp_path / f"{name}.bin").write_bytes(content)
    found = evaluate_hq(coarse, tmp_path)
    assert found.accuracy == pytest.approx(found.results["lfw"].accuracy)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"bench": "lfv"}, "bench lfv: is unknown"),
        ({"net": 5}, "int: gives no embeddings"),
        ({"net": "no.onnx"}, "no.onnx: there is no such file or run folder"),
        ({"data": "nowhere"}, "nowhere: does not exist"),
        ({"fold": 3}, "bench mine: has no setting fold; it has folds, lists, pairs, split"),
        ({"folds": 0}, "bench mine: folds: "),
        ({"folds": 60}, "mine cannot be measured: 40 pairs cannot be parted into 60 folds"),
        ({"pairs": "none.txt"}, "none.txt: does not exist"),
    ],
)
def test_faults_speak_of_arguments_in_one_sentence(data, change, told):
    mine = benches.Pairs("mine", data.parent / "pairs.txt")
    arguments = {"net": coarse, "bench": mine, "data": data, **change}
    with pytest.raises(UserError, match=told) as caught:
        evaluate(**arguments)
    assert "\n" not in str(caught.value)
    assert "--" not in str(caught.value)
