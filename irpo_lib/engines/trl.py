"""The second training engine: stock `trl.DPOTrainer` on the same pairs, in the same order, from the same reference.

Its loss ["sigmoid", "sft"] is Equation 1 with another mean: TRL's NLL term is the mean over all chosen *tokens* of a
micro-batch, Equation 1's the mean over sequences of each one's mean. The two are equal at `micro_batch_size: 1` and
only there. TRL does not log the two terms apart: `dpo` and `nll` stay empty in the log.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase, PrinterCallback, TrainerCallback
from trl import DPOConfig, DPOTrainer

from irpo_lib.config import Config
from irpo_lib.models.checkpoints import newest_complete_checkpoint, write_log, write_model
from irpo_lib.models.parallel import Ranks
from irpo_lib.models.weights import add_adapters
from irpo_lib.pairs import ScoredPair
from irpo_lib.probe import LogProbe, ProbeItem, write_probe_tables
from irpo_lib.stages.store import COMPLETE, full_disk_named, remove, write_json
from irpo_lib.terminal.progress import Progress
from irpo_lib.training import MAX_GRADIENT, check_step_zero, training_order

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

    def log(self, *args, **kwargs) -> None:
        super().log(*args, **kwargs)
        row = self.state.log_history[-1]
        row |= {ours: row[theirs] for theirs, ours in LOG_NAMES.items() if theirs in row}


class Follow(TrainerCallback):
    """Progress, the looks at log-probs, and the mark of a checkpoint that is there whole; `write` keeps its model."""

    def __init__(self, probe: LogProbe, every: int, write: Callable[[Any, str], None] | None = None):
        self.probe, self.every, self.write = probe, every, write

    def on_train_begin(self, args, state, control, model=None, **kwargs):
        self.progress = Progress(state.max_steps, "train", "steps")
        self.progress.skip(state.global_step)
        if state.global_step == 0:
            self.probe.look(model, 0)

    def on_step_end(self, args, state, control, model=None, **kwargs):
        self.progress.add(1)
        if state.global_step == state.max_steps or (self.every and state.global_step % self.every == 0):
            self.probe.look(model, state.global_step)

    def on_save(self, args, state, control, model=None, **kwargs):
        write_json(Path(args.output_dir) / f"checkpoint-{state.global_step}" / COMPLETE, state.log_history)
        if self.write:
            self.write(model, f"model-{state.global_step}")

    def on_train_end(self, args, state, control, **kwargs):
        self.progress.close()


def fit(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    pairs: Sequence[ScoredPair],
    config: Config,
    steps: int,
    seed: int,
    folder: Path,
    keep_checkpoints: bool = False,
    followed: Sequence[ProbeItem] = (),
    ranks: Ranks | None = None,
    losses: Mapping[str, float] | None = None,
) -> dict[str, Any]:
    """As `training.fit`, with TRL's trainer and TRL's loss, in one process; `losses` as in `dpo_trainer`."""
    ranks = ranks or Ranks(config.parallel)
    order = training_order(len(pairs), steps * config.batch_size, seed)
    dataset = [pairs[i] for i in order]
    made = folder / "checkpoints"
    last = newest_complete_checkpoint(made)
    model.config.use_cache = False
    torch.manual_seed(seed)
    model = add_adapters(model, config)
    if last is None and config.reference_model == "previous":
        check_step_zero(model, dataset[: config.micro_batch_size], config)
    trainer = dpo_trainer(model, tokenizer, dataset, config, trainer_settings(config, steps, seed, made), losses)

    def write(some: Any, name: str) -> None:
        write_model(some, tokenizer, folder / name, config, ranks)

    probe = LogProbe(followed, config, folder, ranks)
    trainer.add_callback(Follow(probe, config.probe_every, write if keep_checkpoints else None))
    trainer.remove_callback(PrinterCallback)
    with full_disk_named(folder):
        trainer.train(resume_from_checkpoint=str(last) if last else None)
        write(model, "model")
    log = [row for row in trainer.state.log_history if "loss" in row]
    write_log(folder / "log.csv", log)
    if followed:
        write_probe_tables(folder, config.beta)
    if not keep_checkpoints:
        remove(made)
    return {"pairs": len(pairs), "steps": steps, "loss": round(log[-1]["loss"], 4)}


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
        "max_grad_norm": MAX_GRADIENT,
        "save_steps": config.checkpoint_every,
        "logging_steps": 1,
        "seed": seed,
        "use_cpu": not torch.cuda.is_available(),
        "bf16": config.dtype == "bfloat16",
        "fp16": config.dtype == "float16",
        "gradient_checkpointing": config.gradient_checkpointing,
        "gradient_checkpointing_kwargs": {"use_reentrant": False},
        "remove_unused_columns": False,
        "report_to": [],
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
