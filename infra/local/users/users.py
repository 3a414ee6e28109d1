"""The users of a cluster, from their tokens to their accounts."""

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Protocol

from infra.local.database import Database
from infra.local.users.accounts import Account, Accounts
from infra.local.users.identity import User
from infra.local.users.settings import OidcSettings, oidc_settings


class Verifier(Protocol):
    """What makes a user of a bearer token (`infra.local.users.tokens.Tokens`)."""

    async def verify(self, token: str) -> tuple[User, str]: ...


class Users:
    """Who may come in beside the administrator."""

    def __init__(self, settings: OidcSettings, verifier: Verifier, accounts: Accounts) -> None:
        self.settings = settings
        self.accounts = accounts
        self._verifier = verifier

    async def bearer(self, token: str) -> User:
        """The user who bears a token; the first visit makes the S3 keys. Raises Refused."""
        user, issuer = await self._verifier.verify(token)
        await self.accounts.enter(user, issuer)
        return user

    def account(self, user: User) -> Account | None:
        """The S3 keys of a user."""
        return self.accounts.get(user.uid)

    def secret_key(self, access_key: str) -> str | None:
        """The secret of a user's access key."""
        account = self.accounts.get(access_key)
        return None if account is None else account.secret_key


def users_of(environ: Mapping[str, str], database: Database, root_key: str) -> Users | None:
    """The users whom the environment lets in; None where OIDC is off, which loads none of the libraries for it.

    Raises ValueError for a setting that is wrong, or a library that is not there.
    """
    settings = oidc_settings(environ)
    if settings is None:
        return None
    if find_spec("jwt") is None or find_spec("cryptography") is None:
        raise ValueError('OIDC_ENABLE: users need a library that is not installed; run "./dioscar install users"')
    from infra.local.users.tokens import Tokens

    return Users(settings, Tokens(settings), Accounts(database, frozenset({root_key})))
