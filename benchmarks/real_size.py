"""The shape of Qwen2.5-0.5B with random weights, 152k tokens, bfloat16: training, sampling and a draw, beside peers.

A side of a comparison needs most of the memory, so each runs in a process of its own, one after the other, for each
round: `python -m benchmarks.real_size train ours GSM8K` prints what it found as JSON.
"""

import importlib.util
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks.table import Row, in_turn, less, matmul_peak, resident, seconds_of
from benchmarks.training import ALIKE, SHAPES, operations, random_pairs, trl_trainer
from irpo_lib.config import load_config
from irpo_lib.engines.transformers import generate
from irpo_lib.fast.draw import pick
from irpo_lib.fast.packed import packed
from irpo_lib.fast.predict import choose_path
from irpo_lib.models.device import keep_freed_memory
from irpo_lib.models.load import load_model, load_tokenizer
from irpo_lib.models.parallel import Ranks
from irpo_lib.pairs import ScoredPair
from irpo_lib.training import Loop

QWEN = {
    "vocab_size": 151_936, "hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24,
    "num_attention_heads": 14, "num_key_value_heads": 2,
}  # fmt: skip
#: Steps of which the first ones make AdamW's state and fill the pools of memory; the last one is counted.
STEPS = 3
ROUNDS = 2
#: Pairs of a step, ours and TRL's of a micro-batch: as many as fit into 24 GB, up to four.
STEP_SIZES = {"GSM8K": (8, 4, 4), "MATH": (4, 4, 1)}
PROMPTS, PROMPT, N, NEW = 8, 120, 16, 48
DRAWS = 128
WHAT = "0.5B parameters, 152k vocabulary, bfloat16"


def main() -> Iterator[Row]:
    for shape, goal in (("GSM8K", ">= 3.5"), ("MATH", ">= 8")):
        yield from training(shape, goal)
    yield from sampling()
    yield draw()


def training(shape: str, goal: str) -> list[Row]:
    found = rounds("train", ("ours", "trl"), shape)
    (pairs, micro, its), ours, theirs = STEP_SIZES[shape], found["ours"], found["trl"]
    what = f"{WHAT}, {shape}'s shape, {pairs} pairs, {micro} a micro-batch"
    peer = "reference precomputed" + (f", {its} a micro-batch" if its != micro else "")
    speeds = [pairs / side["seconds"] for side in (ours, theirs)]
    share = ours["work"] / ours["seconds"]
    product = "a bfloat16 product of 2,048 × 2,048"
    return [
        Row("real size", what, speeds[0], peer, speeds[1], "pairs/s", speeds[0] / speeds[1], goal),
        less("real size", f"peak memory, {what}", ours["memory"], peer, theirs["memory"], "MB", ">= 1.7"),
        Row("real size", what, share, product, ours["peak"], "GFLOP/s", share / ours["peak"], ">= 0.6"),
    ]


def sampling() -> list[Row]:
    what = f"{WHAT}, {PROMPTS} prompts x N = {N}, {NEW} tokens"
    with tempfile.TemporaryDirectory() as folder:
        model = qwen().to(torch.bfloat16)
        model.save_pretrained(folder)
        load_tokenizer("mini-llama").save_pretrained(folder)  # vLLM wants one
        parameters = model.num_parameters()
        del model  # the sides need the memory
        peers = {"generate": ">= 6"} | ({"vllm": ">= 1.2"} if importlib.util.find_spec("vllm") is not None else {})
        found = rounds("sample", ("ours", *peers), folder)
    ours = found["ours"]["tokens"]
    rows = [
        Row("real size", what, ours, peer, found[peer]["tokens"], "tokens/s", ours / found[peer]["tokens"], goal)
        for peer, goal in peers.items()
    ]
    bound = found["ours"]["peak"] * 1e9 / (2 * parameters)
    return [*rows, Row("real size", what, ours, "2 operations a parameter", bound, "tokens/s", ours / bound, ">= 0.6")]


def draw() -> Row:
    """One draw for each of many rows beside one softmax over them, with one thread, as sampling has it."""
    torch.set_num_threads(1)
    logits, uniform = torch.randn(DRAWS, QWEN["vocab_size"]), torch.rand(DRAWS, dtype=torch.float64)
    sides = {
        "draw": lambda: seconds_of(lambda: pick(logits, 0.8, 1.0, uniform)),
        "softmax": lambda: seconds_of(lambda: torch.softmax(logits, -1)),
    }
    found = in_turn(sides, 9)
    ours, theirs = (1000 * statistics.median(taken) for taken in found.values())
    return less("real size", f"a draw from {DRAWS} x 152k logits", ours, "one softmax", theirs, "ms", ">= 0.77")


def rounds(what: str, sides: tuple[str, ...], *arguments: str) -> dict[str, dict[str, float]]:
    """The medians of what each side's processes found; the sides take turns."""
    found: dict[str, list[dict[str, float]]] = {side: [] for side in sides}
    for _ in range(ROUNDS):
        for side in sides:
            # A session of its own: vLLM stops when it touches a terminal that is not its own.
            command = [sys.executable, "-m", "benchmarks.real_size", what, side, *arguments]
            out = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, start_new_session=True).stdout
            found[side].append(json.loads(out.strip().splitlines()[-1]))
    return {side: {k: statistics.median(r[k] for r in some) for k in some[0]} for side, some in found.items()}


# --- one side, in its process ---


def qwen() -> LlamaForCausalLM:
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**QWEN, **ALIKE))


def train(side: str, shape: str) -> dict[str, float]:
    count, *micro = STEP_SIZES[shape]
    config = load_config("mini", dtype="bfloat16", batch_size=count, micro_batch_size=micro[side == "trl"])
    pairs = random_pairs(SHAPES[shape], count, QWEN["vocab_size"])
    model = qwen()
    work = operations(model, pairs, micro[0])
    taken = (our_steps if side == "ours" else trl_steps)(model, pairs, config)
    found = {"seconds": taken[-1], "work": work, "memory": resident("VmHWM") / 1e6}
    return found | {"peak": matmul_peak(2048, dtype=torch.bfloat16)}


def our_steps(model: LlamaForCausalLM, pairs: list[ScoredPair], config: Any) -> list[float]:
    keep_freed_memory()  # as load_model does
    loop, taken = Loop(choose_path(model, config.attention).train(), config, Ranks(config.parallel)), []
    for _ in range(STEPS):
        taken.append(seconds_of(lambda: loop.step(pairs)))
    return taken


def trl_steps(model: LlamaForCausalLM, pairs: list[ScoredPair], config: Any) -> list[float]:
    from transformers import TrainerCallback

    taken: list[float] = []

    class Clock(TrainerCallback):
        def on_step_begin(self, *args, **kwargs):
            taken.append(-time.perf_counter())

        def on_step_end(self, *args, **kwargs):
            taken[-1] += time.perf_counter()

    with tempfile.TemporaryDirectory() as folder:
        trainer = trl_trainer(model, None, pairs * STEPS, config, Path(folder))
        trainer.add_callback(Clock())
        trainer.train()
    return taken


def sample(side: str, folder: str) -> dict[str, float]:
    tokens = torch.randint(5, QWEN["vocab_size"], (PROMPTS, PROMPT), generator=torch.Generator().manual_seed(0))
    prompts = tokens.tolist()
    if side == "generate":
        peer = LlamaForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)

        def run(new: int) -> int:
            with torch.inference_mode():
                out = peer.generate(
                    tokens, attention_mask=torch.ones_like(tokens), do_sample=True, temperature=0.8, top_k=0,
                    num_return_sequences=N, max_new_tokens=new,
                )  # fmt: skip
            return out[:, PROMPT:].numel()

    else:
        source = _ours(folder, prompts) if side == "ours" else _vllm(folder, prompts)

        def run(new: int) -> int:
            return sum(len(s.token_ids) for _, samples in source(new) for s in samples)

    run(2)
    started = time.perf_counter()
    made = run(NEW)
    taken = time.perf_counter() - started
    return {"tokens": made / taken, "peak": matmul_peak(2048, dtype=torch.bfloat16)}


def _ours(folder: str, prompts: list[list[int]]) -> Callable[[int], Any]:
    model = packed(load_model(folder, "bfloat16"), PROMPTS * N)  # as its sampler does
    return lambda new: generate(model, prompts, N, 0.8, 1.0, new, seed=0)


def _vllm(folder: str, prompts: list[list[int]]) -> Callable[[int], Any]:
    from irpo_lib.engines import vllm

    engine = vllm.load_engine(folder, "bfloat16")
    wanted = {"n": N, "temperature": 0.8, "top_p": 1.0, "stop_token_ids": [ALIKE["eos_token_id"]]}
    return lambda new: vllm.generate(engine, prompts, range(PROMPTS), max_tokens=new, **wanted)


if __name__ == "__main__":
    print(json.dumps({"train": train, "sample": sample}[sys.argv[1]](*sys.argv[2:])))
