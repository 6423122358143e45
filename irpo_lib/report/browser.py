"""What the sample browser of a report shows, as plain values for JSON: problems, samples, pairs and log-ratios."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from irpo_lib.records import Completion, PreferencePair, Problem
from irpo_lib.report.folder import RunFolder
from irpo_lib.report.ratios import TokenRatios, token_ratios
from irpo_lib.tasks.answers import LETTERS
from irpo_lib.terminal.errors import UserError

#: (prompt ids, response ids), so that they can be looked up.
Key = tuple[tuple[int, ...], tuple[int, ...]]


@dataclass(frozen=True)
class Material:
    """What is shown of one iteration, and why tokens have no colours where they have none."""

    samples: list[Completion]
    pairs: list[PreferencePair]
    ratios: dict[Key, TokenRatios]
    without_colours: str


def browser_data(run: RunFolder, most: int, seed_model: str | None, with_models: bool) -> dict[str, Any]:
    """The browser's data for at most so many problems.

    Args:
        most: How many problems.
        seed_model: M0; None where it is not known.
        with_models: Whether the models are loaded for the log-ratios of tokens.
    """
    ids = run.choose(most)
    if not ids:
        return {"iterations": [], "problems": [], "of": 0, "note": "", "scale": 1.0}
    problems, note = run.problems()
    material = {t: _material(run, t, ids, seed_model, with_models) for t in run.loop("reward")}
    texts = {_key(c.prompt_ids, c.token_ids): c.text for m in material.values() for c in m.samples}
    iterations = [
        {"t": t, "temperature": _temperature(run, t), "why": m.without_colours, "paired": t in run.loop("pairs")}
        for t, m in material.items()
    ]
    shown = [_problem(i, problems.get(i), material, texts, run, seed_model) for i in ids]
    scale = _scale([r for m in material.values() for found in m.ratios.values() for r in found.ratios])
    return {"iterations": iterations, "problems": shown, "of": len(run.sampled), "note": note, "scale": scale}


def _material(run: RunFolder, t: int, ids: list[str], seed_model: str | None, with_models: bool) -> Material:
    samples, pairs = run.samples(t, ids), run.pairs(t, ids)
    if not with_models:
        return Material(samples, pairs, {}, "the report was made without the models")
    if not pairs:
        return Material(samples, pairs, {}, "")
    if t not in run.loop("train"):
        return Material(samples, pairs, {}, f"M{t} is not trained yet")
    keys = list(dict.fromkeys(_key(p.prompt_ids, r) for p in pairs for r in (p.chosen_ids, p.rejected_ids)))
    before = run.of(f"M{t - 1}", "train") / "model" if t > 1 else seed_model
    dtype = run.loop("train")[t].settings.get("dtype", "float32")
    try:
        found = token_ratios(before, run.of(f"M{t}", "train") / "model", dtype, [(list(p), list(r)) for p, r in keys])
    except UserError as error:
        return Material(samples, pairs, {}, str(error))
    return Material(samples, pairs, dict(zip(keys, found, strict=True)), "")


def _problem(
    problem_id: str, problem: Problem | None, material: dict[int, Material], texts: dict[Key, str], run: RunFolder,
    seed_model: str | None,
) -> dict[str, Any]:  # fmt: skip
    shown: dict[str, Any] = {"id": problem_id, "iterations": {}}
    if problem is None:
        shown["question"] = _prompt_text(run, problem_id, material, seed_model)
    else:
        shown |= {"question": problem.question, "answer": problem.answer, "solution": problem.gold_solution}
        shown["choices"] = [f"({a}) {c}" for a, c in zip(LETTERS, problem.choices or (), strict=False)]
    for t, m in material.items():
        samples = sorted((c for c in m.samples if c.problem_id == problem_id), key=lambda c: c.index)
        pairs = [p for p in m.pairs if p.problem_id == problem_id]
        gold = (problem.gold_solution if problem else None) or "(the gold solution)"
        shown["iterations"][t] = {"samples": [_sample(c) for c in samples], **_pairs(pairs, m, texts, gold)}
    return shown


def _sample(c: Completion) -> dict[str, Any]:
    kind = "right" if c.reward == 1 else "none" if c.answer is None else "wrong"
    cut = c.finish_reason == "length"
    partial = None if c.reward in (0, 1) else c.reward
    return {"n": c.index, "kind": kind, "answer": c.answer, "reward": partial, "tokens": len(c.token_ids), "cut": cut,
            "text": c.text}  # fmt: skip


def _pairs(pairs: Sequence[PreferencePair], m: Material, texts: dict[Key, str], gold: str) -> dict[str, Any]:
    """Pairs by the numbers of their responses; each distinct response stands once, as pairs repeat them."""
    numbers: dict[Key, int] = {}
    responses: list[dict[str, Any]] = []
    shown = []
    for pair in pairs:
        sides = []
        for ids in (pair.chosen_ids, pair.rejected_ids):
            key = _key(pair.prompt_ids, ids)
            if key not in numbers:
                numbers[key] = len(responses)
                responses.append(_response(m.ratios.get(key), texts.get(key, gold)))
            sides.append(numbers[key])
        shown.append({"k": pair.k, "chosen": sides[0], "rejected": sides[1], "source": pair.chosen_source})
    return {"responses": responses, "pairs": shown}


def _response(found: TokenRatios | None, text: str) -> dict[str, Any]:
    if found is None:
        return {"text": text}
    ratios = [round(r, 3) for r in found.ratios]
    return {"tokens": found.texts, "ratios": ratios, "before": round(found.before, 3), "after": round(found.after, 3)}


def _prompt_text(run: RunFolder, problem_id: str, material: dict[int, Material], seed_model: str | None) -> str:
    """The prompt, decoded, in place of a question that is not known."""
    from irpo_lib.models.load import load_tokenizer

    ids = next((c.prompt_ids for m in material.values() for c in m.samples if c.problem_id == problem_id), [])
    folders = [run.of(f"M{t}", "train") / "model" for t in run.loop("train")]
    for name in [seed_model, *map(str, (f for f in folders if f.is_dir()))]:
        try:
            if name:
                return str(load_tokenizer(name).decode(ids, skip_special_tokens=True))
        except UserError:  # the next one may have a tokenizer
            continue
    return "(no tokenizer to show the prompt with)"


def _temperature(run: RunFolder, t: int) -> float | None:
    made = run.loop("generate").get(t)
    return made.settings.get("temperature") if made else None


def _scale(ratios: list[float]) -> float:
    """The log-ratio, in nats, at which a colour is full: 19 of 20 tokens are below it. A round number."""
    if not ratios:
        return 1.0
    sizes = sorted(map(abs, ratios))
    bound = sizes[int(0.95 * (len(sizes) - 1))]
    return next((nice for nice in (0.1, 0.2, 0.5, 1.0, 2.0, 5.0) if bound <= nice), 10.0)


def _key(prompt: Sequence[int], response: Sequence[int]) -> Key:
    return tuple(prompt), tuple(response)
