"""The executor `ray` on a real Ray of two nodes with a core each; nodes and processes are really killed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import ROOT, SMALL_SEARCH

import facenas
from facenas.errors import SearchStoppedError, UserError
from facenas.execution import Evaluator, TrialSpec, run_trial
from facenas.execution import ray as ray_executor
from facenas.execution.ray import RayExecutor
from facenas.spaces import PlainArchitecture
from facenas.strategies import Budget, Candidate, TrialResult
from facenas.testing import check_executor

ray = pytest.importorskip("ray", reason="needs Ray: pip install 'facenas[ray]'")

NODE = {"num_cpus": 1, "include_dashboard": False, "object_store_memory": 80_000_000}
# A lost node is noticed after a second, not after 15.
SOON = {"health_check_period_ms": 300, "health_check_failure_threshold": 3, "health_check_initial_delay_ms": 0}


@pytest.fixture(scope="module")
def cluster():
    from ray.cluster_utils import Cluster

    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled"}
    started = Cluster(initialize_head=True, head_node_args={**NODE, "_system_config": SOON})
    started.add_node(**NODE)
    yield started
    started.shutdown()


@pytest.fixture
def build(cluster):
    """Builds the executor; what a test leaves open is closed."""
    built = []

    def build(evaluator, on_epoch=lambda *_: None, **options):
        built.append(RayExecutor(evaluator, on_epoch, address=cluster.address, **options))
        return built[-1]

    yield build
    for executor in built:
        executor.close()


@dataclass
class Patient(Evaluator):
    """Trials that go on until the folder has a file `go`, and tell where they run."""

    folder: Path
    seen_by_all: tuple[Path, ...] = ()

    def identity(self, candidate):
        return {"name": candidate.reason}

    def shared(self):
        return self.seen_by_all

    def __call__(self, candidate, seed, on_epoch, stop):
        node = ray.get_runtime_context().get_node_id()
        on_epoch({"epoch": 1, "node": node, "pid": os.getpid()})
        while not (self.folder / "go").exists():
            stop()
            time.sleep(0.02)
        return TrialResult(accuracy=50.0)


def spec(name):
    arch = PlainArchitecture.uniform(3, 4, 1, 10)
    return TrialSpec(Candidate(arch, Budget(1), "p", name), {"name": name})


def results(executor):
    found = {}
    while finished := executor.wait():
        found |= {result.key: result for result in finished}
    return found


def unclocked(result):
    return {**result.to_json(), "seconds": None}


def test_the_contract(build):
    check_executor(build)


def test_a_training_gives_the_same_bits(build, make_spec, make_evaluator):
    from facenas.device import threads

    executor = build(make_evaluator())
    assert executor.slots == 2
    specs = [make_spec(width, epochs=2) for width in (4, 6)]
    for one in specs:
        executor.submit(one)
    found = results(executor)
    with threads(1):
        for one in specs:
            assert unclocked(found[one.key]) == unclocked(run_trial(make_evaluator(), one))


def test_a_lost_node_costs_its_trial_alone_and_a_new_one_gets_work(build, cluster, tmp_path):
    seen, nodes = [], {node.node_id: node for node in cluster.worker_nodes}

    def on_epoch(key, metrics):
        seen.append((key, metrics["node"]))
        if len(seen) == 2:  # each node has a trial
            (lost,) = {node for _, node in seen} & nodes.keys()
            cluster.remove_node(nodes[lost], allow_graceful=False)  # SIGKILL
            cluster.add_node(**NODE)
        if len(seen) == 3:
            (tmp_path / "go").touch()

    executor = build(Patient(tmp_path), on_epoch)
    specs = [spec("one"), spec("two")]
    for one in specs:
        executor.submit(one)
    found = {}
    while len(found) < 2:  # empty when the new node is there
        found |= {result.key: result.status for result in executor.wait()}
    assert {*found.values()} == {"ok"}
    again = [key for key, node in seen if node in nodes]
    assert [key for key, _ in seen[2:]] == again, "only what ran on the lost node begins anew"
    assert seen[2][1] not in nodes
    assert executor.slots == 2


def test_a_node_that_does_not_see_the_folder_of_weights_is_refused(build, tmp_path):
    (told := tmp_path / "run.yaml").touch()
    executor = build(Patient(tmp_path, (told,)))
    told.unlink()
    executor.submit(spec("one"))
    with pytest.raises(UserError, match=r"run\.yaml is missing there, .* are weights .* all nodes see"):
        executor.wait()


def test_a_worker_that_dies_is_tried_once_more(build, tmp_path):
    def kill(key, metrics):
        os.kill(metrics["pid"], signal.SIGKILL)

    executor = build(Patient(tmp_path), kill, workers=1)
    executor.submit(spec("one"))
    with pytest.raises(SearchStoppedError, match=r"died 2 times \(.*\).*resume the run"):
        executor.wait()


def test_without_nodes_the_search_stops_after_a_while(build, monkeypatch, tmp_path):
    monkeypatch.setattr(ray_executor, "_PATIENCE", 1.0)
    executor = build(Patient(tmp_path), num_cpus=3, num_gpus=0)  # more than any node has
    executor.submit(spec("one"))
    with pytest.raises(SearchStoppedError, match=r"no node .* has had room for a trial \(num_cpus 3\)"):
        executor.wait()


@contextmanager
def another_node(cluster, **variables):
    """A third node, which has other variables in its environment."""
    node = cluster.add_node(**NODE, env_vars=variables)
    try:
        yield node
    finally:
        cluster.remove_node(node)


@pytest.fixture
def other(tmp_path, monkeypatch):
    """A folder with a facenas that has been changed."""
    folder = tmp_path / "other"
    shutil.copytree(ROOT / "facenas", folder / "facenas", ignore=shutil.ignore_patterns("__pycache__"))
    with (folder / "facenas" / "files.py").open("a") as file:
        file.write("# changed\n")
    monkeypatch.chdir(tmp_path)  # Ray's workers import from the driver's working directory first
    return folder


def test_another_facenas_is_told_before_any_trial_runs_there(build, cluster, tmp_path, other):
    with another_node(cluster, PYTHONPATH=str(other)):
        executor = build(Patient(tmp_path))
        executor.submit(spec("one"))
        with pytest.raises(
            UserError, match=r"node .*: has facenas .*sources \w{8}\), but the driver runs with"
        ):
            executor.wait()


def test_a_node_that_joins_later_with_another_facenas_is_left_out(build, cluster, tmp_path, other, monkeypatch):
    def told(sentence, *about):
        assert "it is left out" in sentence
        (tmp_path / "go").touch()

    monkeypatch.setattr(ray_executor.log, "warning", told)
    with ExitStack() as nodes:

        def on_epoch(key, metrics):
            nodes.enter_context(another_node(cluster, PYTHONPATH=str(other)))

        executor = build(Patient(tmp_path), on_epoch)
        executor.submit(spec("one"))
        while not (finished := executor.wait()):  # empty when the new node is there
            pass
        assert [result.status for result in finished] == ["ok"]


def test_a_search_finds_what_a_serial_one_finds(cluster, tmp_path):
    small = [*SMALL_SEARCH, "data.data_fraction=0.2", "search.micro=false"]
    address = f"execution.address={cluster.address}"
    facenas.search("demo-digits", executor="ray", settings=[*small, address], run=tmp_path / "ray")
    facenas.search("demo-digits", executor="serial", settings=small, run=tmp_path / "serial")
    for name in ("trials.jsonl", "right.jsonl", "metrics.jsonl"):
        one, other = (timeless(tmp_path / run / name) for run in ("ray", "serial"))
        assert one == other


def timeless(path):
    clocks = ("seconds", "search_seconds", "finished", "speculative", "images_per_second")
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in clocks} for line in lines]


def test_a_training_on_more_nodes_than_there_are_is_refused(cluster, tmp_path):
    """Two nodes are tried by `tools/try_ray_nodes.py train`: importing Ray Train takes too long here."""
    arch, options = PlainArchitecture.uniform(3, 4, 1, 10), {"address": cluster.address, "data": "digits"}
    with pytest.raises(UserError, match="nodes 3: the cluster has 2; start others, or ask for fewer"):
        facenas.train(arch, run=tmp_path / "three", nodes=3, **options)
    with pytest.raises(UserError, match="say on how many of its nodes to train"):
        facenas.train(arch, run=tmp_path / "none", **options)


SCRIPT = """
import facenas
from dense import DenseSpace

def measure(candidate, seed):
    return 50 + seed % 10

found = facenas.search(
    space=DenseSpace(), strategy=facenas.strategies.RandomSearch(population=4, generations=1),
    evaluate=measure, executor="ray", workers=1, run="own",
)
print(found.trials)
"""


def test_what_a_script_defines_runs_on_a_ray_of_its_own_which_ends_with_it(tmp_path):
    shutil.copy(ROOT / "tests" / "spaces" / "own_space.py", tmp_path / "dense.py")
    (tmp_path / "search.py").write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, "search.py"], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "4\n"
