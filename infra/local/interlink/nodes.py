"""The interLink nodes of a cluster: what `interlink_node_name` may name, and where the plugin of each is asked."""

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from infra.local.settings import StoreAddress

SETTING = "DIOSCAR_INTERLINK_NODES"
FILE = "interlink.yaml"
OWN = "hpc"
"""The node that is there without any setting: this machine, through our own plugin."""
UNIX = "unix://"
NEAR_S, FAR_S = 0.3, 2.0
"""How often a plugin is asked for the state of its pods: one on this machine's socket, and any other."""
LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


class NodesError(ValueError):
    """The nodes are not as they must be written; one sentence that names the file or variable and the mend."""


@dataclass(frozen=True)
class Node:
    """A node. Without a `url` it is our own plugin on this machine; `s3` is the object store as the node reaches it."""

    name: str
    url: str = ""
    s3: str = ""

    @property
    def is_own(self) -> bool:
        """Whether the cluster itself starts the plugin."""
        return not self.url

    @property
    def poll_s(self) -> float:
        """Seconds between two questions for the state of its pods."""
        return NEAR_S if self.is_own or self.url.startswith(UNIX) else FAR_S

    @property
    def is_here(self) -> bool:
        """Whether the plugin is on this machine, as far as its address tells."""
        return self.is_own or self.url.startswith(UNIX) or _is_loopback(urlsplit(self.url).hostname or "")

    def store(self, advertised: StoreAddress) -> StoreAddress:
        """The object store as the node's pods are told of it. Raises ValueError where they could not reach it."""
        if self.s3:
            return replace(advertised, endpoint=self.s3)
        if not self.is_here and _is_loopback(urlsplit(advertised.endpoint).hostname or ""):
            raise ValueError(
                f"the interLink node {self.name} is on another machine, which cannot reach {advertised.endpoint}; start"
                f" the cluster with --s3-advertise URL, or give the node s3: URL in {FILE}"
            )
        return advertised


def interlink_nodes(data: Path, environ: Mapping[str, str]) -> dict[str, Node]:
    """The nodes by name: of DIOSCAR_INTERLINK_NODES (a file, or YAML), else of `interlink.yaml` in the data folder.

    `hpc` is always there. Raises NodesError, naming the setting.
    """
    text = environ.get(SETTING, "").strip()
    where = SETTING
    if not text or not text.startswith("{"):
        path = Path(text) if text else data / FILE
        where = str(path)
        if not text and not path.is_file():
            return {OWN: Node(OWN)}
        try:
            text = path.read_text(encoding="utf-8")
        except OSError as error:
            named = f"{SETTING}: {where}" if where == environ.get(SETTING, "").strip() else where
            raise NodesError(f"{named} cannot be read: {error.strerror}; name a YAML file") from None
        except UnicodeDecodeError:
            raise NodesError(f"{where}: is no UTF-8 text; write YAML") from None
    import yaml

    try:
        document = yaml.safe_load(text) or {}
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise NodesError(f"{where}: {line}is no YAML: {error.problem}") from None
    except yaml.YAMLError:
        raise NodesError(f"{where}: is no YAML: it holds a character that text has not") from None
    if not isinstance(document, dict):
        raise NodesError(f"{where}: names no nodes; write `NAME: {{url: http://HOST:PORT}}`")
    return {OWN: Node(OWN), **{str(name): _node(where, name, value) for name, value in document.items()}}


def _node(where: str, name: Any, value: Any) -> Node:
    if not isinstance(name, str) or not LABEL.fullmatch(name):
        raise NodesError(f'{where}: "{name}" is no name of a node; use letters, digits and "-"')
    if isinstance(value, dict) and (unknown := sorted(map(str, set(value) - {"url", "s3"}))):
        raise NodesError(f"{where}: {name}.{unknown[0]} is no setting of a node; there are url and s3")
    if not isinstance(value, dict) or not value.get("url"):
        raise NodesError(
            f"{where}: {name}.url is missing; write where the plugin listens, http://HOST:PORT or unix:///path"
        )
    return Node(name, _url(f"{where}: {name}.url", value["url"], unix=True), _s3(where, name, value.get("s3")))


def _s3(where: str, name: str, value: Any) -> str:
    return _url(f"{where}: {name}.s3", value, unix=False) if value else ""


def _url(where: str, value: Any, *, unix: bool) -> str:
    text = str(value).rstrip("/")
    if unix and text.startswith(UNIX):
        if not text.startswith(f"{UNIX}/"):
            raise NodesError(f'{where}: "{text}" is no socket; write unix:///absolute/path')
        return text
    try:
        parts = urlsplit(text)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        valid = False
    if not valid:
        other = " or unix:///path" if unix else ""
        raise NodesError(f'{where}: "{text}" is no address; write http://HOST:PORT{other}')
    return text


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
