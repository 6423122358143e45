"""Exercises of notebook 08."""

from math import sqrt

from irpo_exercises.checker import Exercise


def advantages(rewards: list[float]) -> list[float]:
    """GRPO's advantages of a problem's samples: (r − mean) / standard deviation (n − 1); 0 if all are alike."""
    mean = sum(rewards) / len(rewards)
    sd = sqrt(sum((r - mean) ** 2 for r in rewards) / (len(rewards) - 1))
    return [(r - mean) / sd if sd else 0.0 for r in rewards]


def _no_check(rewards):
    mean = sum(rewards) / len(rewards)
    sd = sqrt(sum((r - mean) ** 2 for r in rewards) / (len(rewards) - 1))
    return [(r - mean) / sd for r in rewards]


def _not_scaled(rewards):
    mean = sum(rewards) / len(rewards)
    return [r - mean for r in rewards]


def _not_centred(rewards):
    mean = sum(rewards) / len(rewards)
    sd = sqrt(sum((r - mean) ** 2 for r in rewards) / (len(rewards) - 1))
    return [r / sd if sd else 0.0 for r in rewards]


def _population(rewards):
    return [a * sqrt(len(rewards) / (len(rewards) - 1)) for a in advantages(rewards)]


def rejection_sampled(samples: list[tuple[str, str, int]]) -> list[tuple[str, str]]:
    """The data of rejection-sampling fine-tuning: the *different* right ones of (problem, response, reward).

    Of each problem all of them, in the order in which they were drawn.
    """
    return list(dict.fromkeys((problem, response) for problem, response, reward in samples if reward == 1))


def _with_copies(samples):
    return [(problem, response) for problem, response, reward in samples if reward == 1]


def _one_each(samples):
    found: dict[str, str] = {}
    for problem, response, reward in samples:
        if reward == 1:
            found.setdefault(problem, response)
    return list(found.items())


def _wrong_ones_too(samples):
    return list(dict.fromkeys((problem, response) for problem, response, _ in samples))


def _copies_across_problems(samples):
    found: dict[str, str] = {}
    for problem, response, reward in samples:
        if reward == 1:
            found.setdefault(response, problem)
    return [(problem, response) for response, problem in found.items()]


def sft_steps(irpo_steps: float) -> float:
    """Steps of SFT on chosen that cost as much as so many steps of DPO+NLL, at the same batch of pairs.

    A forward pass over a response costs 1, a backward pass 2. The reference scores both responses of each pair of
    each step, once. SFT needs no reference and no rejected responses.
    """
    return irpo_steps * (2 * (1 + 2) + 2 * 1) / (1 + 2)


EXERCISES = [
    Exercise(
        advantages,
        "GRPO's word for how much better a sample is than the others of its problem. What does a problem teach whose "
        "samples are all right?",
        2,
        10,
        "Where all rewards are alike, the standard deviation is 0: no division then.",
        [([1.0, 0.0, 0.0, 0.0],), ([1.0, 1.0, 0.0],), ([1.0, 1.0, 1.0, 1.0],), ([0.0, 0.0],)],
        {
            "where all samples are alike this divides by 0; such a problem teaches nothing": _no_check,
            "the advantages are not divided by the standard deviation": _not_scaled,
            "the mean is not subtracted, so that no sample is worse than another is good": _not_centred,
            "the standard deviation is divided by n; with few samples that makes a difference": _population,
        },
        needs="from math import sqrt",
    ),
    Exercise(
        rejection_sampled,
        "Rejection-sampling fine-tuning keeps what is right and different. A greedy-minded model draws the same "
        "response many times; it should not count many times.",
        1,
        5,
        "`dict.fromkeys` drops copies and keeps the order.",
        [
            ([("p", "2+2=4", 1), ("p", "2+2=5", 0), ("p", "2+2=4", 1), ("p", "it is 4", 1), ("q", "1", 0)],),
            ([("p", "4", 1), ("q", "4", 1), ("q", "5", 0)],),
            ([("p", "4", 0)],),
        ],
        {
            "copies are kept": _with_copies,
            "only one response a problem is kept": _one_each,
            "wrong responses are kept, too": _wrong_ones_too,
            "the same text to another problem is another response": _copies_across_problems,
        },
    ),
    Exercise(
        sft_steps,
        "What is *equal compute*? A step of DPO+NLL touches two responses, and its reference has read both before. How "
        "many SFT steps cost the same?",
        2,
        5,
        "For each pair: two responses forward and backward (2 × 3), and two forward by the reference. SFT: one "
        "response forward and backward.",
        [(90,), (0,), (12,)],
        {
            "the reference's forward passes are forgotten": lambda steps: steps * 2.0,
            "DPO+NLL trains on two responses and needs a reference: its steps cost more": lambda steps: steps * 1.0,
            "the reference does not compute gradients: its passes are forward only": lambda steps: steps * 4.0,
            "the other way round: SFT gets more steps, not fewer": lambda steps: steps * 3 / 8,
        },
    ),
]
