"""Who may do what: OSCAR's rules of visibility.

`private` is for the owner, `restricted` also for `allowed_users`, `public` for every user. Who sees a service may call
it; who sees a bucket may list, read, write and delete what is in it, as under the policies that OSCAR gives to MinIO's
users. What a service or a bucket is, only its owner changes. The administrator may do everything.
"""

from collections.abc import Collection
from typing import Protocol

from infra.local.users.identity import User

PUBLIC, RESTRICTED = "public", "restricted"


class SharedService(Protocol):
    """What a service's document says of who may see it."""

    @property
    def visibility(self) -> str: ...
    @property
    def allowed_users(self) -> Collection[str]: ...


class OwnedService(Protocol):
    """A deployed service (`infra.local.services.Deployed`)."""

    @property
    def owner(self) -> str: ...
    @property
    def service(self) -> SharedService: ...


class OwnedBucket(Protocol):
    """A bucket (`infra.local.stored.Bucket`)."""

    @property
    def owner(self) -> str: ...
    @property
    def visibility(self) -> str: ...
    @property
    def allowed_users(self) -> Collection[str]: ...


class OwnedJob(Protocol):
    """A job (`infra.local.jobs.Job`)."""

    @property
    def tenant(self) -> str: ...
    @property
    def caller(self) -> str: ...


def sees_service(user: User, deployed: OwnedService) -> bool:
    """Whether a service is shown to the user, and may be called."""
    shared = deployed.service
    return changes_service(user, deployed) or _shared(user, shared.visibility, shared.allowed_users)


def changes_service(user: User, deployed: OwnedService) -> bool:
    """Whether the user may update, start, stop and delete a service."""
    return user.is_admin or deployed.owner == user.uid


def sees_job(user: User, job: OwnedJob) -> bool:
    """Whether the user may see a job, cancel and delete it: who owned its service, and who had it run."""
    return user.is_admin or user.uid in (job.tenant, job.caller)


def named(user: User) -> str:
    """Whose jobs a list has, as `infra.local.history` asks; empty for the administrator, who sees everybody's."""
    return "" if user.is_admin else user.uid


def sees_bucket(user: User, bucket: OwnedBucket) -> bool:
    """Whether the user may list a bucket and read what is in it."""
    return changes_bucket(user, bucket) or _shared(user, bucket.visibility, bucket.allowed_users)


def writes_bucket(user: User, bucket: OwnedBucket) -> bool:
    """Whether the user may write and delete objects in a bucket: OSCAR gives this with the right to read."""
    return sees_bucket(user, bucket)


def changes_bucket(user: User, bucket: OwnedBucket) -> bool:
    """Whether the user may delete a bucket, and set its visibility, tags and notifications."""
    return user.is_admin or bucket.owner == user.uid


def sees_system_logs(user: User) -> bool:
    """Whether the user may read who called what in the whole cluster (`GET /system/logs`)."""
    return user.is_admin or user.oversees


def _shared(user: User, visibility: str, allowed_users: Collection[str]) -> bool:
    return visibility == PUBLIC or (visibility == RESTRICTED and user.uid in allowed_users)
