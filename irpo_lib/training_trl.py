"""The second training engine: stock `trl.DPOTrainer` on the same pairs, in the same order, from the same reference.

Its loss ["sigmoid", "sft"] is Equation 1 with another mean: TRL's NLL term is the mean over all chosen *tokens* of a
micro-batch, Equation 1's the mean over sequences of each one's mean. The two are equal at `micro_batch_size: 1` and
only there. TRL does not log the two terms apart: `dpo` and `nll` stay empty in the log.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase, Trainer
from trl import DPOConfig, DPOTrainer

from irpo_lib import training
from irpo_lib.config import Config
from irpo_lib.probe import ProbeItem
from irpo_lib.training import ScoredPair

#: TRL's names of what this project's log has too.
LOG_NAMES = {
    "rewards/chosen": "chosen_rewards",
    "rewards/rejected": "rejected_rewards",
    "rewards/margins": "margins",
    "rewards/accuracies": "accuracies",
}


class TokenDPOTrainer(DPOTrainer):
    """`DPOTrainer` on token ids and reference log-probs that are there already: it neither tokenises nor scores."""

    def _prepare_dataset(self, dataset, *args):
        return dataset

    def _precompute_ref_logps(self, dataset, *args):
        return dataset

    def log(self, *args, **kwargs) -> None:
        super().log(*args, **kwargs)
        row = self.state.log_history[-1]
        row |= {ours: row[theirs] for theirs, ours in LOG_NAMES.items() if theirs in row}


def train(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    pairs: Sequence[ScoredPair],
    config: Config,
    steps: int,
    seed: int,
    folder: Path,
    keep_checkpoints: bool = False,
    followed: Sequence[ProbeItem] = (),
) -> dict[str, Any]:
    """As `training.train`, with TRL's trainer and TRL's loss."""
    return training.train(model, tokenizer, pairs, config, steps, seed, folder, keep_checkpoints, followed, trl_trainer)


def trl_trainer(model, tokenizer, dataset: list[ScoredPair], config: Config, settings: dict[str, Any]) -> Trainer:
    """Engine `trl`: a term of weight 0 is left out, so that alpha=0 is DPO and dpo_weight=0 is SFT."""
    weights = {"sigmoid": config.dpo_weight, "sft": config.alpha}
    terms = {name: weight for name, weight in weights.items() if weight}
    arguments = DPOConfig(
        **settings,
        loss_type=list(terms),
        loss_weights=list(terms.values()),
        beta=config.beta,
        max_length=None,  # longer pairs were left out when the pairs were made; nothing is cut here
        precompute_ref_log_probs=True,  # the log-probs come with the pairs, and no second model is loaded
        train_sampling_strategy="sequential",
    )
    return TokenDPOTrainer(
        model=model, args=arguments, train_dataset=Dataset.from_list([columns(p) for p in dataset]),
        processing_class=tokenizer,
    )  # fmt: skip


def columns(scored: ScoredPair) -> dict[str, Any]:
    """A pair under the names that TRL's collator reads."""
    return {
        "prompt_ids": scored.pair.prompt_ids,
        "chosen_ids": scored.pair.chosen_ids,
        "rejected_ids": scored.pair.rejected_ids,
        "ref_chosen_logps": scored.reference_chosen_logps,
        "ref_rejected_logps": scored.reference_rejected_logps,
    }
