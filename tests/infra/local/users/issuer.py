"""A small real issuer on loopback: discovery, keys, user info, and tokens signed with keys of its own."""

import json
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

GROUP = "vo.example.org"


class TestIssuer:
    """Serves until `close`; `keys` may be changed at any time, as an issuer rotates its own."""

    __test__ = False

    def __init__(self, port: int = 0) -> None:
        self.keys: dict[str, tuple[str, Any]] = {}
        self.user_info: dict[str, Mapping[str, Any]] = {}
        self.asked: list[str] = []
        self.instead: dict[str, Any] = {}
        """Answers below the realm instead of the right ones: a document, bytes, a redirection (str), or a wait (s)."""
        self.rotate("first")
        self._open(port)

    def _open(self, port: int) -> None:
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                issuer.asked.append(self.path)
                bearer = self.headers.get("Authorization", "").removeprefix("Bearer ")
                found = issuer.answer(self.path, bearer)
                if isinstance(found, float):
                    time.sleep(found)
                body = found if isinstance(found, bytes) else json.dumps(found).encode()
                self.send_response(302 if isinstance(found, str) else 200 if found is not None else 404)
                if isinstance(found, str):
                    self.send_header("Location", found)
                self.send_header("Content-Length", str(len(body)))
                with suppress(OSError):  # who asked may have gone
                    self.end_headers()
                    self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                """Quiet."""

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/realms/test"

    def answer(self, path: str, bearer: str) -> Any:
        name = path.rpartition("/")[2]
        if name in self.instead:
            return self.instead[name]
        if path == "/realms/test/.well-known/openid-configuration":
            return {"issuer": self.url, "jwks_uri": f"{self.url}/jwks", "userinfo_endpoint": f"{self.url}/userinfo"}
        if path == "/realms/test/jwks":
            return {"keys": [public(kid, algorithm, key) for kid, (algorithm, key) in self.keys.items()]}
        if path == "/realms/test/userinfo":
            sub = jwt.decode(bearer, options={"verify_signature": False})["sub"]
            return self.user_info.get(sub, {"sub": sub})
        return None

    def rotate(self, kid: str, algorithm: str = "RS256") -> None:
        """Sign with a new key from now on; the old ones are published no longer."""
        self.keys = {kid: (algorithm, new_key(algorithm))}

    def token(self, sub: str, *, kid: str = "", headers: Mapping[str, Any] | None = None, **claims: Any) -> str:
        """A token for `sub`; a claim of None is left out."""
        kid = kid or next(iter(self.keys))
        algorithm, key = self.keys[kid]
        now = int(time.time())
        all_claims = {"iss": self.url, "sub": sub, "iat": now, "exp": now + 3600, "group_membership": [GROUP], **claims}
        kept = {name: value for name, value in all_claims.items() if value is not None}
        return jwt.encode(kept, key, algorithm, headers={"kid": kid, **(headers or {})})

    def close(self) -> None:
        """Be away; `reopen` at the same address."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def reopen(self) -> None:
        self._open(self.port)


def new_key(algorithm: str) -> Any:
    if algorithm.startswith("ES"):
        return ec.generate_private_key(ec.SECP256R1())
    if algorithm == "EdDSA":
        return ed25519.Ed25519PrivateKey.generate()
    return rsa.generate_private_key(65537, 2048)


def public(kid: str, algorithm: str, key: Any) -> dict[str, Any]:
    """A key as it is published."""
    kinds = {"RS": RSAAlgorithm, "PS": RSAAlgorithm, "ES": ECAlgorithm, "Ed": OKPAlgorithm}
    data = kinds[algorithm[:2]].to_jwk(key.public_key(), as_dict=True)
    return {**data, "kid": kid, "use": "sig", "alg": algorithm}


@contextmanager
def running_issuer() -> Iterator[TestIssuer]:
    issuer = TestIssuer()
    try:
        yield issuer
    finally:
        issuer.close()
