"""Figure 1: generate → reward → pair → reference → train → evaluate, for M_0 … M_T.

Everything of iteration t stands in `RUN/iteration-t/`, made with M_{t-1}; `iteration-0` holds M_0's evaluation.
How each box becomes a folder is in `stages.boxes`, where its work runs in `cluster.launch`.
"""

from dataclasses import asdict
from functools import cache
from pathlib import Path

from irpo_lib.cluster.launch import run_work
from irpo_lib.config import Config
from irpo_lib.evaluation import models_with_votes
from irpo_lib.pairs import ScoredPairs, scored_pairs
from irpo_lib.records import Problem
from irpo_lib.stages import boxes
from irpo_lib.stages.samples import Launch
from irpo_lib.stages.store import CONFIG, hash_json, read_json, write_json
from irpo_lib.tasks import Task, get_task, read_split
from irpo_lib.terminal.errors import UserError


class Experiment:
    """A run folder with its config. Every method returns the folder of its stage, and makes it if it is not there."""

    def __init__(self, config: Config, run_dir: str | Path, launch: Launch = run_work):
        self.config, self.launch = config, launch
        self.run_dir = Path(run_dir)
        self.task: Task = get_task(config.task, config.task_path)

    def folder(self, iteration: int, stage: str) -> Path:
        return self.run_dir / f"iteration-{iteration}" / stage

    def model(self, iteration: int) -> str:
        """M_iteration: the seed model, or what the iteration trained."""
        return self.config.model if iteration == 0 else str(self.folder(iteration, "train") / "model")

    def train_problems(self) -> list[Problem]:
        return self._split("train")[: self.config.train_problems]

    def test_problems(self, split: str = "test") -> list[Problem]:
        """Problems to evaluate on; "dev" has others, for choices."""
        return self._split(split)[: self.config.test_problems]

    @cache  # noqa: B019  an experiment lives as long as its process
    def _split(self, split: str) -> list[Problem]:
        return read_split(self.task, split)

    @cache  # noqa: B019
    def gold(self) -> dict[str, list[int]]:
        """problem id → the token ids of its gold solution."""
        return boxes.gold_ids(self.config, self.train_problems())

    # --- the boxes of Figure 1 ---

    def generate(self, iteration: int) -> Path:
        """N samples of M_{t-1} for each training problem."""
        folder, model = self.folder(iteration, "generate"), self.model(iteration - 1)
        boxes.generate_stage(folder, self.config, self.launch, model, self.train_problems(), iteration)
        return self._kept(folder)

    def reward(self, iteration: int) -> Path:
        """Each completion's final answer and reward."""
        folder, source = self.folder(iteration, "reward"), self.generate(iteration)
        return boxes.reward_stage(folder, self.config, source, self.train_problems())

    def pair(self, iteration: int) -> Path:
        """D_pairs of this iteration; with `replay`, of all iterations so far."""
        return self.pair_in(self.folder(iteration, "pairs"), self.config, iteration)

    def pair_in(self, folder: Path, config: Config, iteration: int) -> Path:
        """The same with another config than the loop's, in a folder of its own."""
        first = 1 if config.replay else iteration
        sources = [self.reward(t) for t in range(iteration, first - 1, -1)]
        return boxes.pair_stage(folder, config, sources, self.gold)

    def reference(self, iteration: int) -> Path:
        """log M_t of each distinct response of the pairs, once."""
        model = self.config.model if self.config.reference_model == "seed" else self.model(iteration - 1)
        folder, pairs = self.folder(iteration, "reference"), self.pair(iteration)
        return boxes.reference_stage(folder, self.config, self.launch, pairs, model)

    def scored_pairs(self, iteration: int) -> ScoredPairs:
        """D_pairs with its reference log-probs, as training takes them."""
        return scored_pairs(self.pair(iteration), self.reference(iteration))

    def train(self, iteration: int) -> Path:
        """M_t from M_{t-1} by Equation 1."""
        pairs, reference = self.pair(iteration), self.reference(iteration)
        training = boxes.Training(pairs, reference, self.model(iteration - 1), iteration)
        return self.train_in(self.folder(iteration, "train"), self.config.of_iteration(iteration), training, pairs)

    def train_in(self, folder: Path, config: Config, training: boxes.Training, followed: Path) -> Path:
        """A `train` stage; § 3.1: its number of steps is chosen on the last `held_out` training problems.

        `followed` is the `pairs` stage of which some responses' log-probs are followed.
        """
        steps, held_out = config.max_steps, config.held_out
        if config.select_checkpoint:
            problems = self.train_problems()
            if held_out >= len(problems):
                raise UserError(f"held_out={held_out} leaves none of the {len(problems)} training problems to train on")
            select = folder.with_name("select")
            boxes.select_stage(select, config, self.launch, training, problems[-held_out:])
            steps = read_json(select / "selection.json")["steps"]
        return boxes.train_stage(folder, config, self.launch, training, steps, followed, self.gold)

    def evaluate(self, iteration: int) -> Path:
        """Greedy accuracy of M_t on the test split, and maj@32 where the config asks for it and the task has votes."""
        if iteration:
            self.train(iteration)
        vote = iteration in models_with_votes(self.config, self.task)
        folder, model = self.folder(iteration, "evaluate"), self.model(iteration)
        boxes.evaluate_stage(folder, self.config, self.launch, model, self.test_problems(), vote)
        return self._kept(folder)

    def _kept(self, folder: Path) -> Path:
        """The folder of a stage that is made with this config, which is written down."""
        path, values = self.run_dir / CONFIG, asdict(self.config)
        if not path.is_file() or hash_json(read_json(path)) != hash_json(values):
            write_json(path, values)
        return folder

    def run(self) -> None:
        """The whole of Figure 1: M_0 … M_T."""
        self.evaluate(0)
        for iteration in range(1, self.config.iterations + 1):
            self.evaluate(iteration)
