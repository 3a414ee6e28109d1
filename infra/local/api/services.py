"""`/system/services`: deploy, read, update and remove services."""

import json
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from fdl.engine import engine_settings
from fdl.errors import FdlError
from fdl.model import MinioProvider, Service, StorageProviders, service_from_json
from infra.local.api.replies import empty, json_reply, text_reply
from infra.local.engine import Engine
from infra.local.services import Deployed, NoSuchService, ServiceExists
from infra.local.settings import StoreAddress

INVALID = "The service specification is not valid: "


class ServiceRoutes:
    """OSCAR's CRUD of services over an engine."""

    def __init__(self, engine: Engine, address: StoreAddress) -> None:
        self._engine = engine
        self._services = engine.services
        # OSCAR hides the keys behind this word
        self._store = MinioProvider(
            endpoint=address.endpoint,
            verify=address.verify,
            region=address.region,
            access_key="hidden",
            secret_key="hidden",  # noqa: S106
        )

    async def list(self, request: Request) -> Response:
        """All services."""
        return json_reply([self._shown(deployed) for deployed in self._services.all()])

    async def create(self, request: Request) -> Response:
        """201 with nothing, or 400 with a sentence."""
        try:
            service = _read(await request.body())
            await self._services.create(service)
        except FdlError as error:
            return text_reply(f"{INVALID}{error}", 400)
        except ServiceExists:
            return text_reply("A service with the provided name already exists", 400)
        return empty(201)

    async def update(self, request: Request) -> Response:
        """204 with nothing; the body's name selects."""
        try:
            service = _read(await request.body())
            await self._services.update(service)
        except FdlError as error:
            return text_reply(f"{INVALID}{error}", 400)
        except NoSuchService:
            return empty(404)
        return empty(204)

    async def read(self, request: Request) -> Response:
        """One service, its token included and its store's keys hidden."""
        deployed = self._services.get(request.path_params["service"])
        return json_reply(self._shown(deployed)) if deployed else empty(404)

    async def delete(self, request: Request) -> Response:
        """204; the service's jobs are cancelled, buckets that hold data stay."""
        try:
            await self._engine.delete_service(request.path_params["service"])
        except NoSuchService:
            return empty(404)
        return empty(204)

    def _shown(self, deployed: Deployed) -> dict[str, Any]:
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
                "namespace": "oscar-svc",
                "labels": {**service.labels, **labels},
                "storage_providers": providers.model_copy(
                    update={"minio": {**providers.minio, "default": self._store}}
                ),
                "environment": service.environment.model_copy(
                    update={"secrets": dict.fromkeys(service.environment.secrets, "")}
                ),
            }
        )
        return shown.to_json()


def _read(body: bytes) -> Service:
    try:
        document = json.loads(body)
    except (UnicodeDecodeError, ValueError) as error:
        raise FdlError(f"the body is no JSON ({error})") from None
    service = service_from_json(document)
    try:
        engine_settings(service.annotations)
    except ValueError as error:
        raise FdlError(str(error), field="annotations") from None
    return service
