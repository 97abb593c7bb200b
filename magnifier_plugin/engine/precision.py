"""Device, mixed precision and memory format of a model and its batches."""

import copy
import platform
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from magnifier_plugin.data.pixels import Images, Pixels

SWITCH = ("on", "off", "auto")
AMP = (*SWITCH, "bf16", "fp16")
CPU_INFO = Path("/proc/cpuinfo")


def faster_in_bf16(device: torch.device) -> bool:
    """Whether a device computes faster in bf16 than in float32.

    True for GPUs of compute capability 8.0 or higher, and for CPUs with AMX or, unless they are
    Intel's, AVX512-BF16. An Intel Xeon whose AMX is disabled, as in some virtual machines, still
    has AVX512-BF16, but trains ResNet-18 more slowly with it than in float32 (1.4 times the time).
    """
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type != "cpu":
        return False
    # torch has no public query for CPUs; these two functions exist since torch 2.5.
    if _cpu_has("amx_tile"):
        return True
    return _cpu_has("avx512_bf16") and not _is_intel(CPU_INFO)


def _cpu_has(feature: str) -> bool:
    """Whether torch finds a feature of the processor."""
    return getattr(torch.cpu, f"_is_{feature}_supported", lambda: False)()


def _is_intel(cpu_info: Path) -> bool:
    """Whether the processor is Intel's, from Linux' `cpu_info` or the platform's name for it."""
    try:
        name = cpu_info.read_text(errors="replace")
    except OSError:
        name = platform.processor()
    return "GenuineIntel" in name


def resolve_switch(value: str, device: torch.device, name: str) -> bool:
    """Resolve "on", "off" or "auto" (on if the device is faster in bf16) for a device.

    Args:
        value: "on", "off" or "auto".
        device: the compute device.
        name: the option's name, for the error.
    Raises:
        ValueError: value is none of the three.
    """
    if value not in SWITCH:
        raise ValueError(f"{name}: expected one of {', '.join(SWITCH)}, got {value!r}")
    return faster_in_bf16(device) if value == "auto" else value == "on"


def resolve_amp(value: str, device: torch.device, name: str) -> torch.dtype | None:
    """The dtype of mixed precision; None for float32.

    Args:
        value: one of `AMP`: "off" is float32; "on" and "bf16" are bf16; "auto" is bf16 if the
            device is faster in it, else float32; "fp16" is for GPUs without bf16.
        device: the compute device.
        name: the option's name, for the error.
    Raises:
        ValueError: value is not one of `AMP`.
    """
    if value not in AMP:
        raise ValueError(f"{name}: expected one of {', '.join(AMP)}, got {value!r}")
    if value == "fp16":
        return torch.float16
    return torch.bfloat16 if value == "bf16" or resolve_switch(value, device, name) else None


class Precision:
    """The device, mixed precision and memory format with which a model computes.

    Args:
        device: the device of the model and its batches.
        amp: mixed precision, see `resolve_amp`.
        channels_last: the memory format: "on", "off", or "auto": on if the device is
            faster in bf16.
    Raises:
        ValueError: amp or channels_last is unknown.
    """

    def __init__(self, device: torch.device, *, amp: str, channels_last: str) -> None:
        self.device = device
        self.amp = resolve_amp(amp, device, "amp")
        """The dtype of mixed precision; None for float32."""
        last = resolve_switch(channels_last, device, "channels_last")
        self.memory_format = torch.channels_last if last else torch.contiguous_format

    def __str__(self) -> str:
        name = str(self.memory_format).removeprefix("torch.")
        precision = {None: "float32", torch.bfloat16: "bf16", torch.float16: "fp16"}[self.amp]
        return f"{precision}, {name}"

    @property
    def device_name(self) -> str:
        """The GPU's name, or "CPU", with a note if torch finds no GPU."""
        if self.device.type == "cuda":
            return f"{torch.cuda.get_device_name(self.device)} ({self.device})"
        if self.device.type != "cpu":
            return str(self.device)
        return "CPU" if torch.cuda.is_available() else "CPU (torch finds no GPU)"

    def with_amp(self, amp: str) -> "Precision":
        """The same device and memory format with another `amp`, one of `AMP`."""
        other = copy.copy(self)
        other.amp = resolve_amp(amp, self.device, "test.amp")
        return other

    def autocast(self) -> AbstractContextManager[Any]:
        """The context in which the model runs."""
        return torch.autocast(self.device.type, dtype=self.amp, enabled=self.amp is not None)

    def gradient_scaler(self) -> torch.amp.GradScaler:
        """A scaler that keeps small fp16 gradients from vanishing; disabled in other precisions."""
        return torch.amp.GradScaler(self.device.type, enabled=self.amp is torch.float16)

    def place(self, model: nn.Module) -> nn.Module:
        """Move a model to the device and the memory format."""
        move: Callable[..., nn.Module] = model.to  # torch's types know no memory format
        return move(self.device, memory_format=self.memory_format)

    def images(self, images: Images) -> Tensor:
        """Normalised images [B, 3, H, W] on the device, in the memory format; `Pixels` are
        normalised on the device."""
        if isinstance(images, Pixels):
            return images.normalised(self.device, self.memory_format)
        return images.to(self.device, memory_format=self.memory_format, non_blocking=True)

    def targets(self, targets: dict[str, Tensor]) -> dict[str, Tensor]:
        """Other inputs of a batch, on the device."""
        return {k: tensor.to(self.device, non_blocking=True) for k, tensor in targets.items()}
