"""What every benchmark gives: rows of one table."""

from typing import Any

import pandas as pd


def row(benchmark: str, what: str, ours: float, peer: str, peer_value: float, unit: str, goal: str) -> dict[str, Any]:
    """A measurement beside its peer's, in the same unit; `ratio` is ours / the peer's."""
    return {"benchmark": benchmark, "what": what, "ours": ours, "peer": peer, "peer_value": peer_value, "unit": unit,
            "ratio": ours / peer_value, "goal": goal}  # fmt: skip


def show(rows: list[dict[str, Any]]) -> None:
    print(pd.DataFrame(rows).round(3).to_string(index=False))
