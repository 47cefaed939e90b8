"""What a search leaves on disk while it runs: the journal, results that came early, and side files.

trials.jsonl   the journal: one decided trial a line, in logical order
ahead.jsonl    results of speculative trials whose turn has not come; gone when the search ends
metrics.jsonl  per-epoch values of every trial (and of the final training)
right.jsonl    which validation images each candidate got right, as bits
"""

from __future__ import annotations

import json
import logging
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facenas.errors import UserError
from facenas.runs.files import write_text
from facenas.runs.journal import Journal, read_journal
from facenas.search import Candidate
from facenas.trial import TrialResult, TrialSpec


log = logging.getLogger(__name__)

MAX_FAILURES_IN_A_ROW = 3


class SearchRecord:
    """The files of one search. `known`: results by trial key, those of the journal included."""

    def __init__(self, folder: Path, image_size: int) -> None:
        """Opens what is there. Raises UserError when a file is damaged (a torn last line is not)."""
        self.folder, self.image_size = folder, image_size
        self.trials = Journal(folder / "trials.jsonl")
        self._retry_failures()
        self.journaled = len(self.trials.records)
        self._ahead = Journal(folder / "ahead.jsonl")
        # Side lines are written before the journal's line: a crash in between leaves one too many.
        for name in ("metrics.jsonl", "right.jsonl"):
            _forget_from(folder / name, self.journaled)
        self._metrics, self._right = (
            Journal(folder / "metrics.jsonl"),
            Journal(folder / "right.jsonl"),
        )
        self.known = {record["key"]: _result(record) for record in self.trials.records}
        for record in self._ahead.records:
            self.known.setdefault(record["key"], TrialResult(**record))
        journaled = {record["key"] for record in self.trials.records}
        self._early = {record["key"] for record in self._ahead.records} - journaled
        self._decided = 0
        # Wall clock of the search so far: a resume counts on from the last decision.
        self._seconds_before = self.trials.records[-1]["search_seconds"] if self.journaled else 0.0
        self._opened = time.perf_counter()

    @property
    def early_results(self) -> int:
        """How many results wait for their turn."""
        return len(self._early)

    def finished(self, result: TrialResult, early: bool) -> None:
        """A trial is trained; an early result is kept on disk, so that it is never trained again."""
        if early:
            self._ahead.append(result.to_json())
            self._early.add(result.key)
        self.known[result.key] = result

    def decided(
        self, candidate: Candidate, spec: TrialSpec, result: TrialResult, decision: str
    ) -> None:
        """The strategy was told: one line into the journal, unless it is there from before a resume.

        Raises UserError when the journal tells another story than the engine.
        """
        number, self._decided = self._decided, self._decided + 1
        if number < self.journaled:
            line = self.trials.records[number]
            if (line["key"], line["decision"]) != (spec.key, decision):
                raise UserError(
                    f"{self.trials.path}: line {number + 1} does not follow from run.yaml and the lines "
                    "before it; was one of the files edited? Start a new run"
                )
            return
        speculative = result.key in self._early
        self._early.discard(result.key)
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
        self.trials.append(
            self._line(number, candidate, spec, result, decision) | {"speculative": speculative}
        )

    def done(self) -> None:
        """The search has ended: nothing lies ahead any more."""
        self._ahead.path.unlink(missing_ok=True)

    def _retry_failures(self) -> None:
        """A search that failures stopped is resumed by someone who has mended their cause: try them again."""
        last = self.trials.records[-MAX_FAILURES_IN_A_ROW:]
        if len(last) == MAX_FAILURES_IN_A_ROW and all(line["status"] == "failed" for line in last):
            log.warning("the last %d trials failed; they are tried again", len(last))
            self.trials.drop_last(len(last))

    def _line(
        self, number: int, candidate: Candidate, spec: TrialSpec, result: TrialResult, decision: str
    ) -> dict[str, Any]:
        arch = candidate.architecture
        parameters = arch.count_parameters()
        described = {"trial": number, "phase": candidate.phase, "reason_proposed": candidate.reason}
        described |= {**arch.to_json(), "epochs": candidate.epochs}
        counted = {"params_millions": parameters / 1e6, "parameters": parameters}
        counted |= {
            "macs": arch.count_macs(self.image_size),
            "data_fraction": spec.data.data_fraction,
        }
        measured = result.to_json()
        for elsewhere in ("history", "right_bits"):
            del measured[elsewhere]
        clock = {
            "finished": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "search_seconds": round(self._seconds_before + time.perf_counter() - self._opened, 3),
        }
        return {**described, **counted, **measured, "decision": decision, **clock}


def right_images(run: Path, trial: int) -> NDArray[np.bool_]:
    """(n,) bool: which of the n validation images, in order, trial number `trial` got right.

    Raises UserError when the run has no such trial.
    """
    for record in read_journal(run / "right.jsonl"):
        if record["trial"] == trial:
            bits = np.frombuffer(bytes.fromhex(record["bits"]), dtype=np.uint8)
            return np.unpackbits(bits, count=record["images"]).astype(bool)
    raise UserError(f"{run / 'right.jsonl'}: has no trial {trial}")


def _result(line: dict[str, Any]) -> TrialResult:
    """A result as the journal tells it: without the history and bits that the side files hold."""
    fields = TrialResult.__dataclass_fields__.keys() - {"history", "right_bits"}
    return TrialResult(**{field: line[field] for field in fields})


def _forget_from(path: Path, trial: int) -> None:
    """Drops the lines of trials from number `trial` on; the final training's lines stay."""
    records = read_journal(path)
    kept = [r for r in records if r["trial"] == "final" or r["trial"] < trial]
    if len(kept) < len(records):
        write_text(path, "".join(json.dumps(record) + "\n" for record in kept))
