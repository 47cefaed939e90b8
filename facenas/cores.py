"""How many processor cores there are for us. Never imports torch."""

from __future__ import annotations

import os


def core_count() -> int:
    """Cores this process may use: fewer than the machine has in a container or under a batch system."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
