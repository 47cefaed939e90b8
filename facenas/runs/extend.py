"""What a search may go on with: other settings, failed trials made again, results of other runs.

All rests on trial keys: a result stays known whatever becomes of the decisions, so only decisions are taken
anew, and nothing that is still wanted is trained twice.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from facenas.config import validate
from facenas.errors import UserError
from facenas.execution import TrialSpec
from facenas.execution.evaluators import weights_file
from facenas.files import reading, write_bytes
from facenas.runs.config import RunConfig
from facenas.runs.evaluator import build_evaluator
from facenas.runs.journal import read_journal
from facenas.runs.run import Run, open_run
from facenas.runs.search_log import (
    is_other_decision,
    read_early_results,
    read_results,
    set_aside,
    told_of,
)
from facenas.strategies import Candidate, TrialResult
from facenas.strategies.finalists import CONFIRM

log = logging.getLogger(__name__)


def extend(run: Run, config: RunConfig, command: str) -> Run:
    """The run under other settings, ready to go on; the caller holds its lock.

    Trials in the journal that follow from the new settings too stay as they are. It may go on from within the
    journal where a phase that had ended goes on longer, such as growth to a raised bound, and under other
    settings that the strategy calls `revisable`, such as limits: then later decisions are taken anew, out of
    results that stay known. Raises UserError for settings that would change other decisions, naming the first
    trial, and for a run that is trained already.
    """
    changes = dict(_differences(run.config.model_dump(mode="json"), config.model_dump(mode="json")))
    if not changes:
        return run
    if "latency" in changes:
        raise UserError(f"{run.name}: keeps the table of latencies it began with; start a new run with another")
    if "recipe.distill.teacher" in changes:  # the same, elsewhere
        replace(run, config=config).check_teacher()
    lines = read_journal(run.folder / "trials.jsonl")
    known = lines or read_early_results(run.folder)
    if known and changes.get("search.inherit", [1])[0] is None:
        raise UserError(f"{run.name}: its trials have kept no weights; start a new run with search.inherit")
    first = len(lines)
    if not all(key.startswith(_WITHOUT_EFFECT) for key in changes):
        revised = {name for name in config.search.owner.revisable if _is_in(f"search.{name}", changes)}
        if revised:  # what else has changed must not turn a decision
            _first_departure(replace(run, config=_with_old(config, run.config, revised)), revise=False)
        first = _first_departure(replace(run, config=config), bool(revised))
        _check_extensible(run, lines)
        (run.folder / "best.json").unlink(missing_ok=True)
    if first < len(lines):
        log.warning(
            "%s: trials %d to %d are decided anew; their results stay known", run.name, first, len(lines) - 1
        )
    return _redo_from(run, config, first, lines, {"command": command, "settings": changes})


def retry_failed(run: Run, command: str) -> Run:
    """Failed trials are to be made again; decisions from the first of them on are taken anew.

    The caller holds the run's lock. Raises UserError when the run is trained already.
    """
    lines = read_journal(run.folder / "trials.jsonl")
    failed = [line["trial"] for line in lines if line["status"] == "failed"]
    if not failed:
        log.warning("%s: no trial has failed", run.name)
        return run
    _check_extensible(run, lines)
    (run.folder / "best.json").unlink(missing_ok=True)
    log.warning("%s: %d failed trials are tried again", run.name, len(failed))
    return _redo_from(run, run.config, failed[0], lines, {"command": command, "retried": failed}, failed=False)


def retry_last_failures(run: Run, most: int) -> None:
    """A search that `most` failures in a row stopped is resumed by someone who has mended their cause."""
    last = read_journal(run.folder / "trials.jsonl")[-most:]
    if len(last) == most and all(line["status"] == "failed" for line in last):
        log.warning("%s: the last %d trials failed; they are tried again", run.name, most)
        set_aside(run.folder, last[0]["trial"], failed=False)


@dataclass(frozen=True)
class OtherRun:
    """A run whose results may be taken; those of failed trials are left out.

    A failure may be the machine's, such as of its memory.
    """

    run: Run
    results: tuple[TrialResult, ...]


def shared_results(run: Run, others: Iterable[OtherRun]) -> dict[str, tuple[str, TrialResult]]:
    """Results of other runs that hold for `run` too, by trial key, each with the run's name.

    What a key leaves open, weights of a supernet and times by the clock, is taken from the same code and
    machine alone. Says when roundings may differ. A search with `inherit` takes only results whose weights are
    there; see `bring_weights`.
    """
    found: dict[str, tuple[str, TrialResult]] = {}
    for other in others:
        alike = run.alike(other.run)
        results = [r for r in other.results if alike or _holds_anywhere(other.run, r)]
        if getattr(run.config.search, "inherit", None):
            results = _with_weights(run, other.run, results)
        found |= {result.key: (other.run.name, result) for result in results}
        if not alike:
            log.warning(
                "%s: was made by other code or on another machine; it may round otherwise", other.run.name
            )
    if found and run.config.evaluate:
        log.warning(
            "results of %s are taken from other runs by its name alone: they hold if it is the same code",
            run.config.evaluate,
        )
    return found


def _with_weights(run: Run, other: Run, results: list[TrialResult]) -> list[TrialResult]:
    """Those whose weights are there. Says how many are left out."""
    found = [r for r in results if any(weights_file(one.weights, r.key).is_file() for one in (run, other))]
    if len(found) < len(results):
        log.warning("%s: %d results are not taken: without weights", other.name, len(results) - len(found))
    return found


def bring_weights(run: Run, others: Iterable[OtherRun], key: str) -> None:
    """Copies the weights of a trial that another run has made, once its result is taken, if `run` keeps any."""
    target = weights_file(run.weights, key)
    if not getattr(run.config.search, "inherit", None) or target.exists():
        return
    for other in others:
        source = weights_file(other.run.weights, key)
        if source.is_file():
            with reading(source):
                write_bytes(target, source.read_bytes(), remedy="make room and try again")
            return


def _holds_anywhere(run: Run, result: TrialResult) -> bool:
    if run.config.evaluate:
        return True
    measured_here = "latency" in result.values and run.config.latency is None
    return bool(result.history) and not measured_here


def other_runs(runs_dir: Path, names: Sequence[str | Path]) -> list[OtherRun]:
    """Runs with their results: each of `names` is a run's name in `runs_dir`, its folder, or a folder of runs.

    Raises UserError when one is no run or damaged; in a folder of runs, such a one is passed over and told.
    """
    found: list[OtherRun] = []
    for name in names:
        inside = sorted(path.parent for path in Path(name).glob("[!.]*/run.yaml"))
        if (Path(name) / "run.yaml").is_file() or not inside:
            found.append(_other_run(open_run(runs_dir, str(name))))
            continue
        for folder in inside:
            try:
                found.append(_other_run(open_run(folder.parent, folder.name)))
            except UserError as error:
                log.warning("%s: its results are not taken (%s)", folder.name, error)
    return found


def _other_run(run: Run) -> OtherRun:
    with reading(run.folder / "trials.jsonl", "restore the file, or reuse another run"):
        results = [*read_results(run.folder), *read_early_results(run.folder)]
    return OtherRun(run, tuple(result for result in results if result.status == "ok"))


def _redo_from(
    run: Run,
    config: RunConfig,
    first: int,
    lines: list[dict[str, Any]],
    change: dict[str, Any],
    failed: bool = True,
) -> Run:
    """Decisions go before the settings change: killed in between, the run resumes under those it had."""
    when = datetime.now(UTC).isoformat(timespec="seconds")
    if first < len(lines):
        set_aside(run.folder, first, failed)
    return run.changed(config, {"when": when, **change, "decided_from": first})


def _first_departure(run: Run, revise: bool) -> int:
    """Number of the first trial whose place another takes, or that is decided otherwise; their count if none.

    revise: whether decisions may turn. Raises UserError when the settings of `run` do not extend its journal.
    """
    space = run.config.build_space(run.about["data"])
    strategy, evaluator = run.config.build_strategy(space), build_evaluator(run, space)
    lines, phase = read_journal(run.folder / "trials.jsonl"), ""
    for line, result in zip(lines, read_results(run.folder), strict=True):
        number, wanted = int(line["trial"]), strategy.ask()
        candidate = wanted[0] if wanted else None
        if candidate is None or TrialSpec(candidate, evaluator.identity(candidate)).key != line["key"]:
            goes_on = (
                candidate is not None
                and candidate.phase != line["phase"]
                and number > 0
                and (candidate.phase == phase or line["phase"] == CONFIRM)
            )
            if goes_on or revise:
                return number
            raise _refused(run, number, line, _other(candidate) if candidate else "would not be asked for")
        decision, phase = strategy.tell(result), line["phase"]
        if is_other_decision(line, decision):
            if revise:
                return number
            raise _refused(run, number, line, f"was {line['decision']} and would be {decision}")
    return len(lines)


def _other(candidate: Candidate) -> str:
    budget = candidate.budget
    told = [candidate.architecture.summary(), f"{budget.epochs} epochs"]
    told += [f"{budget.data_fraction:.3g} of the images"] * (budget.data_fraction != 1)
    told += [f"{name} {value}" for name, value in told_of(candidate).items()]
    return f"would be another one ({candidate.phase}: {', '.join(told)})"


def _refused(run: Run, number: int, line: dict[str, Any], what: str) -> UserError:
    return UserError(
        f"{run.name}: these settings change what was decided: trial {number} ({line['phase']}, "
        f"{line['reason_proposed']}) {what}; start a new run with --preset "
        f"{run.folder / 'run.yaml'} and --reuse {run.name}, which trains no known trial again"
    )


# On results: a teacher that lies elsewhere is known by its fingerprint.
_WITHOUT_EFFECT = ("execution.", "callbacks", "recipe.distill.teacher")


def _check_extensible(run: Run, lines: list[dict[str, Any]]) -> None:
    if not lines and run.best() is not None:
        raise UserError(f"{run.name}: trains a given network, and has no search that could go on")
    for name in ("train.json", "checkpoints/training.pt"):
        if (run.folder / name).exists():
            raise UserError(
                f"{run.folder / name}: the network that this search found is trained already; leave the run as "
                f"it is, and search on in another: facenas search --preset {run.folder / 'run.yaml'} --set ... "
                f"--reuse {run.name}"
            )


def _is_in(group: str, changes: dict[str, Any]) -> bool:
    return any(key == group or key.startswith(f"{group}.") for key in changes)


def _with_old(config: RunConfig, before: RunConfig, names: set[str]) -> RunConfig:
    """`config`, but for some settings of its search as they were."""
    tree = config.model_dump(mode="json")
    tree["search"] |= {name: getattr(before.search, name, None) for name in names}
    return validate(RunConfig, tree, "the settings as changed")


def _differences(before: Any, after: Any, place: str = "") -> Iterator[tuple[str, list[Any]]]:
    """(dotted key, [before, after]) of all settings that differ."""
    if not (isinstance(before, dict) and isinstance(after, dict)):
        if before != after:
            yield place, [before, after]
        return
    for key in {**before, **after}:
        inner = f"{place}.{key}" if place else key
        yield from _differences(before.get(key), after.get(key), inner)
