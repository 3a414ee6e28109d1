"""Documents of the S3 protocol: written as text, read without trusting a byte of them."""

import re
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from urllib.parse import quote
from xml.sax.saxutils import escape

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

DECLARATION = b'<?xml version="1.0" encoding="UTF-8"?>\n'
NAMESPACE = "http://s3.amazonaws.com/doc/2006-03-01/"
_ILLEGAL = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class XmlError(ValueError):
    """The document is not well-formed, not what was expected, or tries to harm its reader."""


def tag(name: str, value: object) -> str:
    """An element with a text; what XML cannot say becomes U+FFFD, as in MinIO.

    >>> tag("Key", "a<b>\\x01"), tag("IsTruncated", False)
    ('<Key>a&lt;b&gt;�</Key>', '<IsTruncated>false</IsTruncated>')
    """
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return f"<{name}>{escape(_ILLEGAL.sub(chr(0xFFFD), text), {chr(13): '&#13;'})}</{name}>"


def element(name: str, *children: str) -> str:
    """An element with elements in it."""
    return f"<{name}>{''.join(children)}</{name}>"


def document(name: str, *children: str, namespace: str = NAMESPACE) -> bytes:
    """A whole document."""
    space = f' xmlns="{namespace}"' if namespace else ""
    return DECLARATION + f"<{name}{space}>{''.join(children)}</{name}>".encode()


def moment(seconds: float) -> str:
    """A time as documents have it.

    >>> moment(0.5)
    '1970-01-01T00:00:00.500Z'
    """
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def url_encoded(text: str, encoding: str) -> str:
    """A key as a listing has it when the client asked for `encoding-type=url`, else as it is."""
    return quote(text, safe="/") if encoding == "url" else text


def parse(data: bytes, name: str) -> "Element":
    """The root of a document, which must be called `name`; entities and DTDs are refused.

    Raises:
        XmlError: whatever is wrong with it.
    """
    from defusedxml.common import DefusedXmlException
    from defusedxml.ElementTree import ParseError, fromstring

    try:
        root: Element = fromstring(data, forbid_dtd=True)
    except (ParseError, DefusedXmlException, LookupError, ValueError) as error:
        raise XmlError(str(error)) from None
    if local(root) != name:
        raise XmlError(f"<{local(root)[:100]}> where <{name}> is expected")
    return root


def local(element: "Element") -> str:
    """An element's name without its namespace."""
    return element.tag.rpartition("}")[2]


def children(parent: "Element", *names: str) -> Iterable["Element"]:
    """The direct children of these names, of whatever namespace."""
    return (child for child in parent if local(child) in names)


def text(parent: "Element", name: str, default: str | None = None) -> str:
    """The text of a direct child.

    Raises:
        XmlError: there is none, and no default.
    """
    for child in children(parent, name):
        return child.text or ""
    if default is None:
        raise XmlError(f"<{local(parent)}> has no <{name}>")
    return default
