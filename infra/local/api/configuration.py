"""`/system/config`: the cluster's features, the keys to its object store, and the images that it takes."""

from starlette.requests import Request
from starlette.responses import Response

from fdl.parts import Part
from infra.local.api import bodies
from infra.local.api.replies import json_reply, text_reply
from infra.local.configuration import IMAGES, Configuration
from infra.local.settings import Credentials, StoreAddress
from infra.local.users.identity import User
from infra.local.users.users import Users


class ConfigurationUpdate(Part):
    """The one part of the configuration that can be changed."""

    allowed_image_repositories: list[str] | None = None


class ConfigurationRoutes:
    """Reading and changing it."""

    def __init__(
        self,
        configuration: Configuration,
        credentials: Credentials,
        address: StoreAddress,
        users: Users | None = None,
        interlink: bool = False,
    ) -> None:
        """`interlink`: whether services may name a node."""
        self._configuration = configuration
        self._credentials = credentials
        self._address = address
        self._users = users
        self._interlink = interlink

    async def read(self, request: Request) -> Response:
        """The cluster's features and the caller's keys."""
        access_key, secret_key = self._keys(request.state.user)
        return json_reply(
            {
                "config": {
                    "name": "oscar",
                    "namespace": "oscar",
                    "services_namespace": "oscar-svc",
                    "controller_service_account": "",
                    "gpu_available": False,
                    "interLink_available": self._interlink,
                    "serverless_backend": "dioscar",
                    "yunikorn_enable": False,
                    "kueue_enable": False,
                    "volume_enable": True,
                    "oidc_groups": [] if self._users is None else list(self._users.settings.groups),
                    "minio_quota_enabled": True,
                },
                "minio_provider": {
                    "endpoint": self._address.endpoint,
                    "verify": self._address.verify,
                    "access_key": access_key,
                    "secret_key": secret_key,
                    "region": self._address.region,
                },
                IMAGES: self._configuration.images,
            }
        )

    async def update(self, request: Request) -> Response:
        """Say of which repositories images may be; 200 with the list."""
        if not request.state.user.is_admin:
            return json_reply("", 401)
        try:
            wanted = (await bodies.read(request, ConfigurationUpdate)).allowed_image_repositories
        except bodies.BodyError as error:
            return text_reply(f"The configuration specification is not valid: {error}", 400)
        await self._configuration.set_images(wanted or [])
        return json_reply(wanted)

    def _keys(self, user: User) -> tuple[str, str]:
        """The administrator's are the store's own, a user's those of the user."""
        account = self._users.account(user) if self._users is not None and not user.is_admin else None
        if account is not None:
            return account.uid, account.secret_key
        if user.is_admin:
            return self._credentials.minio_access_key, self._credentials.minio_secret_key
        return "", ""
