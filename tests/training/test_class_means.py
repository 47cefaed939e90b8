"""Where the head of a trained network begins."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from facenas.data.config import DataConfig
from facenas.data.faces.store import open_store
from facenas.device import pick_device
from facenas.errors import UserError
from facenas.evaluation.network import Network
from facenas.models.heads.split import Share
from facenas.models.load import TrainedNetwork
from facenas.spaces import IRArchitecture
from facenas.training.class_means import begin_head, class_means
from facenas.training.faces import FaceTask
from facenas.training.recipes import FaceRecipe
from facenas.training.tasks import TaskContext

ARCH = IRArchitecture.uniform(2, (1, 1, 1, 1), embedding=16)


@pytest.fixture
def task(faces):
    config = DataConfig(validation_fraction=0.3, pairs=20)
    return FaceTask(
        TaskContext(ARCH, open_store(faces), config, FaceRecipe(batch_size=15), 0, 5, pick_device(), final=True)
    )


def test_columns_are_the_mean_unit_embeddings_of_those_who_train(task, faces):
    """Against `embed`, person by person."""
    store, network = open_store(faces), Network(TrainedNetwork(ARCH, task.model, (0.5,) * 3, (0.5,) * 3))
    expected = []
    for identity in sorted(set(store.labels[task.loader.indices])):
        mean = network.embed(store.read(np.flatnonzero(store.labels == identity))).mean(0)
        expected.append(mean / np.linalg.norm(mean))
    np.testing.assert_allclose(class_means(task, 16).numpy(), np.array(expected).T, atol=1e-5)
    assert torch.equal(class_means(task, 16), class_means(task, 16))


def test_they_are_kept_and_a_split_head_takes_its_own(task, tmp_path):
    path = tmp_path / "checkpoints" / "class_means.pt"
    begin_head(task, task.network.head, path, "key")
    columns, head = class_means(task, 16), task.network.head
    assert torch.equal(head.kernel, columns)
    torch.save({"key": "key", "columns": columns.flip(1)}, path)
    begin_head(task, task.network.head, path, "key")
    assert torch.equal(head.kernel, columns.flip(1))
    begin_head(task, task.network.head, path, "another")
    assert torch.equal(head.kernel, columns)
    path.write_bytes(b"torn")
    with pytest.raises(UserError, match=r"class_means\.pt: is damaged .* remove it"):
        begin_head(task, task.network.head, path, "key")

    head.share, head.kernel = Share(columns.shape[1], 1, 2), torch.nn.Parameter(torch.zeros(16, 5))
    head.begin_at(columns)
    assert torch.equal(head.kernel, columns[:, 5:])
    with pytest.raises(UserError, match=r"head adaface: its kernel is \(16, 5\), not \(16, 4\); override"):
        head.begin_at(columns[:, 1:])
