"""Equation 1 and the log-probs under it, against loops over single tokens in float64."""

import copy
import math
import random
from dataclasses import replace
from functools import cache
from itertools import accumulate

import pytest
import torch
from helpers import random_pairs, step_with_gradient, with_reference

from irpo_lib import logprobs
from irpo_lib.fast import predict
from irpo_lib.fast.batches import plan_rows, plan_trees
from irpo_lib.fast.predict import choose_path
from irpo_lib.logprobs import score, sequence_logps, token_logps
from irpo_lib.loss import irpo_loss
from irpo_lib.models.load import load_model
from irpo_lib.models.parallel import Ranks
from irpo_lib.terminal import progress
from irpo_lib.training import Loop

WEIGHTS = {"DPO+NLL": (1.0, 1.0), "DPO": (0.0, 1.0), "SFT": (1.0, 0.0), "others": (0.3, 2.0)}


@pytest.fixture(scope="module", params=["plain", "sdpa", "prefix_tree"])
def model(tiny_model, request):
    """As it is loaded; with logits in chunks; and with shared beginnings computed once."""
    model = load_model(tiny_model, "float32")
    return model if request.param == "plain" else choose_path(model, request.param)


@pytest.fixture(scope="module")
def exact_model(tiny_model):
    return load_model(tiny_model, "float32").double()


@pytest.fixture(scope="module")
def pairs(model):
    """Eight pairs, of which some share a prompt or a response, and whose margins are some nats away from 0."""
    found = [s.pair for s in random_pairs(8)]
    found[1], found[2] = (replace(p, prompt_ids=found[0].prompt_ids) for p in found[1:3])
    found[2] = replace(found[2], chosen_ids=found[0].chosen_ids)
    found[5] = replace(found[5], rejected_ids=[*found[5].chosen_ids[:-1], 7, 7])
    return with_reference(model, [replace(s, pair=p) for s, p in zip(random_pairs(8), found, strict=True)], noise=10)


def naive_logps(model, prompt: list[int], response: list[int]) -> list[torch.Tensor]:
    """log M(token | what stands before it), token by token, each from a forward pass of its own."""
    ids = prompt + response
    found = []
    for i in range(len(prompt), len(ids)):
        logits = model(input_ids=torch.tensor([ids[:i]])).logits[0, -1]
        found.append(logits[ids[i]] - torch.log(torch.exp(logits).sum()))
    return found


def naive_equation_1(model, pairs, beta: float, alpha: float, dpo_weight: float) -> torch.Tensor:
    """Equation 1 as the paper writes it, pair by pair."""
    total = torch.zeros((), dtype=torch.float64)
    for scored in pairs:
        pair = scored.pair
        chosen = naive_logps(model, pair.prompt_ids, pair.chosen_ids)
        rejected = naive_logps(model, pair.prompt_ids, pair.rejected_ids)
        ratio = (sum(chosen) - scored.reference_chosen_logps) - (sum(rejected) - scored.reference_rejected_logps)
        dpo = -torch.log(1 / (1 + torch.exp(-beta * ratio)))
        nll = -sum(chosen) / len(chosen)
        total = total + dpo_weight * dpo + alpha * nll
    return total / len(pairs)


def gradients(model) -> torch.Tensor:
    return torch.cat([p.grad.detach().double().flatten() for p in model.parameters()])


def distance(a: torch.Tensor, b: torch.Tensor) -> float:
    return ((a - b).norm() / b.norm()).item()


def one_step(model, pairs, config, micro_batch_size=8) -> tuple[float, torch.Tensor]:
    """Loss and gradient of one global batch of eight pairs, as the training makes them."""
    config = replace(config, batch_size=8, micro_batch_size=micro_batch_size)
    loop = Loop(copy.deepcopy(model), config, Ranks(config.parallel))
    if model.get_output_embeddings() in predict._in_chunks:
        choose_path(loop.model, model.config._attn_implementation)
    row, found = step_with_gradient(loop, pairs)
    return row["loss"], found


# --- Equation 1 ---


@pytest.mark.parametrize(("alpha", "dpo_weight"), WEIGHTS.values(), ids=WEIGHTS)
@pytest.mark.parametrize("beta", [0.05, 0.1, 1.0])
def test_equation_1_equals_a_token_loop(exact_model, pairs, beta, alpha, dpo_weight):
    def sums(which):
        return torch.stack(
            [sum(naive_logps(exact_model, s.pair.prompt_ids, getattr(s.pair, which + "_ids"))) for s in pairs]
        )

    with torch.inference_mode():
        losses = irpo_loss(
            sums("chosen"), sums("rejected"),
            torch.tensor([s.reference_chosen_logps for s in pairs], dtype=torch.float64),
            torch.tensor([s.reference_rejected_logps for s in pairs], dtype=torch.float64),
            torch.tensor([len(s.pair.chosen_ids) for s in pairs]), beta, alpha, dpo_weight,
        )  # fmt: skip
        expected = naive_equation_1(exact_model, pairs, beta, alpha, dpo_weight)
    assert losses.loss.mean().item() == pytest.approx(expected.item(), abs=1e-6)


def test_a_policy_that_equals_its_reference_has_ln_2():
    logps = torch.tensor([-6.0])
    losses = irpo_loss(logps, logps, logps, logps, torch.tensor([4]), beta=0.1, alpha=2.0)
    assert losses.dpo.item() == pytest.approx(math.log(2))
    assert losses.loss.item() == pytest.approx(math.log(2) + 2.0 * 6 / 4)
    assert losses.margins.item() == 0


def test_a_worked_number():
    """beta 0.5; the chosen gained 2 nats, the rejected lost 4: margin 0.5 * (2 + 4) = 3."""
    losses = irpo_loss(
        torch.tensor([-8.0]), torch.tensor([-14.0]), torch.tensor([-10.0]), torch.tensor([-10.0]), torch.tensor([16]),
        beta=0.5, alpha=1.0,
    )  # fmt: skip
    assert losses.margins.item() == pytest.approx(3)
    assert losses.dpo.item() == pytest.approx(math.log(1 + math.exp(-3)))
    assert losses.loss.item() == pytest.approx(math.log(1 + math.exp(-3)) + 8 / 16)


def test_nll_is_the_mean_of_each_sequences_mean():
    """3 tokens of 2 nats and 17 of 5: (2 + 5) / 2 = 3.5; the mean over tokens would be 91 / 20 = 4.55."""
    chosen = torch.tensor([-3 * 2.0, -17 * 5.0])
    losses = irpo_loss(chosen, chosen, chosen, chosen, torch.tensor([3, 17]), beta=0.1, alpha=1.0)
    assert losses.nll.mean().item() == pytest.approx(3.5)


# --- what the trainer makes of it ---


@pytest.mark.parametrize(("alpha", "dpo_weight"), WEIGHTS.values(), ids=WEIGHTS)
def test_loss_and_gradient_of_a_step_equal_the_token_loop(model, exact_model, pairs, small_config, alpha, dpo_weight):
    config = replace(small_config, alpha=alpha, dpo_weight=dpo_weight)
    loss, gradient = one_step(model, pairs, config, micro_batch_size=2)
    exact_model.zero_grad()
    expected = naive_equation_1(exact_model, pairs, config.beta, alpha, dpo_weight)
    expected.backward()
    assert loss == pytest.approx(expected.item(), rel=1e-5)
    assert distance(gradient, gradients(exact_model)) < 1e-5


@pytest.fixture(scope="module")
def whole_step(model, pairs):
    """Loss and gradient of the eight pairs in one micro-batch; made once for each model."""
    return cache(lambda config: one_step(model, pairs, config))


@pytest.mark.parametrize("micro_batch_size", [1, 2, 4])
def test_micro_batches_and_accumulation_change_nothing(model, pairs, small_config, whole_step, micro_batch_size):
    loss, gradient = one_step(model, pairs, small_config, micro_batch_size)
    assert loss == pytest.approx(whole_step(small_config)[0], rel=1e-5)
    assert distance(gradient, whole_step(small_config)[1]) < 1e-5


@pytest.mark.parametrize("micro_batch_size", [8, 2])
def test_the_order_of_pairs_changes_nothing(model, pairs, small_config, whole_step, micro_batch_size):
    shuffled = random.Random(3).sample(pairs, len(pairs))
    loss, gradient = one_step(model, shuffled, small_config, micro_batch_size)
    assert loss == pytest.approx(whole_step(small_config)[0], rel=1e-5)
    assert distance(gradient, whole_step(small_config)[1]) < 1e-5


# --- log-probs ---


def test_sequence_logps_equal_a_token_loop(model, exact_model):
    rng = random.Random(5)
    sequences = [([rng.randrange(100) for _ in range(p)], [rng.randrange(100) for _ in range(r)])
                 for p, r in ((1, 9), (12, 1), (5, 5), (3, 17), (2, 3))]  # fmt: skip
    sequences += [(sequences[3][0], sequences[3][1][:9] + [1, 2]), sequences[3], (sequences[3][0] + [1], [2])]
    with torch.inference_mode():
        found, of_tokens = sequence_logps(model, sequences), token_logps(model, sequences)
        expected = [[t.item() for t in naive_logps(exact_model, *s)] for s in sequences]
    assert found.tolist() == pytest.approx([sum(e) for e in expected], abs=1e-4)
    for logps, wanted in zip(of_tokens, expected, strict=True):
        assert logps.tolist() == pytest.approx(wanted, abs=1e-5)


@pytest.mark.parametrize("tokens_per_batch", [1, 60, 8192])
def test_score_equals_one_by_one(model, pairs, tokens_per_batch, monkeypatch):
    monkeypatch.setattr(logprobs, "TOKENS_PER_BATCH", tokens_per_batch)
    sequences = [(s.pair.prompt_ids, r) for s in pairs for r in (s.pair.chosen_ids, s.pair.rejected_ids)]
    found = list(score(model, sequences).items())
    assert sorted(i for i, _ in found) == list(range(len(sequences)))
    with torch.inference_mode():
        for index, value in found:
            assert value == pytest.approx(sequence_logps(model, [sequences[index]]).item(), abs=1e-4)


def test_progress_counts_a_whole_batch_at_once(model, pairs, monkeypatch, capsys):
    """Else the first line comes when one response of a batch is counted, with all of the batch's time."""
    monkeypatch.setattr(logprobs, "TOKENS_PER_BATCH", 60)
    monkeypatch.setattr(progress, "EVERY", 0.0)
    sequences = [(s.pair.prompt_ids, r) for s in pairs for r in (s.pair.chosen_ids, s.pair.rejected_ids)]
    with progress.Progress(len(sequences), "reference", "responses") as bar:
        score(model, sequences, progress=bar)
    lines = capsys.readouterr().out.splitlines()
    told = [int(line.split()[1]) for line in lines]  # "reference: 5 of 16 responses, about …"
    plan = plan_trees if model.config._attn_implementation == "prefix_tree" else plan_rows
    sizes = [len(batch) for batch in plan(sequences, 60)]
    assert len(sizes) > 2
    assert told == list(accumulate(sizes))[:-1]
