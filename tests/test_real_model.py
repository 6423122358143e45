"""A real language model, SmolLM2-135M-Instruct: its tokens, its samples, its log-probs, and the whole loop."""

import json
from pathlib import Path

import pytest
import torch
from helpers import greedy_of_transformers

from irpo_lib.config import load_config
from irpo_lib.engines.transformers import generate
from irpo_lib.fast.predict import choose_path
from irpo_lib.iteration import Experiment
from irpo_lib.logprobs import score, sequence_logps
from irpo_lib.models.load import encode_prompt, encode_reply, end_token_id, load_model, load_tokenizer
from irpo_lib.records import Completion, PreferencePair
from irpo_lib.stages.samples import shards
from irpo_lib.stages.store import read_json, read_records
from irpo_lib.tasks import gsm8k

#: Not in `make check`: a real model and its tokenizer.
pytestmark = pytest.mark.slow

#: Each with the working of its solution and its number.
PROBLEMS = [
    ("Mia has 14 pencils and buys 9 more. How many pencils does she have?", "14 + 9 = 23 pencils.", 23),
    ("A box holds 6 eggs. How many eggs are in 7 boxes?", "7 * 6 = 42 eggs.", 42),
    ("Tom had 50 dollars and spent 18. How many dollars are left?", "50 - 18 = 32 dollars.", 32),
    ("24 apples are shared by 4 children. How many does each get?", "24 / 4 = 6 apples each.", 6),
    ("A train has 8 cars with 20 seats each. 35 seats are empty. How many are taken?",
     "8 * 20 = 160 seats.\n160 - 35 = 125 are taken.", 125),
    ("Lea reads 12 pages a day. How many pages does she read in 5 days?", "12 * 5 = 60 pages.", 60),
    ("A shop sold 31 cups on Monday and twice as many on Tuesday. How many in all?",
     "On Tuesday it sold 31 * 2 = 62.\n31 + 62 = 93 cups.", 93),
    ("Ben is 11 years old and his sister is 4 years older. How old is she?", "11 + 4 = 15 years.", 15),
    ("A rope of 45 meters is cut into pieces of 9 meters. How many pieces?", "45 / 9 = 5 pieces.", 5),
    ("Three tickets cost 27 dollars. How much do 5 tickets cost?", "One costs 27 / 3 = 9.\n5 * 9 = 45 dollars.", 45),
    ("There are 40 birds. Half of them fly away, then 6 come. How many are there?", "40 / 2 = 20.\n20 + 6 = 26.", 26),
    ("Ann saves 15 dollars a week. How much does she have after 6 weeks?", "15 * 6 = 90 dollars.", 90),
    ("A farmer has 17 cows and 25 sheep. How many animals does he have?", "17 + 25 = 42 animals.", 42),
    ("A book has 200 pages. Sam has read 3 chapters of 30 pages. How many pages are left?",
     "3 * 30 = 90 pages.\n200 - 90 = 110 pages are left.", 110),
    ("Six friends pay 8 dollars each. How much do they pay?", "6 * 8 = 48 dollars.", 48),
    ("A jar has 100 beads. 37 are red, the rest blue. How many are blue?", "100 - 37 = 63 beads.", 63),
]  # fmt: skip


@pytest.fixture(scope="module")
def tokenizer(smollm2):
    return load_tokenizer(smollm2)


@pytest.fixture(scope="module")
def model(smollm2):
    return load_model(smollm2, "float32")


@pytest.fixture(scope="module")
def gsm8k_files(tmp_path_factory) -> Path:
    """The problems as GSM8K is published: `train.jsonl` and `test.jsonl`."""
    where = tmp_path_factory.mktemp("gsm8k")
    rows = [json.dumps({"question": q, "answer": f"{working}\n#### {answer}"}) for q, working, answer in PROBLEMS]
    for split, some in (("train", rows), ("test", rows[:4])):
        (where / f"{split}.jsonl").write_text("\n".join(some) + "\n", encoding="utf8")
    return where


@pytest.fixture(scope="module")
def problems(gsm8k_files):
    return gsm8k.read("train", str(gsm8k_files))


def test_chatml_with_its_system_prompt_one_bos_and_one_end(tokenizer, problems):
    prompt, reply = "What is 3 + 4?", "3 + 4 = 7.\nFinal answer: 7"
    start, end = tokenizer.convert_tokens_to_ids(["<|im_start|>", "<|im_end|>"])
    ids, replied = encode_prompt(tokenizer, prompt), encode_reply(tokenizer, prompt, reply)
    assert tokenizer.decode(ids) == (
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
        f"<|im_start|>user\n{prompt}<|im_end|>\n<|im_start|>assistant\n"
    )
    assert tokenizer.bos_token_id == start
    assert ids[0] == start
    assert ids[1] != start
    assert ids.count(start) == 3  # of system, user and assistant: no other one before them
    assert end_token_id(tokenizer) == end == replied[-1]
    assert replied.count(end) == 1
    assert tokenizer.decode(replied) == reply + "<|im_end|>"
    for problem in problems:
        assert encode_prompt(tokenizer, gsm8k.prompt(problem)).count(start) == 3


def test_greedy_is_that_of_transformers_token_for_token(model, tokenizer, problems):
    prompts = [encode_prompt(tokenizer, gsm8k.prompt(p)) for p in problems[:4]]
    end = end_token_id(tokenizer)
    ours = dict(generate(model, prompts, 1, 0.0, 1.0, 32, seed=0, end=end))
    for i, prompt in enumerate(prompts):
        assert ours[i][0].token_ids == greedy_of_transformers(model, prompt, 32, end)


def test_it_knows_a_capital(model, tokenizer):
    """Weights or a tokenizer that were read wrongly would not show in a comparison of the model with itself."""
    prompt = encode_prompt(tokenizer, "What is the capital of France?")
    found = dict(generate(model, [prompt], 1, 0.0, 1.0, 16, seed=0, end=end_token_id(tokenizer)))
    assert "Paris" in tokenizer.decode(found[0][0].token_ids)


@pytest.mark.parametrize("attention", ["prefix_tree", "sdpa"])
def test_log_probs_are_those_of_a_plain_forward_pass(attention, smollm2, tokenizer, problems):
    sequences = []
    for problem in problems[:3]:
        text = gsm8k.prompt(problem)
        for reply in (problem.gold_solution, problem.gold_solution + " Yes.", "I do not know."):
            sequences.append((encode_prompt(tokenizer, text), encode_reply(tokenizer, text, reply)))
    model = load_model(smollm2, "float32")
    expected = []
    with torch.no_grad():
        for prompt, reply in sequences:
            logps = torch.log_softmax(model(torch.tensor([prompt + reply])).logits[0].double(), -1)
            places = range(len(prompt) - 1, len(prompt) + len(reply) - 1)
            expected.append(sum(logps[at, token].item() for at, token in zip(places, reply, strict=True)))
        model = choose_path(model, attention)
        assert model.config._attn_implementation == attention  # a tree, and no way out of it
        assert sequence_logps(model, sequences).tolist() == pytest.approx(expected, rel=1e-3)
    assert [x for _, x in sorted(score(model, sequences).items())] == pytest.approx(expected, rel=1e-3)


def test_the_whole_loop(smollm2, tokenizer, gsm8k_files, tmp_path):
    config = load_config(
        "mini", "gsm8k", task_path=str(gsm8k_files), train_problems=None, model=smollm2, iterations=1,
        temperatures=[1.0], samples=4, max_new_tokens=16, max_length=512, pairs_per_problem=2, max_steps=2,
        warmup_steps=0, checkpoint_every=2, batch_size=2, micro_batch_size=1, learning_rate=1e-5,
        learning_rate_schedule="constant", probe_every=0, majority_iterations=[], majority_samples=1,
    )  # fmt: skip
    experiment = Experiment(config, tmp_path)
    experiment.evaluate(1)
    sampled = read_records(shards(experiment.generate(1)), Completion)
    assert len(sampled) == 16 * 4
    pairs = read_records(experiment.pair(1) / "pairs.parquet", PreferencePair)
    assert pairs
    assert all(p.chosen_ids[-1] == end_token_id(tokenizer) for p in pairs)
    assert read_json(experiment.train(1) / "stage.json")["status"] == "complete"
    assert read_json(experiment.evaluate(1) / "summary.json")["greedy"]["problems"] == 4

    before, after = load_model(smollm2, "float32"), load_model(experiment.model(1), "float32")
    changed = [not torch.equal(a, b) for a, b in zip(before.parameters(), after.parameters(), strict=True)]
    assert sum(changed) > len(changed) / 2
    prompt = encode_prompt(load_tokenizer(experiment.model(1)), "What is 3 + 4?")
    samples = dict(generate(after, [prompt], 2, 1.0, 1.0, 8, seed=0, end=end_token_id(tokenizer)))
    assert all(len(s.token_ids) for s in samples[0])
