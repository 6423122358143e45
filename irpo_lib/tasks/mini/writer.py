"""Chance, made explicit: every choice an author of the mini world makes goes through one object."""

import random
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


class Writer:
    """Draws an author's choices.

    `modal=True` takes the likeliest option each time: what a model that had learnt the corpus perfectly would
    write greedily. It tells, before any training, how good greedy decoding can be in a world.
    """

    def __init__(self, rng: random.Random, modal: bool = False):
        self.rng = rng
        self.modal = modal

    def choose(self, options: Sequence[T], weights: Sequence[float] | None = None) -> T:
        if self.modal:
            return options[0] if weights is None else max(zip(weights, options, strict=True), key=lambda p: p[0])[1]
        return self.rng.choices(options, weights)[0]

    def happens(self, probability: float) -> bool:
        return probability > 0.5 if self.modal else self.rng.random() < probability
