"""Figure 1 as stages: generate → reward → pair → reference → train → evaluate, for M_0 … M_T.

Everything of iteration t stands in `RUN/iteration-t/`, made with M_{t-1}; `iteration-0` holds M_0's evaluation.
Every function here returns the folder of its stage and does nothing when the stage is there already.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Any

from irpo_lib.config import Config
from irpo_lib.errors import UserError
from irpo_lib.evaluation import greedy_accuracy, majority_accuracy, sampled_accuracy
from irpo_lib.pairs import build_pairs
from irpo_lib.progress import Progress
from irpo_lib.records import Completion, PreferencePair, Problem
from irpo_lib.rewards import reward
from irpo_lib.store import (
    hash_json,
    read_json,
    read_records,
    remove,
    run_stage,
    stage_hash,
    write_json,
    write_records,
)
from irpo_lib.tasks import Task, get_task, read_split


class Experiment:
    """A run folder with its config: where the stages of Figure 1 stand and how each is made."""

    def __init__(self, config: Config, run_dir: str | Path):
        self.config = config
        self.run_dir = Path(run_dir)
        self.task: Task = get_task(config.task)

    # --- names and inputs ---

    def folder(self, iteration: int, stage: str) -> Path:
        return self.run_dir / f"iteration-{iteration}" / stage

    def model(self, iteration: int) -> str:
        """M_iteration: the seed model, or what the iteration trained."""
        return self.config.model if iteration == 0 else str(self.folder(iteration, "train") / "model")

    def _model_hash(self, iteration: int) -> str:
        from irpo_lib.models import model_hash

        return model_hash(self.model(iteration))

    def train_problems(self) -> list[Problem]:
        return read_split(self.task, "train")[: self.config.train_problems]

    def test_problems(self) -> list[Problem]:
        return read_split(self.task, "test")[: self.config.test_problems]

    # --- the boxes of Figure 1 ---

    def generate(self, iteration: int) -> Path:
        """N samples of M_{t-1} for each training problem."""
        c, problems = self.config, self.train_problems()
        temperature = c.temperatures[iteration - 1]
        settings = c.only("task", "seed", "dtype", "samples", "top_p", "max_new_tokens", "engine", "problems_per_shard")
        settings |= {"iteration": iteration, "temperature": temperature}
        inputs = {"model": self._model_hash(iteration - 1), "problems": problems_hash(problems)}

        def work(folder: Path) -> dict[str, Any]:
            self._sample(folder, iteration - 1, problems, c.samples, temperature, f"generate/{iteration}")
            completions = read_records(shards(folder), Completion)
            return {"completions": len(completions), "new_tokens": sum(len(x.token_ids) for x in completions)}

        return run_stage(self.folder(iteration, "generate"), settings, inputs, work)

    def reward(self, iteration: int) -> Path:
        """Each completion's final answer and whether it is right."""
        source = self.generate(iteration)

        def work(folder: Path) -> dict[str, Any]:
            completions = self._rewarded(read_records(shards(source), Completion), self.train_problems())
            write_records(folder / "completions.parquet", completions)
            return {
                "completions": len(completions),
                "right": round(sampled_accuracy(completions), 4),
                "without_answer": sum(c.answer is None for c in completions),
            }

        inputs = {"generate": stage_hash(source)}
        return run_stage(self.folder(iteration, "reward"), self.config.only("task"), inputs, work)

    def pair(self, iteration: int) -> Path:
        """D_pairs of this iteration."""
        c, source = self.config, self.reward(iteration)

        def work(folder: Path) -> dict[str, Any]:
            completions = read_records(source / "completions.parquet", Completion)
            gold = self._gold_ids() if c.gold_in_winners else {}
            pairs, counts = build_pairs(completions, gold, c.pairs_per_problem, c.max_length, c.max_pairs, c.seed)
            write_records(folder / "pairs.parquet", pairs)
            return asdict(counts)

        settings = c.only("pairs_per_problem", "gold_in_winners", "max_length", "max_pairs", "seed")
        return run_stage(self.folder(iteration, "pairs"), settings, {"reward": stage_hash(source)}, work)

    def reference(self, iteration: int) -> Path:
        """log M_t of each distinct response of the pairs, once."""
        source = self.pair(iteration)

        def work(folder: Path) -> dict[str, Any]:
            from irpo_lib.logprobs import reference_logps
            from irpo_lib.models import load_model

            pairs = read_records(source / "pairs.parquet", PreferencePair)
            logps = reference_logps(load_model(self.model(iteration - 1), self.config.dtype), pairs)
            write_json(folder / "logps.json", logps)
            return {"distinct": len(logps), "responses": 2 * len(pairs)}

        inputs = {"pairs": stage_hash(source), "model": self._model_hash(iteration - 1)}
        return run_stage(self.folder(iteration, "reference"), self.config.only("dtype"), inputs, work)

    def scored_pairs(self, iteration: int) -> list:
        """D_pairs with its reference log-probs."""
        from irpo_lib.logprobs import response_key
        from irpo_lib.training import ScoredPair

        pairs = read_records(self.pair(iteration) / "pairs.parquet", PreferencePair)
        logps = read_json(self.reference(iteration) / "logps.json")

        def logp(pair: PreferencePair, response: list[int]) -> float:
            return logps[response_key(pair.prompt_ids, response)]

        return [ScoredPair(p, logp(p, p.chosen_ids), logp(p, p.rejected_ids)) for p in pairs]

    def train(self, iteration: int) -> Path:
        """M_t from M_{t-1} by Equation 1."""
        c, reference = self.config, self.reference(iteration)
        settings = c.only("seed", "dtype", "beta", "alpha", "dpo_weight", "learning_rate", "warmup_steps", "batch_size",
                          "micro_batch_size", "checkpoint_every", "training_engine", "select_checkpoint")  # fmt: skip
        steps = self._selected_steps(iteration) if c.select_checkpoint else c.max_steps
        settings |= {"steps": steps, "iteration": iteration}
        inputs = {"pairs": stage_hash(self.pair(iteration)), "reference": stage_hash(reference),
                  "model": self._model_hash(iteration - 1)}  # fmt: skip

        def work(folder: Path) -> dict[str, Any]:
            return self._train(folder, iteration, self.scored_pairs(iteration), steps)

        return run_stage(self.folder(iteration, "train"), settings, inputs, work)

    def select(self, iteration: int) -> Path:
        """§ 3.1: trains without the held-out problems and measures each checkpoint on them."""
        c, problems = self.config, self.train_problems()
        if c.held_out >= len(problems):
            raise UserError(f"held_out={c.held_out} leaves none of the {len(problems)} training problems to train on")
        held_out = problems[-c.held_out :]
        hidden = {p.id for p in held_out}

        def work(folder: Path) -> dict[str, Any]:
            pairs = [p for p in self.scored_pairs(iteration) if p.pair.problem_id not in hidden]
            self._train(folder, iteration, pairs, c.max_steps, keep_checkpoints=True)
            found = {}
            for checkpoint in sorted((folder / "checkpoints").glob("checkpoint-*")):
                step = int(checkpoint.name.rpartition("-")[2])
                answers = folder / f"greedy-{step}"
                self._sample(answers, iteration - 1, held_out, 1, 0.0, "select", weights=str(checkpoint))
                rewarded = self._rewarded(read_records(shards(answers), Completion), held_out)
                found[step] = greedy_accuracy(rewarded).accuracy
            remove(folder / "checkpoints")
            best = max(sorted(found), key=found.__getitem__)
            write_json(folder / "selection.json", {"steps": best, "accuracies": found})
            return {"steps": best, "held_out_accuracy": round(found[best], 4)}

        settings = c.only("seed", "dtype", "beta", "alpha", "dpo_weight", "learning_rate", "warmup_steps", "batch_size",
                          "micro_batch_size", "checkpoint_every", "max_steps", "held_out", "training_engine", "task",
                          "max_new_tokens", "problems_per_shard")  # fmt: skip
        inputs = {"pairs": stage_hash(self.pair(iteration)), "reference": stage_hash(self.reference(iteration))}
        return run_stage(self.folder(iteration, "select"), settings, inputs, work)

    def evaluate(self, iteration: int) -> Path:
        """Greedy accuracy of M_t on the test split, and maj@32 where the config asks for it."""
        c, problems = self.config, self.test_problems()
        if iteration:
            self.train(iteration)
        vote = iteration in c.majority_iterations
        settings = c.only("task", "seed", "dtype", "top_p", "max_new_tokens", "engine", "problems_per_shard")
        if vote:
            settings |= c.only("majority_samples", "majority_problems", "majority_temperature")
        inputs = {"model": self._model_hash(iteration), "problems": problems_hash(problems)}

        def work(folder: Path) -> dict[str, Any]:
            self._sample(folder / "greedy", iteration, problems, 1, 0.0, "evaluate")
            greedy = self._rewarded(read_records(shards(folder / "greedy"), Completion), problems)
            summary: dict[str, Any] = {"greedy": asdict(greedy_accuracy(greedy))}
            if vote:
                some = problems[: c.majority_problems]
                self._sample(folder / "majority", iteration, some, c.majority_samples, c.majority_temperature, "vote")
                samples = self._rewarded(read_records(shards(folder / "majority"), Completion), some)
                summary["majority"] = asdict(majority_accuracy(samples, some, self.task))
                summary["sampled"] = sampled_accuracy(samples)
            write_json(folder / "summary.json", summary)
            return {name: round(s["accuracy"], 4) for name, s in summary.items() if isinstance(s, dict)}

        return run_stage(self.folder(iteration, "evaluate"), settings, inputs, work)

    def run(self) -> None:
        """The whole of Figure 1: M_0 … M_T."""
        self.evaluate(0)
        for iteration in range(1, self.config.iterations + 1):
            self.evaluate(iteration)

    # --- how the stages do their work ---

    def _sample(self, folder: Path, iteration: int, problems: list[Problem], n: int, temperature: float, what: str,
                weights: str | None = None) -> None:  # fmt: skip
        """Responses of M_iteration (or of `weights`), written shard by shard; shards that are there are kept."""
        from irpo_lib.generation import generate
        from irpo_lib.models import encode_prompt, load_model, load_tokenizer

        c = self.config
        folder.mkdir(exist_ok=True)
        tokenizer, model = load_tokenizer(self.model(iteration)), None
        starts = range(0, len(problems), c.problems_per_shard)
        with Progress(len(problems), what) as progress:
            for number, start in enumerate(starts):
                path = folder / f"shard-{number:05d}.parquet"
                part = problems[start : start + c.problems_per_shard]
                if path.is_file():
                    progress.skip(len(part))
                    continue
                model = model or load_model(weights or self.model(iteration), c.dtype)
                prompts = [encode_prompt(tokenizer, self.task.prompt(p)) for p in part]
                seed = derive_seed(c.seed, what, number)
                drawn = {}
                for index, samples in generate(model, prompts, n, temperature, c.top_p, c.max_new_tokens, seed):
                    drawn[index] = samples
                    progress.add(1)
                records = [
                    Completion(p.id, i, prompts[k], s.token_ids, to_text(tokenizer, s.token_ids), s.finish_reason)
                    for k, p in enumerate(part)
                    for i, s in enumerate(drawn[k])
                ]
                write_records(path, records)

    def _rewarded(self, completions: Sequence[Completion], problems: Sequence[Problem]) -> list[Completion]:
        by_id = {p.id: p for p in problems}
        return [reward(c, by_id[c.problem_id], self.task) for c in completions]

    def _gold_ids(self) -> dict[str, list[int]]:
        from irpo_lib.models import encode_reply, load_tokenizer

        tokenizer = load_tokenizer(self.config.model)
        return {
            p.id: encode_reply(tokenizer, self.task.prompt(p), p.gold_solution)
            for p in self.train_problems()
            if p.gold_solution is not None
        }

    def _train(self, folder: Path, iteration: int, pairs: list, steps: int, keep_checkpoints: bool = False):
        from irpo_lib.models import load_model, load_tokenizer

        c, source = self.config, self.model(iteration - 1)
        engine = import_module({"irpo": "irpo_lib.training", "trl": "irpo_lib.training_trl"}[c.training_engine])
        model, tokenizer = load_model(source, c.dtype), load_tokenizer(source)
        seed = derive_seed(c.seed, "train", iteration)
        return engine.train(model, tokenizer, pairs, c, steps, seed, folder, keep_checkpoints)

    def _selected_steps(self, iteration: int) -> int:
        return read_json(self.select(iteration) / "selection.json")["steps"]


def derive_seed(seed: int, *what: Any) -> int:
    """A seed for one piece of work, so that no two pieces share their random numbers."""
    return int.from_bytes(hashlib.sha256(repr((seed, *what)).encode()).digest()[:4], "big")


def problems_hash(problems: Sequence[Problem]) -> str:
    return hash_json([asdict(p) for p in problems])


def shards(folder: Path) -> list[Path]:
    return sorted(folder.glob("shard-*.parquet"))


def to_text(tokenizer, token_ids: list[int]) -> str:
    return tokenizer.decode(token_ids, skip_special_tokens=True).strip()
