"""A search, or a training, on Ray nodes in network namespaces of this machine, with nodes or processes killed.

    python tools/try_ray_nodes.py search [--kills 20] [--every 6] [--set KEY=VALUE ...]     (both as root)
    python tools/try_ray_nodes.py train

Two namespaces with an address each, joined by a pair of virtual devices: the head node with the driver, and a
worker node. Prints one JSON object.

search: the worker's mount namespace hides the prepared data, so that they are brought there through Ray. The
same search is made by the executor serial first. Then the worker node's raylet is killed (SIGKILL) at random
moments and another node started, until the search ends. Tells kills, trials begun anew, seconds, and whether
the two journals are equal but for their clocks.

train: a network is trained by one process, then by one on each node, one of which is killed (SIGKILL) after
the first epoch. Tells the loss of every epoch of both.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from facenas.spaces import PlainArchitecture

HEAD, WORKER = f"head-{os.getpid()}", f"node-{os.getpid()}"
ADDRESSES = {HEAD: "10.200.77.1", WORKER: "10.200.77.2"}
LINK = "facenas0"
PORT = 20_000 + os.getpid() % 10_000  # Ray notes the last address on this machine, and refuses it to another
CLOCKS = ("seconds", "finished", "search_seconds", "speculative")
NODE = ["--num-cpus", "1", "--object-store-memory", "80000000", "--disable-usage-stats", "--block"]
# A lost node is noticed after a second, not after 15.
SOON = {"health_check_period_ms": 300, "health_check_failure_threshold": 3, "health_check_initial_delay_ms": 0}
SEARCH = [
    "search.min_epochs=2", "search.width_epoch_step=0", "search.micro_epochs=2", "space.max_depth=8",
    "space.max_width=16", "space.min_width=6", "recipe.batch_size=16",
]  # fmt: skip


def main() -> None:
    """Sets the namespaces up, searches, kills, compares, and takes all away again."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["search", "train"])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--every", type=float, default=6, help="seconds that a worker works, on average")
    parser.add_argument("--folder", type=Path, help="for the runs; default: a temporary one")
    parser.add_argument("--set", dest="settings", nargs="*", default=SEARCH, help="of the search")
    options = parser.parse_args()
    folder = (options.folder or Path(tempfile.mkdtemp(prefix="ray-nodes-"))).absolute()
    os.environ |= {"FACENAS_CACHE": str(folder / "cache"), "RAY_AUTH_MODE": "disabled"}
    try:
        if options.what == "search" and not (folder / "runs" / "serial" / "best.json").exists():
            command = search_command("serial", options.settings)
            subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
        make_namespaces()
        found = killed_search(folder, options) if options.what == "search" else killed_training(folder)
        print(json.dumps(found))
    finally:
        remove_namespaces()


def killed_search(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """What became of the search by Ray whose worker node was killed again and again."""
    rng, started = random.Random(0), time.perf_counter()
    start_node(HEAD, "--head", "--port", str(PORT), "--system-config", json.dumps(SOON), folder=folder)
    wait_for_head()
    node = start_node(WORKER, "--address", f"{ADDRESSES[HEAD]}:{PORT}", folder=folder)
    joined = time.perf_counter()
    log = (folder / "ray.log").open("w")
    command = [*search_command("ray", options.settings), "--address", f"{ADDRESSES[HEAD]}:{PORT}"]
    driver = subprocess.Popen([*inside(HEAD), *command], cwd=folder, stderr=log, stdout=log)
    kills = 0
    while driver.poll() is None:
        time.sleep(0.5)
        if kills < options.kills and any((folder / "node").rglob("meta.json")):  # it has a worker
            time.sleep(rng.uniform(0, 2) * options.every)
            kill_node(WORKER)
            node.wait()
            shutil.rmtree(folder / "node")  # another machine has none of it
            kills += 1
            node = start_node(WORKER, "--address", f"{ADDRESSES[HEAD]}:{PORT}", folder=folder)
    seconds = time.perf_counter() - joined
    text = (folder / "ray.log").read_text(encoding="utf-8")
    if driver.returncode:
        sys.exit(f"the search ended with {driver.returncode}:\n{text[-3000:]}")
    begun_anew = [int(count) for count in re.findall(r"is lost; (\d+) trials", text)]
    return {
        "kills": kills,
        "nodes_lost_with_a_worker": len(begun_anew),
        "trials_begun_anew": sum(begun_anew),
        "data_brought": "brought to nodes" in text,
        "left_in_the_cache": sorted(path.name for path in (folder / "node").rglob("meta.json")),
        "trials": len(journal(folder / "runs" / "ray")),
        "journals_equal": all(
            journal(folder / "runs" / "ray", name) == journal(folder / "runs" / "serial", name)
            for name in ("trials.jsonl", "metrics.jsonl", "right.jsonl")
        ),
        "serial_seconds": journal(folder / "runs" / "serial", clocks=())[-1]["search_seconds"],
        "ray_seconds": round(seconds, 1),
        "ray_start_seconds": round(joined - started, 1),
    }


def killed_training(folder: Path) -> dict[str, Any]:
    """Losses and seconds of one process, and of two of which one was killed."""
    start_node(HEAD, "--head", "--port", str(PORT), "--system-config", json.dumps(SOON), folder=folder)
    wait_for_head()
    start_node(WORKER, "--address", f"{ADDRESSES[HEAD]}:{PORT}", folder=folder, hide=False)
    (folder / "net.json").write_text(json.dumps(PlainArchitecture.uniform(4, 8, 1, 10).to_json()))
    seconds, killed = {}, 0
    for name, where in (
        ("one", []),
        ("two", ["--executor", "ray", "--nodes", "2", "--address", f"{ADDRESSES[HEAD]}:{PORT}"]),
    ):
        started = time.perf_counter()
        command = [
            sys.executable,
            "-m",
            "facenas.cli",
            "train",
            "net.json",
            "--data",
            "digits",
            "--epochs",
            "4",
        ]
        command += ["--set", "recipe.batch_size=32", "--run", name, *where]
        with (folder / f"{name}.log").open("w") as log:
            driver = subprocess.Popen([*inside(HEAD), *command], cwd=folder, stderr=log, stdout=log)
            while driver.poll() is None:
                time.sleep(0.2)
                if where and not killed and (folder / "runs" / name / "metrics.jsonl").exists():
                    killed = kill(WORKER, "RayTrainWorker")
        if driver.returncode:
            sys.exit((folder / f"{name}.log").read_text(encoding="utf-8")[-3000:])
        seconds[name] = round(time.perf_counter() - started, 1)
    losses = {
        name: [e["train_loss"] for e in journal(folder / "runs" / name, "metrics.jsonl")] for name in seconds
    }
    results = {name: json.loads((folder / "runs" / name / "train.json").read_text()) for name in seconds}
    return {
        "killed": killed,
        "went_on": "goes on from its checkpoint" in (folder / "two.log").read_text(encoding="utf-8"),
        "processes": {name: result["processes"] for name, result in results.items()},
        "train_loss": losses,
        "test_accuracy": {name: result["test_accuracy"] for name, result in results.items()},
        "seconds": seconds,
    }


def search_command(executor: str, settings: list[str]) -> list[str]:
    """A small search on the digits."""
    changed = [part for setting in settings for part in ("--set", setting)]
    start = [sys.executable, "-m", "facenas.cli", "search", "--preset", "demo-digits"]
    return [*start, "--executor", executor, "--run", executor, *changed]


def journal(run: Path, name: str = "trials.jsonl", clocks: Sequence[str] = CLOCKS) -> list[dict[str, Any]]:
    """Its lines without clocks."""
    lines = map(json.loads, (run / name).read_text(encoding="utf-8").splitlines())
    return [{key: value for key, value in line.items() if key not in clocks} for line in lines]


def inside(namespace: str) -> list[str]:
    """What is put before a command to run it there."""
    return ["ip", "netns", "exec", namespace]


def start_node(namespace: str, *arguments: str, folder: Path, hide: bool = True) -> subprocess.Popen[bytes]:
    """`ray start` in a namespace; the worker's has a cache of its own, and need not see the driver's."""
    environment = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0", "GLOO_SOCKET_IFNAME": LINK}
    ray = [sys.executable, "-m", "ray.scripts.scripts", "start", *arguments]
    ray += ["--node-ip-address", ADDRESSES[namespace], *NODE]
    command = [*inside(namespace), *ray]
    if namespace == WORKER and hide:
        hidden = folder / "cache"
        environment["FACENAS_CACHE"] = str(folder / "node")
        mount = f'mount -t tmpfs none "{hidden}" && exec "$@"'
        command = [*inside(namespace), "unshare", "--mount", "sh", "-c", mount, "sh", *ray]
    with (folder / f"{namespace.partition('-')[0]}.log").open("a") as log:
        return subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)


def processes(namespace: str) -> list[psutil.Process]:
    """All that run there."""
    found = subprocess.run(["ip", "netns", "pids", namespace], capture_output=True, text=True, check=False)
    return [psutil.Process(int(pid)) for pid in found.stdout.split() if psutil.pid_exists(int(pid))]


def kill(namespace: str, word: str = "") -> int:
    """SIGKILL to the processes there whose command has this word in it; gives how many they were."""
    found = 0
    for process in processes(namespace):
        with suppress(psutil.Error):  # it ends by itself
            if word in " ".join(process.cmdline()):
                process.kill()
                found += 1
    return found


def kill_node(namespace: str) -> None:
    """As a spot machine or a power cut would end it: the raylet first, then what it had started."""
    kill(namespace, "raylet/raylet")
    while kill(namespace):
        time.sleep(0.1)


def make_namespaces() -> None:
    """Two, with a pair of virtual devices between them."""
    for name in ADDRESSES:
        ip("netns", "add", name)
        ip("-n", name, "link", "set", "lo", "up")
    ip("link", "add", LINK, "netns", HEAD, "type", "veth", "peer", "name", LINK, "netns", WORKER)
    for name in ADDRESSES:
        ip("-n", name, "addr", "add", f"{ADDRESSES[name]}/24", "dev", LINK)
        ip("-n", name, "link", "set", LINK, "up")
        # Ray finds out its own address by the route to another machine.
        ip("-n", name, "route", "add", "default", "via", ADDRESSES[WORKER if name == HEAD else HEAD])


def remove_namespaces() -> None:
    """With all that runs in them."""
    for name in ADDRESSES:
        while kill(name):
            time.sleep(0.1)
        subprocess.run(["ip", "netns", "del", name], check=False, stderr=subprocess.DEVNULL)


def ip(*arguments: str) -> None:
    """Runs iproute2's `ip`."""
    subprocess.run(["ip", *arguments], check=True)


def wait_for_head() -> None:
    """Until the head node takes connections."""
    probe = f"import socket; socket.create_connection(('{ADDRESSES[HEAD]}', {PORT}), 1)"
    for _ in range(60):
        if not subprocess.run(
            [*inside(HEAD), sys.executable, "-c", probe], check=False, stderr=subprocess.DEVNULL
        ).returncode:
            return
        time.sleep(1)
    sys.exit("the head node did not start")


if __name__ == "__main__":
    main()
