"""M_θ ← M_t, then Equation 1 on D_pairs gives M_{t+1} (§ 2). One trainer for DPO+NLL, DPO and SFT.

Engine `irpo` is `transformers.Trainer` with Equation 1 as its loss. The mean is over the pairs of the *global* batch,
so micro-batch size, padding and gradient accumulation change neither value nor gradient.
"""

import csv
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import SequentialSampler
from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from irpo_lib.checkpoints import MarkComplete, newest_complete_checkpoint, write_model
from irpo_lib.config import Config
from irpo_lib.errors import UserError
from irpo_lib.logprobs import Batch, make_batch, sequence_logps
from irpo_lib.loss import PairLosses, irpo_loss
from irpo_lib.probe import LogProbe, ProbeItem, write_probe_tables
from irpo_lib.progress import Progress
from irpo_lib.records import PreferencePair
from irpo_lib.store import full_disk_named, remove, replace_file
from irpo_lib.weights import add_adapters, computing, merged

#: How far margins at step 0 may be from 0, in nats: the reference was scored in other batches.
MARGIN_TOLERANCE = {"float32": 1e-2, "bfloat16": 2.0, "float16": 0.5}


@dataclass(frozen=True)
class ScoredPair:
    """A preference pair with its reference log-probs, log M_t(c^w, y^w | x) and log M_t(c^l, y^l | x)."""

    pair: PreferencePair
    reference_chosen_logps: float
    reference_rejected_logps: float


def training_order(n_pairs: int, n_wanted: int, seed: int) -> list[int]:
    """Indices of the pairs in the order in which they are trained on: shuffled anew for each pass."""
    if n_pairs < 1:
        raise UserError("there is no preference pair to train on: no problem has both a winner and a loser")
    rng = random.Random(seed)
    order: list[int] = []
    while len(order) < n_wanted:
        order += rng.sample(range(n_pairs), n_pairs)
    return order[:n_wanted]


def collate(examples: Sequence[ScoredPair]) -> dict[str, torch.Tensor]:
    """B pairs → the batch of one forward pass: chosen in rows 0 … B-1, rejected in rows B … 2B-1."""
    chosen = [(e.pair.prompt_ids, e.pair.chosen_ids) for e in examples]
    rejected = [(e.pair.prompt_ids, e.pair.rejected_ids) for e in examples]
    batch = make_batch(chosen + rejected)
    return {
        "input_ids": batch.input_ids,
        "response_mask": batch.response_mask,
        "reference_chosen_logps": torch.tensor([e.reference_chosen_logps for e in examples]),
        "reference_rejected_logps": torch.tensor([e.reference_rejected_logps for e in examples]),
    }


def pair_losses(
    model: torch.nn.Module, inputs: dict[str, torch.Tensor], beta: float, alpha: float, dpo_weight: float,
    nll_length: float | None = None,
) -> PairLosses:  # fmt: skip
    """Equation 1 for each pair of a collated batch; without a DPO term the rejected responses are not scored.

    `nll_length` divides the NLL term in place of each response's own length.
    """
    b = len(inputs["reference_chosen_logps"])
    rows = slice(None) if dpo_weight else slice(0, b)
    batch = Batch(inputs["input_ids"][rows], inputs["response_mask"][rows])
    logps = sequence_logps(model, batch)  # type: ignore[arg-type]
    chosen, rejected = (logps[:b], logps[b:]) if dpo_weight else (logps, inputs["reference_rejected_logps"])
    return irpo_loss(
        chosen,
        rejected,
        inputs["reference_chosen_logps"],
        inputs["reference_rejected_logps"],
        batch.lengths[:b] if nll_length is None else torch.full_like(chosen, nll_length),
        beta,
        alpha,
        dpo_weight,
    )


class IRPOTrainer(Trainer):
    """`transformers.Trainer` with Equation 1; the dataset's order is the training order."""

    def __init__(self, *args, beta: float, alpha: float, dpo_weight: float, nll_mean: str = "sequence", **kwargs):
        super().__init__(*args, **kwargs)
        self.weights = (beta, alpha, dpo_weight)
        self.nll_mean = nll_mean
        self.nll_length = 1.0 if nll_mean == "sum" else None
        self.loss_is_scaled_for_ga = True
        self.sums: dict[str, float] = {}

    def _get_train_sampler(self, train_dataset=None):
        return SequentialSampler(self.train_dataset)  # type: ignore[arg-type]

    def get_batch_samples(self, epoch_iterator, num_batches, device):
        """Counts the pairs of the global batch, where Trainer would count label tokens."""
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        rows = [len(b["reference_chosen_logps"]) for b in batches]
        pairs = self.accelerator.gather(torch.tensor(sum(rows), device=device)).sum()
        if self.nll_mean == "batch":
            tokens = sum(int(b["response_mask"][:n].sum()) for b, n in zip(batches, rows, strict=True))
            self.nll_length = (self.accelerator.gather(torch.tensor(tokens, device=device)).sum() / pairs).item()
        return batches, pairs

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        losses = pair_losses(model, inputs, *self.weights, self.nll_length)
        self._count(losses)
        # DDP and FSDP average gradients over the ranks; Equation 1's batch is all of them.
        loss = losses.loss.sum() / num_items_in_batch * self.accelerator.num_processes
        return (loss, losses) if return_outputs else loss

    def _count(self, losses: PairLosses) -> None:
        """Adds a micro-batch to what the next line of the log is the mean of."""
        values = {"nll": losses.nll, "chosen_rewards": losses.chosen_rewards, "pairs": torch.ones_like(losses.loss)}
        if self.weights[2]:  # without a DPO term the rejected responses were not scored
            values |= {
                "dpo": losses.dpo,
                "rejected_rewards": losses.rejected_rewards,
                "margins": losses.margins,
                "accuracies": (losses.margins > 0).float(),
            }
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, 0.0) + value.detach().sum().item()

    def log(self, logs: dict[str, float], *args, **kwargs) -> None:
        pairs = self.sums.pop("pairs", 0)
        if pairs:
            logs |= {name: value / pairs for name, value in self.sums.items()}
        self.sums = {}
        super().log(logs, *args, **kwargs)


class ShowProgress(TrainerCallback):
    """One bar or a line now and then, in place of Trainer's line for each step."""

    def on_train_begin(self, args, state, control, **kwargs):
        self.progress = Progress(state.max_steps, "train", "steps")
        self.progress.skip(state.global_step)

    def on_step_end(self, args, state, control, **kwargs):
        self.progress.add(1)

    def on_train_end(self, args, state, control, **kwargs):
        self.progress.close()


def check_step_zero(model: PreTrainedModel, examples: Sequence[ScoredPair], config: Config) -> None:
    """The policy starts as the reference: margins are 0 and the DPO term is ln 2 before the first step.

    Raises:
        UserError: they are not, so reference log-probs and model do not belong together.
    """
    inputs = {k: v.to(model.device) for k, v in collate(examples).items()}
    with torch.inference_mode(), computing(config, model.device):
        losses = pair_losses(model, inputs, config.beta, config.alpha, config.dpo_weight)
    margin = losses.margins.abs().max().item() / config.beta
    if config.dpo_weight and not margin <= MARGIN_TOLERANCE[config.dtype]:
        raise UserError(
            f"before the first training step the margin is {margin:.4g} nats instead of 0 (DPO term "
            f"{losses.dpo.mean().item():.4f} instead of ln 2 = {math.log(2):.4f}): the reference log-probs were not "
            f"made with this model; delete the 'reference' stage and run again"
        )


def irpo_trainer(model, tokenizer, dataset: list[ScoredPair], config: Config, settings: dict[str, Any]) -> Trainer:
    """Engine `irpo`."""
    return IRPOTrainer(
        model=model,
        args=TrainingArguments(**settings),
        data_collator=collate,
        train_dataset=dataset,
        beta=config.beta,
        alpha=config.alpha,
        dpo_weight=config.dpo_weight,
        nll_mean=config.nll_mean,
    )


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
    make_trainer: Callable[..., Trainer] = irpo_trainer,
) -> dict[str, Any]:
    """Trains a model in place and writes `folder/model` and `folder/log.csv`; goes on where a killed run stopped.

    `make_trainer` is what the engines differ in; the pairs, their order and the settings are the same for all.
    `followed` are responses whose log-probs are looked at on the way (`probe`).

    Returns:
        The counts of the stage: pairs, steps, last loss.
    """
    order = training_order(len(pairs), steps * config.batch_size, seed)
    dataset = [pairs[i] for i in order]
    checkpoints = folder / "checkpoints"
    last = newest_complete_checkpoint(checkpoints)
    model.config.use_cache = False
    model = add_adapters(model, config)
    if last is None and config.reference_model == "previous":
        check_step_zero(model, dataset[: config.micro_batch_size], config)
    settings = arguments(config, steps, seed, checkpoints, keep_checkpoints)
    trainer = make_trainer(model, tokenizer, dataset, config, settings)
    trainer.add_callback(MarkComplete())
    trainer.add_callback(ShowProgress())
    if followed:
        trainer.add_callback(LogProbe(followed, config, folder))
    trainer.remove_callback(PrinterCallback)
    with full_disk_named(folder):
        trainer.train(resume_from_checkpoint=str(last) if last else None)
        model = merged(model, config.dtype)
        model.config.use_cache = True
        write_model(model, tokenizer, folder / "model")
    log = [row for row in trainer.state.log_history if "loss" in row]
    write_log(folder / "log.csv", log)
    if followed:
        write_probe_tables(folder, config.beta)
    if not keep_checkpoints:
        remove(checkpoints)
    return {"pairs": len(pairs), "steps": steps, "loss": round(log[-1]["loss"], 4)}


def arguments(config: Config, steps: int, seed: int, output: Path, keep_checkpoints: bool) -> dict[str, Any]:
    """§ 3.1: AdamW, a constant learning rate after a short warm-up, batches of `batch_size` pairs."""
    return {
        "output_dir": str(output),
        "max_steps": steps,
        "per_device_train_batch_size": config.micro_batch_size,
        "gradient_accumulation_steps": config.batch_size // config.micro_batch_size,
        "learning_rate": config.learning_rate,
        "lr_scheduler_type": "constant_with_warmup",
        "warmup_steps": config.warmup_steps,
        "weight_decay": 0.0,
        "max_grad_norm": 1.0,
        "save_steps": config.checkpoint_every,
        "save_total_limit": None if keep_checkpoints else 2,
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
        "logging_strategy": "steps",
        "log_level": "error",
    }


def write_log(path: Path, rows: list[dict[str, float]]) -> None:
    """The training log: a line a step."""
    names = ["step", "loss", "dpo", "nll", "chosen_rewards", "rejected_rewards", "margins", "accuracies",
             "grad_norm", "learning_rate"]  # fmt: skip

    def write(temporary: Path) -> None:
        with temporary.open("w", newline="", encoding="utf8") as file:
            writer = csv.DictWriter(file, names, extrasaction="ignore")
            writer.writeheader()
            writer.writerows(rows)

    replace_file(path, write)
