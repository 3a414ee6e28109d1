"""Making, finding and removing buckets."""

from functools import partial

from infra.local.s3.errors import S3Error
from infra.local.s3.handlers import S3, owner
from infra.local.s3.payload import Payload
from infra.local.s3.permission import sees
from infra.local.s3.request import Request, Response, xml_response
from infra.local.s3.xml import document, element, moment, tag
from infra.local.stored import Bucket, NoSuchBucket
from infra.local.users.identity import ADMIN


async def list_buckets(s3: S3, request: Request) -> Response:
    """All buckets that are for who asks, by name."""
    entries = (
        element("Bucket", tag("Name", bucket.name), tag("CreationDate", moment(bucket.created)))
        for bucket in s3.store.buckets()
        if sees(request, bucket)
    )
    return xml_response(document("ListAllMyBucketsResult", owner(), element("Buckets", *entries)))


async def create_bucket(s3: S3, request: Request) -> Response:
    """Make a bucket; whatever region the client names, it is this store's."""
    if request.headers.get("x-amz-bucket-object-lock-enabled", "").lower() == "true":
        raise S3Error("NotImplemented", "Object lock is not supported by this store.")
    if int(request.headers.get("content-length") or 0):
        await Payload(request).document("CreateBucketConfiguration")
    create = partial(s3.store.create_bucket, name=request.bucket, owner=ADMIN)
    await s3.store.database.write(create)
    return Response(200, {"location": f"/{request.bucket}"})


async def head_bucket(s3: S3, request: Request) -> Response:
    """Whether a bucket is there."""
    find(s3, request)
    return Response(200, {"x-amz-bucket-region": s3.region})


async def delete_bucket(s3: S3, request: Request) -> Response:
    """Remove an empty bucket; MinIO's own header removes a full one."""
    force = request.headers.get("x-minio-force-delete", "").lower() == "true"
    await s3.store.database.write(partial(s3.store.delete_bucket, name=request.bucket, force=force), frees=True)
    return Response(204)


async def get_location(s3: S3, request: Request) -> Response:
    """The region, which S3 leaves empty where it is the first one."""
    find(s3, request)
    return xml_response(document("LocationConstraint", "" if s3.region == "us-east-1" else s3.region))


def find(s3: S3, request: Request) -> Bucket:
    """The bucket that a request names."""
    bucket = s3.store.bucket(request.bucket)
    if bucket is None:
        raise NoSuchBucket(request.bucket)
    return bucket
