"""What sequences share is computed once: against each sequence alone, over random sequences and real architectures."""

import logging
import random
import re
from dataclasses import replace

import pytest
import torch
from architectures import write_model
from helpers import random_pairs, step_with_gradient, with_reference
from torch.nn.functional import scaled_dot_product_attention

from irpo_lib.fast import chunked_logps
from irpo_lib.fast.batches import plan_trees, tree_batch
from irpo_lib.fast.chunked_logps import ChunkedLogps
from irpo_lib.fast.predict import choose_path
from irpo_lib.fast.prefix_tree import build_tree
from irpo_lib.fast.tree_attention import block_mask, tree_attention, tree_mask
from irpo_lib.logprobs import sequence_logps
from irpo_lib.models.load import load_model
from irpo_lib.models.weights import load_for_training

CPU = torch.device("cpu")


def random_sequences(rng: random.Random) -> list[list[int]]:
    """Up to twelve, put together from a few phrases, so that they share beginnings of every length."""
    phrases = [[rng.randrange(3) for _ in range(rng.randint(1, 6))] for _ in range(3)]
    return [[9] + [t for _ in range(rng.randint(1, 6)) for t in rng.choice(phrases)] for _ in range(rng.randint(1, 12))]


@pytest.fixture(params=range(60))
def case(request):
    rng = random.Random(request.param)
    sequences = random_sequences(rng)
    return sequences, build_tree(sequences, shortest=rng.choice([1, 2, 8]))


def ancestors(tree) -> torch.Tensor:
    """[T, T]: whether a token sees another, written down from the paths."""
    sees = torch.zeros(len(tree.token_ids), len(tree.token_ids), dtype=torch.bool)
    for path in tree.paths:
        for i in range(len(path)):
            sees[path[i], path[: i + 1]] = True
    return sees


def test_each_path_is_its_sequence_at_its_own_positions(case):
    sequences, tree = case
    for sequence, path in zip(sequences, tree.paths, strict=True):
        assert tree.token_ids[path].tolist() == sequence
        assert tree.positions[path].tolist() == list(range(len(sequence)))
    assert sum(end - start for start, end, _ in tree.nodes) == len(tree.token_ids) <= sum(map(len, sequences))


def test_with_nodes_of_any_length_each_beginning_is_there_once():
    for seed in range(60):
        sequences = random_sequences(random.Random(seed))
        beginnings = {tuple(s[: n + 1]) for s in sequences for n in range(len(s))}
        assert len(build_tree(sequences, shortest=1).token_ids) == len(beginnings)


def test_sixteen_pairs_of_maths_shape_are_nine_thousand_tokens():
    """700 of examples, 16 × 100 of question, 32 × 200 of response; in rows they would be 32,000."""
    rng = random.Random(0)
    examples, *rest = ([rng.randrange(30_000) for _ in range(n)] for n in [700] + [100] * 16 + [200] * 32)
    sequences = [examples + rest[i // 2] + rest[16 + i] for i in range(32)]
    assert len(build_tree(sequences).token_ids) == pytest.approx(8700, abs=10)


def test_trees_hold_every_sequence_once_and_no_more_tokens_than_asked_for():
    rng = random.Random(3)
    sequences = [(s[:1], s[1:]) for _ in range(8) for s in random_sequences(rng)]
    groups = plan_trees(sequences, 40)
    assert sorted(i for group in groups for i in group) == list(range(len(sequences)))
    for group in groups:
        assert (
            len(group) == 1 or len(build_tree([[*sequences[i][0], *sequences[i][1]] for i in group], 1).token_ids) <= 40
        )


# --- attention ---


class Grouped(torch.nn.Module):
    num_key_value_groups = 2
    is_causal = True


def random_states(tree, dtype, grad=True):
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(1, heads, len(tree.token_ids), 8, dtype=dtype, generator=generator, requires_grad=grad)
        for heads in (4, 2, 2)
    ]


def test_attention_over_a_tree_equals_a_masked_one_with_its_gradients(case):
    _, tree = case
    states = random_states(tree, torch.float64)
    found, _ = tree_attention(Grouped(), *states, tree_mask(tree, CPU))
    expected = scaled_dot_product_attention(*states, attn_mask=ancestors(tree), enable_gqa=True).transpose(1, 2)
    assert torch.allclose(found, expected, atol=1e-10)
    above = torch.randn_like(expected)
    for a, b in zip(torch.autograd.grad(found, states, above), torch.autograd.grad(expected, states, above),
                    strict=True):  # fmt: skip
        assert torch.allclose(a, b, atol=1e-9)


def test_gradients_in_bfloat16_are_no_farther_than_its_rounding():
    """One rounding is 2⁻⁹ of a number at most; products that are summed up in bfloat16 are off by twice as much."""
    tree = build_tree([[1] * 100 + [2 + i] * 150 for i in range(4)])
    states = random_states(tree, torch.bfloat16)
    exact = [state.detach().double().requires_grad_() for state in states]
    found, _ = tree_attention(Grouped(), *states, tree_mask(tree, CPU))
    expected = scaled_dot_product_attention(*exact, attn_mask=ancestors(tree), enable_gqa=True).transpose(1, 2)
    above = torch.randn_like(found)
    found_grads = torch.autograd.grad(found, states, above)
    for a, b in zip(found_grads, torch.autograd.grad(expected, exact, above.double()), strict=True):
        assert (a - b).norm() < 2**-8 * b.norm()


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.filterwarnings("ignore")
def test_the_mask_that_a_gpu_gets_is_the_same(seed):
    """FlexAttention's own mathematics, without its kernel; it has no backward pass on a CPU."""
    tree = build_tree(random_sequences(random.Random(seed)), shortest=1)
    states = random_states(tree, torch.float32, grad=False)
    found, _ = tree_attention(Grouped(), *states, block_mask(tree, CPU))
    expected, _ = tree_attention(Grouped(), *states, tree_mask(tree, CPU))
    assert torch.allclose(found, expected, atol=1e-5)


# --- log-probs of models ---


def grouped_pairs():
    """Ten pairs of three problems with long common examples, responses that repeat and that begin alike."""
    rng = random.Random(8)
    examples = [rng.randrange(1, 90) for _ in range(30)]
    pairs = []
    for i, s in enumerate(random_pairs(10, vocabulary=90)):
        prompt = examples + [i % 3 + 1] * 9
        chosen = pairs[i - 3].pair.chosen_ids if i > 6 else s.pair.chosen_ids
        rejected = chosen[:10] + s.pair.rejected_ids
        pairs.append(replace(s, pair=replace(s.pair, prompt_ids=prompt, chosen_ids=chosen, rejected_ids=rejected)))
    return pairs


@pytest.fixture(scope="module")
def sequences():
    return [(s.pair.prompt_ids, r) for s in grouped_pairs() for r in (s.pair.chosen_ids, s.pair.rejected_ids)]


def gradients(model, logps) -> dict[str, torch.Tensor]:
    model.zero_grad()
    weights = torch.linspace(-1, 1, len(logps))
    (logps * weights).sum().backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("architecture", ["llama-2", "llama-3", "qwen-2"])
def test_log_probs_and_gradients_are_those_of_each_sequence_alone(architecture, sequences, tmp_path):
    folder = write_model(architecture, tmp_path)
    plain, tree = load_model(folder, "float32"), choose_path(load_model(folder, "float32"), "prefix_tree")
    assert tree.config._attn_implementation == "prefix_tree"
    assert tree_batch(sequences).inputs["input_ids"].numel() < 0.6 * sum(len(p) + len(r) for p, r in sequences)
    alone = torch.cat([sequence_logps(plain, [s]) for s in sequences])
    together = sequence_logps(tree, sequences)
    assert together.tolist() == pytest.approx(alone.tolist(), abs=1e-4)
    expected, found = gradients(plain, alone), gradients(tree, together)
    assert expected.keys() == found.keys()
    for name, gradient in expected.items():
        assert (found[name] - gradient).norm() < 1e-5 * max(1.0, gradient.norm()), name


@pytest.mark.parametrize(("architecture", "reason"), [("gemma", "softcap"), ("mistral", "sliding_window")])
def test_a_model_with_another_attention_keeps_the_plain_path_and_says_why(
    architecture, reason, sequences, tmp_path, caplog
):
    """Gemma 2 caps attention scores (and logits), Mistral's first version sees a window only."""
    model = load_model(write_model(architecture, tmp_path), "float32")
    expected = sequence_logps(model, sequences).tolist()
    with caplog.at_level(logging.WARNING):
        model = choose_path(model, "prefix_tree")
    assert re.search(f"ForCausalLM: shared beginnings of sequences are computed in each.*{reason}", caplog.text)
    assert model.config._attn_implementation == "sdpa"
    assert sequence_logps(model, sequences).tolist() == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("settings", [{"gradient_checkpointing": True}, {"lora_rank": 2}, {"dtype": "bfloat16"}])
def test_a_step_is_the_same_by_either_path(settings, tiny_model, small_config):
    """With activations that are computed again, adapters, and in lower precision (there as near as its rounding)."""
    from irpo_lib.models.parallel import Ranks
    from irpo_lib.models.weights import add_adapters, prepared
    from irpo_lib.training import Loop

    found = []
    for attention in ("sdpa", "prefix_tree"):
        config = replace(small_config, attention=attention, batch_size=10, micro_batch_size=5, **settings)
        model = load_for_training(tiny_model, config)
        pairs = with_reference(model, grouped_pairs(), noise=3)
        torch.manual_seed(0)
        model = add_adapters(prepared(model, config), config)
        for name, p in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(p, std=0.1)
        loop = Loop(model, config, Ranks(config.parallel))
        row, gradient = step_with_gradient(loop, pairs)
        found.append((row["nll"], gradient))
    within = 5e-2 if config.dtype == "bfloat16" else 1e-5
    assert found[1][0] == pytest.approx(found[0][0], rel=within)
    assert (found[1][1] - found[0][1]).norm() < within * found[0][1].norm()


# --- logits in chunks ---


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("rows", "in_cache", "piece"), [(1, 1, 1), (3, 20, 5), (4, 10**6, 17), (1024, 60, 100)])
def test_log_probs_in_chunks_equal_log_softmax_with_their_gradients(bias, rows, in_cache, piece, monkeypatch):
    """Chunks of some rows, of which a few at a time are in the cache; the head's gradient in pieces."""
    for name, size in (("LOGITS", 1), ("ROWS", rows), ("CACHED", in_cache), ("PIECE", piece)):
        monkeypatch.setattr(chunked_logps, name, size)
    generator = torch.Generator().manual_seed(1)
    hidden, weight, shift = (
        torch.randn(size, dtype=torch.float64, generator=generator, requires_grad=True)
        for size in ((11, 6), (17, 6), (17,))
    )
    targets = torch.randint(17, (11,), generator=generator)
    inputs = (hidden, weight, shift) if bias else (hidden, weight)
    found = ChunkedLogps.apply(hidden, weight, shift if bias else None, targets)
    logits = torch.nn.functional.linear(*inputs)
    expected = torch.log_softmax(logits, -1)[torch.arange(11), targets]
    assert torch.allclose(found, expected, atol=1e-12)
    above = torch.randn(11, dtype=torch.float64, generator=generator)
    for a, b in zip(torch.autograd.grad(found, inputs, above), torch.autograd.grad(expected, inputs, above),
                    strict=True):  # fmt: skip
        assert torch.allclose(a, b, atol=1e-12)
