"""One Slurm for all tests of HPC."""

from tests.infra.hpc.lab import slurm_lab

__all__ = ["slurm_lab"]
