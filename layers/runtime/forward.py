"""`FORWARD`: which outputs go on to another service's mailbox.

One line in the FDL, `glob -> bucket/folder; glob -> bucket/folder`. A glob is matched against the output's path below
`out/` (`*` crosses folders); the forwarded object is `folder/<that path>`. A glob that begins with `**/` matches at any
depth, and the folders before the rest of it are left out: what goes to a place with a layout of its own, such as the
registry of models, stands there in the same way whichever folder the input lay in.
"""

import fnmatch
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from layers.runtime.contract import InputError

MAX_HOPS = 32
PRODUCER, INPUT, HOPS = "dioscar-producer", "dioscar-input", "dioscar-hops"
RECORDS = "_runs"
ANYWHERE = "**/"


@dataclass(frozen=True)
class Rule:
    """Outputs that match `pattern` go to `bucket`, below `folder`."""

    pattern: str
    bucket: str
    folder: str


@dataclass(frozen=True)
class Forward:
    """One output (its path below `out/`) and the object that it becomes."""

    path: str
    bucket: str
    key: str


def parse_forward(text: str) -> tuple[Rule, ...]:
    """Read the variable `FORWARD`.

    >>> parse_forward("*.h5 -> pulsar-classify/in")
    (Rule(pattern='*.h5', bucket='pulsar-classify', folder='in'),)

    Raises InputError, naming the part that is wrong.
    """
    rules = []
    for part in filter(None, (part.strip() for part in text.split(";"))):
        pattern, arrow, target = (piece.strip() for piece in part.partition("->"))
        bucket, _, folder = target.strip(" /").partition("/")
        folder = folder.strip(" /")
        if not (pattern and arrow and bucket and folder):
            raise InputError(f'FORWARD: "{part}" is no rule; write "<glob> -> <bucket>/<folder>"')
        rules.append(Rule(pattern, bucket, folder))
    return tuple(rules)


def forwards(rules: Iterable[Rule], paths: Iterable[str]) -> Iterator[Forward]:
    """Each output that a rule names, once per rule; provenance records stay where they are."""
    paths = list(paths)
    for rule in rules:
        for path in paths:
            kept = None if path.startswith(f"{RECORDS}/") else _matched(rule.pattern, path)
            if kept is not None:
                yield Forward(path, rule.bucket, f"{rule.folder}/{kept}")


def _matched(pattern: str, path: str) -> str | None:
    """What of a path a glob takes along, None where it does not match.

    >>> _matched("x/*", "a/x/y.h5"), _matched("*", "a/x/y.h5"), _matched("**/x/*", "a/x/y.h5")
    (None, 'a/x/y.h5', 'x/y.h5')
    """
    if not pattern.startswith(ANYWHERE):
        return path if fnmatch.fnmatchcase(path, pattern) else None
    rest = path
    found = None
    while True:  # the shortest that matches: folders of the input may have the same names
        if fnmatch.fnmatchcase(rest, pattern.removeprefix(ANYWHERE)):
            found = rest
        _, slash, rest = rest.partition("/")
        if not slash:
            return found


def next_hop(metadata: dict[str, str], service: str, bucket: str, key: str) -> dict[str, str]:
    """The metadata of an object that `service` forwards, when its own input carried `metadata`.

    Raises InputError after 32 hops: a loop that nobody closed.
    """
    lowered = {name.lower().removeprefix("x-amz-meta-"): value for name, value in metadata.items()}
    text = lowered.get(HOPS, "0")
    hops = int(text) + 1 if text.isdigit() else 1
    if hops > MAX_HOPS:
        raise InputError(f"{key}: was forwarded {MAX_HOPS} times; the chain is a loop, break it in a FORWARD variable")
    return {
        PRODUCER: service,
        INPUT: f"{bucket}/{key}".strip("/").encode("ascii", "backslashreplace").decode(),
        HOPS: str(hops),
    }
