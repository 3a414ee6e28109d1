"""When a cron expression is due, in a time zone: what cron does on Debian, also where the clocks change.

- An expression with a fixed minute and hour (`30 2 * * *`) is due once on every day that it names. Where the clocks go
  forward over it, it is due at the first moment after the gap; where they go back, the first time only.
- One whose minute or hour begins with `*` follows the time that passes: in the hour that there is twice it is due
  twice, in the one that is left out not at all.

Known: on Lord Howe Island, where the clocks change by half an hour, expressions of the second kind may be off by that
much until the end of the day of the change (the library steps by whole hours).
"""

import calendar
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from functools import cached_property
from zoneinfo import ZoneInfo

FIELDS = "minute hour day-of-month month day-of-week"
_MACROS = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
_PORTABLE = re.compile(r"[0-9A-Za-z*/,-]+", re.ASCII)
_WIDEST_S = 3 * 3600
"""More than clocks are ever put back: a time on the wall that is later than now may have been an hour ago."""
_NAMES = re.compile(r"sun|mon|tue|wed|thu|fri|sat|jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec", re.IGNORECASE)


@dataclass(frozen=True)
class Cron:
    """A cron expression of five fields in a time zone; times are Unix seconds. `check` tells whether it is one."""

    expression: str
    timezone: str = "UTC"

    def check(self) -> None:
        """Raises ValueError, with the mend, where it is none, or will never be due."""
        fields = self.expression.split()
        mended = _MACROS.get(self.expression.strip().lower())
        if mended or len(fields) != 5:
            example = mended or "30 2 * * *"
            raise ValueError(f'"{self.expression}" is no cron expression of five fields ({FIELDS}); write "{example}"')
        for name, field in zip(FIELDS.split(), fields, strict=True):
            if not _PORTABLE.fullmatch(field) or re.search("[A-Za-z]", _NAMES.sub("", field)):
                raise ValueError(f'{name} "{field}" is none that every cron knows; write numbers, names, *, / , and -')
        from cronsim import CronSim, CronSimError

        try:
            next(CronSim(self.expression, datetime(2000, 1, 1)))  # noqa: DTZ001 - of no zone: only whether it comes
        except CronSimError as error:
            never = _never(*fields[2:4])
            if never:
                raise ValueError(f'"{self.expression}": {never} never comes; mend day-of-month or month') from None
            problem = f'"{self.expression}" is no cron expression ({_plain(error)}); write e.g. "30 2 * * *"'
            raise ValueError(problem) from None
        except StopIteration:
            raise ValueError(f'"{self.expression}" names a day that never comes; mend day-of-month or month') from None

    def next(self, after: float) -> float:
        """The first time after `after` at which it is due."""
        return next(due for due in self._times(after) if due > after)

    def last(self, until: float, since: float) -> float | None:
        """The last time that is no later than `until` at which it was due, if that is after `since`."""
        for due in self._times(until + _WIDEST_S, reverse=True):
            if due <= since:
                return None
            if due <= until:
                return due
        return None

    @cached_property
    def _zone(self) -> tzinfo:
        return UTC if self.timezone == "UTC" else ZoneInfo(self.timezone)

    def _times(self, start: float, *, reverse: bool = False) -> Iterator[float]:
        from cronsim import CronSim

        for moment in CronSim(self.expression, datetime.fromtimestamp(start, self._zone), reverse=reverse):
            yield moment.timestamp()


def check_timezone(name: object) -> str:
    """The name of a time zone, unchanged. Raises ValueError with the mend."""
    import zoneinfo
    from difflib import get_close_matches

    try:
        if isinstance(name, str) and name:
            ZoneInfo(name)
            return name
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        pass
    known = zoneinfo.available_timezones()
    if not known:
        raise ValueError(f"{name!r:.60}: this machine knows no time zones; install the package tzdata")
    by_end = {zone.rpartition("/")[2].lower(): zone for zone in sorted(known)} | {zone.lower(): zone for zone in known}
    close = get_close_matches(name.lower(), by_end, n=1, cutoff=0.75) if isinstance(name, str) else []
    mend = f'write "{by_end[close[0]]}"' if close else 'write one like "Europe/Madrid"'
    raise ValueError(f"{name!r:.60} is no time zone; {mend}")


def _never(day: str, month: str) -> str:
    """The day that no year has, such as 30 February, where one is named; else nothing."""
    names = [name.lower() for name in calendar.month_abbr]
    months = [names.index(one.lower()) if one.lower() in names else one for one in month.split(",")]
    try:
        days, numbers = [int(one) for one in day.split(",")], [int(one) for one in months]
        longest = max(calendar.monthrange(2000, number)[1] for number in numbers)
    except ValueError:  # a span, a step, or no number at all; calendar's own error is one too
        return ""
    first = min(days)
    return f"{first} {calendar.month_name[numbers[0]]}" if longest < first <= 31 else ""


def _plain(error: Exception) -> str:
    text = str(error)
    return text[:1].lower() + text[1:]
