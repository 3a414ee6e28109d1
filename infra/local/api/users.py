"""`/dioscar/v1/users`: who has been here, and keys taken back; for the administrator."""

from starlette.requests import Request
from starlette.responses import Response

from infra.local.api.replies import empty, json_reply
from infra.local.users.users import Users


class UserRoutes:
    """The accounts that visits have made."""

    def __init__(self, users: Users) -> None:
        self._users = users

    async def list(self, request: Request) -> Response:
        """Every user who has been here, without the keys."""
        shown = [
            {"uid": account.uid, "name": account.name, "issuer": account.issuer, "created": account.created}
            for account in self._users.accounts.all()
        ]
        return json_reply({"users": shown})

    async def remove(self, request: Request) -> Response:
        """Take a user's S3 keys back; what the user owns stays, and the next visit brings new keys."""
        return empty(204 if await self._users.accounts.remove(request.path_params["uid"]) else 404)
