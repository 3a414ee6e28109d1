"""Cron expressions against a plain reading of the clock on the wall, minute by minute, where the clocks change."""

from bisect import bisect_right
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from events.cron import Cron, check_timezone

CHANGES = [
    ("Europe/Madrid", (2026, 3, 29)),
    ("Europe/Madrid", (2026, 10, 25)),
    ("America/New_York", (2026, 3, 8)),
    ("America/New_York", (2026, 11, 1)),
    ("Australia/Lord_Howe", (2026, 4, 5)),  # by half an hour
    ("Australia/Lord_Howe", (2026, 10, 4)),
    ("Pacific/Apia", (2011, 12, 30)),  # the day that was left out
    ("America/Santiago", (2026, 9, 6)),  # at midnight
    ("Asia/Kolkata", (2026, 3, 29)),
    ("UTC", (2026, 3, 29)),
]


@cache
def wall(zone: str, day: tuple[int, int, int]) -> tuple[list[float], list[datetime]]:
    """Every minute from a day before a day to two days after it: Unix seconds, and what the clock there shows."""
    start = int(datetime(*day, tzinfo=UTC).timestamp()) - 86_400
    minutes = [float(when) for when in range(start, start + 3 * 86_400, 60)]
    return minutes, [datetime.fromtimestamp(when, ZoneInfo(zone)).replace(tzinfo=None) for when in minutes]


def values(field: str, most: int) -> set[int]:
    found: set[int] = set()
    for term in field.split(","):
        span, _, step = term.partition("/")
        low, _, high = ("0", "-", str(most)) if span == "*" else span.partition("-")
        found |= set(range(int(low), int(high or low) + 1)[:: int(step or 1)])
    return found


def plainly(expression: str, zone: str, day: tuple[int, int, int]) -> list[float]:
    """When cron of Debian runs it, by its manual: `*` follows the time, a fixed time comes once a day."""
    minute, hour = expression.split()[:2]
    minutes, hours = values(minute, 59), values(hour, 23)
    times, shown = wall(zone, day)
    if minute.startswith("*") or hour.startswith("*"):
        return [when for when, on in zip(times, shown, strict=True) if on.minute in minutes and on.hour in hours]
    first: dict[datetime, float] = {}
    highest: list[datetime] = []  # what the clock has shown so far: it only grows, also where it is put back
    for when, on in zip(times, shown, strict=True):
        first.setdefault(on, when)
        highest.append(max(on, highest[-1]) if highest else on)
    found, moment = set(), shown[0]
    while moment <= shown[-1]:
        if moment.minute in minutes and moment.hour in hours:
            left_out = moment not in first
            found.add(times[bisect_right(highest, moment)] if left_out else first[moment])
        moment += timedelta(minutes=1)
    return sorted(found)


def field(most: int) -> st.SearchStrategy[str]:
    number = st.integers(0, most)
    span = st.tuples(number, number).map(lambda pair: f"{min(pair)}-{max(pair)}")
    return st.one_of(
        st.just("*"),
        number.map(str),
        span,
        st.integers(2, 20).map(lambda step: f"*/{step}"),
        st.lists(number, min_size=2, max_size=3, unique=True).map(lambda many: ",".join(map(str, many))),
    )


@settings(max_examples=60)
@given(change=st.sampled_from(CHANGES), minute=field(59), hour=field(23))
def test_it_is_due_when_a_plain_reading_of_the_clock_says_so(change, minute, hour):
    zone, day = change
    if zone == "Australia/Lord_Howe" and "*" in (minute[0], hour[0]):
        return  # the library steps by whole hours where `*` stands, and the clocks change by half of one there
    cron = Cron(f"{minute} {hour} * * *", zone)
    cron.check()
    expected = plainly(cron.expression, zone, day)
    middle = len(expected) // 3  # the change comes on the second of three days
    expected = expected[max(0, middle - 40) : middle + 60]
    if not expected:
        return  # only in the part of a day that the change has cut off
    start = expected[0] - 1
    found, when = [], start
    for _ in expected:
        when = cron.next(when)
        found.append(when)
    assert found == expected
    for earlier, later in list(pairwise(expected))[::17]:
        assert cron.last(later - 1, start) == earlier
        assert cron.last(later, start) == later


@pytest.mark.parametrize("minute", range(0, 240, 7))
def test_the_next_time_is_always_later_also_in_an_hour_that_comes_twice(minute):
    zone = ZoneInfo("Europe/Madrid")
    now = datetime(2026, 10, 25, 0, 30, tzinfo=zone).timestamp() + minute * 60
    due = Cron("30 2 * * *", "Europe/Madrid").next(now)
    assert due > now
    assert datetime.fromtimestamp(due, zone).strftime("%d %H:%M %z") in ("25 02:30 +0200", "26 02:30 +0100")


def test_the_last_time_is_none_that_lies_before_the_span():
    cron = Cron("0 12 * * *")
    noon = datetime(2026, 5, 1, 12, tzinfo=UTC).timestamp()
    assert cron.last(noon + 10, noon - 1) == noon
    assert cron.last(noon + 10, noon) is None
    assert cron.last(noon + 3 * 86_400, noon) == noon + 3 * 86_400


@pytest.mark.parametrize(
    "expression, mend",
    [
        ("@daily", 'write "0 0 * * *"'),
        ("0 0 * *", "five fields"),
        ("0 0 0 * * *", "five fields"),
        ("61 * * * *", "bad minute"),
        ("0 0 31 2 *", "31 February never comes; mend day-of-month or month"),
        ("0 0 31 apr,6 *", "31 April never comes"),
        ("0 0 32 1 *", "bad day-of-month"),
        ("0 0 30 13 *", "bad"),
        ("0 0 L * *", 'day-of-month "L"'),
        ("0 0 * * MON#5", "day-of-week"),
        ("a * * * *", 'minute "a"'),
        ("", "five fields"),
    ],
)
def test_what_is_no_expression_is_refused_with_the_mend(expression, mend):
    with pytest.raises(ValueError, match=mend.replace("*", r"\*")):
        Cron(expression).check()


def test_a_time_zone_that_is_misspelt_is_told_with_the_one_that_was_meant():
    assert check_timezone("Europe/Madrid") == "Europe/Madrid"
    with pytest.raises(ValueError, match='write "Europe/Madrid"'):
        check_timezone("Madrid")
    with pytest.raises(ValueError, match='write "America/New_York"'):
        check_timezone("America/NewYork")
    for wrong in ("", None, 5, "../../etc/passwd", "x" * 5000):
        with pytest.raises(ValueError, match="is no time zone"):
            check_timezone(wrong)
