"""Decoding: against transformers' own greedy search, against softmax, and what holds for every sample."""

import itertools
import logging
import random

import numpy as np
import pytest
import torch
import transformers
from architectures import write_model
from irpo_world.corpus import corpus
from transformers import AutoModelForCausalLM

from irpo_lib.engines.transformers import generate
from irpo_lib.fast.decoding import opened
from irpo_lib.fast.draw import SMALL, draw
from irpo_lib.fast.packed import packed
from irpo_lib.models.load import encode_prompt, load_model


@pytest.fixture(scope="module")
def model(tiny_model):
    """Its end token is a likely one, so that some greedy responses end and some do not."""
    model = load_model(tiny_model, "float32")
    with torch.no_grad():
        model.lm_head.weight[model.config.eos_token_id] *= 1.4
    return model


@pytest.fixture(scope="module")
def prompts(tokenizer) -> list[list[int]]:
    """24 prompts of many lengths, in no order."""
    found = [encode_prompt(tokenizer, d.prompt) for d in itertools.islice(corpus(11), 24)]
    random.Random(0).shuffle(found)
    assert len({len(p) for p in found}) >= 10
    return found


def run(model, prompts, n=1, temperature=1.0, top_p=1.0, max_new_tokens=40, seed=0, **options) -> list[list]:
    """The samples of each prompt, in the order of the prompts."""
    found = dict(generate(model, prompts, n, temperature, top_p, max_new_tokens, seed, **options))
    assert sorted(found) == list(range(len(prompts)))
    return [found[i] for i in range(len(prompts))]


def ids(samples) -> list:
    return [[s.token_ids for s in group] for group in samples]


def greedy_by_transformers(model, prompt: list[int], max_new_tokens: int) -> list[int]:
    input_ids = torch.tensor([prompt])
    out = model.generate(
        input_ids, attention_mask=torch.ones_like(input_ids), do_sample=False, max_new_tokens=max_new_tokens
    )
    return out[0, len(prompt) :].tolist()


@pytest.mark.parametrize("rows", [1, 5, 512])
def test_greedy_is_that_of_transformers(model, prompts, rows):
    """Alone, in padded batches of five, and all at once; long enough for the cache to grow twice."""
    found = run(model, prompts, temperature=0, max_new_tokens=150, rows=rows)
    expected = [greedy_by_transformers(model, p, 150) for p in prompts]
    assert [[e] for e in expected] == ids(found)
    lengths = {len(e) for e in expected}
    assert max(lengths) == 150
    assert min(lengths) < 150, "no response ended, so that rows that leave the batch were not tried"


def test_each_token_is_the_likeliest_of_a_plain_forward_pass(model, prompts):
    """No cache and no padding: what the decoding loop saw are the logits of the model."""
    for prompt, [sample] in zip(prompts[:8], run(model, prompts[:8], temperature=0, max_new_tokens=70), strict=True):
        with torch.inference_mode():
            logits = model(torch.tensor([prompt + sample.token_ids])).logits[0, len(prompt) - 1 : -1]
        assert logits.argmax(-1).tolist() == sample.token_ids


def test_the_same_seed_gives_the_same_samples(model, prompts):
    first = ids(run(model, prompts, n=3, seed=5))
    assert ids(run(model, prompts, n=3, seed=5)) == first
    assert ids(run(model, prompts, n=3, seed=6)) != first
    torch.manual_seed(1)
    assert ids(run(model, prompts, n=3, seed=5)) == first, "the global generator plays no part"


def test_samples_of_a_prompt_differ(model, prompts):
    for group in ids(run(model, prompts, n=4)):
        assert len({tuple(sample) for sample in group}) == 4


def test_how_a_response_ends(model, prompts, tokenizer):
    samples = [s for group in run(model, prompts, n=8, temperature=1.3, max_new_tokens=30) for s in group]
    for sample in samples:
        eos = sample.token_ids.count(tokenizer.eos_token_id)
        if sample.finish_reason == "stop":
            assert eos == 1
            assert sample.token_ids[-1] == tokenizer.eos_token_id
            assert len(sample.token_ids) <= 30
        else:
            assert (sample.finish_reason, eos, len(sample.token_ids)) == ("length", 0, 30)
    assert {s.finish_reason for s in samples} == {"stop", "length"}


def test_a_limit_of_one_token(model, prompts):
    for group in run(model, prompts, n=2, max_new_tokens=1):
        assert [len(s.token_ids) for s in group] == [1, 1]


@pytest.mark.parametrize(("temperature", "top_p"), [(0.8, 1.0), (1.3, 1.0), (0.8, 0.5)])
def test_the_first_token_is_drawn_from_the_softmax(model, prompts, temperature, top_p):
    """4,000 samples each of two prompts of unlike length in one padded batch: chi-square over tokens."""

    def first(prompt: list[int]) -> torch.Tensor:
        with torch.inference_mode():
            return torch.softmax(model(torch.tensor([prompt])).logits[0, -1].double() / temperature, -1)

    open_ended = sorted((p for p in prompts if first(p).max() < 0.4), key=len)
    two, draws = [open_ended[0], open_ended[-1]], 4000
    assert len(two[0]) < len(two[1])
    for prompt, group in zip(two, run(model, two, draws, temperature, top_p, 1, rows=2 * draws), strict=True):
        p = first(prompt)
        if top_p < 1:
            nucleus, mass = [], 0.0
            for token in p.argsort(descending=True).tolist():
                if mass >= top_p:
                    break
                nucleus.append(token)
                mass += p[token].item()
            p = torch.zeros_like(p).index_copy(0, torch.tensor(nucleus), p[nucleus] / mass)
            assert 1 < len(nucleus) < 200
        drawn = torch.bincount(torch.tensor([s.token_ids[0] for s in group]), minlength=len(p)).double()
        assert drawn.sum() == draws
        assert drawn[p == 0].sum() == 0, "a token outside of the nucleus"
        often = p * draws >= 5
        observed = torch.cat([drawn[often], drawn[~often].sum()[None]])
        expected = torch.cat([p[often], p[~often].sum()[None]]) * draws
        keep = expected > 0
        chi_square = ((observed - expected)[keep] ** 2 / expected[keep]).sum().item()
        freedom = int(keep.sum()) - 1
        assert chi_square < freedom + 5 * (2 * freedom) ** 0.5 + 5, (chi_square, freedom)


@pytest.mark.parametrize("vocabulary", [2, 487, SMALL, SMALL + 1, 49152, 151_936])
def test_a_draw_is_the_first_token_whose_running_sum_passes_the_number(vocabulary):
    """Against NumPy's cumsum and search in float64; most tokens have no probability at all, the last ones neither.

    In a large vocabulary blocks are summed in float32, whose rounding may move a border by a ten-millionth.
    """
    rounding = 1e-7 if vocabulary > SMALL else 1e-12
    generator = torch.Generator().manual_seed(vocabulary)
    p = torch.softmax(5 * torch.randn(40, vocabulary, generator=generator), -1)
    p[20:, torch.rand(vocabulary, generator=generator) < 0.7] = 0
    p[20:, 1 + vocabulary // 2 :] = 0
    p[20:, 0] = 1e-3
    uniform = torch.rand(40, dtype=torch.float64, generator=generator)
    uniform[[0, 20]], uniform[[1, 21]] = 0.0, 1 - 2.0**-53
    drawn = draw(p, uniform)
    for row, u, token in zip(p.double().numpy(), uniform.tolist(), drawn.tolist(), strict=True):
        below = np.cumsum(row)
        assert row[token] > 0
        share = u * below[-1]
        assert below[token] - row[token] - rounding <= share <= below[token] + rounding
    assert draw(p[7:8], uniform[7:8]).tolist() == drawn[7:8].tolist(), "in another batch"


def test_later_tokens_follow_the_softmax_as_well(model, prompts):
    """The mean log-prob of sampled tokens is minus the mean entropy of their distributions."""
    surprise, entropy = [], []
    for prompt, group in zip(prompts, run(model, prompts, n=12, temperature=0.8), strict=True):
        for sample in group[:4]:
            with torch.inference_mode():
                logits = model(torch.tensor([prompt + sample.token_ids])).logits[0, len(prompt) - 1 : -1]
            logp = torch.log_softmax(logits / 0.8, -1)
            surprise += (-logp[range(len(logp)), sample.token_ids]).tolist()
            entropy += (-(logp.exp() * logp).sum(-1)).tolist()
    difference = torch.tensor(surprise) - torch.tensor(entropy)
    error = difference.std() / len(difference) ** 0.5
    assert len(difference) > 1000
    assert abs(difference.mean()) < 5 * error
    assert error < 0.1


def test_greedy_gives_one_response_only(model, prompts):
    with pytest.raises(ValueError, match="one response, not 2"):
        list(generate(model, prompts[:1], 2, 0.0, 1.0, 8, 0))


# --- keys that samples share ---


@pytest.fixture(scope="module")
def grouped(tmp_path_factory):
    """A float64 model whose query heads share key heads."""
    return load_model(write_model("qwen-2", tmp_path_factory.mktemp("grouped")), "float64")


def of_one_prefix(count: int, prefix: int, seed: int = 0) -> list[list[int]]:
    """Prompts of many lengths that begin alike; the second is the first without its last token."""
    numbers = random.Random(seed)
    start = [numbers.randrange(3, 300) for _ in range(prefix)]
    found = [start + [numbers.randrange(3, 300) for _ in range(numbers.randrange(2, 20))] for _ in range(count)]
    found[1] = found[0][:-1]
    return found


@pytest.mark.parametrize("prefix", [0, 50])
def test_logits_are_those_of_a_plain_forward_pass(grouped, prefix):
    """Two groups of rows that began at different times and lose rows on the way, against whole sequences in float64."""
    prompts, numbers, n = of_one_prefix(7, prefix), random.Random(1), 3
    with opened(grouped, prompts, 60) as source, torch.inference_mode():
        groups: list = []
        for step in range(40):
            if step in (0, 5):
                some = prompts[:4] if step == 0 else prompts[4:]
                groups.append((source.begin(some, n, 60), [list(p) for p in some for _ in range(n)]))
            texts = [text for _, group in groups for text in group]
            last, at = torch.tensor([t[-1] for t in texts]), torch.tensor([len(t) - 1 for t in texts])
            found = source.logits([rows for rows, _ in groups], last, at)
            for logits, text in list(zip(found, texts, strict=True))[:: 1 + step % 4]:
                expected = grouped(torch.tensor([text])).logits[0, -1]
                torch.testing.assert_close(logits, expected, rtol=1e-6, atol=1e-6)
            for rows, group in groups:
                if step % 6 == 3 and len(group) > 2:
                    gone = numbers.randrange(len(group) - 1)
                    group[gone] = group.pop()
                    rows.select(torch.tensor([*range(gone), len(group), *range(gone + 1, len(group))]))
                for text in group:
                    text.append(numbers.randrange(3, 300))
        assert [len(group) for _, group in groups] == [5, 3]


@pytest.mark.parametrize("prefix", [0, 3, 50])
def test_greedy_of_prompts_that_begin_alike(model, prefix):
    prompts = [[1], *of_one_prefix(9, prefix, seed=2)] if prefix < 50 else of_one_prefix(9, prefix)
    expected = [greedy_by_transformers(model, p, 30) for p in prompts]
    assert [[e] for e in expected] == ids(run(model, prompts, temperature=0, max_new_tokens=30, rows=4))


@pytest.mark.parametrize("name", ["qwen-2", "mistral"])
def test_samples_do_not_depend_on_what_they_are_batched_with(name, tmp_path):
    """In float64: few rows at once or many, one process or several, other prompts behind; keys shared or copied."""
    grouped = load_model(write_model(name, tmp_path), "float64")
    prompts, threads = of_one_prefix(16, 40), torch.get_num_threads()
    options = {"n": 8, "max_new_tokens": 20}
    try:
        torch.set_num_threads(1)
        first = ids(run(grouped, prompts, **options))
        assert ids(run(grouped, prompts, rows=24, **options)) == first
        assert ids(run(grouped, prompts[:5], **options)) == first[:5]
        torch.set_num_threads(2)
        assert ids(run(grouped, prompts, **options)) == first
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("name", ["llama-2", "qwen-2"])
@pytest.mark.parametrize("rows", [1, 7, 130])
def test_weights_laid_out_for_sampling_give_the_same_logits(name, rows, tmp_path):
    """Whatever the rows that they were laid out for; Qwen's maps have biases. Within bfloat16's rounding."""
    path = write_model(name, tmp_path)
    plain, laid_out = (load_model(path, "bfloat16") for _ in range(2))
    ids = torch.randint(5, 200, (rows, 6), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected, found = (model(ids).logits.float() for model in (plain, packed(laid_out, 64)))
    assert (found - expected).norm() <= 2**-7 * expected.norm()


def test_sampling_leaves_the_model_as_it_was(grouped):
    prompts, before = of_one_prefix(4, 40), grouped.config._attn_implementation
    padded = {"input_ids": torch.tensor([[0, 0, 5, 6]]), "attention_mask": torch.tensor([[0, 0, 1, 1]])}
    expected = grouped(**padded).logits
    torch.set_num_threads(1)
    drawn = generate(grouped, prompts, 2, 1.0, 1.0, 8, 0, rows=2)
    next(drawn)
    torch.testing.assert_close(grouped(**padded).logits, expected)  # also while samples wait to be asked for
    drawn.close()
    assert grouped.config._attn_implementation == before


@pytest.mark.parametrize(
    ("name", "settings", "says"),
    [
        ("Llama", {}, "share"),
        ("Mistral", {"sliding_window": 400}, "share"),  # wider than any sequence here
        ("Mistral", {"sliding_window": 24}, "not all of its layers attend to the whole past"),
        ("Gemma2", {"sliding_window": 400}, "softcap"),
        ("GptOss", {"num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 400}, "s_aux"),
        ("Falcon", {"alibi": True, "head_dim": None}, "its attention is"),
        ("GPT2", {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 512}, "share"),
        ("Mamba", {"state_size": 8}, "not all of its layers"),
        ("Qwen3Next", {"num_hidden_layers": 4, "num_experts": 4, "num_experts_per_tok": 2,
                       "moe_intermediate_size": 16, "shared_expert_intermediate_size": 16}, "not all of its layers"),
    ],
)  # fmt: skip
def test_any_architecture_is_sampled_from_rightly(name, settings, says, caplog):
    """Windows, capped scores, sinks, position biases, recurrent and mixed layers: greedy as transformers has it."""
    common = {
        "vocab_size": 300, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "head_dim": 16,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 512, "initializer_range": 0.3,
        "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
    }  # fmt: skip
    wanted = {k: v for k, v in (common | settings).items() if v is not None}
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(getattr(transformers, f"{name}Config")(**wanted)).eval()
    prompts = of_one_prefix(6, 40)
    expected = [[greedy_by_transformers(model, p, 30)] for p in prompts]
    with caplog.at_level(logging.INFO, "irpo_lib.fast.decoding"):
        assert ids(run(model, prompts, temperature=0, max_new_tokens=30, rows=4)) == expected
        with opened(model, prompts, 30):
            pass
    assert caplog.text.count("irpo_lib.fast.decoding") <= 1, "what is true of a model is said once"
    assert not caplog.text or says in caplog.text
