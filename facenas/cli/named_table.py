"""The table of named networks: `facenas models`."""

from __future__ import annotations

from typing import Any

from facenas.spaces.ir import CASIA_IDENTITIES, NAMED, REPRODUCES


def list_models() -> list[dict[str, Any]]:
    """One row a network: parameters of backbone, head (of CASIA-WebFace) and both, MACs of the backbone."""
    rows = []
    for name, arch in NAMED.items():
        backbone, head = arch.count_parameters(), arch.embedding * CASIA_IDENTITIES
        row = {"name": name, "backbone": backbone, "head": head, "total": backbone + head}
        rows.append({**row, "macs": arch.count_macs(), "reproduces": REPRODUCES.get(name)})
    return rows


def print_models(rows: list[dict[str, Any]]) -> None:
    """The rows as a table for a terminal."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"Parameters; head for {CASIA_IDENTITIES:,} identities (CASIA-WebFace)")
    for heading in ("name", "backbone", "head", "total", "GMACs", "reproduces"):
        table.add_column(heading, justify="left" if heading in ("name", "reproduces") else "right")
    for row in rows:
        counts = (f"{row[key]:,}" for key in ("backbone", "head", "total"))
        table.add_row(row["name"], *counts, f"{row['macs'] / 1e9:.3f}", row["reproduces"] or "-")
    Console().print(table)
