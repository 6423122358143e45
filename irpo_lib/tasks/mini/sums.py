"""Sheets of sums, which are in the corpus only: from them mini-llama can add and subtract, as a chat model can.

Without them its sums are so weak that the noise of any training breaks them.
"""

import random
from dataclasses import dataclass

from irpo_lib.tasks.mini.writer import Writer

SUMS = 8


@dataclass(frozen=True)
class Sheet:
    question: str
    answer: int
    sums: tuple[str, ...]

    @property
    def signature(self) -> str:
        return f"sums {' '.join(self.sums)}"


def draw(rng: random.Random) -> Sheet:
    """Additions and subtractions of the sizes that the tasks have."""
    sums, result = [], 0
    for _ in range(SUMS):
        a, symbol, b = rng.randint(1, 67), rng.choice("+-"), rng.randint(1, 9)
        result = a + b if symbol == "+" else abs(a - b)
        sums.append(f"{max(a, b) if symbol == '-' else a} {symbol} {min(a, b) if symbol == '-' else b} = {result}.")
    asked = " ".join(s.partition("=")[0].strip() + "." for s in sums)
    return Sheet(f"Work out: {asked}", result, tuple(sums))


def solve(sheet: Sheet, writer: Writer) -> str:
    """All of them, right; who writes sheets is careful."""
    return " ".join(sheet.sums) + f"\nFinal answer: {sheet.answer}"
