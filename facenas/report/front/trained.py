"""Members of the front that were trained from scratch: in the run itself, or picked into one beside it."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

from facenas.errors import UserError
from facenas.report.reading import RunFolder, read_about, read_final
from facenas.report.wording import percent
from facenas.spaces import Architecture


@dataclass(frozen=True)
class Trained:
    """A training of one network on the images of the search; `name` is empty for the search's own run."""

    name: str
    architecture: Architecture
    test_accuracy: float | None  # percent

    @property
    def words(self) -> str:
        """Where it was trained, and how well."""
        where = f"trained as {self.name}" if self.name else "trained"
        return where if self.test_accuracy is None else f"{where}: {percent(self.test_accuracy)}"


def trainings(run: RunFolder) -> tuple[Trained, ...]:
    """Of all runs in the same folder, those that ended on the same images; the search's own run first."""
    here, images = run.path.resolve(), run.about.data.fingerprint
    found = [Trained("", run.final.architecture, run.final.test_accuracy)] if run.final else []
    for path in sorted(here.parent.glob("*/train.json")):
        folder = path.parent
        with suppress(UserError):  # another run's fault: its own page tells
            final = read_final(folder)
            same = images and read_about(folder).data.fingerprint == images
            if final and same and folder != here:
                found.append(Trained(folder.name, final.architecture, final.test_accuracy))
    return tuple(found)
