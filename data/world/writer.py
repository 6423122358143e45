"""Chance, made explicit: every choice an author of the mini world makes, and every word, goes through one object.

Words come as in real language: paraphrases follow Zipf's law, and now and then a word is an odd one. Sampling below
temperature 1 is then sharper than the model itself, so that training on samples has something to gain everywhere.
"""

import random
import re
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")

#: The share of an author's small words that are odd ones, and what those are.
ODD = 0.15
ODD_WORDS = (  # noqa: SIM905
    "the of and to in is that it was for on are as with his they at be this from have or by one had not but what "
    "all were when we there can an your which their said if do will each about how up out them then she many some "
    "so these would other into has more her two like him see time could no make than first been its who now people "
    "my made over did down only way find use may water long little very after words called just where most know get "
    "through back much before go good write our used me man too any same look think also around another came come "
    "work three word must because does part even place well such here take why things help put years different away "
    "again off went old number great tell men say small every found still between name should home big give air "
    "line set own under read last never us end along while might next sound below saw something thought both few "
    "those always looked show large often together asked house world going want school important until form food "
    "keep children feet land side without boy once animals life enough took sometimes four head above kind began "
    "almost live page got earth need far hand year mother light parts country father let following picture being "
    "study second eyes soon times story boys since white days ever paper hard near sentence better best across "
    "during today others however sure means knew try told young miles ways thing whole hear example heard several "
    "change answer room against turned learn city play toward five using himself usually money"
).split()
#: The exponent of Zipf's law: the second of several paraphrases comes 0.4 times as often as the first.
ZIPF = 1.3


class Writer:
    """Draws an author's choices.

    `modal=True` takes the likeliest option each time: what a model that had learnt the corpus perfectly would
    write greedily, and the words of the gold solutions.
    """

    def __init__(self, rng: random.Random, modal: bool = False):
        self.rng = rng
        self.modal = modal

    def choose(self, options: Sequence[T]) -> T:
        """One of several options, by Zipf's law: the first is the likeliest."""
        if self.modal:
            return options[0]
        return self.rng.choices(options, [1 / (rank + 1) ** ZIPF for rank in range(len(options))])[0]

    def happens(self, probability: float) -> bool:
        return probability > 0.5 if self.modal else self.rng.random() < probability

    def either(self, *options: T) -> T:
        """One of several options that are equally likely; the first for a modal writer."""
        return options[0] if self.modal else self.rng.choice(options)

    def say(self, phrases: str | Sequence[str], **content: object) -> str:
        """One of the phrases, filled in; its small words may be odd ones, the content never is."""
        phrase = phrases if isinstance(phrases, str) else self.choose(phrases)
        return re.sub(r"\{\w+\}|[A-Za-z]+", self._word, phrase).format(**content)

    def _word(self, match: re.Match[str]) -> str:
        small = match[0].isalpha() and match[0].islower()
        return self.rng.choice(ODD_WORDS) if small and self.happens(ODD) else match[0]
