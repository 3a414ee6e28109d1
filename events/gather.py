"""The one place that collects: when enough has arrived, and the request that names it.

`enough` and `request` are what every engine uses. `check` is a whole look at any S3 store, for a cluster whose events
we do not see: `python3 -P -m events.gather FILE` does it once, as a small CronJob does (docs/schedules.md).

What was gathered stands in an object beside the data, `_schedules/<name>.json`. A request is written there before it is
written to its mailbox, under a name that says which it is: whatever a crash interrupts, the next look goes on with the
same request, and no object is gathered twice or passed over.
"""

import hashlib
import json
import os
import re
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from events.schedules import STATE, Gather, ModelAge, Schedule, ScheduleError, canonical, read_alone
from layers.objects.client import S3Client
from layers.objects.errors import NoSuchObject, ObjectError, ObjectExists, StoreUnavailable

LARGEST_STATE = 256 << 20
MOST_REQUESTS = 100
"""Requests that one look writes; the next look goes on."""
_PROMOTION = re.compile(r"(\d{8})-([0-9a-f]{16})\.json", re.ASCII)


@dataclass(frozen=True)
class Arrived:
    """An object that no request has named so far; `modified` in Unix seconds, `mark` whatever tells versions apart."""

    key: str
    size: int
    modified: float
    sha256: str = ""
    mark: str = ""


@dataclass(frozen=True)
class Batch:
    """What one request names (nothing, where a word came alone), and what is done with when it is written."""

    objects: tuple[Arrived, ...]
    done: tuple[Arrived, ...]


@dataclass(frozen=True)
class Request:
    """A file for a service's mailbox."""

    bucket: str
    key: str
    body: bytes


def enough(gather: Gather, arrived: Sequence[Arrived], now: float, *, everything: bool = False) -> Batch | None:
    """What goes into the next request, in the order in which it arrived; None: not enough yet.

    A word comes first, with what is in its folder. With `everything`, whatever there is is enough.
    """
    data = [one for one in arrived if gather.takes(one.key)]
    for word in arrived:
        if gather.is_word(word.key):
            folder = word.key[: -len(gather.word)]
            here = [one for one in data if one.key.startswith(folder)]
            chosen = tuple(here[: gather.most])
            return Batch(chosen, chosen if len(here) > gather.most else (*chosen, word))
    full = (
        (everything and bool(data))
        or (gather.objects and len(data) >= gather.objects)
        or (gather.bytes and sum(one.size for one in data) >= gather.bytes)
        or (gather.age_s and data and now - min(one.modified for one in data) >= gather.age_s)
    )
    chosen = tuple(data[: gather.most])
    return Batch(chosen, chosen) if full else None


def request(schedule: Schedule, number: int, objects: Iterable[Arrived] = ()) -> Request:
    """The schedule's request of that number: its payload, with the objects as `inputs`; the same, word for word."""
    document = dict(schedule.payload)
    if schedule.gather is not None:
        document["inputs"] = [
            {"bucket": schedule.gather.bucket, "key": one.key, **({"sha256": one.sha256} if one.sha256 else {})}
            for one in objects
        ]
    body = canonical(document)
    bucket, folder = schedule.inbox
    name = f"{schedule.name}-{number:06d}-{hashlib.sha256(body).hexdigest()[:12]}.json"
    return Request(bucket, f"{folder}/{name}", body)


def promotions(model: ModelAge) -> str:
    """What the keys of an alias' promotions begin with (layers/runtime/models.py tells the registry's layout)."""
    return f"{model.name}/promotions/" if model.alias == "serving" else f"{model.name}/promotions/{model.alias}/"


def serving(model: ModelAge, keys: Iterable[str]) -> tuple[str, str] | None:
    """The key of the promotion that serves, and that of the version's model; None where nothing was promoted."""
    prefix = promotions(model)
    found = [key for key in keys if key.startswith(prefix) and _PROMOTION.fullmatch(key, len(prefix))]
    if not found:
        return None
    latest = max(found)
    return latest, f"{model.name}/versions/{latest[-21:-5]}/model.onnx"


def check(client: S3Client, schedule: Schedule, now: float, *, everything: bool = False) -> list[Request]:
    """Look at a store once, and write the requests that are due. Raises ObjectError; the next look goes on."""
    gather, model = schedule.gather, schedule.model
    if gather is not None:
        kept = _Kept.read(client, gather.bucket, schedule.name)
        return _gather(client, schedule, gather, kept, now, everything=everything)
    if model is not None:
        kept = _Kept.read(client, model.registry, schedule.name)
        return _renew(client, schedule, model, kept, now, everything=everything)
    raise ScheduleError("is due by the clock; only gather and model are looked for", schedule.name)


def _gather(
    client: S3Client, schedule: Schedule, gather: Gather, kept: "_Kept", now: float, *, everything: bool
) -> list[Request]:
    there = [
        Arrived(found.key, found.size, found.modified.timestamp(), mark=_mark(found.key, found.etag, found.size))
        for found in client.list(gather.bucket, gather.prefix)
        if gather.takes(found.key) or gather.is_word(found.key)
    ]
    there.sort(key=lambda one: (one.modified, one.key))
    kept.gathered &= {one.mark for one in there}  # what is gone need not be remembered
    if kept.new and gather.existing == "skip":
        kept.gathered = {one.mark for one in there}
        kept.write(client)
    written: list[Request] = []
    for _ in range(MOST_REQUESTS):
        batch = enough(gather, [one for one in there if one.mark not in kept.gathered], now, everything=everything)
        if batch is None:
            break
        marks = [one.mark for one in batch.done]
        if not batch.objects:
            kept.gathered.update(marks)
            kept.write(client)
            continue
        written.append(request(schedule, kept.number + 1, batch.objects))
        kept.ask(client, written[-1], marks)
    return written


def _renew(
    client: S3Client, schedule: Schedule, model: ModelAge, kept: "_Kept", now: float, *, everything: bool
) -> list[Request]:
    times = {found.key: found.modified.timestamp() for found in client.list(model.registry, promotions(model))}
    latest = serving(model, times)
    born = 0.0
    if latest is not None:
        promotion, key = latest
        try:
            born = client.head(model.registry, key).modified.timestamp()
        except NoSuchObject:
            born = times[promotion]
    if kept.new:
        kept.last = now if latest is None else 0.0  # the age of the shipped model is not known: it counts from here
        kept.write(client)
    if not everything and now - max(born, kept.last) < model.older_s:
        return []
    made = request(schedule, kept.number + 1)
    kept.last = now
    kept.ask(client, made, [])
    return [made]


@dataclass
class _Kept:
    """What a checker remembers from one look to the next, as an object of the bucket that it watches."""

    bucket: str
    key: str
    new: bool = True
    number: int = 0
    last: float = 0.0
    gathered: set[str] = field(default_factory=set)
    asked: Mapping[str, Any] | None = None

    @classmethod
    def read(cls, client: S3Client, bucket: str, name: str) -> "_Kept":
        key = f"{STATE}{name}.json"
        try:
            document = json.loads(client.read(bucket, key, LARGEST_STATE))
            number, last, asked = int(document["number"]), float(document["last"]), document["asked"]
            kept = cls(bucket, key, new=False, number=number, last=last, asked=asked)
            kept.gathered.update(document["gathered"])
        except NoSuchObject as error:
            if error.code == "NoSuchBucket":
                raise
            return cls(bucket, key)
        except (ValueError, TypeError, LookupError) as error:
            raise ObjectError(
                f"{bucket}/{key}: is not what a checker wrote ({error}); mend it, or remove it to gather all anew"
            ) from None
        if kept.asked is not None:
            kept.deliver(client)  # the last look was interrupted
        return kept

    def write(self, client: S3Client) -> None:
        document = {
            "number": self.number,
            "last": self.last,
            "asked": self.asked,
            "gathered": sorted(self.gathered),
        }
        client.put(self.bucket, self.key, json.dumps(document).encode(), content_type="application/json")
        self.new = False

    def ask(self, client: S3Client, made: Request, marks: list[str]) -> None:
        """Write a request: what it is and what it gathers first, then itself, then that it is written."""
        self.asked = {"bucket": made.bucket, "key": made.key, "body": made.body.decode(), "marks": marks}
        self.write(client)
        self.deliver(client)

    def deliver(self, client: S3Client) -> None:
        asked = self.asked or {}
        bucket, key, body = asked["bucket"], asked["key"], asked["body"].encode()
        try:
            client.head(bucket, key)
        except NoSuchObject:
            _put_new(client, bucket, key, body)
        self.number += 1
        self.gathered.update(asked["marks"])
        self.asked = None
        self.write(client)


def _put_new(client: S3Client, bucket: str, key: str, body: bytes) -> None:
    try:
        client.put(bucket, key, body, content_type="application/json", if_absent=True)
    except ObjectExists:
        return
    except ObjectError as error:
        if error.status != 501:  # a store that says that it does not know the condition
            raise
        client.put(bucket, key, body, content_type="application/json")


def _mark(key: str, etag: str, size: int) -> str:
    """What a version of an object is recognised by; 96 bits tell any number of objects apart."""
    return hashlib.sha256(f"{key}\n{etag}\n{size}".encode()).hexdigest()[:24]


def client_of(environ: Mapping[str, str]) -> S3Client:
    """The store that MINIO_ENDPOINT, MINIO_ACCESS_KEY and MINIO_SECRET_KEY name. Raises ValueError."""
    for name in ("MINIO_ENDPOINT", "MINIO_ACCESS_KEY", "MINIO_SECRET_KEY"):
        if not environ.get(name):
            raise ValueError(f"{name}: is not set; set it to what the object store knows")
    verify = environ.get("MINIO_TLS_VERIFY", "true").strip().lower() not in ("false", "0", "no")
    region = environ.get("MINIO_REGION") or "us-east-1"
    return S3Client(environ["MINIO_ENDPOINT"], environ["MINIO_ACCESS_KEY"], environ["MINIO_SECRET_KEY"], region, verify)


def main(arguments: Sequence[str] | None = None, environ: Mapping[str, str] = os.environ) -> int:
    """Check the schedule in a JSON file, `{"name": NAME, ...fields}`; prints each request that it writes."""
    names = sys.argv[1:] if arguments is None else arguments
    if len(names) != 1:
        print("usage: python3 -P -m events.gather FILE", file=sys.stderr)  # noqa: T201 - a command's answer
        return 2
    try:
        schedule = read_alone(Path(names[0]).read_text(encoding="utf-8"))
        with client_of(environ) as client:
            for made in check(client, schedule, time.time()):
                print(f"{made.bucket}/{made.key}", flush=True)  # noqa: T201
    except (ValueError, OSError) as error:
        print(f"dioscar: {names[0]}: {error}", file=sys.stderr)  # noqa: T201
        return 65
    except StoreUnavailable as error:
        print(f"dioscar: {error}", file=sys.stderr)  # noqa: T201
        return 69
    except ObjectError as error:
        print(f"dioscar: {error}", file=sys.stderr)  # noqa: T201
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
