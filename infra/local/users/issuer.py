"""An OpenID Connect issuer: what it publishes about itself, fetched when it is needed and kept.

Its keys are asked for again when a token names one that is not known (it may be new), and, in the background, when they
are old. As long as the issuer is away the keys that are known go on.

Source: OpenID Connect Discovery 1.0, section 4; OpenID Connect Core 1.0, section 5.3; RFC 7517 (JSON Web Key).
"""

import asyncio
import json
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

import jwt
import requests

from infra.local.users.settings import is_secure

T = TypeVar("T")

log = logging.getLogger("dioscar.users")

OLD_S = 3600.0
"""Age at which keys are asked for again."""
MOST_QUESTIONS, SPAN_S = 6, 60.0
"""Whoever makes up tokens must not make the cluster bother an issuer: so many questions for keys in so many seconds."""
TIMEOUT_S = 5.0
"""Seconds without a byte, and in all, for what an issuer is asked."""
PATIENCE_S = 15.0
QUESTIONS_AT_ONCE = 2
"""Of users' groups: the threads that these take are those that read and write files."""
LARGEST = 1 << 20
MOST_KEYS = 64
WELL_KNOWN = "/.well-known/openid-configuration"


class IssuerUnavailable(Exception):  # noqa: N818 - a state, said plainly
    """The issuer does not answer, or with nothing that can be used; the message says why."""


class Issuer:
    """One issuer; belongs to one event loop."""

    def __init__(self, url: str, clock: Callable[[], float] = time.monotonic) -> None:
        self.url = url
        self._clock = clock
        self._document: Mapping[str, Any] = {}
        self._keys: list[tuple[str, Mapping[str, Any]]] = []
        self._fetched = -OLD_S
        self._asked: deque[float] = deque(maxlen=MOST_QUESTIONS)
        self._asking = asyncio.Lock()
        self._telling = asyncio.Semaphore(QUESTIONS_AT_ONCE)
        self._tries = 0
        self._failure = ""
        self._background: asyncio.Task[None] | None = None

    async def keys(self, kid: str, algorithm: str) -> Sequence[jwt.PyJWK]:
        """The keys that a token's header may mean; without `kid`, every one for that algorithm.

        Raises IssuerUnavailable where there is none and the issuer cannot be asked.
        """
        found = self._usable(kid, algorithm)
        if not found:
            before = self._tries
            async with self._asking:
                if self._tries == before:  # nobody else has asked while this one waited
                    await self._fetch()
            found = self._usable(kid, algorithm)
            if not found and self._failure:
                raise IssuerUnavailable(self._failure)
        elif self._clock() - self._fetched > OLD_S and self._background is None:
            self._background = asyncio.create_task(self._refresh())
        return found

    async def user_info(self, token: str) -> Mapping[str, Any]:
        """What the issuer says of a token's user. Raises IssuerUnavailable."""
        url = self._document.get("userinfo_endpoint")
        if not isinstance(url, str):
            return {}
        async with self._telling:
            return await _in_time(url, asyncio.to_thread(_fetch, url, token))

    def _usable(self, kid: str, algorithm: str) -> list[jwt.PyJWK]:
        found = []
        for name, data in self._keys:
            if (kid and name != kid) or data.get("alg", algorithm) != algorithm:
                continue
            try:
                found.append(jwt.PyJWK(dict(data), algorithm))
            except jwt.PyJWTError:
                continue  # of another kind than the algorithm's
        return found

    async def _refresh(self) -> None:
        """In the background, what is old; nobody waits for it."""
        try:
            async with self._asking:
                await self._fetch()
            if self._failure:
                log.warning("%s; the keys that are known go on", self._failure)
        finally:
            self._fetched = self._clock()
            self._background = None

    async def _fetch(self) -> None:
        """Ask for the keys, and note what came of it: whoever has waited for this need not ask again."""
        now = self._clock()
        try:
            if len(self._asked) == MOST_QUESTIONS and now - self._asked[0] < SPAN_S:
                raise IssuerUnavailable(f"{self.url} has just been asked for its keys; try again in a minute")
            self._asked.append(now)
            self._document, self._keys = await _in_time(self.url, asyncio.to_thread(_published, self.url))
            self._fetched, self._failure = self._clock(), ""
        except IssuerUnavailable as error:
            self._failure = str(error)
        finally:
            self._tries += 1


async def _in_time(url: str, answer: Awaitable[T]) -> T:
    """The answer, unless it drips."""
    try:
        return await asyncio.wait_for(answer, PATIENCE_S)
    except TimeoutError:
        raise IssuerUnavailable(f"{url}: does not answer in time") from None


def _published(issuer: str) -> tuple[Mapping[str, Any], list[tuple[str, Mapping[str, Any]]]]:
    document = _fetch(issuer.rstrip("/") + WELL_KNOWN)
    if document.get("issuer") != issuer:
        raise IssuerUnavailable(f'{issuer}: calls itself "{document.get("issuer")}"; write its URL as it does')
    address = document.get("jwks_uri")
    if not isinstance(address, str):
        raise IssuerUnavailable(f"{issuer}: publishes no jwks_uri")
    listed = _fetch(address).get("keys")
    if not isinstance(listed, list):
        raise IssuerUnavailable(f"{address}: has no list of keys")
    keys: list[tuple[str, Mapping[str, Any]]] = [
        (str(key.get("kid", "")), key)
        for key in listed[:MOST_KEYS]
        if isinstance(key, dict) and key.get("kty") in ("RSA", "EC", "OKP") and key.get("use", "sig") == "sig"
    ]
    return document, keys


def _fetch(url: str, token: str = "") -> Mapping[str, Any]:
    """A JSON object from an issuer; no redirect is followed."""

    def authorize(request: requests.PreparedRequest) -> requests.PreparedRequest:
        """Also so that nothing of a .netrc is sent in its place."""
        if token:
            request.headers["Authorization"] = f"Bearer {token}"
        return request

    if not is_secure(url):
        raise IssuerUnavailable(f"{url}: is not https")
    try:
        with requests.get(url, auth=authorize, timeout=TIMEOUT_S, allow_redirects=False, stream=True) as response:
            body = response.raw.read(LARGEST + 1, decode_content=True)
    except (requests.RequestException, OSError, ValueError) as error:
        raise IssuerUnavailable(f"{url}: cannot be asked ({type(error).__name__})") from None
    except Exception as error:  # urllib3's own, while the body is read
        raise IssuerUnavailable(f"{url}: cannot be read ({type(error).__name__})") from None
    if response.status_code != 200:
        raise IssuerUnavailable(f"{url}: answers {response.status_code}")
    if len(body) > LARGEST:
        raise IssuerUnavailable(f"{url}: answers with more than {LARGEST >> 20} MiB")
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise IssuerUnavailable(f"{url}: answers with no JSON object")
    return document
