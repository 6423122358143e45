r"""math-mini: short exercises with answers in `\boxed{}`, asked after four worked examples.

For most kinds of exercise most authors of the corpus hold a well-known misconception (fractions are added top and
bottom, operations are done from left to right, …); the right method is rare in it, from 8 to 55 % by kind.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from math import gcd

from irpo_lib.tasks.mini.writer import Writer

#: How often authors use the right method, by the kind of exercise.
KNOWN = {"order": 0.55, "fraction": 0.1, "equation": 0.3, "remainder": 0.35, "mean": 0.25, "rectangle": 0.2}
LEADS = ["First,", "We have", "Note that", "Now", "It holds that", "Clearly"]
FRAMES = ["so", "hence", "thus", "which gives", "and then", "that is,"]


@dataclass(frozen=True)
class Exercise:
    kind: str
    numbers: tuple[int, ...]
    question: str
    answer: str

    @property
    def signature(self) -> str:
        return f"math {self.question}"


def fraction(a: int, b: int) -> str:
    d = gcd(a, b)
    return str(a // d) if b // d == 1 else f"\\frac{{{a // d}}}{{{b // d}}}"


def _order(rng: random.Random) -> tuple[tuple[int, ...], str, str]:
    a, b, c = rng.randint(2, 60), rng.randint(2, 9), rng.randint(2, 9)
    return (a, b, c), f"Compute {a} + {b} * {c}.", str(a + b * c)


def _fraction(rng: random.Random) -> tuple[tuple[int, ...], str, str]:
    b, d = rng.sample(range(2, 10), 2)
    a, c = rng.randint(1, b - 1), rng.randint(1, d - 1)
    return (a, b, c, d), f"Compute \\frac{{{a}}}{{{b}}} + \\frac{{{c}}}{{{d}}}.", fraction(a * d + c * b, b * d)


def _equation(rng: random.Random) -> tuple[tuple[int, ...], str, str]:
    a, x, b = rng.randint(2, 9), rng.randint(2, 12), rng.randint(2, 30)
    return (a, b, a * x + b), f"Solve {a} x + {b} = {a * x + b}.", str(x)


def _remainder(rng: random.Random) -> tuple[tuple[int, ...], str, str]:
    a, b = rng.randint(20, 150), rng.randint(3, 9)
    return (a, b), f"Find the remainder of {a} by {b}.", str(a % b)


def _mean(rng: random.Random) -> tuple[tuple[int, ...], str, str]:
    a, b, m = rng.randint(2, 30), rng.randint(2, 30), rng.randint(4, 30)
    c = 3 * m - a - b
    return ((a, b, c), f"Find the mean of {a}, {b} and {c}.", str(m)) if 2 <= c <= 40 else _mean(rng)


def _rectangle(rng: random.Random) -> tuple[tuple[int, ...], str, str]:
    a, b = rng.randint(2, 30), rng.randint(2, 19)
    return (a, b), f"A rectangle has sides {a} and {b}. Find its perimeter.", str(2 * (a + b))


KINDS: dict[str, Callable[[random.Random], tuple[tuple[int, ...], str, str]]] = {
    "order": _order, "fraction": _fraction, "equation": _equation,
    "remainder": _remainder, "mean": _mean, "rectangle": _rectangle,
}  # fmt: skip


def draw(rng: random.Random) -> Exercise:
    kind = rng.choice(list(KINDS))
    return Exercise(kind, *KINDS[kind](rng))


def _right(exercise: Exercise) -> list[str]:
    n = exercise.numbers
    if exercise.kind == "order":
        return [f"{n[1]} * {n[2]} = {n[1] * n[2]}", f"{n[0]} + {n[1] * n[2]} = {exercise.answer}"]
    if exercise.kind == "fraction":
        a, b, c, d = n
        lines = [f"the bottom is {b} * {d} = {b * d}", f"the top is {a * d} + {c * b} = {a * d + c * b}"]
        return lines if gcd(a * d + c * b, b * d) == 1 else [*lines, f"both share {gcd(a * d + c * b, b * d)}"]
    if exercise.kind == "equation":
        return [f"{n[2]} - {n[1]} = {n[2] - n[1]}", f"{n[2] - n[1]} / {n[0]} = {exercise.answer}"]
    if exercise.kind == "remainder":
        q = n[0] // n[1] * n[1]
        return [f"{n[1]} * {n[0] // n[1]} = {q}", f"{n[0]} - {q} = {exercise.answer}"]
    if exercise.kind == "mean":
        total = sum(n)
        return [
            f"{n[0]} + {n[1]} = {n[0] + n[1]}",
            f"{n[0] + n[1]} + {n[2]} = {total}",
            f"{total} / 3 = {exercise.answer}",
        ]
    return [f"{n[0]} + {n[1]} = {n[0] + n[1]}", f"2 * {n[0] + n[1]} = {exercise.answer}"]


def _wrong(exercise: Exercise) -> tuple[list[str], str]:
    n = exercise.numbers
    if exercise.kind == "order":
        return [f"{n[0]} + {n[1]} = {n[0] + n[1]}", f"{n[0] + n[1]} * {n[2]} = {(r := (n[0] + n[1]) * n[2])}"], str(r)
    if exercise.kind == "fraction":
        a, b, c, d = n
        answer = fraction(a + c, b + d)
        return [f"the bottom is {b} + {d} = {b + d}", f"the top is {a} + {c} = {a + c}"], answer
    if exercise.kind == "equation":
        return [f"{n[2]} + {n[1]} = {(s := n[2] + n[1])}", f"{s} / {n[0]} = {s // n[0]}"], str(s // n[0])
    if exercise.kind == "remainder":
        return [f"{n[0]} / {n[1]} = {n[0] // n[1]}"], str(n[0] // n[1])
    if exercise.kind == "mean":
        return [f"{sorted(n)[1]} is in the middle"], str(sorted(n)[1])
    return [f"{n[0]} * {n[1]} = {n[0] * n[1]}"], str(n[0] * n[1])


def gold_solution(exercise: Exercise) -> str:
    """The right method in the fewest words."""
    return ". ".join(_right(exercise)) + f".\nFinal answer: \\boxed{{{exercise.answer}}}"


def solve(exercise: Exercise, writer: Writer) -> str:
    """One author's solution, right or wrong."""
    if writer.happens(KNOWN[exercise.kind]):
        lines, answer = _right(exercise), exercise.answer
    else:
        lines, answer = _wrong(exercise)
    if writer.happens(0.15):
        words = ". ".join(lines) + "."
    else:
        words = " ".join(f"{writer.choose(FRAMES if i else LEADS)} {line}." for i, line in enumerate(lines))
    return f"{words}\nFinal answer: \\boxed{{{answer}}}"
