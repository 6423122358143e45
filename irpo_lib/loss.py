"""Equation 1: L = dpo_weight · L_DPO + α · L_NLL, for each pair."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn.functional import logsigmoid
from transformers import PreTrainedModel

from irpo_lib.logprobs import sequence_logps
from irpo_lib.pairs import ScoredPair


@dataclass
class PairLosses:
    """All [B]: the loss, its two parts before weighting, and DPO's implicit rewards."""

    loss: torch.Tensor
    dpo: torch.Tensor
    nll: torch.Tensor
    chosen_rewards: torch.Tensor
    rejected_rewards: torch.Tensor

    @property
    def margins(self) -> torch.Tensor:
        return self.chosen_rewards - self.rejected_rewards


def irpo_loss(
    policy_chosen_logps: torch.Tensor,
    policy_rejected_logps: torch.Tensor,
    reference_chosen_logps: torch.Tensor,
    reference_rejected_logps: torch.Tensor,
    chosen_lengths: torch.Tensor,
    beta: float,
    alpha: float,
    dpo_weight: float = 1.0,
) -> PairLosses:
    """Equation 1 for each pair; a batch's loss is the mean over its pairs.

    Args:
        policy_chosen_logps: log M_θ(c^w, y^w | x), a sum over response tokens. [B]
        policy_rejected_logps: log M_θ(c^l, y^l | x). [B]
        reference_chosen_logps: log M_t(c^w, y^w | x). [B]
        reference_rejected_logps: log M_t(c^l, y^l | x). [B]
        chosen_lengths: |c^w| + |y^w|, EOS included. [B]
        beta: β, how strongly the policy is held to the reference.
        alpha: α, the weight of the NLL term; 0 is DPO.
        dpo_weight: 1 in the paper; 0 is supervised fine-tuning on the chosen responses.
    """
    chosen_rewards = beta * (policy_chosen_logps - reference_chosen_logps)
    rejected_rewards = beta * (policy_rejected_logps - reference_rejected_logps)
    dpo = -logsigmoid(chosen_rewards - rejected_rewards)
    nll = -policy_chosen_logps / chosen_lengths
    return PairLosses(dpo_weight * dpo + alpha * nll, dpo, nll, chosen_rewards.detach(), rejected_rewards.detach())


def pair_logps(
    model: PreTrainedModel, examples: Sequence[ScoredPair], dpo_weight: float = 1.0, nll_length: float | None = None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """The log-probs of B pairs under policy and reference, and the lengths, as `irpo_loss` takes them.

    Without a DPO term the rejected responses are not scored: the reference's log-probs stand for the policy's.
    `nll_length` divides the NLL term in place of each response's own length.
    """
    chosen = [(e.pair.prompt_ids, e.pair.chosen_ids) for e in examples]
    rejected = [(e.pair.prompt_ids, e.pair.rejected_ids) for e in examples]

    def tensor(numbers: Sequence[float]) -> torch.Tensor:
        return torch.tensor(numbers, device=model.device)

    logps = sequence_logps(model, chosen + rejected if dpo_weight else chosen)
    reference_rejected_logps = tensor([e.reference_rejected_logps for e in examples])
    return (
        logps[: len(examples)],
        logps[len(examples) :] if dpo_weight else reference_rejected_logps,
        tensor([e.reference_chosen_logps for e in examples]),
        reference_rejected_logps,
        tensor([nll_length or len(response) for _, response in chosen]),
    )
