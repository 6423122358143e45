"""What this machine computes on, in which type it is fast, and how it keeps memory."""

import ctypes
import os
import sys
from functools import cache

import torch

#: Settings of glibc's `mallopt`: free memory above which some is given back, and how many pieces are mapped singly.
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4


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


@cache
def keep_freed_memory() -> None:
    """Lets the memory of a freed tensor serve the next one, on a CPU under Linux.

    glibc gives large pieces back to the system, which fills new ones with zeros page by page: a quarter of the time of
    a training step with half a billion parameters. Where glibc is told otherwise (MALLOC_… variables), that stands.
    """
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    told = any(name.startswith("MALLOC_") for name in os.environ)
    if libc is not None and hasattr(libc, "mallopt") and not told:  # musl has none
        libc.mallopt(M_MMAP_MAX, 0)
        libc.mallopt(M_TRIM_THRESHOLD, -1)
