"""Where to compute, and in which type of number."""

__all__ = ["fast_dtype", "usable"]

import torch


def usable(device: torch.device | str) -> torch.device:
    """Returns the device asked for, after checking that something can be computed there.

    Raises:
        ValueError: if nothing can.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        return torch.empty(0, device=device).device
    except (AssertionError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        msg = f"cannot compute on device {str(device)!r} ({reason}); try 'cpu'"
        raise ValueError(msg) from error


def fast_dtype(device: torch.device) -> torch.dtype:
    """Returns bfloat16 where a device has matrix units for it, else float32.

    Without such units bfloat16 is slower: half as fast as float32 on a CPU that has vector instructions for it alone.
    """
    if device.type == "cuda":
        fast = torch.cuda.get_device_capability(device)[0] >= 8
    else:
        fast = device.type == "cpu" and getattr(torch.cpu, "_is_amx_tile_supported", bool)()
    return torch.bfloat16 if fast else torch.float32
