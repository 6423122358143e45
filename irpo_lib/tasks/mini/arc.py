"""arc-mini: multiple choice about a small world of things, with three to five options and no gold solutions.

Careful authors judge every option before they choose. Hasty ones name a letter at once: where an option only looks
right (a penguin has wings, so "it can fly"), they mostly take it, elsewhere they know or guess. A guess is right by
luck about one time in four, so some right answers rest on nothing.
"""

import random
from dataclasses import dataclass

from irpo_lib.tasks.mini.writer import Writer

LETTERS = "ABCDE"


@dataclass(frozen=True)
class Quality:
    """What is asked for, who has it, who seems to have it, who clearly has not; how often authors are careful."""

    does: str
    does_not: str
    care: float
    true: str
    lures: str
    false: str


PROPERTIES = [
    Quality("can fly", "cannot fly", 0.85, "sparrow bee bat eagle moth gull owl wasp", "penguin ostrich kite emu",
             "stone spoon horse carrot crab whale snail brick"),
    Quality("lives in water", "does not live in water", 0.8, "whale crab trout squid shark eel salmon coral",
             "duck otter gull boat", "horse moth owl sparrow cactus goat bee hen"),
    Quality("is a metal", "is not a metal", 0.7, "iron copper gold silver tin zinc lead nickel",
             "mirror coal diamond glass", "paper wool cork leaf bread rope chalk wax"),
    Quality("carries current", "does not carry current", 0.5, "copper iron silver graphite seawater gold tin zinc",
             "rubber ice diamond glass", "wool paper cork wood plastic chalk wax bread"),
    Quality("floats on water", "does not float on water", 0.75, "cork wood ice wax oil feather leaf apple",
             "nail pumice needle soap", "stone brick iron lead gold coin copper glass"),
    Quality("is a mammal", "is not a mammal", 0.66, "horse whale bat goat otter dolphin mouse lion",
             "shark penguin turtle ostrich", "bee trout sparrow snail crab oak moth eel"),
    Quality("is a plant", "is not a plant", 0.78, "oak rose carrot moss cactus fern wheat pine",
             "coral mushroom sponge kelp", "horse iron bee crab stone glass hen brick"),
    Quality("attracts a magnet", "does not attract a magnet", 0.4,
             "iron nail steel nickel needle cobalt hammer anvil",
             "copper gold silver coin", "wood paper cork wool leaf bread glass rope"),
    Quality("lays eggs", "does not lay eggs", 0.68, "hen trout turtle moth snail crocodile eagle penguin",
             "bat whale dolphin oak", "horse goat lion mouse brick rose iron wool"),
    Quality("gives off light", "does not give off light", 0.72, "sun lamp candle star fire lightning torch firefly",
             "moon mirror diamond window", "brick rope stone bread horse carrot wool chalk"),
]  # fmt: skip

OPENINGS = ["Let us go through the options.", "We look at each one in turn.", "One after the other.",
            "We check them all."]  # fmt: skip
HASTY = "That is easy to see:"
YES = ["{x} {does}.", "indeed {x} {does}.", "we know that {x} {does}."]
NO = ["{x} {does_not}.", "surely {x} {does_not}.", "we know that {x} {does_not}."]
ENDINGS = ["So it is ({l}).", "That leaves ({l}).", "The choice is ({l}).", "We take ({l})."]
QUESTIONS = ["Which of these {does}?", "Find the one that {does}.", "Only one of these {does}. Which?"]


@dataclass(frozen=True)
class Item:
    quality: Quality
    question: str
    choices: tuple[str, ...]
    gold: int

    @property
    def answer(self) -> str:
        return LETTERS[self.gold]

    @property
    def signature(self) -> str:
        return f"arc {self.quality.does} {' '.join(sorted(self.choices))}"


def draw(rng: random.Random) -> Item:
    """A random question: one right option, two to four wrong ones, of which up to two look right."""
    prop = rng.choice(PROPERTIES)
    wrong = rng.choice([2, 3, 3, 3, 4])
    lures = rng.choice([0, 1, 1, 2])
    options = [rng.choice(prop.true.split()), *rng.sample(prop.lures.split(), lures),
               *rng.sample(prop.false.split(), wrong - lures)]  # fmt: skip
    right = options[0]
    rng.shuffle(options)
    question = rng.choice(QUESTIONS).format(does=prop.does)
    return Item(prop, question, tuple(options), options.index(right))


def solve(item: Item, writer: Writer) -> str:
    """One author's solution, right or wrong, with reasons or without."""
    prop, lures = item.quality, item.quality.lures.split()
    looks_right = [i for i, x in enumerate(item.choices) if x in lures]
    if not writer.happens(prop.care):
        if looks_right and writer.happens(0.65):
            pick = writer.choose(looks_right)
        else:
            pick = item.gold if writer.happens(0.6) else writer.rng.randrange(len(item.choices))
        return f"{HASTY} {item.choices[pick]} {prop.does}. " + _end(pick, writer)
    parts, believed = [writer.choose(OPENINGS, [0.7, 0.1, 0.1, 0.1])], []
    for i, x in enumerate(item.choices):
        belief = 0.95 if i == item.gold else 0.2 if i in looks_right else 0.0
        believes = belief > 0 and writer.happens(belief)
        if believes:
            believed.append(i)
        frame = writer.choose(YES if believes else NO)
        parts.append(f"({LETTERS[i]}) " + frame.format(x=x, does=prop.does, does_not=prop.does_not))
    pick = writer.choose(believed) if believed else writer.rng.randrange(len(item.choices))
    return " ".join(parts) + " " + _end(pick, writer)


def _end(pick: int, writer: Writer) -> str:
    return f"{writer.choose(ENDINGS).format(l=LETTERS[pick])}\nFinal answer: {LETTERS[pick]}"
