"""S3's errors: their codes, HTTP statuses and sentences, and the document that clients expect."""

from infra.local.database import DatabaseError, DiskFull
from infra.local.s3.xml import document, tag
from infra.local.stored import StoreError

ERRORS: dict[str, tuple[int, str]] = {
    "AccessDenied": (403, "Access Denied."),
    "AuthorizationHeaderMalformed": (400, "The authorization header is malformed."),
    "AuthorizationQueryParametersError": (400, "The query parameters of the signature are malformed."),
    "BadDigest": (400, "The Content-MD5 or checksum value that you specified did not match what the server received."),
    "BucketAlreadyOwnedByYou": (
        409,
        "Your previous request to create the named bucket succeeded and you already own it.",
    ),
    "BucketNotEmpty": (409, "The bucket you tried to delete is not empty."),
    "EntityTooLarge": (400, "Your proposed upload exceeds the maximum allowed object size."),
    "EntityTooSmall": (400, "Your proposed upload is smaller than the minimum allowed object size."),
    "ExpiredToken": (400, "The provided token has expired."),
    "IncompleteBody": (
        400,
        "You did not provide the number of bytes specified by the Content-Length HTTP header.",
    ),
    "InternalError": (500, "We encountered an internal error, please try again."),
    "InvalidAccessKeyId": (403, "The Access Key Id you provided does not exist in our records."),
    "InvalidArgument": (400, "Invalid argument."),
    "InvalidBucketName": (400, "The specified bucket is not valid."),
    "InvalidDigest": (400, "The Content-MD5 or checksum value that you specified is not valid."),
    "InvalidPart": (
        400,
        "One or more of the specified parts could not be found, or their entity tags do not match.",
    ),
    "InvalidPartNumber": (416, "The requested partnumber is not satisfiable."),
    "InvalidPartOrder": (
        400,
        "The list of parts was not in ascending order. The parts list must be specified in order by part number.",
    ),
    "InvalidPolicyDocument": (400, "The content of the form does not meet the conditions of the policy document."),
    "InvalidRange": (416, "The requested range is not satisfiable."),
    "InvalidRequest": (400, "Invalid request."),
    "InvalidTag": (400, "The tag provided was not a valid tag."),
    "InvalidURI": (400, "Couldn't parse the specified URI."),
    "KeyTooLongError": (400, "Your key is too long."),
    "MalformedPOSTRequest": (400, "The body of your POST request is not well-formed multipart/form-data."),
    "MalformedXML": (400, "The XML you provided was not well-formed or did not validate against our published schema."),
    "MaxMessageLengthExceeded": (400, "Your request was too big."),
    "MetadataTooLarge": (400, "Your metadata headers exceed the maximum allowed metadata size."),
    "MethodNotAllowed": (405, "The specified method is not allowed against this resource."),
    "MissingContentLength": (411, "You must provide the Content-Length HTTP header."),
    "NoSuchBucket": (404, "The specified bucket does not exist."),
    "NoSuchBucketPolicy": (404, "The bucket policy does not exist."),
    "NoSuchCORSConfiguration": (404, "The CORS configuration does not exist."),
    "NoSuchKey": (404, "The specified key does not exist."),
    "NoSuchLifecycleConfiguration": (404, "The lifecycle configuration does not exist."),
    "NoSuchTagSet": (404, "The TagSet does not exist."),
    "NoSuchUpload": (
        404,
        "The specified multipart upload does not exist. It may have been aborted or completed.",
    ),
    "NoSuchVersion": (404, "The specified version does not exist."),
    "NoSuchWebsiteConfiguration": (404, "The specified bucket does not have a website configuration."),
    "NotImplemented": (501, "A header or a query you provided implies functionality that is not implemented."),
    "NotModified": (304, "Not Modified"),
    "ObjectLockConfigurationNotFoundError": (404, "Object Lock configuration does not exist for this bucket."),
    "PreconditionFailed": (412, "At least one of the pre-conditions you specified did not hold."),
    "ReplicationConfigurationNotFoundError": (404, "The replication configuration was not found."),
    "RequestTimeTooSkewed": (
        403,
        "The difference between the request time and the server's time is too large.",
    ),
    "RequestTimeout": (
        400,
        "Your socket connection to the server was not read from or written to within the timeout period.",
    ),
    "ServerSideEncryptionConfigurationNotFoundError": (
        404,
        "The server side encryption configuration was not found.",
    ),
    "SignatureDoesNotMatch": (
        403,
        "The request signature we calculated does not match the signature you provided.",
    ),
    "SlowDown": (503, "Please reduce your request rate."),
    "UnsupportedNotification": (400, "The bucket notification is not supported."),
    "XAmzContentSHA256Mismatch": (
        400,
        "The provided 'x-amz-content-sha256' header does not match what was computed.",
    ),
    "XMinioAdminBucketQuotaExceeded": (400, "Bucket quota exceeded"),
    "XMinioStorageFull": (
        507,
        "Storage backend has reached its minimum free drive threshold. Please delete a few objects to proceed.",
    ),
}


class S3Error(Exception):
    """A request that is refused: the code, and a sentence where S3's own says too little."""

    def __init__(self, code: str, message: str = "", **headers: str) -> None:
        self.code = code
        self.status, standard = ERRORS[code]
        self.message = message or standard
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}
        super().__init__(f"{code}: {self.message}")


def as_s3(error: Exception) -> S3Error | None:
    """What an error of the store is to a client; None for what should never have happened."""
    if isinstance(error, S3Error):
        return error
    if isinstance(error, DiskFull):
        return S3Error("XMinioStorageFull")
    if isinstance(error, StoreError):
        standard = error.code in ("NoSuchBucket", "NoSuchKey", "NoSuchUpload", "BucketAlreadyOwnedByYou")
        return S3Error(error.code, "" if standard else str(error))
    if isinstance(error, DatabaseError):
        return S3Error("SlowDown", "The store cannot take changes at the moment.")
    if isinstance(error, MemoryError):
        return S3Error("SlowDown", "The store has no memory left for this at the moment.")
    return None


def error_document(error: S3Error, *, bucket: str, key: str, resource: str, request_id: str) -> bytes:
    """The body of a refusal."""
    return document(
        "Error",
        tag("Code", error.code),
        tag("Message", error.message),
        tag("Key", key) if key else "",
        tag("BucketName", bucket) if bucket else "",
        tag("Resource", resource),
        tag("RequestId", request_id),
        tag("HostId", "dioscar"),
        namespace="",
    )
