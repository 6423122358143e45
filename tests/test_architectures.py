"""Any causal language model: prompts, replies, sampling and scoring for the architectures that people use."""

import os
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from architectures import ARCHITECTURES, BEGIN, END, write_model
from helpers import greedy_of_transformers, irpo_run

from irpo_lib.engines.transformers import generate
from irpo_lib.iteration import Experiment
from irpo_lib.logprobs import score
from irpo_lib.models.load import check_weights, encode_prompt, encode_reply, end_token_id, load_model, load_tokenizer
from irpo_lib.records import Completion, PreferencePair
from irpo_lib.stages.samples import shards
from irpo_lib.stages.store import read_records
from irpo_lib.terminal.errors import UserError

PROMPT = "Question: Ann has 31 cups. Ann buys 5 more. How many cups does Ann have now?\nSolution:"
REPLY = "31 + 5 = 36.\nFinal answer: 36"


@pytest.fixture(scope="module", params=list(ARCHITECTURES))
def architecture(request, tmp_path_factory) -> tuple[str, str]:
    return request.param, write_model(request.param, tmp_path_factory.mktemp("architecture"))


def test_a_prompt_has_one_bos_where_the_model_has_one(architecture):
    name, folder = architecture
    tokenizer = load_tokenizer(folder)
    ids = encode_prompt(tokenizer, PROMPT)
    if name in BEGIN:
        bos = tokenizer.convert_tokens_to_ids(BEGIN[name])
        assert ids[0] == bos
        assert ids.count(bos) == 1
    assert PROMPT in tokenizer.decode(ids)


def test_a_reply_ends_with_what_the_template_writes_once(architecture):
    name, folder = architecture
    tokenizer = load_tokenizer(folder)
    end = tokenizer.convert_tokens_to_ids(END[name])
    ids = encode_reply(tokenizer, PROMPT, REPLY)
    assert end_token_id(tokenizer) == end
    assert ids[-1] == end
    assert ids.count(end) == 1
    assert REPLY in tokenizer.decode(ids)


def test_prompt_and_reply_are_the_templates_own_tokens(architecture):
    _, folder = architecture
    tokenizer = load_tokenizer(folder)
    if tokenizer.chat_template is None:
        pytest.skip("a base model has no template")
    messages = [{"role": "user", "content": PROMPT}, {"role": "assistant", "content": REPLY}]
    whole = tokenizer.apply_chat_template(messages, tokenize=False)
    ids = encode_prompt(tokenizer, PROMPT) + encode_reply(tokenizer, PROMPT, REPLY)
    assert tokenizer.decode(ids).replace(" ", "") == whole.rstrip("\n").replace(" ", "")


def test_greedy_is_that_of_transformers_and_logps_those_of_a_naive_loop(architecture):
    _, folder = architecture
    tokenizer, model = load_tokenizer(folder), load_model(folder, "float32")
    prompts = [encode_prompt(tokenizer, PROMPT[:n]) for n in (20, len(PROMPT))]
    end = end_token_id(tokenizer)
    ours = dict(generate(model, prompts, 1, 0.0, 1.0, 40, seed=0, end=end))
    for i, prompt in enumerate(prompts):
        theirs = greedy_of_transformers(model, prompt, 40, end)
        assert ours[i][0].token_ids == theirs
        response = theirs[:12]
        total = 0.0
        with torch.no_grad():
            for n, token in enumerate(response):
                logits = model(torch.tensor([prompt + response[:n]])).logits[0, -1].double()
                total += torch.log_softmax(logits, -1)[token].item()
        assert score(model, [(prompt, response), (prompt[:3], [5, 6])])[0] == pytest.approx(total, abs=1e-3)


@pytest.mark.slow  # the loop of each architecture
def test_the_loop_runs_full_and_with_lora(architecture, small_config, tmp_path):
    name, folder = architecture
    if name in ("llama-3", "qwen-2-base-eos"):
        pytest.skip("the same model class and training as another one here")
    tokenizer = load_tokenizer(folder)
    # A random model also draws the EOS that its config names, which ends a response as well.
    ends = {tokenizer.convert_tokens_to_ids(END[name]), tokenizer.eos_token_id}
    for rank in (0, 2):
        config = replace(small_config, model=folder, lora_rank=rank, train_problems=8, max_steps=2, max_new_tokens=16)
        experiment = Experiment(config, tmp_path / str(rank))
        experiment.evaluate(1)
        sampled = read_records(shards(experiment.generate(1)), Completion)
        for c in sampled:
            assert sum(token in ends for token in c.token_ids) == (c.finish_reason == "stop")
        for pair in read_records(experiment.pair(1) / "pairs.parquet", PreferencePair):
            assert [token in ends for token in pair.chosen_ids].index(True) == len(pair.chosen_ids) - 1
            if name in BEGIN:
                assert pair.prompt_ids.count(tokenizer.convert_tokens_to_ids(BEGIN[name])) == 1
        assert load_model(experiment.model(1), "float32").config.vocab_size == len(tokenizer)


# --- what cannot work is refused with the reason ---


def test_a_template_that_changes_the_prompt_is_refused(tmp_path):
    folder = write_model("llama-2", tmp_path)
    tokenizer = load_tokenizer(folder)
    tokenizer.chat_template = "{{ messages | length }}{% for m in messages %}{{ m['content'] }}{% endfor %}"
    with pytest.raises(UserError, match="chat template changes the prompt when a reply follows"):
        encode_reply(tokenizer, PROMPT, REPLY)


@pytest.mark.slow  # `irpo run` in a process of its own
def test_a_folder_without_weights_is_refused_before_any_work(tmp_path):
    folder = write_model("llama-2", tmp_path / "model")
    (tmp_path / "model" / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"weights \(\*\.safetensors\) are missing"):
        check_weights(folder)
    found = irpo_run(folder, tmp_path / "run")
    assert found.returncode == 1
    assert found.stderr.endswith("the model's weights (*.safetensors) are missing from it\n")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("preset", ["llama-2-70b", "qwen-0.5b", "llama-2-7b-lora"])
@pytest.mark.slow  # `irpo run` in a process of its own
def test_a_model_that_cannot_be_had_is_one_sentence_before_any_work(preset, tmp_path):
    command = [
        sys.executable,
        "-m",
        "irpo_lib.terminal.cli",
        "run",
        "--preset",
        preset,
        "--run-dir",
        str(tmp_path / "run"),
    ]
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "empty")}
    found = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert found.returncode == 1
    assert len(found.stderr.strip().splitlines()) == 1, found.stderr
    assert (
        "neither on this machine nor to be had from the hub: accept its licence at https://huggingface.co/"
        in found.stderr
    )
    assert not (tmp_path / "run").exists()
