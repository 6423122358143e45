"""Training, against stock `trl.DPOTrainer` with the loss ["sigmoid", "sft"] on the same model and pairs."""

import gc
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks.table import Row, compared, in_turn, less, matmul_peak, resident
from irpo_lib.config import Config, load_config
from irpo_lib.fast.batches import tree_batch
from irpo_lib.fast.predict import choose_path
from irpo_lib.logprobs import reference_logps
from irpo_lib.models.parallel import Ranks
from irpo_lib.pairs import ScoredPair, response_key
from irpo_lib.records import PreferencePair
from irpo_lib.training import Loop

ROUNDS = 5
#: Of prompts and responses in a round, at least.
TOKENS = 12_000
#: Tokens that all prompts share, of each question, of a response (a quarter more or less).
SHAPES = {
    "MATH": (700, 100, 200),
    "GSM8K": (0, 120, 200),
    "ARC": (0, 150, 100),
    "mini": (0, 56, 95),
    "long": (0, 120, 800),
}
MODELS = {
    "mini-llama": {"vocab_size": 764, "hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 4,
                   "num_attention_heads": 4},
    "32k vocabulary": {"vocab_size": 32000, "hidden_size": 256, "intermediate_size": 688, "num_hidden_layers": 6,
                       "num_attention_heads": 8},
}  # fmt: skip
#: What all models of a benchmark have.
ALIKE = {"max_position_embeddings": 2048, "tie_word_embeddings": True, "bos_token_id": 1, "eos_token_id": 2,
         "pad_token_id": 2}  # fmt: skip
#: TRL knows two ways to its reference: scored before training, or in each step by a second model.
PEERS = {"reference precomputed": True, "reference in each step": False}


def random_pairs(shape: tuple[int, int, int], n: int, vocabulary: int, seed: int = 0) -> list[ScoredPair]:
    """n pairs of different problems; no two responses are alike."""
    rng = random.Random(seed)

    def ids(length: int, spread: int = 0) -> list[int]:
        return [rng.randrange(5, vocabulary) for _ in range(length + rng.randint(-spread, spread))]

    examples, question, response = ids(shape[0]), shape[1], shape[2]
    pairs = []
    for i in range(n):
        prompt = examples + ids(question)
        chosen, rejected = (ids(response, response // 4) for _ in range(2))
        pairs.append(ScoredPair(PreferencePair(f"p{i}", 0, prompt, chosen, rejected, "model"), -1.0, -1.0))
    return pairs


def build_model(name: str) -> LlamaForCausalLM:
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**MODELS[name], **ALIKE))


def our_steps(name: str, pairs: list[ScoredPair], config: Config, reference: bool = False) -> float:
    """Seconds of one step for each batch; with `reference`, of scoring their responses before it too."""
    model = choose_path(build_model(name), config.attention)
    loop = Loop(model.train(), config, Ranks(config.parallel))
    started = time.perf_counter()
    if reference:
        logps = reference_logps(model, [s.pair for s in pairs])

        def of(pair: PreferencePair, response: list[int]) -> float:
            return logps[response_key(pair.prompt_ids, response)]

        pairs = [ScoredPair(s.pair, of(s.pair, s.pair.chosen_ids), of(s.pair, s.pair.rejected_ids)) for s in pairs]
    for start in range(0, len(pairs), config.batch_size):
        loop.step(pairs[start : start + config.batch_size])
    return time.perf_counter() - started


def trl_steps(name: str, pairs: list[ScoredPair], config: Config, precomputed: bool, reference: bool = False) -> float:
    """The same work by TRL: its trainer's `train()`; with `reference`, from the trainer's making on, which scores."""
    model, other = build_model(name), None if precomputed else build_model(name)
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        trainer = trl_trainer(model, other, pairs, config, Path(folder), reference)
        if not reference:
            started = time.perf_counter()
        trainer.train()
        return time.perf_counter() - started


def trl_trainer(
    model: Any, reference_model: Any, pairs: list[ScoredPair], config: Config, folder: Path, reference: bool = False
) -> Any:
    """Stock `DPOTrainer` on the same pairs; without a model of the reference, the pairs' log-probs are used.

    With `reference`, those are computed while the trainer is made.
    """
    from datasets import Dataset
    from transformers import PrinterCallback
    from trl import DPOConfig, DPOTrainer

    from irpo_lib.engines.trl import columns, trainer_settings
    from irpo_lib.models.load import load_tokenizer

    class OnTokens(DPOTrainer):
        def _prepare_dataset(self, dataset, *args):
            return dataset

    rows, precomputed = [columns(s) for s in pairs], reference_model is None
    if reference or not precomputed:
        rows = [{k: v for k, v in row.items() if not k.startswith("ref_")} for row in rows]
    elif precomputed:
        OnTokens._precompute_ref_logps = lambda self, dataset, *args: dataset
    settings = trainer_settings(config, len(pairs) // config.batch_size, 0, folder) | {"save_strategy": "no"}
    arguments = DPOConfig(
        **settings, loss_type=["sigmoid", "sft"], loss_weights=[1.0, config.alpha], beta=config.beta,
        max_length=None, precompute_ref_log_probs=precomputed, train_sampling_strategy="sequential",
    )  # fmt: skip
    trainer = OnTokens(
        model=model, ref_model=reference_model, args=arguments, train_dataset=Dataset.from_list(rows),
        processing_class=load_tokenizer("mini-llama"),
    )  # fmt: skip
    trainer.remove_callback(PrinterCallback)
    return trainer


def speed(name: str, shape: str, micro: int, goal: str, rounds: int = ROUNDS) -> list[Row]:
    """Pairs a second in training, beside both of TRL's ways, and of reference and training together."""
    config = settings(micro)
    batches = max(1, TOKENS // (2 * sum(SHAPES[shape]) * config.batch_size))  # a trainer's start is shared by all
    pairs = random_pairs(SHAPES[shape], batches * config.batch_size, MODELS[name]["vocab_size"])
    sides: dict[str, Callable[[], float]] = {"ours": lambda: our_steps(name, pairs, config)}
    for peer, precomputed in PEERS.items():
        sides[peer] = partial(trl_steps, name, pairs, config, precomputed)
    seconds = in_turn(sides, rounds)
    what = f"{name}, {shape}'s shape, {micro} pairs a micro-batch"
    rows = [compared("training", what, seconds, peer, goal, len(pairs), "pairs/s") for peer in PEERS]
    both = in_turn(
        {"ours": lambda: our_steps(name, pairs, config, reference=True),
         "reference precomputed": lambda: trl_steps(name, pairs, config, True, reference=True)},
        rounds,
    )  # fmt: skip
    return [*rows, compared("reference + training", what, both, "reference precomputed", ">= 2", len(pairs), "pairs/s")]


def utilisation(name: str, shape: str, micro: int, rounds: int = ROUNDS) -> Row:
    """Floating-point operations a second that the model needs, beside a plain matrix product's, in turn."""
    config = settings(micro)
    pairs = random_pairs(SHAPES[shape], config.batch_size, MODELS[name]["vocab_size"])
    work = operations(build_model(name), pairs, micro)
    peaks, rates = [], []
    for _ in range(rounds):
        peaks.append(matmul_peak())
        rates.append(work / our_steps(name, pairs, config))
    what = f"{name}, {shape}'s shape, {micro} pairs a micro-batch"
    ours, peak = statistics.median(rates), statistics.median(peaks)
    return Row("training, FLOPs", what, ours, "a matrix product of 1,024 × 1,024", peak, "GFLOP/s", ours / peak, "")


def operations(model: LlamaForCausalLM, pairs: list[ScoredPair], micro: int) -> float:
    """10⁹ operations that a step needs: 6 for each weight that a token of a tree is multiplied with.

    The head's count for predicted tokens only; attention and what is computed twice are left out.
    """
    head, work = model.lm_head.weight.numel(), 0
    for start in range(0, len(pairs), micro):
        some = [s.pair for s in pairs[start : start + micro]]
        batch = tree_batch([(p.prompt_ids, r) for p in some for r in (p.chosen_ids, p.rejected_ids)])
        work += 6 * ((model.num_parameters() - head) * batch.inputs["input_ids"].numel() + head * len(batch.targets))
    return work / 1e9


def settings(micro: int) -> Config:
    return load_config("mini", beta=0.1, batch_size=max(4, micro), micro_batch_size=micro)


def memory(name: str, shape: str, micro: int) -> Row:
    """The peak above what is there before training, each in a process of its own."""
    found = {}
    for side in ("ours", "reference precomputed"):
        command = [sys.executable, "-m", "benchmarks.training", side, name, shape, str(micro)]
        found[side] = float(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[-1])
    ours, theirs = found.values()
    what = f"{name}, {shape}'s shape, {micro} pairs a micro-batch"
    return less("peak memory of a step", what, ours, "reference precomputed", theirs, "MB", ">= 2")


def peak(side: str, name: str, shape: str, micro: str) -> float:
    """MB that two steps take at their peak above the process as it was before them, in this process."""
    config = settings(int(micro))
    pairs = random_pairs(SHAPES[shape], 2 * config.batch_size, MODELS[name]["vocab_size"])
    run: Callable[..., float] = partial(our_steps, name, config=config)
    if side != "ours":
        run = partial(trl_steps, name, config=config, precomputed=True)
    run(random_pairs((0, 4, 4), config.batch_size, MODELS[name]["vocab_size"]))  # imports and pools
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")
    before = resident("VmRSS")
    run(pairs)
    return (resident("VmHWM") - before) / 1e6


def main() -> Iterator[Row]:
    for name in MODELS:
        for shape, goal in (("MATH", ">= 3"), ("GSM8K", ">= 1.5"), ("ARC", ">= 1"), ("mini", ">= 1"), ("long", ">= 1")):
            yield from speed(name, shape, 4, goal)
    yield from speed("mini-llama", "mini", 16, ">= 1")
    yield from speed("mini-llama", "GSM8K", 1, ">= 1")
    yield from (utilisation(name, "GSM8K", 4) for name in MODELS)
    yield from (memory("32k vocabulary", shape, 4) for shape in ("MATH", "GSM8K"))


if __name__ == "__main__":
    print(peak(*sys.argv[1:]))
