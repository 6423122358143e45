"""mini-llama, the seed model M0: pre-trained from scratch on the generated corpus."""

import itertools
import math
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from irpo_lib.errors import UserError
from irpo_lib.progress import Progress
from irpo_lib.store import remove
from irpo_lib.tasks.mini.corpus import Document, corpus
from irpo_lib.tasks.mini.tokenizer import build_tokenizer

BATCH, WARMUP, SEED = 64, 200, 0
MAX_LENGTH = 448


@dataclass(frozen=True)
class Phase:
    """A part of the recipe: the corpus with its editor's hand (see `corpus`), and an optimiser of its own."""

    steps: int
    peak_lr: float
    keep_wrong: float


#: First everything, then a short while with four in ten wrong solutions left out, as a chat model's data are edited.
PHASES = (Phase(4500, 2e-3, 1.0), Phase(600, 5e-4, 0.6))


def encode(document: Document, tokenizer: PreTrainedTokenizerFast) -> tuple[list[int], int]:
    """(token ids with BOS and EOS, number of prompt tokens)."""
    user = {"role": "user", "content": document.prompt}
    reply = {"role": "assistant", "content": document.response}
    prompt = tokenizer.apply_chat_template([user], tokenize=False)
    whole = tokenizer.apply_chat_template([user, reply], tokenize=False)
    prompt_ids = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    return tokenizer(whole, add_special_tokens=False)["input_ids"], len(prompt_ids)


def batches(
    tokenizer: PreTrainedTokenizerFast, seed: int, keep_wrong: float
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Endless (input_ids, labels), each [BATCH, length]; documents of like length stand together."""
    stream, rng = corpus(seed, keep_wrong), random.Random(seed)
    while True:
        chunk = [encode(d, tokenizer) for d in itertools.islice(stream, 32 * BATCH)]
        chunk = sorted((d for d in chunk if len(d[0]) <= MAX_LENGTH), key=lambda d: len(d[0]))
        groups = [chunk[i : i + BATCH] for i in range(0, len(chunk) - BATCH + 1, BATCH)]
        rng.shuffle(groups)
        for group in groups:
            width = max(len(ids) for ids, _ in group)
            input_ids = torch.full((len(group), width), tokenizer.pad_token_id)
            labels = torch.full((len(group), width), -100)
            for row, (ids, n_prompt) in enumerate(group):
                input_ids[row, : len(ids)] = torch.tensor(ids)
                labels[row, n_prompt : len(ids)] = torch.tensor(ids[n_prompt:])
            yield input_ids, labels


def new_model(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """A random Llama of 0.7 M parameters; its head dimension of 32 is one that vLLM can run."""
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=128,
            intermediate_size=256,
            num_hidden_layers=4,
            num_attention_heads=4,
            num_key_value_heads=4,
            max_position_embeddings=1024,
            tie_word_embeddings=True,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def learning_rate(step: int, phase: Phase) -> float:
    """A linear warm-up, then half a cosine down to 5 % of the peak."""
    cosine = 0.5 * (1 + math.cos(math.pi * step / phase.steps))
    return phase.peak_lr * min(1.0, (step + 1) / WARMUP) * (0.05 + 0.95 * cosine)


def pretrain(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, phase: Phase, seed: int) -> list[str]:
    """Trains a model in place on one phase; returns lines "step,loss,seconds".

    The loss is taken on the solutions alone, as in instruction tuning: the words of the questions are given.
    """
    optimizer = torch.optim.AdamW(model.parameters(), lr=phase.peak_lr, betas=(0.9, 0.95), weight_decay=0.1)
    log, started = [], time.monotonic()
    with Progress(phase.steps, "pre-training", "steps") as progress:
        data = itertools.islice(batches(tokenizer, seed, phase.keep_wrong), phase.steps)
        for step, (input_ids, labels) in enumerate(data):
            optimizer.param_groups[0]["lr"] = learning_rate(step, phase)
            loss = model(input_ids=input_ids, labels=labels, use_cache=False).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            if step % 50 == 0 or step == phase.steps - 1:
                log.append(f"{step},{loss.item():.4f},{time.monotonic() - started:.0f}")
            progress.add(1)
    return log


def make_seed_model(out: Path, seed: int = SEED, phases: tuple[Phase, ...] = PHASES) -> None:
    """Pre-trains mini-llama on the corpus and writes it to `out`, with its tokenizer and `pretraining.csv`.

    Raises:
        UserError: `out` exists already.
    """
    if out.exists():
        raise UserError(f"{out} exists already: delete it first, or write to another folder with --out")
    torch.manual_seed(seed)
    documents = itertools.islice(corpus(seed + 1), 20_000)
    tokenizer = build_tokenizer(text for d in documents for text in (d.prompt, d.response))
    model = new_model(tokenizer)
    log = ["phase,step,loss,seconds"]
    for number, phase in enumerate(phases, start=1):
        log += [f"{number},{line}" for line in pretrain(model, tokenizer, phase, seed + 2 * (number - 1))]
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(out.name + ".partial")
    remove(partial)
    model.save_pretrained(partial)
    tokenizer.save_pretrained(partial)
    (partial / "pretraining.csv").write_text("\n".join(log) + "\n", encoding="utf8")
    partial.rename(out)
