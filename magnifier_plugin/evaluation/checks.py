"""Feature and distance validation."""

import numpy as np
import torch
from torch import Tensor

_MAX_ROWS_NAMED = 5  # number of bad rows that an error names


def as_features(query: Tensor | np.ndarray, gallery: Tensor | np.ndarray) -> tuple[Tensor, Tensor]:
    """Query and gallery features as float32 tensors.

    Args:
        query: floating point [Q, D].
        gallery: floating point [G, D], on the same device.
    Raises:
        ValueError: one is not two-dimensional, not floating point or empty; D or the device
            differs; or a value is NaN, infinite or beyond float32, and the message names the rows.
    """
    query, gallery = torch.as_tensor(query), torch.as_tensor(gallery)
    if query.device != gallery.device:
        raise ValueError(
            f"query features are on {query.device}, gallery features on {gallery.device}"
        )
    query, gallery = as_finite("query features", query), as_finite("gallery features", gallery)
    if query.shape[1] != gallery.shape[1]:
        raise ValueError(
            f"query features have {query.shape[1]} dimensions, gallery features "
            f"{gallery.shape[1]}; were both extracted by the same model?"
        )
    return query, gallery


def as_distances(
    q_g: Tensor | np.ndarray, q_q: Tensor | np.ndarray, g_g: Tensor | np.ndarray
) -> tuple[Tensor, Tensor, Tensor]:
    """The three matrices of distances as tensors; float64 stays float64, others become float32.

    Raises:
        ValueError: shapes are not [Q, G], [Q, Q] and [G, G], one is empty or not floating point,
            or a value is NaN or infinite.
    """
    q_g, q_q, g_g = (
        as_finite(name, matrix, keep_float64=True)
        for name, matrix in (("q_g", q_g), ("q_q", q_q), ("g_g", g_g))
    )
    num_queries, num_gallery = q_g.shape
    if q_q.shape != (num_queries, num_queries) or g_g.shape != (num_gallery, num_gallery):
        raise ValueError(
            f"expected distances [Q, G], [Q, Q] and [G, G], got q_g {list(q_g.shape)}, "
            f"q_q {list(q_q.shape)} and g_g {list(g_g.shape)}"
        )
    return q_g, q_q, g_g


def as_finite(
    name: str, values: Tensor | np.ndarray, *, keep_float64: bool = False, first_row: int = 0
) -> Tensor:
    """One matrix as a float32 tensor, or float64 with keep_float64.

    Args:
        name: name of the matrix in errors.
        values: floating point [N, D].
        keep_float64: whether float64 values stay float64.
        first_row: number of the first row in errors, if values are a part of a matrix.
    Raises:
        ValueError: as in `as_features`.
    """
    values = given = torch.as_tensor(values)
    if values.ndim != 2 or not values.is_floating_point() or values.layout != torch.strided:
        raise ValueError(
            f"{name}: expected a dense floating-point matrix, got {values.dtype} "
            f"{list(values.shape)}, {values.layout}"
        )
    if values.numel() == 0:
        raise ValueError(f"{name}: empty, got {list(values.shape)}")
    if not (keep_float64 and values.dtype == torch.float64):
        values = values.float()
    # Row sums are checked first: they need one pass, and no mask as large as the features.
    suspects = (~values.sum(dim=1).isfinite()).nonzero().flatten()
    bad = suspects[~values[suspects].isfinite().all(dim=1)].tolist()
    if bad:
        more = f" and {len(bad) - _MAX_ROWS_NAMED} more" if len(bad) > _MAX_ROWS_NAMED else ""
        beyond = bool(given[bad].isfinite().all())
        found = "values beyond float32 (3.4e38)" if beyond else "NaN or infinity"
        raise ValueError(
            f"{name}: {found} in {len(bad)} of {len(values)} rows: "
            f"{', '.join(str(first_row + row) for row in bad[:_MAX_ROWS_NAMED])}{more}"
        )
    return values
