"""The model registry: immutable versions in a bucket, and promotions that say which of them serves.

The layout is told in `layers.runtime.models`; this is what reads and writes it, on any S3 store. Functions, which have
no credentials, write the same objects as files, by `version_files`, `report_files` and `promotion_files`, and let their
FORWARD send them to `models/<model>`.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from layers.learning.manifest import Manifest, named, promotion_files, report_files, serving_at, version_files, write
from layers.objects.client import ObjectInfo, S3Client
from layers.objects.errors import NoSuchObject, ObjectError, ObjectExists
from layers.runtime import models
from layers.runtime.models import BUCKET, SERVING, Place, Promotion, RegistryError

__all__ = [
    "BUCKET",
    "SERVING",
    "Conflict",
    "Manifest",
    "NotPassed",
    "Promotion",
    "Registry",
    "RegistryError",
    "Served",
    "Verdict",
    "promotion_files",
    "report_files",
    "serving_at",
    "version_files",
    "write",
]


class Conflict(RegistryError):  # noqa: N818 - a state of the registry
    """Somebody else has promoted meanwhile."""


class NotPassed(RegistryError):  # noqa: N818 - a state of the version
    """No gate has let the version through."""


@dataclass(frozen=True)
class Verdict:
    """A gate's report on a version, kept beside it, and when it was stored (by the store's clock)."""

    sha256: str
    passed: bool
    report: Mapping[str, Any]
    time: datetime


@dataclass(frozen=True)
class Served:
    """A promotion, and when it was stored (by the store's clock); `problem` is why it cannot be followed, if it cannot.

    Of such a one nothing is known but what its key says.
    """

    promotion: Promotion
    time: datetime
    problem: str = ""


class Registry:
    """The registry in one bucket."""

    def __init__(self, client: S3Client, bucket: str = BUCKET) -> None:
        self._client = client
        self.bucket = bucket

    def models(self) -> list[str]:
        """The models that have a version or a promotion, by name."""
        found = {key.partition("/")[0] for key in self._keys("") if "/versions/" in key or "/promotions/" in key}
        return sorted(name for name in found if models.NAME.fullmatch(name))

    def versions(self, model: str) -> list[str]:
        """The versions of a model, whole ones only, in the order of their names."""
        prefix = f"{named(model)}/versions/"
        names = [key.removeprefix(prefix).split("/") for key in self._keys(prefix)]
        return [version for version, *rest in names if rest == [models.MODEL] and models.VERSION.fullmatch(version)]

    def version(self, model: str, start: str) -> str:
        """The one version whose name starts so. Raises RegistryError where there is none, or more than one."""
        versions = self.versions(model)
        found = [version for version in versions if version.startswith(start)]
        if len(found) == 1:
            return found[0]
        where = f"{self.bucket}/{model}/versions/{start}"
        if found:
            raise RegistryError(f"{where}: {len(found)} versions start so; write more of it: {', '.join(found)}")
        known = ", ".join(versions) or "none"
        raise RegistryError(f"{where}: there is no such version; there are {known}")

    def manifest(self, model: str, version: str) -> Manifest:
        """The manifest of a version. Raises RegistryError where it is missing, or another version's."""
        key = models.manifest_key(named(model), version)
        where = f"{self.bucket}/{key}"
        try:
            manifest = Manifest.read(self._client.read(self.bucket, key, models.LARGEST), where)
        except NoSuchObject:
            raise RegistryError(f"{where}: there is no such version of {model}, or it is not whole") from None
        if (manifest.version, models.version_of(manifest.sha256)) != (version, version):
            raise RegistryError(f"{where}: is the manifest of another version ({manifest.version}); train it again")
        return manifest

    def lineage(self, model: str, version: str) -> Iterator[Manifest]:
        """The version's manifest, its parent's, and so on, as far as the registry has them."""
        seen: set[str] = set()
        while version and version not in seen:
            seen.add(version)
            try:
                manifest = self.manifest(model, version)
            except RegistryError:
                if len(seen) == 1:
                    raise
                return  # what was shipped, or made elsewhere
            yield manifest
            version = manifest.parent

    def add(self, manifest: Manifest, source: Path) -> str:
        """Store a version, the model first; returns its name. One that is there already is left as it is.

        Raises RegistryError where the file is not the manifest's, or the version is there and another.
        """
        digest = _digest(source)
        if digest != manifest.sha256:
            raise RegistryError(f"{source}: is not the model of the manifest (SHA-256 {digest}); make it anew")
        model, version = manifest.model, manifest.version
        if not self._put_new(models.model_key(model, version), source):
            self.check(model, version, manifest.sha256)
        self._put_new(models.manifest_key(model, version), manifest.to_bytes())
        return version

    def get(self, model: str, version: str, target: Path) -> Path:
        """Fetch a version's model to `target`. Raises RegistryError where it is missing or damaged."""
        key = models.model_key(named(model), version)
        where = f"{self.bucket}/{key}"
        try:
            self._client.get(self.bucket, key, target)
        except NoSuchObject:
            raise RegistryError(f"{where}: there is no such version of {model}") from None
        digest = _digest(target)
        if models.version_of(digest) != version:
            target.unlink()
            raise RegistryError(f"{where}: is damaged (SHA-256 {digest}); train it again")
        return target

    def check(self, model: str, version: str, sha256: str = "") -> str:
        """The SHA-256 of a version's model, computed from its bytes. Raises RegistryError where it is not the one."""
        import tempfile

        with tempfile.TemporaryDirectory(prefix="dioscar-models-") as folder:
            found = _digest(self.get(model, version, Path(folder) / models.MODEL))
        if sha256 and found != sha256:
            raise RegistryError(f"{self.bucket}/{models.model_key(model, version)}: is another model (SHA-256 {found})")
        return found

    def verdicts(self, model: str, version: str) -> list[Verdict]:
        """What gates have said of a version, the oldest first."""
        found = []
        infos = self._list(f"{models.version_folder(named(model), version)}reports/")
        for info in sorted(infos, key=lambda info: info.modified):
            key = info.key
            data = self._client.read(self.bucket, key, models.LARGEST)
            try:
                report = json.loads(data)
                passed = report["passed"]
            except (ValueError, TypeError, LookupError, RecursionError):
                raise RegistryError(f'{self.bucket}/{key}: is no report of a gate (it has no "passed")') from None
            found.append(Verdict(hashlib.sha256(data).hexdigest(), passed is True, report, info.modified))
        return found

    def serving(self, model: str, alias: str = SERVING) -> Promotion | None:
        """The promotion that serves; None: the shipped file does. Raises RegistryError where it is malformed."""
        place = self._latest(model, alias)
        return None if place is None else self._promotion(place)

    def history(self, model: str, alias: str = SERVING) -> list[Served]:
        """All promotions of an alias, the newest last."""
        found = []
        for info in self._list(models.promotions(named(model), alias)):
            place = models.read_place(info.key)
            if place is None or place.alias != alias:
                continue
            try:
                found.append(Served(self._promotion(place), info.modified))
            except RegistryError as error:
                bare = Promotion(place.model, place.number, place.version, "", place.alias)
                found.append(Served(bare, info.modified, str(error)))
        return sorted(found, key=lambda served: served.promotion.place.key)

    def aliases(self, model: str) -> list[str]:
        """The aliases that promotions of a model name."""
        places = (models.read_place(key) for key in self._keys(models.promotions(named(model))))
        return sorted({place.alias for place in places if place is not None})

    def promote(
        self,
        model: str,
        version: str,
        *,
        alias: str = SERVING,
        reason: str = "",
        force: bool = False,
        previous: str = "",
    ) -> Promotion:
        """Let a version serve from now on; returns the promotion, or the one by which it serves already.

        `previous` is the version of the shipped file, for a first promotion of a registry that has it.

        Raises NotPassed where no gate has let it through (`force` with a reason promotes it all the same), Conflict
        where another promotion has come in between, RegistryError where the version is missing or damaged.
        """
        named(model)
        if not models.NAME.fullmatch(alias):
            raise RegistryError(f'"{alias}" is no alias; write small letters, digits and hyphens')
        if force and not reason:
            raise RegistryError("a promotion by force needs a reason; say why")
        self.manifest(model, version)
        sha256 = self.check(model, version)
        history = self.history(model, alias)
        now = history[-1].promotion if history else None
        if now is not None and now.version == version and not history[-1].problem:
            return now
        passed = [verdict.sha256 for verdict in self.verdicts(model, version) if verdict.passed]
        if not passed and not force:
            raise NotPassed(f"{model} {version}: no gate has let it through; validate it, or promote it by force")
        return self._promote(
            Promotion(
                model,
                now.number + 1 if now else 1,
                version,
                sha256,
                alias,
                previous=now.version if now else previous,
                report=passed[-1] if passed else "",
                reason=reason,
                forced=not passed,
            )
        )

    def rollback(
        self, model: str, to: str = "", *, alias: str = SERVING, reason: str = "", shipped: str = ""
    ) -> Promotion:
        """Let the version that served before (or `to`, which has served once) serve again, by a new promotion.

        `shipped` is the version of the shipped file, which served before the first promotion, if the registry has it.

        Raises RegistryError where there is none, or none such; else as `promote` does.
        """
        history = self.history(model, alias)
        if not history:
            raise RegistryError(
                f"{model}: nothing was promoted, the shipped file serves; there is nothing to roll back"
            )
        now = history[-1].promotion
        whole = [one.promotion.version for one in history if not one.problem and one.promotion.version != now.version]
        target = to or now.previous or (whole[-1] if history[-1].problem and whole else "") or shipped
        if not target:
            raise RegistryError(f"{model}: before {now.version} the shipped file served, which is no version here")
        served = [one.promotion for one in history]
        if to and to != shipped and to not in {version for one in served for version in (one.version, one.previous)}:
            raise RegistryError(f"{model} {to}: has never served; promote it instead")
        if target == now.version and not history[-1].problem:
            return now
        self.manifest(model, target)
        before = next((one for one in reversed(served) if one.version == target), None)
        return self._promote(
            Promotion(
                model,
                now.number + 1,
                target,
                self.check(model, target),
                alias,
                previous=now.version,
                report=before.report if before else "",
                reason=reason or f"rolled back from {now.version}",
                forced=before.forced if before else False,
            )
        )

    def _promote(self, promotion: Promotion) -> Promotion:
        """Store it, and see that it serves."""
        place, data = promotion.place, promotion.to_bytes()
        if not self._put_new(place.key, data) and self._client.read(self.bucket, place.key, models.LARGEST) != data:
            raise Conflict(f"{self.bucket}/{place.key}: somebody has promoted it just now; look, and promote again")
        latest = self._latest(promotion.model, promotion.alias)
        if latest != place:
            other = latest.version if latest else "nothing"
            raise Conflict(
                f"{promotion.model}: {other} was promoted at the same time, and serves; look, and promote again"
            )
        return promotion

    def _latest(self, model: str, alias: str) -> Place | None:
        return models.latest(self._keys(models.promotions(named(model), alias)), alias)

    def _promotion(self, place: Place) -> Promotion:
        return models.read_promotion(place, self._client.read(self.bucket, place.key, models.LARGEST))

    def _keys(self, prefix: str) -> list[str]:
        return [info.key for info in self._list(prefix)]

    def _list(self, prefix: str) -> list[ObjectInfo]:
        try:
            return list(self._client.list(self.bucket, prefix))
        except NoSuchObject:  # the bucket: nobody has stored a model yet
            return []

    def _put_new(self, key: str, source: Path | bytes) -> bool:
        """Store an object where none is; whether it was stored.

        It is looked for first, for the many stores that ignore the condition, or say that they do not know it.
        """
        try:
            self._client.head(self.bucket, key)
        except NoSuchObject:
            pass
        else:
            return False
        try:
            self._client.put(self.bucket, key, source, if_absent=True)
        except ObjectExists:
            return False
        except ObjectError as error:
            if error.status != 501:
                raise
            self._client.put(self.bucket, key, source)
        return True


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
