"""mini-llama, the seed model M0: pre-trained from scratch on the generated corpus."""

import itertools
import math
import random
import time
from pathlib import Path

import torch
from tqdm.auto import tqdm
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from irpo_lib.tasks.mini.corpus import Document, corpus
from irpo_lib.tasks.mini.tokenizer import build_tokenizer

STEPS, BATCH, PEAK_LR, WARMUP, SEED = 4000, 64, 2e-3, 200, 0
MAX_LENGTH = 448


def encode(document: Document, tokenizer: PreTrainedTokenizerFast) -> tuple[list[int], int]:
    """(token ids with BOS and EOS, number of prompt tokens)."""
    user = {"role": "user", "content": document.prompt}
    reply = {"role": "assistant", "content": document.response}
    prompt = tokenizer.apply_chat_template([user], tokenize=False)
    whole = tokenizer.apply_chat_template([user, reply], tokenize=False)
    prompt_ids = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    return tokenizer(whole, add_special_tokens=False)["input_ids"], len(prompt_ids)


def batches(tokenizer: PreTrainedTokenizerFast, seed: int):
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


def make_seed_model(out: Path, steps: int = STEPS, seed: int = SEED) -> None:
    """Pre-trains mini-llama and writes it to `out` with its tokenizer."""
    torch.manual_seed(seed)
    tokenizer = build_tokenizer(t for d in itertools.islice(corpus(seed + 1), 20_000) for t in (d.prompt, d.response))
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer), hidden_size=128, intermediate_size=256, num_hidden_layers=4,
            num_attention_heads=4, num_key_value_heads=4, max_position_embeddings=1024, tie_word_embeddings=True,
            bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )  # fmt: skip
    optimizer = torch.optim.AdamW(model.parameters(), lr=PEAK_LR, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    started = time.time()
    for step, (input_ids, labels) in enumerate(
        bar := tqdm(itertools.islice(batches(tokenizer, seed), steps), total=steps)
    ):
        warm, left = min(1.0, (step + 1) / WARMUP), (step + 1) / steps
        for group in optimizer.param_groups:
            group["lr"] = PEAK_LR * warm * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * left)))
        loss = model(input_ids=input_ids, labels=labels, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if step % 50 == 0:
            bar.set_postfix(loss=f"{loss.item():.3f}")
            print(step, f"{loss.item():.4f}", f"{time.time() - started:.0f}s", input_ids.shape, flush=True)
        if (step + 1) % 1000 == 0:
            model.save_pretrained(out)
            tokenizer.save_pretrained(out)
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
