"""Random preference pairs, and stages in a process of their own that can be killed."""

import json
import math
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from irpo_lib.cluster import launch
from irpo_lib.config import Config, load_config
from irpo_lib.logprobs import score
from irpo_lib.pairs import ScoredPair, kept_pairs
from irpo_lib.records import Completion, PreferencePair
from irpo_lib.stages.store import read_log
from irpo_lib.training import MAX_GRADIENT, Loop

RUN_STAGE = """
import json, sys
import torch
torch.set_num_threads(1)
from irpo_lib.config import load_config
from irpo_lib.iteration import Experiment
stage, config, run_dir = sys.argv[1:]
getattr(Experiment(load_config(**json.loads(config)), run_dir), stage)(1)
"""


def build_pairs(
    completions: Iterable[Completion], gold: dict[str, list[int]], k: int, max_length: int, max_pairs: int, seed: int
) -> tuple[list[PreferencePair], Counter[str]]:
    """D_pairs of completions in any order, all at once."""
    config = load_config("mini", pairs_per_problem=k, max_length=max_length, max_pairs=max_pairs, seed=seed)
    groups: dict[str, list[Completion]] = {}
    for completion in completions:
        groups.setdefault(completion.problem_id, []).append(completion)
    pairs, counts = kept_pairs(groups.values, gold, config)
    return list(pairs), counts


def random_pairs(n: int, seed: int = 0, vocabulary: int = 100) -> list[ScoredPair]:
    """Pairs of random token ids, prompts and responses of many lengths, not scored yet."""
    rng = random.Random(seed)

    def ids(shortest: int, longest: int) -> list[int]:
        return [rng.randrange(vocabulary) for _ in range(rng.randint(shortest, longest))]

    pairs = [PreferencePair(f"p{i}", 0, ids(2, 12), ids(1, 20), ids(1, 20), "model") for i in range(n)]
    return [ScoredPair(p, math.nan, math.nan) for p in pairs]


def step_with_gradient(loop: Loop, batch: list[ScoredPair]) -> tuple[dict[str, float], torch.Tensor]:
    """A step's line of the log, and the gradient that it was taken by, as it was before it was clipped."""
    found = []
    loop.optimizer.register_step_pre_hook(
        lambda *_: found.append(torch.cat([p.grad.detach().double().flatten() for p in loop.trained]))
    )
    row = loop.step(batch)
    return row, found[0] * max(1.0, row["grad_norm"] / MAX_GRADIENT)


def with_reference(model, pairs: list[ScoredPair], noise: float = 0.0) -> list[ScoredPair]:
    """The pairs with the model's own log-probs as reference, each off by Gaussian noise of so many nats."""
    rng = random.Random(1)
    responses = [(s.pair.prompt_ids, r) for s in pairs for r in (s.pair.chosen_ids, s.pair.rejected_ids)]
    logps = score(model, responses)
    found = [logps[i] + rng.gauss(0, noise) for i in range(len(responses))]
    return [ScoredPair(s.pair, *found[2 * i : 2 * i + 2]) for i, s in enumerate(pairs)]


def greedy_of_transformers(model, prompt: list[int], most: int, end: int) -> list[int]:
    """The tokens of transformers' own `generate`."""
    ids = torch.tensor([prompt])
    out = model.generate(
        ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=most, eos_token_id=end,
        pad_token_id=end,
    )  # fmt: skip
    return out[0, len(prompt) :].tolist()


def irpo_run(model: str | Path, run_dir: Path) -> subprocess.CompletedProcess[str]:
    """`irpo run` with a model, as a user gives it."""
    command = [
        sys.executable,
        "-m",
        "irpo_lib.terminal.cli",
        "run",
        "--run-dir",
        str(run_dir),
        "--set",
        f"model={model}",
    ]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def kill_stage(stage: str, config: Config, run_dir: Path, reached: Callable[[], bool]) -> None:
    """Runs a stage of iteration 1 in a new process and sends it SIGKILL as soon as `reached()`."""
    command = [sys.executable, "-c", RUN_STAGE, stage, json.dumps(asdict(config)), str(run_dir)]
    with subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 120
        while not reached():
            assert process.poll() is None, f"{stage} ended before it could be killed"
            assert time.monotonic() < deadline, f"{stage} did not get so far in two minutes"
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL


def run_training(config, scored, folder: Path, **options) -> list[dict[str, float]]:
    folder.mkdir(parents=True, exist_ok=True)
    pairs, reference = scored
    launch.run_work("train", config, folder, pairs=pairs, reference=reference, model=config.model, iteration=1,
                     steps=config.max_steps, **options)  # fmt: skip
    return read_log(folder / "log.csv")


def assert_same(log, expected):
    """Losses within 1e-5; sums of some hundred nats within what float32 has."""
    assert len(log) == len(expected)
    for name, within in (("loss", 1e-5), ("dpo", 1e-5), ("nll", 1e-5), ("margins", 1e-4), ("chosen_rewards", 1e-4),
                         ("grad_norm", 1e-3), ("learning_rate", 0)):  # fmt: skip
        assert [r[name] for r in log] == pytest.approx([r[name] for r in expected], abs=within, rel=0), name


def ranks_of(folder: Path) -> list[int]:
    """Process ids of the ranks that work on the job in a folder."""
    job = str(folder / "job.json")
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_text().split("\0")
        except OSError:
            continue
        if job in words and "torch.distributed.run" not in words:
            found.append(int(entry.name))
    return sorted(found)


START = """
import json, sys
from pathlib import Path
from irpo_lib.cluster import launch
from irpo_lib.config import config_from
config, folder, pairs, reference, steps = sys.argv[1:]
config = config_from(json.loads(config))
launch.run_work("train", config, Path(folder), pairs=Path(pairs), reference=Path(reference), model=config.model,
                 iteration=1, steps=int(steps))
"""


def start_training(config, scored, folder: Path) -> subprocess.Popen:
    """The same training, in a process that may be killed."""
    folder.mkdir(parents=True, exist_ok=True)
    command = [
        sys.executable,
        "-c",
        START,
        json.dumps(asdict(config)),
        str(folder),
        *map(str, scored),
        str(config.max_steps),
    ]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


def wait_until(reached, process=None, seconds=120):
    deadline = time.monotonic() + seconds
    while not reached():
        assert process is None or process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.002)
