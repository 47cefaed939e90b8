"""`facenas latency export`: a zip that measures the networks of a space on another machine.

It holds whole networks and the distinct blocks of many (`facenas.models.blocks`) as ONNX files with random
weights, `manifest.json` about them, and `bench.py`, which needs onnxruntime and numpy alone.
"""

from __future__ import annotations

import io
import json
import logging
import random
import warnings
import zipfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from tqdm import tqdm

from facenas._version import __version__
from facenas.errors import UserError, first_line
from facenas.files import reading, write_atomically
from facenas.models.blocks import Block, blocks_of
from facenas.models.latency_table import CHECKED, FORMAT, missing_blocks
from facenas.runs import Run
from facenas.runs.journal import read_journal
from facenas.spaces import Architecture, SearchSpace, from_json
from facenas.spaces.base import fingerprint

log = logging.getLogger(__name__)

_SCRIPT = Path(__file__).with_name("target_bench.py")
# Old enough for what runs on boards and phones: onnxruntime 1.14 and newer.
_OPSET = 17
_NOTHING_NEW = 100  # networks in a row without a new block: there are hardly any others

Shapes = Sequence[tuple[int, ...]]


def export_latency(
    space: SearchSpace[Any],
    candidates: Sequence[Architecture],
    out: Path,
    networks: int = 20,
    blocks: int = 2000,
    draws: int = 2000,
) -> dict[str, Any]:
    """Writes the zip and returns what it holds.

    candidates: whole networks to measure, the first `networks` of them; too few are filled up by random
    members of the space. blocks: how many distinct ones at most, the most frequent first, of these networks
    and of up to `draws` random members. Raises UserError when `out` cannot be written or the package onnx is
    missing, SearchStoppedError when the disk is full; then what was there before is left.
    """
    _check(out)
    candidates = list(dict.fromkeys(candidates))
    chosen = list(dict.fromkeys([*candidates, *_drawn(space, 1, 10 * networks)]))[:networks]
    found, drawn = _find_blocks(space, chosen, draws)
    kept = dict(list(found.items())[:blocks])
    manifest = {
        "format": FORMAT,
        "versions": {"facenas": __version__, "torch": torch.__version__},
        "space": {"kind": space.name, **space.settings.model_dump(mode="json")},
        "images": {
            "in_channels": space.images.in_channels,
            "num_classes": space.images.num_classes,
            "image_size": space.images.image_size,
        },
        "empty": {"file": "empty.onnx"},
        "blocks": [_block_entry(block) for block in kept.values()],
        "networks": [_network_entry(arch) for arch in chosen],
    }
    models = _models(space, kept, chosen)
    write_atomically(out, lambda temporary: _write(temporary, manifest, models))
    known = sum(not lacks for lacks in missing_blocks(space, kept))
    if blocks and known < CHECKED:
        log.warning("%d of %d random networks have all their blocks in %s", known, CHECKED, out)
    return {
        "file": str(out),
        "bytes": out.stat().st_size,
        "networks": len(chosen),
        "candidates": len(candidates),
        "blocks": len(kept),
        "blocks_left_out": len(found) - len(kept),
        "networks_drawn": drawn,
        "networks_known": f"{known} of {CHECKED}",
    }


def candidates_of(run: Run) -> list[Architecture]:
    """Networks of a run, each once: its front or what it found, then all others in the order of its journal."""
    best = run.best() or {}
    found = [*best.get("front", ()), *([best] if best else ())]
    lines = read_journal(run.folder / "trials.jsonl")
    with reading(run.folder, "restore its files"):
        trees = [*(member["architecture"] for member in found), *lines]
        return list(dict.fromkeys(from_json(tree) for tree in trees))


def _check(out: Path) -> None:
    if out.is_dir() or out.suffix.lower() != ".zip":
        raise UserError(f"{out}: should be the name of a .zip file to write")
    if not out.parent.is_dir():
        raise UserError(f"{out.parent}: there is no such folder; make it, or choose another file")
    try:
        import onnx  # noqa: F401  (torch exports with it)
    except ImportError:
        raise UserError("ONNX files need onnx, which is not installed: pip install 'facenas[onnx]'") from None


def _drawn(space: SearchSpace[Any], seed: int, most: int) -> Iterator[Architecture]:
    rng = random.Random(seed)
    return (space.sample(rng) for _ in range(most))


def _find_blocks(
    space: SearchSpace[Any], chosen: Sequence[Architecture], draws: int
) -> tuple[dict[str, Block], int]:
    """Distinct blocks by key, those of `chosen` first, then those of most networks; how many were drawn."""
    found: dict[str, Block] = {}
    networks: Counter[str] = Counter()

    def see(arch: Architecture) -> int:
        blocks = {block.key: block for block in blocks_of(arch, space.images.image_size)}
        before = len(found)
        found.update(blocks)
        networks.update(blocks.keys())
        return len(found) - before

    for arch in chosen:
        see(arch)
    first, drawn, idle = len(found), 0, 0
    with tqdm(_drawn(space, 2, draws), "networks", draws, unit="", disable=None, leave=False) as bar:
        for arch in bar:
            drawn, idle = drawn + 1, 0 if see(arch) else idle + 1
            bar.set_postfix_str(f"{len(found)} blocks")
            if idle == _NOTHING_NEW:
                break
    keys = list(found)
    ordered = keys[:first] + sorted(keys[first:], key=lambda key: -networks[key])
    return {key: found[key] for key in ordered}, drawn


def _block_entry(block: Block) -> dict[str, Any]:
    return {"file": f"blocks/{block.key[:16]}.onnx", "key": block.key, "block": block.summary}


def _network_entry(arch: Architecture) -> dict[str, Any]:
    key = fingerprint(arch.to_json())
    return {"file": f"networks/{key[:16]}.onnx", "key": key, "architecture": arch.to_json()}


def _models(
    space: SearchSpace[Any], blocks: dict[str, Block], networks: Sequence[Architecture]
) -> Iterator[tuple[str, bytes]]:
    """(name, ONNX file) of all, one after another: together they may be large."""
    facts = space.images
    yield "empty.onnx", _encode(nn.Identity(), [(1, 1)])
    for block in blocks.values():
        yield _block_entry(block)["file"], _encode(block.module(), block.inputs)
    for arch in networks:
        shape = (1, facts.in_channels, facts.image_size, facts.image_size)
        yield _network_entry(arch)["file"], _encode(arch.build(0), [shape])


def _encode(module: nn.Module, shapes: Shapes) -> bytes:
    """The ONNX file of a module for inputs of these shapes.

    By torch's older exporter: the newer one takes 1.8 s for a block, a hundred times as long.
    """
    file: Any = io.BytesIO()
    inputs = tuple(torch.zeros(shape) for shape in shapes)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # that it is the older one
            torch.onnx.export(module.eval(), inputs, file, dynamo=False, opset_version=_OPSET)
    except RuntimeError as error:  # an operation of one's own space
        raise UserError(f"a network of this space cannot be written as ONNX ({first_line(error)})") from None
    return bytes(file.getvalue())


def _write(path: Path, manifest: dict[str, Any], models: Iterator[tuple[str, bytes]]) -> None:
    count = 1 + len(manifest["blocks"]) + len(manifest["networks"])
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as zipped:
        zipped.write(_SCRIPT, "bench.py")
        zipped.writestr("manifest.json", json.dumps(manifest, indent=1, allow_nan=False) + "\n")
        for name, content in tqdm(models, "ONNX files", count, unit="", disable=None, leave=False):
            zipped.writestr(name, content)
