"""Several processes that train one model together, started by torchrun.

    torchrun --nproc_per_node=2 scripts/main.py --config-file configs/magnifier_market.yaml

Each process has an equal share of every batch, on its own GPU if there are GPUs. Gradients are
averaged; the first process evaluates, writes files and logs.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

from magnifier_plugin.engine.sync_batchnorm import all_reduce
from magnifier_plugin.losses.gathering import Gathering

# Longest wait while one process works alone, such as rendering a data set or re-ranking a large
# gallery. If a process dies, torchrun ends the others at once.
_TIMEOUT = timedelta(days=2)
_PREFIX = "magnifier_plugin"
Value = TypeVar("Value")


class Processes:
    """The processes of a run; a single one without torchrun.

    Args:
        rank: number of this process, from 0.
        count: number of processes.
        local_rank: number of this process on its machine, from 0; also the number of its GPU.
        store: store of torch.distributed, through which processes wait for each other.
    """

    def __init__(
        self, rank: int = 0, count: int = 1, local_rank: int = 0, store: dist.Store | None = None
    ) -> None:
        self.rank, self.count, self.local_rank = rank, count, local_rank
        self.store = store
        self.wants_to_stop = False
        """Whether this process has received a signal to stop."""
        self.must_stop = False
        """Whether any of several processes had `wants_to_stop` set at the last call of `mean`."""
        self._waits = 0

    @property
    def is_first(self) -> bool:
        """Whether this is the process that evaluates, writes files and logs."""
        return self.rank == 0

    def device(self, use_gpu: bool) -> torch.device:
        """The device of this process: its own GPU, or the CPU."""
        if not use_gpu:
            return torch.device("cpu")
        return torch.device("cuda", self.local_rank) if self.count > 1 else torch.device("cuda")

    @contextmanager
    def in_turn(self) -> Iterator[None]:
        """Run a block in the first process, then in the first of each machine, then in the others.

        Files that the block prepares are thus prepared once, and ready for later processes.
        """
        self._waits += 1
        before = 0 if self.local_rank == 0 else self.rank - self.local_rank
        if self.store is not None and self.rank != 0:
            self.store.wait([f"{_PREFIX}/{self._waits}/{before}"], _TIMEOUT)
        yield
        if self.store is not None:
            self.store.set(f"{_PREFIX}/{self._waits}/{self.rank}", "done")

    def from_first(self, value: Value) -> Value:
        """The first process's value, in all processes; they wait until it calls this method."""
        if self.count == 1:
            return value
        self._waits += 1
        key = f"{_PREFIX}/{self._waits}/value"
        if self.store is not None and self.is_first:
            self.store.set(key, "done")
        elif self.store is not None:
            self.store.wait([key], _TIMEOUT)
        values = [value]
        dist.broadcast_object_list(values, src=0)
        return values[0]

    def collect(self, value: Value) -> list[Value]:
        """The values of all processes, in the order of their ranks."""
        if self.count == 1:
            return [value]
        values: list[Any] = [None] * self.count
        dist.all_gather_object(values, value)
        return values

    def mean(self, scalars: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The means over the processes, without gradients; several processes update `must_stop`.

        Args:
            scalars: scalars by name, the same names in each process.
        """
        if self.count == 1:
            return {name: scalar.detach() for name, scalar in scalars.items()}
        values = [scalar.detach().double() for scalar in scalars.values()]
        stop = torch.full_like(values[0], float(self.wants_to_stop))
        sums = torch.stack([*values, stop])
        dist.all_reduce(sums)
        *means, stop = (sums / self.count).unbind()
        self.must_stop = bool(stop > 0)
        pairs = zip(scalars.items(), means, strict=True)
        return {name: mean.to(scalar.dtype) for (name, scalar), mean in pairs}

    def wrap(self, module: nn.Module) -> nn.Module:
        """Wrap a module so that gradients are averaged over the processes.

        Parameters on which the outputs do not depend get no gradient. The set of parameters that
        require gradients must not change afterwards.
        """
        if self.count == 1:
            return module
        device = next(module.parameters()).device
        return DistributedDataParallel(
            module,
            device_ids=[device] if device.type == "cuda" else None,
            find_unused_parameters=True,
        )

    def copy_buffers(self, model: nn.Module) -> None:
        """Copy the first process's running statistics to all processes."""
        if self.count > 1:
            for buffer in model.buffers():
                dist.broadcast(buffer, src=0)

    def share_random_state(self) -> None:
        """Copy the state of the first process's CPU generator to all processes.

        A model's draws from it, such as the regions that SAB keeps, are then the same in all.
        """
        if self.count > 1:
            state = torch.get_rng_state()
            dist.broadcast(state, src=0)
            torch.set_rng_state(state)


ONE_PROCESS = Processes()


@contextmanager
def torchrun_processes(use_gpu: bool) -> Iterator[Processes]:
    """Join the processes that torchrun started, for the block; a single process without torchrun.

    Args:
        use_gpu: use a GPU per process if there are GPUs.
    Raises:
        ValueError: this machine has fewer GPUs than processes.
    """
    count = int(os.environ.get("WORLD_SIZE", "1")) if dist.is_torchelastic_launched() else 1
    if count == 1:
        yield ONE_PROCESS
        return
    local_rank, on_gpu = int(os.environ["LOCAL_RANK"]), use_gpu and torch.cuda.is_available()
    if on_gpu:
        local_count, gpus = int(os.environ["LOCAL_WORLD_SIZE"]), torch.cuda.device_count()
        if local_count > gpus:
            raise ValueError(
                f"torchrun: {local_count} processes on a machine with {gpus} GPUs; expected "
                f"--nproc_per_node={gpus} at most, or use_gpu False"
            )
        torch.cuda.set_device(local_rank)
    store, rank, _ = next(iter(dist.rendezvous("env://")))
    # torchrun keeps one store across restarts, which still has the addresses of dead processes.
    store = dist.PrefixStore(f"attempt_{os.environ['TORCHELASTIC_RESTART_COUNT']}", store)
    backend = "cpu:gloo,cuda:nccl" if on_gpu else "gloo"
    dist.init_process_group(backend, store=store, rank=rank, world_size=count)
    # After a failure the group is not destroyed, which would wait for the other processes.
    yield Processes(rank, count, local_rank, dist.PrefixStore(_PREFIX, store))
    dist.destroy_process_group()


def check_shares(loader: DataLoader[Any], processes: Processes) -> None:
    """Reject a training loader that does not give this process its share of every batch.

    Raises:
        ValueError: the loader is for other processes; the message says how to build one.
    """
    found = getattr(loader.sampler, "num_replicas", 1), getattr(loader.sampler, "rank", 0)
    if found != (processes.count, processes.rank):
        raise ValueError(
            f"datamanager: expected batches for process {processes.rank} of {processes.count}, got "
            f"those for process {found[1]} of {found[0]}; build an AnnotatedDataManager with the "
            "num_replicas and rank of this process"
        )


class GatheredBatch(Gathering):
    """A batch that several processes share (`ddp.gather`)."""

    def __init__(self, processes: Processes) -> None:
        self.processes = processes

    def rows(self, tensor: Tensor) -> Tensor:
        """[b, …] of this process → [B, …] of all processes; b is the same in each."""
        if self.processes.count == 1:
            return tensor
        shares = [torch.zeros_like(tensor)] * self.processes.count
        shares[self.processes.rank] = tensor
        return all_reduce(torch.cat(shares))

    def total(self, tensor: Tensor) -> Tensor:
        """The sum over the processes."""
        return tensor if self.processes.count == 1 else all_reduce(tensor)

    def mean(self, tensor: Tensor) -> Tensor:
        """The mean over the processes."""
        return self.total(tensor) / self.processes.count
