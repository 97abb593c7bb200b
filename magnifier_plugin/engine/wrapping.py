"""Models that arrive inside another module."""

from torch import nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

SEVERAL_GPUS = (
    "Several GPUs train with one process each: torchrun --nproc_per_node=GPUS scripts/main.py …"
)


def refuse_wrapped(model: nn.Module) -> None:
    """Refuse a model inside DataParallel, DistributedDataParallel or torch.compile.

    Its declared inputs, state-dict keys and methods would be hidden.

    Raises:
        ValueError: the model is wrapped; says what to pass.
    """
    if isinstance(model, (DataParallel, DistributedDataParallel)):
        inner = f"model.module. {SEVERAL_GPUS}"
    elif hasattr(model, "_orig_mod"):
        inner = "the model before torch.compile"
    else:
        return
    raise ValueError(
        f"model: expected the network itself, got it inside {type(model).__name__}; pass {inner}"
    )
