"""`/health`, `/system/info` and `/system/config`."""

import platform
from importlib.metadata import version

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from infra.local.api.replies import json_reply
from infra.local.settings import Credentials, StoreAddress


class InformationRoutes:
    """What clients ask before they do anything."""

    def __init__(self, credentials: Credentials, address: StoreAddress) -> None:
        self._credentials = credentials
        self._address = address

    async def health(self, request: Request) -> Response:
        """`Ok`."""
        return PlainTextResponse("Ok")

    async def info(self, request: Request) -> Response:
        """Versions; there is no Kubernetes here, and that is what it says."""
        return json_reply(
            {
                "version": f"dioscar-{version('dioscar')}",
                "git_commit": "",
                "architecture": platform.machine(),
                "kubernetes_version": "none (embedded)",
                "serverless_backend": {"name": "dioscar", "version": version("dioscar")},
            }
        )

    async def config(self, request: Request) -> Response:
        """The cluster's features and the keys to its object store."""
        return json_reply(
            {
                "config": {
                    "name": "oscar",
                    "namespace": "oscar",
                    "services_namespace": "oscar-svc",
                    "controller_service_account": "",
                    "gpu_available": False,
                    "interLink_available": False,
                    "serverless_backend": "dioscar",
                    "yunikorn_enable": False,
                    "kueue_enable": False,
                    "volume_enable": False,
                    "oidc_groups": [],
                    "minio_quota_enabled": False,
                },
                "minio_provider": {
                    "endpoint": self._address.endpoint,
                    "verify": self._address.verify,
                    "access_key": self._credentials.minio_access_key,
                    "secret_key": self._credentials.minio_secret_key,
                    "region": self._address.region,
                },
                "allowed_image_repositories": [],
            }
        )
