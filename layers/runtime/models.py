"""Where models stand in the registry, and which version serves: runtime, cluster and registry agree on it here.

In the registry's bucket (`models`, or what DIOSCAR_REGISTRY names), for each model:

    <model>/versions/<version>/model.onnx       never changes; <version> is the start of its SHA-256
    <model>/versions/<version>/manifest.json    where it comes from and how good it is
    <model>/versions/<version>/reports/<hash>.json       what a gate said of it
    <model>/promotions/<number>-<version>.json           from then on this version serves
    <model>/promotions/<alias>/<number>-<version>.json   the same for another alias than `serving`

The promotion with the highest name serves. Numbers count up by one, so names, and not clocks, order promotions: one
that is written again changes nothing. Where nothing was promoted, the file that the twin ships serves.
"""

import json
import re
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from hashlib import sha256 as _sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from layers.objects.client import S3Client

BUCKET = "models"
VARIABLE = "DIOSCAR_REGISTRY"
SERVING = "serving"
MODEL, MANIFEST, PROMOTION = "model.onnx", "manifest.json", "promotion.json"
"""A version's files in the registry; and the promotion beside a model's file, as who runs functions hands it out."""
LARGEST = 1 << 20
"""Bytes of a promotion, a manifest or a report."""
NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
VERSION = re.compile(r"[0-9a-f]{16}")
_KEY = re.compile(
    rf"(?P<model>{NAME.pattern})/promotions/(?:(?P<alias>{NAME.pattern})/)?"
    rf"(?P<number>[0-9]{{8}})-(?P<version>{VERSION.pattern})\.json"
)


class RegistryError(Exception):
    """The registry does not hold what it should, or what was asked for; one sentence that names the object."""


@dataclass(frozen=True)
class Place:
    """What a promotion's key says: which version of which model from which number on."""

    model: str
    alias: str
    number: int
    version: str

    @property
    def key(self) -> str:
        """Its key in the registry's bucket.

        >>> Place("pulsar-classifier", "serving", 7, "45ae8c5b00000000").key
        'pulsar-classifier/promotions/00000007-45ae8c5b00000000.json'
        """
        return f"{promotions(self.model, self.alias)}{self.number:08d}-{self.version}.json"


@dataclass(frozen=True)
class Promotion:
    """One promotion: from its number on, `version` of `model` serves under `alias`.

    `previous` is the version that served before, empty for the shipped file; `report` the SHA-256 of the gate's report;
    `reason` why a person has promoted it, and `forced` whether they did so although no gate had let it through.
    """

    model: str
    number: int
    version: str
    sha256: str
    alias: str = SERVING
    previous: str = ""
    report: str = ""
    reason: str = ""
    forced: bool = False

    @property
    def place(self) -> Place:
        """What its key says."""
        return Place(self.model, self.alias, self.number, self.version)

    def to_bytes(self) -> bytes:
        """The promotion's object: the same promotion, the same bytes."""
        return (json.dumps(vars(self), sort_keys=True, indent=1, ensure_ascii=False) + "\n").encode()


def model_key(model: str, version: str) -> str:
    """The key of a version's model."""
    return f"{version_folder(model, version)}{MODEL}"


def manifest_key(model: str, version: str) -> str:
    """The key of a version's manifest."""
    return f"{version_folder(model, version)}{MANIFEST}"


def version_folder(model: str, version: str) -> str:
    """What all keys of a version begin with."""
    return f"{model}/versions/{version}/"


def promotions(model: str, alias: str = SERVING) -> str:
    """What all keys of an alias' promotions begin with (and, for `serving`, those of the other aliases)."""
    return f"{model}/promotions/" if alias == SERVING else f"{model}/promotions/{alias}/"


def version_of(sha256: str) -> str:
    """The version of the model whose bytes have this SHA-256 (hexadecimal)."""
    return sha256[:16]


def read_place(key: str) -> Place | None:
    """What a key says, if it is a promotion's."""
    found = _KEY.fullmatch(key)
    if found is None or found["alias"] == SERVING:
        return None
    return Place(found["model"], found["alias"] or SERVING, int(found["number"]), found["version"])


def latest(keys: Iterable[str], alias: str = SERVING) -> Place | None:
    """The promotion that serves, among the keys of one model; None where nothing was promoted."""
    places = (place for key in keys if (place := read_place(key)) is not None and place.alias == alias)
    return max(places, key=lambda place: (place.number, place.version), default=None)


def read_promotion(place: Place, data: bytes) -> Promotion:
    """The promotion whose key is `place.key`. Raises RegistryError where its contents say anything else."""
    where = f"{place.key}: is no promotion of {place.version}"
    try:
        document: dict[str, Any] = json.loads(data)
        found = Promotion(
            model=place.model,
            number=place.number,
            version=str(document["version"]),
            sha256=str(document["sha256"]),
            alias=place.alias,
            previous=str(document.get("previous") or ""),
            report=str(document.get("report") or ""),
            reason=str(document.get("reason") or ""),
            forced=bool(document.get("forced")),
        )
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        raise RegistryError(f"{where} ({type(error).__name__}: {error}); promote a version again") from None
    if found.version != place.version or not re.fullmatch(r"[0-9a-f]{64}", found.sha256):
        raise RegistryError(f'{where}; its "version" or "sha256" is another: promote a version again')
    if version_of(found.sha256) != found.version:
        raise RegistryError(f"{where}; its sha256 begins otherwise: promote a version again")
    return found


def alias_in(value: str) -> str:
    """The alias that a variable `DIOSCAR_MODEL_<NAME>` pins; empty where it names a file.

    >>> alias_in("canary"), alias_in("/models/mine.onnx")
    ('canary', '')
    """
    return value if NAME.fullmatch(value) else ""


def fetch(client: "S3Client", bucket: str, model: str, folder: Path, alias: str = SERVING) -> Path | None:
    """The file of the version that serves, with its promotion beside it, below `folder`; None: nothing was promoted.

    Raises RegistryError where the registry names what is not there or is damaged, ObjectError where it cannot be read.
    """
    from layers.objects.errors import NoSuchObject

    try:
        place = latest((info.key for info in client.list(bucket, promotions(model, alias))), alias)
    except NoSuchObject:  # the bucket
        return None
    if place is None:
        return None
    promotion = read_promotion(place, client.read(bucket, place.key, LARGEST))
    path = folder / place.model / place.alias / f"{place.number:08d}-{place.version}" / MODEL
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    key = model_key(model, promotion.version)
    try:
        client.get(bucket, key, path)
    except NoSuchObject:
        raise RegistryError(
            f"{bucket}/{key}: is not there, and {place.key} names it; promote another version"
        ) from None
    check(path, promotion, f"{bucket}/{key}")
    (path.parent / PROMOTION).write_bytes(promotion.to_bytes())
    return path


def check(path: Path, promotion: Promotion, where: str) -> None:
    """Raises RegistryError, and removes the file, where it is not what was promoted."""
    with path.open("rb") as file:
        digest = _sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    if digest.hexdigest() != promotion.sha256:
        path.unlink()
        raise RegistryError(f"{where}: is damaged (SHA-256 {digest.hexdigest()}); promote another version")


def from_pod(model: str, environ: Mapping[str, str], alias: str = SERVING) -> Path | None:
    """The version that serves, with the credentials that OSCAR mounts in a job; None: the shipped file serves.

    That is so where nothing was promoted; where there are no credentials, as in a pod that serves `/run`; and where
    these may not look into the registry, unless the service names one.

    Raises as `fetch` does.
    """
    from layers.objects.errors import AccessRefused
    from layers.runtime import storage

    client = storage.client(storage.read_config(environ))
    if client is None or not NAME.fullmatch(model):
        return None
    try:
        with client:
            return fetch(client, environ.get(VARIABLE) or BUCKET, model, _folder(), alias)
    except AccessRefused as error:
        if environ.get(VARIABLE):
            raise
        print(f"dioscar: the shipped {model} serves, the registry is closed: {error}", flush=True)  # noqa: T201 - the job's log
        return None


@cache
def _folder() -> Path:
    """Where this process keeps what it has fetched: it goes with the process."""
    import atexit
    import shutil

    folder = Path(tempfile.mkdtemp(prefix="dioscar-models-"))
    atexit.register(shutil.rmtree, folder, True)
    return folder
