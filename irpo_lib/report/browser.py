"""What the sample browser of a report shows, as plain values for JSON: problems, samples, pairs and log-ratios."""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from irpo_lib.pairs import response_key
from irpo_lib.records import Completion, PreferencePair, Problem
from irpo_lib.report.folder import RunFolder
from irpo_lib.tasks.answers import LETTERS
from irpo_lib.terminal.errors import UserError

#: `response_key` → the response's tokens and log-ratios, or its text.
Responses = dict[str, dict[str, Any]]


def browser_data(run: RunFolder, most: int, with_models: bool) -> dict[str, Any]:
    """The browser's data for at most so many problems; `with_models` for the log-ratios of tokens."""
    ids = run.choose(most)
    problems, note = run.problems()
    samples = {t: run.samples(t, ids) for t in run.loop("reward")}
    every = [c for some in samples.values() for c in some]
    prompts = {c.problem_id: c.prompt_ids for c in every}
    shown = {i: _question(run, problems.get(i), prompts[i]) | {"id": i, "iterations": {}} for i in ids}
    texts: Responses = {response_key(c.prompt_ids, c.token_ids): {"text": c.text} for c in every}
    iterations, ratios = [], []
    for t, some in samples.items():
        pairs = run.pairs(t, ids)
        found, why = _log_ratios(run, t, pairs, with_models)
        ratios += [ratio for response in found.values() for ratio in response["ratios"]]
        known = texts | found
        for i, problem in shown.items():
            gold = problem.get("solution") or "(the gold solution)"
            own = _pairs((p for p in pairs if p.problem_id == i), known, gold)
            own["samples"] = [_sample(c) for c in some if c.problem_id == i]
            problem["iterations"][t] = own
        iterations.append({"t": t, "temperature": run.temperature(t), "why": why, "paired": t in run.loop("pairs")})
    counts = {"of": len(run.sampled), "samples": len(every)}
    return counts | {"iterations": iterations, "problems": [*shown.values()], "note": note, "scale": _scale(ratios)}


def _question(run: RunFolder, problem: Problem | None, prompt_ids: list[int]) -> dict[str, Any]:
    """What is known of a problem, or its prompt, decoded."""
    if problem:
        choices = [f"({a}) {c}" for a, c in zip(LETTERS, problem.choices or (), strict=False)]
        return {"question": problem.question, "answer": problem.answer, "solution": problem.gold_solution,
                "choices": choices}  # fmt: skip
    from irpo_lib.models.load import load_tokenizer

    folders = [run.of(f"M{t}", "train") / "model" for t in run.loop("train")]
    for name in filter(None, [run.seed_model, *map(str, (f for f in folders if f.is_dir()))]):
        with suppress(UserError):  # the next one may have a tokenizer
            return {"question": str(load_tokenizer(name).decode(prompt_ids, skip_special_tokens=True))}
    return {"question": "(no tokenizer to show the prompt with)"}


def _log_ratios(run: RunFolder, t: int, pairs: Sequence[PreferencePair], with_models: bool) -> tuple[Responses, str]:
    """The responses of an iteration's pairs as `token_ratios` has them, and, where there are none, why not."""
    if not with_models:
        return {}, "the report was made without the models"
    if not pairs:
        return {}, ""
    if t not in run.loop("train"):
        return {}, f"M{t} is not trained yet"
    from irpo_lib.report.ratios import token_ratios

    before = run.of(f"M{t - 1}", "train") / "model" if t > 1 else run.seed_model
    dtype = run.loop("train")[t].settings.get("dtype", "float32")
    try:
        return token_ratios(before, run.of(f"M{t}", "train") / "model", dtype, pairs), ""
    except UserError as error:
        return {}, str(error)


def _sample(c: Completion) -> dict[str, Any]:
    kind = "right" if c.reward == 1 else "none" if c.answer is None else "wrong"
    cut = c.finish_reason == "length"
    partial = None if c.reward in (0, 1) else c.reward
    return {"n": c.index, "kind": kind, "answer": c.answer, "reward": partial, "tokens": len(c.token_ids), "cut": cut,
            "text": c.text}  # fmt: skip


def _pairs(pairs: Iterable[PreferencePair], known: Responses, gold: str) -> dict[str, Any]:
    """Pairs by the numbers of their responses; each distinct response stands once, as pairs repeat them."""
    numbers: dict[str, int] = {}
    shown = []
    for p in pairs:
        keys = [response_key(p.prompt_ids, ids) for ids in (p.chosen_ids, p.rejected_ids)]
        chosen, rejected = (numbers.setdefault(key, len(numbers)) for key in keys)
        shown.append({"k": p.k, "chosen": chosen, "rejected": rejected, "source": p.chosen_source})
    return {"responses": [known.get(key, {"text": gold}) for key in numbers], "pairs": shown}


def _scale(ratios: Sequence[float]) -> float:
    """The log-ratio, in nats, at which a colour is full: 19 of 20 tokens are below it. A round number."""
    bound = np.quantile(np.abs(ratios), 0.95, method="lower") if ratios else 1.0
    return next((nice for nice in (0.1, 0.2, 0.5, 1.0, 2.0, 5.0) if bound <= nice), 10.0)
