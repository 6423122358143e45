"""reasoning_gym (Stojanovski et al., 2025): problems that its generators make by seed, judged by its own scorers."""

import json
from dataclasses import fields
from functools import cached_property
from pathlib import Path
from typing import Any

from irpo_lib.records import Problem
from irpo_lib.tasks.answers import final_answer
from irpo_lib.terminal.errors import UserError, nearest

#: split → (seed, size). The library makes problem i from seed + i, so seeds lie further apart than any size.
SPLITS = {"train": (0, 2000), "dev": (10**8, 500), "test": (2 * 10**8, 500)}


class Generator:
    """A generator of the library, with settings of one's own.

    Args:
        name: As in the library.
        path: Its settings, a JSON object or the path of a file that holds one; `size` is that of every split.

    Raises:
        UserError: the library is not installed, or has no such generator or settings.
    """

    def __init__(self, name: str, path: str | None):
        try:
            from reasoning_gym.factory import DATASETS, create_dataset
        except ImportError as error:
            raise UserError('tasks of reasoning_gym need the library: pip install "irpo[reasoning-gym]"') from error
        if name not in DATASETS:
            raise UserError(f"reasoning_gym has no generator '{name}'" + nearest(name, DATASETS))
        settings, known = _settings(path), {f.name for f in fields(DATASETS[name][1])}
        where = f"task_path={path}: reasoning_gym's {name}"
        for key in settings.keys() - known:
            raise UserError(f"{where} has no setting '{key}'" + nearest(key, known))
        try:
            self.datasets = {  # of each split
                split: create_dataset(name, **({"size": size} | settings | {"seed": seed + settings.get("seed", 0)}))
                for split, (seed, size) in SPLITS.items()
            }
            assert all(d[len(d) - 1] for d in self.datasets.values())  # some are wrong only when a problem is made
        except Exception as error:  # each generator checks its settings in its own way
            raise UserError(f"{where} does not take these settings ({error!r})") from error

    def read(self, split: str) -> list[Problem]:
        """The problems of a split, of which no question stands twice, in this split or another."""
        own = ((i, entry) for i, entry in self.entries.items() if i.startswith(f"{split}-"))
        return [Problem(i, entry["question"], str(entry["answer"] or "")) for i, entry in own]

    def reward(self, response: str, problem: Problem) -> float:
        """The library's score of the response's final answer, which may be a part of a point.

        Some scorers raise, each its own exception, at an answer that is missing or not in their form. What cannot be
        read is wrong, so its score is 0: a model's text must not end a run.
        """
        dataset, entry = self.datasets[problem.id.partition("-")[0]], self.entries[problem.id]
        try:
            return dataset.score_answer(final_answer(response), entry)
        except Exception:
            return 0.0

    @cached_property
    def entries(self) -> dict[str, dict[str, Any]]:
        """id → the library's entry; made in turn, so that each split has its share of few different questions."""
        found: dict[str, tuple[str, dict[str, Any]]] = {}
        for i in range(max(map(len, self.datasets.values()))):
            for split, dataset in self.datasets.items():
                if i < len(dataset) and (entry := dataset[i]):
                    found.setdefault(entry["question"], (f"{split}-{i}", entry))
        return dict(found.values())


def _settings(path: str | None) -> dict[str, Any]:
    try:
        return dict(json.loads(path if path.startswith("{") else Path(path).read_text(encoding="utf8"))) if path else {}
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"task_path={path} must be a JSON object of settings, or a file of one ({error})") from error
