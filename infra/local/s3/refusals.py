"""From whatever went wrong to S3's error, and to the document that tells it."""

import logging

from infra.local.s3.errors import S3Error, as_s3, error_document
from infra.local.s3.request import Request

log = logging.getLogger(__name__)


def refusal(error: Exception, request: Request | None) -> tuple[S3Error, bytes]:
    """The error that a client is told, and its document; what should never have happened is logged."""
    refused = as_s3(error)
    if refused is None:
        log.error("an unexpected error in %s", request and f"{request.method} {request.raw_path}", exc_info=error)
        refused = S3Error("InternalError")
    body = error_document(
        refused,
        bucket=request.bucket if request else "",
        key=request.key if request else "",
        resource=request.raw_path if request else "",
        request_id=request.id if request else "",
    )
    return refused, body
