"""Which particles showers can be of, and why others are refused."""

from collections.abc import Sequence

PARTICLES = ("e-", "e+", "gamma")
"""What makes an electromagnetic shower."""


def refused(particle: str, known: Sequence[str], why: str) -> str:
    """The sentence that refuses a particle that is none of `known`, which are what `why` says.

    >>> refused("e+", ("e-", "gamma"), "the model was trained on")
    'particle: "e+" is not what the model was trained on; write one of e-, gamma'
    """
    if particle in PARTICLES:
        return f'particle: "{particle}" is not what {why}; write one of {", ".join(known)}'
    return (
        f'particle: "{particle}" is none of {", ".join(known)}; hadrons need data sets of nuclear physics that this'
        " twin does not make"
    )
