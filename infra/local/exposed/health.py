"""Whether an exposed service is well: the question that OSCAR's probes ask."""

import asyncio
from http import HTTPStatus

from infra.local.exposed.process import Address
from infra.local.exposed.upstream import Upstream
from infra.local.services import Deployed

ANSWER_S = 10.0
START_S = 180.0
"""How long a service may take to be well for the first time."""
PERIOD_S = 10.0
DEGRADED_AFTER = 3
RESTARTED_AFTER = 12
"""Probes in a row that find it ill, until it is called so, and until it is started anew."""


def probe_path(deployed: Deployed) -> str:
    """`expose.health_path`, where OSCAR's probes look for it."""
    expose = deployed.service.expose
    path = expose.health_path or "/"
    path = path if path.startswith("/") else f"/{path}"
    legacy = expose.probe_mode != "direct"
    return f"/system/services/{deployed.name}/exposed{path}" if legacy and expose.rewrite_target else path


async def complaint(upstream: Upstream, deployed: Deployed, address: Address) -> str:
    """Ask the service for its health; empty, or what is wrong with the answer."""
    session = await upstream.session(address.path)
    import aiohttp
    from yarl import URL

    path = probe_path(deployed)
    try:
        url = URL(address.base + path, encoded=True)
        async with (
            asyncio.timeout(ANSWER_S),
            session.get(url, allow_redirects=False, headers={"User-Agent": "dioscar-probe"}) as response,
        ):
            status = response.status
    except TimeoutError:
        return f"GET {path} has no answer within {ANSWER_S:g} s"
    except aiohttp.ClientConnectorError:
        return f"nothing listens on port {address.port} (its variable PORT)"
    except (aiohttp.ClientError, OSError, ValueError) as error:
        return f"GET {path} fails ({type(error).__name__})"
    if status >= HTTPStatus.BAD_REQUEST:
        return f"GET {path} answers {status}; name a path that answers below 400 in expose.health_path"
    return ""
