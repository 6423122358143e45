"""Decoding: against transformers' own greedy search, against softmax, and what holds for every sample."""

import itertools
import random

import pytest
import torch

from irpo_lib.generation import generate
from irpo_lib.models import encode_prompt, load_model
from irpo_lib.tasks.mini.corpus import corpus


@pytest.fixture(scope="module")
def model(tiny_model):
    return load_model(tiny_model, "float32")


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
