"""Files of a run that say something else than it wrote: a sentence that names the file."""

from __future__ import annotations

import json
import re

import pytest
import torch

from facenas.errors import UserError
from facenas.runs import replay
from facenas.runs.evaluator import checked_checkpoint
from facenas.runs.run import Run

WHOLE = {"key": "k", "training": {}, "history": [], "seconds": 1.0, "threads": 1}
CHECKPOINTS = {
    "a list": [],
    "a number": 7,
    "text in place of threads": WHOLE | {"threads": "many"},
    "no thread": WHOLE | {"threads": 0},
    "a tensor in place of history": WHOLE | {"history": torch.ones(3)},
    "an epoch that is none": WHOLE | {"history": [1]},
    "a list in place of training": WHOLE | {"training": []},
    **{f"no {key}": {k: v for k, v in WHOLE.items() if k != key} for key in WHOLE},
}


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_a_checkpoint_of_another_kind(name, tmp_path):
    path = tmp_path / "training.pt"
    torch.save(CHECKPOINTS[name], path)
    with pytest.raises(UserError, match=re.escape(str(path))):
        checked_checkpoint(path, "k")
    torch.save(WHOLE, path)
    assert checked_checkpoint(path, "k") == WHOLE


def test_a_best_without_an_architecture(tmp_path):
    (tmp_path / "best.json").write_text('{"accuracy": 1}')
    with pytest.raises(UserError, match=r"best\.json: has no architecture; remove it and resume the run"):
        Run(tmp_path, None, {}).best()


@pytest.mark.parametrize("name", ["min_depth", "max_depth", "max_width"])
def test_a_log_of_networks_beyond_reason(name, tmp_path):
    path = tmp_path / "log.json"
    log = {"settings": {name: 10**9}, "trials": [{}], "num_classes": 10, "input_channels": 3}
    path.write_text(json.dumps(log))
    with pytest.raises(UserError, match=f"{name}: Input should be less than or equal to"):
        replay(path)
