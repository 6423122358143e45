"""mini-llama, the seed model M0: pre-trained from scratch on the generated corpus."""

import itertools
import math
import random
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from irpo_world.corpus import Document, corpus
from irpo_world.tokenizer import build_tokenizer
from torch.nn.functional import cross_entropy
from transformers import AttentionInterface, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from irpo_lib.models.device import fast_dtype
from irpo_lib.stages.store import remove
from irpo_lib.terminal.errors import UserError
from irpo_lib.terminal.progress import Progress

SEED, STEPS, BATCH, WARMUP = 0, 3000, 64, 100
#: Peak rates of Muon (Jordan et al., 2024), for the matrices of attention and MLP, and of AdamW, for the rest.
MUON_RATE, ADAMW_RATE = 0.02, 2e-3
#: Longer documents are left out: one exercise of math-mini in a hundred, with four long examples.
MAX_LENGTH = 640
#: Documents that go through the model together: so few that their activations stay in a CPU's cache.
MICRO_BATCH = 16
#: The name of `causal_attention` in transformers.
ATTENTION = "causal_products"


def encode(document: Document, tokenizer: PreTrainedTokenizerFast) -> tuple[list[int], int]:
    """(token ids with BOS and EOS, number of prompt tokens)."""
    user = {"role": "user", "content": document.prompt}
    reply = {"role": "assistant", "content": document.response}
    prompt = tokenizer.apply_chat_template([user], tokenize=False)
    whole = tokenizer.apply_chat_template([user, reply], tokenize=False)
    prompt_ids = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    return tokenizer(whole, add_special_tokens=False)["input_ids"], len(prompt_ids)


def batches(tokenizer: PreTrainedTokenizerFast, seed: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Endless (input_ids, labels), each [BATCH, length]; documents of like length stand together."""
    stream, rng = corpus(seed), random.Random(seed)
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
    """A random Llama of 0.75 M parameters; its head dimension of 32 is one that vLLM can run."""
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


def causal_attention(
    module: torch.nn.Module, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, attention_mask: None,
    scaling: float, **others,
) -> tuple[torch.Tensor, None]:  # fmt: skip
    """[B, heads, T, d] → [B, T, heads, d], as plain matrix products.

    For heads as narrow and documents as short as these, on a CPU, that is faster than torch's fused attention.
    Padding needs no mask: it stands on the right, where no token looks.
    """
    scores = (query * scaling) @ key.transpose(2, 3)
    scores += torch.full(scores.shape[2:], -torch.inf, dtype=scores.dtype).triu(1)
    return (scores.softmax(-1) @ value).transpose(1, 2), None


def rate(step: int, steps: int) -> float:
    """The share of its peak that a learning rate has: a linear warm-up, then half a cosine down to 5 %."""
    return min(1.0, (step + 1) / WARMUP) * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * step / steps)))


def optimizers(model: LlamaForCausalLM) -> list[torch.optim.Optimizer]:
    """Muon, which learns this corpus in half the steps of AdamW, and AdamW for what Muon is not made for."""
    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name]
    others = [p for name, p in model.named_parameters() if p.ndim != 2 or "embed" in name]
    return [
        torch.optim.Muon(matrices, lr=MUON_RATE, weight_decay=0.01),
        torch.optim.AdamW(others, lr=ADAMW_RATE, betas=(0.9, 0.95), weight_decay=0.1),
    ]


def pretrain(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, steps: int, seed: int) -> list[str]:
    """Trains a model in place; returns lines "step,loss,seconds".

    The loss is taken on the solutions alone, as in instruction tuning: the words of the questions are given. Products
    are made in bfloat16 where that is fast, the weights stay in float32. Where there is a C++ compiler, a layer is
    compiled first, for all of them.
    """
    AttentionInterface.register(ATTENTION, causal_attention)
    model.set_attn_implementation(ATTENTION)
    for layer in model.model.layers if shutil.which("g++") else []:
        layer.compile(dynamic=True)
    made = optimizers(model)
    peaks = [optimizer.param_groups[0]["lr"] for optimizer in made]
    log, started = ["step,loss,seconds"], time.monotonic()
    with Progress(steps, "pre-training", "steps") as progress:
        for step, (input_ids, labels) in enumerate(itertools.islice(batches(tokenizer, seed), steps)):
            loss = backward(model, input_ids, labels)
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            for optimizer, peak in zip(made, peaks, strict=True):
                optimizer.param_groups[0]["lr"] = peak * rate(step, steps)
                optimizer.step()
                optimizer.zero_grad()
            if step % 50 == 0 or step == steps - 1:
                log.append(f"{step},{loss:.4f},{time.monotonic() - started:.0f}")
            progress.add(1)
    model.set_attn_implementation("sdpa")
    return log


def backward(model: LlamaForCausalLM, input_ids: torch.Tensor, labels: torch.Tensor) -> float:
    """Adds the gradients of a batch's mean loss a labelled token; returns that loss.

    There are logits for the labelled tokens alone.
    """
    n_labelled, loss = (labels != -100).sum(), 0.0
    for ids, targets in zip(input_ids.split(MICRO_BATCH), labels[:, 1:].split(MICRO_BATCH), strict=True):
        labelled = targets != -100
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=fast_dtype() == "bfloat16"):
            hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state[:, :-1]
            logits = model.lm_head(hidden[labelled])
        part = cross_entropy(logits.float(), targets[labelled], reduction="sum") / n_labelled
        part.backward()
        loss += part.item()
    return loss


def make_seed_model(out: Path, seed: int = SEED, steps: int = STEPS) -> None:
    """Pre-trains mini-llama on the corpus and writes it to `out`, with its tokenizer and `pretraining.csv`.

    `seed` is that of the first weights and of the documents; the tokenizer is the same for all seeds.

    Raises:
        UserError: `out` exists already.
    """
    if out.exists():
        raise UserError(f"{out} exists already: delete it first, or write to another folder with --out")
    torch.manual_seed(seed)
    documents = itertools.islice(corpus(SEED + 1), 20_000)
    tokenizer = build_tokenizer(text for d in documents for text in (d.prompt, d.response))
    model = new_model(tokenizer)
    log = pretrain(model, tokenizer, steps, seed)
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(out.name + ".partial")
    remove(partial)
    model.save_pretrained(partial)
    tokenizer.save_pretrained(partial)
    (partial / "pretraining.csv").write_text("\n".join(log) + "\n", encoding="utf8")
    partial.rename(out)
