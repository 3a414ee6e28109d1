"""Whether a candidate has seen what it is tested on, by SHA-256 of the data."""

from collections.abc import Iterable

from layers.quality.verdict import Reason


def leak(trained_on: Iterable[str], tested_on: Iterable[str]) -> Reason:
    """Whether no hash of the training data is one of the test data: files, samples or streams of random numbers.

    >>> leak(["aa", "bb"], ["cc"]).passed
    True
    >>> leak(["aa", "bb"], ["BB"]).passed
    False
    >>> leak([], []).sentence
    'the training and the test used no data files, so there is none in common'
    """
    trained = {_plain(text) for text in trained_on}
    tested = {_plain(text) for text in tested_on}
    seen = sorted(trained & tested)
    if not trained or not tested:
        whose = " and ".join(name for name, found in (("the training", trained), ("the test", tested)) if not found)
        return Reason("", "leak", True, f"{whose} used no data files, so there is none in common")
    if not seen:
        sentence = f"none of the {len(tested)} hashes of the test data is among the {len(trained)} of the training data"
        return Reason("", "leak", True, sentence)
    more = f" and {len(seen) - 1} more" if len(seen) > 1 else ""
    return Reason("", "leak", False, f"the candidate was trained on data it is tested on (SHA-256 {seen[0]}{more})")


def _plain(text: str) -> str:
    return text.strip().lower().removeprefix("sha256:")
