"""`/system/volumes`: volumes of the caller's own namespace."""

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from fdl.parts import Part
from infra.local.api import bodies
from infra.local.api.replies import empty, json_reply, text_reply
from infra.local.volumes import NoSuchVolume, Volume, VolumeError, VolumeExists, Volumes, namespace_of


class VolumeRequest(Part):
    """What makes a volume."""

    name: str
    size: str


class VolumeRoutes:
    """OSCAR's CRUD of volumes; there is no update."""

    def __init__(self, volumes: Volumes) -> None:
        self._volumes = volumes

    async def list(self, request: Request) -> Response:
        """The caller's volumes."""
        return json_reply([self._shown(volume) for volume in self._volumes.of(_namespace(request))])

    async def create(self, request: Request) -> Response:
        """201 with the volume; 409 where there is one of that name."""
        try:
            wanted = await bodies.read(request, VolumeRequest)
            volume = await self._volumes.create(request.state.user.uid, wanted.name.strip(), wanted.size.strip())
        except bodies.BodyError as error:
            return text_reply(f"The volume specification is not valid: {error}", 400)
        except VolumeExists as error:
            return text_reply(str(error), 409)
        except VolumeError as error:
            return text_reply(str(error), 400)
        return json_reply(self._shown(volume), 201)

    async def read(self, request: Request) -> Response:
        """One volume."""
        try:
            return json_reply(self._shown(self._volumes.get(_namespace(request), request.path_params["volume"])))
        except NoSuchVolume:
            return empty(404)

    async def delete(self, request: Request) -> Response:
        """204; 400 while a service has it."""
        try:
            await self._volumes.delete(_namespace(request), request.path_params["volume"])
        except NoSuchVolume:
            return empty(404)
        except VolumeError as error:
            return text_reply(str(error), 400)
        return empty(204)

    def _shown(self, volume: Volume) -> dict[str, Any]:
        attachments = [{"service_name": name, "mount_path": path} for name, path in self._volumes.attachments(volume)]
        shown = {
            "name": volume.name,
            "namespace": volume.namespace,
            "pvc_name": volume.name,
            "size": volume.size,
            "owner_user": volume.owner,
            "created_by_service": volume.service,
            "creation_mode": "service" if volume.service else "api",
            "lifecycle_policy": volume.lifecycle,
            "attachments": attachments,
        }
        status = {"phase": "in_use", "attachment_count": len(attachments)} if attachments else {"phase": "ready"}
        return {**{name: value for name, value in shown.items() if value}, "status": status}


def _namespace(request: Request) -> str:
    return namespace_of(request.state.user.uid)
