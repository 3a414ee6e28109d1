"""What starts the ranks of a pod: srun or mpiexec, with the options of the annotation `mpi-flags`, and how many.

No option is taken that names a file or program, sets a variable, or makes another number of ranks than can be told
before.
"""

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence

from infra.hpc.flags import Ranks, annotation, ranks_of
from infra.hpc.protocol import Pod, PodRefused

COUNTS = ("-n", "-np", "--np", "--ntasks")
"""The options that say how many ranks there are."""
OPTIONS: Mapping[str, int] = {
    **dict.fromkeys((*COUNTS, "-ppn", "-npernode", "--npernode", "--map-by", "--bind-to", "--rank-by"), 1),
    **dict.fromkeys(("--oversubscribe", "--allow-run-as-root", "--report-bindings", "--tag-output"), 0),
    **dict.fromkeys(("-bind-to", "-map-by", "-l", "--label", "--overlap", "--exact", "--unbuffered"), 0),
    **dict.fromkeys(("--mpi", "--cpu-bind", "--mem-bind", "--distribution", "--hint"), 1),
    **dict.fromkeys(("--cpus-per-task", "--kill-on-bad-exit", "--wait"), 1),
    **dict.fromkeys(("--mca", "-mca"), 2),
}
"""The options of mpiexec and srun that an annotation may give, with how many values they have."""
MCA = re.compile(r"(btl|pml|mtl|osc|coll|io|hwloc|rmaps)(_\w+)?")
LAUNCHERS = ("mpiexec", "mpirun", "srun")
WHERE = "annotation slurm-job.vk.io/mpi-flags"


def launcher(pod: Pod, ranks: Ranks) -> list[str] | None:
    """The words before a start script that make it run once for each rank; None where there is one. Raises PodRefused.

    `srun` takes SIGTERM for an order to end the step, so it is kept from it, and the ranks are told by scancel.
    """
    words = _mpi_words(pod)
    if words is None:
        return None if ranks.total == 1 else _srun([])
    if words and words[0] in LAUNCHERS[:2]:
        return [words[0], *_np(words[1:], ranks), *words[1:]]
    if not words or words[0] == "srun":
        return _srun(words[1:])
    return ["mpiexec", *_np(words, ranks), *words]


def started(pod: Pod, flags: Sequence[str]) -> Ranks:
    """The ranks of a pod whose job has these options: as many as its `mpi-flags` say, else its tasks.

    Raises PodRefused.
    """
    ranks = ranks_of(pod, flags)
    counts = [value for name, values in _options(_mpi_words(pod) or []) if name in COUNTS for value in values]
    if not counts:
        return ranks
    if len(counts) > 1 or not re.fullmatch(r"[1-9]\d{0,4}", counts[0]):
        raise PodRefused(f'{WHERE}: "{" ".join(counts)}" is no number of ranks; write one, e.g. -np 2')
    return ranks if int(counts[0]) == ranks.total else Ranks(1, int(counts[0]))


def words_of(text: str, name: str) -> list[str]:
    """The words of an annotation. Raises PodRefused."""
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise PodRefused(f"annotation slurm-job.vk.io/{name}: {str(error).lower()}; close the quotes") from None
    if not all(word.isprintable() for word in words):
        raise PodRefused(f"annotation slurm-job.vk.io/{name}: holds a character that cannot be printed; leave it out")
    return words


def _mpi_words(pod: Pod) -> list[str] | None:
    given = annotation(pod.metadata.annotations, "mpi-flags")
    if given is None:
        return None
    words = [] if given.strip() == "true" else words_of(given, "mpi-flags")
    for name, values in _options(words):
        if name.endswith("mca") and (not values or not MCA.fullmatch(values[0])):
            raise PodRefused(f'{WHERE}: "{" ".join([name, *values])}" is not allowed here; leave it out')
        if any(value.startswith("-") for value in values) or len(values) < OPTIONS[name]:
            raise PodRefused(f'{WHERE}: "{name}" has no value; write one after it')
    return words


def _options(words: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    """Each option with its values."""
    rest = list(words[1:] if words and words[0] in LAUNCHERS else words)
    while rest:
        word = rest.pop(0)
        name, equals, value = word.partition("=")
        if name not in OPTIONS:
            raise PodRefused(f'{WHERE}: "{word}" is not allowed here; leave it out')
        yield name, [value] if equals else [rest.pop(0) for _ in range(min(OPTIONS[name], len(rest)))]


def _srun(words: list[str]) -> list[str]:
    mpi = [] if any(word.startswith("--mpi") for word in words) else ["--mpi=none"]
    return ["srun", *mpi, "--export=ALL", "--wait=0", "--kill-on-bad-exit=0", *words]


def _np(words: Sequence[str], ranks: Ranks) -> list[str]:
    return [] if any(name in COUNTS for name, _ in _options(words)) else ["-np", str(ranks.total)]
