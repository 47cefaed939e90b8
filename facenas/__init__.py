"""facenas: find, train and prove face-recognition networks by neural architecture search.

    import facenas

    found = facenas.search("demo-digits", run="runs/first")  # a preset
    result = facenas.train(found, epochs=5)
    net = facenas.load(found.run)
    labels, probabilities = net.predict(images)

`facenas.spaces`, `facenas.strategies` and `facenas.heads` hold what is searched, searched by and trained with,
`facenas.benches` what is measured. All is imported on first use: `import facenas` takes milliseconds.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from facenas._version import __version__

if TYPE_CHECKING:
    from facenas import spaces, strategies
    from facenas.api import (
        SearchResult,
        StudyResult,
        TrainResult,
        export_int8,
        export_latency,
        load,
        resume,
        search,
        study,
        train,
    )
    from facenas.errors import CandidateError, SearchStoppedError, UserError
    from facenas.evaluation import benches, evaluate
    from facenas.evaluation.benches.result import BenchResult
    from facenas.evaluation.network import Network
    from facenas.models import heads
    from facenas.runs.callbacks import Callback

# Where each name of the front door lives; a module of its own has no attribute.
_NAMES = {
    "search": "facenas.api:search",
    "resume": "facenas.api:resume",
    "train": "facenas.api:train",
    "study": "facenas.api:study",
    "load": "facenas.api:load",
    "export_int8": "facenas.api:export_int8",
    "export_latency": "facenas.api:export_latency",
    "evaluate": "facenas.evaluation:evaluate",
    "benches": "facenas.evaluation.benches",
    "heads": "facenas.models.heads",
    "Network": "facenas.evaluation.network:Network",
    "BenchResult": "facenas.evaluation.benches.result:BenchResult",
    "SearchResult": "facenas.api:SearchResult",
    "TrainResult": "facenas.api:TrainResult",
    "StudyResult": "facenas.api:StudyResult",
    "Callback": "facenas.runs.callbacks:Callback",
    "UserError": "facenas.errors:UserError",
    "SearchStoppedError": "facenas.errors:SearchStoppedError",
    "CandidateError": "facenas.errors:CandidateError",
    "spaces": "facenas.spaces",
    "strategies": "facenas.strategies",
}

__all__ = [
    "BenchResult",
    "Callback",
    "CandidateError",
    "Network",
    "SearchResult",
    "SearchStoppedError",
    "StudyResult",
    "TrainResult",
    "UserError",
    "__version__",
    "benches",
    "evaluate",
    "export_int8",
    "export_latency",
    "heads",
    "load",
    "resume",
    "search",
    "spaces",
    "strategies",
    "study",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _NAMES:
        raise AttributeError(f"module 'facenas' has no attribute {name!r}")
    module, _, attribute = _NAMES[name].partition(":")
    found = importlib.import_module(module)
    return getattr(found, attribute) if attribute else found


def __dir__() -> list[str]:
    return sorted([*globals(), *_NAMES])
