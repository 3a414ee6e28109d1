"""Annotations for a Slurm plugin of interLink: a misspelt one is ignored in silence by whoever reads the pod."""

from collections.abc import Iterator

from fdl.document import Document
from fdl.names import did_you_mean

PREFIXES = ("slurm-job.vk.io/", "job.vk.io/")
"""Today's, and the one that OSCAR's documents still use."""
NAMES = (
    *("flags", "flavor", "pre-exec", "image-root", "mpi-flags"),
    *("singularity-options", "singularity-mounts", "enroot-options", "enroot-mounts"),
)
"""What interLink's own plugin for Slurm reads, and this project's (docs/hpc.md)."""
KNOWN = tuple(prefix + name for prefix in PREFIXES for name in NAMES)


def annotation_warnings(document: Document) -> tuple[str, ...]:
    """A sentence for each annotation that no Slurm plugin is known to read; a site's own may know more."""
    return tuple(
        f"{document.file}: {service.name}: annotations: {sentence}"
        for service in document.services
        for sentence in _unknown(service.annotations)
    )


def _unknown(annotations: dict[str, str]) -> Iterator[str]:
    for name in annotations:
        prefix, _, local = name.rpartition("/")
        if not prefix.endswith("vk.io") or name in KNOWN:
            continue
        near = did_you_mean(local, NAMES)
        where = f"{prefix}/" if f"{prefix}/" in PREFIXES else PREFIXES[0]
        mend = f'write "{where}{near}"' if near else f"they read {', '.join(NAMES)}"
        yield f"{name} is read by no Slurm plugin that is known; {mend}, unless your site's plugin has it"
