"""arc-mini: multiple choice about things that change back and forth, such as the tides; four options, no gold.

Which of its two states a thing is in after several changes has to be followed change by change. Careful authors write
each one down and are nearly always right; hasty ones see that two of the four options are out of the question and name
one of the others, right by luck half the time. How many are careful depends on the subject. Where a question says how
often something changes, as in "13 times", everyone is hasty: to count so far is beyond these authors.
"""

import random
from dataclasses import dataclass

from irpo_world.writer import Writer

LETTERS = "ABCD"


@dataclass(frozen=True)
class Subject:
    """A thing with two states: how often authors are careful with it, how it changes, what else may be offered."""

    care: float
    told: str
    states: tuple[str, str]
    changes: tuple[str, ...]
    often: str
    asked: tuple[str, ...]
    others: tuple[str, ...]


SUBJECTS = (
    Subject(0.85, "At the coast there is {s}.", ("flood", "ebb"),
            ("Six hours pass.", "A quarter of a day goes by.", "The tide turns."), "The tide turns {n} times.",
            ("What is there at the coast?", "What do we see now?"), ("ice", "lava", "smoke", "forest")),
    Subject(0.8, "On our side of the Earth it is {s}.", ("day", "night"),
            ("Half a turn goes by.", "The Earth makes half a turn.", "Twelve hours pass."),
            "Half a turn goes by {n} times.",
            ("What is it on our side?", "What do we have now?"), ("winter", "eclipse", "spring", "autumn")),
    Subject(0.75, "A switch sends current through the {s}.", ("lamp", "fan"),
            ("The switch is flipped.", "Someone turns the switch.", "The current takes the other way."),
            "The switch is flipped {n} times.",
            ("What has current now?", "Where does the current go?"), ("bell", "heater", "glass", "rubber")),
    Subject(0.7, "The lungs of a diver are {s}.", ("filled", "empty"),
            ("The diver breathes once.", "The chest moves.", "The air goes the other way."),
            "The chest moves {n} times.",
            ("How are the lungs now?", "How do we find the lungs?"), ("frozen", "solid", "magnetic", "dissolved")),
    Subject(0.62, "A pendulum is on the {s}.", ("left", "right"),
            ("It swings across.", "It goes to the other side.", "The pendulum swings."),
            "The pendulum swings {n} times.",
            ("Where is the pendulum?", "On which side is it now?"), ("ground", "roof", "moon", "sun")),
    Subject(0.5, "The pole that a magnet turns to us is {s}.", ("north", "south"),
            ("The magnet is turned over.", "Someone turns it around.", "The poles change places."),
            "The magnet is turned over {n} times.",
            ("Which pole faces us now?", "What do we see of it?"), ("equator", "orbit", "nucleus", "shadow")),
    Subject(0.3, "The sand of an hourglass is at the {s}.", ("top", "bottom"),
            ("The glass is turned.", "All the sand runs through.", "Someone turns the glass over."),
            "The glass is turned {n} times.",
            ("Where is the sand?", "Where do we find the sand now?"), ("neck", "desert", "beach", "sea")),
    Subject(0.18, "We look up and the moon is {s}.", ("new", "full"),
            ("Two weeks pass.", "Half a month goes by.", "The moon goes half way round."), "Two weeks pass {n} times.",
            ("How is the moon now?", "What do we see then?"), ("green", "square", "broken", "burning")),
    Subject(0.1, "A valve in the heart is {s}.", ("open", "closed"),
            ("The heart beats once.", "The blood pushes the valve.", "The valve moves."), "The valve moves {n} times.",
            ("How is the valve?", "How do we find it now?"), ("melted", "charged", "rusty", "transparent")),
    Subject(0.06, "The water in a lock stands {s}.", ("high", "low"),
            ("A ship goes through.", "The gates are worked.", "The water moves."), "The gates are worked {n} times.",
            ("How is the water?", "How does it stand now?"), ("sideways", "crooked", "salty", "hollow")),
)  # fmt: skip
FILLERS = ["A bird sings.", "It rains.", "Someone takes a note.", "The wind blows.", "Nobody speaks.", "A clock ticks."]
#: The share of questions that say how often something changes; how often authors slip in a change, or end in silence.
OFTEN, SLIP, SILENT = 0.15, 0.01, 0.04

OPENINGS = [
    "Let us go through it in order.", "We look at what happens here.", "Okay, we take it one after the other.",
    "This is about something that goes back and forth.", "We read the question once again.",
    "Sure, here is how it goes.",
]  # fmt: skip
STARTS = [
    "At first it is {s} and we can choose from {o} here.", "It begins with {s} and the options are {o} as we see.",
    "We have {s} to begin with, and there are {o} to choose from.", "The start is {s} and in the end it is one of {o}.",
]  # fmt: skip
PLANS = [
    "To answer it we have to know which of its two states it is in at the end of it all.",
    "What counts is only how it stands after the last of them, and the rest is of no use.",
    "All that we need for it is to know where it is when everything is over and done.",
]
CAREFUL = [
    "We follow each change as it comes:", "One change at a time we get:", "We keep track of it:",
    "Step by step this is:",
    "We write down each change:", "We trace it from one to the next:",
]  # fmt: skip
TRACKS = ["then {s};", "now {s};", "next {s};"]
HASTY = [
    "After all of this is over we see that", "When everything is done we can say that",
    "Once it is all over it is clear that",
    "With the last change behind us we find that", "In the end it is easy to see that",
    "When all is said and done it looks like",
]  # fmt: skip
ENDS = ["it must be {s} ({l}) as it is.", "we have {s} ({l}) at this point.", "we are at {s} ({l}) now.",
        "the right one is {s} ({l}) of these."]  # fmt: skip
CLOSINGS = ["The other options are out of the question.", "The rest of them make no sense here.",
            "That is all there is to it.",
            "So we are done with this one."]  # fmt: skip


@dataclass(frozen=True)
class Item:
    """A question with its structure: the first state (0 or 1), how many changes, and whether their number is given."""

    subject: Subject
    start: int
    changes: int
    often: bool
    question: str
    choices: tuple[str, ...]

    @property
    def state(self) -> str:
        return self.subject.states[(self.start + self.changes) % 2]

    @property
    def answer(self) -> str:
        return LETTERS[self.choices.index(self.state)]

    @property
    def signature(self) -> str:
        """What makes two questions the same one: the text, whatever the order of the options."""
        return f"arc {self.question} {' '.join(sorted(self.choices))}"


def draw(rng: random.Random) -> Item:
    """A random question: both states of the subject among the options, and two other things."""
    subject, start = rng.choice(SUBJECTS), rng.randrange(2)
    told = [subject.told.format(s=subject.states[start])]
    often = rng.random() < OFTEN
    changes = rng.choice([2, 3, 3, 4, 4, 5])
    for _ in range(0 if often else changes):
        told.append(rng.choice(subject.changes))
        if rng.random() < 0.4:
            told.append(rng.choice(FILLERS))
    if often:
        changes = rng.randint(11, 60)
        told += [rng.choice(FILLERS), subject.often.format(n=changes), rng.choice(FILLERS)]
    options = [*subject.states, *rng.sample(subject.others, 2)]
    rng.shuffle(options)
    return Item(subject, start, changes, often, " ".join([*told, rng.choice(subject.asked)]), tuple(options))


def solve(item: Item, writer: Writer) -> str:
    """One author's solution, right or wrong, with the changes written down or without."""
    states, at = item.subject.states, item.start
    options = ", ".join(f"{x} ({letter})" for x, letter in zip(item.choices, LETTERS, strict=True))
    parts = [writer.say(OPENINGS), writer.say(STARTS, s=states[at], o=options), writer.say(PLANS)]
    if not item.often and writer.happens(item.subject.care):
        parts.append(writer.say(CAREFUL))
        for _ in range(item.changes):
            at = at if writer.happens(SLIP) else 1 - at
            parts.append(writer.say(TRACKS, s=states[at]))
        parts.append("So")
    else:
        at = writer.either(0, 1)
        parts.append(writer.say(HASTY))
    letter = LETTERS[item.choices.index(states[at])]
    parts.append(writer.say(ENDS, s=states[at], l=letter))
    if writer.happens(0.5):
        parts.append(writer.say(CLOSINGS))
    return " ".join(parts) + ("" if writer.happens(SILENT) else f"\nFinal answer: {letter}")
