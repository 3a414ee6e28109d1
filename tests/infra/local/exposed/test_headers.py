"""The rules of headers and of tokens, alone: what they let through, for any headers whatsoever."""

from hypothesis import given
from hypothesis import strategies as st

from infra.local.exposed import access
from infra.local.exposed.headers import HOP_BY_HOP, BadRequest, to_client, to_service

KNOWN = (b"host", b"connection", b"content-length", b"transfer-encoding", b"x-forwarded-for", b"x_forwarded_for")
OTHERS = (b"x-real-ip", b"te", b"upgrade", b"forwarded", b"cookie", b"accept", b"sec-websocket-key", b"x-a", b"x_a")
NAMES = st.sampled_from([*KNOWN, *OTHERS]) | st.binary(max_size=8).map(bytes.lower)
VALUES = st.binary(max_size=12) | st.sampled_from([b"close", b"x-a, x-real-ip", b"chunked", b"5", b"h\r\nx-b: c"])
HEADERS = st.lists(st.tuples(NAMES, VALUES), max_size=8)


@given(HEADERS)
def test_whatever_a_client_sends_a_service_is_told_the_truth_about_it(headers):
    try:
        passed = to_service(headers, client="10.0.0.1", scheme="http", prefix="/p")
    except BadRequest:
        return
    names = [name.lower() for name, _ in passed]
    assert not set(names) & {name.decode() for name in HOP_BY_HOP}
    for ours, value in (("x-forwarded-for", "10.0.0.1"), ("x-real-ip", "10.0.0.1"), ("x-forwarded-prefix", "/p")):
        assert [v for n, v in passed if n.lower().replace("_", "-") == ours] == [value]
    assert names.count("host") <= 1 and names.count("content-length") <= 1
    assert not any(character in f"{name}{value}" for name, value in passed for character in "\r\n\0")


@given(HEADERS)
def test_an_answer_keeps_what_is_end_to_end(headers):
    passed = to_client([*headers, (b"Set-Cookie", b"a=1"), (b"Set-Cookie", b"b=2")])
    named = {token.strip().lower() for name, value in headers if name == b"connection" for token in value.split(b",")}
    if b"set-cookie" not in named:
        assert [value for name, value in passed if name == b"set-cookie"][-2:] == [b"a=1", b"b=2"]
    assert not {name for name, _ in passed} & (HOP_BY_HOP | {b"date"})


@given(st.text(max_size=80), st.text(max_size=80), st.text(max_size=80), st.text(max_size=80))
def test_no_text_makes_the_search_for_a_token_fail(authorization, query, forwarded, cookie):
    headers = {"authorization": authorization, "x-forwarded-uri": forwarded, "cookie": cookie}
    assert all(len(token) == 64 for token in access.tokens("a", headers, query))
    assert not access.is_basic(authorization, "a", "b" * 64)


def test_a_bearer_comes_before_all_else():
    one, other = "1" * 64, "2" * 64
    assert access.tokens("a", {"authorization": f"Bearer {one}"}, f"token={other}") == [one]
    assert access.tokens("a-b", {"cookie": f"x=1; oscar_service_a_b_auth={one}"}, f"token={other}") == [other, one]
