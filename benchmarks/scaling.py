"""How time and memory grow with the number of problems, N, K and length; and the peak memory at the paper's size.

Records are synthetic. Each measurement of them is a process of its own: what it has before is not counted as growth.
"""

import random
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure

from benchmarks.table import Row, less, resident
from irpo_lib.config import load_config
from irpo_lib.engines.transformers import generate
from irpo_lib.fast.batches import plan_trees
from irpo_lib.logprobs import DistinctResponses
from irpo_lib.models.load import load_model
from irpo_lib.models.parallel import Ranks
from irpo_lib.models.weights import load_for_training, prepared
from irpo_lib.pairs import ScoredPair, kept_pairs, scored_pairs
from irpo_lib.records import Completion, PreferencePair, Problem
from irpo_lib.results.figures import BLUE, GREEN, ORANGE, PURPLE, STYLE, save_figure
from irpo_lib.results.tables import write_table
from irpo_lib.stages import boxes
from irpo_lib.stages.parquet import Records
from irpo_lib.stages.store import read_records, run_stage, write_json, write_records
from irpo_lib.training import Loop, training_order

OUT = Path(__file__).parent.parent / "figures" / "benchmarks"
FACTORS, ROUNDS = (1, 2, 4, 8, 16), 3
VOCABULARY, SHARD = 32_000, 64
SERIES = ((BLUE, "o", "-"), (ORANGE, "s", "--"), (GREEN, "^", "-."), (PURPLE, "D", ":"), ("#444444", "v", (0, (5, 1))))


@dataclass(frozen=True)
class Size:
    """Of an iteration's records: tokens are means, a quarter more or less."""

    problems: int = 100
    samples: int = 8
    pairs: int = 4
    prompt: int = 60
    response: int = 100

    def longer(self, factor: int) -> "Size":
        return replace(self, prompt=factor * self.prompt, response=factor * self.response)


#: § 3.1: 7,473 problems of GSM8K, N = 30, K = 10, at most 60,000 pairs.
PAPER = Size(problems=7_500, samples=30, pairs=10, prompt=120, response=200)
BASE = Size()
GROWING: dict[str, Callable[[int], Size]] = {
    "problems": lambda f: replace(BASE, problems=f * BASE.problems),
    "N": lambda f: replace(BASE, samples=f * BASE.samples),
    "K": lambda f: replace(BASE, pairs=f * BASE.pairs),
    "length": BASE.longer,
}


# --- the record side ---


def problems_of(size: Size) -> list[Problem]:
    return [Problem(f"p{i}", "", "7") for i in range(size.problems)]


def write_generated(folder: Path, size: Size) -> dict[str, Any]:
    """Shards as sampling leaves them: half of the answers are right."""
    rng = random.Random(0)
    pool, words = [rng.randrange(VOCABULARY) for _ in range(10**6)], "four letter words " * size.response

    def ids(mean: int) -> list[int]:
        start, length = rng.randrange(len(pool) - 2 * mean), rng.randint(3 * mean // 4, 5 * mean // 4)
        return pool[start : start + length]

    def completions(problem: int) -> Iterator[Completion]:
        prompt = ids(size.prompt)
        for index in range(size.samples):
            response = ids(size.response)
            text = f"{words[: 4 * len(response)]}\nFinal answer: {rng.choice((7, 8))}"
            yield Completion(f"p{problem}", index, prompt, response, text, "stop")

    for number, first in enumerate(range(0, size.problems, SHARD)):
        some = range(first, min(first + SHARD, size.problems))
        write_records(folder / f"shard-{number:05d}.parquet", (c for problem in some for c in completions(problem)))
    return {}


def reward(folder: Path, size: Size) -> None:
    boxes.reward_stage(folder / "reward", load_config("mini"), folder / "generate", problems_of(size))


def pair(folder: Path, size: Size) -> None:
    config = load_config("mini", pairs_per_problem=size.pairs, max_length=10**6, gold_in_winners=False)
    boxes.pair_stage(folder / "pairs", config, [folder / "reward"], dict)


def pair_at_once(folder: Path, size: Size) -> None:
    """The peer: the same pairs of all completions in lists."""
    groups: dict[str, list[Completion]] = {}
    for completion in read_records(folder / "reward" / "completions.parquet", Completion):
        groups.setdefault(completion.problem_id, []).append(completion)
    config = load_config("mini", pairs_per_problem=size.pairs, max_length=10**6, max_pairs=60_000)
    pairs, _ = kept_pairs(groups.values, {}, config)
    write_records(folder / "at-once.parquet", list(pairs))


def collect(folder: Path, size: Size) -> None:
    """What the reference has to score, planned and read batch by batch."""
    responses = DistinctResponses(Records(folder / "pairs" / "pairs.parquet", PreferencePair))
    for batch in plan_trees(responses, 8192):
        [responses[index] for index in batch]
    write_json(folder / "logps.json", dict.fromkeys(responses.keys, -9.0))


def order(folder: Path, size: Size) -> None:
    """The pairs of a whole training, batch by batch: each is seen once, as in 5,000 steps of 16 of 60,000 and more."""
    pairs = scored_pairs(folder / "pairs", folder)
    for index in training_order(len(pairs), len(pairs), seed=0):
        pairs[index]


STAGES = (reward, pair, collect, order)


def in_a_process(folder: Path, size: Size, *works: Callable[[Path, Size], None]) -> tuple[float, float, float]:
    """Of works in a new process: CPU-seconds, its peak memory, and how much of that came on top of imports, in MiB."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(_measured, folder, size, works).result()


def _measured(folder: Path, size: Size, works: tuple[Callable[[Path, Size], None], ...]) -> tuple[float, float, float]:
    before, started = resident("VmRSS") / 2**20, time.process_time()
    for work in works:
        work(folder, size)
    peak = resident("VmHWM") / 2**20
    return time.process_time() - started, peak, peak - before


def measure_paper_size() -> list[Row]:
    """The peak memory of each stage's records at the paper's size; of pairing, beside everything at once in lists."""
    peaks, seconds = {}, {}
    with TemporaryDirectory() as name:
        folder = Path(name)
        run_stage(folder / "generate", asdict(PAPER), {}, lambda partial: write_generated(partial, PAPER))
        for work in (*STAGES, pair_at_once):
            seconds[work.__name__], peaks[work.__name__], _ = in_a_process(folder, PAPER, work)
    where, gib = f"{PAPER.problems} problems, N = {PAPER.samples}, K = {PAPER.pairs}", 1024
    for name, taken in seconds.items():
        print(f"  {name:<14}{taken:8.1f} CPU-seconds {peaks[name] / gib:6.2f} GiB", flush=True)
    worst = max(peaks[work.__name__] for work in STAGES)
    peer = ("pairing all at once", peaks["pair_at_once"] / gib)
    return [
        less("scaling", f"peak memory of pairing, {where}", peaks["pair"] / gib, *peer, "GiB", "< 2 GiB"),
        less("scaling", f"peak memory of all record work, {where}", worst / gib, *peer, "GiB", "< 2 GiB"),
    ]


def grow_records() -> Iterator[dict[str, Any]]:
    for along, sized in GROWING.items():
        for factor in FACTORS:
            size = sized(factor)
            with TemporaryDirectory() as name:
                folder = Path(name)
                run_stage(folder / "generate", asdict(size), {}, lambda p, size=size: write_generated(p, size))
                seconds, _, grown = in_a_process(folder, size, *STAGES)
            yield {"what": "records", "along": along, "factor": factor, "CPU-seconds": seconds, "MiB": grown}


# --- sampling and training ---


def sampling(prompts: int = 8, samples: int = 8, length: int = 16) -> Callable[[], Any]:
    """Responses of exactly so many tokens: the model's end token is one that it does not use."""
    model = load_model("mini-llama", "float32")
    model.generation_config.eos_token_id = model.config.vocab_size
    rng = random.Random(0)
    tokens = [[rng.randrange(10, 200) for _ in range(48)] for _ in range(prompts)]
    return lambda: list(generate(model, tokens, samples, 1.0, 1.0, length, seed=0))


def training(pairs: int = 4, length: int = 16) -> Callable[[], Any]:
    """One step; a prompt is as long as its responses."""
    config = load_config("mini", batch_size=pairs, micro_batch_size=4)
    model = prepared(load_for_training(config.model, config), config)
    loop, rng = Loop(model, config, Ranks(config.parallel)), random.Random(0)

    def ids() -> list[int]:
        return [rng.randrange(10, 200) for _ in range(length)]

    batch = [ScoredPair(PreferencePair(f"p{i}", 0, ids(), ids(), ids(), "model"), -9.0, -9.0) for i in range(pairs)]
    return lambda: loop.step(batch)


MODEL_WORK: dict[tuple[str, str], Callable[[int], Callable[[], Any]]] = {
    ("sampling", "problems"): lambda f: sampling(prompts=8 * f),
    ("sampling", "N"): lambda f: sampling(samples=8 * f),
    ("sampling", "length"): lambda f: sampling(length=16 * f),
    ("training", "pairs a step"): lambda f: training(pairs=4 * f),
    ("training", "length"): lambda f: training(length=16 * f),
}


def grow_model_work() -> Iterator[dict[str, Any]]:
    torch.set_num_threads(1)
    for (what, along), sized in MODEL_WORK.items():
        for factor in FACTORS:
            work, taken = sized(factor), []
            for _ in range(1 + ROUNDS):  # the first warms up
                started = time.process_time()
                work()
                taken.append(time.process_time() - started)
            yield {"what": what, "along": along, "factor": factor, "CPU-seconds": min(taken[1:]), "MiB": np.nan}


# --- what comes of it ---


def exponent(factors: pd.Series, values: pd.Series) -> float:
    """b of value ~ factor^b, by least squares of the logarithms."""
    return float(np.polyfit(np.log(factors), np.log(values), 1)[0])


def plot(points: pd.DataFrame) -> Figure:
    """Time and memory against size, relative to the smallest; the grey line is linear growth."""
    panels = (("records", "CPU-seconds"), ("records", "MiB"), ("sampling|training", "CPU-seconds"))
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(10, 3.6), layout="constrained")
        for axes, (what, unit) in zip(figure.subplots(1, 3), panels, strict=True):
            some = points[points.what.str.fullmatch(what)]
            for look, (name, line) in zip(SERIES, some.groupby(["what", "along"], sort=False), strict=False):
                color, marker, dashes = look
                label = name[1] if what == "records" else " ".join(name)
                axes.loglog(line.factor, line[unit] / line[unit].iloc[0], color=color, marker=marker, ls=dashes, ms=4,
                            mfc="white", label=f"{label}: {exponent(line.factor, line[unit]):.2f}")  # fmt: skip
            axes.loglog(FACTORS, FACTORS, color="0.75", lw=3, zorder=0, label="linear: 1")
            axes.set_xticks(FACTORS, labels=[f"{f}×" for f in FACTORS])
            axes.minorticks_off()
            axes.set(xlabel="size", ylabel=f"{unit}, relative to 1×", title=what.replace("|", " and "))
            axes.legend(frameon=False, fontsize=7.5, title="growing with … exponent", title_fontsize=7.5)
    return figure


def main() -> list[Row]:
    """Rows of the table; the figure and its points go into `figures/benchmarks/`."""
    found = measure_paper_size()
    points = pd.DataFrame([*grow_records(), *grow_model_work()])
    write_table(points.round(4), OUT / "scaling.csv")
    save_figure(plot(points), OUT / "scaling")
    for (what, along), line in points.groupby(["what", "along"], sort=False):
        for unit in ("CPU-seconds", "MiB"):
            if line[unit].notna().all():
                grown = exponent(line.factor, line[unit])
                goal = "≤ 1, attention aside" if along == "length" else "≤ 1"
                found.append(less("scaling", f"{what}: {unit} against {along}", grown, "linear", 1.0, "exponent", goal))
    return found
