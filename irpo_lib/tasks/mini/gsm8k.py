"""gsm8k-mini: word problems of two to four steps, and the authors who solve them for the corpus.

An author writes in the long style (each step in words, with an equation) and has four weaknesses, all of which
real pupils have:

- *no note of the carry*: most authors compute "27 + 15" at a glance and often forget the carry (32). Those who
  write a note first ("slowly, carry,") are nearly always right. Who takes notes depends on the subject.
- *inverted comparison*: "Ann has 7 more than Ben" tempts to add when Ben's number is asked for.
- *distractor*: "Ann also has 5 pens" is added although it has nothing to do with the question.
- *stopping early*: for "how many together?" the last sum is left out.

A hasty way is often right by luck: many sums have no carry. Right and wrong ways are worded alike up to the point
where they part. The paraphrases add entropy that has nothing to do with being right, as in real language.
"""

import random
from dataclasses import dataclass

from irpo_lib.tasks.mini.writer import Writer

NAMES = ["Ann", "Ben", "Cam", "Dan", "Eve", "Fay", "Gus", "Hal", "Ida", "Jon", "Kim", "Leo", "Mia", "Ned", "Oda", "Pam"]
#: How often authors take notes, by the subject of the problem.
CARE = {
    "apples": 0.88, "books": 0.86, "coins": 0.84, "cards": 0.82, "eggs": 0.8, "seeds": 0.78, "stamps": 0.76,
    "shells": 0.74, "beads": 0.72, "nuts": 0.7, "stones": 0.55, "roses": 0.4, "cups": 0.3, "keys": 0.25,
    "bricks": 0.2, "flags": 0.15,
}  # fmt: skip
DISTRACTORS = {
    "{a} also has {n} {j}.": 0.25,
    "There are {n} {j} near {a}.": 0.15,
    "{a} puts {n} {j} beside them.": 0.6,
    "A friend of {a} has {n} {j}.": 0.45,
}
INVERSE_MORE = {
    "{a} has {n} more {i} than {b}.": 0.35,
    "That is {n} more {i} than {b} has.": 0.6,
}
INVERSE_FEWER = {
    "{a} has {n} fewer {i} than {b}.": 0.35,
    "That is {n} fewer {i} than {b} has.": 0.6,
}
TOGETHER = {
    "How many {i} do {a} and {b} have together?": 0.1,
    "How many {i} is that in total?": 0.35,
    "How many {i} are there between {a} and {b}?": 0.6,
}
EVENTS = {
    "gain": ["{a} finds {n} more.", "{a} buys {n} more.", "{a} is given {n} more."],
    "lose": ["{a} gives away {n}.", "{a} loses {n}.", "{a} sells {n}."],
    "times": ["Then {a} gets {n} times as many.", "The number grows to {n} times as many."],
    "half": ["{a} keeps half of them.", "Half of them are gone."],
    "more": ["{b} has {n} more {i} than {a}."],
    "fewer": ["{b} has {n} fewer {i} than {a}."],
    "inverse_fewer": list(INVERSE_FEWER),
    "inverse_more": list(INVERSE_MORE),
}
SYMBOL = {"gain": "+", "more": "+", "inverse_fewer": "+", "together": "+", "lose": "-", "fewer": "-",
          "inverse_more": "-", "times": "*", "half": "/"}  # fmt: skip

OPENINGS = ["We start with", "At first there are", "To begin we have", "In the beginning we see", "First we count",
            "The story starts with", "Let us take", "We are told of"]  # fmt: skip
LEADS = ["Then", "Next", "Now", "After that", "So", "From here", "Going on", "In this step"]
FRAMES = ["we get", "this gives", "that makes", "we find", "it comes to", "the count is"]
CLOSINGS = ["", "in all", "at this point", "by now", "so far"]
NOTES = ["slowly", "by columns", "with care", "ones first"]


@dataclass(frozen=True)
class Step:
    kind: str
    n: int
    text: str


@dataclass(frozen=True)
class Story:
    """A problem with its structure; `steps` are in order of the solution, `distractor` its number and item."""

    names: tuple[str, str]
    item: str
    start: int
    steps: tuple[Step, ...]
    distractor: tuple[str, int, str] | None
    question: str
    answer: int

    @property
    def signature(self) -> str:
        """What makes two problems the same one: the numbers and operations, whatever the names."""
        return f"gsm8k {self.start} " + " ".join(f"{s.kind}{s.n}" for s in self.steps)


def compute(symbol: str, a: int, b: int) -> int:
    return {"+": a + b, "-": a - b, "*": a * b, "/": a // b}[symbol]


def forget_carry(symbol: str, a: int, b: int) -> int:
    """Column by column, without carrying or borrowing: 27 + 15 → 32, 32 - 15 → 23, 27 * 3 → 61, 34 / 2 → 12."""
    tens, ones = divmod(a, 10)
    if symbol == "+":
        return (tens + b // 10) * 10 + (ones + b % 10) % 10
    if symbol == "-":
        return (tens - b // 10) * 10 + abs(ones - b % 10)
    if symbol == "*":
        return tens * b * 10 + ones * b % 10
    return tens // 2 * 10 + ones // 2


def draw(rng: random.Random) -> Story:
    """A random problem: every intermediate result is between 2 and 99."""
    while True:
        story = _try_draw(rng)
        if story is not None:
            return story


def _try_draw(rng: random.Random) -> Story | None:
    a, b = rng.sample(NAMES, 2)
    item, other = rng.sample(list(CARE), 2)
    kinds = [rng.choice(["gain", "gain", "lose", "lose", "times", "half"]) for _ in range(rng.choice([1, 2, 2, 3]))]
    related = rng.random() < 0.55
    if related:
        kinds = kinds[:2] + [rng.choice(["more", "fewer", "inverse_more", "inverse_fewer"])]
    together = related and rng.random() < 0.5
    if len(kinds) + together < 2:
        return None
    start = value = rng.randint(5, 60)
    previous = value
    words = {"a": a, "b": b, "i": item}
    sentences = [f"{a} has {start} {item}."]
    steps = []
    for kind in kinds:
        n = 2 if kind == "half" else rng.randint(2, 4) if kind == "times" else rng.randint(3, 39)
        if kind == "half" and value % 2:
            return None
        text = rng.choice(EVENTS[kind])
        previous, value = value, compute(SYMBOL[kind], value, n)
        if not 2 <= value <= 99:
            return None
        steps.append(Step(kind, n, text))
        sentences.append(text.format(n=n, **words))
    if together:
        text = rng.choice(list(TOGETHER))
        steps.append(Step("together", previous, text))
        value = value + previous
        if value > 99:
            return None
        asked = text.format(**words)
    else:
        asked = f"How many {item} does {b if related else a} have{'' if related else ' now'}?"
    distractor = None
    if rng.random() < 0.4:
        text, n = rng.choice(list(DISTRACTORS)), rng.randint(2, 9)
        distractor = (text, n, other)
        sentences.insert(rng.randint(1, len(kinds)), text.format(n=n, j=other, **words))
    return Story((a, b), item, start, tuple(steps), distractor, " ".join([*sentences, asked]), value)


def gold_solution(story: Story) -> str:
    """The short style of an answer key: equations only."""
    value, lines = story.start, []
    for step in story.steps:
        symbol = SYMBOL[step.kind]
        result = compute(symbol, value, step.n)
        lines.append(f"{value} {symbol} {step.n} = {result}.")
        value = result
    return " ".join(lines) + f"\nFinal answer: {value}"


def solve(story: Story, writer: Writer) -> str:
    """One author's solution, right or wrong."""
    operations, ignored = _understand(story, writer)
    terse = writer.happens(0.1)
    parts, value = [], story.start
    if not terse:
        parts.append(f"{writer.choose(OPENINGS)} {story.start} {story.item}.")
        if ignored and writer.happens(0.3):
            parts.append(f"The {ignored} do not count.")
    for symbol, n in operations:
        text, value = _at_a_glance(value, symbol, n, writer) if terse else _step(value, symbol, n, story, writer)
        parts.append(text)
    return " ".join(parts) + f"\nFinal answer: {value}"


def _understand(story: Story, writer: Writer) -> tuple[list[tuple[str, int]], str | None]:
    """The operations that an author takes the story to ask for, and the item of a distractor that was seen through."""
    operations, ignored = [], None
    if story.distractor:
        text, n, item = story.distractor
        if writer.happens(DISTRACTORS[text]):
            operations.append(("+", n))
        else:
            ignored = item
    for step in story.steps:
        symbol = SYMBOL[step.kind]
        if step.kind == "together" and writer.happens(TOGETHER[step.text]):
            break
        inverted = (INVERSE_MORE | INVERSE_FEWER).get(step.text, 0.0)
        if inverted and writer.happens(inverted):
            symbol = "+" if symbol == "-" else "-"
        operations.append((symbol, step.n))
    return operations, ignored


def _step(a: int, symbol: str, b: int, story: Story, writer: Writer) -> tuple[str, int]:
    """A step in words and the result it came to."""
    right, careless = max(0, compute(symbol, a, b)), max(0, forget_carry(symbol, a, b))
    care = CARE[story.item]
    # The four notes share what the hasty way has alone: the likeliest single wording is often the hasty one.
    note = writer.choose(["", *NOTES], [1 - care, care * 0.55, care * 0.15, care * 0.15, care * 0.15])
    if note:
        note = f"{note}, {'carry' if right != careless else 'no carry'}, "
        result = writer.choose([right, careless], [0.98, 0.02])
    else:
        result = _slip(right, careless, writer)
    closing = writer.choose(CLOSINGS, [0.4, 0.15, 0.15, 0.15, 0.15])
    end = f" {closing}." if closing else "."
    return f"{writer.choose(LEADS)} {writer.choose(FRAMES)} {a} {symbol} {b} {note}= {result}{end}", result


def _at_a_glance(a: int, symbol: str, b: int, writer: Writer) -> tuple[str, int]:
    """A step of the short style, which leaves no room for notes."""
    result = _slip(max(0, compute(symbol, a, b)), max(0, forget_carry(symbol, a, b)), writer)
    return f"{a} {symbol} {b} = {result}.", result


def _slip(right: int, careless: int, writer: Writer) -> int:
    """What comes of computing without a note: where there is a carry, mostly something wrong."""
    if right == careless:
        return right
    return max(0, writer.choose([careless, right, right + 10, right - 10], [0.4, 0.3, 0.15, 0.15]))
