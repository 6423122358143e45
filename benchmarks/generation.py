"""Sampling: tokens a second beside `model.generate` and vLLM on the same prompts, and maj@32 of 500 problems."""

import importlib.util
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from benchmarks.table import Row, compared, in_turn
from irpo_lib.engines.transformers import generate
from irpo_lib.evaluation import majority_accuracy
from irpo_lib.generation import to_text
from irpo_lib.models.load import encode_prompt, load_model, load_tokenizer
from irpo_lib.records import Completion
from irpo_lib.rewards import reward
from irpo_lib.tasks import get_task, read_split

N, ROUNDS, NEW = 30, 5, 160
#: Prompts of one round: 300 samples of mini-llama, about 29,000 tokens; 60 of the larger model.
PROMPTS, PROMPTS_LARGER, NEW_LARGER = 10, 2, 32
THREADS = sorted({1, torch.get_num_threads()})


def main() -> Iterator[Row]:
    yield from _mini()
    yield _larger()
    yield _majority()
    if importlib.util.find_spec("vllm") is None:
        print("sampling: vLLM is not installed here, so it was not measured", flush=True)


def _mini() -> list[Row]:
    model, prompts = load_model("mini-llama", "float32"), _prompts("gsm8k-mini", PROMPTS)
    sides = _ours_and_transformers(model, prompts, NEW)
    servers = [_Vllm(t) for t in THREADS] if importlib.util.find_spec("vllm") is not None else []
    try:
        found = in_turn(sides | {f"vLLM, threads: {s.threads}": s.seconds for s in servers}, ROUNDS)
    finally:
        for server in servers:
            server.close()
    what = f"mini-llama, {PROMPTS} prompts x N = {N}"
    return [_row(what, found, "model.generate", ">= 3"), *([_row(what, found, "vLLM", ">= 1")] if servers else [])]


def _larger() -> Row:
    """A random Llama, 512 wide, 8 layers, 32k words; prompts with few-shot examples (365 of 390 tokens)."""
    config = LlamaConfig(
        vocab_size=32000, hidden_size=512, intermediate_size=1536, num_hidden_layers=8, num_attention_heads=8,
        num_key_value_heads=8, max_position_embeddings=1024, tie_word_embeddings=True, eos_token_id=2, pad_token_id=2,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        torch.manual_seed(0)
        LlamaForCausalLM(config).save_pretrained(folder)
        model = load_model(folder, "float32")
    prompts = _prompts("math-mini", PROMPTS_LARGER)
    size = sum(p.numel() for p in model.parameters()) / 1e6
    what = f"{size:.0f}M parameters, {PROMPTS_LARGER} few-shot prompts x N = {N}, {NEW_LARGER} tokens"
    found = in_turn(_ours_and_transformers(model, prompts, NEW_LARGER), ROUNDS)
    return _row(what, found, "model.generate", ">= 3")


def _majority() -> Row:
    """maj@32 of 500 problems from the model's files to the accuracy; the peer is the goal of 30 s."""
    started = time.perf_counter()
    model, tokenizer, task = load_model("mini-llama", "float32"), load_tokenizer("mini-llama"), get_task("gsm8k-mini")
    problems = read_split(task, "test")[:500]
    prompts = [encode_prompt(tokenizer, task.prompt(p)) for p in problems]
    completions = [
        reward(Completion(problems[i].id, k, prompts[i], s.token_ids, to_text(tokenizer, s.token_ids), s.finish_reason),
               problems[i], task)
        for i, samples in generate(model, prompts, 32, 0.8, 1.0, NEW, seed=0)
        for k, s in enumerate(samples)
    ]  # fmt: skip
    accuracy = majority_accuracy(completions, problems, task).accuracy
    taken = {"ours": [time.perf_counter() - started], "the goal": [30.0]}
    return compared("sampling", f"maj@32 of 500 problems ({accuracy:.3f})", taken, "the goal", ">= 1")


# --- one round of each side: seconds for each token that it samples ---


def _ours_and_transformers(model: PreTrainedModel, prompts: list[list[int]], new: int) -> dict[str, Callable]:
    peers = {f"model.generate, threads: {t}": _by_transformers(model, prompts, new, t) for t in THREADS}
    return {"ours": _ours(model, prompts, new)} | peers


def _ours(model: PreTrainedModel, prompts: list[list[int]], new: int) -> Callable[[], float]:
    def seconds() -> float:
        started = time.perf_counter()
        found = generate(model, prompts, N, 0.8, 1.0, new, seed=0)
        tokens = sum(len(s.token_ids) for _, samples in found for s in samples)
        return (time.perf_counter() - started) / tokens

    return seconds


def _by_transformers(model: PreTrainedModel, prompts: list[list[int]], new: int, threads: int) -> Callable[[], float]:
    """Plain `model.generate(num_return_sequences=N)`, all prompts in one left-padded batch."""
    width, pad = max(len(p) for p in prompts), model.config.pad_token_id
    ids = torch.tensor([[pad] * (width - len(p)) + p for p in prompts])
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts])

    def seconds() -> float:
        torch.manual_seed(0)
        torch.set_num_threads(threads)
        started = time.perf_counter()
        out = model.generate(
            ids, attention_mask=mask, do_sample=True, temperature=0.8, top_k=0, num_return_sequences=N,
            max_new_tokens=new, pad_token_id=pad,
        )[:, width:]  # fmt: skip
        taken = time.perf_counter() - started
        torch.set_num_threads(max(THREADS))
        ended = (out == model.config.eos_token_id).int()
        tokens = int((ended.cumsum(-1) - ended == 0).sum())  # up to and with the first EOS
        return taken / tokens

    return seconds


class _Vllm:
    """vLLM with this project's settings in a process of its own, which does a round for each line that it reads."""

    def __init__(self, threads: int):
        self.threads = threads
        environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
        # A session of its own: vLLM stops when it touches a terminal that is not its own.
        command = [sys.executable, "-m", "benchmarks.generation"]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, start_new_session=True,
            cwd=Path(__file__).parent.parent,
        )  # fmt: skip

    def seconds(self) -> float:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print("round", file=self.process.stdin, flush=True)
        for line in self.process.stdout:
            if line.startswith("seconds "):
                return float(line.split()[1])
        raise RuntimeError("vLLM ended before its round did")

    def close(self) -> None:
        self.process.communicate()


def _serve() -> None:
    from irpo_lib.engines import vllm
    from irpo_lib.models.load import end_token_id

    engine, prompts = vllm.load_engine("mini-llama", "float32"), _prompts("gsm8k-mini", PROMPTS)
    end = end_token_id(load_tokenizer("mini-llama"))
    wanted = {"n": N, "temperature": 0.8, "top_p": 1.0, "max_tokens": NEW, "stop_token_ids": [end]}
    for _ in sys.stdin:
        started = time.perf_counter()
        found = vllm.generate(engine, prompts, range(len(prompts)), **wanted)
        tokens = sum(len(s.token_ids) for _, samples in found for s in samples)
        print("seconds", (time.perf_counter() - started) / tokens, flush=True)


def _prompts(task_name: str, count: int) -> list[list[int]]:
    task, tokenizer = get_task(task_name), load_tokenizer("mini-llama")
    return [encode_prompt(tokenizer, task.prompt(p)) for p in read_split(task, "test")[:count]]


def _row(what: str, found: dict[str, list[float]], peer: str, goal: str) -> Row:
    """Beside the peer's faster setting: all threads on an idle machine, one on a busy one."""
    best = min((name for name in found if name.startswith(peer)), key=lambda name: statistics.median(found[name]))
    return compared("sampling", what, found, best, goal, 1, "tokens/s")


if __name__ == "__main__":
    _serve()
