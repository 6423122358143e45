"""What the paper claims (§ 3, Tables 1–2, Figures 2–4), each sentence with the effects that decide on it."""

from irpo_lib.results.claims import Claim
from irpo_lib.results.effects import (
    SAME,
    changes,
    fewer_pairs,
    gain,
    gains,
    margin_growth,
    same,
    shrinking_gains,
)


def beats(name: str, task: str, better: str, worse: str, sentence: str, place: str, paper: str) -> Claim:
    """One model is better than another; "last" is that of the last iteration."""
    return Claim(name, task, sentence, place, paper, "points", lambda r: [gain(r, better, worse)])


def votes_help(name: str, task: str, model: str, sentence: str, place: str, paper: str) -> Claim:
    return Claim(name, task, sentence, place, paper, "points", lambda r: [gain(r, model, model, measure="majority")])


def moves(name: str, task: str, sentence: str, place: str, paper: str, *terms: tuple[float, str, str]) -> Claim:
    """A weighted sum of changes of log-probs, (weight, model, measured on) each, is above zero."""
    return Claim(name, task, sentence, place, paper, "nats", lambda r: [changes(r, *terms)])


_FOUR = ("dpo", "M1", "dpo-from-sft", "irpo-from-sft")
_BOTH_WAYS = (
    "our DPO+NLL training (blue) manages to decrease the rejected probabilities while increasing the chosen "
    "probabilities."
)
_SHORT = (
    "… improves results to 65.2% over SFT on the gold solutions alone, but still falls short of the performance of the "
    "first iteration of Iterative RPO."
)
_MARGIN = "In all four settings, the margin between the two curves continues increasing."
_NLL_LIFTS = "when training with DPO with NLL loss, the log probabilities increase noticeably"
_MORE_DATA = "In both cases performance improves compared to less data, but not as much as performing two iterations."
_VOTES = (
    "If … we use majority voting over 32 samples (sampling with temperature 0.8) … we can improve the accuracy of our "
    "approach"
)
_ARC = "These results outperform zero-shot CoT (77.8%), SFT on chosen sequences (79.8%) and standard DPO (83.5%)."
_ARC_VOTES = (
    "Majority voting using the model in the third iteration (32 samples, temperature 0.8) leads to another small boost "
    "(87.9%)."
)
_MATH = "These results outperform few-shot CoT (12.5%), SFT on chosen sequences (16.8%) and standard DPO (12.4%)."
_MATH_VOTES = "Majority voting (32 samples, temperature 0.8) leads to a significant boost in performance (29.1%)."

CLAIMS: tuple[Claim, ...] = (
    # --- Figures 2 and 3: GSM8K ---
    moves("SFT on chosen raises rejected too (at least half as much as chosen)", "gsm8k",
          "Although SFT training (solid green) is on chosen sequences … only, the rejected sequence log probabilities "
          "(dotted green) also increase and are close to the chosen sequence probabilities.",
          "Figure 2a", "both rise together", (1, "sft-chosen", "rejected"), (-0.5, "sft-chosen", "chosen")),
    moves("DPO+NLL raises chosen", "gsm8k", _BOTH_WAYS, "Figure 2a", "rises", (1, "M1", "chosen")),
    moves("DPO+NLL lowers rejected", "gsm8k", _BOTH_WAYS, "Figure 2a", "falls", (-1, "M1", "rejected")),
    moves("DPO+NLL lowers rejected more than SFT on chosen does", "gsm8k",
          "In contrast, our DPO+NLL training (blue) manages to decrease the rejected probabilities",
          "Figure 2a", "falls, rises", (-1, "M1", "rejected"), (1, "sft-chosen", "rejected")),
    moves("SFT on gold barely raises the model's own chosen (under a fifth of gold's rise)", "gsm8k",
          "Another observation is that the chosen sequence probabilities barely increase.", "Figure 2b", "barely",
          (0.2, "sft-gold", "gold"), (-1, "sft-gold", "chosen")),
    moves("DPO alone lowers chosen", "gsm8k",
          "the log probability of chosen sequences in standard DPO without NLL loss (solid orange) decreases over "
          "training steps", "Figure 3", "falls", (-1, "dpo", "chosen")),
    moves("DPO alone lowers chosen more when started from SFT", "gsm8k",
          "… especially if the model is initialized from SFT training on chosen sequences", "Figure 3b",
          "falls faster", (1, "dpo", "chosen"), (-1, "dpo-from-sft", "chosen")),
    Claim("the margin grows in all four settings", "gsm8k", _MARGIN, "Figure 3", "grows", "nats",
          lambda r: [margin_growth(r, m, 0.0) for m in _FOUR]),
    Claim("the margin goes on growing in the second half of training, in all four", "gsm8k", _MARGIN, "Figure 3",
          "grows", "nats", lambda r: [margin_growth(r, m, 0.5) for m in _FOUR]),
    # --- Table 1: GSM8K ---
    beats("Iterative RPO beats M0", "gsm8k", "last", "M0",
          "increasing the base model accuracy by 47% (from 55.6% to 81.6%) in total.", "§ 3.1", "+26.0"),
    beats("DPO+NLL beats DPO", "gsm8k", "M1", "dpo",
          "We see a large performance drop (73.1% vs. 61.8%) using DPO compared to our method after one iteration.",
          "§ 3.1", "+11.3"),
    beats("DPO+NLL beats DPO from SFT", "gsm8k", "M1", "dpo-from-sft",
          "The gap remains large even when the standard DPO training starts from the superior SFT-tuned model",
          "§ 3.1", "+12.8"),
    beats("DPO+NLL beats SFT on chosen (STaR)", "gsm8k", "M1", "sft-chosen", _SHORT, "§ 3.1", "+7.9"),
    beats("DPO+NLL beats SFT on gold", "gsm8k", "M1", "sft-gold",
          "SFT gives a boost in performance compared to zero-shot CoT from 55.6% to 63.5% but still far from the 81.6% "
          "of Iterative RPO.", "§ 3.1", "+9.6"),
    beats("SFT on gold beats M0", "gsm8k", "sft-gold", "M0",
          "SFT gives a boost in performance compared to zero-shot CoT from 55.6% to 63.5%", "§ 3.1", "+7.9"),
    beats("SFT on chosen beats SFT on gold", "gsm8k", "sft-chosen", "sft-gold", _SHORT, "§ 3.1", "+1.7"),
    beats("DPO beats M0", "gsm8k", "dpo", "M0",
          "DPO performance, while being better than zero-shot CoT, is no better than the SFT model", "§ 3.1", "+6.2"),
    Claim(f"starting from SFT changes nothing (within {SAME:g} points)", "gsm8k",
          "whether we initialize with Llama-2-70b-chat or SFT on chosen for Iterative RPO, accuracy … results of first "
          "iteration training do not seem to deviate", "§ 3.1", "0.0", "points",
          lambda r: same(r, "irpo-from-sft", "M1")),
    Claim("accuracy rises with each iteration", "gsm8k",
          "We see performance improves across each iteration, from 73.1% to 78.0% to 81.1% to 81.6%.", "§ 3.1",
          "+17.5, +4.9, +3.1, +0.5", "points", gains),
    Claim("the gains shrink", "gsm8k", "However, the gain decays across the iterations", "§ 3.1",
          "17.5 > 4.9 > 3.1 > 0.5", "points", shrinking_gains),
    beats("two iterations beat one on twice the data", "gsm8k", "M2", "irpo-twice",
          "Iterative RPO with twice as much data obtains 74.8% … however, training for two iterations obtains 78.0%.",
          "§ 3.1", "+3.2"),
    beats("twice the data beats once, Iterative RPO", "gsm8k", "irpo-twice", "M1", _MORE_DATA, "§ 3.1", "+1.7"),
    beats("twice the data beats once, STaR", "gsm8k", "star-twice", "sft-chosen", _MORE_DATA, "§ 3.1", "+1.7"),
    votes_help("majority voting helps M0", "gsm8k", "M0",
               "we find a similarly large improvement over the zero-shot chain-of-thought with majority vote",
               "§ 3.1", "+15.1"),
    votes_help("majority voting helps the last model", "gsm8k", "last", _VOTES, "§ 3.1", "+7.1"),
    # --- Table 2 and Figure 4a: ARC ---
    moves("ARC: DPO+NLL raises chosen", "arc", _NLL_LIFTS, "Figure 4a", "rises", (1, "M1", "chosen")),
    moves("ARC: DPO+NLL raises chosen more than DPO", "arc", _NLL_LIFTS, "Figure 4a", "rises, barely",
          (1, "M1", "chosen"), (-1, "dpo", "chosen")),
    Claim("ARC: accuracy rises with each iteration", "arc",
          "Iterative RPO provides increased performance across iterations (84.8%, 86.2%, 86.7%)", "§ 3.2",
          "+7.0, +1.4, +0.5", "points", gains),
    beats("ARC: Iterative RPO beats M0", "arc", "last", "M0", _ARC, "§ 3.2", "+8.9"),
    beats("ARC: DPO+NLL beats SFT on chosen after one iteration", "arc", "M1", "sft-chosen", _ARC, "Table 2", "+5.0"),
    beats("ARC: DPO+NLL beats DPO after one iteration", "arc", "M1", "dpo", _ARC, "Table 2", "+2.0"),
    votes_help("ARC: majority voting helps M0", "arc", "M0", _ARC_VOTES, "Table 2", "+5.1"),
    votes_help("ARC: majority voting helps the last model", "arc", "last", _ARC_VOTES, "§ 3.2", "+1.2"),
    Claim("ARC: there are fewer pairs with each iteration", "arc",
          "The decrease in the number of examples is due to the lack of incorrect samples for a number of questions in "
          "later iterations.", "§ 3.2", "20k, 11k, 5k", "% of pairs", fewer_pairs),
    # --- Table 2 and Figure 4b: MATH ---
    moves("MATH: DPO+NLL raises chosen", "math", _NLL_LIFTS, "Figure 4b", "rises", (1, "M1", "chosen")),
    moves("MATH: DPO+NLL raises chosen more than DPO", "math", _NLL_LIFTS, "Figure 4b", "rises, barely",
          (1, "M1", "chosen"), (-1, "dpo", "chosen")),
    Claim("MATH: accuracy rises with each iteration", "math",
          "Iterative RPO provides increased performance across iterations, from 17.7% to 19.9% to 20.8%.", "§ 3.3",
          "+5.2, +2.2, +0.9", "points", gains),
    beats("MATH: Iterative RPO beats M0", "math", "last", "M0", _MATH, "§ 3.3", "+8.3"),
    beats("MATH: DPO+NLL beats SFT on chosen after one iteration", "math", "M1", "sft-chosen", _MATH, "Table 2",
          "+0.9"),
    beats("MATH: DPO+NLL beats DPO after one iteration", "math", "M1", "dpo", _MATH, "Table 2", "+5.3"),
    beats("MATH: DPO falls below M0", "math", "M0", "dpo",
          "In particular, … DPO degrades the performance compared to initialization.", "§ 3.3", "+0.1"),
    beats("MATH: DPO from SFT falls below M0", "math", "M0", "dpo-from-sft",
          "In particular, … DPO degrades the performance compared to initialization.", "Table 2", "+2.0"),
    votes_help("MATH: majority voting helps M0", "math", "M0", _MATH_VOTES, "Table 2", "+6.3"),
    votes_help("MATH: majority voting helps the last model", "math", "last", _MATH_VOTES, "§ 3.3", "+8.3"),
)  # fmt: skip
