"""`/health` and `/system/info`."""

import platform
from importlib.metadata import version

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from infra.local.api.replies import json_reply


async def health(request: Request) -> Response:
    """`Ok`."""
    return PlainTextResponse("Ok")


async def info(request: Request) -> Response:
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
