"""Sorting values without their indices."""

from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

_TASK_SIZE = 2**18  # number of values that one thread sorts at a time


def sort_rows(block: Tensor) -> Tensor:
    """Sorts the values of each row in ascending order, NaN last.

    On a CPU it is several times faster than torch, which also sorts the indices: numpy uses vector
    instructions and releases the interpreter lock.
    """
    if block.device.type != "cpu":
        return block.sort(dim=1).values
    ordered = block.numpy(force=True).copy()
    if ordered.size < _TASK_SIZE:
        ordered.sort(axis=1)
        return torch.from_numpy(ordered)
    rows = max(1, _TASK_SIZE // ordered.shape[1])
    tasks = [ordered[i : i + rows] for i in range(0, len(ordered), rows)]
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        list(pool.map(lambda task: task.sort(axis=1), tasks))
    return torch.from_numpy(ordered)
