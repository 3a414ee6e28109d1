"""`/system/services`: deploy, read, update and remove services."""

import re
from typing import NamedTuple

from starlette.requests import Request
from starlette.responses import Response

from fdl.engine import engine_settings
from fdl.errors import FdlError, quoted
from fdl.model import MinioProvider, Service, StorageProviders, dumps, service_from_json
from fdl.parts import Volume, VolumeStatus
from infra.local.api import bodies
from infra.local.api.deployment import DeploymentRoutes
from infra.local.api.federation import NO_TOKEN
from infra.local.api.replies import empty, text_reply
from infra.local.engine import Engine
from infra.local.holdings import Holdings
from infra.local.quotas import QuotaExceeded
from infra.local.services import Deployed, NoSuchService, ServiceExists
from infra.local.settings import StoreAddress
from infra.local.users import policy
from infra.local.users.identity import User
from infra.local.volumes import NoSuchVolume, VolumeError, VolumeExists, check_config, name_of, namespace_of

NOT_ENROLLED = "this user isn't enrrolled on the vo: {}"
"""OSCAR's words, and its spelling."""
INVALID = "The service specification is not valid: "
LARGEST = 32 << 20
LARGEST_SCRIPT = 1 << 20
"""Bytes: what Kubernetes keeps of a service on a real cluster."""
MOST_STORES = 256
"""Inputs and outputs of one service."""
REMEMBERED = 64 << 10
"""Characters of a service's JSON that is made once and kept."""
LABEL = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?")


class _Text(NamedTuple):
    """A service's JSON, in two parts: how its deployment is stands between them where it is asked for."""

    head: str
    tail: str


class ServiceRoutes:
    """OSCAR's CRUD of services over an engine."""

    def __init__(
        self, engine: Engine, address: StoreAddress, holdings: Holdings, deployments: DeploymentRoutes
    ) -> None:
        self._engine = engine
        self._services = engine.services
        self._configuration = holdings.configuration
        self._volumes = holdings.volumes
        self._deployments = deployments
        self._texts: dict[str, _Text] = {}
        # OSCAR hides the keys behind this word
        self._store = MinioProvider(
            endpoint=address.endpoint,
            verify=address.verify,
            region=address.region,
            access_key="hidden",
            secret_key="hidden",  # noqa: S106
        )
        engine.services.on_change.append(self._remember)
        for deployed in engine.services.all():
            self._remember(deployed.name)

    async def list(self, request: Request) -> Response:
        """The services that the caller may see; `include=deployment` says of each how it is."""
        user, deployment = request.state.user, _deployment_wanted(request)
        found = (deployed for deployed in self._services.all() if policy.sees_service(user, deployed))
        return _json(f"[{','.join(self._text(deployed, deployment=deployment) for deployed in found)}]")

    async def create(self, request: Request) -> Response:
        """201 with nothing, or a sentence."""
        try:
            service = _read(await bodies.raw(request, LARGEST))
            check_config(service)
        except (FdlError, VolumeError, bodies.BodyError) as error:
            return text_reply(f"{INVALID}{error}", 400)
        if service.federation and service.federation.members and "refresh_token" not in service.environment.secrets:
            return text_reply(NO_TOKEN, 400)
        if not _is_enrolled(request.state.user, service):
            return text_reply(NOT_ENROLLED.format(service.vo), 400)
        if not self._configuration.takes(service.image):
            return text_reply(
                f"Error creating the service: image {service.image} is not allowed for pull on the cluster. "
                "Check the additional configuration file on 'config.yaml'",
                500,
            )
        if wrong := self._offloaded_wrongly(service):
            return text_reply(f"{INVALID}{wrong}", 400)
        try:
            await self._services.create(service, request.state.user.uid)
        except ServiceExists:
            return text_reply("A service with the provided name already exists", 400)
        except VolumeExists as error:
            return text_reply(str(error), 409)
        except VolumeError as error:
            return text_reply(str(error), 400)
        except QuotaExceeded as error:
            return text_reply(str(error), 403)
        return empty(201)

    async def update(self, request: Request) -> Response:
        """204 with nothing; the body's name selects."""
        try:
            service = _read(await bodies.raw(request, LARGEST))
            check_config(service)
        except (FdlError, VolumeError, bodies.BodyError) as error:
            return text_reply(f"{INVALID}{error}", 400)
        before = self._services.get(service.name)
        if before is None:
            return empty(404)
        if not policy.changes_service(request.state.user, before):
            return text_reply(f"User {request.state.user.uid} doesn't have permision to modify this service", 403)
        if wrong := self._offloaded_wrongly(service):
            return text_reply(f"{INVALID}{wrong}", 400)
        if not _is_enrolled(request.state.user, service):
            return text_reply(NOT_ENROLLED.format(service.vo), 400)
        if _volume(before.service) != _volume(service):
            return text_reply("volume updates are not supported after service creation", 400)
        try:
            await self._services.update(service)
        except NoSuchService:
            return empty(404)
        return empty(204)

    async def read(self, request: Request) -> Response:
        """One service, its token included and its store's keys hidden."""
        name, user = request.path_params["service"].strip(), request.state.user
        if not LABEL.fullmatch(name):
            return text_reply("invalid serviceName", 400)
        deployed = self._services.get(name)
        if deployed is None:
            return empty(404)
        if not policy.sees_service(user, deployed):
            return text_reply(f"User {user.uid} doesn't have permision to get this service", 403)
        return _json(self._text(deployed, deployment=_deployment_wanted(request)))

    async def delete(self, request: Request) -> Response:
        """204; the service's jobs are cancelled, buckets that hold data stay."""
        name, user = request.path_params["service"], request.state.user
        deployed = self._services.get(name)
        if deployed is not None and not policy.changes_service(user, deployed):
            return text_reply(f"User {user.uid} doesn't have permision to delete this service", 403)
        try:
            await self._engine.delete_service(name)
        except NoSuchService:
            return empty(404)
        return empty(204)

    def _remember(self, name: str) -> None:
        """A service has changed: its text is made now and not when somebody waits for a list of hundreds."""
        self._texts.pop(name, None)
        deployed = self._services.get(name)
        if deployed is not None and deployed.service.volume is None:
            text = self._made(deployed)
            if len(text.head) < REMEMBERED:
                self._texts[name] = text

    def _text(self, deployed: Deployed, *, deployment: bool) -> str:
        """A service as OSCAR writes it."""
        text = self._texts.get(deployed.name) or self._made(deployed)
        shown = f',"deployment":{dumps(self._deployments.runtime(deployed).summary())}' if deployment else ""
        return f"{text.head}{shown}{text.tail}"

    def _made(self, deployed: Deployed) -> "_Text":
        service = deployed.service
        providers = service.storage_providers or StorageProviders()
        labels = {
            "oscar_service": service.name,
            "oscar.grycap/user-service": "true",
            "applicationId": service.name,
            "queue": f"root.oscar-queue.{service.name}",
            "owner_name": deployed.owner,
        }
        shown = service.model_copy(
            update={
                "token": deployed.token,
                "owner": deployed.owner,
                "namespace": namespace_of(deployed.owner),
                "labels": {**service.labels, **labels},
                "storage_providers": providers.model_copy(
                    update={"minio": {**providers.minio, "default": self._store}}
                ),
                "environment": service.environment.model_copy(
                    update={"secrets": dict.fromkeys(service.environment.secrets, "")}
                ),
                "volume_status": self._volume_status(deployed),
                "deployment": {},
                "kserve": None,
            }
        )
        kserve = f',"kserve":{dumps(service.kserve.to_json())}' if service.kserve else ""
        return _Text(dumps(shown.to_json())[:-1], f"{kserve}}}")

    def _offloaded_wrongly(self, service: Service) -> str:
        """Why a service cannot run on the interLink node that it names; empty where it can, or names none."""
        name, interlink = service.interlink_node_name, self._engine.interlink
        if not name or interlink is None:
            return ""
        if wrong := interlink.check(name):
            return f"interlink_node_name: {wrong}"
        return "volume: an interLink node has no volumes of the cluster; leave it out" if service.volume else ""

    def _volume_status(self, deployed: Deployed) -> VolumeStatus:
        config = deployed.service.volume
        if config is None:
            return VolumeStatus()
        name = name_of(deployed.service, config)
        try:
            self._volumes.get(namespace_of(deployed.owner), name)
        except NoSuchVolume as error:
            return VolumeStatus(enabled=True, name=name, phase="error", error=str(error))
        return VolumeStatus(enabled=True, name=name, phase="in_use")


def _read(body: bytes) -> Service:
    """Raises FdlError, or BodyError where the body is no JSON."""
    service = service_from_json(bodies.document(body))
    if len(service.script.encode()) > LARGEST_SCRIPT:
        raise FdlError(
            f"is larger than {LARGEST_SCRIPT >> 20} MiB, which no cluster keeps; put what it brings into the image",
            field="script",
        )
    if len(service.input) + len(service.output) > MOST_STORES:
        raise FdlError(f"has with output more than {MOST_STORES} entries; make several services of it", field="input")
    for index, entry in enumerate(service.input):
        if entry.provider_type == "minio" and not entry.is_own:
            raise FdlError(
                f"the provided MinIO server {entry.storage_provider} is not the configured in OSCAR, whose events are "
                'the only ones that come here; write "minio.default"',
                field=f"input[{index}].storage_provider",
            )
    if service.volume is not None and service.interlink_node_name:
        raise FdlError(
            f"is on this machine, and jobs run on the node {quoted(service.interlink_node_name)} "
            "(interlink_node_name), which does not have it; leave one of the two out",
            field="volume",
        )
    if len(dumps(service.model_copy(update={"script": ""}).to_json())) > LARGEST_SCRIPT:
        raise FdlError(f"the service without its script is larger than {LARGEST_SCRIPT >> 20} MiB; shorten it")
    try:
        engine_settings(service.annotations)
    except ValueError as error:
        raise FdlError(str(error), field="annotations") from None
    return service


def _is_enrolled(user: User, service: Service) -> bool:
    """Whether a user is in the virtual organisation that they name, as far as their groups are known."""
    return not (service.vo and user.groups) or service.vo.removeprefix("/") in user.groups


def _volume(service: Service) -> Volume | None:
    """A service's volume with what is left out filled in."""
    config = service.volume
    if config is None:
        return None
    policy_ = config.lifecycle_policy or ("delete" if config.size else "")
    return config.model_copy(update={"name": name_of(service, config), "lifecycle_policy": policy_})


def _deployment_wanted(request: Request) -> bool:
    return any(part.strip().lower() == "deployment" for part in request.query_params.get("include", "").split(","))


def _json(text: str) -> Response:
    return Response(text, media_type="application/json")
