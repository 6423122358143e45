"""What an iteration's training did to each token of its pairs: log M_t(token) − log M_{t−1}(token), in nats."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from irpo_lib.fast.batches import Tokens
from irpo_lib.fast.predict import choose_path
from irpo_lib.fast.tree_attention import NAME as PREFIX_TREE
from irpo_lib.logprobs import DistinctResponses, score_tokens
from irpo_lib.models.load import load_model, load_tokenizer
from irpo_lib.records import PreferencePair
from irpo_lib.terminal.errors import UserError
from irpo_lib.terminal.progress import Progress


def token_ratios(
    before: str | Path | None, after: Path, dtype: str, pairs: Sequence[PreferencePair]
) -> dict[str, dict[str, Any]]:
    """The log-ratios of the pairs' responses under the model that training started from and the one that it made.

    Args:
        before: M_{t−1}: a folder of the run, the name of M0, or None where that is not known.
        after: The folder of M_t.
        dtype: What the models compute in.

    Returns:
        `response_key` → the text of each token, its log-ratio, and the response's log-prob before and after training,
        of three decimals each.

    Raises:
        UserError: a model is missing, cannot be loaded, or does not fit into memory.
    """
    if before is None:
        raise UserError("the model that training started from is not known, or is another one now")
    for folder in (before, after):
        if isinstance(folder, Path) and not folder.is_dir():
            raise UserError(f"the model's folder {folder} is missing")
    tokenizer, responses = load_tokenizer(str(after)), DistinctResponses(pairs)
    old, new = (_logps(str(model), dtype, responses) for model in (before, after))
    found = {}
    for key, (_, ids), a, b in zip(responses.keys, responses, old, new, strict=True):
        ratios = [round(y - x, 3) for x, y in zip(a, b, strict=True)]
        found[key] = {"tokens": token_texts(tokenizer, ids), "ratios": ratios}
        found[key] |= {"before": round(sum(a), 3), "after": round(sum(b), 3)}
    return found


def token_texts(tokenizer: Any, ids: Sequence[int]) -> list[str]:
    """The text that each token adds; joined they are the decoded response, special tokens included.

    A character of several byte tokens is the text of its last one; those before it add nothing.
    """
    texts: list[str] = []
    start = given = 0  # ids[start:given] is the text before, as context: some tokenizers drop a text's first space
    for place in range(len(ids)):
        known, text = _decode(tokenizer, ids[start:given]), _decode(tokenizer, ids[start : place + 1])
        if text.endswith("\ufffd") and place + 1 < len(ids):
            texts.append("")
            continue
        texts.append(text[len(known) :])
        start, given = given, place + 1
    return texts


def _decode(tokenizer: Any, ids: Sequence[int]) -> str:
    return tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False) if ids else ""


def _logps(name: str, dtype: str, responses: Sequence[Tokens]) -> list[list[float]]:
    """The log-prob of each token of each response under a model, which is let go before the next is loaded."""
    found: dict[int, list[float]] = {}
    try:
        model = choose_path(load_model(name, dtype), PREFIX_TREE)
        with Progress(len(responses), "log-ratios", "responses") as progress:
            for index, logps in score_tokens(model, responses, progress=progress):
                found[index] = logps.tolist()
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise UserError(f"{name} does not fit into this machine's memory") from error
    return [found[i] for i in range(len(responses))]
