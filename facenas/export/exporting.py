"""The command: read a run's network, write it, load the file back and compare, all or nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from facenas.errors import UserError
from facenas.export.comparison import Agreement, require_agreement
from facenas.export.onnx_file import encode_onnx, load_onnx
from facenas.export.safetensors_file import encode_safetensors, load_safetensors
from facenas.files import write_atomically
from facenas.models.load import read_trained

_FORMATS = {
    "onnx": (encode_onnx, load_onnx),
    "safetensors": (encode_safetensors, load_safetensors),
}


def export_run(run_folder: Path, format: str, out: Path | None = None) -> dict[str, Any]:
    """Writes the trained network of a run to `out`, by default `<run>/export/<run>.<format>`.

    Returns the file, its format and bytes, and how well the network loaded from it agrees. Raises
    UserError when the format is unknown, the run is not trained, `out` cannot be made or a package is missing,
    SearchStoppedError when the file does not give what the network gives or the disk is full; then no
    file is left, or the one that was there before.
    """
    if format not in _FORMATS:
        raise UserError(f"--format {format}: is unknown; there are {', '.join(_FORMATS)}")
    encode, load = _FORMATS[format]
    trained = read_trained(run_folder)
    content = encode(trained)
    agreements: list[Agreement] = []

    def write_and_compare(temporary: Path) -> None:
        temporary.write_bytes(content)
        agreements.append(require_agreement(trained, load(trained, temporary)))

    path = out or run_folder / "export" / f"{run_folder.resolve().name}.{format}"
    _make_room(path)
    write_atomically(path, write_and_compare)
    return {
        "file": str(path),
        "format": format,
        "bytes": len(content),
        "images_compared": agreements[0].images,
        "min_cosine": agreements[0].min_cosine,
        "max_abs_difference": agreements[0].max_abs_difference,
    }


def _make_room(path: Path) -> None:
    if path.is_dir():
        raise UserError(f"{path}: is a folder; choose the name of a file")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"{path.parent}: cannot be made ({error.strerror}); choose another file"
        ) from None
