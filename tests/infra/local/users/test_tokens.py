"""Bearer tokens against a real issuer on loopback: who is let in, and why the others are not."""

import asyncio
import base64
import hmac
import json
import time
from collections.abc import Iterator
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from infra.local.users import issuer as issuer_module
from infra.local.users.identity import User
from infra.local.users.issuer import MOST_QUESTIONS, OLD_S, Issuer, IssuerUnavailable
from infra.local.users.refusals import Refused
from infra.local.users.settings import OidcSettings, oidc_settings
from infra.local.users.tokens import ALGORITHMS, Tokens, groups_of
from tests.infra.local.users.issuer import GROUP, TestIssuer, new_key, running_issuer


@pytest.fixture(scope="module")
def issuer() -> Iterator[TestIssuer]:
    with running_issuer() as running:
        yield running


def tokens_of(issuer: TestIssuer, **more: Any) -> Tokens:
    return Tokens(OidcSettings((issuer.url,), **{"groups": (GROUP,), **more}))


def verify(issuer: TestIssuer, token: str, **more: Any) -> User:
    user, url = asyncio.run(tokens_of(issuer, **more).verify(token))
    assert url == issuer.url
    return user


def refusal(issuer: TestIssuer, token: str, **more: Any) -> tuple[int, str]:
    with pytest.raises(Refused) as caught:
        verify(issuer, token, **more)
    sentence = str(caught.value)
    assert sentence.isprintable() and len(sentence) < 400
    return caught.value.status, sentence


def unsigned(header: dict[str, Any], claims: dict[str, Any], signature: bytes = b"") -> str:
    parts = (json.dumps(header).encode(), json.dumps(claims).encode(), signature)
    return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)


def signed(issuer: TestIssuer, header: dict[str, Any], claims: dict[str, Any]) -> str:
    """What no library would make, signed all the same."""
    _, key = next(iter(issuer.keys.values()))
    text = unsigned(header, claims).rpartition(".")[0]
    signature = key.sign(text.encode(), PKCS1v15(), SHA256())
    return f"{text}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"


def claims_of(issuer: TestIssuer, **more: Any) -> dict[str, Any]:
    return {"iss": issuer.url, "sub": "alice", "exp": int(time.time()) + 60, "group_membership": [GROUP], **more}


def test_a_valid_token_is_its_user(issuer: TestIssuer) -> None:
    user = verify(issuer, issuer.token("alice@example.org", name="Alice"))
    assert user == User("alice@example.org", False, (GROUP,), "Alice")
    assert verify(issuer, issuer.token("alice@example.org"), overseers=("alice@example.org",)).oversees


@pytest.mark.parametrize("algorithm", ["RS512", "PS256", "ES256", "EdDSA"])
def test_each_kind_of_signature(algorithm: str) -> None:
    with running_issuer() as issuer:
        issuer.rotate("other", algorithm)
        assert verify(issuer, issuer.token("alice")).uid == "alice"


def test_a_token_without_the_name_of_its_key(issuer: TestIssuer) -> None:
    assert verify(issuer, signed(issuer, {"alg": "RS256"}, claims_of(issuer))).uid == "alice"


@pytest.mark.parametrize(
    "claims, why",
    [
        ({"exp": int(time.time()) - 300}, "the token has expired; get a new one"),
        ({"nbf": int(time.time()) + 3000}, "the token is not valid yet; compare the clocks"),
        ({"iat": int(time.time()) + 3000}, "the token is not valid yet; compare the clocks"),
        ({"exp": None}, 'Token is missing the "exp" claim'),
        ({"group_membership": []}, f"you are in none of the groups that this cluster is for ({GROUP})"),
        ({"group_membership": GROUP}, "you are in none of the groups"),
        ({"group_membership": ["*"]}, "you are in none of the groups"),
    ],
)
def test_claims_that_are_refused(issuer: TestIssuer, claims: dict[str, Any], why: str) -> None:
    status, sentence = refusal(issuer, issuer.token("mallory", **claims))
    assert status == 401
    assert why in sentence


@pytest.mark.parametrize(
    "claims",
    [{"sub": 7}, {"sub": None}, {"exp": None}, {"exp": [1]}, {"exp": 1e999}, {"exp": float("nan")}, {"nbf": {}}],
)
def test_claims_of_the_wrong_kind(issuer: TestIssuer, claims: dict[str, Any]) -> None:
    assert refusal(issuer, signed(issuer, {"alg": "RS256", "kid": "first"}, claims_of(issuer, **claims)))[0] == 401


def test_clocks_may_differ_by_a_minute(issuer: TestIssuer) -> None:
    now = int(time.time())
    assert verify(issuer, issuer.token("alice", exp=now - 30, nbf=now + 30)).uid == "alice"


def test_the_audience_is_asked_where_one_is_configured(issuer: TestIssuer) -> None:
    token = issuer.token("alice", aud=["account", "oscar"])
    assert verify(issuer, token).uid == "alice"
    assert verify(issuer, token, audiences=("oscar",)).uid == "alice"
    assert "is not meant for this cluster (dioscar)" in refusal(issuer, token, audiences=("dioscar",))[1]
    assert 'missing the "aud"' in refusal(issuer, issuer.token("alice"), audiences=("oscar",))[1]


def test_another_issuer_is_not_listened_to(issuer: TestIssuer) -> None:
    with running_issuer() as other:
        status, sentence = refusal(issuer, other.token("alice"))
        assert status == 401
        assert sentence == f"'{other.url}' is not listed as an authorized issuer"
        forged = other.token("alice", iss=issuer.url)  # its own key, our issuer's name, and the same name of the key
        assert refusal(issuer, forged) == (401, "the signature of the token does not hold")
        assert other.asked == []
    assert refusal(issuer, unsigned({"alg": "RS256"}, {"iss": ["a"], "sub": "alice"}, b"x"))[0] in (400, 401)


def test_an_altered_token_is_refused(issuer: TestIssuer) -> None:
    header, _, signature = issuer.token("alice").split(".")
    _, payload, _ = issuer.token("admin").split(".")
    assert refusal(issuer, f"{header}.{payload}.{signature}") == (401, "the signature of the token does not hold")
    assert refusal(issuer, f"{header}.{payload}.")[0] == 401


@pytest.mark.parametrize("algorithm", ["none", "None", "HS256", "HS512", "ES256K", "RS1", None, 7])
def test_signatures_that_anybody_could_make(issuer: TestIssuer, algorithm: Any) -> None:
    claims = claims_of(issuer)
    status, sentence = refusal(issuer, unsigned({"alg": algorithm, "kid": "first"}, claims))
    assert status in (400, 401)
    assert "must be one of RS256" in sentence or "is no JSON Web Token" in sentence


def test_a_public_key_is_no_secret(issuer: TestIssuer) -> None:
    """The published key, taken for the secret of an HMAC."""
    kid, (_, key) = next(iter(issuer.keys.items()))
    pem = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    claims = claims_of(issuer)
    text = unsigned({"alg": "HS256", "kid": kid}, claims).rpartition(".")[0]
    signature = base64.urlsafe_b64encode(hmac.digest(pem, text.encode(), "sha256")).rstrip(b"=").decode()
    assert "must be one of RS256" in refusal(issuer, f"{text}.{signature}")[1]


def test_an_algorithm_must_be_that_of_the_key(issuer: TestIssuer) -> None:
    kid, (_, key) = next(iter(issuer.keys.items()))
    claims = claims_of(issuer)
    token = jwt.encode(claims, key, "RS512", headers={"kid": kid})  # published for RS256
    assert "a key that its issuer does not publish" in refusal(issuer, token)[1]


def test_short_keys_are_refused() -> None:
    with running_issuer() as issuer:
        issuer.keys = {"weak": ("RS256", rsa.generate_private_key(65537, 1024))}
        with pytest.warns(jwt.InsecureKeyLengthWarning):
            token = issuer.token("alice")
        assert refusal(issuer, token)[0] == 401


@pytest.mark.parametrize(
    "token", ["", "x", "a.b", "a.b.c", "....", "é", "x" * 20000, "0" * 63, unsigned({"alg": "RS256"}, {})[:-2]]
)
def test_what_is_no_token(issuer: TestIssuer, token: str) -> None:
    status, sentence = refusal(issuer, token)
    assert (status, sentence) == (400, "the token is no JSON Web Token") or "is not listed" in sentence


@pytest.mark.parametrize("headers", [{"crit": ["x"], "x": 1}, {"crit": ["b64"], "b64": False}])
def test_unknown_extensions_are_refused(issuer: TestIssuer, headers: dict[str, Any]) -> None:
    assert refusal(issuer, issuer.token("alice", headers=headers))[0] in (400, 401)


def test_rotated_keys_are_fetched_once_they_are_met() -> None:
    with running_issuer() as issuer:
        tokens = tokens_of(issuer)

        async def rotate() -> None:
            old = issuer.token("alice")
            assert (await tokens.verify(old))[0].uid == "alice"
            asked = len(issuer.asked)
            for _ in range(20):
                await tokens.verify(old)
            assert len(issuer.asked) == asked, "keys are kept"
            issuer.rotate("second")
            assert (await tokens.verify(issuer.token("bob")))[0].uid == "bob"
            with pytest.raises(Refused, match="does not publish"):
                await tokens.verify(old)

        asyncio.run(rotate())


def test_made_up_keys_do_not_bother_the_issuer() -> None:
    with running_issuer() as issuer:
        tokens = tokens_of(issuer)
        good = issuer.token("alice")

        async def flood() -> None:
            await tokens.verify(good)
            for number in range(30):
                forged = jwt.encode({"iss": issuer.url}, new_key("ES256"), "ES256", headers={"kid": f"k{number}"})
                with pytest.raises(Refused):
                    await tokens.verify(forged)
            await tokens.verify(good)

        asyncio.run(flood())
        assert issuer.asked.count("/realms/test/jwks") <= MOST_QUESTIONS


def test_while_the_issuer_is_away_known_keys_go_on() -> None:
    with running_issuer() as issuer:
        known, now = issuer.token("alice"), [0.0]

        async def away() -> None:
            tokens = tokens_of(issuer)
            endpoint = Issuer(issuer.url, lambda: now[0])
            assert await endpoint.keys("first", "RS256")
            await tokens.verify(known)
            issuer.close()
            try:
                assert (await tokens.verify(known))[0].uid == "alice"
                issuer.rotate("second")
                with pytest.raises(Refused, match=r"cannot be verified: .*cannot be asked") as caught:
                    await tokens.verify(issuer.token("bob"))
                assert caught.value.status == 401
                now[0] += 2 * OLD_S  # old keys are asked for again, in the background, and go on all the same
                assert await endpoint.keys("first", "RS256")
                while endpoint._background is not None:
                    await asyncio.sleep(0.01)
                assert await endpoint.keys("first", "RS256")
            finally:
                issuer.reopen()
            assert (await tokens.verify(issuer.token("bob")))[0].uid == "bob"
            now[0] += 2 * OLD_S
            assert await endpoint.keys("first", "RS256"), "what was known, while the new keys come"
            while endpoint._background is not None:
                await asyncio.sleep(0.01)
            assert not await endpoint.keys("first", "RS256"), "and then no longer"

        asyncio.run(away())


def test_those_who_come_at_once_ask_once() -> None:
    with running_issuer() as issuer:
        tokens = tokens_of(issuer)

        async def come() -> None:
            people = [issuer.token(f"user{number}") for number in range(20)]
            assert len(await asyncio.gather(*map(tokens.verify, people))) == 20
            assert issuer.asked.count("/realms/test/jwks") == 1
            issuer.rotate("second")
            issuer.instead["jwks"] = b"broken"
            people = [issuer.token(f"user{number}") for number in range(20)]
            refused = await asyncio.gather(*map(tokens.verify, people), return_exceptions=True)
            assert {str(error) for error in refused} == {
                f"the token cannot be verified: {issuer.url}/jwks: answers with no JSON object"
            }
            assert issuer.asked.count("/realms/test/jwks") == 2

        asyncio.run(come())


OTHER: dict[str, Any] = {"issuer": "URL", "jwks_uri": "http://example.org/jwks"}


@pytest.mark.parametrize(
    "instead, why",
    [
        ({"jwks": b"x" * ((1 << 20) + 1)}, "more than 1 MiB"),
        ({"jwks": b"[" * 100_000}, "no JSON object"),
        ({"jwks": b"\xff\xfe"}, "no JSON object"),
        ({"jwks": []}, "no JSON object"),
        ({"jwks": {"keys": "none"}}, "has no list of keys"),
        ({"jwks": "http://127.0.0.1:9/elsewhere"}, "answers 302"),
        ({"jwks": 3.0}, "cannot be"),
        ({"openid-configuration": OTHER}, "is not https"),
        ({"openid-configuration": {**OTHER, "jwks_uri": 7}}, "publishes no jwks_uri"),
        ({"openid-configuration": {**OTHER, "jwks_uri": "file:///etc/passwd"}}, "is not https"),
        ({"openid-configuration": {**OTHER, "issuer": "https://example.org"}}, "calls itself"),
    ],
)
def test_an_issuer_that_is_broken(instead: dict[str, Any], why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(issuer_module, "TIMEOUT_S", 0.5)
    with running_issuer() as issuer:
        for name, found in instead.items():
            is_own = isinstance(found, dict) and found.get("issuer") == "URL"
            issuer.instead[name] = {**found, "issuer": issuer.url} if is_own else found
        status, sentence = refusal(issuer, issuer.token("alice"))
        assert (status, why in sentence) == (401, True), sentence


@pytest.mark.parametrize(
    "key",
    [
        7,
        None,
        {},
        {"kty": ["RSA"]},
        {"kty": "oct", "k": "c2VjcmV0", "kid": "first"},
        {"kty": "RSA", "kid": "first"},
        {"kty": "RSA", "kid": "first", "n": "AQAB", "e": 7},
        {"kty": "EC", "kid": "first", "crv": "P-256", "x": "", "y": ""},
    ],
)
def test_keys_that_are_none(key: Any) -> None:
    with running_issuer() as issuer:
        issuer.instead["jwks"] = {"keys": [key]}
        assert refusal(issuer, issuer.token("alice")) == (
            401,
            "the token is signed with a key that its issuer does not publish",
        )


def test_an_issuer_must_call_itself_what_it_is_called(issuer: TestIssuer) -> None:
    with pytest.raises(IssuerUnavailable, match="calls itself"):
        asyncio.run(Issuer(f"{issuer.url}/").keys("first", "RS256"))
    with pytest.raises(IssuerUnavailable, match="answers 404"):
        asyncio.run(Issuer(issuer.url.replace("test", "none")).keys("first", "RS256"))


def test_groups_that_the_token_does_not_name_are_asked_for(issuer: TestIssuer) -> None:
    entitlement = "urn:mace:egi.eu:group:vo.example.org:role=member#aai.egi.eu"
    issuer.user_info["egi"] = {"sub": "egi", "entitlements": [entitlement], "name": "E. G. I."}
    issuer.user_info["other"] = {"sub": "egi", "entitlements": [entitlement]}
    tokens = tokens_of(issuer)

    async def ask() -> None:
        token = issuer.token("egi", group_membership=None)
        for _ in range(3):
            user, _ = await tokens.verify(token)
            assert (user.groups, user.name) == ((GROUP,), "E. G. I.")
        with pytest.raises(Refused, match="somebody else"):
            await tokens.verify(issuer.token("other", group_membership=None))
        with pytest.raises(Refused, match="in none of the groups"):
            await tokens.verify(issuer.token("nobody", group_membership=None))

    before = issuer.asked.count("/realms/test/userinfo")
    asyncio.run(ask())
    assert issuer.asked.count("/realms/test/userinfo") - before == 3


def test_every_account_of_an_issuer_may_be_let_in(issuer: TestIssuer) -> None:
    assert verify(issuer, issuer.token("alice", group_membership=None), groups=("*",)).groups == ()


@pytest.mark.parametrize("told", ["staff", "/staff"])
@pytest.mark.parametrize("wanted", ["staff", "/staff"])
@pytest.mark.parametrize("claim", ["group_membership", "groups", "wlcg.groups"])
def test_a_group_may_be_written_as_a_path(issuer: TestIssuer, claim: str, wanted: str, told: str) -> None:
    claims = {"group_membership": None, claim: [told]}
    assert verify(issuer, issuer.token("alice", **claims), groups=(wanted,)).groups == ("staff",)


def test_which_claims_are_groups() -> None:
    assert groups_of({"realm_access": {"roles": ["a", 7]}, "wlcg.groups": ["/cms/prod"], "groups": "no list"}) == (
        "a",
        "cms/prod",
    )
    assert groups_of({"entitlements": ["urn:other:group:x"], "realm_access": ["a"]}) == ()
    assert "none" not in map(str.lower, ALGORITHMS) and not any(name.startswith("HS") for name in ALGORITHMS)


@pytest.mark.parametrize(
    "environ, why",
    [
        ({"OIDC_ENABLE": "yes"}, 'OIDC_ENABLE: "yes" is neither true nor false'),
        ({"OIDC_ENABLE": "true"}, "OIDC_ISSUERS: is empty"),
        ({"OIDC_ENABLE": "true", "OIDC_ISSUERS": "aai.egi.eu"}, 'OIDC_ISSUERS: "aai.egi.eu" is no issuer'),
        ({"OIDC_ENABLE": "true", "OIDC_ISSUERS": "http://aai.egi.eu/x"}, "is not https"),
        ({"OIDC_ENABLE": "true", "OIDC_ISSUERS": "https://u:p@a/x"}, "is no issuer"),
        ({"OIDC_ENABLE": "true", "OIDC_ISSUERS": "https://[a"}, "is no issuer"),
        ({"OIDC_ENABLE": "true", "OIDC_ISSUERS": "https://a/x"}, "OIDC_GROUPS: is empty"),
    ],
)
def test_settings_that_are_wrong_are_named(environ: dict[str, str], why: str) -> None:
    with pytest.raises(ValueError) as caught:
        oidc_settings(environ)
    assert why in str(caught.value)


def test_settings_have_the_real_servers_names() -> None:
    assert oidc_settings({"OIDC_ISSUERS": "https://a/x"}) is None
    assert oidc_settings({"OIDC_ENABLE": "False"}) is None
    found = oidc_settings(
        {"OIDC_ENABLE": "True", "OIDC_ISSUERS": "https://a/x, https://b", "OIDC_GROUPS": "g,h", "USERS_ADMIN": "alice"}
    )
    assert found == OidcSettings(("https://a/x", "https://b"), ("g", "h"), (), ("alice",))


@given(st.text(max_size=300) | st.binary(max_size=300).map(lambda data: data.decode("latin-1")))
def test_no_text_is_more_than_refused(text: str) -> None:
    with pytest.raises(Refused):
        asyncio.run(OFFLINE.verify(text))


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
HEADERS = st.fixed_dictionaries(
    {"alg": st.sampled_from(["RS256", "ES256", "EdDSA", "none"]) | JSON}, optional={"kid": JSON, "crit": JSON}
)
CLAIMS = st.fixed_dictionaries({}, optional=dict.fromkeys(("iss", "sub", "exp", "nbf", "iat", "aud"), JSON))


@given(HEADERS, CLAIMS, st.binary(max_size=64))
def test_no_made_up_token_is_more_than_refused(
    header: dict[str, Any], claims: dict[str, Any], signature: bytes
) -> None:
    with pytest.raises(Refused):
        asyncio.run(OFFLINE.verify(unsigned(header, {"iss": "http://127.0.0.1:9/x", **claims}, signature)))


OFFLINE = Tokens(OidcSettings(("http://127.0.0.1:9/x",), ("g",)))


@given(JSON)
def test_claims_of_any_kind_have_groups_or_none(value: Any) -> None:
    names = ("entitlements", "eduperson_entitlement", "realm_access", "group_membership", "groups", "wlcg.groups")
    assert all(isinstance(name, str) for name in groups_of(dict.fromkeys(names, value)))
