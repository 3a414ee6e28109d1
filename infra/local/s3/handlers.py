"""What every handler is given, and the shape of one."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from infra.local.multipart import Uploads
from infra.local.objects import ObjectStore
from infra.local.s3.request import Request, Response
from infra.local.s3.xml import element, tag

if TYPE_CHECKING:
    from infra.local.s3.permission import Guard


@dataclass(frozen=True)
class S3:
    """The store behind the endpoint, and the region it says it is in."""

    store: ObjectStore
    uploads: Uploads
    region: str
    guard: "Guard | None" = None
    """What users may do; without it, only the administrator has keys."""


Handler = Callable[[S3, Request], Awaitable[Response]]

OWNER_ID = "dioscar"


def owner(name: str = "Owner") -> str:
    """The one owner of everything, as documents show it."""
    return element(name, tag("ID", OWNER_ID), tag("DisplayName", OWNER_ID))
