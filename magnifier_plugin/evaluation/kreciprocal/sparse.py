"""Sparse tensors without warnings, and sparse dot products."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


@contextmanager
def without_sparse_warnings() -> Iterator[None]:
    """Suppresses torch's warnings that sparse CSR is in beta and is not validated.

    Even torch's own sparse.mm emits them.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse (CSR tensor|invariant)", UserWarning)
        yield


def square(rows: Tensor, columns: Tensor, values: Tensor, size: int) -> Tensor:
    """A coalesced COO tensor [size, size]; the indices are not checked."""
    with without_sparse_warnings():
        return torch.sparse_coo_tensor(
            torch.stack([rows, columns]), values, (size, size), check_invariants=False
        ).coalesce()


def dot_products(rows: Tensor, others: Tensor, offsets: Tensor, columns: Tensor) -> Tensor:
    """Dot products of each row i with others[columns[offsets[i] : offsets[i + 1]]] only.

    Args:
        rows: float32 [b, D].
        others: float32 [N, D].
        offsets: int64 [b + 1], ascending from 0.
        columns: int64 [P], in 0..N-1.
    Returns:
        float32 [P].
    """
    with without_sparse_warnings():
        pattern = torch.sparse_csr_tensor(
            offsets,
            columns,
            rows.new_zeros(len(columns)),
            size=(len(rows), len(others)),
            check_invariants=False,
        )
        products: Tensor = torch.sparse.sampled_addmm(pattern, rows, others.T, beta=0)
        return products.values()
