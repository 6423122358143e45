"""Sampling, against plain `model.generate`."""

import statistics
import time

import torch

from irpo_lib.config import load_config
from irpo_lib.generation import generate
from irpo_lib.models import encode_prompt, load_model, load_tokenizer
from irpo_lib.tasks import get_task, read_split

PROBLEMS, ROUNDS = 64, 5


def ours(model, tokenizer, prompts, config) -> int:
    """New tokens that this project's engine samples."""
    found = generate(model, prompts, config.samples, 0.8, 1.0, config.max_new_tokens, seed=0)
    return sum(len(s.token_ids) for _, samples in found for s in samples)


def peer(model, tokenizer, prompts, config) -> int:
    """New tokens of plain `model.generate(num_return_sequences=N)`, all prompts in one left-padded batch."""
    batch = tokenizer.pad({"input_ids": prompts}, padding_side="left", return_tensors="pt")
    out = model.generate(
        **batch, do_sample=True, temperature=0.8, top_k=0, num_return_sequences=config.samples,
        max_new_tokens=config.max_new_tokens,
    )  # fmt: skip
    new = out[:, batch["input_ids"].shape[1] :]
    return int((new != tokenizer.pad_token_id).sum()) + len(new)  # the EOS that ends each row is also its padding


def main() -> None:
    config = load_config("mini")
    tokenizer, model = load_tokenizer(config.model), load_model(config.model, config.dtype)
    task = get_task(config.task)
    problems = read_split(task, "train")[:PROBLEMS]
    prompts = [encode_prompt(tokenizer, task.prompt(p)) for p in problems]
    rates: dict[str, list[float]] = {"irpo": [], "model.generate": []}
    for _ in range(ROUNDS):
        for name, engine in (("irpo", ours), ("model.generate", peer)):
            torch.manual_seed(0)
            started = time.perf_counter()
            tokens = engine(model, tokenizer, prompts, config)
            rates[name].append(tokens / (time.perf_counter() - started))
    median = {name: statistics.median(values) for name, values in rates.items()}
    print(f"sampling {PROBLEMS} prompts x N = {config.samples}, {torch.get_num_threads()} threads, "
          f"median of {ROUNDS} rounds (tokens/s, lowest to highest):")  # fmt: skip
    for name, values in rates.items():
        print(f"  {name:<15} {median[name]:8.0f}  ({min(values):.0f} to {max(values):.0f})")
    print(f"  ratio           {median['irpo'] / median['model.generate']:8.2f}")
