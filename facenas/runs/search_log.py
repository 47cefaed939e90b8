"""What a search leaves on disk while it runs: the journal, results that came early, and side files.

trials.jsonl   the journal: one decided trial a line, in logical order
ahead.jsonl    results of speculative trials whose turn has not come, gone when the search ends; and results
               whose decisions were set aside by other settings
metrics.jsonl  per-epoch values of every trial (and of the final training)
right.jsonl    which validation images each candidate got right, as bits
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping
from dataclasses import fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facenas.errors import UserError
from facenas.execution import TrialSpec
from facenas.files import write_text
from facenas.runs.journal import Journal, read_journal
from facenas.strategies import Candidate, Decision, TrialResult

log = logging.getLogger(__name__)

_RESULT = {field.name for field in fields(TrialResult)}
_ELSEWHERE = {"history", "right_bits"}  # parts of a result that the side files hold
_MEASURED = _RESULT - _ELSEWHERE
_OPTIONAL = {"values", "facts"}  # only told where there are some
_FIELDS = {
    "trials.jsonl": _MEASURED - _OPTIONAL | {"trial", "decision", "search_seconds"},
    "ahead.jsonl": _MEASURED - _OPTIONAL | _ELSEWHERE,
    "metrics.jsonl": {"trial", "epoch"},
    "right.jsonl": {"trial", "images", "bits"},
}


class SearchLog:
    """The files of one search. `known`: results by trial key, those of the journal included."""

    def __init__(
        self,
        folder: Path,
        image_size: int,
        versions: dict[str, str | None] | None = None,
        reused: Mapping[str, tuple[str, TrialResult]] | None = None,
    ) -> None:
        """Opens what is there. Raises UserError when a file is damaged (a torn last line is not).

        versions: of packages that are others now than `run.yaml` says; new lines tell them. reused: results of
        other runs by trial key, with the run's name.
        """
        self.folder, self.image_size, self._versions = folder, image_size, versions or {}
        self.trials, self._ahead = self._open("trials.jsonl"), self._open("ahead.jsonl")
        self.journaled = len(self.trials.records)
        self._decided = 0
        # Side lines are written before the journal's line: a crash in between leaves one too many.
        self._metrics, self._right = self._open("metrics.jsonl"), self._open("right.jsonl")
        for side in (self._metrics, self._right):
            side.keep(lambda r: isinstance(r["trial"], str) or r["trial"] < self.journaled)
        waiting = _early_results(self._ahead.records)
        own = _results(self.trials.records, self._metrics.records, self._right.records)
        self.known = {result.key: result for result in [*waiting, *own]}
        others = {key: found for key, found in (reused or {}).items() if key not in self.known}
        self._aside = {record["key"]: record for record in self._ahead.records if _is_aside(record)}
        self._reused = {key: record["reused"] for key, record in self._aside.items() if "reused" in record}
        self._reused |= {key: name for key, (name, _) in others.items()}
        self.known |= {key: result for key, (_, result) in others.items()}
        self._early = {result.key for result in waiting} - {r["key"] for r in self.trials.records}
        # Wall clock of the search so far: a resume counts on from the last decision, though it was set aside.
        before = [*self.trials.records[-1:], *filter(_is_aside, self._ahead.records)]
        self._seconds_before = max((record["search_seconds"] for record in before), default=0.0)
        self._opened = time.perf_counter()

    @property
    def early_results(self) -> int:
        """How many results wait for their turn."""
        return len(self._early)

    @property
    def next_trial(self) -> int:
        """The number of the trial that is decided next."""
        return self._decided

    @property
    def replaying(self) -> bool:
        """Whether the journal has that decision already, from before a resume."""
        return self._decided < self.journaled

    def finished(self, result: TrialResult, early: bool) -> None:
        """A trial is trained; an early result is kept on disk, so that it is never trained again."""
        if early:
            self._ahead.append(result.to_json())
            self._early.add(result.key)
        self.known[result.key] = result

    def decided(self, spec: TrialSpec, result: TrialResult, decision: Decision, note: str) -> None:
        """The strategy was told: one line into the journal, unless it is there from before a resume.

        Raises UserError when the journal tells another story than the engine. Notes are for people, and are
        not compared: another version may word them anew.
        """
        number, self._decided = self._decided, self._decided + 1
        if number < self.journaled:
            line = self.trials.records[number]
            if line["key"] != spec.key or is_other_decision(line, decision):
                raise UserError(
                    f"{self.trials.path}: line {number + 1} does not follow from run.yaml and the lines "
                    "before it; was one of the files edited? Start a new run"
                )
            return
        speculative = result.key in self._early and result.key not in self._aside
        self._early.discard(result.key)
        told: dict[str, Any] = {"decision": decision, "note": note, "speculative": speculative}
        if name := self._reused.get(spec.key):
            told["reused"] = name
        for epoch in result.history:
            self._metrics.append({"trial": number, "key": result.key, **epoch})
        self._right.append(
            {
                "trial": number,
                "key": result.key,
                "images": result.validated,
                "bits": result.right_bits,
            }
        )
        line = self._line(number, spec, result)
        self.trials.append(line | told)

    def done(self) -> None:
        """The search has ended: nothing lies ahead any more. What was set aside may be wanted once more."""
        decided = {record["key"] for record in self.trials.records}
        self._ahead.keep(lambda record: _is_aside(record) and record["key"] not in decided)
        if not self._ahead.records:
            self._ahead.path.unlink(missing_ok=True)

    def _open(self, name: str) -> Journal:
        journal = Journal(self.folder / name)
        _check_fields(journal.path, journal.records)
        return journal

    def _line(self, number: int, spec: TrialSpec, result: TrialResult) -> dict[str, Any]:
        candidate, arch = spec.candidate, spec.candidate.architecture
        parameters = arch.count_parameters()
        measured = {key: value for key, value in result.to_json().items() if key in _MEASURED}
        for name in _OPTIONAL:
            if not measured[name]:
                del measured[name]
        return {
            "trial": number,
            "phase": candidate.phase,
            "reason_proposed": candidate.reason,
            **arch.to_json(),
            "epochs": candidate.budget.epochs,
            "data_fraction": spec.identity.get("data", {}).get("data_fraction", candidate.budget.data_fraction),
            **told_of(candidate),
            "params_millions": parameters / 1e6,
            "parameters": parameters,
            "macs": arch.count_macs(self.image_size),
            **measured,
            **({"versions": self._versions} if self._versions else {}),
            "finished": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "search_seconds": round(self._seconds_before + time.perf_counter() - self._opened, 3),
        }


def told_of(candidate: Candidate) -> dict[str, Any]:
    """What a journal tells of a candidate that is not trained as usual, by its key in a line."""
    protocol = {name: list(v) if isinstance(v, tuple) else v for name, v in candidate.protocol}
    budget = candidate.budget
    told = {"repeat": budget.repeat, "judge_last": budget.judge_last, "parent": candidate.parent}
    return {name: value for name, value in {**told, "protocol": protocol}.items() if value}


def is_other_decision(line: dict[str, Any], decision: Decision) -> bool:
    """Whether a line of the journal tells another one; earlier versions wrote prose, which tells none."""
    told = line.get("decision")
    return told in list(Decision) and told != decision


def read_results(folder: Path) -> list[TrialResult]:
    """Results of the journal, in its order, out of a run that may be under way: nothing is written.

    Raises UserError when a file is damaged.
    """
    return _results(*(_read(folder / name) for name in ("trials.jsonl", "metrics.jsonl", "right.jsonl")))


def read_early_results(folder: Path) -> list[TrialResult]:
    """Results whose turn has not come; raises UserError as `read_results` does."""
    return _early_results(_read(folder / "ahead.jsonl"))


def set_aside(folder: Path, first: int, failed: bool = True) -> None:
    """Decisions from trial number `first` on are to be taken anew: their results stay known, in `ahead.jsonl`.

    failed: whether those of failed trials stay known, too. The caller holds the run's lock. A kill leaves what
    the next call, or a resume, takes up.
    """
    records = {record["key"]: record for record in _read(folder / "ahead.jsonl")}
    lines = _read(folder / "trials.jsonl")[first:]
    for line, result in zip(lines, read_results(folder)[first:], strict=True):
        kept = {name: line[name] for name in ("search_seconds", "reused") if name in line}
        records[result.key] = result.to_json() | kept
    if not failed:
        records = {key: r | {"again": True} if r["status"] == "failed" else r for key, r in records.items()}
    write_text(folder / "ahead.jsonl", "".join(json.dumps(record) + "\n" for record in records.values()))
    Journal(folder / "trials.jsonl").keep(lambda record: record["trial"] < first)


def _is_aside(record: dict[str, Any]) -> bool:
    """Whether a line of `ahead.jsonl` was decided on once: it keeps the wall clock of then."""
    return "search_seconds" in record


def _early_results(records: list[dict[str, Any]]) -> list[TrialResult]:
    """The results in lines of `ahead.jsonl`, without those that are to be made again."""
    found = [record for record in records if not record.get("again")]
    return [TrialResult(**{k: v for k, v in record.items() if k in _RESULT}) for record in found]


def _read(path: Path) -> list[dict[str, Any]]:
    records = read_journal(path)
    _check_fields(path, records)
    return records


def _check_fields(path: Path, records: list[dict[str, Any]]) -> None:
    for number, record in enumerate(records, start=1):
        if not _FIELDS[path.name] <= record.keys() or record.get("trial", 0) is None:
            raise UserError(
                f"{path}: line {number} is not one of this version's lines; "
                "restore the file, or start a new run"
            )


def _results(
    trials: list[dict[str, Any]], metrics: list[dict[str, Any]], right: list[dict[str, Any]]
) -> list[TrialResult]:
    """Results as the journal and its side files tell them together."""
    bits = {record["trial"]: record["bits"] for record in right}
    history: dict[int, list[dict[str, Any]]] = {}
    for record in metrics:
        epoch = {key: value for key, value in record.items() if key not in ("trial", "key")}
        history.setdefault(record["trial"], []).append(epoch)
    found = []
    for line in trials:
        number = line["trial"]
        measured = {name: line[name] for name in _MEASURED if name in line}
        if "latency" in line:  # as earlier versions wrote it
            measured["values"] = {"latency": line["latency"]}
        found.append(TrialResult(**measured, history=history.get(number, []), right_bits=bits.get(number, "")))
    return found


def right_images(run: Path, trial: int) -> NDArray[np.bool_]:
    """(n,) bool: which of the n validation images, in order, trial number `trial` got right.

    Raises UserError when the run has no such trial.
    """
    for record in read_journal(run / "right.jsonl"):
        if record["trial"] == trial:
            return unpacked(record)
    raise UserError(f"{run / 'right.jsonl'}: has no trial {trial}")


def unpacked(record: dict[str, Any]) -> NDArray[np.bool_]:
    """(n,) bool, of a line of `right.jsonl`."""
    bits = np.frombuffer(bytes.fromhex(record["bits"]), dtype=np.uint8)
    return np.unpackbits(bits, count=record["images"]).astype(bool)
