"""What clients send: over TLS, to a bucket by its host name, as oscar-cli does (aws-sdk-go v1), request by request."""

import contextlib
import http.client
import os
import socket
import subprocess
from base64 import b64encode
from hashlib import md5, sha256

import pytest

from infra.local.s3 import payload
from infra.local.s3.chunked import UNSIGNED_TRAILER
from layers.objects.sigv4 import UNSIGNED_PAYLOAD, canonical_query, quote_path
from tests.cluster import Cluster
from tests.infra.local.s3.conftest import serving
from tests.infra.local.s3.helpers import ACCESS, SECRET, boto, parsed, signed

GO_PART = 5 << 20
GO_AGENT = "aws-sdk-go/1.44.271 (go1.21.3; linux; amd64) S3Manager"


@pytest.fixture
def kinds(monkeypatch):
    """How each body that is read was said to be signed."""
    seen = []
    read = payload.Payload.__init__

    def noted(self, request):
        seen.append(request.signed.payload)
        read(self, request)

    monkeypatch.setattr(payload.Payload, "__init__", noted)
    return seen


@pytest.fixture(scope="module")
def secure(tmp_path_factory):
    """An endpoint with a certificate of its own."""
    folder = tmp_path_factory.mktemp("tls")
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    more = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)]
    try:
        subprocess.run([*command, *more], check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("there is no openssl to make a certificate with")
    with serving(folder / "data", certificate, key) as endpoint:
        yield endpoint, str(certificate)


@pytest.mark.parametrize("algorithm", ["CRC32", "SHA1", "SHA256"])
@pytest.mark.parametrize("size", [0, 5, 9 << 20])
def test_over_tls_boto3_sends_chunks_with_a_trailer(secure, kinds, tmp_path, algorithm, size):
    endpoint, certificate = secure
    body = os.urandom(size)
    (tmp_path / "body").write_bytes(body)
    with contextlib.closing(boto(endpoint.url, verify=certificate)) as s3:
        s3.create_bucket(Bucket=f"tls-{algorithm.lower()}-{size}")
        with (tmp_path / "body").open("rb") as file:
            put = s3.put_object(
                Bucket=f"tls-{algorithm.lower()}-{size}", Key="k", Body=file, ChecksumAlgorithm=algorithm
            )
        found = s3.get_object(Bucket=f"tls-{algorithm.lower()}-{size}", Key="k", ChecksumMode="ENABLED")
        assert found["Body"].read() == body
        assert found[f"Checksum{algorithm}"] == put[f"Checksum{algorithm}"]
    assert kinds == [UNSIGNED_TRAILER]


def test_over_tls_the_minio_client_signs_no_payload(secure, kinds, monkeypatch, tmp_path):
    from minio import Minio

    endpoint, certificate = secure
    monkeypatch.setenv("SSL_CERT_FILE", certificate)
    client = Minio(f"127.0.0.1:{endpoint.port}", ACCESS, SECRET)
    client.make_bucket("tls-minio")
    (tmp_path / "body").write_bytes(b"hello")
    client.fput_object("tls-minio", "k", str(tmp_path / "body"))
    assert client.stat_object("tls-minio", "k").size == 5
    client._http.clear()
    assert set(kinds) == {UNSIGNED_PAYLOAD}


def test_a_bucket_by_its_own_host_name(endpoint, monkeypatch):
    resolve = socket.getaddrinfo

    def local(host, *arguments, **more):
        return resolve("127.0.0.1" if host.endswith(".localhost") else host, *arguments, **more)

    monkeypatch.setattr(socket, "getaddrinfo", local)  # not every machine knows that *.localhost is itself
    url = f"http://localhost:{endpoint.port}"
    with contextlib.closing(boto(url, s3={"addressing_style": "virtual"}, signature_version="s3v4")) as s3:
        s3.create_bucket(Bucket="by-name")
        s3.put_object(Bucket="by-name", Key="by-name/ü +", Body=b"hello")
        asked = []
        s3.meta.events.register("before-send.s3", lambda request, **_: asked.append(request.url))
        assert s3.get_object(Bucket="by-name", Key="by-name/ü +")["Body"].read() == b"hello"
        assert [one["Key"] for one in s3.list_objects_v2(Bucket="by-name")["Contents"]] == ["by-name/ü +"]
        s3.copy_object(Bucket="by-name", Key="copy", CopySource={"Bucket": "by-name", "Key": "by-name/ü +"})
        s3.delete_objects(Bucket="by-name", Delete={"Objects": [{"Key": "copy"}, {"Key": "by-name/ü +"}]})
        s3.delete_bucket(Bucket="by-name")
    assert all(one.startswith(f"http://by-name.localhost:{endpoint.port}/") for one in asked) and asked


def test_a_bucket_below_a_domain_of_ones_own(tmp_path):
    cluster = Cluster(tmp_path)
    cluster.environ = {"MINIO_DOMAIN": "s3.example.org, data.example.org", "MINIO_ACCESS_KEY": ACCESS}
    cluster.environ["MINIO_SECRET_KEY"] = SECRET
    cluster.start()
    try:
        cluster.deploy("by-domain")
        cluster.put("by-domain", "a/b", b"hello")
        address = cluster.facts["s3"].removeprefix("http://")
        for host in ("by-domain.s3.example.org", "by-domain.data.example.org:9000", "by-domain.localhost"):
            headers = signed("GET", "/a/b", None, host=host)
            connection = http.client.HTTPConnection(address, timeout=20)
            with contextlib.closing(connection):
                connection.request("GET", "/a/b", headers=headers)
                assert connection.getresponse().read() == b"hello"
    finally:
        cluster.stop()


class Go:
    """Requests with the headers of aws-sdk-go v1: the length and the MD5 signed, large bodies only when asked for."""

    def __init__(self, endpoint):
        self.endpoint = endpoint

    def __call__(self, method, path, query=(), body=b"", **more):
        path, query = quote_path(path), canonical_query(list(query))
        headers = {name.replace("_", "-"): value for name, value in more.items()}
        if method == "PUT" or body:
            headers |= {"content-length": str(len(body)), "content-md5": b64encode(md5(body).digest()).decode()}
        headers = signed(method, path, self.endpoint, query=query, body=body, headers=headers)
        headers |= {"user-agent": GO_AGENT, "accept-encoding": "gzip"}
        expects = len(body) >= 2 << 20
        if expects:
            headers["expect"] = "100-Continue"
        with socket.create_connection(self.endpoint.address, timeout=20) as connection:
            text = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
            connection.sendall(f"{method} {path}?{query} HTTP/1.1\r\n{text}\r\n".encode())
            if expects:
                assert connection.recv(25) == b"HTTP/1.1 100 Continue\r\n\r\n"
            connection.sendall(body)
            response = http.client.HTTPResponse(connection, method=method)
            response.begin()
            return response.status, dict(response.getheaders()), response.read()


@pytest.fixture
def go(endpoint):
    return Go(endpoint)


def test_what_oscar_cli_sends_to_put_and_get_a_large_file(go, bucket):
    """`service put-file` and `get-file`: an upload in parts of 5 MiB, a HeadObject, ranges of 5 MiB."""
    body = os.urandom(2 * GO_PART + 1000)
    path = f"/{bucket}/in/run 1/ü+.fil"
    status, _, answer = go("POST", path, [("uploads", "")])
    upload = parsed(answer)["UploadId"]
    assert status == 200
    parts = []
    for number, start in enumerate(range(0, len(body), GO_PART), 1):
        block = body[start : start + GO_PART]
        status, headers, _ = go("PUT", path, [("partNumber", str(number)), ("uploadId", upload)], block)
        assert (status, headers["etag"]) == (200, f'"{md5(block).hexdigest()}"')
        parts.append(f"<Part><ETag>{headers['etag']}</ETag><PartNumber>{number}</PartNumber></Part>")
    document = (
        '<CompleteMultipartUpload xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
        f"{''.join(parts)}</CompleteMultipartUpload>"
    )
    status, _, answer = go("POST", path, [("uploadId", upload)], document.encode())
    assert status == 200 and parsed(answer)["ETag"].endswith('-3"')

    status, headers, answer = go("HEAD", path)
    assert (status, headers["content-length"], answer) == (200, str(len(body)), b"")
    received = b""
    while len(received) < len(body):
        wanted = f"bytes={len(received)}-{len(received) + GO_PART - 1}"
        status, headers, answer = go("GET", path, range=wanted)
        assert status == 206 and headers["content-range"].endswith(f"/{len(body)}")
        received += answer
    assert sha256(received).digest() == sha256(body).digest()
    assert go("HEAD", f"/{bucket}/absent")[0] == 404


def test_what_oscar_cli_sends_for_small_files_and_lists(go, bucket):
    """A single PutObject, `service list-files` (ListObjects v1) and `delete-file`."""
    for name in ("in/a b.txt", "in/ü", "out/c"):
        assert go("PUT", f"/{bucket}/{name}", body=b"hello")[0] == 200
    status, _, answer = go("GET", f"/{bucket}", [("prefix", "in/")])
    assert status == 200
    assert b"<Key>in/a b.txt</Key>" in answer and "<Key>in/ü</Key>".encode() in answer and b"out/c" not in answer
    status, _, answer = go("GET", f"/{bucket}", [("delimiter", "/"), ("max-keys", "1"), ("prefix", "")])
    assert b"<Prefix>in/</Prefix>" in answer and b"<NextMarker>in/</NextMarker>" in answer
    assert go("DELETE", f"/{bucket}/in/ü")[0] == 204
    assert go("PUT", f"/{bucket}/folder/")[0] == 200
