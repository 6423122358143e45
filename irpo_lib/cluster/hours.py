"""FLOPs, hours and cost of each stage, computed from the architecture and some assumptions, which are named here.

A forward pass takes 2 FLOPs a parameter and token, training three times that (four with gradient checkpointing). A
decoding engine reads all of its weights and its KV cache for each token of all its rows, and multiplies; what takes
longer counts.
"""

from dataclasses import dataclass

from irpo_lib.cluster.architecture import architecture
from irpo_lib.cluster.plan import USABLE, Gpu, cache_numbers, number_size
from irpo_lib.config import Config
from irpo_lib.evaluation import models_with_votes
from irpo_lib.tasks import get_task

#: Tokens of a prompt and of a response, on average: assumed.
LENGTHS = {"gsm8k": (120, 200), "arc": (150, 200), "math": (800, 300)}
#: Training and test problems (§ 3); mini's are those in data/.
PROBLEMS = {"gsm8k": (7473, 1319), "arc": (3370, 1172), "math": (7500, 5000)}
MINI_PROBLEMS, MINI_LENGTHS = (1000, 1000), (56, 95)
#: Of the memory bandwidth, in decoding: assumed. `Gpu.share` is that of the peak of matrix products.
DECODING_SHARE = 0.6
#: Rows that one engine decodes at once, where its memory has room: assumed.
MOST_ROWS = 512
#: Dollars for a GPU and hour: assumed.
PRICE = 2.0


@dataclass(frozen=True)
class Hours:
    """One stage of one iteration: floating-point operations, hours, and the GPUs that they take."""

    stage: str
    flops: float
    hours: float
    gpus: int

    @property
    def gpu_hours(self) -> float:
        return self.hours * self.gpus


def hours(config: Config, gpu: Gpu) -> list[Hours]:
    """The stages of one iteration; greedy evaluation, and votes, where there are any, as for the last model."""
    problems, tests = PROBLEMS.get(config.task, MINI_PROBLEMS)
    problems, tests = min(problems, config.train_problems or problems), min(tests, config.test_problems or tests)
    pairs = min(config.max_pairs, problems * config.pairs_per_problem)
    tokens = sum(LENGTHS.get(config.task, MINI_LENGTHS))
    steps = config.max_steps * (2 if config.select_checkpoint else 1)
    passes = 4 if config.gradient_checkpointing else 3
    stages = [
        decoding("generate", config, gpu, problems, config.samples),
        computing("reference", config, gpu, min(2 * pairs, problems * config.samples) * tokens),
        computing("train", config, gpu, passes * steps * config.batch_size * 2 * tokens),
        decoding("evaluate", config, gpu, tests, 1),
    ]
    if models_with_votes(config, get_task(config.task, config.task_path)):
        votes = min(tests, config.majority_problems or tests)
        stages.append(decoding("vote", config, gpu, votes, config.majority_samples))
    return stages


def computing(stage: str, config: Config, gpu: Gpu, tokens: int) -> Hours:
    """Forward passes over tokens, in all processes of a training."""
    flops, gpus = 2 * architecture(config.model).parameters * tokens, config.parallel.processes
    return Hours(stage, flops, flops / (gpus * gpu.peak * gpu.share) / 3600, gpus)


def decoding(stage: str, config: Config, gpu: Gpu, problems: int, n: int) -> Hours:
    """n responses to each problem, by an engine on each node: prompts once, then a token for all rows at a time."""
    a, w, tp = architecture(config.model), number_size(config), config.generation_tp
    prompt, response = LENGTHS.get(config.task, MINI_LENGTHS)
    weights, each = a.parameters * w, 2 * a.parameters
    bandwidth, speed = tp * gpu.bandwidth * DECODING_SHARE, tp * gpu.peak * gpu.share
    row = (prompt / n + response) * cache_numbers(a) * w
    rows = max(1, min(MOST_ROWS, problems * n / config.nodes, (tp * USABLE * gpu.memory * 1e9 - weights) / row))
    step = max((weights + rows * row / 2) / bandwidth, each * rows / speed)
    decoded = problems * n * response / config.nodes * step / rows
    read = each * problems * prompt / config.nodes / speed
    flops = each * problems * (prompt + n * response)
    return Hours(stage, flops, (decoded + read) / 3600, config.nodes * tp)


def hours_table(config: Config, gpu: Gpu, price: float = PRICE) -> str:
    """As text: each stage of an iteration, and all iterations."""
    stages, t = hours(config, gpu), config.iterations
    lines = [f"hours of an iteration on {gpu.name}, computed (not measured):"]
    for s in stages:
        took = f"{s.flops:10.2e} FLOPs {s.hours:9.2f} h on {s.gpus:3d} GPUs {s.gpu_hours:9.1f} GPU-h"
        lines.append(f"  {s.stage:<12}{took}")
    whole, total = t * sum(s.hours for s in stages), t * sum(s.gpu_hours for s in stages)
    cost = f"${total * price:,.0f} at ${price:.2f} a GPU-hour"
    return "\n".join([*lines, f"  {t} iterations: {whole:.1f} h, {total:,.0f} GPU-hours, {cost}"])
