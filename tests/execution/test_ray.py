"""The executor `ray` on a real Ray of two nodes, one of which is killed, and again on a cluster of its own."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

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
    """Two nodes with a core each."""
    from ray.cluster_utils import Cluster

    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
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
    for spec in specs:
        executor.submit(spec)
    found = results(executor)
    with threads(1):
        for spec in specs:
            assert unclocked(found[spec.key]) == unclocked(run_trial(make_evaluator(), spec))
