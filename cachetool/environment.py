"""What a result was computed with: versions, device and kernels, recorded beside every cache and run."""

from __future__ import annotations

import platform
from contextlib import AbstractContextManager, nullcontext
from importlib.metadata import version
from typing import Any

import torch
from threadpoolctl import threadpool_limits
from timm.layers.config import use_fused_attn

from cachetool.errors import UnknownNameError

RECORDED_PACKAGES = ("cachetool", "numpy", "pillow", "timm", "torch", "zarr")


def resolve_device(device: str | None) -> torch.device:
    """Turn a device's name into a torch device; None takes CUDA where there is one, else the CPU.

    Raises
    ------
    UnknownNameError
        The device is unknown to torch, or not on this machine.
    """
    # torch lets convolutions (the patch embedding) round to 10 bits on CUDA unless told otherwise: a float32 state
    # would be off by 1e-3, and no certificate could see it, since replays do not embed again.
    torch.backends.cudnn.allow_tf32 = False
    if hasattr(torch.backends.cudnn, "conv"):  # torch 2.9: a setting for everything counts where this one says nothing
        torch.backends.cudnn.conv.fp32_precision = "ieee"
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        resolved = torch.device(device)
        torch.empty(0, device=resolved)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UnknownNameError(f"--device {device}: torch cannot use it here ({reason}); try cpu") from error
    if resolved.type == "meta":
        raise UnknownNameError("--device meta holds no numbers; try cpu")
    return resolved


def copying_alone(device: torch.device) -> AbstractContextManager[object]:
    """Have this thread use no helpers of OpenMP within the block where a device computes; on the CPU, change nothing.

    All that is left for it then are copies, and helpers that spin while they wait for the next one take the processors
    from the threads that read, prepare and write: a replay on a GPU kept 11 of 16 busy, and one whose blocks cost
    nothing took 4.0 s with one thread where it took 5.4 s with two (1,024 images, four edits, two processors).
    """
    return nullcontext() if device.type == "cpu" else threadpool_limits(limits=1, user_api="openmp")


def describe_environment(device: torch.device) -> dict[str, str | int]:
    """Versions, processor, device and attention kernel settings as a JSON-ready dictionary."""
    facts: dict[str, str | int] = {name: version(name) for name in RECORDED_PACKAGES}
    facts["python"] = platform.python_version()
    facts["machine"] = platform.machine()
    facts["threads"] = torch.get_num_threads()
    facts["device"] = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    facts["kernel"] = kernel_name(device)
    return facts


def kernel_name(device: torch.device) -> str:
    """Name of what computes attention and products on a device; results agree bit for bit only within one."""
    attention = f"{'fused' if use_fused_attn() else 'plain'} attention"
    if device.type == "cuda":
        products = "on" if _rounds(torch.backends.cuda.matmul) else "off"
        convolutions = "on" if _rounds(getattr(torch.backends.cudnn, "conv", torch.backends.cudnn)) else "off"
        return f"cuda {torch.version.cuda}, tf32 products {products}, tf32 convolutions {convolutions}, {attention}"
    if device.type == "cpu":
        return f"cpu {torch.backends.cpu.get_cpu_capability()}, {attention}"
    return f"{device.type}, {attention}"


def _rounds(setting: Any) -> bool:
    """Whether a setting of torch has float32 rounded to 10 bits.

    From torch 2.9 on it has a newer name; to ask by the older one raises where somebody used the newer.
    """
    newer = getattr(setting, "fp32_precision", None)
    return bool(setting.allow_tf32) if newer is None else newer == "tf32"
