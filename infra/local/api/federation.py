"""`/system/federation`: a service's clusters, in a cluster that is in no federation."""

from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from fdl.parts import Federation, Member, Part
from infra.local.api import bodies
from infra.local.api.replies import empty, json_reply, text_reply
from infra.local.services import Deployed, Services
from infra.local.users import policy

NO_TOKEN = "refresh_token secret is required for federated services"  # noqa: S105 - OSCAR's sentence


class FederationRequest(Part):
    """Whom to add, change or remove."""

    members: list[Member] = Field(default_factory=list)
    update: list[Member] = Field(default_factory=list)
    delete: bool = False


class FederationRoutes:
    """What is declared is shown; nobody can be added, for no cluster can be told."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def read(self, request: Request) -> Response:
        """Topology and members."""
        deployed = self._find(request)
        return empty(404) if deployed is None else _shown(deployed)

    async def change(self, request: Request) -> Response:
        """POST, PUT and DELETE alike: without members nothing is to be done, with some it cannot be."""
        try:
            wanted = await bodies.read(request, FederationRequest)
        except bodies.BodyError as error:
            return text_reply(f"Invalid payload: {error}", 400)
        deployed = self._find(request)
        if deployed is None:
            return empty(404)
        if not policy.changes_service(request.state.user, deployed):
            return text_reply("You do not have permission to access this service", 403)
        if wanted.members:
            return text_reply(f"{NO_TOKEN}; this cluster is in no federation", 400)
        return _shown(deployed)

    def _find(self, request: Request) -> Deployed | None:
        deployed = self._services.get(request.path_params["service"])
        return deployed if deployed is not None and policy.sees_service(request.state.user, deployed) else None


def _shown(deployed: Deployed) -> Response:
    federation = deployed.service.federation or Federation()
    members = [member.to_json() for member in federation.members]
    return json_reply({"topology": federation.topology or "none", "members": members or None})
