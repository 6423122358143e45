"""What happens to log-probabilities during training: Figures 2, 3 and 4.

The same few pairs are scored every so many steps by the code that scores the loss. `probe.parquet` keeps every value,
`probe.csv` the means with their spread. Looking changes nothing: the same weights come out with and without it.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from transformers import PreTrainedModel

from irpo_lib.config import Config
from irpo_lib.logprobs import score
from irpo_lib.models.parallel import Ranks
from irpo_lib.models.weights import computing
from irpo_lib.records import PreferencePair
from irpo_lib.stages.store import replace_file

#: The columns of probe.parquet that probe.csv has the means of.
MEASURES = ("chosen_logps", "rejected_logps", "gold_logps", "chosen_token_logps", "rejected_token_logps",
            "gold_token_logps", "margins", "dpo", "nll")  # fmt: skip


@dataclass(frozen=True)
class ProbeItem(PreferencePair):
    """A pair to be followed, with its problem's gold solution where it has one."""

    gold_ids: list[int] | None = None


def choose_probe(pairs: Sequence[PreferencePair], gold: Mapping[str, list[int]], n: int, seed: int) -> list[ProbeItem]:
    """At most n pairs, one a problem, at random, of those whose winner the model sampled itself."""
    first: dict[str, PreferencePair] = {}
    for pair in pairs:
        if pair.chosen_source == "model":
            first.setdefault(pair.problem_id, pair)
    some = random.Random(seed).sample(sorted(first), min(n, len(first)))
    return [ProbeItem(**vars(first[i]), gold_ids=gold.get(i)) for i in some]


def look(model: PreTrainedModel, items: Sequence[ProbeItem], step: int, ranks: Ranks | None = None) -> pd.DataFrame:
    """A row an item: sums of token log-probs in nats (not a number where there is no gold), and lengths."""
    responses = [(i.prompt_ids, r) for i in items for r in (i.chosen_ids, i.rejected_ids, i.gold_ids) if r]
    logps = score(model, responses, ranks)
    values = iter(logps[i] for i in range(len(responses)))
    return pd.DataFrame([
        {
            "step": step, "problem_id": i.problem_id, "k": i.k, "chosen_logps": next(values),
            "rejected_logps": next(values), "gold_logps": next(values) if i.gold_ids else float("nan"),
            "chosen_length": len(i.chosen_ids), "rejected_length": len(i.rejected_ids),
            "gold_length": len(i.gold_ids or ()),
        }
        for i in items
    ])  # fmt: skip


class LogProbe:
    """Looks at the same items again and again during a training; each look is a file, which a kill leaves."""

    def __init__(self, items: Sequence[ProbeItem], config: Config, folder: Path, ranks: Ranks):
        self.items, self.config, self.folder, self.ranks = items, config, folder / "probe", ranks
        if items and ranks.is_main:
            self.folder.mkdir(exist_ok=True)

    def look(self, model: PreTrainedModel, step: int) -> None:
        if not self.items:
            return
        training = model.training
        model.eval()
        with computing(self.config, model.device):
            rows = look(model, self.items, step, self.ranks)
        model.train(training)
        if self.ranks.is_main:
            replace_file(self.folder / f"step-{step:06d}.parquet", partial(rows.to_parquet, index=False))


def write_probe_tables(folder: Path, beta: float) -> None:
    """`probe/step-*.parquet` → `probe.parquet` (every pair at every step) and `probe.csv` (a line a step)."""
    rows = pd.concat([pd.read_parquet(p) for p in sorted((folder / "probe").glob("step-*.parquet"))])
    rows = with_parts(rows.reset_index(drop=True), beta)
    replace_file(folder / "probe.parquet", partial(rows.to_parquet, index=False))
    summary = summarise(rows)
    replace_file(folder / "probe.csv", partial(summary.to_csv, index=False, float_format="%.6g"))


def with_parts(rows: pd.DataFrame, beta: float) -> pd.DataFrame:
    """Adds per-token means, margins (β times the change of chosen − rejected) and Equation 1's parts.

    Changes are those since a pair's first row, which is that of step 0.
    """
    for kind in ("chosen", "rejected", "gold"):
        rows[f"{kind}_token_logps"] = rows[f"{kind}_logps"] / rows[f"{kind}_length"].where(rows[f"{kind}_length"] > 0)
    gap = rows.chosen_logps - rows.rejected_logps
    rows["margins"] = beta * (gap - gap.groupby([rows.problem_id, rows.k]).transform("first"))
    rows["dpo"] = np.logaddexp(0, -rows.margins)
    rows["nll"] = -rows.chosen_token_logps
    return rows


def summarise(rows: pd.DataFrame) -> pd.DataFrame:
    """Mean and standard deviation over the pairs, at each step."""
    groups = rows.groupby("step")
    table: dict[str, pd.Series] = {"pairs": groups.size()}
    for name in MEASURES:
        table |= {f"{name}_mean": groups[name].mean(), f"{name}_sd": groups[name].std()}
    return pd.DataFrame(table).reset_index()
