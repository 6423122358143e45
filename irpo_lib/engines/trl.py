"""The second training engine: stock `trl.DPOTrainer` on the same pairs, in the same order, from the same reference.

Its loss ["sigmoid", "sft"] is Equation 1 with another mean: TRL's NLL term is the mean over all chosen *tokens* of a
micro-batch, Equation 1's the mean over sequences of each one's mean. The two are equal at `micro_batch_size: 1` and
only there. TRL does not log the two terms apart: `dpo` and `nll` stay empty in the log.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import PrinterCallback, TrainerCallback
from trl import DPOConfig, DPOTrainer

from irpo_lib import training
from irpo_lib.config import Config
from irpo_lib.models.checkpoints import newest_complete_checkpoint
from irpo_lib.pairs import ScoredPair
from irpo_lib.probe import LogProbe
from irpo_lib.stages.store import COMPLETE, write_json
from irpo_lib.terminal.progress import Progress

#: Transformers' names of the schedules.
SCHEDULES = {"constant": "constant_with_warmup", "linear": "linear", "cosine": "cosine"}
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

    _precompute_ref_logps = _prepare_dataset


class Follow(TrainerCallback):
    """Progress, the looks at log-probs, and the mark of a checkpoint that is there whole; `write` keeps its model."""

    def __init__(self, probe: LogProbe, every: int, write: Callable[[str], None] | None = None):
        self.probe, self.every, self.write = probe, every, write

    def on_train_begin(self, args, state, control, **kwargs):
        self.progress = Progress(state.max_steps, "train", "steps")
        self.progress.skip(state.global_step)

    def on_step_end(self, args, state, control, model=None, **kwargs):
        self.progress.add(1)
        if state.global_step == state.max_steps or (self.every and state.global_step % self.every == 0):
            self.probe.look(model, state.global_step)

    def on_save(self, args, state, control, **kwargs):
        write_json(Path(args.output_dir) / f"checkpoint-{state.global_step}" / COMPLETE, state.log_history)
        if self.write:
            self.write(f"model-{state.global_step}")

    def on_train_end(self, args, state, control, **kwargs):
        self.progress.close()


@dataclass
class Trainer(training.Trainer):
    """As `training.Trainer`, with TRL's trainer and TRL's loss, in one process; `losses` as in `dpo_trainer`."""

    losses: Mapping[str, float] | None = None

    def fit(self) -> dict[str, Any]:
        c, (order, probe) = self.config, self.begin()
        last, settings = newest_complete_checkpoint(self.made), trainer_settings(c, self.steps, self.seed, self.made)
        trainer = dpo_trainer(self.model, self.tokenizer, [self.pairs[i] for i in order], c, settings, self.losses)
        trainer.add_callback(Follow(probe, c.probe_every, self.write if self.keep_checkpoints else None))
        trainer.remove_callback(PrinterCallback)
        trainer.train(resume_from_checkpoint=str(last) if last else None)
        log = [row for row in trainer.state.log_history if "loss" in row]
        return self.end([{LOG_NAMES.get(name, name): value for name, value in row.items()} for row in log])


def dpo_trainer(
    model: Any, tokenizer: Any, dataset: list[ScoredPair], config: Config, settings: Any,
    losses: Mapping[str, float] | None = None,
) -> DPOTrainer:  # fmt: skip
    """Stock `DPOTrainer`; a term of weight 0 is left out, so that alpha=0 is DPO and dpo_weight=0 is SFT.

    `losses` (a name that TRL knows → its weight) takes the place of Equation 1's two terms.
    """
    weights = losses or {"sigmoid": config.dpo_weight, "sft": config.alpha}
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


def trainer_settings(config: Config, steps: int, seed: int, output: Path) -> dict[str, Any]:
    """§ 3.1 as transformers' Trainer takes it: AdamW, batches of `batch_size` pairs, a warm-up, then the schedule."""
    return {
        "output_dir": str(output),
        "max_steps": steps,
        "per_device_train_batch_size": config.micro_batch_size,
        "gradient_accumulation_steps": config.batch_size // config.micro_batch_size,
        "learning_rate": config.learning_rate,
        "lr_scheduler_type": SCHEDULES[config.learning_rate_schedule],
        "warmup_steps": config.warmup_steps,
        "weight_decay": 0.0,
        "max_grad_norm": training.MAX_GRADIENT,
        "save_steps": config.checkpoint_every,
        "logging_steps": 1,
        "seed": seed,
        "use_cpu": not torch.cuda.is_available(),
        "bf16": config.dtype == "bfloat16",
        "fp16": config.dtype == "float16",
        "gradient_checkpointing": config.gradient_checkpointing,
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
        "log_level": "error",
    }


def columns(scored: ScoredPair) -> dict[str, Any]:
    """A pair under the names that TRL's collator reads."""
    return {
        "prompt_ids": scored.pair.prompt_ids,
        "chosen_ids": scored.pair.chosen_ids,
        "rejected_ids": scored.pair.rejected_ids,
        "ref_chosen_logps": scored.reference_chosen_logps,
        "ref_rejected_logps": scored.reference_rejected_logps,
    }
