"""Carry a plan out on any OSCAR cluster, through OSCAR's own Python client."""

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fdl.errors import ClusterError, CredentialsError, UnreachableError
from fdl.plan import Action, Instruction

if TYPE_CHECKING:
    from oscar_python.client import Client


@dataclass(frozen=True)
class Endpoint:
    """An OSCAR cluster and how to be let in: a user with a password, or an OpenID Connect token."""

    cluster_id: str
    url: str
    user: str = ""
    password: str = ""
    oidc_token: str = ""
    verify: bool = True

    def client(self) -> "Client":
        """A client of the cluster."""
        from oscar_python.client import Client

        options: dict[str, Any] = {"cluster_id": self.cluster_id, "endpoint": self.url.rstrip("/"), "ssl": self.verify}
        if self.oidc_token:
            return Client({**options, "oidc_token": self.oidc_token})
        return Client({**options, "user": self.user, "password": self.password})


@dataclass(frozen=True)
class Result:
    """What became of one instruction."""

    service: str
    action: Action
    error: str | None = None


def services_on(client: "Client") -> dict[str, Mapping[str, Any]]:
    """The services of a cluster by name, as it tells them. Raises ClusterError."""
    with sentences(client.endpoint):
        return {service["name"]: service for service in client.list_services().json() or []}


def apply(instructions: Iterable[Instruction], client: "Client") -> Iterator[Result]:
    """Carry out each instruction on its own, when its result is asked for; one that fails does not stop the rest."""
    for instruction in instructions:
        name = instruction.service.name
        try:
            with sentences(client.endpoint):
                _carry_out(instruction, client)
        except (UnreachableError, CredentialsError):
            raise
        except ClusterError as error:
            yield Result(name, instruction.action, str(error))
        else:
            yield Result(name, instruction.action)


def make_registries(buckets: Iterable[str], client: "Client") -> tuple[str, ...]:
    """Make the buckets that registries of models want and no service declares; returns a sentence for each failure."""
    warnings = []
    for bucket in sorted(set(buckets)):
        try:
            with sentences(client.endpoint):
                if bucket not in _buckets_on(client):
                    client.create_bucket(bucket)
        except (UnreachableError, CredentialsError):
            raise
        except ClusterError as error:
            with contextlib.suppress(ClusterError), sentences(client.endpoint):
                if bucket in _buckets_on(client):
                    continue  # somebody else has made it meanwhile
            warnings.append(
                f"the bucket {bucket}, where versions of models are to go, is not there ({error}); make it, or a "
                "training cannot end"
            )
    return tuple(warnings)


def _buckets_on(client: "Client") -> set[str]:
    return {bucket["bucket_name"] for bucket in client.list_buckets().json() or []}


def _carry_out(instruction: Instruction, client: "Client") -> None:
    service = instruction.service
    if instruction.action == "create":
        client.create_service(service.to_json())
    elif instruction.action == "update":
        client.update_service(service.name, service.to_json())


@contextlib.contextmanager
def sentences(endpoint: str) -> Iterator[None]:
    """Turn what goes wrong between here and a cluster into ClusterError with one sentence."""
    import requests

    try:
        yield
    except requests.HTTPError as error:
        raise _refusal(error, endpoint) from None
    except requests.exceptions.SSLError as error:
        raise UnreachableError(f"{endpoint}: its certificate is not trusted ({error}); correct it") from None
    except requests.ConnectionError:
        raise UnreachableError(f"{endpoint}: nobody answers; start the cluster (dioscar up) or correct it") from None
    except requests.Timeout:
        raise UnreachableError(f"{endpoint}: does not answer in time; try again, or look at its log") from None
    except requests.RequestException as error:
        raise ClusterError(f"{endpoint}: {error}; correct the endpoint") from None
    except ValueError as error:  # the client's own refusals
        raise ClusterError(f"{endpoint}: {error}") from None


def _refusal(error: Any, endpoint: str) -> ClusterError:
    status, text = error.response.status_code, " ".join(error.response.text.split())
    if status == 401:
        return CredentialsError(f"{endpoint}: refuses the credentials (401); check user and password")
    return ClusterError(f"{endpoint}: {text or error.response.reason} ({status})")
