"""What mini-llama has read: an endless stream of problems and of their authors' solutions, right and wrong.

Half of all problems (by the hash of what makes them the same problem) are reserved for the tasks' splits and are
never in the corpus.
"""

import hashlib
import random
from collections.abc import Iterator
from dataclasses import dataclass
from types import ModuleType

from irpo_world import arc, gsm8k, math
from irpo_world.writer import Writer

from irpo_lib.tasks.mini import math_prompt
from irpo_lib.tasks.prompts import ask

#: The share of each task's problems in the corpus.
MIXTURE: dict[ModuleType, float] = {gsm8k: 0.38, arc: 0.27, math: 0.35}


@dataclass(frozen=True)
class Document:
    """A request in the words of the task's prompt, and one author's reply."""

    prompt: str
    response: str


def is_reserved(signature: str) -> bool:
    """Whether a problem belongs to the splits (True) or to the corpus (False)."""
    return hashlib.sha256(signature.encode()).digest()[0] % 2 == 0


def corpus(seed: int) -> Iterator[Document]:
    """An endless stream of documents; the same for the same seed.

    Exercises of math-mini come after none or four worked examples with right answers, so that the model learns
    to read a prompt with four.
    """
    rng = random.Random(seed)
    writer = Writer(rng)
    while True:
        task = rng.choices(list(MIXTURE), list(MIXTURE.values()))[0]
        problem = _draw_unreserved(task, rng)
        if task is math:
            shots = rng.choice([0, 4])
            examples = [_draw_unreserved(math, rng) for _ in range(shots)]
            prompt = math_prompt(problem.question, [(e.question, math.gold_solution(e)) for e in examples])
        elif task is arc:
            prompt = ask(problem.question, problem.choices)
        else:
            prompt = ask(problem.question)
        yield Document(prompt, task.solve(problem, writer))


def _draw_unreserved(task: ModuleType, rng: random.Random):
    while is_reserved((problem := task.draw(rng)).signature):
        continue
    return problem
