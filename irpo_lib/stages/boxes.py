"""The boxes of Figure 1, each a stage: from folders and settings to one folder, which is there whole or not at all.

Which folders are put together to make an iteration, or a row of Tables 1 and 2, stands in `iteration` and `arms`.
Every function returns its stage's folder and does nothing when the stage is there already.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from irpo_lib.config import Config
from irpo_lib.evaluation import greedy_accuracy, majority_accuracy, sampled_accuracy, votes
from irpo_lib.pairs import gold_pairs, kept_pairs
from irpo_lib.records import Completion, PreferencePair, Problem
from irpo_lib.rewards import rewarded
from irpo_lib.stages.parquet import Records, count, lengths, read, stream
from irpo_lib.stages.samples import Launch, answers, by_problem, sample, shards, write_outcomes
from irpo_lib.stages.store import hash_json, read_json, remove, run_stage, stage_hash, write_json, write_records
from irpo_lib.tasks import get_task

#: Gives problem id → the token ids of its gold solution; asked only when they are wanted.
Gold = Callable[[], dict[str, list[int]]]
#: The part of the config that a reference log-prob depends on: LoRA computes with other weights than full fine-tuning.
SCORING = ("dtype", "attention", "lora_rank", "lora_quantized")
#: The part of the config that a training depends on, the number of steps aside.
TRAINING = ("seed", "dtype", "beta", "alpha", "dpo_weight", "nll_mean", "learning_rate", "learning_rate_schedule",
            "warmup_steps", "batch_size", "micro_batch_size", "checkpoint_every", "training_engine", "attention",
            "gradient_checkpointing", "lora_rank", "lora_alpha", "lora_quantized", "probe_every",
            "probe_pairs")  # fmt: skip
#: The part that sampled responses depend on.
SAMPLING = ("task", "seed", "dtype", "top_p", "max_new_tokens", "engine", "generation_rows", "problems_per_shard")


@dataclass(frozen=True)
class Training:
    """What a training is made from: a `pairs` stage, its `reference` stage, and the model that is trained."""

    pairs: Path
    reference: Path
    model: str
    iteration: int


def generate_stage(
    folder: Path, config: Config, launch: Launch, model: str, problems: list[Problem], iteration: int
) -> Path:
    """N samples of the model for each problem."""
    temperature = config.temperatures[iteration - 1]
    settings = config.only(*SAMPLING, "samples") | {"iteration": iteration, "temperature": temperature}
    inputs = _inputs(model, problems)

    def work(folder: Path) -> dict[str, Any]:
        sample(launch, folder, config, problems, model=model, weights=inputs["model"], n=config.samples,
               temperature=temperature, what=f"generate/{iteration}")  # fmt: skip
        tokens = [length for shard in shards(folder) for length in lengths(shard, "token_ids")]
        return {"completions": len(tokens), "new_tokens": sum(tokens)}

    return run_stage(folder, settings, inputs, work)


def reward_stage(folder: Path, config: Config, generated: Path, problems: list[Problem]) -> Path:
    """Each completion's final answer and reward; counted as `right` is the mean reward."""

    def work(folder: Path) -> dict[str, Any]:
        made, task = folder / "completions.parquet", get_task(config.task, config.task_path)
        write_records(made, rewarded(stream(shards(generated), Completion), problems, task))
        table = read(made, columns=["reward", "answer"])
        right = float(table["reward"].to_numpy().mean())
        return {"completions": table.num_rows, "right": round(right, 4), "without_answer": table["answer"].null_count}

    return run_stage(folder, config.only("task"), {"generate": stage_hash(generated)}, work)


def pair_stage(folder: Path, config: Config, sources: Sequence[Path], gold: Gold) -> Path:
    """D_pairs of a `reward` stage's completions; of several, the newest first, each paired for itself (replay)."""

    def work(folder: Path) -> dict[str, Any]:
        gold_ids = gold() if config.gold_in_winners else {}
        kept = [kept_pairs(partial(by_problem, source), gold_ids, config) for source in sources]
        pairs, counts = zip(*kept, strict=True)
        write_records(folder / "pairs.parquet", chain.from_iterable(pairs))
        replayed = {"replayed": sum(counted["pairs"] for counted in counts[1:])} if len(sources) > 1 else {}
        return dict(counts[0]) | replayed

    settings = config.only("pairs_per_problem", "gold_in_winners", "max_length", "max_pairs", "seed")
    inputs = {f"reward{i or ''}": stage_hash(s) for i, s in enumerate(sources)}
    return run_stage(folder, settings, inputs, work)


def gold_pair_stage(folder: Path, config: Config, rewarded: Path, gold: Gold) -> Path:
    """(x, gold solution) of every training problem, for SFT on gold."""

    def work(folder: Path) -> dict[str, Any]:
        completions = stream(rewarded / "completions.parquet", Completion)
        pairs = gold_pairs(completions, gold(), config.max_length)
        write_records(folder / "pairs.parquet", pairs)
        return {"pairs": len(pairs)}

    return run_stage(folder, config.only("max_length"), {"reward": stage_hash(rewarded)}, work)


def reference_stage(folder: Path, config: Config, launch: Launch, pairs: Path, model: str) -> Path:
    """log M_t of each distinct response of the pairs, once."""

    def work(folder: Path) -> dict[str, Any]:
        launch("reference", config, folder, pairs=pairs, model=model)
        responses = 2 * count(pairs / "pairs.parquet")
        return {"distinct": len(read_json(folder / "logps.json")), "responses": responses}

    return run_stage(folder, config.only(*SCORING), _inputs(model, pairs=pairs), work)


def train_stage(
    folder: Path, config: Config, launch: Launch, training: Training, steps: int, probe_from: Path, gold: Gold
) -> Path:
    """The next model by Equation 1, with the diagnostics of Figures 2–4.

    `probe_from` is the `pairs` stage of which some responses' log-probs are followed.
    """
    settings = config.only(*TRAINING, "reference_model") | {"steps": steps, "iteration": training.iteration}

    def work(folder: Path) -> dict[str, Any]:
        followed = [asdict(item) for item in followed_pairs(config, probe_from, gold)]
        launch("train", config, folder, **vars(training), steps=steps, followed=followed)
        return read_json(folder / "counts.json")

    probed = {"probe": probe_from} if config.probe_every else {}
    inputs = _inputs(training.model, pairs=training.pairs, reference=training.reference, **probed)
    return run_stage(folder, settings, inputs, work)


def select_stage(folder: Path, config: Config, launch: Launch, training: Training, held_out: list[Problem]) -> Path:
    """§ 3.1: trains without the held-out problems and measures each checkpoint on them."""

    def work(folder: Path) -> dict[str, Any]:
        launch("train", config, folder, **vars(training), steps=config.max_steps, without=[p.id for p in held_out],
               keep_checkpoints=True)  # fmt: skip
        found = {}
        for kept in folder.glob("model-*"):
            step, model = int(kept.name.rpartition("-")[2]), str(kept)
            greedy = answers(launch, folder / f"greedy-{step}", config, held_out, model=model,
                             weights=_inputs(model)["model"], n=1, temperature=0.0, what="select")  # fmt: skip
            found[step] = greedy_accuracy(greedy).accuracy
        for made in (folder / "checkpoints", folder / "model", *folder.glob("model-*")):
            remove(made)
        best = max(sorted(found), key=found.__getitem__)
        write_json(folder / "selection.json", {"steps": best, "accuracies": dict(sorted(found.items()))})
        return {"steps": best, "held_out_accuracy": round(found[best], 4)}

    settings = config.only(*TRAINING, "max_steps", "held_out", "task", "max_new_tokens", "problems_per_shard")
    inputs = _inputs(training.model, pairs=training.pairs, reference=training.reference)
    return run_stage(folder, settings, inputs, work)


def evaluate_stage(
    folder: Path, config: Config, launch: Launch, model: str, problems: list[Problem], vote: bool
) -> Path:
    """Greedy accuracy on the problems, and maj@32 where it is asked for; each problem's outcome is in a CSV."""
    settings = config.only(*SAMPLING)
    if vote:
        settings |= config.only("majority_samples", "majority_problems", "majority_temperature")
    task = get_task(config.task, config.task_path)
    inputs = _inputs(model, problems)

    def work(folder: Path) -> dict[str, Any]:
        ask = partial(answers, launch, config=config, model=model, weights=inputs["model"])
        greedy = ask(folder / "greedy", problems=problems, n=1, temperature=0.0, what="evaluate")
        write_outcomes(folder / "greedy.csv", [(c.problem_id, c.answer, c.reward or 0.0) for c in greedy])
        summary: dict[str, Any] = {"greedy": asdict(greedy_accuracy(greedy))}
        if vote:
            some = problems[: config.majority_problems]
            drawn = ask(folder / "majority", problems=some, n=config.majority_samples,
                        temperature=config.majority_temperature, what="vote")  # fmt: skip
            write_outcomes(folder / "majority.csv", votes(drawn, some, task))
            summary["majority"] = asdict(majority_accuracy(drawn, some, task))
            summary["sampled"] = sampled_accuracy(drawn)
        write_json(folder / "summary.json", summary)
        return {name: round(s["accuracy"], 4) for name, s in summary.items() if isinstance(s, dict)}

    return run_stage(folder, settings, inputs, work)


# --- how the stages do their work ---


def followed_pairs(config: Config, pairs: Path, gold: Gold) -> list[Any]:
    """The `ProbeItem`s of a `pairs` stage that are looked at while a model trains; none without `probe_every`."""
    from irpo_lib.probe import choose_probe

    if not config.probe_every:
        return []
    records = Records(pairs / "pairs.parquet", PreferencePair)
    return choose_probe(records, gold(), config.probe_pairs, config.seed)


def gold_ids(config: Config, problems: Sequence[Problem]) -> dict[str, list[int]]:
    """problem id → the token ids of its gold solution, where it has one."""
    from irpo_lib.models.load import encode_reply, load_tokenizer

    task, tokenizer = get_task(config.task, config.task_path), load_tokenizer(config.model)
    return {p.id: encode_reply(tokenizer, task.prompt(p), p.gold_solution) for p in problems if p.gold_solution}


def _inputs(model: str, problems: list[Problem] | None = None, /, **stages: Path) -> dict[str, str]:
    """What a stage is made from: the model and problems by content, other stages by what they hold."""
    from irpo_lib.models.load import model_hash

    asked = {} if problems is None else {"problems": hash_json([asdict(p) for p in problems])}
    return {"model": model_hash(model)} | asked | {name: stage_hash(folder) for name, folder in stages.items()}
