"""Training with torch in several processes, as `torchrun` or `srun` starts them; alone, all of it does nothing.

    with joined() as ranks:
        learner = ranks.wrap(network)           # gradients are averaged over the ranks
        mine = ranks.share(len(examples))       # each rank's part, equal in size
        stop = ranks.any(job.stopping)          # all of them, at the same step

Every method that speaks to the others must be called by all ranks, in the same order.
"""

import contextlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from layers.runtime import InputError

if TYPE_CHECKING:
    import torch

VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
"""What `torchrun` sets for each process; see docs/training.md for Slurm."""

PATIENCE_S = 600.0
"""How long a rank waits for the others to join: they have fetched the same inputs. Those of a pod begin together."""

Device = Literal["cpu", "cuda"]


@dataclass(frozen=True)
class Ranks:
    """This process among those that train together."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    device_type: Device = "cpu"

    @property
    def is_first(self) -> bool:
        """Whether this one writes outputs and checkpoints."""
        return self.rank == 0

    @property
    def device(self) -> str:
        """Where its tensors live: a GPU of its own, or the CPU."""
        return f"cuda:{self.local_rank}" if self.device_type == "cuda" else "cpu"

    def wrap(self, network: "torch.nn.Module") -> "torch.nn.Module":
        """The network whose gradients are averaged over all ranks; its own parameters are those of `network`."""
        if self.size == 1:
            return network
        from torch.nn.parallel import DistributedDataParallel

        return DistributedDataParallel(network, [self.local_rank] if self.device_type == "cuda" else None)

    def share(self, count: int) -> NDArray[np.intp]:
        """This rank's positions of `count`: every size-th one, as many for each rank; a remainder is left out.

        >>> [Ranks(rank, 2).share(5).tolist() for rank in (0, 1)]
        [[0, 2], [1, 3]]
        """
        return np.arange(self.rank, count - count % self.size, self.size)

    def any(self, mine: bool) -> bool:
        """Whether it is true for any rank."""
        return bool(self._sum(float(mine))) if self.size > 1 else mine

    def mean(self, mine: float) -> float:
        """The mean over all ranks."""
        return self._sum(mine) / self.size if self.size > 1 else mine

    def gather(self, mine: Any) -> list[Any]:
        """What every rank has, by rank, for the first; for the others an empty list."""
        if self.size == 1:
            return [mine]
        import torch.distributed as dist

        found: list[Any] | None = [None] * self.size if self.is_first else None
        dist.gather_object(mine, found)
        return found or []

    def broadcast(self, mine: Any) -> Any:
        """What the first rank has."""
        if self.size == 1:
            return mine
        import torch.distributed as dist

        box = [mine if self.is_first else None]
        dist.broadcast_object_list(box)
        return box[0]

    def wait(self) -> None:
        """Go on when all ranks are here."""
        if self.size > 1:
            import torch.distributed as dist

            dist.barrier()

    def _sum(self, mine: float) -> float:
        import torch
        import torch.distributed as dist

        total = torch.tensor([mine], dtype=torch.float64, device=self.device)
        dist.all_reduce(total)
        return float(total)


ALONE = Ranks()


@contextlib.contextmanager
def joined(
    device: Device = "cpu", environ: Mapping[str, str] = os.environ, patience_s: float = PATIENCE_S
) -> Iterator[Ranks]:
    """This process and the others that `environ` tells of (see `VARIABLES`); within it they can speak to each other.

    Raises InputError where a variable is missing or wrong, TimeoutError where one of the others has not come after
    `patience_s`. gloo on CPUs, nccl on GPUs.
    """
    if environ.get("WORLD_SIZE", "1") == "1":
        yield Ranks(device_type=device)
        return
    numbers = {name: _number(environ, name) for name in VARIABLES if name != "MASTER_ADDR"}
    if not environ.get("MASTER_ADDR"):
        raise InputError("environment variable MASTER_ADDR is not set; name the host of rank 0")
    if not numbers["RANK"] < numbers["WORLD_SIZE"]:
        raise InputError(
            f"environment variable RANK: {numbers['RANK']} is not below {numbers['WORLD_SIZE']} (WORLD_SIZE)"
        )
    import torch
    import torch.distributed as dist

    ranks = Ranks(numbers["RANK"], numbers["WORLD_SIZE"], numbers["LOCAL_RANK"], device)
    if device == "cuda":
        torch.cuda.set_device(ranks.local_rank)
    address = f"tcp://{environ['MASTER_ADDR']}:{numbers['MASTER_PORT']}"
    try:
        found = dist.rendezvous(address, ranks.rank, ranks.size, timeout=timedelta(seconds=patience_s))
        store, *_ = next(found)
        dist.init_process_group(
            "nccl" if device == "cuda" else "gloo", store=store, rank=ranks.rank, world_size=ranks.size
        )
    except (dist.DistStoreError, dist.DistNetworkError) as error:
        words = f"rank {ranks.rank}: not all of {ranks.size} ranks have joined in {patience_s:g} s; their logs say why"
        raise TimeoutError(words) from error
    try:
        yield ranks
    finally:
        dist.destroy_process_group()


def _number(environ: Mapping[str, str], name: str) -> int:
    text = environ.get(name, "")
    if not text.isdigit():
        raise InputError(f'environment variable {name}: "{text}" is no whole number; torchrun and srun set it')
    return int(text)
