"""Which cluster a command speaks to, and how.

`--cluster` is a name in oscar-cli's own configuration, a URL, or the data folder of an embedded cluster. Without it,
`OSCAR_ENDPOINT` where that is set, else the embedded cluster of the data folder.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from infra.cli.embedded import STATE_FILE, data_folder, require
from infra.cli.errors import DIOSCAR, CliError, Exit

if TYPE_CHECKING:
    import requests
    from minio import Minio
    from oscar_python.client import Client

    from fdl.apply import Endpoint

OSCAR_CLI_CONFIG = Path("~/.oscar-cli/config.yaml")
EMBEDDED_ID = "dioscar"
REMOTE_ID = "oscar"
"""What a cluster that is given by its URL is called in the documents sent to it."""

TIMEOUT_S = 60.0
_USER = ("OSCAR_USERNAME", "OSCAR_PASSWORD")

cluster_option = click.option(
    "--cluster",
    metavar="CLUSTER",
    help="A name from oscar-cli's configuration, a URL, or an embedded cluster's data folder. "
    "Default: OSCAR_ENDPOINT, else the embedded cluster in DIOSCAR_DATA or ./dioscar-data.",
)


@dataclass(frozen=True)
class Mailbox:
    """A folder of a bucket (all of it, where empty) whose objects start `service`."""

    service: str
    bucket: str
    folder: str

    def takes(self, bucket: str, key: str) -> bool:
        """Whether an object arrives here."""
        return bucket == self.bucket and (not self.folder or key.startswith(f"{self.folder}/"))

    def __str__(self) -> str:
        return f"{self.bucket}/{self.folder}" if self.folder else self.bucket


@dataclass(frozen=True)
class Target:
    """A cluster that commands can speak to."""

    endpoint: "Endpoint"

    @property
    def url(self) -> str:
        """The URL of its API."""
        return self.endpoint.url.rstrip("/")

    @cached_property
    def client(self) -> "Client":
        """OSCAR's own client."""
        return self.endpoint.client()

    @cached_property
    def store(self) -> "Minio":
        """The cluster's object store, by the keys that the cluster hands out."""
        from urllib.parse import urlsplit

        import urllib3
        from minio import Minio

        provider = self.get("/system/config").json()["minio_provider"]
        address = urlsplit(provider["endpoint"])
        secure = address.scheme == "https"
        pool = urllib3.PoolManager(
            timeout=urllib3.Timeout(connect=10, read=300),
            retries=urllib3.Retry(total=2, backoff_factor=0.2, status_forcelist=[502, 503, 504]),
            cert_reqs="CERT_REQUIRED" if provider["verify"] else "CERT_NONE",
        )
        return Minio(
            address.netloc,
            access_key=provider["access_key"],
            secret_key=provider["secret_key"],
            secure=secure,
            region=provider.get("region") or "us-east-1",
            http_client=pool,
        )

    def get(self, path: str, *, stream: bool = False, **query: Any) -> "requests.Response":
        """The reply to a GET. Raises CliError or ClusterError where it is no success."""
        wanted = {name: value for name, value in query.items() if value is not None}
        return self._ask("GET", path, None if stream else TIMEOUT_S, params=wanted, stream=stream)

    def post(self, path: str, body: Mapping[str, Any] | None = None) -> "requests.Response":
        """The reply to a POST of JSON, however long it takes. Raises as `get` does."""
        return self._ask("POST", path, None, json=body)

    def put(self, path: str, body: Mapping[str, Any]) -> "requests.Response":
        """The reply to a PUT of JSON. Raises as `get` does."""
        return self._ask("PUT", path, TIMEOUT_S, json=body)

    def delete(self, path: str) -> "requests.Response":
        """The reply to a DELETE, however long it takes. Raises as `get` does."""
        return self._ask("DELETE", path, None)

    def service(self, name: str) -> dict[str, Any]:
        """A deployed service as the cluster tells it. Raises CliError with the name that was probably meant."""
        try:
            return dict(self.get(f"/system/services/{name}").json())
        except CliError as error:
            if error.status != Exit.NOT_FOUND:
                raise
            from fdl.names import did_you_mean

            known = sorted(service["name"] for service in self.services())
            close = did_you_mean(name, known)
            mend = f"there is {close}" if close else "there are " + (", ".join(known) or f"none; {DIOSCAR} apply FILE")
            raise CliError(f"there is no service {name}; {mend}", Exit.NOT_FOUND) from None

    def services(self) -> list[dict[str, Any]]:
        """All deployed services as the cluster tells them."""
        return list(self.get("/system/services").json() or [])

    def mailboxes(self) -> list[Mailbox]:
        """Where an object starts something: what services read of the cluster's own store."""
        return [
            Mailbox(str(service["name"]), *split_path(entry["path"]))
            for service in self.services()
            for entry in service.get("input") or []
            if str(entry.get("storage_provider") or "minio").lower() in ("minio", "minio.default")
        ]

    def _ask(self, method: str, path: str, patience_s: float | None, **options: Any) -> "requests.Response":
        import requests

        from fdl.apply import sentences

        endpoint = self.endpoint
        headers = {"Authorization": f"Bearer {endpoint.oidc_token}"} if endpoint.oidc_token else {}
        with sentences(self.url):
            reply = requests.request(
                method,
                self.url + path,
                auth=None if endpoint.oidc_token else (endpoint.user, endpoint.password),
                headers=headers,
                verify=endpoint.verify,
                timeout=(10, patience_s),
                **options,
            )
            if reply.status_code == 404:
                raise CliError(_message(reply) or f"{self.url}: has no {path}", Exit.NOT_FOUND)
            if reply.status_code >= 400 and reply.status_code != 401 and _message(reply):
                raise CliError(_message(reply))
            reply.raise_for_status()
            return reply


def split_path(path: str) -> tuple[str, str]:
    """The bucket and the folder of a path in an FDL file."""
    bucket, _, folder = path.strip("/").partition("/")
    return bucket, folder


def _message(reply: "requests.Response") -> str:
    try:
        said = str(reply.json()["error"]["message"])
        return said.replace("`dioscar ", f"`{DIOSCAR} ")  # the cluster cannot know how this was called
    except (ValueError, KeyError, TypeError):
        return " ".join(reply.text.split())


def target(cluster: str | None) -> Target:
    """The cluster that `--cluster` names. Raises CliError where it names none."""
    from fdl.apply import Endpoint

    cluster = cluster or os.environ.get("OSCAR_ENDPOINT")
    if cluster is None or (Path(cluster) / STATE_FILE).is_file():
        running = require(data_folder(cluster))
        facts = running.facts
        return Target(Endpoint(EMBEDDED_ID, running.api, facts["oscar_username"], facts["oscar_password"]))
    if "://" in cluster:
        token = os.environ.get("OSCAR_OIDC_TOKEN", "")
        user, password = ("", "") if token else (_environment(name, cluster) for name in _USER)
        return Target(Endpoint(REMOTE_ID, cluster, user, password, token))
    return Target(_from_oscar_cli(cluster))


def _environment(variable: str, cluster: str) -> str:
    value = os.environ.get(variable)
    if not value:
        raise CliError(f"{cluster} asks for credentials; set {variable}", Exit.REFUSED)
    return value


def _from_oscar_cli(name: str) -> "Endpoint":
    import yaml

    from fdl.apply import Endpoint
    from fdl.names import did_you_mean

    path = OSCAR_CLI_CONFIG.expanduser()
    try:
        configured = yaml.safe_load(path.read_text(encoding="utf-8"))["oscar"]
        known: Mapping[str, Mapping[str, Any]] = configured if isinstance(configured, Mapping) else {}
    except FileNotFoundError:
        known = {}
    except (ValueError, KeyError, TypeError, yaml.YAMLError):
        raise CliError(f"{path}: is no configuration of oscar-cli; mend or remove it", Exit.BAD_INPUT) from None
    if name not in known:
        close = did_you_mean(name, known)
        mend = f'write "{close}"' if close else f"add it with: oscar-cli cluster add {name} URL USER PASSWORD"
        raise CliError(f'"{name}" is no cluster in {path}, no URL, and no data folder; {mend}', Exit.NOT_FOUND)
    found = known[name]
    if found.get("oidc_refresh_token") or found.get("oidc_account_name"):
        raise CliError(f'{path}: "{name}" uses OpenID Connect; set OSCAR_ENDPOINT and OSCAR_OIDC_TOKEN', Exit.REFUSED)
    return Endpoint(
        name,
        str(found.get("endpoint", "")),
        str(found.get("auth_user", "")),
        str(found.get("auth_password", "")),
        verify=bool(found.get("ssl_verify", True)),
    )


@contextmanager
def store_errors(what: str, no_bucket: str = "") -> Iterator[None]:
    """Turn the object store's errors into one sentence about `what`; `no_bucket` is the mend where that is missing."""
    import urllib3
    from minio.error import MinioException, S3Error

    try:
        yield
    except S3Error as error:
        missing = error.code in ("NoSuchKey", "NoSuchBucket", "ResourceNotFound")
        sentence = "there is no such bucket" if error.code == "NoSuchBucket" else "there is no such object"
        more = f", {no_bucket}" if no_bucket and error.code == "NoSuchBucket" else ""
        raise CliError(
            f"{what}: {sentence}; {DIOSCAR} ls shows what there is{more}"
            if missing
            else f"{what}: {error.message} ({error.code})",
            Exit.NOT_FOUND if missing else Exit.FAILED,
        ) from None
    except (MinioException, urllib3.exceptions.HTTPError) as error:
        raise CliError(f"{what}: the object store does not answer ({type(error).__name__})", Exit.UNREACHABLE) from None
