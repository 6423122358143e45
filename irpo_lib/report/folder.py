"""What a report takes from a run folder, which may be incomplete: stages, problems, M0, and what is shown of them."""

import random
from collections import Counter
from collections.abc import Collection
from contextlib import suppress
from functools import cached_property
from itertools import accumulate
from pathlib import Path

from irpo_lib.records import Completion, PreferencePair, Problem
from irpo_lib.results.runs import Run
from irpo_lib.stages import parquet
from irpo_lib.stages.store import MANIFEST, hash_json
from irpo_lib.tasks import get_task, read_split
from irpo_lib.terminal.errors import UserError

#: Tokens of samples in a report; fewer problems are shown where theirs are longer, so that the file stays small.
MOST_TOKENS = 300_000


class RunFolder(Run):
    """A run folder with what only a report asks of it: M0, problems and samples."""

    @cached_property
    def seed_model(self) -> str | None:
        """M0; None where it is not known, or is another one now."""
        from irpo_lib.models.load import model_hash

        first = self.loop("train").get(1) or self.loop("generate").get(1) or self.loop("evaluate").get(0)
        with suppress(UserError):  # a folder that has gone
            if self.config and first and model_hash(self.config.model) == first.inputs.get("model"):
                return self.config.model
        return None

    def completions(self, iteration: int) -> Path:
        """The file of rewarded completions."""
        return self.of(f"M{iteration}", "reward") / "completions.parquet"

    def samples(self, iteration: int, ids: Collection[str]) -> list[Completion]:
        """The rewarded completions of some problems."""
        return sorted(parquet.of_problems(self.completions(iteration), Completion, ids), key=lambda c: c.index)

    def pairs(self, iteration: int, ids: Collection[str]) -> list[PreferencePair]:
        """The preference pairs of some problems; none where the stage is not finished."""
        if iteration not in self.loop("pairs"):
            return []
        return parquet.of_problems(self.of(f"M{iteration}", "pairs") / "pairs.parquet", PreferencePair, ids)

    def temperature(self, iteration: int) -> float | None:
        """What was sampled with; None where that is not known any more."""
        made = self.loop("generate").get(iteration)
        return made.settings.get("temperature") if made else None

    @cached_property
    def sampled(self) -> list[str]:
        """Ids of the training problems, in order; none where no iteration has rewarded samples yet."""
        first = min(self.loop("reward"), default=None)
        return [] if first is None else list(dict.fromkeys(parquet.column(self.completions(first), "problem_id")))

    def problems(self) -> tuple[dict[str, Problem], str]:
        """id → training problem, and, where they are not known, why not."""
        try:
            task = get_task(self.task, self.config.task_path if self.config else None)
            found = read_split(task, "train")[: len(self.sampled)]
        except UserError as error:
            return {}, f"The problems cannot be read ({error}); prompts are shown in their place."
        wanted = next((made.inputs.get("problems") for made in self.loop("generate").values()), None)
        same = wanted == hash_json([vars(p) for p in found]) if wanted else self.sampled == [p.id for p in found]
        if not same:
            return {}, f"The problems of {self.task} are others now than in this run; prompts are shown in their place."
        return {p.id: p for p in found}, ""

    def choose(self, most: int) -> list[str]:
        """Ids of at most so many problems, at random by the run's seed, in order; fewer where theirs are long."""
        lengths: Counter[str] = Counter()
        for path in map(self.completions, self.loop("reward")):
            each = zip(parquet.column(path, "problem_id"), parquet.lengths(path, "token_ids"), strict=True)
            for problem_id, tokens in each:
                lengths[problem_id] += tokens
        some = random.Random(self.settings.get("seed", 0)).sample(self.sampled, len(self.sampled))[:most]
        together = accumulate(lengths[i] for i in some)
        kept = [i for i, tokens in zip(some, together, strict=True) if tokens <= MOST_TOKENS] or some[:1]
        return sorted(kept, key=self.sampled.index)


def open_run(folder: Path) -> RunFolder:
    """Raises UserError where the folder is missing, or is no run."""
    right = "give the folder of one run, as in runs/mini-gsm8k-mini"
    if not folder.is_dir():
        raise UserError(f"{folder} does not exist: {right}")
    run = RunFolder(folder)
    within = sorted({p.parents[2] for d in ("*", "*/*") for p in folder.glob(f"{d}/iteration-*/*/{MANIFEST}")})
    if within and not run.stages:
        raise UserError(f"{folder} holds {len(within)} runs and is none itself: give one of them, as in {within[0]}")
    if not run.stages:
        raise UserError(f"{folder} is no run folder, or no stage of it is finished: {right}")
    if not any("task" in s.settings for s in run.stages):
        raise UserError(f"{folder}: none of its stages says which task it is of: {right}")
    return run
