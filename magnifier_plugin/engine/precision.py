"""Device, mixed precision and memory format of a model and its batches."""

import copy
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn

SWITCH = ("on", "off", "auto")


def computes_in_bf16(device: torch.device) -> bool:
    """Whether a device has instructions for bf16 products; elsewhere they are emulated, slowly."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type != "cpu":
        return False
    # torch has no public query for a CPU; these two exist since torch 2.5.
    return any(
        getattr(torch.cpu, name, lambda: False)()
        for name in ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    )


def resolve_switch(value: str, device: torch.device, name: str) -> bool:
    """Turn on, off or auto into a decision.

    Raises:
        ValueError: value is none of the three.
    """
    if value not in SWITCH:
        raise ValueError(f"{name}: expected one of {', '.join(SWITCH)}, got {value!r}")
    return computes_in_bf16(device) if value == "auto" else value == "on"


class Precision:
    """Where and how a model computes.

    Args:
        device: of the model and its batches.
        amp: bf16 mixed precision: "on", "off", or "auto" where the device computes in bf16.
        channels_last: likewise, the memory format.
    Raises:
        ValueError: amp or channels_last is none of the three.
    """

    def __init__(self, device: torch.device, *, amp: str, channels_last: str) -> None:
        self.device = device
        self.amp = resolve_switch(amp, device, "amp")
        last = resolve_switch(channels_last, device, "channels_last")
        self.memory_format = torch.channels_last if last else torch.contiguous_format

    def __str__(self) -> str:
        name = str(self.memory_format).removeprefix("torch.")
        return f"{'bf16' if self.amp else 'float32'}, {name}"

    def with_amp(self, amp: str) -> "Precision":
        """The same device and memory format with another `amp`: "on", "off" or "auto"."""
        other = copy.copy(self)
        other.amp = resolve_switch(amp, self.device, "test.amp")
        return other

    def autocast(self) -> AbstractContextManager:
        """The context in which the model runs."""
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.amp)

    def place(self, model: nn.Module) -> nn.Module:
        """The model on the device, in the memory format."""
        return model.to(self.device, memory_format=self.memory_format)

    def images(self, images: Tensor) -> Tensor:
        """Images [B, 3, H, W] on the device, in the memory format."""
        return images.to(self.device, memory_format=self.memory_format, non_blocking=True)

    def targets(self, targets: dict[str, Tensor]) -> dict[str, Tensor]:
        """Further inputs of a batch on the device."""
        return {k: tensor.to(self.device, non_blocking=True) for k, tensor in targets.items()}
