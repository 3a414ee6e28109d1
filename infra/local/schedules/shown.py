"""A schedule as people and programs are shown it."""

import json
import sqlite3
from datetime import UTC, datetime
from typing import Any

from events.schedules import Gather, Schedule
from infra.local.schedules import table
from infra.local.schedules.table import Entry


def shown(connection: sqlite3.Connection, entry: Entry, progress: dict[str, Any] | None) -> dict[str, Any]:
    """Everything about a schedule; times in Unix seconds. `last` is the time for which it ran, `ran` when it did."""
    job, state = table.last_job(connection, entry)
    made = connection.execute("SELECT created FROM jobs WHERE id = ?", (job,)).fetchone()
    return {
        "name": entry.name,
        "service": entry.schedule.service,
        "when": when(entry.schedule),
        "state": _state(entry),
        "next": None if entry.paused else entry.due,
        "last": entry.last,
        "ran": made[0] if made else entry.last,
        "job": job or entry.job,
        "job_state": state,
        "request": f"{entry.schedule.inbox[0]}/{entry.request}" if entry.request else "",
        "note": entry.note,
        "arrived": progress,
        "created": entry.created,
        "schedule": json.loads(entry.document),
    }


def when(schedule: Schedule) -> str:
    """In a few words, what a schedule waits for."""
    if schedule.cron is not None:
        return f"{schedule.cron.expression} {schedule.cron.timezone}"
    if schedule.at is not None:
        return f"once, {datetime.fromtimestamp(schedule.at, UTC):%Y-%m-%d %H:%M:%S} UTC"
    if schedule.model is not None:
        return f"{schedule.model.name} ({schedule.model.alias}) older than {_duration(schedule.model.older_s)}"
    return _arrivals(schedule.gather) if schedule.gather is not None else "cannot be read"


def _arrivals(gather: Gather) -> str:
    enough = [
        f"{gather.objects} object{'s' if gather.objects > 1 else ''}" if gather.objects else "",
        _amount(gather.bytes) if gather.bytes else "",
        f"one that is {_duration(gather.age_s)} old" if gather.age_s else "",
        f"the word {gather.word}" if gather.word else "",
    ]
    return f"{' or '.join(filter(None, enough))} in {gather.bucket}/{gather.prefix}*{gather.suffix}"


def _amount(size: int) -> str:
    for unit, length in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10), ("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size % length == 0:
            return f"{size // length} {unit}"
    return f"{size} bytes"


def _duration(seconds: int) -> str:
    for unit, length in (("d", 86_400), ("h", 3600), ("m", 60)):
        if seconds % length == 0:
            return f"{seconds // length}{unit}"
    return f"{seconds}s"


def _state(entry: Entry) -> str:
    if entry.paused:
        return "paused"
    if entry.schedule.at is not None and entry.due is None:
        return "done"
    return "active"
