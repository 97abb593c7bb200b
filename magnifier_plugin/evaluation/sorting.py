"""Sorting values without their indices."""

from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

_TASK_ROWS = 16  # that one thread sorts at a time


def sort_rows(block: Tensor) -> Tensor:
    """Each row's values in ascending order, NaN last; several times faster than torch on a CPU.

    numpy sorts values by vector instructions and frees the interpreter meanwhile; torch would sort
    indices along.
    """
    if block.device.type != "cpu":
        return block.sort(dim=1).values
    ordered = block.numpy(force=True).copy()
    tasks = [ordered[i : i + _TASK_ROWS] for i in range(0, len(ordered), _TASK_ROWS)]
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        list(pool.map(lambda rows: rows.sort(axis=1), tasks))
    return torch.from_numpy(ordered)
