"""Contract suites: what a strategy, space, evaluator, executor, head or embedder must do to fit the rest.

Each `check_...` is a plain function that raises AssertionError with a sentence; call it from your test:

    from facenas.testing import check_strategy

    def test_my_strategy_keeps_the_contract():
        check_strategy(MyStrategy(steps=5), my_space.bind(ImageFacts(3, 10, 32)))

The project's own members of every registry are checked by the same functions.
"""

from __future__ import annotations

import json
import pickle
import random
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from facenas.config import Config
from facenas.errors import CandidateError, SearchStoppedError, StoppedError
from facenas.execution import Evaluator, Executor, TrialSpec
from facenas.spaces import Architecture, PlainArchitecture, SearchSpace, fingerprint, from_json
from facenas.strategies import Budget, Candidate, Decision, Strategy, TrialResult

Judge = Callable[[Candidate], TrialResult]


# Strategy.


def check_strategy(
    strategy: Strategy,
    space: SearchSpace[Any],
    judge: Judge | None = None,
    most_trials: int = 10_000,
) -> None:
    """A strategy with its settings, unbound, over a bound space: determinism, foresight, an end, a result.

    judge: what a candidate's trial gives; left out, an accuracy drawn from the architecture's fingerprint.
    """
    judge = judge or drawn_result
    assert isinstance(strategy.settings, Config), "settings are a Config, so that run.yaml can hold them"
    again = type(strategy.settings).model_validate(strategy.settings.model_dump(mode="json"))
    assert again == strategy.settings, "settings do not survive run.yaml"
    before = random.getstate()
    first, second = strategy.bind(space, 7), strategy.bind(space, 7)
    trials = 0
    while wanted := first.ask():
        assert trials < most_trials, f"it asks for more than {most_trials} trials: does it ever end?"
        assert first.ask() == wanted, "asking twice gives another answer"
        _check_foresight(first)
        assert first.ask() == wanted, "looking ahead changed what is asked for"
        candidate = wanted[0]
        _check_candidate(candidate)
        assert second.ask()[0] == candidate, "told the same results, it asks for another candidate"
        result = judge(candidate)
        decision = first.tell(result)
        assert isinstance(decision, Decision), "tell returns a Decision"
        assert isinstance(first.note, str), "note is a text"
        assert second.tell(result) == decision, "told the same results, it decides otherwise"
        trials += 1
    assert trials, "it asks for nothing at all"
    _check_result(first)
    assert first.result() == second.result(), "told the same results, it finds something else"
    assert strategy.bind(space, 7).ask(), "it can be bound once only: begin must set up all state anew"
    assert random.getstate() == before, "it draws from the global generator; use random.Random(self.seed)"


def drawn_result(candidate: Candidate) -> TrialResult:
    """An accuracy between 0 and 100 that only the architecture decides."""
    digest = fingerprint(candidate.architecture.to_json())
    return TrialResult(accuracy=int(digest[:8], 16) / 0xFFFFFFFF * 100, train_accuracy=50.0)


def _check_candidate(candidate: Candidate) -> None:
    assert isinstance(candidate, Candidate), "ask gives a list of Candidates"
    assert candidate.phase, "a candidate needs a phase: reports group by it"
    assert 0 < candidate.budget.data_fraction <= 1, "data_fraction lies within 0 and 1"
    assert candidate.budget.epochs >= 0, "epochs are a whole number from 0"
    arch = candidate.architecture
    assert from_json(json.loads(json.dumps(arch.to_json()))) == arch, "JSON loses the architecture"


def _check_foresight(strategy: Strategy) -> None:
    ahead = strategy.look_ahead(3, lambda _: None)
    assert len(ahead) <= 3, "look_ahead gives more than it was asked for"
    assert all(isinstance(candidate, Candidate) for candidate in ahead)


def _check_result(strategy: Strategy) -> None:
    found = strategy.result()
    assert {"architecture", "accuracy"} <= found.keys(), "result needs architecture and accuracy"
    json.dumps(found, allow_nan=False)
    if found["architecture"] is not None:
        from_json(found["architecture"])
    if "front" in found:
        for member in found["front"]:
            needed = {"id", "accuracy", "architecture", *found["objectives"]}
            assert needed <= member.keys(), f"a member of the front needs {sorted(needed)}"


# Evaluator.


def check_evaluator(evaluator: Evaluator, candidate: Candidate, accuracy: bool = True) -> None:
    """An evaluator on one candidate: its key, its numbers, twice the same, a wish to stop, pickling.

    accuracy: whether the result lies within 0 and 100 percent.
    """
    identity = evaluator.identity(candidate)
    assert json.loads(json.dumps(identity, allow_nan=False)) == identity, "identity is plain JSON"
    spec = TrialSpec(candidate, identity)
    epochs: list[dict[str, Any]] = []
    first = evaluator(candidate, spec.seed, epochs.append, lambda: False)
    second = evaluator(candidate, spec.seed, lambda _: None, lambda: False)
    assert isinstance(first, TrialResult), "it gives a TrialResult"
    assert first.accuracy == second.accuracy, "the same seed gives another accuracy"
    assert not accuracy or 0 <= first.accuracy <= 100, "accuracy is in percent"
    assert [epoch["epoch"] for epoch in epochs] == list(range(1, len(epochs) + 1)), (
        "epochs are reported in order, counted from 1"
    )
    json.dumps(first.to_json(), allow_nan=False)
    copy = pickle.loads(pickle.dumps(evaluator))
    assert copy.identity(candidate) == identity, "another process would take it for another one"
    if epochs:
        try:
            evaluator(candidate, spec.seed, lambda _: None, lambda: True)
        except StoppedError:
            return
        raise AssertionError("told to stop, it goes on: raise StoppedError once stop() is true")


# Executor.


def check_executor(build: Callable[..., Executor]) -> None:
    """`build(evaluator, on_epoch)` gives the executor: results, queue, cancelling, faults, closing."""
    with tempfile.TemporaryDirectory() as folder:
        for check in (
            _check_results_and_epochs,
            _check_cancelling,
            _check_errors_propagate,
            _check_files_get_a_second_try,
            _check_memory_beside_others,
        ):
            check(build, Path(folder))


@dataclass
class Probe(Evaluator):
    """Does what a candidate's reason says: `ok`, `long`, `fails`, `breaks`, `disk once`, `disk`, `crowded`."""

    folder: Path

    def identity(self, candidate: Candidate) -> dict[str, Any]:
        """What the candidate is to do."""
        return {"does": candidate.reason}

    def __call__(
        self,
        candidate: Candidate,
        seed: int,
        on_epoch: Callable[[dict[str, Any]], None],
        stop: Callable[[], bool],
    ) -> TrialResult:
        """Does it."""
        does, marker = candidate.reason, self.folder / candidate.reason
        if does == "fails":
            raise CandidateError("it diverged")
        if does == "breaks":
            raise TypeError("a mistake of whoever wrote the space")
        if does == "disk" or (does == "disk once" and not marker.exists()):
            marker.touch()
            raise OSError(5, "the disk is gone")
        if does == "crowded":
            with marker.open("a") as file:
                file.write("x")
            raise MemoryError
        deadline = time.monotonic() + (60 if does == "long" else 0)
        while time.monotonic() < deadline:
            if stop():
                raise StoppedError
            time.sleep(0.01)
        for epoch in range(candidate.budget.epochs):
            on_epoch({"epoch": epoch + 1, "accuracy": 50.0})
        return TrialResult(accuracy=50.0, values={"seed": float(seed % 1000)})


def _spec(does: str, probe: Probe, epochs: int = 2) -> TrialSpec:
    arch: Architecture = PlainArchitecture.uniform(3, 4, 1, 10)
    candidate = Candidate(arch, Budget(epochs), "check", does)
    return TrialSpec(candidate, probe.identity(candidate))


def _all_results(executor: Executor) -> dict[str, TrialResult]:
    found: list[TrialResult] = []
    while results := executor.wait():
        found += results
    executor.close()
    executor.close()  # twice is no error
    return {result.key: result for result in found}


def _check_results_and_epochs(build: Callable[..., Executor], folder: Path) -> None:
    epochs: list[tuple[str, int]] = []
    probe = Probe(folder)
    executor = build(probe, lambda key, metrics: epochs.append((key, metrics["epoch"])))
    assert executor.wait() == [], "nothing is under way, and wait gives something"
    good, bad, dropped = _spec("ok", probe), _spec("fails", probe), _spec("ok", probe, 3)
    for spec in (good, bad, dropped):
        executor.submit(spec)
    executor.cancel(dropped.key)
    executor.cancel("a key that was never submitted")
    results = _all_results(executor)
    assert {good.key, bad.key} <= results.keys() <= {good.key, bad.key, dropped.key}
    assert [epoch for key, epoch in epochs if key == good.key] == [1, 2], "epochs are not passed on"
    assert results[good.key].values == {"seed": float(good.seed % 1000)}, "the seed is the trial key's"
    failed = results[bad.key]
    assert (failed.status, failed.accuracy) == ("failed", 0), "a candidate's own fault is a failed result"
    assert failed.reason == "CandidateError: it diverged"


def _check_cancelling(build: Callable[..., Executor], folder: Path) -> None:
    probe = Probe(folder)
    executor = build(probe)
    long, short = _spec("long", probe), _spec("ok", probe)
    executor.submit(long)
    executor.cancel(long.key)
    executor.submit(short)
    assert _all_results(executor).keys() == {short.key}, "a cancelled trial does not free its slot"
    executor = build(probe)
    executor.submit(short)
    executor.cancel(short.key)
    executor.submit(short)
    assert _all_results(executor)[short.key].status == "ok", "a cancelled trial cannot be asked for again"


def _check_errors_propagate(build: Callable[..., Executor], folder: Path) -> None:
    probe = Probe(folder)
    executor = build(probe)
    executor.submit(_spec("breaks", probe))
    told = _error_of(executor, TypeError)
    assert told == "a mistake of whoever wrote the space", "a programming error counts as a result"


def _check_files_get_a_second_try(build: Callable[..., Executor], folder: Path) -> None:
    probe = Probe(folder)
    executor = build(probe)
    spec = _spec("disk once", probe)
    executor.submit(spec)
    assert _all_results(executor)[spec.key].status == "ok", "a passing fault of the disk is final"
    executor = build(probe)
    executor.submit(_spec("disk", probe))
    told = _error_of(executor, SearchStoppedError)
    assert "resume the run" in told, "a fault of the machine counts as a result"


def _error_of(executor: Executor, kind: type[Exception]) -> str:
    """What `wait` raises of this kind, in words; empty when it raises nothing."""
    try:
        executor.wait()
    except kind as error:
        return str(error)
    finally:
        executor.close()
    return ""


def _check_memory_beside_others(build: Callable[..., Executor], folder: Path) -> None:
    """Alone, out of memory is the candidate's fault; beside others it is tried again first."""
    probe = Probe(folder)
    executor = build(probe)
    spec = _spec("crowded", probe)
    executor.submit(spec)
    result = _all_results(executor)[spec.key]
    assert (result.status, result.reason) == ("failed", "MemoryError: ")
    tries = len((folder / "crowded").read_text())
    (folder / "crowded").unlink()
    assert tries in (1, 2), "out of memory is tried again once, alone, when others may have been running"


# SearchSpace.


def check_search_space(space: Any, members: int = 20, built: int = 3, seed: int = 0) -> None:
    """Whether `space`, bound to images, and its architectures keep what strategies and trainings rest on.

    members: how many are drawn, changed and described; built: how many of them become modules, which must count
    as told, give finite outputs of the right shape, draw their weights from the seed alone, and give every
    parameter a gradient. Of a kind that says how it adapts to other images, one is adapted and built.
    """
    from facenas.spaces import SPACES

    name = SPACES.name_of(type(space))
    assert SPACES.get(name) is type(space), f"{name} is not what the registry finds by that name"
    assert pickle.loads(pickle.dumps(space)) == space, f"{space} is another one after pickling"
    state = random.getstate()
    assert space.start() == space.start(), "start gives another architecture each time"
    drawn = [space.start(), *(_draw(space, random.Random(f"{seed} {i}")) for i in range(members))]
    found = [*drawn, *_changed(space, drawn, seed)]
    assert random.getstate() == state, "the space draws from the global random source"
    for arch in found:
        check_architecture(space, arch)
    chosen = sorted(found, key=lambda arch: arch.count_parameters())
    for number in range(built):
        check_module(chosen[number * (len(chosen) - 1) // max(1, built - 1)], space.images)
    check_adapted(chosen[len(chosen) // 2], space.images)


def _draw(space: Any, rng: random.Random) -> Any:
    state = rng.getstate()
    arch = space.sample(rng)
    rng.setstate(state)
    assert space.sample(rng) == arch, "sample does not depend on its rng alone"
    return arch


def _changed(space: Any, drawn: list[Any], seed: int) -> list[Any]:
    """What mutation and crossover make of members, where the space has them."""
    found = []
    for number, (one, other) in enumerate(pairwise(drawn)):
        for move, parents in (("mutate", (one,)), ("crossover", (one, other))):
            if hasattr(space, move):
                children = [
                    getattr(space, move)(*parents, random.Random(f"{seed} {move} {number}")) for _ in range(2)
                ]
                assert children[0] == children[1], f"{move} does not depend on its rng alone"
                found.append(children[0])
    if hasattr(space, "mutate"):
        assert any(m not in drawn for m in found), "mutation never leaves what was drawn"
    return found


def check_architecture(space: Any, arch: Any) -> None:
    """Whether `arch` is a member of `space`, and describes itself as JSON and for other processes."""
    assert isinstance(arch, space.Architecture), f"{arch} is no {space.Architecture.__name__}"
    _check_described(arch, space.images)
    assert arch.adapted(space.images) == arch, f"{arch}: adapted to its own images, it is another one"
    if hasattr(space, "encode"):
        row, (lower, upper) = space.encode(arch), space.bounds()
        within = all(a <= gene <= b for a, gene, b in zip(lower, row, upper, strict=True))
        assert within, f"{arch}: its row {row} leaves the bounds"
        assert space.decode(row) == arch, f"{arch}: its row means another architecture"


def check_adapted(arch: Any, images: Any) -> None:
    """Whether `arch`, for such images, becomes a network for larger ones of other channels and classes.

    It must be built, and its tensors have the names they had, so that trained weights find their place. A kind
    without a word on that, and faces, whose images are all alike, pass.
    """
    from facenas.models.build import skeleton
    from facenas.spaces import ImageFacts
    from facenas.spaces.base import LARGE

    if type(arch).adapted is Architecture.adapted or images.task == "face":
        return
    channels, size = 1 if images.in_channels > 1 else 3, max(LARGE, 2 * images.image_size)
    other = ImageFacts(channels, images.num_classes + 2, size)
    changed = arch.adapted(other)
    _check_described(changed, other)
    assert changed.adapted(other) == changed, f"{changed}: adapted to its own images, it is another one"
    names, known = (set(skeleton(one).state_dict()) for one in (changed, arch))
    assert names == known, f"{arch}: adapted, its tensors have other names: {sorted(names ^ known)}"
    check_module(changed, other)


def _check_described(arch: Any, images: Any) -> None:
    from facenas.spaces import fingerprint, from_json

    assert arch.task == images.task, f"{arch} is for {arch.task}, the images for {images.task}"
    ends = (arch.in_channels, arch.num_classes)
    assert ends == (images.in_channels, images.num_classes), f"{arch} has channels, classes {ends}"
    tree = arch.to_json()
    again = from_json(json.loads(json.dumps(tree, allow_nan=False)))
    assert again == arch, f"{arch} is another one after a journey through JSON: {again}"
    assert hash(again) == hash(arch), f"{arch} and its equal have different hashes"
    assert fingerprint(again.to_json()) == fingerprint(tree), f"{arch}: its fingerprint changes"
    assert pickle.loads(pickle.dumps(arch)) == arch, f"{arch} is another one after pickling"
    assert arch.summary(), f"{arch} has no summary"


def check_module(arch: Any, images: Any) -> None:
    """Whether the network of `arch` is what `arch` says, and can be trained on such images."""
    import torch
    from torch.nn import functional as F

    state = torch.get_rng_state()
    module, again, other = (arch.build(seed) for seed in (1, 1, 2))
    assert torch.equal(state, torch.get_rng_state()), f"{arch}: build moves torch's own generator"
    weights, same, others = (dict(net.named_parameters()) for net in (module, again, other))
    for name, value in weights.items():
        assert torch.equal(value, same[name]), f"{arch}: {name} does not depend on the seed alone"
    moved = any(not torch.equal(value, others[name]) for name, value in weights.items())
    assert moved, f"{arch}: another seed gives the same weights"
    _check_counts(arch, images.image_size)

    outputs = images.num_classes or arch.embedding
    shape = (4, images.in_channels, images.image_size, images.image_size)
    batch = torch.randn(shape, generator=torch.Generator().manual_seed(3))
    batch = batch.to(memory_format=torch.channels_last)
    result = module.train()(batch)
    assert result.shape == (4, outputs), f"{arch} gives {tuple(result.shape)}, not (4, {outputs})"
    F.cross_entropy(result, torch.arange(4) % outputs).backward()  # type: ignore[no-untyped-call]
    for name, value in weights.items():
        assert value.grad is not None, f"{arch}: {name} gets no gradient"
        assert torch.isfinite(value.grad).all(), f"{arch}: {name} gets a gradient that is not finite"
    torch.optim.SGD(module.parameters(), lr=0.01).step()
    with torch.inference_mode():
        result, alone = module.eval()(batch), module(batch[:1])
    assert torch.isfinite(result).all(), f"{arch} gives what is not finite after a step of training"
    close = torch.allclose(result[:1], alone, rtol=1e-3, atol=1e-3)
    assert close, f"{arch}: images of a batch see each other in evaluation"


def _check_counts(arch: Any, image_size: int) -> None:
    from facenas.models import build

    told, counted = arch.count_parameters(), build.count_parameters(arch)
    assert told == counted, f"{arch} tells {told} parameters, its module has {counted}"
    told, counted = arch.count_macs(image_size), build.count_macs(arch, image_size)
    assert told == counted, f"{arch} tells {told} multiply-accumulates, its module does {counted}"
    told, counted = arch.count_memory(image_size), build.count_memory(arch, image_size)
    # Squeeze-and-excitation and sums hold small vectors that a formula may leave out.
    assert abs(told - counted) <= 0.01 * counted, f"{arch} tells {told} bytes, measured are {counted}"


# Head.


def check_head(head: type[Any], embedding: int = 16, identities: int = 7, images: int = 12) -> None:
    """A class of heads with its default settings: shapes, float32, draws, gradients, state."""
    import torch

    z = torch.randn(images, embedding, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(images) % identities
    before = torch.get_rng_state()
    first, second, other = (head(embedding, identities, seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before), "it draws from the global generator"
    weights = [list(built.parameters()) for built in (first, second, other)]
    assert all(map(torch.equal, *weights[:2])), "the same seed gives other weights"
    assert not all(map(torch.equal, weights[0], weights[2])), "another seed gives the same weights"

    logits = first(z.requires_grad_(), labels)
    assert logits.shape == (images, identities), "logits are (images, identities)"
    assert logits.dtype == torch.float32, "logits are float32"
    assert torch.isfinite(logits).all(), "logits are finite"
    assert torch.equal(second(z.detach(), labels), logits), "the same input gives other logits"
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert first(z.detach().bfloat16(), labels).dtype == torch.float32, "it computes in float32"

    loss = torch.nn.functional.cross_entropy(logits, labels)
    for gradient in torch.autograd.grad(loss, [z, *first.parameters()]):  # each must get one
        assert torch.isfinite(gradient).all(), "gradients are finite"
        assert gradient.abs().sum() > 0, "gradients are not all zero"
    # Zero embeddings occur in the first steps of a training: they must not become NaN.
    assert torch.isfinite(first(torch.zeros(images, embedding), labels)).all()

    other.load_state_dict(first.state_dict())
    assert torch.equal(other(z.detach(), labels), first(z.detach(), labels)), (
        "its state_dict does not hold all that decides its logits: a resumed training would differ"
    )
    settings = type(first.settings).model_validate(first.settings.model_dump(mode="json"))
    assert settings == first.settings, "settings do not survive run.yaml"


# Embedder.


def check_embedder(net: Any, images: int = 11) -> None:
    """Whatever `facenas.evaluate` takes as a network: finite rows, the same in any order and thread."""
    from concurrent.futures import ThreadPoolExecutor

    import numpy as np

    from facenas.evaluation.embedders import embedder_of

    pixels = np.random.default_rng(2).integers(0, 256, (images, 112, 112, 3), np.uint8)
    pixels.setflags(write=False)
    with embedder_of(net) as embedder:
        assert embedder.name, "it needs a name"
        assert len(embedder.fingerprint) == 64, "its fingerprint is a sha256 in hex"
        for count in (0, 1, images):
            rows = embedder(pixels[:count])
            assert rows.shape == (count, embedder.size), "rows are (images, size)"
            assert rows.dtype == np.float32, "rows are float32"
            assert np.isfinite(rows).all(), "rows are finite"
        assert rows.any(axis=1).all(), "an embedding is all zero: it has no direction"
        with ThreadPoolExecutor(3) as pool:
            for again in pool.map(embedder, [pixels] * 3):
                assert np.array_equal(again, rows), "the same images give other rows"
        # Another size of batch may round otherwise, no more.
        for order in (np.arange(images)[::-1], np.array([4, 4, 9]), np.array([6])):
            difference = np.abs(embedder(pixels[order]) - rows[order]).max()
            assert difference <= 1e-5 * np.abs(rows).max(), "an image minds its neighbors"
