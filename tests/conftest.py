"""What the tests share: a tiny random Llama with mini-llama's tokenizer, and small configs."""

import itertools
import os
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from irpo_lib.config import load_config
from irpo_lib.tasks.mini.corpus import corpus
from irpo_lib.tasks.mini.tokenizer import build_tokenizer

#: Real files that some tests also run against; they are no part of the project.
REAL_DATA = Path(os.environ.get("IRPO_REAL_DATA", Path(__file__).parents[2] / "shared" / "data"))


@pytest.fixture
def one_thread():
    """Sums are then made in the same order in every process, so that results can be compared bit by bit."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def tokenizer():
    documents = itertools.islice(corpus(7), 3000)
    return build_tokenizer(text for d in documents for text in (d.prompt, d.response))


@pytest.fixture(scope="session")
def tiny_model(tokenizer, tmp_path_factory) -> str:
    """The folder of a random two-layer Llama; it ends its responses at random."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=512, bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id, initializer_range=0.3,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("tiny-model")
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture
def small_config(tiny_model):
    """A config whose every stage takes a second."""
    return load_config(
        "mini", "gsm8k-mini", model=tiny_model, iterations=1, temperatures=[1.0], train_problems=12, samples=4,
        test_problems=6, majority_problems=3, majority_samples=4, majority_iterations=[0], max_new_tokens=24,
        problems_per_shard=4, max_steps=4, checkpoint_every=2, batch_size=4, micro_batch_size=2,
    )  # fmt: skip
