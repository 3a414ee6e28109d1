"""Bearer tokens: a signed JWT of a configured issuer becomes a user, anything else a refusal.

Signatures are asymmetric ones only, so that neither `none` nor a public key taken for an HMAC secret is ever tried.

Source: RFC 7519 (JSON Web Token), RFC 8725 (its best current practices); which claims are groups: OSCAR v4.1,
pkg/utils/auth/oidc.go, and those of Keycloak, INDIGO IAM and WLCG.
"""

import hashlib
import time
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import jwt

from infra.local.users.identity import User
from infra.local.users.issuer import Issuer, IssuerUnavailable
from infra.local.users.refusals import Refused
from infra.local.users.settings import ANY_GROUP, OidcSettings

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
SKEW_S = 60
"""Seconds by which the issuer's clock and ours may differ."""
LONGEST = 16 << 10
REMEMBERED = 1024
EGI_GROUP = "urn:mace:egi.eu:group:"
MOST_TRIED = 16


class Tokens:
    """The tokens of all configured issuers; belongs to one event loop."""

    def __init__(self, settings: OidcSettings) -> None:
        self._settings = settings
        self._issuers = {url: Issuer(url) for url in settings.issuers}
        self._told: OrderedDict[bytes, tuple[float, Mapping[str, Any]]] = OrderedDict()

    async def verify(self, token: str) -> tuple[User, str]:
        """Who bears a token, and by which issuer. Raises Refused, with OSCAR's status and a sentence."""
        issuer, header = self._parse(token)
        claims = await self._checked(token, issuer, header)
        groups = groups_of(claims)
        name = claims.get("name")
        if not self._admits(groups) and not groups:
            told = await self._user_info(token, issuer, claims)
            groups = groups_of(told)
            name = name or told.get("name")
        if not self._admits(groups):
            raise Refused(401, f"you are in none of the groups that this cluster is for ({self._group_names()})")
        uid = claims["sub"]
        shown = name if isinstance(name, str) else ""
        return User(uid, False, groups, shown[:255], oversees=uid in self._settings.overseers), issuer.url

    def _admits(self, groups: tuple[str, ...]) -> bool:
        wanted = self._settings.groups
        return ANY_GROUP in wanted or not {name.removeprefix("/") for name in wanted}.isdisjoint(groups)

    def _group_names(self) -> str:
        return ", ".join(self._settings.groups)

    def _parse(self, token: str) -> tuple[Issuer, Mapping[str, Any]]:
        if len(token) > LONGEST or not token.isascii():
            raise Refused(400, "the token is no JSON Web Token")
        try:
            unverified = jwt.decode_complete(token, options={"verify_signature": False})
        except (jwt.PyJWTError, ValueError, RecursionError):
            raise Refused(400, "the token is no JSON Web Token") from None
        header, url = unverified["header"], unverified["payload"].get("iss", "")
        issuer = self._issuers.get(url) if isinstance(url, str) else None
        if issuer is None:
            raise Refused(401, f"{ascii(url)[:200]} is not listed as an authorized issuer")
        if header.get("alg") not in ALGORITHMS:
            raise Refused(
                401,
                f"the token is signed with {ascii(header.get('alg'))[:20]}; it must be one of {', '.join(ALGORITHMS)}",
            )
        return issuer, header

    async def _checked(self, token: str, issuer: Issuer, header: Mapping[str, Any]) -> Mapping[str, Any]:
        kid = header.get("kid", "")
        try:
            keys = await issuer.keys(kid if isinstance(kid, str) else "", header["alg"])
        except IssuerUnavailable as error:
            raise Refused(401, f"the token cannot be verified: {error}") from None
        if not keys:
            raise Refused(401, "the token is signed with a key that its issuer does not publish")
        for key in keys[:MOST_TRIED]:
            try:
                return self._claims(token, key, issuer, header["alg"])
            except jwt.InvalidSignatureError:
                continue
        raise Refused(401, "the signature of the token does not hold")

    def _claims(self, token: str, key: jwt.PyJWK, issuer: Issuer, algorithm: str) -> Mapping[str, Any]:
        audiences = self._settings.audiences
        try:
            return jwt.decode(
                token,
                key,
                algorithms=[algorithm],
                issuer=issuer.url,
                audience=audiences or None,
                leeway=SKEW_S,
                options={
                    "require": ["exp", "iss", "sub", *(["aud"] if audiences else [])],
                    "verify_aud": bool(audiences),
                    "enforce_minimum_key_length": True,
                },
            )
        except jwt.InvalidSignatureError:
            raise
        except jwt.ExpiredSignatureError:
            raise Refused(401, "the token has expired; get a new one") from None
        except jwt.ImmatureSignatureError:
            raise Refused(401, "the token is not valid yet; compare the clocks") from None
        except jwt.InvalidAudienceError:
            raise Refused(401, f"the token is not meant for this cluster ({', '.join(audiences)})") from None
        except (jwt.PyJWTError, ValueError, OverflowError, TypeError) as error:
            raise Refused(401, f"the token is refused ({error})") from None

    async def _user_info(self, token: str, issuer: Issuer, claims: Mapping[str, Any]) -> Mapping[str, Any]:
        """What the issuer says of the user: EGI's tokens name no groups. Asked once for each token."""
        mark = hashlib.sha256(token.encode()).digest()
        now = time.time()
        kept = self._told.get(mark)
        if kept is not None and now < kept[0]:
            return kept[1]
        try:
            told = await issuer.user_info(token)
        except IssuerUnavailable as error:
            raise Refused(401, f"your groups are not known: {error}") from None
        if told and told.get("sub") != claims["sub"]:
            raise Refused(401, "your groups are not known: the issuer told of somebody else")
        self._told[mark] = (min(float(claims["exp"]), now + SKEW_S * 60), told)
        self._told.move_to_end(mark)
        while len(self._told) > REMEMBERED:
            self._told.popitem(last=False)
        return told


def groups_of(claims: Mapping[str, Any]) -> tuple[str, ...]:
    """The groups that claims name: EGI's entitlements, Keycloak's realm roles and memberships, WLCG's.

    Keycloak and WLCG write them as paths, or not, as it is set up there: the first slash does not count.

    >>> groups_of({"entitlements": ["urn:mace:egi.eu:group:vo.example.eu:role=member#aai.egi.eu"], "groups": ["/cms"]})
    ('vo.example.eu', 'cms')
    """
    roles = claims.get("realm_access")
    found = [
        *map(_egi, [*_texts(claims.get("entitlements")), *_texts(claims.get("eduperson_entitlement"))]),
        *_texts(roles.get("roles") if isinstance(roles, dict) else None),
        *(name for claim in ("group_membership", "groups", "wlcg.groups") for name in _texts(claims.get(claim))),
    ]
    names = (name.removeprefix("/") for name in found)
    return tuple(dict.fromkeys(name for name in names if name and name != ANY_GROUP))


def _egi(urn: str) -> str:
    """The group in an entitlement of EGI's, empty where it is none."""
    lower = urn.strip().lower()
    return lower.removeprefix(EGI_GROUP).split(":")[0] if lower.startswith(EGI_GROUP) else ""


def _texts(value: Any) -> list[str]:
    return [one for one in value if isinstance(one, str)] if isinstance(value, list) else []
