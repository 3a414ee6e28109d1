"""Browsers: any page may talk to the store, as with MinIO, because no request counts without a signature of its own."""

from collections.abc import Mapping

from infra.local.s3.request import Response

EXPOSED = (
    "Accept-Ranges, Content-Disposition, Content-Encoding, Content-Language, Content-Length, Content-Range, "
    "Content-Type, Date, ETag, Last-Modified, Server, X-Amz-Bucket-Region, X-Amz-Request-Id, *"
)


def is_preflight(method: str, headers: Mapping[str, str]) -> bool:
    """Whether a browser asks if it may ask."""
    return method == "OPTIONS" and "origin" in headers and "access-control-request-method" in headers


def preflight(headers: Mapping[str, str]) -> Response:
    """Yes."""
    return Response(
        204,
        {
            "access-control-allow-methods": "GET, HEAD, PUT, POST, DELETE",
            "access-control-allow-headers": headers.get("access-control-request-headers", "*"),
            "access-control-max-age": "3600",
        },
    )


def allowed(headers: Mapping[str, str]) -> dict[str, str]:
    """What lets a page read the answer."""
    if "origin" not in headers:
        return {}
    return {"access-control-allow-origin": "*", "access-control-expose-headers": EXPOSED}
