"""Any network that gives embeddings, by the name people call it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from facenas.errors import UserError
from facenas.runs import open_run

if TYPE_CHECKING:
    from facenas.evaluation.embedders import Embedder, InputOptions


def open_model(
    model: str,
    runs_dir: Path,
    options: InputOptions | None = None,
    device: str | None = None,
) -> Embedder:
    """A trained run by its name or folder, else a file: a checkpoint, TorchScript or ONNX.

    Raises UserError when it is neither, or is no network of faces.
    """
    from facenas.evaluation.embedders import open_embedder

    path = Path(model)
    if not path.is_file():
        try:
            path = open_run(runs_dir, model).folder
        except UserError:
            raise UserError(
                f"{model}: is neither a file nor a run in {runs_dir}; `facenas runs` lists the runs"
            ) from None
    return open_embedder(path, options, device)
