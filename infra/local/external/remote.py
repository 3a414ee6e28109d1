"""The other store as the event loop sees it: the house's S3 client and MinIO's own for buckets, on threads."""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlsplit

from infra.local.settings import Credentials, ExternalSettings
from layers.objects.client import ObjectInfo, S3Client
from layers.objects.errors import AccessRefused, NoSuchObject, ObjectError, StoreUnavailable

if TYPE_CHECKING:
    from minio import Minio

T = TypeVar("T")

THREADS = 8
PAGE = 1000
EVENTS = "s3:ObjectCreated:*"
SILENCE_S = 20.0
"""How long the store may say nothing; asked four times, that is less than a stop of the cluster may take."""
CONNECT_S = 5.0
WRONG_KEYS = ("InvalidAccessKeyId", "SignatureDoesNotMatch")


class Remote:
    """An external store; what goes wrong with it is an ObjectError."""

    def __init__(self, settings: ExternalSettings, keys: Credentials) -> None:
        address = settings.address
        self.endpoint = address.endpoint
        self._settings = settings
        self._keys = keys
        self._client = S3Client(
            address.endpoint,
            keys.minio_access_key,
            keys.minio_secret_key,
            address.region,
            address.verify,
            timeout_s=SILENCE_S,
        )
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="external-store")
        self._admin: Minio | None = None

    async def head(self, bucket: str, key: str) -> ObjectInfo | None:
        """The object as it is now."""
        try:
            return await self._run(partial(self._client.head, bucket, key))
        except NoSuchObject:
            return None

    async def get(self, bucket: str, key: str, target: Path) -> ObjectInfo:
        """Write the object as it is now to a file. Raises NoSuchObject."""
        return await self._run(partial(self._client.get, bucket, key, target))

    async def each(self, works: Sequence[Callable[[S3Client], object]]) -> None:
        """Carry out what is to be done with the store, side by side; a failure is raised when none is under way."""
        futures = [self._pool.submit(work, self._client) for work in works]
        try:
            ended = await asyncio.gather(*map(asyncio.wrap_future, futures), return_exceptions=True)
        except asyncio.CancelledError:
            for future in futures:
                future.cancel()
            raise
        for error in ended:
            if isinstance(error, BaseException):
                raise error

    async def pages(self, bucket: str, prefix: str) -> AsyncIterator[list[ObjectInfo]]:
        """Every object below `prefix`, in the order of keys, in lists of up to a thousand."""
        found = self._client.list(bucket, prefix)
        while page := await self._run(lambda: list(islice(found, PAGE))):
            yield page

    async def check(self) -> None:
        """Raise AccessRefused where the store does not know the keys, StoreUnavailable where it does not answer."""

        def ask() -> None:
            try:
                self._minio().list_buckets()
            except Exception as error:
                raised = _as_object_error(self.endpoint, error)
                if isinstance(raised, StoreUnavailable) or raised.code in WRONG_KEYS:
                    raise raised from None  # any other answer says that the keys are known

        await self._run(ask)

    async def make_buckets(self, buckets: Collection[str]) -> None:
        """Make those that are not there."""

        def make() -> None:
            for bucket in sorted(buckets):
                try:
                    if not self._minio().bucket_exists(bucket_name=bucket):
                        self._minio().make_bucket(bucket_name=bucket)
                except Exception as error:
                    raised = _as_object_error(f"bucket {bucket}: {self.endpoint}", error)
                    if raised.code not in ("BucketAlreadyOwnedByYou", "BucketAlreadyExists"):
                        raise raised from None

        await self._run(make)

    async def subscribe(self, bucket: str, prefixes: Collection[str]) -> None:
        """Have the bucket tell us what is created below these prefixes, and nothing else; others' rules stay."""
        from minio.notificationconfig import NotificationConfig, PrefixFilterRule, QueueConfig

        arn = self._settings.arn
        wanted = outermost(prefixes)

        def set_rules() -> None:
            try:
                found = self._minio().get_bucket_notification(bucket_name=bucket)
                rules = list(found.queue_config_list or [])
                ours = [rule for rule in rules if rule.queue == arn]
                if sorted(rule.prefix_filter_rule.value if rule.prefix_filter_rule else "" for rule in ours) == wanted:
                    return
                rules = [rule for rule in rules if rule.queue != arn]
                for prefix in wanted:
                    only = PrefixFilterRule(prefix) if prefix else None
                    rules.append(QueueConfig(queue=arn, events=[EVENTS], prefix_filter_rule=only))
                config = NotificationConfig(
                    cloud_func_config_list=found.cloud_func_config_list or [],
                    queue_config_list=rules,
                    topic_config_list=found.topic_config_list or [],
                )
                self._minio().set_bucket_notification(bucket_name=bucket, config=config)
            except Exception as error:
                raise _as_object_error(f"bucket {bucket}: {self.endpoint}", error) from None

        await self._run(set_rules)

    def close(self) -> None:
        """Start nothing more."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._client.close()

    def _minio(self) -> "Minio":
        if self._admin is None:
            import urllib3
            from minio import Minio

            address = urlsplit(self.endpoint)
            self._admin = Minio(
                address.netloc,
                access_key=self._keys.minio_access_key,
                secret_key=self._keys.minio_secret_key,
                secure=address.scheme == "https",
                region=self._settings.address.region,
                http_client=urllib3.PoolManager(
                    maxsize=THREADS,
                    timeout=urllib3.Timeout(connect=CONNECT_S, read=SILENCE_S),
                    retries=urllib3.Retry(total=1, backoff_factor=0.2),
                    cert_reqs="CERT_REQUIRED" if self._settings.address.verify else "CERT_NONE",
                ),
            )
        return self._admin

    async def _run(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)


def outermost(prefixes: Collection[str]) -> list[str]:
    """The prefixes without those that another one covers: MinIO refuses rules that overlap.

    >>> outermost(["in/", "in/raw/", "other/"])
    ['in/', 'other/']
    """
    found: list[str] = []
    for prefix in sorted(set(prefixes)):
        if not any(prefix.startswith(outer) for outer in found):
            found.append(prefix)
    return found


def _as_object_error(what: str, error: Exception) -> ObjectError:
    """MinIO's client's errors in the house's words. What is no trouble with the store is raised as it is."""
    import urllib3
    from minio.error import MinioException, S3Error

    if isinstance(error, ObjectError):
        return error
    if isinstance(error, S3Error):
        refused = error.code in (*WRONG_KEYS, "AccessDenied")
        family = AccessRefused if refused else ObjectError
        return family(f"{what} answers {error.code}: {error.message}", code=str(error.code))
    if isinstance(error, MinioException):  # an answer, but not MinIO's
        return ObjectError(f"{what} answers what is none of S3's", code=type(error).__name__)
    if isinstance(error, urllib3.exceptions.HTTPError):
        return StoreUnavailable(f"{what} does not answer ({type(error).__name__})")
    raise error
