"""What a trial is: training alone, the path of a supernet, or one's own function."""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from facenas.config import import_object
from facenas.data.config import DataConfig
from facenas.errors import CandidateError, UserError
from facenas.execution.base import Evaluator, Report, Stop, TrialSpec
from facenas.strategies.base import Candidate, TrialResult
from facenas.training.recipes import FaceRecipe, Recipe, with_protocol

if TYPE_CHECKING:  # torch takes a second to import
    from torch import nn

    from facenas.data import TrainingData
    from facenas.models.latency_table import LatencyTable
    from facenas.training.supernet import PathJudge
    from facenas.training.tasks import NetworkTask, Score
    from facenas.training.teachers import Teacher


_SKIPPED = 4  # times as many epochs as it trains for: of a schedule, by a candidate with weights of another


@dataclass
class TrainAlone(Evaluator):
    """Trains the candidate on the prepared data in `data_folder` and validates it after every epoch.

    fingerprint: of the images; split_seed: decides what is held out; latency: whether it is measured too, or
    what a target measured; weights: folder in the run's where each trial keeps its weights, which others may
    begin with; teacher: the one that the recipe names.
    """

    shares_process = True

    data_folder: Path
    data: DataConfig
    fingerprint: str
    recipe: Recipe | FaceRecipe
    split_seed: int
    latency: bool | LatencyTable = False
    weights: Path | None = None
    teacher: Teacher | None = None
    # What the last trial had on the card, until the next one has found it there.
    _images: Any = field(default=None, init=False, repr=False, compare=False)

    def identity(self, candidate: Candidate) -> dict[str, Any]:
        """Data, recipe and seed; where the images were found does not matter."""
        told: dict[str, Any] = {
            "data": {
                **self._data(candidate).deciding(),
                "fingerprint": self.fingerprint,
            },
            "recipe": with_protocol(self.recipe, candidate.protocol).deciding(),
            "seed": self.split_seed,
        }
        told |= {"teacher": self.teacher.facts} if self.teacher else {}
        return told | _latency_key(self.latency)

    def files(self) -> tuple[Path, ...]:
        """The prepared data, and what is read of a teacher and of groups."""
        more = (self.teacher and self.teacher.path, self.data.groups)
        return (self.data_folder, *(path for path in more if path))

    def shared(self) -> tuple[Path, ...]:
        """The settings of the run that the weights are kept for."""
        return (self.weights.parent / "run.yaml",) if self.weights else ()

    def reading(self, files: tuple[Path, ...]) -> Self:
        """With these at other places."""
        moved = copy.copy(self)
        moved.data_folder = files[0]
        if self.data.groups:
            moved.data = self.data.model_copy(update={"groups": files[2 if self.teacher else 1]})
        moved.teacher = self.teacher and self.teacher.at(files[1])
        return moved

    def __call__(self, candidate: Candidate, seed: int, on_epoch: Report, stop: Stop) -> TrialResult:
        """Trains all epochs; the result is that of the best one that was judged."""
        from facenas.data import open_data
        from facenas.device import pick_device
        from facenas.training.tasks import TaskContext, build_task
        from facenas.training.trainer import Trainer

        device, data = pick_device(self.worker), open_data(self.data_folder, self.data.image_size)
        epochs, recipe = candidate.budget.epochs, with_protocol(self.recipe, candidate.protocol)
        facts = data, self._data(candidate), recipe, self.split_seed, seed, device
        try:
            task = build_task(TaskContext(candidate.architecture, *facts, teacher=self.teacher))
        except UserError as error:
            if not candidate.protocol:
                raise
            raise CandidateError(str(error)) from None  # such as a crop that its padded images do not have
        self._images = getattr(task, "pixels", None) if device.is_gpu else None
        if candidate.parent:
            self._begin_as(candidate.parent, candidate, task)
        # At the rates that drawn weights begin with, trained ones are lost: of 95.2 % on digits two epochs left
        # 89.4. The last fifth of a cosine begins at a tenth of its rate, and the deeper networks came to 95.7.
        skipped = _SKIPPED * epochs if candidate.parent else 0
        trainer = Trainer(task, recipe, epochs, device, skipped=skipped)
        history: list[dict[str, Any]] = []
        best: Score | None = None
        for epoch in range(epochs):
            metrics = trainer.run_epoch(epoch, stop)
            if candidate.budget.judge_last and epoch + 1 < epochs:
                history.append(metrics)
                on_epoch(metrics)
                continue
            score = task.score()
            assert score is not None, "a candidate is always judged"
            correct = int(score.right.sum())
            history.append(metrics | {"accuracy": score.accuracy, "correct": correct, **score.values})
            on_epoch(history[-1])
            if best is None or score.accuracy > best.accuracy:
                best = score
        assert best is not None
        if self.weights:
            self._keep(self.weights, candidate, task)
        return replace(
            self._judged(best, candidate, task.model, data),
            train_accuracy=max(epoch["train_accuracy"] for epoch in history),
            images=epochs * task.images,
            history=history,
            facts=task.facts() if device.is_gpu else {},
        )

    def _begin_as(self, parent: str, candidate: Candidate, task: NetworkTask) -> None:
        """Gives the network the weights of the trial `parent`, in place of drawn ones."""
        from facenas.models.inherit import begin_as

        if self.weights is None:
            raise UserError("a candidate begins with another's weights, but none are kept: set search.inherit")
        file = weights_file(self.weights, parent)
        begin_as(file, parent, candidate.architecture, task.model, getattr(task.network, "head", None))

    def _keep(self, folder: Path, candidate: Candidate, task: NetworkTask) -> None:
        """Stores the weights before the result is told, so that who knows the result can begin with them.

        Those of the last epoch, at the lowest learning rate: the best one was so by chance on what is held out.
        """
        from facenas.models.inherit import keep

        key = TrialSpec(candidate, self.identity(candidate)).key
        head = getattr(task.network, "head", None)
        keep(weights_file(folder, key), key, candidate.architecture, task.model, head)

    def _judged(
        self, score: Score, candidate: Candidate, network: nn.Module, data: TrainingData
    ) -> TrialResult:
        """What a score on the held-out images says of a trial, and what else was to be measured."""
        import numpy as np
        import torch

        return TrialResult(
            accuracy=score.accuracy,
            correct=int(score.right.sum()),
            validated=len(score.right),
            threads=torch.get_num_threads(),
            right_bits=np.packbits(score.right).tobytes().hex(),
            values=score.values | self._latency(candidate, network, data),
        )

    def _data(self, candidate: Candidate) -> DataConfig:
        fraction = self.data.data_fraction * candidate.budget.data_fraction
        return self.data.model_copy(update={"data_fraction": fraction})

    def _latency(self, candidate: Candidate, network: nn.Module, data: TrainingData) -> dict[str, float]:
        """Milliseconds for one image, if asked for: measured here, while no other trial disturbs the clock."""
        if not isinstance(self.latency, bool):
            return _told_latency(self.latency, candidate)
        if not self.latency:
            return {}
        from facenas.data import describe
        from facenas.models.latency import measure_latency

        facts = describe(data)
        shape = (facts["in_channels"], facts["image_size"], facts["image_size"])
        with self.quiet():
            return {"latency": measure_latency(network.cpu(), shape)}


def weights_file(folder: Path, key: str) -> Path:
    """Where in a run's folder `weights` those of a trial are."""
    return folder / f"{key}.safetensors"


@dataclass(frozen=True)
class SupernetRef:
    """A trained supernet on disk. fingerprint: of all that decided its weights; the path decides nothing."""

    path: Path
    fingerprint: str
    space: Any
    recalibration: int


@dataclass
class SupernetPath(TrainAlone):
    """Candidates of 0 epochs are judged by their path through a supernet, without training; others alone."""

    supernet: SupernetRef | None = None
    # Made once a worker, for candidates on the same data: it holds the supernet, pairs and a loader.
    _judge: tuple[DataConfig, PathJudge, TrainingData] | None = field(default=None, init=False, repr=False)

    def identity(self, candidate: Candidate) -> dict[str, Any]:
        """Also of the supernet's weights, for what they judge."""
        told = super().identity(candidate)
        if candidate.budget.epochs or self.supernet is None:
            return told
        return told | {"supernet": [self.supernet.fingerprint, self.supernet.recalibration]}

    def files(self) -> tuple[Path, ...]:
        """The prepared data, and the supernet's weights."""
        return (*super().files(), *([self.supernet.path] if self.supernet else []))

    def reading(self, files: tuple[Path, ...]) -> Self:
        """With all at other places."""
        moved = super().reading(files)
        if self.supernet:
            moved.supernet = replace(self.supernet, path=files[-1])
        return moved

    def __call__(self, candidate: Candidate, seed: int, on_epoch: Report, stop: Stop) -> TrialResult:
        """Validates the path, with BatchNorm's statistics taken anew for it."""
        if candidate.budget.epochs or self.supernet is None:
            return super().__call__(candidate, seed, on_epoch, stop)

        arch: Any = candidate.architecture
        config = self._data(candidate)
        if self._judge is None or self._judge[0] != config:
            self._judge = config, *self._build_judge(config, self.supernet)
        _, judge, data = self._judge
        score, network = judge(arch, seed)
        return self._judged(score, candidate, network, data)

    def _build_judge(self, config: DataConfig, supernet: SupernetRef) -> tuple[PathJudge, TrainingData]:
        from facenas.data import open_data
        from facenas.device import pick_device
        from facenas.training.supernet import PathJudge
        from facenas.training.tasks import TaskContext

        data, device = open_data(self.data_folder, self.data.image_size), pick_device(self.worker)
        facts = data, config, self.recipe, self.split_seed, 0, device
        context = TaskContext(supernet.space.largest(), *facts, teacher=self.teacher)
        return PathJudge(context, supernet.path, supernet.space, supernet.recalibration), data


@dataclass
class FunctionEvaluator(Evaluator):
    """One's own measure: `function` takes what it names of candidate, seed, on_epoch and stop.

    It returns an accuracy in percent, or a mapping with `accuracy` and other measured numbers, which are
    objectives by their name, or a whole TrialResult. `seed`: of the run; latency: what a target measured. What
    the function does is not part of the trial key: a function that was changed needs a new run.
    """

    function: Callable[..., Any]
    seed: int = 0
    latency: LatencyTable | None = None

    def identity(self, candidate: Candidate) -> dict[str, Any]:
        """The function's name, and the seed."""
        return {
            "evaluate": function_name(self.function),
            "data_fraction": candidate.budget.data_fraction,
            "seed": self.seed,
            **({"protocol": dict(candidate.protocol)} if candidate.protocol else {}),
            **_latency_key(self.latency),
        }

    def __call__(self, candidate: Candidate, seed: int, on_epoch: Report, stop: Stop) -> TrialResult:
        """Calls the function."""
        result = self._call(candidate, seed, on_epoch, stop)
        if self.latency is None:
            return result
        return replace(result, values=result.values | _told_latency(self.latency, candidate))

    def _call(self, candidate: Candidate, seed: int, on_epoch: Report, stop: Stop) -> TrialResult:
        history: list[dict[str, Any]] = []

        def report(metrics: dict[str, Any]) -> None:
            history.append({"epoch": len(history) + 1, **metrics})
            on_epoch(history[-1])

        given = {"candidate": candidate, "seed": seed, "on_epoch": report, "stop": stop}
        wanted = inspect.signature(self.function).parameters
        if strange := [name for name in wanted if name not in given]:
            raise UserError(
                f"evaluate: {function_name(self.function)} asks for {strange[0]!r}; it may ask for "
                f"{', '.join(given)}"
            )
        told = self.function(**{name: given[name] for name in wanted})
        if isinstance(told, TrialResult):
            return replace(told, history=told.history or history)
        values = dict(told) if isinstance(told, Mapping) else {"accuracy": told}
        if "accuracy" not in values:
            raise UserError(f"evaluate: {function_name(self.function)} gave no accuracy, but {sorted(values)}")
        numbers = {name: self._number(name, value) for name, value in values.items()}
        if not 0 <= numbers["accuracy"] <= 100 or isinstance(values["accuracy"], bool):
            raise UserError(
                f"evaluate: {function_name(self.function)} gave {values['accuracy']!r} as accuracy, which is "
                "no percentage"
            )
        return TrialResult(accuracy=numbers.pop("accuracy"), values=numbers, history=history)

    def _number(self, name: str, value: Any) -> float:
        try:
            number = float(value)
        except (TypeError, ValueError):
            raise UserError(
                f"evaluate: {function_name(self.function)} gave {value!r} as {name}, which is no number"
            ) from None
        if not math.isfinite(number):
            raise CandidateError(f"{name} became {number}")
        return number


def _latency_key(latency: bool | LatencyTable | None) -> dict[str, Any]:
    """What a trial key says of latency: by which table it was told, or that it was measured here."""
    return {"latency": getattr(latency, "fingerprint", True)} if latency else {}


def _told_latency(table: LatencyTable, candidate: Candidate) -> dict[str, float]:
    """Nothing of a network that the table does not know, such as one drawn to try a supernet."""
    value = table(candidate.architecture)
    return {"latency": value} if math.isfinite(value) else {}


def function_name(function: Any) -> str:
    """`module:name`, by which `import_object` finds it unless it lives in a notebook or a script."""
    named = function if hasattr(function, "__qualname__") else type(function)
    return f"{named.__module__}:{named.__qualname__}"


_REMEMBERED: dict[str, Any] = {}  # functions of this process, which no import finds


def remember(function: Callable[..., Any]) -> str:
    """The function's name; `function_evaluator` finds it by that in this process."""
    _REMEMBERED[function_name(function)] = function
    return function_name(function)


def function_evaluator(name: str, seed: int, latency: LatencyTable | None = None) -> FunctionEvaluator:
    """The evaluator of the function that a configuration names; raises UserError when it is not there."""
    function = _REMEMBERED.get(name) or import_object(name, "evaluate")
    if not callable(function):
        raise UserError(f"evaluate {name}: is no function")
    return FunctionEvaluator(function() if isinstance(function, type) else function, seed, latency)
