"""Exercises of notebook 04."""

from math import exp, log1p

from irpo_exercises.checker import Exercise


def nll(token_logps: list[float], prompt_length: int) -> float:
    """The NLL term of one winner. `token_logps`: the log-probs of prompt and response, token by token."""
    response = token_logps[prompt_length:]
    return -sum(response) / len(response)


def dpo(
    policy_chosen: float,
    policy_rejected: float,
    reference_chosen: float,
    reference_rejected: float,
    beta: float,
) -> float:
    """The DPO term of one pair, from four log-probs: −log σ(margin)."""
    margin = beta * ((policy_chosen - reference_chosen) - (policy_rejected - reference_rejected))
    return log1p(exp(-margin))


def _term(margin):
    return log1p(exp(-margin))


def pull(h: float, beta: float, alpha: float, length: int) -> float:
    """∂L/∂(log-prob of the winner), for a difference h of log-ratios and a winner of `length` tokens."""
    return -beta / (1 + exp(beta * h)) - alpha / length


EXERCISES = [
    Exercise(
        nll,
        "The model gives a log-prob to every token of *prompt and response*. The NLL term of Equation 1 is about the "
        "response alone, and it is divided by the response's own length.",
        1,
        5,
        "Cut the prompt off first. Then sum, length and sign concern the response only.",
        [([-9.0, -1.0, -2.0, -3.0], 2), ([-5.0, -4.0, -3.0, -0.5], 3), ([-1.0, -2.0], 0)],
        {
            "the NLL is divided by the prompt's length too": lambda t, p: -sum(t[p:]) / len(t),
            "the prompt's tokens are in the sum, too": lambda t, p: -sum(t) / len(t),
            "it is not divided by the response's length": lambda t, p: -sum(t[p:]),
            "the sign is wrong: a loss falls when the winner becomes likelier": lambda t, p: sum(t[p:]) / len(t[p:]),
        },
    ),
    Exercise(
        dpo,
        "The DPO term of Equation 1 for one pair. With the numbers of pair 1 above it must be 0.3133.",
        2,
        10,
        "First the two log-ratios (policy − reference), then their difference, then $\\beta$, then "
        "$-\\log \\sigma(m) = \\log(1 + e^{-m})$.",
        [(-10.0, -12.0, -11.0, -11.0, 0.5), (-20.0, -18.0, -20.0, -19.0, 0.5), (-30.0, -31.0, -28.0, -35.0, 0.1)],
        {
            "the reference is left out": lambda w, x, rw, rx, b: _term(b * (w - x)),
            "winner and loser are exchanged": lambda w, x, rw, rx, b: _term(-b * (w - rw - x + rx)),
            "β is left out": lambda w, x, rw, rx, b: _term(w - rw - x + rx),
            "β stands before the logarithm, not inside σ": lambda w, x, rw, rx, b: b * _term(w - rw - x + rx),
            "this is the margin; −log σ is missing": lambda w, x, rw, rx, b: b * (w - rw - x + rx),
            "the minus sign before the logarithm is missing": lambda w, x, rw, rx, b: -_term(b * (w - rw - x + rx)),
        },
        needs="from math import exp, log1p",
    ),
    Exercise(
        pull,
        "How strongly does Equation 1 pull at the *winner's* log-probability? Differentiate both terms. This is the "
        "figure of the gradient above as a formula.",
        3,
        15,
        "$h$ contains the winner's log-prob with the factor 1, so $\\partial \\mathcal{L}_\\text{DPO} / \\partial h = "
        "-\\beta\\,\\sigma(-\\beta h)$ is its part. The NLL term is linear.",
        [(0.0, 0.5, 1.0, 20), (3.0, 0.1, 1.0, 50), (-8.0, 1.0, 0.5, 10), (2.0, 1.0, 0.0, 10)],
        {
            "the sign in σ: the pull must fade as h grows": lambda h, b, a, n: -b / (1 + exp(-b * h)) - a / n,
            "the inner derivative β is missing": lambda h, b, a, n: -1 / (1 + exp(b * h)) - a / n,
            "the NLL term is divided by the length": lambda h, b, a, n: -b / (1 + exp(b * h)) - a,
            "the NLL term is missing": lambda h, b, a, n: -b / (1 + exp(b * h)),
            "the sign: the loss falls as the winner gets likelier": lambda h, b, a, n: b / (1 + exp(b * h)) + a / n,
        },
        needs="from math import exp",
    ),
]
