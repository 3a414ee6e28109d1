"""A version's manifest, and the files by which functions store versions, reports and promotions without credentials."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from layers.runtime import models
from layers.runtime.models import SERVING, Place, Promotion, RegistryError


@dataclass(frozen=True)
class Manifest:
    """Where a version comes from and how good it is; `of` makes one.

    `parent` is the version that it was trained from or compared with (empty: none), `code` the version of the function
    that made it, `request` what it was made from, `data` the objects that it has seen: bucket, key and SHA-256 of each.
    """

    model: str
    version: str
    sha256: str
    size: int
    parent: str = ""
    code: str = ""
    metrics: Mapping[str, Any] = field(default_factory=dict)
    data: Sequence[Mapping[str, str]] = ()
    inputs: Mapping[str, Any] = field(default_factory=dict)
    units: Mapping[str, str] = field(default_factory=dict)
    training_range: Mapping[str, Any] = field(default_factory=dict)
    request: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, model: str, content: bytes, **facts: Any) -> "Manifest":
        """The manifest of a model's bytes; `facts` are the fields from `parent` on."""
        named(model)
        sha256 = hashlib.sha256(content).hexdigest()
        facts["data"] = tuple(facts.get("data", ()))
        return cls(model, models.version_of(sha256), sha256, len(content), **facts)

    @property
    def data_hashes(self) -> frozenset[str]:
        """The SHA-256 of everything that the model has seen."""
        return frozenset(entry["sha256"] for entry in self.data)

    def to_bytes(self) -> bytes:
        """The manifest's object: the same manifest, the same bytes."""
        return (json.dumps(vars(self), sort_keys=True, indent=1, ensure_ascii=False, default=dict) + "\n").encode()

    @classmethod
    def read(cls, data: bytes, where: str) -> "Manifest":
        """What `to_bytes` wrote; what a later release has added is left out. Raises RegistryError."""
        try:
            document = json.loads(data)
            known = {name: document[name] for name in cls.__dataclass_fields__ if name in document}
            known["data"] = tuple({str(name): str(entry[name]) for name in entry} for entry in known.get("data", ()))
            manifest = cls(**known)
            _ = manifest.data_hashes, manifest.sha256.encode()
            return manifest
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
            raise RegistryError(f"{where}: is no manifest ({error}); train the version again") from None


def version_files(manifest: Manifest, content: bytes) -> dict[str, bytes]:
    """The files of a version, by their paths below the model's folder in the registry."""
    folder = models.version_folder(manifest.model, manifest.version).removeprefix(f"{manifest.model}/")
    return {f"{folder}{models.MODEL}": content, f"{folder}{models.MANIFEST}": manifest.to_bytes()}


def report_files(version: str, report: bytes) -> dict[str, bytes]:
    """The file of a gate's report on a version: a JSON object whose `passed` is true or false."""
    return {f"versions/{version}/reports/{hashlib.sha256(report).hexdigest()[:16]}.json": report}


def promotion_files(manifest: Manifest, served: Path, report: bytes) -> dict[str, bytes]:
    """The file of the promotion that lets a version serve after the one at `served`, which is `job.model(...)`."""
    before = serving_at(manifest.model, served)
    promotion = Promotion(
        manifest.model,
        before.number + 1 if before else 1,
        manifest.version,
        manifest.sha256,
        previous=before.version if before else "",
        report=hashlib.sha256(report).hexdigest(),
    )
    return {promotion.place.key.removeprefix(f"{manifest.model}/"): promotion.to_bytes()}


def serving_at(model: str, served: Path) -> Promotion | None:
    """The promotion by which the file `job.model(...)` serves; None where it is the shipped one.

    Raises RegistryError where what stands beside it is no promotion.
    """
    path = served.parent / models.PROMOTION
    if not path.is_file():
        return None
    data = path.read_bytes()
    try:
        document = json.loads(data)
        place = Place(model, str(document.get("alias") or SERVING), int(document["number"]), str(document["version"]))
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        raise RegistryError(f"{path}: is no promotion ({error})") from None
    return models.read_promotion(place, data)


def write(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write files below a folder, as a function does into its destination."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def named(model: str) -> str:
    """The name, if it is a model's. Raises RegistryError."""
    if not models.NAME.fullmatch(model):
        raise RegistryError(f'"{model}" is no name of a model; write small letters, digits and hyphens')
    return model
