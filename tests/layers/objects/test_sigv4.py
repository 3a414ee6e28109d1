"""The signature, against botocore's own."""

from datetime import UTC, datetime
from unittest import mock
from urllib.parse import parse_qsl, urlsplit

from botocore.auth import S3SigV4Auth, S3SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials as BotocoreCredentials
from hypothesis import given
from hypothesis import strategies as st

from layers.objects import sigv4

NOW = datetime(2026, 5, 17, 8, 30, 12, tzinfo=UTC)
ACCESS, SECRET = "AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
OURS = sigv4.Credentials(ACCESS, SECRET)
THEIRS = BotocoreCredentials(ACCESS, SECRET)

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
keys = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=60)
names = text.filter(lambda name: name and not name.lower().startswith("x-amz-"))
parameters = st.dictionaries(names, text, max_size=4)
headers = st.dictionaries(
    st.from_regex(r"x-amz-meta-[a-z0-9-]{1,12}", fullmatch=True), st.text("abc XYZ ~!,;=/", max_size=20), max_size=4
)


def theirs(signer, request):
    with mock.patch("botocore.auth.get_current_datetime", return_value=NOW):
        signer.add_auth(request)
    return request


@given(st.sampled_from(["GET", "PUT", "DELETE", "HEAD", "POST"]), keys, parameters, headers, st.binary(max_size=50))
def test_a_signed_request_is_what_botocore_signs(method, key, query, extra, body):
    path, query_string = sigv4.quote_path(f"/bucket/{key}"), sigv4.canonical_query(query.items())
    request = AWSRequest(method, f"http://127.0.0.1:9000{path}?{query_string}", headers=extra, data=body)
    expected = theirs(S3SigV4Auth(THEIRS, "s3", "eu-west-3"), request).headers

    signed = sigv4.sign(
        method,
        path,
        query_string,
        {"host": "127.0.0.1:9000", **extra},
        payload=sigv4.sha256(body).hexdigest(),
        credentials=OURS,
        region="eu-west-3",
        now=NOW,
    )

    assert signed["authorization"] == expected["Authorization"]
    assert signed["x-amz-content-sha256"] == expected["X-Amz-Content-SHA256"]


@given(keys, parameters)
def test_a_presigned_query_is_what_botocore_makes(key, query):
    path = sigv4.quote_path(f"/bucket/{key}")
    request = AWSRequest("GET", f"https://s3.example.org{path}", params=query)
    url = theirs(S3SigV4QueryAuth(THEIRS, "s3", "us-east-1", expires=600), request).url

    ours = sigv4.presign(
        "GET", path, query.items(), "s3.example.org", credentials=OURS, region="us-east-1", now=NOW, expires_s=600
    )

    assert dict(parse_qsl(ours, keep_blank_values=True)) == dict(parse_qsl(urlsplit(url).query, keep_blank_values=True))


def test_the_example_of_the_aws_documentation():
    """GET Object of "Examples: Signature Calculations", Amazon S3 API Reference."""
    signed = sigv4.sign(
        "GET",
        "/test.txt",
        "",
        {"Host": "examplebucket.s3.amazonaws.com", "Range": "bytes=0-9"},
        payload=sigv4.EMPTY_SHA256,
        credentials=sigv4.Credentials("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"),
        region="us-east-1",
        now=datetime(2013, 5, 24, tzinfo=UTC),
    )

    assert signed["authorization"].endswith("f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41")


def test_a_header_given_twice_is_joined_and_trimmed():
    canonical = sigv4.canonical_request("GET", "/", "", [("B", " x   y "), ("a", "1"), ("b", "z")], "hash")

    assert canonical == "GET\n/\n\na:1\nb:x y,z\n\na;b\nhash"


def test_a_secret_is_never_shown():
    assert SECRET not in repr(OURS)
