"""FLOPs, hours and cost of each stage, computed from the architecture and some assumptions, which are named here.

A forward pass takes 2 FLOPs a parameter and token, training three times that (four with gradient checkpointing). A
decoding engine reads all of its weights and its KV cache for each token of all its rows, and multiplies; what takes
longer counts.
"""

from dataclasses import dataclass

from irpo_lib.cluster.architecture import Architecture, architecture
from irpo_lib.cluster.plan import USABLE, Gpu, cache_numbers, number_size
from irpo_lib.config import Config

#: Tokens of a prompt and of a response, on average: assumed.
LENGTHS = {"gsm8k": (120, 200), "arc": (150, 200), "math": (800, 300)}
#: Training and test problems (§ 3); mini's are those in data/.
PROBLEMS = {"gsm8k": (7473, 1319), "arc": (3370, 1172), "math": (7500, 5000)}
MINI_PROBLEMS, MINI_LENGTHS = (1000, 1000), (56, 95)
#: Of the peak of matrix products in training and scoring, of the memory bandwidth in decoding: assumed.
TRAINING_SHARE, DECODING_SHARE = 0.4, 0.6
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
    """The stages of one iteration; greedy evaluation, and votes as for the last model."""
    a, p = architecture(config.model), config.parallel
    problems, tests = PROBLEMS.get(config.task, MINI_PROBLEMS)
    problems, tests = min(problems, config.train_problems or problems), min(tests, config.test_problems or tests)
    prompt, response = LENGTHS.get(config.task, MINI_LENGTHS)
    pairs = min(config.max_pairs, problems * config.pairs_per_problem)
    votes = min(tests, config.majority_problems or tests)
    steps = config.max_steps * (2 if config.select_checkpoint else 1)
    tokens = 2 * (prompt + response)
    each = 2 * a.parameters
    forward = each * min(2 * pairs, problems * config.samples) * (prompt + response)
    train = each * (4 if config.gradient_checkpointing else 3) * steps * config.batch_size * tokens
    speed = p.processes * gpu.peak * TRAINING_SHARE
    return [
        decoding("generate", config, gpu, a, problems, config.samples, prompt, response),
        Hours("reference", forward, forward / speed / 3600, p.processes),
        Hours("train", train, train / speed / 3600, p.processes),
        decoding("evaluate", config, gpu, a, tests, 1, prompt, response),
        decoding("vote", config, gpu, a, votes, config.majority_samples, prompt, response),
    ]


def decoding(
    stage: str, config: Config, gpu: Gpu, a: Architecture, problems: int, n: int, prompt: int, response: int
) -> Hours:
    """n responses to each problem, by an engine on each node: prompts once, then a token for all rows at a time."""
    w, tp, each = number_size(config), config.generation_tp, 2 * a.parameters
    room = tp * USABLE * gpu.memory * 1e9 - a.parameters * w
    row = (prompt / n + response) * cache_numbers(a) * w
    rows = max(1, min(MOST_ROWS, problems * n / config.nodes, room / row))
    step = max(
        (a.parameters * w + rows * row / 2) / (tp * gpu.bandwidth * DECODING_SHARE),
        each * rows / (tp * gpu.peak * TRAINING_SHARE),
    )
    decoded = problems * n * response / config.nodes * step / rows
    read = each * problems * prompt / config.nodes / (tp * gpu.peak * TRAINING_SHARE)
    flops = each * problems * (prompt + n * response)
    return Hours(stage, flops, (decoded + read) / 3600, config.nodes * tp)


def hours_table(config: Config, gpu: Gpu, price: float = PRICE) -> str:
    """As text: each stage of an iteration, and all iterations."""
    stages = hours(config, gpu)
    lines = [f"hours of an iteration on {gpu.name}, computed (not measured):"]
    for s in stages:
        lines.append(
            f"  {s.stage:<12}{s.flops:10.2e} FLOPs {s.hours:9.2f} h on {s.gpus:3d} GPUs {s.gpu_hours:9.1f} GPU-h"
        )
    total = config.iterations * sum(s.gpu_hours for s in stages)
    lines.append(
        f"  {config.iterations} iterations: {config.iterations * sum(s.hours for s in stages):.1f} h, {total:,.0f} "
        f"GPU-hours, ${total * price:,.0f} at ${price:.2f} a GPU-hour"
    )
    return "\n".join(lines)
