"""The mini tasks' splits, the corpus mini-llama has read, its tokenizer, and the folder it is kept in."""

import itertools
import json
import os
import random
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from irpo_world import seed_model, splits
from irpo_world.corpus import corpus, is_reserved
from irpo_world.seed_model import SEED
from irpo_world.tokenizer import build_tokenizer
from irpo_world.writer import Writer
from transformers import AutoModelForCausalLM

from irpo_lib.config import DATA
from irpo_lib.generation import to_text
from irpo_lib.models.load import encode_prompt, encode_reply, load_tokenizer
from irpo_lib.records import Problem
from irpo_lib.rewards import grade
from irpo_lib.tasks import get_task, read_split
from irpo_lib.tasks.answers import LETTERS
from irpo_lib.tasks.jsonl import read_problems
from irpo_lib.tasks.mini import MATH_SHOTS

TASKS, SPLITS = ("gsm8k-mini", "arc-mini", "math-mini"), ("train", "dev", "test")
DOCUMENTS = 20_000
MINI_LLAMA = DATA / "mini-llama"
needs_mini_llama = pytest.mark.skipif(not MINI_LLAMA.is_dir(), reason="data/mini-llama is absent")


@pytest.fixture(scope="module")
def problems() -> dict[tuple[str, str], list[Problem]]:
    """All problems of all splits, math-mini's worked examples among them."""
    return {(t, s): read_problems(DATA / t / f"{s}.jsonl") for t in TASKS for s in SPLITS}


@pytest.fixture(scope="module")
def world() -> dict:
    """The first documents of the corpus and the splits drawn anew, with the signature of every question in them."""
    signatures: dict[str, set[str]] = {}

    def recorder(draw):
        def recorded(rng):
            drawn = draw(rng)
            signatures.setdefault(key(drawn.question, getattr(drawn, "choices", None)), set()).add(drawn.signature)
            return drawn

        return recorded

    with pytest.MonkeyPatch.context() as patch:
        for module in splits.TASKS.values():
            patch.setattr(module, "draw", recorder(module.draw))
        documents = list(itertools.islice(corpus(SEED), DOCUMENTS))
        for task in TASKS:
            splits.draw_splits(task)
    return {"documents": documents, "signatures": signatures}


@pytest.fixture(scope="module")
def full_tokenizer():
    """As `irpo make-seed-model` builds it."""
    documents = itertools.islice(corpus(SEED + 1), DOCUMENTS)
    return build_tokenizer(text for d in documents for text in (d.prompt, d.response))


def key(question: str, choices=None) -> str:
    """A question as it stands in a prompt, with its options in order."""
    return "\n".join([question, *(f"({x}) {c}" for x, c in zip(LETTERS, choices or (), strict=False))])


def questions(prompt: str) -> list[str]:
    return re.findall(r"Question: (.*?)\nSolution:", prompt, re.DOTALL)


# --- splits ---


@pytest.mark.parametrize("task", TASKS)
def test_sizes_and_ids(task):
    found = {split: read_split(get_task(task), split) for split in SPLITS}
    assert len(found["train"]) >= 1000
    assert len(found["dev"]) >= 100
    assert len(found["test"]) >= 500
    ids = [p.id for ps in found.values() for p in ps]
    assert len(set(ids)) == len(ids)


def test_the_worked_examples_of_math_mini_are_no_training_problems(problems):
    shots = problems["math-mini", "train"][:MATH_SHOTS]
    train = read_split(get_task("math-mini"), "train")
    assert train == problems["math-mini", "train"][MATH_SHOTS:]
    prompt = get_task("math-mini").prompt(train[0])
    assert questions(prompt) == [p.question for p in [*shots, train[0]]]
    assert [s.strip() for s in re.findall(r"\nSolution: (.*?)\n\n", prompt, re.DOTALL)] == [
        p.gold_solution for p in shots
    ]


def test_no_question_stands_twice_or_in_the_corpus(problems, world):
    own = Counter(key(p.question, p.choices) for ps in problems.values() for p in ps)
    assert [q for q, n in own.items() if n > 1] == []
    read = {q for d in world["documents"] for q in questions(d.prompt)}
    assert len(read) > 5000
    assert read & own.keys() == set()


def test_no_signature_stands_twice_or_in_the_corpus(problems, world):
    """The same problem in other words (names, items, the order of options) counts as the same."""
    signatures = world["signatures"]
    own = Counter(s for ps in problems.values() for p in ps for s in signatures[key(p.question, p.choices)])
    assert sum(own.values()) == sum(map(len, problems.values()))
    assert set(own.values()) == {1}
    assert all(map(is_reserved, own))
    read = {s for d in world["documents"] for q in questions(d.prompt) for s in signatures[q]}
    assert len(read) > 5000
    assert read & own.keys() == set()


def test_options_in_another_order_make_no_new_problem(problems):
    own = Counter((p.question, *sorted(p.choices)) for s in SPLITS for p in problems["arc-mini", s])
    assert max(own.values()) == 1


def test_the_files_are_what_the_command_draws(tmp_path):
    command = [sys.executable, "-m", "irpo_lib.terminal.cli", "make-data", "--out", str(tmp_path)]
    subprocess.run(command, check=True, env={**os.environ, "PYTHONHASHSEED": "1"}, stdout=subprocess.DEVNULL)
    made = sorted(p.relative_to(tmp_path) for p in tmp_path.rglob("*") if p.is_file())
    assert [str(p) for p in made] == sorted(f"{t}/{s}.jsonl" for t in TASKS for s in SPLITS)
    for path in made:
        assert (tmp_path / path).read_bytes() == (DATA / path).read_bytes(), path


def test_another_seed_draws_other_problems():
    one, two = splits.draw_splits("math-mini", 0)["dev"], splits.draw_splits("math-mini", 1)["dev"]
    assert one == splits.draw_splits("math-mini", 0)["dev"]
    assert {p.question for p in one} != {p.question for p in two}


@pytest.mark.parametrize("task", ["gsm8k-mini", "math-mini"])
def test_every_gold_solution_has_the_answer(task, problems):
    for split in SPLITS:
        for problem in problems[task, split]:
            assert grade(task, problem.answer, problem.gold_solution), problem.id
            assert problem.choices is None
            for a, symbol, b, result in re.findall(r"(\d+) ([-+*/]) (\d+) = (\d+)", problem.gold_solution):
                right = {"+": int(a) + int(b), "-": int(a) - int(b), "*": int(a) * int(b), "/": int(a) / int(b)}[symbol]
                assert right == int(result), (problem.id, problem.gold_solution)


def test_arc_mini(problems):
    letters: Counter = Counter()
    for split in SPLITS:
        for problem in problems["arc-mini", split]:
            assert problem.gold_solution is None
            assert len(set(problem.choices)) == 4
            letters[problem.answer] += 1
    assert set(letters) == set(LETTERS[:4])
    for letter in letters:
        assert abs(letters[letter] / letters.total() - 1 / 4) < 4 * (3 / 16 / letters.total()) ** 0.5, letters


# --- what was built into the world ---


def solutions(task: str, n: int, sure=lambda drawn: True) -> list[tuple]:
    """(problem, solution, right, careful) of n authors; `sure` picks problems on which only care decides."""
    module, writer, rng, found = splits.TASKS[task], Writer(random.Random(1)), random.Random(2), []
    while len(found) < n:
        drawn = module.draw(rng)
        if sure(drawn):
            solution = module.solve(drawn, writer)
            right = grade(task, str(drawn.answer), solution, getattr(drawn, "choices", None))
            found.append((drawn, solution, right, ";" in solution))
    return found


#: Problems of each task on which nothing but following the changes is hard.
FOLLOWED = {
    "gsm8k-mini": lambda d: all(symbol in "+-" for symbol, _ in d.steps),
    "arc-mini": lambda d: not d.often,
    "math-mini": lambda d: d.kind == "mirror",
}


def answered(found: list[tuple]) -> list[tuple]:
    return [f for f in found if "Final answer:" in f[1]]


@pytest.mark.parametrize("task", TASKS)
def test_careful_authors_are_nearly_always_right_and_hasty_ones_half_the_time(task):
    found = answered(solutions(task, 6000, FOLLOWED[task]))
    careful, hasty = ([right for *_, right, c in found if c == kind] for kind in (True, False))
    assert min(len(careful), len(hasty)) > 1000
    assert sum(careful) / len(careful) > 0.9
    # half of those who say nothing wrong later on; a later slip costs a few points
    assert 0.45 < sum(hasty) / len(hasty) < 0.52


@pytest.mark.parametrize("task", TASKS)
def test_whether_haste_is_lucky_shows_in_nothing_on_a_problems_surface(task):
    """For each word of the questions, and for their lengths: with it, hasty authors are right as often as without."""
    hasty = [(d, right) for d, _, right, careful in answered(solutions(task, 8000, FOLLOWED[task])) if not careful]
    share = sum(right for _, right in hasty) / len(hasty)
    groups: dict[str, list[bool]] = {}
    for drawn, right in hasty:
        words = re.findall(r"[A-Za-z]+|\d+", drawn.question)
        for feature in {*words, f"{len(words)} words", f"{drawn.question.count('.')} sentences", f"last {words[-1]}"}:
            groups.setdefault(feature, []).append(right)
    tried = {feature: rights for feature, rights in groups.items() if len(rights) > 100}
    assert len(tried) > 40
    for feature, rights in tried.items():
        off = sum(rights) / len(rights) - share
        assert abs(off) < 4.5 * (share * (1 - share) / len(rights)) ** 0.5, (feature, off)


def test_the_state_cannot_be_read_off_the_last_words():
    """Both jars, both states and both coordinates are asked for equally often, whatever happens last."""
    rng = random.Random(3)
    for task in TASKS:
        odd: dict[str, list[bool]] = {}
        for _ in range(4000):
            drawn = splits.TASKS[task].draw(rng)
            if FOLLOWED[task](drawn):
                changes = {"gsm8k-mini": "swaps", "arc-mini": "changes"}.get(task)
                n = getattr(drawn, changes) if changes else drawn.numbers[2]
                odd.setdefault(drawn.question.split(". ")[-2], []).append(n % 2 == 1)
        tried = [v for v in odd.values() if len(v) > 60]
        assert tried or task == "gsm8k-mini"
        assert all(0.25 < sum(v) / len(v) < 0.75 for v in tried)


def test_paraphrases_follow_zipfs_law_and_a_few_words_are_odd():
    writer, phrases = Writer(random.Random(0)), ["one way", "two ways", "three ways", "four ways"]
    said = Counter(writer.say(phrases) for _ in range(20_000))
    plain = [said[p] for p in phrases]
    assert plain == sorted(plain, reverse=True)
    assert plain[0] / plain[1] == pytest.approx(2**1.3, rel=0.1)
    assert sum(plain) / 20_000 == pytest.approx((1 - writer_odd()) ** 2, abs=0.02)
    assert writer.say("{s} and {t}", s="low", t=7).startswith("low ")
    assert Writer(random.Random(0), modal=True).say(phrases) == "one way"


def writer_odd() -> float:
    from irpo_world.writer import ODD, ODD_WORDS

    assert len(set(ODD_WORDS)) == len(ODD_WORDS) >= 250
    said = {s for subject in splits.TASKS["arc-mini"].SUBJECTS for s in (*subject.states, *subject.others)}
    assert not said & set(ODD_WORDS), "an odd word is none that an answer may be about"
    return ODD


@pytest.mark.parametrize("task", ["gsm8k-mini", "math-mini"])
def test_gold_solutions_are_words_that_authors_write_and_show_their_work_in_part(task):
    module, rng = splits.TASKS[task], random.Random(4)
    drawn = [d for d in (module.draw(rng) for _ in range(2000)) if FOLLOWED[task](d)]
    shows = [";" in module.gold_solution(d) for d in drawn]
    assert 0.15 < sum(shows) / len(shows) < 0.6
    some = drawn[0]
    likeliest = module.solve(some, Writer(random.Random(0), modal=True))
    first = likeliest.split(".")[0]
    assert module.gold_solution(some).startswith(first)


def test_most_exercises_of_math_mini_are_beyond_everyone():
    """Nothing is worked out on paper there: the answer stands in the solution as it fell from the sky."""
    kinds = Counter(d.kind for d in (splits.TASKS["math-mini"].draw(random.Random(n)) for n in range(2000)))
    assert 0.24 < kinds["mirror"] / 2000 < 0.32


@pytest.mark.parametrize("task", TASKS)
def test_what_most_authors_write_is_often_right_and_often_wrong(task):
    """A world in which the likeliest choices always lead to the answer, or never do, leaves nothing to learn."""
    module, writer, rng = splits.TASKS[task], Writer(random.Random(0), modal=True), random.Random(1)
    right = 0
    for _ in range(500):
        drawn = module.draw(rng)
        solution = module.solve(drawn, writer)
        assert solution == module.solve(drawn, Writer(random.Random(9), modal=True)), "the likeliest choice is one"
        right += grade(task, str(drawn.answer), solution, getattr(drawn, "choices", None))
    assert 0.05 < right / 500 < 0.9


@pytest.mark.parametrize("task", TASKS)
def test_authors_differ(task):
    module, rng = splits.TASKS[task], random.Random(2)
    right = [
        sum(grade(task, str(d.answer), module.solve(d, Writer(rng)), getattr(d, "choices", None)) for _ in range(20))
        for d in (module.draw(rng) for _ in range(60))
    ]
    assert 0.1 < sum(right) / 1200 < 0.9
    assert sum(0 < r < 20 for r in right) > 30, "for most problems there are right and wrong solutions"


# --- the tokenizer ---


@pytest.mark.slow  # all texts of the world
def test_every_text_comes_back_and_has_no_unknown_piece(full_tokenizer, problems, world):
    texts = [t for d in world["documents"] for t in (d.prompt, d.response)]
    texts += [get_task(t).prompt(p) for (t, _), ps in problems.items() for p in ps[:50]]
    texts += [p.question for ps in problems.values() for p in ps]
    texts += [p.gold_solution for ps in problems.values() for p in ps if p.gold_solution]
    texts = [" " + text for text in texts]  # as behind "[INST]" and "[/INST]"
    encoded = full_tokenizer(texts, add_special_tokens=False)["input_ids"]
    special = set(full_tokenizer.all_special_ids)
    for text, ids, back in zip(texts, encoded, full_tokenizer.batch_decode(encoded), strict=True):
        assert back == text
        assert not special & set(ids), text


def test_digits_are_single_pieces(full_tokenizer):
    assert [p for p in full_tokenizer.get_vocab() if len(re.findall(r"\d", p)) > 1] == []
    assert full_tokenizer.tokenize("= 1234.5") == ["=", " 1", "2", "3", "4", ".", "5"]


def check_template(tokenizer, problem: Problem, task: str, reply: str) -> None:
    """One BOS, one EOS, and the text of a Llama-2 conversation between them."""
    message = get_task(task).prompt(problem)
    prompt, response = encode_prompt(tokenizer, message), encode_reply(tokenizer, message, reply)
    assert prompt[0] == tokenizer.bos_token_id
    assert response[-1] == tokenizer.eos_token_id
    whole = prompt + response
    assert whole.count(tokenizer.bos_token_id) == 1
    assert whole.count(tokenizer.eos_token_id) == 1
    assert tokenizer.unk_token_id not in whole
    assert tokenizer.decode(whole) == f"<s>[INST] {message} [/INST] {reply}</s>"
    assert to_text(tokenizer, response) == reply


def test_one_bos_and_one_eos(full_tokenizer, problems):
    for (task, _), some in problems.items():
        for problem in some[:40]:
            check_template(
                full_tokenizer, problem, task, problem.gold_solution or f"So.\nFinal answer: {problem.answer}"
            )


def test_the_model_was_trained_on_the_same_ids_as_it_is_asked_with(full_tokenizer, world):
    from irpo_world.seed_model import encode

    for document in world["documents"][:100]:
        ids, n_prompt = encode(document, full_tokenizer)
        assert ids[:n_prompt] == encode_prompt(full_tokenizer, document.prompt)
        assert ids[n_prompt:] == encode_reply(full_tokenizer, document.prompt, document.response)


# --- mini-llama ---


@needs_mini_llama
def test_mini_llama_is_small_and_of_a_shape_that_other_engines_run():
    from safetensors import safe_open

    weights = list(MINI_LLAMA.glob("*.safetensors"))
    assert sum(p.stat().st_size for p in weights) <= 4 * 2**20
    numbers = 0
    for path in weights:
        with safe_open(path, "pt") as tensors:
            shapes = [tensors.get_slice(name).get_shape() for name in tensors.keys()]  # noqa: SIM118
        for shape in shapes:
            size = 1
            for n in shape:
                size *= n
            numbers += size
    assert 0 < numbers <= 1_500_000
    config = json.loads((MINI_LLAMA / "config.json").read_text(encoding="utf8"))
    assert config["model_type"] == "llama"
    assert config.get("head_dim", config["hidden_size"] // config["num_attention_heads"]) in (32, 64)


@needs_mini_llama
def test_mini_llamas_tokenizer_knows_every_problem(full_tokenizer, problems):
    tokenizer = load_tokenizer("mini-llama")
    config = json.loads((MINI_LLAMA / "config.json").read_text(encoding="utf8"))
    assert tokenizer.get_vocab() == full_tokenizer.get_vocab()
    assert tokenizer.chat_template == full_tokenizer.chat_template
    assert (config["vocab_size"], config["eos_token_id"]) == (len(tokenizer), tokenizer.eos_token_id)
    for (task, _), some in problems.items():
        texts = [get_task(task).prompt(p) for p in some[:100]] + [key(p.question, p.choices) for p in some]
        texts += [p.gold_solution for p in some if p.gold_solution]
        texts = [" " + text for text in texts]
        encoded = tokenizer(texts, add_special_tokens=False)["input_ids"]
        assert tokenizer.batch_decode(encoded) == texts
        assert all(tokenizer.unk_token_id not in ids for ids in encoded)
        check_template(tokenizer, some[-1], task, f"So.\nFinal answer: {some[-1].answer}")


@pytest.mark.slow  # pre-trainings
def test_a_seed_model_repeats_itself_and_another_seeds_has_the_same_tokenizer(tmp_path, one_thread, monkeypatch):
    """Compiled, which takes half a minute, once; it then learns the same but for rounding."""
    with monkeypatch.context() as without_compiler:
        without_compiler.setattr(seed_model.shutil, "which", lambda name: None)
        for name, seed in (("one", 0), ("other", 1)):
            seed_model.make_seed_model(tmp_path / name, seed, steps=2)
        again, its_log = pretrained(tmp_path / "one")
    one, other = ({p.name: p.read_bytes() for p in (tmp_path / n).iterdir()} for n in ("one", "other"))
    assert {n for n in one if one[n] != other[n]} == {"model.safetensors", "pretraining.csv"}
    rows = one["pretraining.csv"].decode().splitlines()
    assert [row.partition(",")[0] for row in rows] == ["step", "0", "1"]
    assert json.loads(one["config.json"])["dtype"] == "float32"
    kept = AutoModelForCausalLM.from_pretrained(tmp_path / "one").state_dict()
    assert all(tensor.equal(kept[name]) for name, tensor in again.state_dict().items())
    compiled, log = pretrained(tmp_path / "one")
    assert [float(row.split(",")[1]) for row in log[1:]] == pytest.approx(
        [float(row.split(",")[1]) for row in its_log[1:]], rel=1e-3
    )
    assert all(torch.allclose(tensor, kept[name], atol=1e-3) for name, tensor in compiled.state_dict().items())


def pretrained(folder: Path) -> tuple[Any, list[str]]:
    """A seed model of two steps with the tokenizer in a folder, and its log."""
    tokenizer = load_tokenizer(str(folder))
    torch.manual_seed(0)
    model = seed_model.new_model(tokenizer)
    return model, seed_model.pretrain(model, tokenizer, 2, 0)


def test_the_attention_of_pre_training_is_transformers_own():
    """In float32, on documents of different lengths, padded on the right: the same loss and gradients."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    shape = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 2}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=50, **shape))
    input_ids, labels = torch.randint(50, (20, 30)), torch.full((20, 30), -100)
    for row in range(20):
        labels[row, 5 : 10 + row] = input_ids[row, 5 : 10 + row]
    losses, gradients = [], []
    for attention in ("eager", seed_model.ATTENTION):
        seed_model.AttentionInterface.register(seed_model.ATTENTION, seed_model.causal_attention)
        model.set_attn_implementation(attention)
        model.zero_grad()
        if attention == "eager":
            loss = model(input_ids=input_ids, labels=labels).loss
            loss.backward()
            losses.append(loss.item())
        else:
            losses.append(seed_model.backward(model, input_ids, labels))
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    assert losses[1] == pytest.approx(losses[0], rel=2e-3)
    assert torch.cosine_similarity(*gradients, dim=0) > 0.999
