"""Trials on a Ray cluster: a worker process for every slot of its nodes; the journal stays with the driver.

Each node says first what it has: another facenas, torch, torchvision, numpy or Python ends the search with a
sentence. Data that it does not see are brought to it. A node that is lost costs the trials that ran there,
which begin anew elsewhere; nodes that join get workers of their own. The only file that imports ray.
"""

from __future__ import annotations

import logging
import math
import os
import queue
import re
import shutil
import signal
import socket
import sys
import sysconfig
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from facenas import device
from facenas.errors import SearchStoppedError, UserError, first_line
from facenas.execution import shipping
from facenas.execution.base import EXECUTORS, Evaluator, OnEpoch
from facenas.execution.gpu import Card
from facenas.execution.pool import Pool, PoolWorker, RemoteError, Task
from facenas.execution.worker import Place, work

log = logging.getLogger(__name__)

_PER_CARD = 4  # trials, as the executor `gpu` has them
_LOSSES = 10  # nodes that one trial may lose: perhaps it is what kills them
_FAILURES = 3  # of a training that goes on, without an epoch in between
_STARTS = 5  # workers in a row that may die before they have begun
_PATIENCE = 600.0  # seconds to wait for a node, when there is none that a trial fits on
_BUSY = 30.0  # seconds without a worker, though there is room for one, until that is told
_LOOK = 1.0  # seconds between two looks at what nodes there are
_STORE = 100_000_000  # bytes of the object store of a Ray on this machine alone: nothing is brought anywhere


@EXECUTORS.register("ray")
class RayExecutor(Pool):
    """`workers` trials at once over all nodes; None: as many as fit on the nodes that are there.

    Raises UserError when Ray is not installed or the cluster cannot be reached, and by `wait` when a node has
    other versions or other data; SearchStoppedError when there is no node any more.
    """

    takes = ("address", "num_cpus", "num_gpus", "ship_limit")

    def __init__(
        self,
        evaluator: Evaluator,
        on_epoch: OnEpoch = lambda _key, _metrics: None,
        workers: int | None = None,
        import_main: bool = False,
        address: str | None = None,
        num_cpus: float = 1,
        num_gpus: float | None = None,
        ship_limit: int = 2_000_000_000,
    ) -> None:
        """Joins the cluster, or starts a Ray on this machine. What a script defines needs no import here."""
        super().__init__(on_epoch)
        if getattr(evaluator, "latency", False) is True:  # a table of the target's figures needs no clock
            raise UserError(_NO_CLOCK)
        self._session = session = _Session(address, (workers or 0) * num_cpus)
        try:
            gpus = self._share_of_card(num_cpus) if num_gpus is None else num_gpus
            shared = round(1 / gpus) if 0 < gpus < 1 and evaluator.shares_process else 1
            place = Card(min(shared, workers or shared)) if gpus else Place()
            self._place, self._workers_wanted = place, math.ceil(workers / place.slots) if workers else None
            self._needs = {"num_cpus": num_cpus * place.slots, "num_gpus": gpus * place.slots}
            self._most = workers or sys.maxsize
            self.slots = sys.maxsize
            self._ship_limit = ship_limit
            self._files = {path.absolute(): shipping.stamp(path) for path in evaluator.files()}
            self._shared = {path.absolute(): shipping.stamp(path) for path in evaluator.shared()}
            self._parcels: dict[Path, shipping.Parcel] = {}  # of what some node did not see
            self._modules = _own_modules(session.ray.put)
            self._evaluator = session.ray.put(session.pickle(evaluator))
            self._actors = _actor_class()
            self._versions = self._actors.versions()
            # With no card of its own, a process must not take one of somebody else's trial.
            hidden = {} if gpus else {"CUDA_VISIBLE_DEVICES": ""}
            environment = {"env_vars": {**place.environment, **hidden}}
            remote = session.ray.remote(self._actors)
            self._new_actor = remote.options(max_concurrency=4, runtime_env=environment, **self._needs).remote
            self._starting: list[_Worker] = []
            self._numbers = self._failed_starts = 0
            self._looked, self._roomless = -math.inf, time.monotonic()
            self._workerless = self._roomless
            self._first = {node["NodeID"] for node in session.ray.nodes()}
            self._left_out: list[_Worker] = []  # on nodes that do not fit: there they keep others from starting
            self._refresh()
        except BaseException:
            session.close()
            raise

    def _share_of_card(self, num_cpus: float) -> float:
        """Of each trial, by the nodes that are there; waits for the first one that it fits on."""
        started = time.monotonic()
        while time.monotonic() - started < _PATIENCE:
            nodes = [node["Resources"] for node in self._session.ray.nodes() if node["Alive"]]
            if any(resources.get("CPU", 0) >= num_cpus for resources in nodes):
                share = 1 / _PER_CARD if any(resources.get("GPU") for resources in nodes) else 0
                log.info("trials take %s", _amounts({"num_cpus": num_cpus, "num_gpus": share}))
                return share
            log.debug("no node has room for a trial yet")
            time.sleep(_LOOK)
        raise SearchStoppedError(_no_room({"num_cpus": num_cpus}))

    def close(self) -> None:
        """Ends the workers, and Ray when it was started here."""
        if self._session.closed:
            return
        everyone = [*self._starting, *self._workers, *self._left_out]
        with suppress(Exception):  # a cluster that is gone
            calls = [worker.actor.leave.remote() for worker in everyone if worker.unpacked]
            if calls:
                self._session.ray.wait(calls, num_returns=len(calls), timeout=10)
        self._workers, self._starting = everyone, []
        super().close()
        self._session.close()

    def _messages(self) -> Iterator[tuple[_Worker, tuple[str, int, Any] | None]]:
        ray = self._session.ray
        self._refresh()
        calls = {worker.call: worker for worker in [*self._starting, *self._workers]}
        ready, _ = ray.wait(list(calls), timeout=_LOOK)
        for call in ready:
            worker = calls[call]
            try:
                answer = ray.get(call)
            except ray.exceptions.RayTaskError as error:  # of getting ready
                raise (error.cause or error) from RemoteError(str(error))
            except ray.exceptions.RayError as error:
                worker.fault = worker.fault or (_told(error), "")
                # Unavailable: nobody answers for it any more, and Ray takes 15 s to call its node dead.
                gone = isinstance(error, ray.exceptions.ActorUnavailableError) or "node has died" in str(error)
                worker.lost = gone or getattr(error, "preempted", False)
                yield worker, None
            else:
                if worker in self._starting:
                    self._get_ready(worker, answer)
                else:
                    worker.ask(worker.actor.messages.remote(), worker.then)
                    for message in answer:
                        yield worker, message

    # A worker gets ready: it says who it is, looks for the files, takes what it lacks.

    def _refresh(self) -> None:
        """Workers for nodes that have joined; raises SearchStoppedError when there has been none for long."""
        now = time.monotonic()
        if now - self._looked < _LOOK:
            return
        self._looked = now
        alive = [node for node in self._session.ray.nodes() if node["Alive"]]
        self._left_out = [w for w in self._left_out if w.machine in {node["NodeID"] for node in alive}]
        fit = sum(self._count(node["Resources"]) for node in alive) - len(self._left_out)
        wanted = self._workers_wanted or max(1, fit)
        before, self.slots = self.slots, min(self._most, max(1, fit) * self._place.slots)
        self._grown = self._grown or self.slots > before
        if self._workers:
            self._roomless = self._workerless = now
        if now - self._workerless > _BUSY:
            log.warning("the search waits for room on the cluster; `ray status` tells who has it")
            self._workerless = math.inf
        if fit > 0 or self._workers:
            self._roomless = now
        elif now - self._roomless > _PATIENCE:
            raise SearchStoppedError(_no_room(self._needs))
        while len(self._starting) + len(self._workers) < wanted:
            self._start_worker()
        while self._starting and len(self._starting) + len(self._workers) > wanted:
            self._starting.pop().kill()

    def _count(self, resources: dict[str, float]) -> int:
        """How many workers a node with these resources has room for."""
        needs = {"CPU": self._needs["num_cpus"], "GPU": self._needs["num_gpus"]}
        return min(int(resources.get(name, 0) / need + 1e-6) for name, need in needs.items() if need)

    def _start_worker(self) -> None:
        worker = _Worker(self._numbers, self._place, self._new_actor(), self._session)
        self._numbers += 1
        self._starting.append(worker)
        worker.ask(worker.actor.report.remote(), self._meet)

    def _get_ready(self, worker: _Worker, answer: Any) -> None:
        """The next step. A node that does not fit ends the search, or is left out if it joined later."""
        try:
            worker.then(worker, answer)
        except UserError as error:
            if worker.machine in self._first:
                raise
            log.warning("%s; it is left out", error)
            self._starting.remove(worker)
            self._left_out.append(worker)

    def _meet(self, worker: _Worker, report: dict[str, Any]) -> None:
        worker.machine, worker.node = report["node"], report["name"]
        _check_versions(report, self._versions)
        worker.ask(worker.actor.look.remote(self._files | self._shared), self._equip)

    def _equip(self, worker: _Worker, faults: dict[Path, str]) -> None:
        for path in self._shared:
            if faults[path]:
                raise UserError(
                    f"node {worker.node}: {path} {faults[path]} there, and beside it are weights that later "
                    "trials begin with; put the runs on a disk that all nodes see"
                )
        brought: list[shipping.Parcel | None] = [
            self._parcel(path, worker.node) if faults[path] == "is missing" else None for path in self._files
        ]
        for path in self._files:
            if faults[path] == "differs":
                raise UserError(
                    f"node {worker.node}: {path} is there, but differs from what the search runs with; put the "
                    "same there, or remove it, and resume the run"
                )
        worker.unpacked = any(brought) or self._modules is not None
        given = (self._evaluator, list(self._files), brought, self._modules, os.getcwd())
        worker.ask(worker.actor.begin.remote(worker.number, worker.place, *given), self._welcome)

    def _parcel(self, path: Path, node: str) -> shipping.Parcel:
        size = shipping.total_bytes(path)
        if size > self._ship_limit:
            raise UserError(
                f"node {node}: {path} is not there, and its {size / 1e9:.3g} GB are more than "
                f"execution.ship_limit ({self._ship_limit / 1e9:.3g} GB); put it on a disk that all nodes see, "
                "or raise the limit, and resume the run"
            )
        if path not in self._parcels:
            log.info("%s is brought to nodes that do not see it: %.3g MB", path, size / 1e6)
            self._parcels[path] = shipping.pack(path, self._files[path], self._session.ray.put)
        return self._parcels[path]

    def _welcome(self, worker: _Worker, _: None) -> None:
        self._failed_starts = 0
        self._starting.remove(worker)
        self._workers.append(worker)
        worker.ask(worker.actor.messages.remote(), worker.then)

    def _hear_quiet(self, worker: _Worker, kind: str) -> None:
        raise UserError(_NO_CLOCK)

    def _bury(self, worker: _Worker) -> None:
        """A node that is lost is nobody's fault: its trials begin anew. Else memory may have been short."""
        worker.kill()
        alive = {node["NodeID"] for node in self._session.ray.nodes() if node["Alive"]}
        told, remote = worker.fault or ("", "")
        lost = worker.lost or (worker.machine is not None and worker.machine not in alive)
        if worker in self._starting:
            self._starting.remove(worker)
            self._failed_starts += not lost
            if self._failed_starts == _STARTS:
                raise SearchStoppedError(f"no worker could be started on the cluster ({told})")
            return
        self._workers.remove(worker)
        tasks = [task for task in worker.tasks.values() if not task.cancelled]
        if not lost:
            self._try_again_alone(tasks, told, remote)
            return
        log.warning("node %s is lost; %d trials that ran there begin anew", worker.node, len(tasks))
        self._try_elsewhere(tasks)

    def _try_elsewhere(self, tasks: list[Task]) -> None:
        for task in reversed(tasks):
            task.tries, task.losses = task.tries - 1, task.losses + 1
            if task.losses == _LOSSES:
                raise SearchStoppedError(
                    f"{_LOSSES} nodes were lost while one and the same trial ran there; see to the cluster, "
                    "then resume the run"
                )
            self._queue.appendleft(task)


_NO_CLOCK = (
    "executor ray: latency is not measured on a cluster, where nodes differ and others share them; search with "
    "the executor process, or measure on the target"
)


class _Worker(PoolWorker):
    """An actor, and the one call to it that is under way."""

    def __init__(self, number: int, place: Place, actor: Any, session: _Session) -> None:
        super().__init__(number, place)
        self.actor, self._session = actor, session
        self.call: Any = None
        self.then: Callable[[_Worker, Any], None]
        self.node = ""
        self.unpacked = False
        self.lost = False  # its node was taken away
        self._sent = 0

    def ask(self, call: Any, then: Callable[[_Worker, Any], None]) -> None:
        self.call, self.then = call, then

    def send(self, kind: str, content: Any) -> None:
        with suppress(self._session.ray.exceptions.RayError):  # it is dead: its open call says so, too
            self.actor.tell.remote(self._sent, self._session.pickle((kind, content)))
        self._sent += 1

    def kill(self) -> None:
        with suppress(self._session.ray.exceptions.RayError):
            self._session.ray.kill(self.actor)


def _actor_class() -> Any:
    """The class of a worker's actor. Defined in here, and importing facenas late, it travels by value:
    a node may have another facenas, or none, and is to say so.
    """

    class FacenasWorker:
        @staticmethod
        def versions() -> dict[str, str]:
            """Of what decides results; facenas with a hash of its sources, as checkouts share a version."""
            import hashlib
            import platform
            import runpy
            from importlib.metadata import PackageNotFoundError, version
            from importlib.util import find_spec
            from pathlib import Path

            def installed(package: str) -> str:
                try:
                    return version(package).partition("+")[0]  # the same for CPUs and for CUDA
                except PackageNotFoundError:
                    return "missing"

            found = {name: installed(name) for name in ("torch", "torchvision", "numpy")}
            found["Python"] = ".".join(platform.python_version_tuple()[:2])
            spec = find_spec("facenas")
            if spec is None or spec.origin is None:
                return {"facenas": "missing", **found}
            folder, digest = Path(spec.origin).parent, hashlib.sha256()
            for path in sorted(folder.rglob("*.py")):
                digest.update(f"{path.relative_to(folder).as_posix()}\n".encode() + path.read_bytes())
            number = runpy.run_path(str(folder / "_version.py"))["__version__"]
            return {"facenas": f"{number} (sources {digest.hexdigest()[:8]})", **found}

        def report(self) -> dict[str, Any]:
            import socket

            import ray

            node = ray.get_runtime_context().get_node_id()
            util: Any = ray.util
            name = f"{socket.gethostname()} ({util.get_node_ip_address()})"
            return {"node": node, "name": name, "versions": self.versions()}

        def look(self, stamps: dict[Any, str]) -> dict[Any, str]:
            from facenas.execution.shipping import look

            return look(stamps)

        def begin(self, *given: Any) -> None:
            from facenas.execution.ray import begin

            self.mailbox = begin(*given)

        def tell(self, number: int, message: bytes) -> None:
            self.mailbox.put(number, message)

        def messages(self) -> list[tuple[str, int, Any]]:
            found: list[tuple[str, int, Any]] = self.mailbox.take()
            return found

        def leave(self) -> None:
            from facenas.execution.shipping import leave

            leave()

    return FacenasWorker


def _check_versions(report: dict[str, Any], versions: dict[str, str]) -> None:
    for name, ours in versions.items():
        if (theirs := report["versions"][name]) != ours:
            raise UserError(
                f"node {report['name']}: has {name} {theirs}, but the driver runs with {ours}; install the "
                "same there, and go on with the run"
            )


def begin(
    number: int,
    place: Place,
    evaluator: bytes,
    files: list[Path],
    brought: list[shipping.Parcel | None],
    modules: shipping.Parcel | None,
    cwd: str,
) -> Mailbox:
    """On a node: unpacks what was brought, and starts the life of a worker in a thread."""
    import ray

    from facenas.data import default_cache

    root = default_cache().absolute() / "shipped"
    if modules:
        sys.path.insert(0, str(shipping.unpack(modules, ray.get, root)))
    places = [
        shipping.unpack(parcel, ray.get, root) if parcel else path
        for path, parcel in zip(files, brought, strict=True)
    ]
    if os.path.isdir(cwd):
        os.chdir(cwd)
    placed = ray.cloudpickle.loads(evaluator).reading(tuple(places))
    mailbox = Mailbox(ray.cloudpickle.loads)
    threading.Thread(target=work, args=(mailbox, placed, number, place), daemon=True).start()
    return mailbox


class Mailbox:
    """In an actor: the pipe of `work` on one side, the calls of the driver on the other."""

    def __init__(self, unpickle: Callable[[bytes], Any]) -> None:
        self._unpickle = unpickle
        self._inbox: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._outbox: queue.SimpleQueue[tuple[str, int, Any]] = queue.SimpleQueue()
        self._early: dict[int, bytes] = {}
        self._next = 0
        self._sorting = threading.Lock()

    def recv(self) -> Any:
        """What the driver said next."""
        return self._unpickle(self._inbox.get())

    def send(self, message: tuple[str, int, Any]) -> None:
        """For the driver, when it calls next."""
        self._outbox.put(message)
        if message[0] == "broken":  # the process is about to end, and the driver to be told why
            time.sleep(2)

    def put(self, number: int, message: bytes) -> None:
        """Takes message `number`, counted from 0: calls need not come in the order in which they were made."""
        with self._sorting:
            self._early[number] = message
            while self._next in self._early:
                self._inbox.put(self._early.pop(self._next))
                self._next += 1

    def take(self) -> list[tuple[str, int, Any]]:
        """All that is there; blocks until there is something."""
        found = [self._outbox.get()]
        while not self._outbox.empty():
            found.append(self._outbox.get())
        return found


class _Session:
    """The connection to Ray: the one that the process has, or else a new one, which `close` ends."""

    def __init__(self, address: str | None, cpus: float) -> None:
        self.closed = False
        self._before = dict(os.environ), sys.excepthook
        self.ray: Any = _import_ray()
        self._own = not self.ray.is_initialized()
        if self._own:
            handler = signal.getsignal(signal.SIGTERM)
            try:
                self._connect(address, cpus)
            finally:
                if handler is not None and threading.current_thread() is threading.main_thread():
                    signal.signal(signal.SIGTERM, handler)

    def pickle(self, thing: Any) -> bytes:
        """Also what scripts and notebooks define."""
        try:
            pickled: bytes = self.ray.cloudpickle.dumps(thing)
        except Exception as error:  # whatever the object's own pickling raises
            raise UserError(
                f"the evaluation cannot be sent to other machines ({first_line(error)}); define it at the top "
                "of a module, or use the executor 'serial'"
            ) from None
        return pickled

    def close(self) -> None:
        """Leaves the cluster, or ends the Ray that was started here."""
        if self._own and not self.closed:
            self.ray.shutdown()
            environment, sys.excepthook = self._before
            for name in {*os.environ, *environment}:
                if name.startswith("RAY_") or name == "PYTHONBREAKPOINT":
                    os.environ.pop(name, None)
                    os.environ.update({name: environment[name]} if name in environment else {})
        self.closed = True

    def _connect(self, address: str | None, cpus: float) -> None:
        options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
        if address is None:
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
            cores, cards = max(device.core_count(), math.ceil(cpus)), len(device.card_memory())
            options |= {"num_cpus": cores, "num_gpus": cards, "object_store_memory": _STORE}
            options |= {"include_dashboard": False}
        else:
            _check_answers(address)
        try:
            self.ray.init(address or "local", **options)
        except (Exception, SystemExit) as error:
            with suppress(Exception):
                self.ray.shutdown()
            told = " ".join(str(error).split())
            hint = "; of a cluster with tokens, set RAY_AUTH_MODE=token" * (address not in (None, "auto"))
            raise UserError(f"Ray ({address or 'on this machine'}) cannot be used: {told}{hint}") from None


def train_together(
    part: Callable[[], None], nodes: int, address: str | None, folder: Path, look: Callable[[], int]
) -> None:
    """Calls `part` at once on so many nodes, in a process for each card, else one a node, by Ray Train.

    The processes are joined as under `torchrun`. folder: of the run, which all nodes see. look: called every
    second; gives how many epochs are done. A training that loses a process goes on from its checkpoint, unless
    it fails three times without an epoch in between. Raises UserError when there are too few nodes or one has
    other versions, SearchStoppedError when training fails for good, and what `part` raises of both kinds.
    """
    session = _Session(address, 1)
    try:
        ray = session.ray
        alive = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]
        if len(alive) < nodes:
            raise UserError(f"nodes {nodes}: the cluster has {len(alive)}; start others, or ask for fewer")
        _check_nodes(ray, alive)
        cards = int(min(node["Resources"].get("GPU", 0) for node in alive))
        failures, before = 0, -1
        while error := _attempt(part, nodes, cards, folder, look):
            failures, before = (1 if look() > before else failures + 1), look()
            if failures == _FAILURES:
                raise SearchStoppedError(
                    f"training failed {failures} times without an epoch in between ({_told(error)}); mend it, "
                    "and the same command goes on"
                ) from error
            log.warning("a process of the training was lost (%s); it goes on from its checkpoint", _told(error))
    finally:
        session.close()


def _attempt(
    part: Callable[[], None], nodes: int, cards: int, folder: Path, look: Callable[[], int]
) -> Exception | None:
    """Runs Ray Train once; gives its error when another attempt may do better, raises it when none will."""
    from ray.train.v2.api.exceptions import WorkerGroupError

    ended: list[Exception | None] = []
    # In a thread: in the main one, Ray Train takes Ctrl-C for itself.
    thread = threading.Thread(target=lambda: ended.append(_fit(part, nodes, cards, folder)), daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(1)
        look()
    error = ended[0] if ended else RuntimeError("Ray Train ended without a word")
    for failure in error.worker_failures.values() if isinstance(error, WorkerGroupError) else ():
        for cause in (failure, failure.__cause__, getattr(failure, "cause", None)):
            if isinstance(cause, UserError | SearchStoppedError):
                raise cause from None
    return error


def _check_nodes(ray: Any, nodes: list[dict[str, Any]]) -> None:
    """Raises UserError when one has other versions."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    reporter = _actor_class()
    remote = ray.remote(reporter)
    for node in nodes:
        there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        actor = remote.options(num_cpus=0, scheduling_strategy=there).remote()
        _check_versions(ray.get(actor.report.remote()), reporter.versions())
        ray.kill(actor)


def _fit(part: Callable[[], None], nodes: int, cards: int, folder: Path) -> Exception | None:
    """What Ray Train says of the end; None when all went well."""
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    own = folder / f".ray-{os.getpid()}"  # Ray Train's notes, of which nothing is needed afterwards
    scaling = ScalingConfig(
        num_workers=nodes * max(1, cards),
        use_gpu=cards > 0,
        placement_strategy="SPREAD" if cards else "STRICT_SPREAD",
    )
    try:
        TorchTrainer(
            _in_place,
            train_loop_config={"part": part, "cwd": os.getcwd()},
            scaling_config=scaling,
            run_config=RunConfig(name=own.name, storage_path=str(folder)),
        ).fit()
    except Exception as error:
        return error
    finally:
        shutil.rmtree(own, ignore_errors=True)
    return None


def _in_place(config: dict[str, Any]) -> None:
    """On a node, in a process that Ray Train has joined with the others."""
    if os.path.isdir(config["cwd"]):
        os.chdir(config["cwd"])
    config["part"]()


def check_ray(address: str | None) -> None:
    """Raises UserError when Ray is not installed, or nothing answers at `address`."""
    _import_ray()
    if address is not None:
        _check_answers(address)


def _import_ray() -> Any:
    try:
        import ray
        import ray.exceptions
    except ImportError:
        raise UserError(
            "executor ray: Ray is not installed; pip install 'facenas[ray]', on all nodes"
        ) from None
    return ray


def _check_answers(address: str) -> None:
    """Ray itself waits for minutes, and then ends the process."""
    if address == "auto":
        return
    found = re.fullmatch(r"([^:/]+):(\d+)", address)
    if found is None:
        raise UserError(
            f"address {address}: should be HOST:PORT as `ray start --head` tells it, or auto; the search "
            "itself runs on a node of the cluster"
        )
    try:
        socket.create_connection((found[1], int(found[2])), timeout=10).close()
    except (OSError, OverflowError) as error:
        raise UserError(
            f"address {address}: nothing answers there ({error}); `ray start --head` tells the right one"
        ) from None


def _own_modules(put: Callable[[bytes], Any]) -> shipping.Parcel | None:
    """The sources of what is imported here but not installed: one's own space, strategy or measure."""
    installed = {*(sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib"))}
    sources: dict[str, Path] = {}
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if name in ("__main__", "facenas") or "." in name or not file or not file.endswith(".py"):
            continue
        path = Path(file).absolute()
        if {"site-packages", "dist-packages"} & {*path.parts} or any(path.is_relative_to(p) for p in installed):
            continue
        if path.name == "__init__.py":
            sources |= {f"{name}/{inner.relative_to(path.parent).as_posix()}": inner
                        for inner in path.parent.rglob("*.py")}  # fmt: skip
        else:
            sources[f"{name}.py"] = path
    if not sources:
        return None
    import hashlib

    texts = {name: path.read_bytes() for name, path in sorted(sources.items())}
    key = hashlib.sha256(repr(texts).encode()).hexdigest()
    return shipping.Parcel(key, "modules", [(f"modules/{name}", put(text)) for name, text in texts.items()])


def _no_room(needs: dict[str, float]) -> str:
    return (
        f"no node of the cluster has had room for a trial ({_amounts(needs)}) for {_PATIENCE / 60:.0f} min; "
        "start nodes, or say what a trial takes (execution.num_cpus, num_gpus), and resume the run"
    )


def _amounts(needs: dict[str, float]) -> str:
    return ", ".join(f"{name} {amount:g}" for name, amount in needs.items() if amount)


def _told(error: BaseException) -> str:
    """The last line of what Ray says of a death: the reason."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:300] if lines else type(error).__name__
