"""Other ways to spend as many samples, for notebook 08: rejection sampling, other preference losses, GRPO.

Each is an arm like those of `arms`: it starts from M_0, stands in `RUN/arms/NAME/`, and is evaluated in the same way
(`arms.evaluate_trained`). Installed with the project as `irpo_beyond`.
"""

import os
from collections.abc import Iterable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from irpo_lib.arms import arm_folder
from irpo_lib.config import Config, derive_seed
from irpo_lib.generation import to_text
from irpo_lib.iteration import Experiment
from irpo_lib.models.load import encode_prompt, end_token_id, load_model, load_tokenizer, model_hash
from irpo_lib.pairs import scored_pairs
from irpo_lib.records import Completion, PreferencePair, Problem
from irpo_lib.stages import boxes
from irpo_lib.stages.parquet import stream
from irpo_lib.stages.store import hash_json, replace_file, run_stage, stage_hash, write_records
from irpo_lib.tasks import Task
from irpo_lib.terminal.errors import UserError

#: A forward pass over a response costs 1, a backward pass 2: a pair's two responses are trained on (3 each), and the
#: reference has scored both; SFT trains on one response and has no reference.
PAIR_COST, SFT_COST = 2 * 3 + 2, 3


# --- rejection-sampling fine-tuning (Yuan et al., 2023) ---


def distinct_right(completions: Iterable[Completion]) -> list[PreferencePair]:
    """Each different right response that ended by itself, once a problem, with nothing rejected."""
    kept: dict[tuple[str, tuple[int, ...]], Completion] = {}
    for c in completions:
        if c.reward == 1 and c.finish_reason == "stop":
            kept.setdefault((c.problem_id, tuple(c.token_ids)), c)
    return [PreferencePair(c.problem_id, 0, c.prompt_ids, c.token_ids, [], "model") for c in kept.values()]


def rejection_sampling(main: Experiment) -> Path:
    """SFT on the different right samples, for as much compute as an iteration of DPO+NLL takes."""
    folder, rewarded = arm_folder(main, "rejection-sampling"), main.reward(1)

    def make(folder: Path) -> dict[str, Any]:
        pairs = distinct_right(stream(rewarded / "completions.parquet", Completion))
        write_records(folder / "pairs.parquet", pairs)
        return {"pairs": len(pairs)}

    pairs = run_stage(folder / "pairs", {}, {"reward": stage_hash(rewarded)}, make)
    steps = main.config.max_steps * PAIR_COST // SFT_COST
    config = replace(main.config, dpo_weight=0.0, alpha=1.0)
    reference = boxes.reference_stage(folder / "reference", config, main.launch, pairs, main.model(0))
    training = boxes.Training(pairs, reference, main.model(0), iteration=1)
    return boxes.train_stage(folder / "train", config, main.launch, training, steps, main.pair(1), main.gold)


# --- other preference losses on the same pairs ---


def preference_loss(main: Experiment, loss: str) -> Path:
    """TRL's `DPOTrainer` with another loss ("ipo", "apo_zero", …) on the pairs, steps and reference of iteration 1.

    Raises:
        UserError: the config asks for more than one process.
    """
    config, pairs, reference = _in_one_process(main.config), main.pair(1), main.reference(1)
    settings = config.only(*boxes.TRAINING, "max_steps") | {"loss": loss}
    inputs = {"model": model_hash(main.model(0)), "pairs": stage_hash(pairs), "reference": stage_hash(reference)}

    def work(folder: Path) -> dict[str, Any]:
        from irpo_lib.engines.trl import Trainer

        model, tokenizer = load_model(main.model(0), config.dtype), load_tokenizer(main.model(0))
        scored, seed = scored_pairs(pairs, reference), derive_seed(config.seed, "train", 1)
        followed = boxes.followed_pairs(config, pairs, main.gold)
        trainer = Trainer(model, tokenizer, scored, config, config.max_steps, seed, folder, followed=followed,
                          losses={loss: 1.0})  # fmt: skip
        return trainer.fit()

    return run_stage(arm_folder(main, loss) / "train", settings, inputs, work)


# --- GRPO (Shao et al., 2024) ---


def grpo(main: Experiment) -> Path:
    """M_0 trained by TRL's `GRPOTrainer` on as many samples as iteration 1 draws, each drawn by the newest model.

    A step takes `batch_size` problems with N samples each; beside `model`, `log.csv` has the mean reward of each step.
    A training that is killed begins anew.

    Raises:
        UserError: the config asks for more than one process, or there are fewer problems than a batch takes.
    """
    config, problems = _in_one_process(main.config), main.train_problems()
    if len(problems) < config.batch_size:
        raise UserError(f"GRPO takes batch_size={config.batch_size} problems a step, and there are {len(problems)}")
    settings = config.only("seed", "dtype", "samples", "temperatures", "top_p", "max_new_tokens", "batch_size",
                           "micro_batch_size", "warmup_steps", "task", "learning_rate",
                           "learning_rate_schedule")  # fmt: skip
    inputs = {"model": model_hash(main.model(0)), "problems": hash_json([asdict(p) for p in problems])}

    def work(folder: Path) -> dict[str, Any]:
        from irpo_lib.models.checkpoints import write_model
        from irpo_lib.models.parallel import Ranks

        trainer = grpo_trainer(main.model(0), problems, main.task, config, folder)
        trainer.train()
        write_model(trainer.model, trainer.processing_class, folder / "model", config, Ranks(config.parallel))
        log = pd.DataFrame([row for row in trainer.state.log_history if "reward" in row])
        replace_file(folder / "log.csv", partial(log[["step", "reward", "loss", "grad_norm"]].to_csv, index=False))
        return {"steps": len(log), "samples": len(log) * config.batch_size * config.samples}

    return run_stage(arm_folder(main, "grpo") / "train", settings, inputs, work)


def grpo_trainer(model: str, problems: list[Problem], task: Task, config: Config, folder: Path) -> Any:
    """`GRPOTrainer` with this project's reward and, for its samples, this project's sampler."""
    from datasets import Dataset
    from transformers import PrinterCallback
    from trl import GRPOConfig, GRPOTrainer

    from irpo_lib.engines.transformers import generate
    from irpo_lib.engines.trl import Follow, trainer_settings
    from irpo_lib.models.parallel import Ranks
    from irpo_lib.probe import LogProbe

    tokenizer, by_id = load_tokenizer(model), {p.id: p for p in problems}
    end, steps = end_token_id(tokenizer), len(problems) // config.batch_size

    def rewards(completion_ids, problem_id, **_) -> list[float | None]:
        texts = [to_text(tokenizer, ids) for ids in completion_ids]
        asked = [by_id[i] for i in problem_id]
        return [task.score(t, p) for t, p in zip(texts, asked, strict=True)]

    def sample(prompts, trainer) -> dict[str, Any]:
        encoded = [encode_prompt(tokenizer, p) for p in prompts[:: config.samples]]
        seed = derive_seed(config.seed, "grpo", trainer.state.global_step)
        drawn = dict(generate(trainer.model, encoded, config.samples, config.temperatures[0], config.top_p,
                              config.max_new_tokens, seed, end=end))  # fmt: skip
        responses = [s.token_ids for i in range(len(encoded)) for s in drawn[i]]
        repeated = [ids for ids in encoded for _ in range(config.samples)]
        return {"prompt_ids": repeated, "completion_ids": responses, "logprobs": None}

    sequences = config.batch_size * config.samples
    arguments = GRPOConfig(
        **trainer_settings(config, steps, config.seed, folder / "unused")
        | {"save_strategy": "no", "per_device_train_batch_size": config.micro_batch_size,
           "gradient_accumulation_steps": sequences // config.micro_batch_size},
        num_generations=config.samples,
        max_completion_length=config.max_new_tokens,
        temperature=config.temperatures[0],
    )  # fmt: skip
    rows = [{"prompt": task.prompt(p), "problem_id": p.id} for p in problems]
    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")  # it warns that `rollout_func` may change; trl is pinned
    follow = Follow(LogProbe([], config, folder, Ranks(config.parallel)), every=0)
    trainer = GRPOTrainer(
        model=load_model(model, config.dtype), reward_funcs=rewards, args=arguments, processing_class=tokenizer,
        train_dataset=Dataset.from_list(rows), rollout_func=sample, callbacks=[follow],
    )  # fmt: skip
    trainer.remove_callback(PrinterCallback)
    return trainer


def _in_one_process(config: Config) -> Config:
    if config.parallel.processes > 1:
        raise UserError(f"TRL trains in one process here, not in {config.parallel.processes}: set parallel={{}}")
    return config
