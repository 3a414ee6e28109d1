"""How users come into a cluster, put together at its start: their tokens, their keys, and what those may do."""

from collections.abc import Mapping
from dataclasses import dataclass

from infra.local.database import Database
from infra.local.objects import ObjectStore
from infra.local.s3.authentication import Secrets
from infra.local.s3.permission import Guard
from infra.local.services import Services
from infra.local.settings import Credentials
from infra.local.users.users import Users, users_of


@dataclass(frozen=True)
class Admission:
    """`secrets` knows the administrator's key and those of users; `users` and `guard` are None where OIDC is off."""

    secrets: Secrets
    users: Users | None = None
    guard: Guard | None = None


def admission_of(
    environ: Mapping[str, str],
    database: Database,
    store: ObjectStore,
    services: Services,
    keys: Credentials,
    *,
    elsewhere: bool,
) -> Admission:
    """What the environment asks for; `elsewhere`: the objects are in another store. Raises ValueError for the rest."""
    root = {keys.minio_access_key: keys.minio_secret_key}.get
    users = users_of(environ, database, keys.minio_access_key)
    if users is None:
        return Admission(root)
    if elsewhere:
        raise ValueError("OIDC_ENABLE: users have keys of the built-in store only; leave out --s3-external or this")
    services.is_user = lambda owner: users.accounts.get(owner) is not None
    return Admission(
        lambda access_key: root(access_key) or users.secret_key(access_key),
        users,
        Guard(keys.minio_access_key, store, services.target),
    )
