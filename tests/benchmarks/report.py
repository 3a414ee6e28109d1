"""What every benchmark prints beside its figures: the machine, a calibration, a table and a line of JSON."""

import json
import math
import os
import platform
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

CALIBRATION_STEPS = 2_000_000
TICKS = os.sysconf("SC_CLK_TCK")


def calibration() -> float:
    """CPU seconds of a fixed pure-Python loop: how fast this machine is just now."""
    began = time.process_time()
    total = 0
    for step in range(CALIBRATION_STEPS):
        total += step & 7
    assert total
    return time.process_time() - began


def cpu_seconds(pid: int, *, children: bool = True) -> float:
    """User and system time of a process and of all that it has started, whether they live or have ended."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    if not children:
        return sum(map(int, fields[11:13])) / TICKS
    alive = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return sum(map(int, fields[11:15])) / TICKS + sum(cpu_seconds(int(child)) for child in alive)


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` of all values do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def show(title: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Print a table for people, then the same as one line of JSON for programs."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title)
    names = list(rows[0])
    for name in names:
        table.add_column(name, justify="left" if name == names[0] else "right")
    for row in rows:
        table.add_row(*(f"{value:.3g}" if isinstance(value, float) else str(value) for value in row.values()))
    Console(width=160).print(table)
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    print(f"machine: {machine}; calibration loop {calibration():.3f} CPU s; load {os.getloadavg()[0]:.1f}")
    print(json.dumps({"title": title, "rows": list(rows)}))
