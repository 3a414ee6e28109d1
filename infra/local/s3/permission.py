"""What a user's keys may do at the endpoint: what OSCAR's policies give to MinIO's users, and AccessDenied elsewhere.

A user makes buckets by OSCAR's API, which knows quotas; here, as under those policies, a bucket that is not there is
one that the user has no right to. The administrator's keys may do everything, at the price of one comparison.
"""

from collections.abc import Callable

from infra.local.objects import ObjectStore
from infra.local.s3.copying import parse_source
from infra.local.s3.errors import S3Error
from infra.local.s3.request import Request
from infra.local.services import Deployed
from infra.local.stored import Bucket
from infra.local.users import policy
from infra.local.users.identity import User

READS = ("GET", "HEAD")
LISTEN = "events"


class Guard:
    """Decides for whoever is not the administrator; `target` finds the service behind a notification's ARN."""

    def __init__(self, root: str, store: ObjectStore, target: Callable[[str], Deployed | None]) -> None:
        self._root = root
        self._store = store
        self._target = target

    def check(self, request: Request) -> None:
        """Let a request pass whose signature holds, and note whose it is. Raises S3Error."""
        if request.signed is None:
            raise S3Error("AccessDenied")
        if request.signed.access_key == self._root:
            return
        request.user = request.signed.access_key
        user = User(request.user, is_admin=False)
        if not request.bucket:
            if LISTEN in request.query:
                raise S3Error("AccessDenied")  # the events of every bucket
            return
        bucket = self._store.bucket(request.bucket)
        if bucket is None or not _right(request)(user, bucket):
            raise S3Error("AccessDenied")
        if "x-amz-copy-source" in request.headers:
            source = self._store.bucket(parse_source(request).bucket)
            if source is None or not policy.sees_bucket(user, source):
                raise S3Error("AccessDenied")

    def may_notify(self, request: Request, arn: str) -> bool:
        """Whether a bucket may be set to call a service: whoever sees it may call it. Webhooks are not for users."""
        if not request.user:
            return True
        deployed = self._target(arn)
        return deployed is not None and policy.sees_service(User(request.user, is_admin=False), deployed)


def sees(request: Request, bucket: Bucket) -> bool:
    """Whether a bucket is in the list of who asks."""
    return not request.user or policy.sees_bucket(User(request.user, is_admin=False), bucket)


def _right(request: Request) -> Callable[[User, Bucket], bool]:
    if request.method in READS:
        return policy.sees_bucket
    if request.key or request.method == "POST":
        return policy.writes_bucket
    return policy.changes_bucket
