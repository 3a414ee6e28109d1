"""What the clock says of a schedule: when it is due, and what to do when it is. Pure: the time is an argument."""

from dataclasses import dataclass

from events.call import LATE_S
from events.schedules import Schedule

DAY_S = 86_400.0


@dataclass(frozen=True)
class Step:
    """Run for the due time `run` (None: do not run), and be due again at `due` (None: not by the clock any more)."""

    run: float | None
    due: float | None
    note: str = ""


def first_due(schedule: Schedule, now: float, last: float | None = None) -> float | None:
    """When a schedule that begins (again) now is due; what lies before that, or ran at `last`, is past.

    A run more than a day ahead of the clock was of a wrong clock, and counts for nothing.
    """
    if schedule.cron is not None:
        return schedule.cron.next(max(now, last) if last is not None and last <= now + DAY_S else now)
    if schedule.at is not None:
        return schedule.at if schedule.at > now else None
    return now if schedule.model is not None else None


def step(schedule: Schedule, due: float, now: float, hindrance: str = "") -> Step | None:
    """What to do at `now` about a schedule that was due at `due`; None: wait, because of `hindrance`.

    Of several times that have gone by only the last counts. It was missed where it is more than a minute ago.
    """
    latest, following = due, None
    if schedule.cron is not None:
        latest = schedule.cron.last(now, due - 1) or due
        following = schedule.cron.next(now)
    late_s = now - latest
    if late_s > LATE_S and schedule.missed == "skip":
        return Step(None, following, f"skipped what was due {_ago(late_s)} ago: {hindrance or 'nothing ran then'}")
    if hindrance:
        return None
    return Step(latest, following, f"ran {_ago(late_s)} late" if late_s > LATE_S else "")


def mended(schedule: Schedule, due: float | None, last: float | None, now: float) -> float | None:
    """When it is due after the clock was set back: no later than if the clock had always been right."""
    first = first_due(schedule, now, last)
    return due if schedule.cron is None or due is None or first is None else min(due, first)


def _ago(seconds: float) -> str:
    if seconds < 3600:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.0f} h" if seconds < 2 * DAY_S else f"{seconds / DAY_S:.0f} days"
