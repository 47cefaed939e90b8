"""TensorBoard events in a run's folder, beside `metrics.jsonl`: the callback `tensorboard`.

tensorboard/search        over trials: accuracy, the best so far, parameters, MACs, what else was measured
tensorboard/trials/0012   over the epochs of a trial: what was measured; its architecture for HPARAMS
tensorboard/supernet      over the epochs of the supernet, if there is one
tensorboard/final         over the epochs of the full training, and what the test gave
"""

from __future__ import annotations

import shutil
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from facenas.errors import UserError
from facenas.runs.callbacks import Callback, Work
from facenas.runs.journal import read_journal
from facenas.runs.run import Run
from facenas.strategies import Candidate, Decision, TrialResult

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


class TensorBoard(Callback):
    """Writes TensorBoard events into the run's folder; the extra `tensorboard` has what it needs.

    Whoever goes on with a run writes anew what came before, so no step is there twice and none is missing.
    Raises UserError when the package is not installed.
    """

    def __init__(self) -> None:
        if find_spec("tensorboard") is None:
            remedy = "pip install 'facenas[tensorboard]'"
            raise UserError(f"TensorBoard events need tensorboard, which is not installed: {remedy}")
        self._writers: dict[str, SummaryWriter] = {}
        self._best = 0.0

    def on_begin(self, run: Run, work: Work) -> None:
        """Of a search, what was written before goes: `on_replay` tells it again."""
        self._run, self._folder = run, run.folder / "tensorboard"
        if work == "search":
            for name in ("search", "trials"):
                shutil.rmtree(self._folder / name, ignore_errors=True)

    def on_replay(
        self, trial: int, candidate: Candidate, result: TrialResult, decision: Decision, note: str
    ) -> None:
        """As `on_decision`."""
        self.on_decision(trial, candidate, result, decision, note)

    def on_decision(
        self, trial: int, candidate: Candidate, result: TrialResult, decision: Decision, note: str
    ) -> None:
        """A step of `search`, and a run of its own for the trial."""
        search = self._writer("search")
        if result.status == "failed":
            search.add_text("failed", str(result.reason), trial)
        else:
            # Later trials are compared with a baseline, though earlier ones may have been trained longer.
            self._best = max(0.0 if decision == Decision.BASELINE else self._best, result.accuracy)
            counted = self._counted(candidate)
            told = {"accuracy": result.accuracy, "best_accuracy": self._best, **counted, **result.values}
            _add(search, {f"search/{name}": value for name, value in told.items()}, trial)
            self._write_trial(f"trials/{trial:04}", candidate, result, counted)
        search.flush()

    def on_epoch(self, key: str, metrics: dict[str, Any]) -> None:
        """An epoch of `supernet` or `final`; those of trials are written when it is decided on them."""
        if key not in ("supernet", "final"):
            return
        epochs = [metrics]
        if key not in self._writers:  # metrics.jsonl has all so far, those before a resume too
            shutil.rmtree(self._folder / key, ignore_errors=True)
            epochs = [line for line in read_journal(self._run.folder / "metrics.jsonl") if line["trial"] == key]
        for epoch in epochs:
            _add(self._writer(key), epoch, epoch["epoch"])
        self._writer(key).flush()

    def on_end(self, result: Any) -> None:
        """What the test gave, if there was one; closes the files."""
        tested = {name: getattr(result, name, None) for name in ("test_accuracy", "verification")}
        if "final" in self._writers and result is not None:
            _add(self._writer("final"), tested, result.epochs)
        for writer in self._writers.values():
            writer.close()
        self._writers = {}

    def _writer(self, name: str) -> SummaryWriter:
        from torch.utils.tensorboard import SummaryWriter

        if name not in self._writers:
            self._writers[name] = SummaryWriter(str(self._folder / name))
        return self._writers[name]

    def _counted(self, candidate: Candidate) -> dict[str, int]:
        arch, size = candidate.architecture, self._run.about["data"]["image_size"]
        return {"parameters": arch.count_parameters(), "macs": arch.count_macs(size)}

    def _write_trial(
        self, name: str, candidate: Candidate, result: TrialResult, counted: dict[str, int]
    ) -> None:
        from torch.utils.tensorboard import SummaryWriter

        fields = {key: value for key, value in candidate.architecture.to_json().items() if _is_plain(value)}
        told = {"phase": candidate.phase, "epochs": candidate.budget.epochs, **fields, **counted}
        with SummaryWriter(str(self._folder / name)) as writer:
            for epoch in result.history:
                _add(writer, epoch, epoch["epoch"])
            writer.add_hparams(told, {"result/accuracy": result.accuracy}, run_name=".")


def _add(writer: SummaryWriter, values: dict[str, Any], step: int) -> None:
    """Every number among the values."""
    for name, value in values.items():
        if name not in ("trial", "epoch") and _is_plain(value) and not isinstance(value, str):
            writer.add_scalar(name, value, step)


def _is_plain(value: Any) -> bool:
    return isinstance(value, str | int | float)
