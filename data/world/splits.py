"""The splits of the mini tasks, made from a seed and written to `data/`."""

import random
from pathlib import Path
from types import ModuleType

from irpo_world import arc, gsm8k, math
from irpo_world.corpus import is_reserved

from irpo_lib.records import Problem
from irpo_lib.tasks.jsonl import write_problems
from irpo_lib.tasks.mini import MATH_SHOTS

SIZES = {"train": 1000, "dev": 500, "test": 1000}
TASKS: dict[str, ModuleType] = {"gsm8k-mini": gsm8k, "arc-mini": arc, "math-mini": math}


def draw_splits(name: str, seed: int = 0) -> dict[str, list[Problem]]:
    """train, dev and test of a mini task; no problem stands in two of them or in the corpus."""
    rng, module = random.Random(f"{name} {seed}"), TASKS[name]
    seen: set[str] = set()
    splits: dict[str, list[Problem]] = {}
    shots = MATH_SHOTS if name == "math-mini" else 0
    for split, size in (SIZES | {"train": SIZES["train"] + shots}).items():
        problems: list[Problem] = []
        while len(problems) < size:
            drawn = module.draw(rng)
            if drawn.signature in seen or not is_reserved(drawn.signature):
                continue
            seen.add(drawn.signature)
            gold = module.gold_solution(drawn) if hasattr(module, "gold_solution") else None
            choices = getattr(drawn, "choices", None)
            problems.append(Problem(f"{split}-{len(problems)}", drawn.question, str(drawn.answer), gold, choices))
        splits[split] = problems
    return splits


def make_data(out: Path, seed: int = 0) -> list[Path]:
    """Writes all splits as JSON Lines and returns the files."""
    paths = []
    for name in TASKS:
        for split, problems in draw_splits(name, seed).items():
            path = out / name / f"{split}.jsonl"
            write_problems(path, problems)
            paths.append(path)
    return paths
