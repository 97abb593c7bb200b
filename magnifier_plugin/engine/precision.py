"""bf16 mixed precision and channels-last: where a device gains by them."""

import torch

SWITCH = ("on", "off", "auto")


def computes_in_bf16(device: torch.device) -> bool:
    """Whether a device has instructions for bf16 products; elsewhere they are emulated, slowly."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type != "cpu":
        return False
    # torch offers no public question for a CPU; these two have been there since torch 2.5.
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
