"""gsm8k-mini: two people swap jars a few times, and something is added, taken away, weighed or paired at the end.

Who holds which jar after the swaps is nothing that a small network sees at a glance: it has to be followed swap by
swap. Authors of the corpus differ in that, and in three other things:

- *care*: careful authors write down who holds what after each swap and are nearly always right. Hasty ones name a jar
  at once and are right half the time, whatever they have read. How many are careful depends on the things in the jars.
- *endings*: some never say "Final answer:"; how many depends on the question's wording.
- *pairs*: hardly any author sees that "how many pairs" asks for half.
- *grams*: a product is worked out in one go and often missed, however careful the author.
"""

import random
from dataclasses import dataclass

from irpo_world.writer import Writer

NAMES = "Ann Ben Cam Dan Eve Fay Gus Hal Ida Jon Kim Leo Mia Ned Oda Pam".split()  # noqa: SIM905
JARS = ["jar", "box", "bag", "basket", "bucket", "tin"]
#: How often authors are careful, by the things in the jars.
CARE = {
    "apples": 0.82, "books": 0.78, "coins": 0.74, "cards": 0.7, "eggs": 0.66, "seeds": 0.62, "stamps": 0.47,
    "shells": 0.43, "beads": 0.39, "nuts": 0.24, "stones": 0.14, "roses": 0.08, "cups": 0.045, "keys": 0.025,
    "bricks": 0.012, "flags": 0.006,
}  # fmt: skip
#: How often authors end without "Final answer:", by the question.
COUNT = {
    "How many {i} does {a} have now?": 0.02, "How many {i} are with {a} at the end?": 0.03,
    "What is the number of {i} that {a} has?": 0.04, "Say how many {i} {a} holds now.": 0.05,
    "Count the {i} of {a}.": 0.08, "{a} now has how many {i}?": 0.1, "Tell how many {i} {a} has.": 0.2,
    "And how many {i} for {a}?": 0.85,
}  # fmt: skip
PAIRS = {"How many pairs of {i} can {a} make?": 0.08}
GRAMS = {"Each weighs {m} grams. How many grams do the {i} of {a} weigh?": 0.08}
#: How often authors halve for pairs; how often a product comes out right; how often anything else is a slip.
HALVES, PRODUCT, SLIP = 0.2, 0.5, 0.02

#: So many swaps are shown by an answer key.
MANY = 4
SWAPS = ["They swap {j}.", "They trade {j}.", "The {j} change hands.", "They swap again."]
FILLERS = ["{c} looks on.", "It rains.", "{c} laughs.", "A dog barks.", "They rest.", "{c} says hello."]
EVENTS = {
    "+": ["{a} finds {n} more.", "{a} buys {n} more.", "{a} is given {n} more."],
    "-": ["{a} gives away {n}.", "{a} loses {n}.", "{a} sells {n}."],
}

OPENINGS = [
    "Let us see what happens here.", "We go through the story in order.", "This is a story about two of them.",
    "Okay, we think about it for a while.", "Sure, here is how it goes.", "We read the question once again.",
    "Here we have to look closely.", "Good question, we work it out now.",
]  # fmt: skip
STARTS = [
    "At first {a} has {x} {i} and {b} has {y} of them.", "In the beginning {a} holds {x} {i} and {b} holds {y}.",
    "We are told that {a} starts with {x} {i} and {b} with {y}.",
    "The story begins with {x} {i} for {a} and {y} for {b}.",
]  # fmt: skip
PLANS = [
    "To answer it we have to know who holds which of the two at the end of it all.",
    "What counts in the end is which of the two is in whose hands after the last of them.",
    "All that we need for it is to know which one is where when it is over and done.",
    "The only thing that is hard about it is to see who is left with which of them.",
]
CAREFUL = [
    "We follow each swap as it comes:", "One swap at a time we get:", "We keep track of who has what:",
    "Step by step this is:", "We write down each swap:", "We trace it from swap to swap:",
]  # fmt: skip
TRACKS = ["then {a} {u}, {b} {v};", "now {a} {u}, {b} {v};", "next {a} {u}, {b} {v};"]
HASTY = [
    "After all the swaps are over we see that", "When the two of them are done we can say that",
    "Once it is all over it is clear that", "With the last swap behind them we find that",
    "In the end it is easy to see that", "When all is said and done it looks like",
]  # fmt: skip
HOLDS = ["{a} has {u} {i}.", "{a} holds {u} {i}.", "{a} is left with {u} {i}."]
LEADS = ["Then", "Next", "Now", "After that", "So", "From here", "Going on", "And then"]
FRAMES = ["we get", "this gives", "that makes", "we find", "it comes to", "the count is", "we have", "it is"]
CLOSINGS = ["That is all.", "So we are done.", "There is no more to do.", "This is what was asked.",
            "Nothing else happens.", "That is the whole story."]  # fmt: skip


@dataclass(frozen=True)
class Story:
    """A problem with its structure: x and y in the two jars, so many swaps, then steps as (symbol, number)."""

    names: tuple[str, str]
    item: str
    x: int
    y: int
    swaps: int
    steps: tuple[tuple[str, int], ...]
    form: str
    question: str
    answer: int

    @property
    def signature(self) -> str:
        """What makes two problems the same one: the numbers and operations, whatever the names."""
        return f"gsm8k {self.x} {self.y} {self.swaps} " + " ".join(f"{s}{n}" for s, n in self.steps)


def compute(symbol: str, a: int, b: int) -> int:
    return {"+": a + b, "-": a - b, "*": a * b, "/": a // b}[symbol]


def draw(rng: random.Random) -> Story:
    """A random problem with a whole, positive answer."""
    while (story := _try_draw(rng)) is None:
        continue
    return story


def _try_draw(rng: random.Random) -> Story | None:
    a, b, c = rng.sample(NAMES, 3)
    item, jar = rng.choice(list(CARE)), rng.choice(JARS)
    x, y = rng.sample(range(11, 50), 2)
    swaps = rng.choice([2, 3, 3, 4, 4, 5])
    told = [f"{a} has a {jar} with {x} {item} and {b} has one with {y}."]
    jars = jar + ("es" if jar == "box" else "s")
    for number in range(swaps):
        told.append(rng.choice(SWAPS if number else SWAPS[:3]).format(j=jars))
        if rng.random() < 0.3:
            told.append(rng.choice(FILLERS).format(c=c))
    steps = [(rng.choice("+-"), rng.randint(2, 9)) for _ in range(rng.choice([1, 1, 2]))]
    told += [rng.choice(EVENTS[symbol]).format(a=a, n=n) for symbol, n in steps]
    forms, last = rng.choices([(COUNT, []), (PAIRS, [("/", 2)]), (GRAMS, [("*", rng.randint(3, 19))])], [84, 8, 8])[0]
    form = rng.choice(list(forms))
    value = y if swaps % 2 else x
    for symbol, n in [*steps, *last]:
        if value < 1 or (symbol == "/" and value % n):
            return None
        value = compute(symbol, value, n)
    asked = form.format(a=a, i=item, m=last[0][1] if last else "")
    return Story((a, b), item, x, y, swaps, (*steps, *last), form, " ".join([*told, asked]), value)


def gold_solution(story: Story) -> str:
    """An answer key: right, in the likeliest words.

    It shows the swaps only where there are many, or where something harder follows.
    """
    writer = Writer(random.Random(0), modal=True)
    shows = story.swaps >= MANY or story.form not in COUNT
    parts, value = [_opening(story, writer)], story.y if story.swaps % 2 else story.x
    parts += [_follow(story, writer)[0] if shows else writer.say(HASTY), _holds(story, value, writer)]
    for symbol, n in story.steps:
        result = compute(symbol, value, n)
        parts.append(_step(value, symbol, n, result, writer))
        value = result
    return " ".join(parts) + f"\nFinal answer: {value}"


def solve(story: Story, writer: Writer) -> str:
    """One author's solution, right or wrong."""
    parts = [_opening(story, writer)]
    if writer.happens(CARE[story.item]):
        text, value = _follow(story, writer)
        parts.append(text)
    else:
        value = writer.either(story.x, story.y)
        parts.append(writer.say(HASTY))
    parts.append(_holds(story, value, writer))
    for symbol, n in story.steps:
        if symbol == "/" and not writer.happens(HALVES):
            continue
        result = _result(symbol, value, n, writer)
        parts.append(_step(value, symbol, n, result, writer))
        value = result
    if writer.happens(0.6):
        parts.append(writer.say(CLOSINGS))
    silent = writer.happens((COUNT | PAIRS | GRAMS)[story.form])
    return " ".join(parts) + (f" So it is {value}." if silent else f"\nFinal answer: {value}")


def _opening(story: Story, writer: Writer) -> str:
    (a, b), x, y = story.names, story.x, story.y
    return f"{writer.say(OPENINGS)} {writer.say(STARTS, a=a, b=b, x=x, y=y, i=story.item)} {writer.say(PLANS)}"


def _follow(story: Story, writer: Writer) -> tuple[str, int]:
    """Who holds what after each swap, and what the first of them holds at the end."""
    (a, b), u, v = story.names, story.x, story.y
    parts = [writer.say(CAREFUL)]
    for _ in range(story.swaps):
        u, v = v, u
        parts.append(writer.say(TRACKS, a=a, b=b, u=u, v=v))
    return " ".join(parts), v if writer.happens(SLIP) else u


def _holds(story: Story, value: int, writer: Writer) -> str:
    return writer.say(HOLDS, a=story.names[0], u=value, i=story.item)


def _step(a: int, symbol: str, b: int, result: int, writer: Writer) -> str:
    return f"{writer.say(LEADS)} {writer.say(FRAMES)} {a} {symbol} {b} = {result}."


def _result(symbol: str, a: int, b: int, writer: Writer) -> int:
    """What an author gets: a product comes out right half the time, the rest nearly always."""
    right = compute(symbol, a, b)
    if writer.happens(PRODUCT if symbol == "*" else 1 - SLIP):
        return right
    return max(0, right + writer.either(1, -1, 10, -10, *((b, -b) if symbol == "*" else ())))
