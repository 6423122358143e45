"""What a live model's responses are read as: `python -m benchmarks.live_answers MODEL TASK FOLDER [KEY=VALUE …]`.

Samples 2,000 responses (8 to each of 250 training problems, at temperature 0.8) and writes them for a reader into
FOLDER: `unread.jsonl`, all finished ones that no answer was read from, and `read.jsonl`, 200 of the others at random.
How many of them hold an answer, and which, is for a person to say. KEY=VALUE changes the config, as in `--set`; the
published files of a task are given as task_path=FOLDER.
"""

import json
import random
import sys
from pathlib import Path

from irpo_lib.config import load_config, parse_overrides
from irpo_lib.iteration import Experiment
from irpo_lib.records import Completion
from irpo_lib.stages.store import read_records

SETTINGS = {
    "iterations": 1, "temperatures": [0.8], "majority_iterations": [], "train_problems": 250, "samples": 8,
    "max_new_tokens": 300,
}  # fmt: skip
READ = 200


def main(model: str, task: str, folder: Path, overrides: list[str]) -> None:
    config = load_config("qwen-0.5b", task, model=model, **SETTINGS | parse_overrides(overrides))
    experiment = Experiment(config, folder)
    completions = read_records(experiment.reward(1) / "completions.parquet", Completion)
    problems = {p.id: p for p in experiment.train_problems()}
    finished = [c for c in completions if c.finish_reason == "stop"]
    unread = [c for c in finished if c.answer is None]
    read = random.Random(0).sample([c for c in finished if c.answer is not None], READ)
    for name, some in (("unread", unread), ("read", read)):
        rows = (
            {"problem": c.problem_id, "index": c.index, "gold": problems[c.problem_id].answer, "answer": c.answer,
             "choices": problems[c.problem_id].choices, "text": c.text}
            for c in some
        )  # fmt: skip
        lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text("".join(lines), encoding="utf8")
    right = sum(c.reward == 1 for c in finished)
    print(
        f"{model}, {task}: {len(completions)} responses, {len(finished)} finished, {len(unread)} of these without an "
        f"answer, {right} right; to be read: {folder}/unread.jsonl, {folder}/read.jsonl"
    )


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]), sys.argv[4:])
