"""A misspelt annotation for a Slurm plugin is told, with the one that was meant; nobody else would."""

from collections.abc import Callable
from pathlib import Path

import pytest

from fdl.document import Document, read_file
from fdl.slurm import KNOWN, NAMES, annotation_warnings
from infra.hpc import flags
from tests.fdl.conftest import service

Make = Callable[..., Document]
ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("slurm-job.vk.io/flag", 'write "slurm-job.vk.io/flags"'),
        ("job.vk.io/flag", 'write "job.vk.io/flags"'),
        ("slurm-jobs.vk.io/flags", 'write "slurm-job.vk.io/flags"'),
        ("slurm-job.vk.io/mpi_flags", 'write "slurm-job.vk.io/mpi-flags"'),
        ("slurm-job.vk.io/xyz", "they read flags, "),
    ],
)
def test_an_annotation_that_nobody_reads_is_told(document: Make, name: str, says: str) -> None:
    (warning,) = annotation_warnings(document(service("one"), service("two", annotations={name: "--time=5"})))
    assert f": two: annotations: {name} is read by no Slurm plugin" in warning and says in warning


def test_what_is_known_and_what_is_of_others_is_left_alone(document: Make) -> None:
    annotations = {**dict.fromkeys(KNOWN, "x"), "example.org/flag": "x", "interlink.virtual-kubelet.io/x": "y"}
    assert annotation_warnings(document(service("one", annotations=annotations))) == ()
    assert annotation_warnings(read_file(ROOT / "fdl/pulsar.yaml")) == ()


def test_all_that_our_plugin_reads_is_known() -> None:
    assert {prefix + name for prefix in flags.PREFIXES for name in NAMES} == set(KNOWN)
    sources = "".join(path.read_text() for path in (ROOT / "infra/hpc").glob("*.py"))
    read = {text.partition('"')[0] for text in sources.split('annotation(pod.metadata.annotations, "')[1:]}
    read |= {text.partition('"')[0] for text in sources.split('annotation(start.pod.metadata.annotations, "')[1:]}
    assert "flags" in read and read <= set(NAMES)
