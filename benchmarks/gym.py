"""A first real result on a laptop: `python -m benchmarks.gym MODEL FOLDER`, for SmolLM2-135M-Instruct half an hour.

One iteration of the loop on each of five easy generators of reasoning_gym, and the accuracy on other problems of theirs
before and after it. Prints the table that stands in irpo_lib/tasks/README.md. Done stages are kept: it may be stopped.
"""

import json
import sys
from pathlib import Path

from irpo_lib.config import load_config
from irpo_lib.iteration import Experiment
from irpo_lib.stages.store import read_json

#: Generator → its settings.
TASKS = {
    "chain_sum": {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 2},
    "leg_counting": {"min_animals": 1, "max_animals": 2, "min_instances": 1, "max_instances": 5},
    "letter_counting": {"min_words": 2, "max_words": 4},
    "needle_haystack": {"min_num_statements": 3, "max_num_statements": 6},
    "products": {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 2},
}
#: N = 3 K as in the paper; the rest is as small as half an hour wants it, and the rate was not tuned.
SETTINGS = {
    "iterations": 1, "temperatures": [0.8], "majority_iterations": [], "train_problems": 64, "test_problems": 200,
    "samples": 9, "pairs_per_problem": 3, "max_new_tokens": 128, "select_checkpoint": False, "probe_every": 0,
    "max_steps": 30, "batch_size": 8, "micro_batch_size": 4, "checkpoint_every": 30, "warmup_steps": 3,
    "learning_rate": 1e-5, "learning_rate_schedule": "linear", "gradient_checkpointing": False,
}  # fmt: skip


def main(model: str, folder: Path) -> None:
    rows = []
    for name, settings in TASKS.items():
        config = load_config(
            "qwen-0.5b", f"reasoning_gym:{name}", model=model, task_path=json.dumps(settings), dtype="auto", **SETTINGS
        )
        experiment = Experiment(config, folder / name)
        pairs = read_json(experiment.pair(1) / "stage.json")["counts"]["pairs"]
        models = (0, 1) if pairs else (0,)  # where no sample is right there is nothing to train on
        found = [read_json(experiment.evaluate(t) / "summary.json")["greedy"] for t in models]
        shown = [f"{100 * m['accuracy']:.1f} ({100 * m['low']:.1f}–{100 * m['high']:.1f})" for m in found]
        shown += ["–"] * (2 - len(shown))
        rows.append(f"| `{name}` | `{json.dumps(settings)}` | {pairs} | {' | '.join(shown)} |")
        print(rows[-1], flush=True)
    head = ["", "| generator | settings | pairs | M0 % (95 % interval) | M1 % |", "|---|---|---|---|---|"]
    print("\n".join([*head, *rows]))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
