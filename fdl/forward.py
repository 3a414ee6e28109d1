"""The variable `FORWARD`, as the declarations need it: `glob -> bucket/folder; glob -> bucket/folder`.

The function's runtime reads the same line (`layers.runtime.forward`). This room imports no other, so that an FDL file
can be checked without what functions need; the grammar is small enough to stand twice, and a test holds both together.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from fdl.errors import quoted

VARIABLE = "FORWARD"
REGISTRY, REGISTRY_VARIABLE = "models", "DIOSCAR_REGISTRY"
"""The bucket in which versions of models are kept, and the variable that names another one."""


@dataclass(frozen=True)
class Rule:
    """Outputs that match `pattern` go to `bucket`, below `folder`."""

    pattern: str
    bucket: str
    folder: str

    def __str__(self) -> str:
        return f"{self.pattern} -> {self.bucket}/{self.folder}"


def parse_forward(text: str) -> tuple[Rule, ...]:
    """The rules of a line, in its order.

    >>> parse_forward("*.h5 -> pulsar-classify/in")
    (Rule(pattern='*.h5', bucket='pulsar-classify', folder='in'),)

    Raises ValueError, naming the part that is wrong, and the mend.
    """
    rules = []
    for part in filter(None, (part.strip() for part in text.split(";"))):
        pattern, arrow, target = (piece.strip() for piece in part.partition("->"))
        bucket, _, folder = target.strip(" /").partition("/")
        folder = folder.strip(" /")
        if not (pattern and arrow and bucket and folder):
            raise ValueError(f'{quoted(part)} is no rule; write "<glob> -> <bucket>/<folder>"')
        rules.append(Rule(pattern, bucket, folder))
    return tuple(rules)


def format_forward(rules: Iterable[Rule]) -> str:
    """The line that `parse_forward` reads."""
    return "; ".join(map(str, rules))
