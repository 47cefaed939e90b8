"""`facenas models`: networks of the literature, and the same at another cost."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from facenas.cli.output import Json, show, table
from facenas.errors import UserError


def models(
    name: Annotated[str | None, typer.Argument(help="One of them, to be scaled or written to a file.")] = None,
    width: Annotated[float | None, typer.Option(help="Times its channels, e.g. 0.5.")] = None,
    depth: Annotated[float | None, typer.Option(help="Times the blocks of its stages.")] = None,
    macs: Annotated[str | None, typer.Option(help="In place of a width: about so many, e.g. 80M.")] = None,
    embedding: Annotated[int | None, typer.Option(min=1, help="How long z is.")] = None,
    out: Annotated[Path | None, typer.Option(help="The JSON file to write; facenas train takes it.")] = None,
    as_json: Json = False,
) -> None:
    """List the named face networks with their sizes, and the published counts they reproduce; scale one."""
    if name is not None:
        show(scaled_model(name, width, depth, macs, embedding, out), as_json)
        return
    if given := [value for value in (width, depth, macs, embedding, out) if value is not None]:
        raise UserError(f"{given[0]}: of which network? Say its name, as in facenas models mobilefacenet")
    rows = list_models()
    if as_json:
        show({"models": rows}, as_json)
        return
    shown = [row | {"GMACs": f"{row['macs'] / 1e9:.3f}"} for row in rows]
    title = "Parameters; head for the 10,572 identities of CASIA-WebFace"
    table(shown, ("name", "backbone", "head", "total", "GMACs", "reproduces"), title)


def list_models() -> list[dict[str, Any]]:
    """One row a network: parameters of backbone, head (of CASIA-WebFace) and both, MACs of the backbone."""
    from facenas.spaces.ir import CASIA_IDENTITIES
    from facenas.spaces.named import NAMED, REPRODUCES

    rows: list[dict[str, Any]] = []
    for name, arch in NAMED.items():
        backbone, head = arch.count_parameters(), arch.embedding * CASIA_IDENTITIES
        row = {"name": name, "backbone": backbone, "head": head, "total": backbone + head}
        rows.append({**row, "macs": arch.count_macs(), "reproduces": REPRODUCES.get(name)})
    return rows


def scaled_model(
    name: str,
    width: float | None,
    depth: float | None,
    macs: str | None,
    embedding: int | None,
    out: Path | None,
) -> dict[str, Any]:
    """What is told of a named network at another width, depth, and length of z; written to `out`."""
    from facenas.files import write_json
    from facenas.report.front import parse_budget
    from facenas.spaces.named import at_macs, named

    for option, value in {"width": width, "depth": depth}.items():
        if value is not None and not 0 < value <= 16:
            raise UserError(f"{option} {value}: a multiplier lies above 0 and at most at 16")
    if width is not None and macs is not None:
        raise UserError(f"macs {macs}: decides the width; leave out --width {width}")
    arch = named(name).scaled(width or 1, depth or 1, embedding)
    arch = arch if macs is None else at_macs(arch, parse_budget(f"macs={macs}")["macs"])
    if out is not None:
        write_json(out, arch.to_json())
    counted = {"parameters": arch.count_parameters(), "macs": arch.count_macs(), "embedding": arch.embedding}
    told = {"network": arch.summary(), **counted, "architecture": arch.to_json()}
    return told | ({"written": str(out)} if out else {})
