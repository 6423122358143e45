"""Tiny random models of the architectures that people use, with their real tokenizer classes and chat templates."""

import itertools
import json
from collections.abc import Callable
from pathlib import Path

import torch
from irpo_world.corpus import corpus
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    Gemma2Config,
    GemmaTokenizer,
    LlamaConfig,
    LlamaTokenizer,
    MistralConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2Tokenizer,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

LLAMA_2 = (
    "{% for message in messages %}{% if message['role'] == 'user' %}"
    "{{ bos_token + '[INST] ' + message['content'].strip() + ' [/INST]' }}{% else %}"
    "{{ ' ' + message['content'].strip() + ' ' + eos_token }}{% endif %}{% endfor %}"
)
LLAMA_3 = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' + message['content'] | trim }}"
    "{{ '<|eot_id|>' }}{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
QWEN_2 = (
    "{% for message in messages %}{% if loop.first and message['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' }}{% endif %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
MISTRAL = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}"
    "{{ '[INST] ' + message['content'] + ' [/INST]' }}{% else %}{{ message['content'] + eos_token }}{% endif %}"
    "{% endfor %}"
)
GEMMA = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<start_of_turn>' + ('model' if message['role'] == 'assistant' else message['role']) + '\n' }}"
    "{{ message['content'] | trim + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)


def texts() -> list[str]:
    return [t for d in itertools.islice(corpus(11), 400) for t in (d.prompt, d.response)]


def _trained(byte_level: bool, special: list[str]) -> tuple[dict[str, int], list[tuple[str, str]], Tokenizer]:
    """(vocabulary, merges, tokenizer) of a BPE with so many special tokens in front."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=not byte_level, unk_token=None if byte_level else "<unk>"))
    tokenizer.pre_tokenizer = (
        pre_tokenizers.ByteLevel(add_prefix_space=False) if byte_level else pre_tokenizers.Metaspace()
    )
    tokenizer.decoder = decoders.ByteLevel() if byte_level else decoders.Metaspace()
    alphabet = pre_tokenizers.ByteLevel.alphabet() if byte_level else list("\nABCDEFGHIJKLMNOPQRSTUVWXYZ#[]/<>|_")
    bytes_ = [] if byte_level else [f"<0x{i:02X}>" for i in range(256)]
    trainer = trainers.BpeTrainer(vocab_size=700, special_tokens=special + bytes_, initial_alphabet=alphabet)
    tokenizer.train_from_iterator(texts(), trainer)
    model = json.loads(tokenizer.to_str())["model"]
    return model["vocab"], [tuple(m) for m in model["merges"]], tokenizer


def _llama_2():
    vocab, merges, _ = _trained(False, ["<unk>", "<s>", "</s>"])
    return LlamaTokenizer(vocab=vocab, merges=merges), LLAMA_2, LlamaConfig


def _mistral():
    vocab, merges, _ = _trained(False, ["<unk>", "<s>", "</s>"])
    return LlamaTokenizer(vocab=vocab, merges=merges), MISTRAL, MistralConfig


def _llama_3():
    special = ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
    _, _, tokenizer = _trained(True, special)
    bos = special[0]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A", special_tokens=[(bos, tokenizer.token_to_id(bos))]
    )
    return (
        PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=bos, eos_token="<|eot_id|>"),
        LLAMA_3,
        LlamaConfig,
    )


def _qwen_2(eos: str = "<|im_end|>"):
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    vocab, merges, _ = _trained(True, special)
    tokenizer = Qwen2Tokenizer(vocab=vocab, merges=merges, eos_token=eos, additional_special_tokens=special[1:])
    return tokenizer, QWEN_2, Qwen2Config


def _gemma():
    vocab, merges, _ = _trained(False, ["<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>"])
    turns = ["<start_of_turn>", "<end_of_turn>"]
    return GemmaTokenizer(vocab=vocab, merges=merges, additional_special_tokens=turns), GEMMA, Gemma2Config


def _base():
    vocab, merges, _ = _trained(False, ["<unk>", "<s>", "</s>"])
    return LlamaTokenizer(vocab=vocab, merges=merges, add_bos_token=True), None, LlamaConfig


#: name → what makes (tokenizer, chat template or None, class of the config).
ARCHITECTURES: dict[str, Callable] = {
    "llama-2": _llama_2, "llama-3": _llama_3, "qwen-2": _qwen_2, "mistral": _mistral, "gemma": _gemma,
    "qwen-2-base-eos": lambda: _qwen_2("<|endoftext|>"), "llama-base": _base,
}  # fmt: skip
#: What ends a reply in each.
END = {"llama-2": "</s>", "llama-3": "<|eot_id|>", "qwen-2": "<|im_end|>", "mistral": "</s>", "gemma": "<end_of_turn>",
       "qwen-2-base-eos": "<|im_end|>", "llama-base": "</s>"}  # fmt: skip
#: What begins a prompt; Qwen has no BOS.
BEGIN = {"llama-2": "<s>", "llama-3": "<|begin_of_text|>", "mistral": "<s>", "gemma": "<bos>", "llama-base": "<s>"}


def write_model(name: str, folder: Path) -> str:
    """A random model of an architecture, saved as transformers reads it; returns the folder."""
    tokenizer, template, kind = ARCHITECTURES[name]()
    tokenizer.chat_template = template
    settings = {
        "vocab_size": len(tokenizer), "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
        "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16, "max_position_embeddings": 1024,
        "bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": None,
        "initializer_range": 0.3,
    }  # fmt: skip
    if name == "mistral":
        settings["sliding_window"] = 24
    torch.manual_seed(0)
    MODEL_FOR_CAUSAL_LM_MAPPING[kind](kind(**settings)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)
