"""`isolation_level: USER`: beside the bucket of a service's input, one for each user in `allowed_users`.

What such a user uploads there, only that user and the service's owner see, and its outputs go back to it.

Source: OSCAR v4.1, pkg/handlers/create.go.
"""

from dataclasses import dataclass

from fdl.model import Service
from infra.local.stored import Bucket
from infra.local.users.identity import ADMIN

LETTERS = 10
"""How much of a user's uid is in the bucket's name."""


@dataclass(frozen=True)
class PrivateBucket:
    """One user's own mailbox of a service; `folder` is the input's."""

    name: str
    uid: str
    folder: str

    def is_this(self, found: Bucket, service: str, owner: str) -> bool:
        """Whether a bucket that is there already was made for this, and not by somebody for something else."""
        return found.owner == self.uid and found.service == service and owner in found.allowed_users


def private_buckets(service: Service, owner: str) -> list[PrivateBucket]:
    """Those that a service of this owner has; the administrator's have none, as in OSCAR."""
    if service.isolation_level != "USER" or owner == ADMIN:
        return []
    return [
        PrivateBucket(f"{entry.bucket}-{uid[:LETTERS]}", uid, entry.folder)
        for entry in service.mailboxes
        for uid in service.allowed_users
        if uid != owner
    ]


def with_private_buckets(service: Service, owner: str) -> Service:
    """The service with its `bucket_list`, which is the server's to say."""
    if owner == ADMIN:
        return service
    names = [private.name for private in private_buckets(service, owner)]
    return service.model_copy(update={"bucket_list": names})
