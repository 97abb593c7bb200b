"""Detection of models that are wrapped in another module."""

from torch import nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

SEVERAL_GPUS = (
    "Several GPUs train with one process each: torchrun --nproc_per_node=GPUS scripts/main.py …"
)


def refuse_wrapped(model: nn.Module) -> None:
    """Reject a model wrapped by DataParallel, DistributedDataParallel or torch.compile.

    A wrapper would hide the model's declared inputs and methods and change its state-dict keys.

    Raises:
        ValueError: the model is wrapped; the message says what to pass instead.
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
