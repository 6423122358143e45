r"""math-mini: short exercises with answers in `\boxed{}`, asked after four worked examples; mostly beyond mini-llama.

Over a quarter are about something that is mirrored in the line y = x again and again, which swaps its coordinates.
As in gsm8k-mini, careful authors write each place down, hasty ones are right half the time. The other kinds (products
of two-digit numbers, remainders, prime factors) nobody works out on paper, and so small a network cannot in its head.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass

from irpo_world.writer import Writer

#: How often authors are careful, by what is mirrored.
CARE = {"point": 0.7, "ship": 0.55, "star": 0.4, "pawn": 0.25, "dot": 0.14, "drone": 0.07}
MIRRORS = ["It is mirrored in y = x.", "It is reflected in y = x.", "It is swapped at y = x."]
MOVES = {"+": "It moves {n} to the right.", "-": "It moves {n} to the left."}
#: How often an author knows what is asked for beyond mirrors; how often a careful one slips, or leaves out the box.
KNOWN, SLIP, SILENT = 0.5, 0.02, 0.12

OPENINGS = [
    "Let us work it out here.", "We have to be careful with this one.", "Okay, we take it step by step.",
    "This is not so hard to see.", "We read the exercise once again.", "Sure, here is how it goes.",
]  # fmt: skip
PLANS = [
    "What we are asked for is a number, and it has to stand in a box at the end of it all.",
    "In the end there is only one number that we need for it, and we put it in a box.",
    "All that we have to do is to find the number that is asked for and to write it down.",
]
STARTS = ["At first the {t} is at ({x}, {y}) as we are told.", "In the beginning we are at ({x}, {y}) with the {t}.",
          "The {t} starts out at ({x}, {y}) in this case."]  # fmt: skip
CAREFUL = [
    "We follow each mirror as it comes:", "One mirror at a time we get:", "We keep track of the {t}:",
    "Step by step this is:",
    "We write down each place:", "We trace it from one to the next:",
]  # fmt: skip
TRACKS = ["then ({u}, {v});", "now ({u}, {v});", "next ({u}, {v});"]
HASTY = [
    "After all the mirrors we see that", "When all of them are done we can say that",
    "Once it is all over it is clear that",
    "With the last mirror behind us we find that", "In the end it is easy to see that",
    "When all is said and done it looks like",
]  # fmt: skip
FIRST = ["the first number is {u}.", "the first one is {u}.", "what comes first is {u}."]
LEADS = ["Then", "Next", "Now", "After that", "So", "From here"]
FRAMES = ["we get", "this gives", "that makes", "we find", "it comes to", "we have"]
RULES = {
    "product": ["We multiply the two of them as usual.", "It is a matter of one product.",
                "The two numbers are multiplied."],
    "remainder": ["We divide and look at what is left.", "It is a matter of one division.",
                  "What is left over is asked for."],
    "factor": ["We divide by primes for as long as we can.", "It is a matter of trying primes.",
               "We take it apart into primes."],
}  # fmt: skip


@dataclass(frozen=True)
class Exercise:
    """A kind, its numbers (of a mirror: x, y, the number of mirrors, the move to the right), and what is mirrored."""

    kind: str
    numbers: tuple[int, ...]
    question: str
    answer: int
    thing: str = ""

    @property
    def signature(self) -> str:
        return f"math {self.kind} {self.numbers}"


def _mirror(rng: random.Random) -> Exercise:
    thing, (x, y) = rng.choice(list(CARE)), rng.sample(range(11, 50), 2)
    mirrors, sign, n = rng.choice([2, 3, 3, 4, 4, 5]), rng.choice("+-"), rng.randint(2, 9)
    told = [f"A {thing} is at ({x}, {y}).", *(rng.choice(MIRRORS) for _ in range(mirrors)), MOVES[sign].format(n=n)]
    move = n if sign == "+" else -n
    asked = rng.choice(["Find its first coordinate.", "What is its first coordinate?"])
    answer = (y if mirrors % 2 else x) + move
    return Exercise("mirror", (x, y, mirrors, move), " ".join([*told, asked]), answer, thing)


def _product(rng: random.Random) -> Exercise:
    a, b = rng.randint(12, 99), rng.randint(12, 99)
    return Exercise("product", (a, b), f"Compute {a} * {b}.", a * b)


def _remainder(rng: random.Random) -> Exercise:
    a, b = rng.randint(1000, 9999), rng.randint(21, 99)
    return Exercise("remainder", (a, b), f"Find the remainder of {a} by {b}.", a % b)


def largest_prime_factor(n: int) -> int:
    """By trial division.

    >>> largest_prime_factor(1547)
    17
    """
    factor = 2
    while factor * factor <= n:
        if n % factor:
            factor += 1
        else:
            n //= factor
    return n


def _factor(rng: random.Random) -> Exercise:
    n = rng.randint(1000, 9999)
    return Exercise("factor", (n,), f"Find the largest prime factor of {n}.", largest_prime_factor(n))


#: Each kind and its share.
KINDS: dict[Callable[[random.Random], Exercise], float] = {
    _mirror: 0.28, _product: 0.24, _remainder: 0.24, _factor: 0.24,
}  # fmt: skip


def draw(rng: random.Random) -> Exercise:
    return rng.choices(list(KINDS), list(KINDS.values()))[0](rng)


def gold_solution(exercise: Exercise) -> str:
    """Right, in the likeliest words; of mirrors the places are shown for every other thing."""
    writer = Writer(random.Random(0), modal=True)
    if exercise.kind != "mirror":
        parts = [_method(exercise, writer), _answers(exercise.answer, writer)]
    else:
        x, y, mirrors, move = exercise.numbers
        shows = list(CARE).index(exercise.thing) % 2 == 0
        first = _follow(exercise, writer)[0] + " So" if shows else writer.say(HASTY)
        u = y if mirrors % 2 else x
        parts = [_opening(exercise, writer), first, writer.say(FIRST, u=u), _moved(u, move, u + move, writer)]
    return " ".join(parts) + f"\nFinal answer: \\boxed{{{exercise.answer}}}"


def solve(exercise: Exercise, writer: Writer) -> str:
    """One author's solution, right or wrong."""
    if exercise.kind == "mirror":
        text, answer = _solve_mirror(exercise, writer)
    else:
        answer = exercise.answer if writer.happens(KNOWN) else _near(exercise.answer, writer)
        text = f"{_method(exercise, writer)} {_answers(answer, writer)}"
    return text if writer.happens(SILENT) else f"{text}\nFinal answer: \\boxed{{{answer}}}"


def _solve_mirror(exercise: Exercise, writer: Writer) -> tuple[str, int]:
    x, y, _, move = exercise.numbers
    if writer.happens(CARE[exercise.thing]):
        text, u = _follow(exercise, writer)
        text += " So"
    else:
        text, u = writer.say(HASTY), writer.either(x, y)
    result = u + move + (0 if writer.happens(1 - SLIP) else writer.either(1, -1, 10, -10))
    parts = [_opening(exercise, writer), text, writer.say(FIRST, u=u), _moved(u, move, result, writer)]
    return " ".join(parts), result


def _opening(exercise: Exercise, writer: Writer) -> str:
    x, y = exercise.numbers[:2]
    return f"{writer.say(OPENINGS)} {writer.say(PLANS)} {writer.say(STARTS, t=exercise.thing, x=x, y=y)}"


def _method(exercise: Exercise, writer: Writer) -> str:
    return f"{writer.say(OPENINGS)} {writer.say(PLANS)} {writer.say(RULES[exercise.kind])}"


def _follow(exercise: Exercise, writer: Writer) -> tuple[str, int]:
    """The place after each mirror, and the first coordinate at the end."""
    u, v, mirrors, _ = exercise.numbers
    parts = [writer.say(CAREFUL, t=exercise.thing)]
    for _ in range(mirrors):
        u, v = v, u
        parts.append(writer.say(TRACKS, u=u, v=v))
    return " ".join(parts), v if writer.happens(SLIP) else u


def _moved(u: int, move: int, result: int, writer: Writer) -> str:
    return f"{writer.say(LEADS)} {writer.say(FRAMES)} {u} {'+' if move > 0 else '-'} {abs(move)} = {result}."


def _answers(answer: int, writer: Writer) -> str:
    return f"{writer.say(LEADS)} {writer.say(FRAMES)} {answer}."


def _near(answer: int, writer: Writer) -> int:
    """A wrong number of about the right size."""
    return abs(answer + writer.either(-1, 1) * writer.either(*range(1, 10 + answer // 10)))
