"""Schedules: what makes a service run by itself, as `events/schedules.yaml` and files like it say.

A schedule names a service and a payload, and one of: `cron`, `at` (once), `gather` (when enough has arrived below a
prefix), `model` (when the model that serves is too old). Every slip is an error that names file, field and mend.
"""

import base64
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from difflib import get_close_matches
from typing import Any, Literal, TypeVar

from events.amounts import parse_bytes, parse_duration
from events.cron import Cron, check_timezone

T = TypeVar("T")
Missed = Literal["run_once", "skip"]

LARGEST_PAYLOAD = 96 * 1024
"""Bytes of a payload: on a real OSCAR it travels in one environment variable."""
MOST_INPUTS = 10_000
"""Objects that one request may name, as for a request's `select`."""
NAME_MAX = 40
"""A CronJob's name has 52 characters at most, and `dioscar-` stands before it."""
STATE = "_schedules/"
"""The folder of a bucket where a checker on another cluster keeps what it has gathered; nothing gathers from it."""
_NAME = re.compile(r"[a-z](?:[a-z0-9-]*[a-z0-9])?")
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_EVENTS = ("event", "event_type", "Records", "httpMethod")
"""Top-level keys by which a supervisor takes a payload for something else."""


class ScheduleError(ValueError):
    """A schedule that cannot be used: one sentence that names the file, the field and the mend."""

    def __init__(self, problem: str, field: str = "", file: str = "") -> None:
        self.problem, self.field, self.file = problem, field, file
        text = ": ".join(part for part in (file, field, problem) if part)
        super().__init__("".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text))


@dataclass(frozen=True)
class Gather:
    """Run when enough objects below `prefix` (that end in `suffix`) have not been gathered yet.

    Enough are `objects` of them, or `bytes` in all, or the oldest being `age_s` old, or the `word` of whoever makes
    them: an object of that name says that its folder is complete. `most` of them go into one request. What is there
    when the schedule is made counts as new, unless `existing` is `skip`.
    """

    bucket: str
    prefix: str = ""
    suffix: str = ""
    objects: int = 0
    bytes: int = 0
    age_s: int = 0
    word: str = ""
    most: int = MOST_INPUTS
    existing: Literal["gather", "skip"] = "gather"

    def takes(self, key: str) -> bool:
        """Whether an object of that key counts; a `word` does not."""
        return self.sees(key) and key.endswith(self.suffix) and not self.is_word(key)

    def sees(self, key: str) -> bool:
        """Whether an object of that key is below the prefix, and is neither a folder marker nor a checker's own."""
        return key.startswith(self.prefix) and not key.endswith("/") and not key.startswith(STATE)

    def is_word(self, key: str) -> bool:
        """Whether an object of that key says that its folder is complete."""
        return bool(self.word) and self.sees(key) and key.rpartition("/")[2] == self.word


@dataclass(frozen=True)
class ModelAge:
    """Run when the version that serves as `alias` of a model is older than `older_s`; and again after as long."""

    name: str
    older_s: int
    alias: str = "serving"
    registry: str = "models"


@dataclass(frozen=True)
class Schedule:
    """One schedule; of `cron`, `at` (Unix seconds), `gather` and `model` exactly one is set."""

    name: str
    service: str
    payload: Mapping[str, Any] = field(default_factory=dict)
    cron: Cron | None = None
    at: float | None = None
    gather: Gather | None = None
    model: ModelAge | None = None
    missed: Missed = "run_once"
    overlap: bool = False
    paused: bool = False
    mailbox: str = ""

    @property
    def body(self) -> bytes:
        """The payload as the service gets it."""
        return canonical(self.payload)

    @property
    def call(self) -> bytes:
        """The payload as it is posted to `/job`: in base64, since no base64 is ever taken for an event."""
        return base64.b64encode(self.body)

    @property
    def inbox(self) -> tuple[str, str]:
        """The bucket and the folder that requests are written to."""
        bucket, _, folder = (self.mailbox or f"{self.service}/in").partition("/")
        return bucket, folder


def canonical(document: Mapping[str, Any]) -> bytes:
    """A document as JSON, the same bytes whatever the order of its keys."""
    return json.dumps(document, sort_keys=True, ensure_ascii=False).encode()


def read(document: Any) -> list[Schedule]:
    """The schedules of a document, `{"schedules": {NAME: {...}}}`. Raises ScheduleError."""
    if not isinstance(document, Mapping) or not isinstance(document.get("schedules"), Mapping):
        raise ScheduleError("holds no schedules; write schedules: and below it each schedule's name and fields")
    _only(document, ("schedules",), "")
    return [read_one(str(name), entry, f"schedules.{name}") for name, entry in document["schedules"].items()]


def read_one(name: str, entry: Any, where: str = "", *, timed: bool = True) -> Schedule:
    """One schedule from its fields; `where` is the field that holds it. Raises ScheduleError.

    One that is not `timed` need not say when: somebody else knows that.
    """
    if not _NAME.fullmatch(name) or len(name) > NAME_MAX:
        mended = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-0123456789")[:NAME_MAX].strip("-") or "my-schedule"
        raise ScheduleError(
            f'"{name}" is no name of a schedule (at most {NAME_MAX} small letters, digits and "-", the first a '
            f'letter); write "{mended}"',
            where,
        )
    reader = _Reader(
        entry, where, ("service", "payload", *_KINDS, "timezone", "missed", "overlap", "paused", "mailbox")
    )
    kinds = [kind for kind in _KINDS if kind in reader.entry]
    if len(kinds) > 1 or (timed and not kinds):
        what = " and ".join(kinds) + " stand together" if kinds else "says not when"
        raise ScheduleError(f"{what}; write one of {', '.join(_KINDS)}", where)
    kind = kinds[0] if kinds else ""
    reader.fits("timezone", kind in ("cron", "at"), "stands with cron and at only; remove it")
    reader.fits("missed", kind in ("cron", "at"), "stands with cron and at only; what has arrived is never missed")
    reader.fits("mailbox", kind in ("gather", "model"), "stands with gather and model only; remove it")
    timezone = reader.get("timezone", check_timezone, "UTC")
    schedule = Schedule(
        name,
        service=reader.get("service", _name),
        payload=reader.get("payload", _payload, {}),
        cron=reader.get("cron", lambda value: _cron(value, timezone), None),
        at=reader.get("at", lambda value: _moment(value, timezone), None),
        gather=_gather(reader.below("gather")) if kind == "gather" else None,
        model=_model(reader.below("model")) if kind == "model" else None,
        missed=reader.get("missed", lambda value: _one_of(value, ("run_once", "skip")), "run_once"),
        overlap=reader.get("overlap", _flag, False),
        paused=reader.get("paused", _flag, False),
        mailbox=reader.get("mailbox", _mailbox, ""),
    )
    _check_whole(schedule, reader)
    return schedule


def read_alone(text: str, *, timed: bool = True) -> Schedule:
    """The schedule in a JSON document of its own, `{"name": NAME, ...fields}`, as `read_one`. Raises ScheduleError."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ScheduleError(f"is no JSON ({error}); render it again") from None
    if not isinstance(document, dict):
        raise ScheduleError('is no schedule; write {"name": NAME, "service": SERVICE, ...}')
    return read_one(str(document.pop("name", "")), document, timed=timed)


_KINDS = ("cron", "at", "gather", "model")


def _gather(reader: "_Reader") -> Gather:
    reader.only("bucket", "prefix", "suffix", "objects", "bytes", "age", "word", "most", "existing")
    gather = Gather(
        bucket=reader.get("bucket", _bucket),
        prefix=reader.get("prefix", _text, "").lstrip("/"),
        suffix=reader.get("suffix", _text, ""),
        objects=reader.get("objects", _count, 0),
        bytes=reader.get("bytes", parse_bytes, 0),
        age_s=reader.get("age", parse_duration, 0),
        word=reader.get("word", _file_name, ""),
        most=reader.get("most", _count, MOST_INPUTS),
        existing=reader.get("existing", lambda value: _one_of(value, ("gather", "skip")), "gather"),
    )
    if not (gather.objects or gather.bytes or gather.age_s or gather.word):
        raise ScheduleError("says not how much is enough; write one or more of objects, bytes, age, word", reader.where)
    if gather.most > MOST_INPUTS:
        raise ScheduleError(
            f"{gather.most} is more than a request may name; write {MOST_INPUTS} or less", reader.at("most")
        )
    if gather.objects > gather.most:
        raise ScheduleError(
            f"{gather.objects} never fit into a request of {gather.most} (most); write less", reader.at("objects")
        )
    return gather


def _model(reader: "_Reader") -> ModelAge:
    reader.only("name", "older", "alias", "registry")
    return ModelAge(
        name=reader.get("name", _name),
        older_s=reader.get("older", parse_duration),
        alias=reader.get("alias", _name, "serving"),
        registry=reader.get("registry", _bucket, "models"),
    )


def _check_whole(schedule: Schedule, reader: "_Reader") -> None:
    gather = schedule.gather
    if gather is None:
        return
    if "inputs" in schedule.payload:
        raise ScheduleError('has "inputs", which are what is gathered; remove it', reader.at("payload"))
    bucket, folder = schedule.inbox
    if bucket == gather.bucket and gather.takes(f"{folder}/{schedule.name}-0.json".lstrip("/")):
        problem = f"would gather the requests that it writes to {bucket}/{folder}; name another prefix or suffix"
        raise ScheduleError(problem, reader.at("gather.prefix"))


class _Reader:
    """The fields of a mapping, each read by a function that raises ValueError with the mend."""

    def __init__(self, entry: Any, where: str, known: tuple[str, ...] = ()) -> None:
        if not isinstance(entry, Mapping):
            raise ScheduleError("holds no fields; indent them below it", where)
        self.entry, self.where = entry, where
        if known:
            self.only(*known)

    def only(self, *known: str) -> None:
        _only(self.entry, known, self.where)

    def at(self, name: str) -> str:
        return f"{self.where}.{name}" if self.where else name

    def below(self, name: str) -> "_Reader":
        return _Reader(self.entry[name], self.at(name))

    def fits(self, name: str, fits: bool, problem: str) -> None:
        if name in self.entry and not fits:
            raise ScheduleError(problem, self.at(name))

    def get(self, name: str, read: Callable[[Any], T], *default: T) -> T:
        if name not in self.entry:
            if default:
                return default[0]
            raise ScheduleError("is missing; add it", self.at(name))
        try:
            return read(self.entry[name])
        except ValueError as error:
            raise ScheduleError(str(error), self.at(name)) from None


def _only(entry: Mapping[Any, Any], known: tuple[str, ...], where: str) -> None:
    for key in entry:
        if key not in known:
            close = get_close_matches(str(key).lower(), known, n=1)
            mend = f'write "{close[0]}"' if close else "known are " + ", ".join(known)
            raise ScheduleError(f"is no field here; {mend}", f"{where}.{key}" if where else str(key))


def _cron(value: Any, timezone: str) -> Cron:
    if not isinstance(value, str):
        raise ValueError(f"{_shown(value)} is no cron expression; write it in quotes")
    cron = Cron(" ".join(value.split()), timezone)
    cron.check()
    return cron


def _moment(value: Any, timezone: str) -> float:
    from zoneinfo import ZoneInfo

    try:
        moment = datetime.fromisoformat(value)
    except (ValueError, TypeError):
        raise ValueError(f'{_shown(value)} is no time; write one like "2026-12-01T08:30", in quotes') from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=ZoneInfo(timezone))
        if datetime.fromtimestamp(moment.timestamp(), moment.tzinfo).replace(fold=0) != moment:
            raise ValueError(f"{value} is left out in {timezone}, where the clocks go forward; write another time")
    elif timezone != "UTC":
        raise ValueError(f"{value} says its offset itself; remove it, or timezone")
    return moment.timestamp()


def _payload(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ValueError(f"{_shown(value)} is no JSON object; write fields, or nothing at all")
    taken = [key for key in _EVENTS if key in value]
    if taken:
        raise ValueError(f'the field "{taken[0]}" would be taken for an event; give it another name')
    try:
        size = len(json.dumps(value, allow_nan=False).encode())
        if json.loads(json.dumps(value)) != value:
            raise TypeError("a key is no text")
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"is no JSON ({error}); write texts, numbers, true, false, null, lists and fields") from None
    if size > LARGEST_PAYLOAD:
        raise ValueError(f"has {size} bytes, more than {LARGEST_PAYLOAD}; put the data into a bucket and name it")
    return dict(value)


def _name(value: Any) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?", value):
        raise ValueError(f'{_shown(value)} is no name; write small letters, digits and "-"')
    return value


def _bucket(value: Any) -> str:
    if isinstance(value, str) and "/" in value:
        raise ValueError(f'{_shown(value)} is more than a bucket; write what is below it as "prefix"')
    if not isinstance(value, str) or not _BUCKET.fullmatch(value):
        raise ValueError(f'{_shown(value)} is no bucket; write 3 to 63 small letters, digits, "-" and "."')
    return value


def _mailbox(value: Any) -> str:
    bucket, _, folder = value.strip("/").partition("/") if isinstance(value, str) else ("", "", "")
    if not folder or not _BUCKET.fullmatch(bucket):
        raise ValueError(f'{_shown(value)} is no mailbox; write "BUCKET/FOLDER"')
    return f"{bucket}/{folder}"


def _file_name(value: Any) -> str:
    if not isinstance(value, str) or not value or "/" in value:
        raise ValueError(f'{_shown(value)} is no name of an object in a folder; write e.g. "_DONE"')
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{_shown(value)} is no text; write it in quotes")
    return value


def _count(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{_shown(value)} is no whole number above zero")
    return value


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"{_shown(value)} is neither true nor false; write one of them")
    return value


def _one_of(value: Any, known: tuple[Any, ...]) -> Any:
    if value not in known:
        close = get_close_matches(str(value).lower(), known, n=1)
        raise ValueError(f"{_shown(value)} is none; write {close[0] if close else ' or '.join(known)}")
    return value


def _shown(value: Any) -> str:
    text = json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= 80 else f"{text[:76]}..."
