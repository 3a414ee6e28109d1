"""Who asks."""

from dataclasses import dataclass

ADMIN = "cluster_admin"
"""OSCAR's name for the owner of what was made with Basic authentication or the root keys."""


@dataclass(frozen=True)
class User:
    """Who asks: the administrator (Basic authentication), or a user of an issuer.

    `uid` is the token's `sub`: OSCAR's owner of services and buckets, and the user's S3 access key.
    """

    uid: str
    is_admin: bool
    groups: tuple[str, ...] = ()
    name: str = ""
    oversees: bool = False
    """Named in `USERS_ADMIN`: reads the logs of the whole cluster, and is a user like others otherwise."""


ADMINISTRATOR = User(ADMIN, is_admin=True)


def user_of(owner: str) -> User:
    """In whose name the jobs of a service of this owner run."""
    return ADMINISTRATOR if owner == ADMIN else User(owner, is_admin=False)
