"""Where mixed precision is used by default, and what the log says of the device."""

import logging

import pytest
import torch
from engines import make_engine

from magnifier_plugin.engine import precision
from magnifier_plugin.engine.precision import (
    Precision,
    faster_in_bf16,
    resolve_amp,
    resolve_switch,
)

CPU = torch.device("cpu")


@pytest.fixture
def processor(monkeypatch, tmp_path):
    """Set the features that torch finds, and the maker of the processor."""

    def use(maker: str, *, amx: bool = False, bf16: bool = False) -> None:
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: bf16)
        info = tmp_path / "cpuinfo"
        info.write_text(f"processor\t: 0\nvendor_id\t: {maker}\n")
        monkeypatch.setattr(precision, "CPU_INFO", info)

    return use


@pytest.mark.parametrize(
    ("maker", "amx", "bf16", "faster"),
    [
        ("GenuineIntel", True, True, True),
        ("GenuineIntel", False, True, False),
        ("GenuineIntel", False, False, False),
        ("AuthenticAMD", False, True, True),
        ("AuthenticAMD", False, False, False),
    ],
)
def test_bf16_only_where_it_is_faster(processor, maker, amx, bf16, faster):
    processor(maker, amx=amx, bf16=bf16)
    assert faster_in_bf16(CPU) is faster
    assert resolve_amp("auto", CPU, "amp") is (torch.bfloat16 if faster else None)
    assert resolve_switch("auto", CPU, "channels_last") is faster
    assert resolve_amp("bf16", CPU, "amp") is torch.bfloat16
    assert resolve_amp("off", CPU, "amp") is None


@pytest.mark.parametrize(
    ("name", "faster"), [("Intel64 Family 6 Model 143, GenuineIntel", False), ("x86_64", True)]
)
def test_the_platforms_name_without_a_cpu_info(processor, monkeypatch, tmp_path, name, faster):
    processor("unused", bf16=True)
    monkeypatch.setattr(precision, "CPU_INFO", tmp_path / "none")
    monkeypatch.setattr(precision.platform, "processor", lambda: name)
    assert faster_in_bf16(CPU) is faster


@pytest.mark.parametrize(("capability", "faster"), [((7, 5), False), ((8, 0), True)])
def test_gpus(monkeypatch, capability, faster):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert faster_in_bf16(torch.device("cuda:0")) is faster


def test_other_devices():
    assert not faster_in_bf16(torch.device("meta"))


def test_the_device_is_named(market_folder, monkeypatch, caplog):
    cpu = Precision(CPU, amp="off", channels_last="off")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert cpu.device_name == "CPU"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with caplog.at_level(logging.INFO, "magnifier_plugin"):
        make_engine(market_folder, amp="bf16", channels_last="off")
    assert "Device: CPU (torch finds no GPU); bf16, contiguous_format" in caplog.text
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"GPU {device.index}")
    gpu = Precision(torch.device("cuda", 1), amp="off", channels_last="off")
    assert gpu.device_name == "GPU 1 (cuda:1)"
