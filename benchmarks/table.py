"""One table of all benchmarks: `results.csv`, and `README.md` between its two marks."""

import csv
import re
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import torch

HERE = Path(__file__).parent
RESULTS, README = HERE / "results.csv", HERE / "README.md"
BEGIN, END = "<!-- results -->\n", "<!-- end of results -->"


@dataclass(frozen=True)
class Row:
    """One comparison: medians of several rounds, `unit` of both; `ratio` says how many times better ours is."""

    benchmark: str
    what: str
    ours: float
    peer: str
    theirs: float
    unit: str
    ratio: float
    goal: str


def compared(
    benchmark: str,
    what: str,
    seconds: dict[str, list[float]],
    peer: str,
    goal: str = "",
    work: float = 0,
    unit: str = "s",
) -> Row:
    """Of the seconds that "ours" and a peer took in each round; of work, if given, as so much of it a second."""
    ours, theirs = (statistics.median(seconds[name]) for name in ("ours", peer))
    values = (work / ours, work / theirs) if work else (ours, theirs)
    return Row(benchmark, what, values[0], peer, values[1], unit, theirs / ours, goal)


def less(benchmark: str, what: str, ours: float, peer: str, theirs: float, unit: str, goal: str) -> Row:
    """Of something of which less is better."""
    return Row(benchmark, what, ours, peer, theirs, unit, theirs / ours, goal)


def in_turn(sides: dict[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """What each side returns (seconds), round by round, one after the other, so that a busy machine hits all alike."""
    found: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, run in sides.items():
            found[name].append(run())
    return found


def matmul_peak(size: int = 1024, rounds: int = 9, dtype: torch.dtype = torch.float32) -> float:
    """GFLOP/s of a matrix product here, now: the fastest of several."""
    a, b = (torch.randn(size, size).to(dtype) for _ in range(2))
    return 2 * size**3 / min(seconds_of(lambda: a @ b) for _ in range(rounds)) / 1e9


def seconds_of(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def resident(name: str) -> int:
    """VmRSS or VmHWM of this process, in bytes."""
    found = re.search(name + r":\s+(\d+)", Path("/proc/self/status").read_text(encoding="utf8"))
    return int(found[1]) * 1024  # type: ignore[index]


def save(rows: Sequence[Row]) -> None:
    """Replaces the benchmarks that were run in the table, keeps the others, and writes both files."""
    run = {row.benchmark for row in rows}
    kept = [row for row in load() if row.benchmark not in run]
    together = sorted([*kept, *rows], key=lambda row: row.benchmark)
    with RESULTS.open("w", newline="", encoding="utf8") as file:
        writer = csv.DictWriter(file, [f.name for f in fields(Row)], lineterminator="\n")
        writer.writeheader()
        writer.writerows({k: f"{v:.4g}" if isinstance(v, float) else v for k, v in asdict(r).items()} for r in together)
    before, _, rest = README.read_text(encoding="utf8").partition(BEGIN)
    _, _, after = rest.partition(END)
    README.write_text(before + BEGIN + markdown(load()) + END + after, encoding="utf8")


def load() -> list[Row]:
    if not RESULTS.is_file():
        return []
    numbers = {f.name for f in fields(Row) if f.type is float}
    with RESULTS.open(newline="", encoding="utf8") as file:
        return [Row(**{k: float(v) if k in numbers else v for k, v in row.items()}) for row in csv.DictReader(file)]


def markdown(rows: Sequence[Row]) -> str:
    lines = ["", "| | what | here | peer | there | unit | times better | goal |", "|---|---|---|---|---|---|---|---|"]
    for r in rows:
        lines.append(
            f"| {r.benchmark} | {r.what} | {r.ours:.3g} | {r.peer} | {r.theirs:.3g} | {r.unit} | **{r.ratio:.2f}** "
            f"| {r.goal} |"
        )
    return "\n".join(lines) + "\n\n"
