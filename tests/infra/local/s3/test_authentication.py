"""Who gets in: signatures of every kind, and everything that is wrong with one."""

import contextlib
import http.client
from datetime import UTC, datetime, timedelta
from urllib.parse import quote

import pytest
import requests
from botocore.exceptions import ClientError

from layers.objects import sigv4
from tests.infra.local.s3.helpers import ACCESS, SECRET, boto, code, parsed, signed

OURS = sigv4.Credentials(ACCESS, SECRET)


@pytest.fixture(scope="module")
def stored(s3):
    s3.create_bucket(Bucket="guarded")
    s3.put_object(Bucket="guarded", Key="in/ü +&.txt", Body=b"secret")
    return "guarded", "in/ü +&.txt"


def refused(endpoint, method, path, headers):
    connection = http.client.HTTPConnection(*endpoint.address)
    with contextlib.closing(connection):
        connection.request(method, path, headers=headers)
        response = connection.getresponse()
        return response.status, parsed(response.read())["Code"]


def test_a_wrong_secret(endpoint):
    with contextlib.closing(boto(endpoint.url, secret="wrong")) as client, pytest.raises(ClientError) as caught:
        client.list_buckets()
    assert code(caught) == ("SignatureDoesNotMatch", 403)


def test_nobody(endpoint, stored):
    assert refused(endpoint, "GET", "/guarded", {}) == (403, "AccessDenied")
    assert refused(endpoint, "GET", "/no-such-bucket", {}) == (403, "AccessDenied")


@pytest.mark.parametrize(
    "authorization, expected",
    [
        ("Basic dXNlcjpwYXNz", (400, "InvalidRequest")),
        ("AWS AKID:signature", (400, "InvalidRequest")),
        ("AWS4-HMAC-SHA256", (400, "AuthorizationHeaderMalformed")),
        ("AWS4-HMAC-SHA256 Credential=a, SignedHeaders=host, Signature=b", (400, "AuthorizationHeaderMalformed")),
        (
            "AWS4-HMAC-SHA256 Credential=a/20200101/r/s3/aws4_request, SignedHeaders=host, Signature=ü",
            (403, "AccessDenied"),
        ),
    ],
)
def test_an_authorization_that_is_none(endpoint, authorization, expected):
    assert refused(endpoint, "GET", "/", {"Authorization": authorization.encode()}) == expected


def test_a_key_nobody_has(endpoint):
    headers = signed("GET", "/", endpoint, credentials=sigv4.Credentials("nobody", SECRET))
    assert refused(endpoint, "GET", "/", headers) == (403, "InvalidAccessKeyId")


@pytest.mark.parametrize("minutes", [-16, 16])
def test_a_clock_that_is_wrong(endpoint, minutes):
    headers = signed("GET", "/", endpoint, now=datetime.now(UTC) + timedelta(minutes=minutes))
    assert refused(endpoint, "GET", "/", headers) == (403, "RequestTimeTooSkewed")


def test_a_request_altered_on_its_way(endpoint, stored):
    headers = signed("GET", "/guarded", endpoint, query="prefix=in%2F")
    assert refused(endpoint, "GET", "/guarded?prefix=", headers) == (403, "SignatureDoesNotMatch")
    assert refused(endpoint, "GET", "/other?prefix=in%2F", headers) == (403, "SignatureDoesNotMatch")
    assert refused(endpoint, "DELETE", "/guarded?prefix=in%2F", headers) == (403, "SignatureDoesNotMatch")
    extra = {**headers, "x-amz-copy-source": "guarded/in"}
    assert refused(endpoint, "GET", "/guarded?prefix=in%2F", extra) == (403, "AccessDenied")


def test_a_body_altered_on_its_way(endpoint, stored):
    headers = signed("PUT", "/guarded/k", endpoint, body=b"what was signed")
    connection = http.client.HTTPConnection(*endpoint.address)
    with contextlib.closing(connection):
        connection.request("PUT", "/guarded/k", body=b"what was sent!!", headers=headers)
        response = connection.getresponse()
        assert (response.status, parsed(response.read())["Code"]) == (400, "XAmzContentSHA256Mismatch")
    assert endpoint.call(endpoint.store.get, "guarded", "k") is None


@pytest.mark.parametrize("version", ["s3v4", "s3"])
def test_a_presigned_url(endpoint, s3, stored, version):
    bucket, key = stored
    with contextlib.closing(boto(endpoint.url, signature_version=version)) as client:
        names = {"Bucket": bucket, "Key": key}
        url = client.generate_presigned_url("get_object", {**names, "ResponseContentType": "text/x"}, ExpiresIn=60)
        response = requests.get(url, timeout=10)
        assert response.content == b"secret" and response.headers["content-type"] == "text/x"
        assert requests.put(url, data=b"x", timeout=10).status_code == 403
        assert requests.get(url.replace("guarded", "other"), timeout=10).status_code == 403

        url = client.generate_presigned_url("put_object", {"Bucket": bucket, "Key": "new +"}, ExpiresIn=60)
        assert requests.put(url, data=b"new", timeout=10).status_code == 200
        assert s3.get_object(Bucket=bucket, Key="new +")["Body"].read() == b"new"


def test_a_presigned_url_of_the_minio_client(minio, stored):
    assert requests.get(minio.presigned_get_object(*stored), timeout=10).content == b"secret"
    assert requests.put(minio.presigned_put_object("guarded", "by-minio"), data=b"x", timeout=10).status_code == 200


@pytest.mark.parametrize("version", ["s3v4", "s3"])
def test_a_presigned_url_that_has_expired(endpoint, stored, version):
    with contextlib.closing(boto(endpoint.url, signature_version=version)) as client:
        url = client.generate_presigned_url("get_object", {"Bucket": stored[0], "Key": stored[1]}, ExpiresIn=60)
    late = datetime.now(UTC) + timedelta(seconds=90)
    endpoint.app._clock = lambda: late
    try:
        response = requests.get(url, timeout=10)
    finally:
        endpoint.app._clock = lambda: datetime.now(UTC)
    assert response.status_code == 403 and parsed(response.content)["Message"] == "Request has expired"


@pytest.mark.parametrize("expires", ["0", "604801", "-1", "soon", "9" * 30])
def test_a_presigned_url_for_no_time_or_too_long(endpoint, stored, expires):
    path = sigv4.quote_path("/guarded/k")
    query = sigv4.presign(
        "GET", path, [], "h", credentials=OURS, region="r", now=datetime.now(UTC), expires_s=60
    ).replace("X-Amz-Expires=60", f"X-Amz-Expires={expires}")
    assert refused(endpoint, "GET", f"{path}?{query}", {}) == (400, "AuthorizationQueryParametersError")


def test_virtual_host_style(endpoint, stored):
    bucket, key = stored
    path = sigv4.quote_path(f"/{key}")
    host = f"{bucket}.localhost:{endpoint.port}"
    headers = signed("GET", path, endpoint, host=host)
    connection = http.client.HTTPConnection(*endpoint.address)
    with contextlib.closing(connection):
        connection.request("GET", path, headers=headers)
        assert connection.getresponse().read() == b"secret"


@pytest.mark.parametrize("path", ["/guarded/in/ü +&.txt", "/guarded/in/%c3%bc%20%2b&.txt"])
def test_a_path_signed_as_it_is_sent(endpoint, stored, path):
    """Clients differ in what they encode; the signature may be over S3's encoding or over what was sent."""
    sent = quote(path, safe="/&%")
    for signed_path in (sent, sigv4.quote_path("/guarded/in/ü +&.txt")):
        headers = signed("GET", signed_path, endpoint)
        connection = http.client.HTTPConnection(*endpoint.address)
        with contextlib.closing(connection):
            connection.request("GET", sent, headers=headers)
            assert connection.getresponse().read() == b"secret"
