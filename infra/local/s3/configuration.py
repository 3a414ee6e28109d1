"""What a bucket could be configured for elsewhere: the answers that clients expect of a store that has none of it."""

from infra.local.s3.buckets import find
from infra.local.s3.errors import S3Error
from infra.local.s3.handlers import OWNER_ID, S3, Handler, owner
from infra.local.s3.objects import find as find_object
from infra.local.s3.payload import Payload
from infra.local.s3.request import Request, Response, xml_response
from infra.local.s3.xml import document, element, tag, text

_GRANT = (
    '<Grantee xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xsi:type="CanonicalUser">'
    f"<ID>{OWNER_ID}</ID><DisplayName>{OWNER_ID}</DisplayName></Grantee>"
)

ABSENT = {
    "cors": "NoSuchCORSConfiguration",
    "encryption": "ServerSideEncryptionConfigurationNotFoundError",
    "lifecycle": "NoSuchLifecycleConfiguration",
    "object-lock": "ObjectLockConfigurationNotFoundError",
    "policy": "NoSuchBucketPolicy",
    "replication": "ReplicationConfigurationNotFoundError",
    "website": "NoSuchWebsiteConfiguration",
}
EMPTY = {
    "accelerate": document("AccelerateConfiguration"),
    "logging": document("BucketLoggingStatus"),
    "policyStatus": document("PolicyStatus", tag("IsPublic", "FALSE")),
    "requestPayment": document("RequestPaymentConfiguration", tag("Payer", "BucketOwner")),
    "versioning": document("VersioningConfiguration"),
}


def absent(name: str) -> Handler:
    """The answer to who asks for a configuration that cannot be there."""

    async def handler(s3: S3, request: Request) -> Response:
        find(s3, request)
        raise S3Error(ABSENT[name])

    return handler


def empty(name: str) -> Handler:
    """The answer to who asks for a setting that is always the same."""

    async def handler(s3: S3, request: Request) -> Response:
        find(s3, request)
        return xml_response(EMPTY[name])

    return handler


async def get_bucket_acl(s3: S3, request: Request) -> Response:
    """Everything is its owner's."""
    find(s3, request)
    return xml_response(_acl())


async def get_object_acl(s3: S3, request: Request) -> Response:
    """Everything is its owner's."""
    find_object(s3, request)
    return xml_response(_acl())


async def put_acl(s3: S3, request: Request) -> Response:
    """What says that things stay as they are is accepted, anything else refused."""
    find(s3, request)
    await Payload(request).small()
    if request.headers.get("x-amz-acl", "private") != "private":
        raise S3Error("NotImplemented", "Only the canned ACL private is supported by this store.")
    return Response(200)


async def put_versioning(s3: S3, request: Request) -> Response:
    """Buckets are not versioned, and cannot be."""
    find(s3, request)
    root = await Payload(request).document("VersioningConfiguration")
    if text(root, "Status", "Suspended") != "Suspended":
        raise S3Error("NotImplemented", "Versioned buckets are not supported by this store.")
    return Response(200)


async def remove_nothing(s3: S3, request: Request) -> Response:
    """Remove a configuration that is not there."""
    find(s3, request)
    return Response(204)


def _acl() -> bytes:
    grant = element("Grant", _GRANT, tag("Permission", "FULL_CONTROL"))
    return document("AccessControlPolicy", owner(), element("AccessControlList", grant))
