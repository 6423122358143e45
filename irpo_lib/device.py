"""What this machine computes on, and in which type it is fast."""

from functools import cache

import torch


def device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


@cache
def fast_dtype() -> str:
    """What `dtype: auto` stands for: bfloat16 where there are instructions for it, else float32. Says which it is."""
    if torch.cuda.is_available():
        name, fast = torch.cuda.get_device_name(), torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        can = torch.cpu.get_capabilities()
        name, fast = can.get("cpu_name", "this CPU"), can.get("avx512_bf16", False) or can.get("amx_bf16", False)
    dtype = "bfloat16" if fast else "float32"
    print(f"dtype auto: {dtype}, since {name} has {'' if fast else 'no '}instructions for bfloat16", flush=True)
    return dtype
