"""M_θ ← M_t, then Equation 1 on D_pairs gives M_{t+1} (§ 2). One trainer for DPO+NLL, DPO and SFT.

The same short loop trains in one process and in any layout of `parallel`. The mean is over the pairs of the *global*
batch, so that micro-batch size, padding, gradient accumulation and the number of processes change neither value nor
gradient.
"""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from irpo_lib.config import Config, Parallel, derive_seed
from irpo_lib.loss import irpo_loss, pair_logps
from irpo_lib.models import checkpoints
from irpo_lib.models.load import load_tokenizer
from irpo_lib.models.parallel import (
    Ranks,
    by_kind,
    check_layout,
    clip_gradients,
    join,
    let_go,
    sum_gradients,
    sum_over_data_ranks,
)
from irpo_lib.models.weights import add_adapters, computing, load_for_training, prepared
from irpo_lib.pairs import ScoredPair, scored_pairs
from irpo_lib.probe import LogProbe, ProbeItem, write_probe_tables
from irpo_lib.stages.store import remove, sole_writer, write_json
from irpo_lib.terminal.errors import UserError
from irpo_lib.terminal.progress import Progress, quiet

#: How far a margin at step 0 may be from 0, in nats over the root of a pair's response tokens: the reference was scored
#: in other batches, and each token's rounding adds to the sum. In bfloat16 0.13 is the most that was seen.
MARGIN_TOLERANCE = {"float32": 1e-3, "bfloat16": 0.25, "float16": 0.05}
#: § 3.1 does not say; the length above which a gradient is scaled down.
MAX_GRADIENT = 1.0
#: Where no other process takes part.
ONE_PROCESS = Ranks(Parallel())


def train(
    config: Config, folder: Path, pairs: Path, reference: Path, model: str, iteration: int, steps: int,
    followed: Sequence[dict[str, Any]] = (), without: Sequence[str] = (), keep_checkpoints: bool = False,
) -> None:  # fmt: skip
    """The next model, `folder/model`, and what was logged; counts go to `folder/counts.json`."""
    ranks = join(config)
    trainer = Trainer if config.training_engine == "irpo" else import_module("irpo_lib.engines.trl").Trainer
    with sole_writer(folder, ranks.is_main), quiet(not ranks.is_main):
        loaded = load_for_training(model, config)
        check_layout(loaded, ranks)
        counts = trainer(
            loaded, load_tokenizer(model), scored_pairs(pairs, reference, without), config, steps,
            derive_seed(config.seed, "train", iteration), folder, keep_checkpoints,
            [ProbeItem(**item) for item in followed], ranks,
        ).fit()  # fmt: skip
        if ranks.is_main:
            write_json(folder / "counts.json", counts)


def training_order(n_pairs: int, n_wanted: int, seed: int) -> list[int]:
    """Indices of the pairs in the order in which they are trained on: shuffled anew for each pass."""
    if n_pairs < 1:
        raise UserError("there is no preference pair to train on: no problem has both a winner and a loser")
    rng = random.Random(seed)
    order: list[int] = []
    while len(order) < n_wanted:
        order += rng.sample(range(n_pairs), n_pairs)
    return order[:n_wanted]


def learning_rate(config: Config, step: int, steps: int) -> float:
    """The rate of a step, counted from 0, of a training of `steps`: a warm-up from 0, then the schedule."""
    if step < config.warmup_steps:
        return config.learning_rate * step / config.warmup_steps
    done = (step - config.warmup_steps) / max(1, steps - config.warmup_steps)
    falling = {"constant": 1.0, "linear": 1 - done, "cosine": 0.5 + 0.5 * math.cos(math.pi * done)}
    return config.learning_rate * falling[config.learning_rate_schedule]


class Loop:
    """A model, its optimiser, and what has been logged of their steps; `steps` is how many there will be."""

    def __init__(self, model: PreTrainedModel, config: Config, ranks: Ranks, steps: int | None = None):
        self.model, self.config, self.ranks = model, config, ranks
        self.steps = steps or config.max_steps
        let_go(model)  # the optimiser takes a model's pieces, which a forward pass before this may have put together
        self.trained = [p for p in model.parameters() if p.requires_grad]
        groups = [{"params": some} for some in by_kind(self.trained)]
        self.optimizer = torch.optim.AdamW(groups, lr=config.learning_rate, weight_decay=0.0, fused=True)
        self.scaler = torch.amp.GradScaler(model.device.type, enabled=config.dtype == "float16")
        self.log: list[dict[str, float]] = []

    def step(self, batch: Sequence[ScoredPair]) -> dict[str, float]:
        """One update by Equation 1's mean over a global batch; returns its line of the log.

        Raises:
            UserError: the loss is no finite number; the weights are as before.
        """
        c, sums = self.config, dict.fromkeys(_logged(self.config), 0.0)
        # Pairs that share a beginning, or whose lengths are alike, together: no sum depends on their order.
        mine = sorted(self.ranks.share(batch), key=lambda e: (e.pair.prompt_ids, len(e.pair.chosen_ids)))
        length = _nll_length(batch, c.nll_mean)
        for start in range(0, len(mine), c.micro_batch_size):
            some = mine[start : start + c.micro_batch_size]
            with computing(c, self.model.device):
                logps = pair_logps(self.model, some, c.dpo_weight, length)
                losses = irpo_loss(*logps, c.beta, c.alpha, c.dpo_weight)
            self.scaler.scale(losses.loss.sum() / len(batch)).backward()
            for name in sums:
                value = (losses.margins > 0).float() if name == "accuracies" else getattr(losses, name)
                sums[name] += value.detach().sum().item()
        values = {name: value / len(batch) for name, value in sum_over_data_ranks(sums, self.ranks).items()}
        if not math.isfinite(values["loss"]):
            ids = ", ".join(dict.fromkeys(s.pair.problem_id for s in batch))
            raise UserError(
                f"step {len(self.log) + 1}: the loss is {values['loss']}, with pairs of the problems {ids}. The last "
                f"checkpoint is kept; a lower learning_rate or another dtype may help"
            )
        self.log.append({"step": len(self.log) + 1, **values, **self._update()})
        return self.log[-1]

    def _update(self) -> dict[str, float]:
        """The optimiser's step by the gradient that there is, which is gone afterwards."""
        rate = learning_rate(self.config, len(self.log), self.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.scaler.unscale_(self.optimizer)
        sum_gradients(self.trained, self.ranks)
        norm = clip_gradients(self.trained, MAX_GRADIENT, self.ranks)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()
        return {"grad_norm": norm, "learning_rate": rate}


def _logged(config: Config) -> list[str]:
    """Without a DPO term the rejected responses are not scored."""
    names = ["loss", "nll", "chosen_rewards"]
    return names + ["dpo", "rejected_rewards", "margins", "accuracies"] if config.dpo_weight else names


def _nll_length(batch: Sequence[ScoredPair], nll_mean: str) -> float | None:
    """What each NLL is divided by: None for its own length (Equation 1), else the same for all of the global batch."""
    if nll_mean == "sequence":
        return None
    return 1.0 if nll_mean == "sum" else sum(len(s.pair.chosen_ids) for s in batch) / len(batch)


def check_step_zero(model: PreTrainedModel, examples: Sequence[ScoredPair], config: Config) -> None:
    """The policy starts as the reference: margins are 0 and the DPO term is ln 2 before the first step.

    Raises:
        UserError: they are not, so reference log-probs and model do not belong together.
    """
    with torch.no_grad(), computing(config, model.device):
        logps = pair_logps(model, examples, config.dpo_weight)
        losses = irpo_loss(*logps, config.beta, config.alpha, config.dpo_weight)
    lengths = [len(e.pair.chosen_ids) + len(e.pair.rejected_ids) for e in examples]
    a_root = (losses.margins.abs() / config.beta).cpu() / torch.tensor(lengths).sqrt()
    worst = int(a_root.argmax())
    if config.dpo_weight and not a_root[worst] <= MARGIN_TOLERANCE[config.dtype]:
        margin = a_root[worst].item() * lengths[worst] ** 0.5
        raise UserError(
            f"before the first training step the margin is {margin:.4g} nats instead of 0 (DPO term "
            f"{losses.dpo.mean().item():.4f} instead of ln 2 = {math.log(2):.4f}): the reference log-probs were not "
            f"made with this model; delete the 'reference' stage and run again"
        )


@dataclass
class Trainer:
    """Trains a model in place and writes `folder/model` and `folder/log.csv`; goes on where a killed run stopped.

    Every process of the layout has the same one. `keep_checkpoints` keeps all of them, and writes the model of each as
    `folder/model-STEP`. `followed` are responses whose log-probs are looked at on the way.
    """

    model: Any
    tokenizer: PreTrainedTokenizerBase
    pairs: Sequence[ScoredPair]
    config: Config
    steps: int
    seed: int
    folder: Path
    keep_checkpoints: bool = False
    followed: Sequence[ProbeItem] = ()
    ranks: Ranks = ONE_PROCESS

    def fit(self) -> dict[str, Any]:
        """Returns the counts of the stage: pairs, steps, last loss."""
        c, ranks, (order, probe) = self.config, self.ranks, self.begin()
        loop = Loop(self.model.train(), c, ranks, self.steps)
        loop.log = checkpoints.resume(self.made, self.model, loop.optimizer, ranks)
        with Progress(self.steps, "train", "steps") as progress:
            progress.skip(len(loop.log))
            for done in range(len(loop.log), self.steps):
                torch.manual_seed(self.seed + done)  # a model with dropout goes on after a kill as without one
                loop.step([self.pairs[i] for i in order[done * c.batch_size : (done + 1) * c.batch_size]])
                step, last = done + 1, done + 1 == self.steps
                if last or (c.probe_every and step % c.probe_every == 0):
                    probe.look(self.model, step)
                # What the last step made is written at once as the model.
                if self.keep_checkpoints if last else step % c.checkpoint_every == 0:
                    checkpoints.save(self.made, self.model, loop.optimizer, loop.log, ranks, keep=self.keep_checkpoints)
                    if self.keep_checkpoints:
                        self.write(f"model-{step}")
                progress.add(1)
        return self.end(loop.log)

    @property
    def made(self) -> Path:
        """Where checkpoints are."""
        return self.folder / "checkpoints"

    def begin(self) -> tuple[list[int], LogProbe]:
        """The order of the pairs, and what looks at log-probs; the model is made ready, and looked at if it is new."""
        c = self.config
        order = training_order(len(self.pairs), self.steps * c.batch_size, self.seed)
        torch.manual_seed(self.seed)
        self.model = add_adapters(prepared(self.model, c), c)
        probe = LogProbe(self.followed, c, self.folder, self.ranks)
        if checkpoints.newest_complete_checkpoint(self.made) is None:
            if c.reference_model == "previous":
                check_step_zero(self.model.eval(), [self.pairs[i] for i in order[: c.micro_batch_size]], c)
            probe.look(self.model, 0)
        return order, probe

    def end(self, log: list[dict[str, float]]) -> dict[str, Any]:
        """Writes the model and what was logged; returns the counts."""
        self.write("model")
        if self.ranks.is_main:
            checkpoints.write_log(self.folder / "log.csv", log)
            if self.followed:
                write_probe_tables(self.folder, self.config.beta)
            if not self.keep_checkpoints:
                remove(self.made)
        counts = {"pairs": len(self.pairs), "steps": self.steps, "loss": round(log[-1]["loss"], 4)}
        return counts | {"attention": self.model.config._attn_implementation}

    def write(self, name: str) -> None:
        """The model as it is now, as `folder/name`."""
        checkpoints.write_model(self.model, self.tokenizer, self.folder / name, self.config, self.ranks)
