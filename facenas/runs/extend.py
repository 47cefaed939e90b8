"""What a search may go on with: other settings, failed trials made again, results of other runs.

All rests on trial keys: a result stays known whatever becomes of the decisions, so only decisions are taken
anew, and nothing that is still wanted is trained twice.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from facenas.errors import UserError
from facenas.execution import TrialSpec
from facenas.files import reading
from facenas.runs.config import RunConfig
from facenas.runs.evaluator import build_evaluator
from facenas.runs.journal import read_journal
from facenas.runs.run import Run, open_run, other_versions
from facenas.runs.search_log import read_early_results, read_results, set_aside
from facenas.strategies import Candidate, Decision, Strategy, TrialResult

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
    space = config.build_space(run.about["data"])
    strategy = config.build_strategy(space)
    changed = replace(run, config=config)
    first = _first_departure(changed, strategy, _may_revise(config, changes))
    lines = read_journal(run.folder / "trials.jsonl")
    if first < len(lines) or strategy.ask():
        _check_untrained(run)
        (run.folder / "best.json").unlink(missing_ok=True)
    if first < len(lines):
        log.warning(
            "%s: trials %d to %d are decided anew; their results stay known", run.name, first, len(lines) - 1
        )
    return _redo_from(changed, config, first, lines, {"command": command, "settings": changes})


def retry_failed(run: Run, command: str) -> Run:
    """Failed trials are to be made again; decisions from the first of them on are taken anew.

    The caller holds the run's lock. Raises UserError when the run is trained already.
    """
    lines = read_journal(run.folder / "trials.jsonl")
    failed = [line["trial"] for line in lines if line["status"] == "failed"]
    if not failed:
        log.warning("%s: no trial has failed", run.name)
        return run
    _check_untrained(run)
    (run.folder / "best.json").unlink(missing_ok=True)
    log.warning("%s: %d failed trials are tried again", run.name, len(failed))
    return _redo_from(run, run.config, failed[0], lines, {"command": command, "retried": failed}, failed=False)


def retry_last_failures(run: Run, most: int) -> None:
    """A search that `most` failures in a row stopped is resumed by someone who has mended their cause."""
    last = read_journal(run.folder / "trials.jsonl")[-most:]
    if len(last) == most and all(line["status"] == "failed" for line in last):
        log.warning("%s: the last %d trials failed; they are tried again", run.name, most)
        set_aside(run.folder, last[0]["trial"], failed=False)


def shared_results(run: Run, folders: Iterable[Path]) -> dict[str, tuple[str, TrialResult]]:
    """Results of the runs in `folders` by trial key, each with the run's name; failed trials are left out.

    A failure may be the machine's, such as of its memory. Raises UserError when a folder is no run.
    """
    found: dict[str, tuple[str, TrialResult]] = {}
    for folder in folders:
        other = open_run(folder.parent, folder.name)
        with reading(folder / "trials.jsonl", "restore the file, or reuse another run"):
            results = [*read_results(folder), *read_early_results(folder)]
        found |= {result.key: (other.name, result) for result in results if result.status == "ok"}
        if others := other_versions(other.about):
            names = ", ".join(f"{name} {other.about['versions'][name]}" for name in others)
            log.warning("%s: its results were made with %s; others may round otherwise", other.name, names)
    if found and run.config.evaluate:
        log.warning(
            "results of %s are taken from other runs by its name alone: they hold if it is the same code",
            run.config.evaluate,
        )
    return found


def runs_at(runs_dir: Path, names: Sequence[str | Path]) -> list[Path]:
    """Folders of runs: each of `names` is a run's name in `runs_dir`, its folder, or a folder of runs.

    Raises UserError when there is no run.
    """
    found: list[Path] = []
    for name in names:
        inside = sorted(path.parent for path in Path(name).glob("[!.]*/run.yaml"))
        if (Path(name) / "run.yaml").is_file() or not inside:
            inside = [open_run(runs_dir, str(name)).folder]
        found += inside
    return found


def _redo_from(
    run: Run,
    config: RunConfig,
    first: int,
    lines: list[dict[str, Any]],
    change: dict[str, Any],
    failed: bool = True,
) -> Run:
    """Notes the change before decisions go: a kill in between leaves a run that resumes by either settings."""
    seconds = lines[-1]["search_seconds"] if lines else 0.0
    when = datetime.now(UTC).isoformat(timespec="seconds")
    if first < len(lines):
        set_aside(run.folder, first, failed)
    return run.changed(config, {"when": when, **change, "decided_from": first, "search_seconds": seconds})


def _first_departure(run: Run, strategy: Strategy, revise: bool) -> int:
    """Number of the first trial whose place another takes, or that is decided otherwise; their count if none.

    Leaves `strategy` there. Raises UserError when that is no extension.
    """
    evaluator = build_evaluator(run, strategy.space)
    lines, phase = read_journal(run.folder / "trials.jsonl"), ""
    for line, result in zip(lines, read_results(run.folder), strict=True):
        number, wanted = int(line["trial"]), strategy.ask()
        candidate = wanted[0] if wanted else None
        if candidate is None or TrialSpec(candidate, evaluator.identity(candidate)).key != line["key"]:
            goes_on = candidate is not None and number > 0 and candidate.phase == phase != line["phase"]
            if goes_on or revise:
                return number
            raise _refused(run, number, line, _other(candidate) if candidate else "would not be asked for")
        decision, phase = strategy.tell(result), line["phase"]
        # Earlier versions wrote prose in place of the decision.
        if decision != line["decision"] and line["decision"] in list(Decision):
            if revise:
                return number
            raise _refused(run, number, line, f"was {line['decision']} and would be {decision}")
    return len(lines)


def _other(candidate: Candidate) -> str:
    epochs = candidate.budget.epochs
    return f"would be another one ({candidate.phase}: {candidate.architecture.summary()}, {epochs} epochs)"


def _refused(run: Run, number: int, line: dict[str, Any], what: str) -> UserError:
    return UserError(
        f"{run.name}: these settings change what was decided: trial {number} ({line['phase']}, "
        f"{line['reason_proposed']}) {what}; start a new run with --preset "
        f"{run.folder / 'run.yaml'} and --reuse {run.name}, which trains no known trial again"
    )


def _check_untrained(run: Run) -> None:
    for name in ("train.json", "checkpoints/training.pt"):
        if (run.folder / name).exists():
            raise UserError(
                f"{run.folder / name}: the network that this search found is trained already; leave the run as "
                f"it is, and search on in another: facenas search --preset {run.folder / 'run.yaml'} --set ... "
                f"--reuse {run.name}"
            )


def _may_revise(config: RunConfig, changes: dict[str, Any]) -> bool:
    groups = tuple(f"search.{name}" for name in config.search.owner.revisable)
    return any(key == group or key.startswith(f"{group}.") for key in changes for group in groups)


def _differences(before: Any, after: Any, place: str = "") -> Iterator[tuple[str, list[Any]]]:
    """(dotted key, [before, after]) of all settings that differ."""
    if not (isinstance(before, dict) and isinstance(after, dict)):
        if before != after:
            yield place, [before, after]
        return
    for key in {**before, **after}:
        inner = f"{place}.{key}" if place else key
        yield from _differences(before.get(key), after.get(key), inner)
