"""Which model versions serve here: what was promoted in a registry's bucket, as files that runs can read.

Looking costs nothing while nothing changes: the store tells of every object, and a registry is read again at the next
run after one of its promotions has come or gone. A run keeps the file that it was given until it ends.
"""

import asyncio
import hashlib
import logging
import math
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from fdl.forward import parse_forward
from infra.local import buckets
from infra.local.external.store import ExternalStore
from infra.local.objects import ObjectStore, Origin
from infra.local.services import Deployed
from infra.local.stored import Bucket, StoredObject, StoreError
from infra.local.users import policy
from infra.local.users.identity import ADMIN, user_of
from layers.runtime import models
from layers.runtime.contract import InputError
from layers.runtime.function import model_variable
from layers.runtime.models import RegistryError

FUNCTION = "DIOSCAR_FUNCTION"
PREFIX = model_variable("")
REST_S = 1.0
"""For how long a registry that could not be looked into is not looked for again."""
POLL_S = 5.0
"""How often a registry in another store is looked into, while runs ask for its models: nobody tells of that store."""

log = logging.getLogger("dioscar.models")


Served = dict[tuple[str, str], tuple[models.Promotion, Path]]
"""By alias and model."""


@dataclass
class Shelf:
    """One registry as one owner's services see it; `changes` are counted, and those that have been `read`.

    Of each alias that somebody has asked for, and each model, it has the promotion that is followed, and its file.
    """

    bucket: str
    owner: str
    folder: Path
    changes: int = 1
    read: int = 0
    again_at: float = 0.0
    made: float = 0.0
    known: bool = False
    aliases: frozenset[str] = frozenset({models.SERVING})
    served: Served = field(default_factory=dict)
    problems: dict[tuple[str, str], str] = field(default_factory=dict)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class Models:
    """The models of one cluster; belongs to its event loop."""

    def __init__(self, data: Path, store: ObjectStore) -> None:
        self._data = data
        self._store = store
        self._elsewhere = isinstance(store, ExternalStore)
        self._shelves: dict[tuple[str, str], Shelf] = {}
        self._registries: frozenset[str] = frozenset()
        self._used: Counter[Path] = Counter()
        self._tasks: set[asyncio.Future[Any]] = set()
        store.listeners.append(self._on_object)

    def clear(self) -> None:
        """Remove what an earlier process has fetched."""
        shutil.rmtree(self._data / "models", ignore_errors=True)

    async def close(self) -> None:
        """Finish what is being tidied away."""
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @asynccontextmanager
    async def served(self, deployed: Deployed, *, call: bool = False) -> AsyncIterator[Mapping[str, str]]:
        """The variables that name the models' files for a run that starts now; the files stay as long as the `with`.

        What the service's own variables say stands. A `call` is served by what is shipped where nobody can tell what
        was promoted, because another store does not answer; a job is tried again later. Raises OSError.
        """
        try:
            paths = await self._paths(deployed)
        except OSError as error:
            if not call:
                raise
            log.error("a call of %s is served by the shipped models: %s", deployed.name, error)
            paths = {}
        if not paths:
            yield {}
            return
        folders = [path.parent for path in paths.values()]
        self._used.update(folders)
        try:
            yield {name: str(path) for name, path in paths.items()}
        finally:
            for folder in folders:
                self._used[folder] -= 1
            self._tidy(folders)

    async def summary(self) -> list[dict[str, Any]]:
        """The registries that services have asked for, for people to see: what serves, and what cannot."""
        found = []
        for shelf in list(self._shelves.values()):
            if self._due(shelf):
                with suppress(OSError):
                    await self._look(shelf)
            if shelf.served or shelf.problems:
                owner = "" if shelf.owner == ADMIN else shelf.owner
                serving = [asdict(promotion) for _, (promotion, _) in sorted(shelf.served.items())]
                problems = [
                    {"alias": alias, "model": model, "problem": problem}
                    for (alias, model), problem in sorted(shelf.problems.items())
                ]
                found.append({"bucket": shelf.bucket, "owner": owner, "serving": serving, "problems": problems})
        return found

    def on_service(self, deployed: Deployed | None) -> None:
        """A service has changed: the registry that it forwards to is there from now on."""
        if deployed is None or FUNCTION not in deployed.variables:
            return
        bucket = registry_of(deployed)
        if deployed.tenant and models.VARIABLE not in deployed.variables:
            return  # a user's services do not make the registry that is everybody's
        try:
            rules = parse_forward(deployed.variables.get("FORWARD", ""))
        except ValueError:
            return
        if any(rule.bucket == bucket for rule in rules):
            self._later(self._make(bucket, deployed.owner))

    async def _make(self, bucket: str, owner: str) -> None:
        try:
            await self._store.ensure_bucket(bucket, owner)
        except (StoreError, OSError) as error:
            log.warning('the registry\'s bucket "%s" cannot be made: %s', bucket, error)

    async def _paths(self, deployed: Deployed) -> dict[str, Path]:
        if FUNCTION not in deployed.variables:
            return {}
        shelf = self._shelf(registry_of(deployed), deployed.owner)
        pinned = aliases_of(deployed)
        if not shelf.aliases.issuperset(pinned.values()):
            shelf.aliases |= frozenset(pinned.values())
            shelf.changes += 1
        due = self._due(shelf)
        if not due and not shelf.served:
            return {}
        if not self._elsewhere:
            bucket = buckets.get(self._store.database.read, shelf.bucket)
            if bucket is None or not is_for(bucket, deployed):
                shelf.read, shelf.again_at = shelf.changes, time.monotonic() + REST_S
                return {}
            if bucket.created != shelf.made:  # another one of that name
                shelf.made, shelf.changes, due = bucket.created, shelf.changes + 1, True
        if due and shelf.known and self._elsewhere:
            if not shelf.lock.locked():
                self._later(self._look(shelf))  # which may take its time: nobody waits for another store
        elif due:
            await self._look(shelf)
        paths = {}
        for (alias, name), (_, path) in shelf.served.items():
            variable = model_variable(name)
            if alias == (pinned.get(variable) if variable in deployed.variables else models.SERVING):
                paths[variable] = path
        return paths

    def _shelf(self, bucket: str, owner: str) -> Shelf:
        shelf = self._shelves.get((bucket, owner))
        if shelf is None:
            shelf = self._shelves[bucket, owner] = Shelf(bucket, owner, _folder(self._data, bucket, owner))
            self._registries |= {bucket}
        return shelf

    def _due(self, shelf: Shelf) -> bool:
        return shelf.read < shelf.changes or time.monotonic() >= shelf.again_at

    async def _look(self, shelf: Shelf) -> None:
        """Read the registry again; what cannot be read now leaves what served before."""
        async with shelf.lock:
            if not self._due(shelf):
                return  # somebody else has, while we waited
            changes = shelf.changes
            try:
                served, problems = await self._read(shelf)
            except OSError as error:  # the disk, or another store that does not answer
                if not shelf.known:
                    raise
                shelf.read, shelf.again_at = changes, time.monotonic() + POLL_S
                log.error("the registry %s cannot be read, what served before goes on: %s", shelf.bucket, error)
                return
            for which, problem in problems.items():
                if shelf.problems.get(which) != problem:
                    now = served[which][0].version if which in served else "what is shipped"
                    log.error("model %s: %s; %s goes on serving", which[1], problem, now)
            for which, (promotion, _) in served.items():
                if which not in shelf.served or shelf.served[which][0] != promotion:
                    log.info(
                        "model %s: %s is %s (promotion %d)", which[1], promotion.version, *which[:1], promotion.number
                    )
            before, shelf.served, shelf.problems, shelf.known = shelf.served, served, problems, True
            shelf.read = changes  # only now: who starts meanwhile waits for what we have read
            shelf.again_at = time.monotonic() + POLL_S if self._elsewhere else math.inf
            self._tidy([path.parent for _, path in before.values()])

    async def _read(self, shelf: Shelf) -> tuple[Served, dict[tuple[str, str], str]]:
        """The newest promotion of each model that names a whole version, and what is wrong with newer ones."""
        places: dict[tuple[str, str], list[models.Place]] = {}
        try:
            for key in await self._store.names(shelf.bucket, ""):
                place = models.read_place(key)
                if place is not None and place.alias in shelf.aliases:
                    places.setdefault((place.alias, place.model), []).append(place)
        except (StoreError, InputError):  # there is no such bucket, any more
            return {}, {}
        served: Served = {}
        problems: dict[tuple[str, str], str] = {}
        for which, some in places.items():
            for place in sorted(some, key=lambda place: place.key, reverse=True):
                try:
                    served[which] = await self._fetch(shelf, place)
                    break
                except RegistryError as error:
                    problems.setdefault(which, str(error))
        return served, problems

    async def _fetch(self, shelf: Shelf, place: models.Place) -> tuple[models.Promotion, Path]:
        """The promotion and the file of its version. Raises RegistryError where either is missing or damaged."""
        shelf.folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".new-", dir=shelf.folder) as name:
            new = Path(name)
            told = await self._copy(shelf.bucket, place.key, new / "told", models.LARGEST)
            promotion = models.read_promotion(place, told.read_bytes())
            told.unlink()
            data = promotion.to_bytes()
            folder = shelf.folder / f"{place.model}-{place.number:08d}-{hashlib.sha256(data).hexdigest()[:16]}"
            if folder.is_dir():
                return promotion, folder / models.MODEL
            key = models.model_key(place.model, place.version)
            path = await self._copy(shelf.bucket, key, new / models.MODEL)
            await asyncio.to_thread(models.check, path, promotion, f"{shelf.bucket}/{key}")
            (new / models.PROMOTION).write_bytes(data)
            for file in new.iterdir():
                file.chmod(0o644)  # a container's user is another; the data folder is closed to all but us
            new.chmod(0o755)
            new.rename(folder)
            new.mkdir()  # for the `with` to remove
        return promotion, folder / models.MODEL

    async def _copy(self, bucket: str, key: str, target: Path, most: float = math.inf) -> Path:
        stored = await self._store.look(bucket, key)
        if stored is None:
            raise RegistryError(f"{bucket}/{key}: is not there; promote another version")
        if stored.size > most:
            raise RegistryError(f"{bucket}/{key}: has {stored.size} bytes, which is too much")
        try:
            await self._store.materialise(stored, target)
        except (StoreError, InputError) as error:
            raise RegistryError(str(error)) from None
        return target

    def _tidy(self, folders: list[Path]) -> None:
        """Remove those that neither serve nor are used by a run."""
        serving = {path.parent for shelf in self._shelves.values() for _, path in shelf.served.values()}
        for folder in folders:
            if self._used[folder] <= 0:
                del self._used[folder]
                if folder not in serving:
                    with suppress(OSError):
                        gone = folder.rename(folder.with_name(f".old-{folder.name}"))
                        self._later(asyncio.to_thread(shutil.rmtree, gone, True))

    def _later(self, work: Any) -> None:
        self._tasks.add(task := asyncio.ensure_future(work))
        task.add_done_callback(self._tasks.discard)

    def _on_object(self, _connection: Any, stored: StoredObject, _event: str, _origin: Origin) -> None:
        """In the transaction that stores or removes an object."""
        if stored.bucket in self._registries and ("/promotions/" in stored.key or "/versions/" in stored.key):
            self._store.database.after_commit(partial(self._mark, stored.bucket))

    def _mark(self, bucket: str) -> None:
        for shelf in self._shelves.values():
            if shelf.bucket == bucket:
                shelf.changes += 1


def registry_of(deployed: Deployed) -> str:
    """The bucket in which a service's models are promoted."""
    return deployed.variables.get(models.VARIABLE) or models.BUCKET


def aliases_of(deployed: Deployed) -> dict[str, str]:
    """The aliases that a service pins, by the variables that do."""
    return {
        variable: alias
        for variable, value in deployed.variables.items()
        if variable.startswith(PREFIX) and (alias := models.alias_in(value))
    }


def is_for(bucket: Bucket, deployed: Deployed) -> bool:
    """Whether a registry's models serve for the owner of a service.

    What a user has named for everybody does not: it must be the owner's, the administrator's and shared with the owner,
    or one that the service names itself and its owner sees.
    """
    owner = user_of(deployed.owner)
    if bucket.owner == deployed.owner or models.VARIABLE in deployed.variables:
        return policy.sees_bucket(owner, bucket)
    return bucket.owner in (ADMIN, "") and policy.sees_bucket(owner, bucket)


def readable(data: Path, deployed: Deployed) -> list[Path]:
    """The folder in which a service's runs find their models; made where it is missing."""
    if FUNCTION not in deployed.variables:
        return []
    folder = _folder(data, registry_of(deployed), deployed.owner)
    folder.mkdir(mode=0o755, parents=True, exist_ok=True)
    return [folder]


def _folder(data: Path, bucket: str, owner: str) -> Path:
    """One for each owner: what one may see, another's run must not find."""
    mine = "" if owner == ADMIN else f"~{hashlib.sha256(owner.encode()).hexdigest()[:16]}"
    return data / "models" / f"{hashlib.sha256(bucket.encode()).hexdigest()[:16]}{mine}"
