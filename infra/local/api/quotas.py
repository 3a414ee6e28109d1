"""`/system/quotas`: what a user may take up. As in an OSCAR whose Kueue is off, processors and memory have no part."""

from dataclasses import fields

from starlette.requests import Request
from starlette.responses import Response

from fdl.parts import Part
from infra.local.api import bodies
from infra.local.api.replies import json_reply, text_reply
from infra.local.quotas import Quota, QuotaError, Quotas

NO_KUEUE = "kueue is not enabled: /system/quotas requires KUEUE_ENABLE=true"


class VolumeQuota(Part):
    """Limits of volumes."""

    disk: str = ""
    volumes: str = ""
    max_disk_per_volume: str = ""
    min_disk_per_volume: str = ""


class BucketQuota(Part):
    """Limits of buckets."""

    buckets: str = ""
    storage_per_bucket: str = ""


class QuotaUpdate(Part):
    """What is to change."""

    cpu: str = ""
    memory: str = ""
    ephemeral_storage: str = ""
    gpu: str = ""
    volumes: VolumeQuota = VolumeQuota()
    minio: BucketQuota = BucketQuota()


class QuotaRoutes:
    """A user's own limits, and those of anybody for the administrator."""

    def __init__(self, quotas: Quotas) -> None:
        self._quotas = quotas

    async def own(self, request: Request) -> Response:
        """The caller's; the administrator has none."""
        if request.state.user.is_admin:
            return text_reply("missing user identificator: the administrator has no quota", 401)
        return json_reply(self._quotas.shown(request.state.user.uid))

    async def read(self, request: Request) -> Response:
        """Those of a user."""
        if not request.state.user.is_admin:
            return text_reply("forbidden", 403)
        return json_reply(self._quotas.shown(request.path_params["user"]))

    async def update(self, request: Request) -> Response:
        """Set some of a user's limits; the others stay."""
        if not request.state.user.is_admin:
            return text_reply("forbidden", 403)
        try:
            wanted = await bodies.read(request, QuotaUpdate)
        except bodies.BodyError as error:
            return text_reply(f"invalid payload: {error}", 400)
        parts = (wanted.volumes, wanted.minio)
        changes = {
            field.name: value for field in fields(Quota) for part in parts if (value := _value(part, field.name))
        }
        computing = wanted.cpu or wanted.memory or wanted.ephemeral_storage
        if not changes and not computing:
            return text_reply("cpu, memory, ephemeral_storage, volumes or minio must be provided", 400)
        if computing:
            return text_reply(NO_KUEUE, 503)
        try:
            await self._quotas.update(request.path_params["user"], changes)
        except QuotaError as error:
            return text_reply(str(error), 400)
        return json_reply(self._quotas.shown(request.path_params["user"]))


def _value(part: Part, name: str) -> str:
    return str(getattr(part, name, "")).strip()
