"""Runs a function in several processes that share a gloo group."""

import os
import tempfile
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from magnifier_plugin.engine.distributed import Processes


def on_ranks(function, *arguments, count=2):
    """The result of `function(processes, *arguments)` in each process, in the order of the ranks.

    The processes are forked, so that nothing is imported again; an error in one is raised here.
    """
    with tempfile.TemporaryDirectory() as folder:
        mp.start_processes(
            _start, (count, folder, function, arguments), nprocs=count, start_method="fork"
        )
        return [torch.load(Path(folder, str(rank)), weights_only=False) for rank in range(count)]


def _start(rank, count, folder, function, arguments):
    torch.set_num_threads(1)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    store = dist.FileStore(os.path.join(folder, "store"), count)  # noqa: PTH118
    dist.init_process_group("gloo", store=store, rank=rank, world_size=count)
    result = function(Processes(rank, count, rank, dist.PrefixStore("test", store)), *arguments)
    torch.save(result, Path(folder, str(rank)))
    dist.destroy_process_group()
