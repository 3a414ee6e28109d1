"""Names that Kubernetes and object stores accept, each with the name that was probably meant.

Sources: RFC 1035 labels, https://kubernetes.io/docs/concepts/overview/working-with-objects/ (names, annotations,
labels), and the bucket naming rules of S3. OSCAR itself checks a service name's length only; the rest fails late.
"""

import difflib
import re
import unicodedata
from collections.abc import Iterable

from fdl.errors import quoted

SERVICE_NAME_MAX = 39
"""OSCAR's limit: Knative adds a suffix to the name, and both must fit into a DNS label."""

_LABEL = re.compile(r"[a-z](?:[a-z0-9-]*[a-z0-9])?")
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_QUALIFIED = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?")
_SUBDOMAIN = re.compile(r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]*[a-z0-9])?)*")
_VARIABLE = re.compile(r"[A-Za-z_.-][A-Za-z0-9_.-]*")


def check_service_name(name: str) -> str:
    """A service name, unchanged. Raises ValueError with the mend."""
    if _LABEL.fullmatch(name) and len(name) <= SERVICE_NAME_MAX:
        return name
    raise ValueError(
        f'{quoted(name)} is no service name (at most {SERVICE_NAME_MAX} lowercase letters, digits and "-", '
        f'the first a letter, the last no "-"); write "{mend_name(name)}"'
    )


def check_bucket_name(name: str) -> str:
    """A bucket name, unchanged. Raises ValueError with the mend."""
    if _BUCKET.fullmatch(name) and ".." not in name and not re.fullmatch(r"\d+(\.\d+){3}", name):
        return name
    raise ValueError(
        f'{quoted(name)} is no bucket name (3 to 63 lowercase letters, digits, "-" and "."); '
        f'write "{_mend_bucket(name)}"'
    )


def check_annotation_name(name: str) -> str:
    """The name of an annotation or label, `example.org/name` or `name`, unchanged. Raises ValueError with the mend."""
    prefix, slash, local = name.rpartition("/")
    if _QUALIFIED.fullmatch(local) and (not slash or (len(prefix) <= 253 and _SUBDOMAIN.fullmatch(prefix))):
        return name
    mended = re.sub(r"[^A-Za-z0-9_.-]+", "-", local).strip("-_.")[:63] or "name"
    prefix = re.sub(r"[^a-z0-9.-]+", "-", prefix.lower()).strip("-.")
    mended = f"{prefix}/{mended}" if prefix else mended
    raise ValueError(f'{quoted(name)} is no Kubernetes annotation or label name; write "{mended}"')


def check_variable_name(name: str) -> str:
    """The name of an environment variable, unchanged. Raises ValueError with the mend."""
    if _VARIABLE.fullmatch(name):
        return name
    mended = re.sub(r"[^A-Za-z0-9_]+", "_", name).lstrip("0123456789") or "NAME"
    raise ValueError(f'{quoted(name)} is no name of an environment variable; write "{mended}"')


def mend_name(text: str) -> str:
    """The nearest service name.

    >>> mend_name("Pulsar_Classify v2"), mend_name("3body"), mend_name("Größe")
    ('pulsar-classify-v2', 'body', 'grosse')
    """
    plain = unicodedata.normalize("NFKD", text.replace("ß", "ss")).encode("ascii", "ignore").decode().lower()
    label = re.sub(r"[^a-z0-9]+", "-", plain).lstrip("-0123456789")
    return label[:SERVICE_NAME_MAX].strip("-") or "my-service"


def _mend_bucket(name: str) -> str:
    label = mend_name(name)
    return label if len(label) >= 3 else f"my-{label}"


def did_you_mean(word: str, known: Iterable[str]) -> str | None:
    """The known word that is nearest, or None if none is near."""
    candidates = {candidate.lower(): candidate for candidate in known}
    close = difflib.get_close_matches(word.lower(), candidates, n=1, cutoff=0.6)
    return candidates[close[0]] if close else None
