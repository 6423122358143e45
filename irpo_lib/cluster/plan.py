"""The memory that a preset needs on each GPU, computed from the architecture and the layout of `parallel`.

Llama-like models: L layers of width h, with q query and k key-value heads of size d, an MLP of width m, a vocabulary v;
b sequences of s tokens in a micro-batch, counted as if they shared nothing; tensor parallelism over t, FSDP2 over f
processes. A number has w bytes: 4 in float32, 2 in lower precision. What libraries, the allocator and fragmentation
take comes on top, 10 to 20 %.

- weights and gradients: 4 bytes a trained parameter each, AdamW two moments of 4; cut by t and f, where embeddings and
  norms are cut by f only;
- unsharded weights: FSDP2 puts two layers together at once, and the head stays whole: w bytes a parameter, cut by t; in
  lower precision the gradient of a layer in w and in 4 bytes beside them;
- activations of a layer, kept for the backward pass, with an attention that does not keep its matrix:
  w·b·s·(7·h + (d·(q + 2k) + 4·m) / t) bytes, after Korthikanti et al. (2022), without dropout;
- with gradient checkpointing w·b·s·h a layer, and one layer in full with two gradients of its MLP's width, or the
  logits, whichever is more;
- logits: a chunk of them (`fast.chunked_logps`), w bytes each, and a piece of it in float32, 4 bytes each, 8 in lower
  precision; with tensor parallelism all b·s·v with log-softmax and gradient, 8 bytes each, 10 in lower precision;
- generation: w bytes a weight, cut by `generation_tp`, and the KV cache: 2·L·k·d·w bytes a token.
"""

from dataclasses import dataclass

from irpo_lib.cluster.architecture import Architecture, architecture, sheets
from irpo_lib.config import Config
from irpo_lib.fast.chunked_logps import LOGITS, rows_of_a_chunk

GIB = 2**30
#: Of a GPU's memory, what a plan may fill.
USABLE = 0.9


@dataclass(frozen=True)
class Gpu:
    """A kind of GPU: memory in GB, peak of dense 16-bit matrix products in FLOP/s, memory bandwidth in bytes/s.

    `share` of the peak is what training and scoring reach: assumed, unless its sheet has it.
    """

    name: str
    memory: float
    peak: float
    bandwidth: float
    share: float = 0.4


GPUS = {name: Gpu(name, **numbers) for name, numbers in sheets("gpus.yaml").items()}


def number_size(config: Config) -> int:
    return 4 if config.dtype == "float32" else 2


def plan(config: Config) -> dict[str, dict[str, float]]:
    """What → GiB on each GPU, for "training" (and scoring) and for "generation"."""
    a = architecture(config.model)
    parts = {"training": training_sizes(config, a), "generation": generation_sizes(config, a)}
    return {part: {what: size / GIB for what, size in sizes.items()} for part, sizes in parts.items()}


def needed(config: Config) -> float:
    """GiB on each GPU: training or generation, whichever is more."""
    return max(sum(sizes.values()) for sizes in plan(config).values())


def training_sizes(config: Config, a: Architecture) -> dict[str, float]:
    """Bytes on each rank, by what they are for; the parts of a peak, which add up."""
    p, w, n = config.parallel, number_size(config), a.parameters
    here = (a.split_by_tp / p.tp + (n - a.split_by_tp)) / p.fsdp
    trained = a.lora_parameters(config.lora_rank) if config.lora_rank else here
    frozen: float = n * w if config.lora_rank else 0
    if config.lora_quantized:  # 4 bits and a scale of 8 bits for 64 numbers, rounded up
        frozen = a.layers * a.block * 0.53 + (n - a.layers * a.block) * w
    sizes = {
        "training: weights": frozen + 4 * trained,
        "training: gradients": 4 * trained,
        "training: AdamW": 8 * trained,
    }
    layer, head = a.block / p.tp, a.vocabulary * a.width / p.tp
    if p.fsdp > 1:
        sizes["training: weights put together"] = w * (2 * layer + head) + (6 * layer if w == 2 else 0)
    b, s = 2 * config.micro_batch_size, config.max_length
    activations = b * s * (7 * a.width + (a.head_size * (a.heads + 2 * a.kv_heads) + 4 * a.mlp) / p.tp) * w
    logits = (8 if w == 4 else 10) * b * s * a.vocabulary
    if p.tp == 1:  # in chunks, of which a piece at a time is in float32
        at_once = min(b * s, rows_of_a_chunk(a.vocabulary)) * a.vocabulary
        logits = w * at_once + (4 if w == 4 else 8) * min(at_once, LOGITS)
    sequences = f"{b} sequences of {s} tokens"
    if config.gradient_checkpointing:
        sizes[f"training: checkpoints of {sequences}"] = a.layers * b * s * a.width * w
        one = activations + 2 * b * s * a.mlp / p.tp * w
        what = "one layer's activations" if one > logits else "logits and their gradient"
        sizes[f"training: {what}"] = max(one, logits)
    else:
        sizes[f"training: activations of {sequences}"] = a.layers * activations
        sizes["training: logits and their gradient"] = logits
    return sizes


def generation_sizes(config: Config, a: Architecture) -> dict[str, float]:
    """Bytes on each GPU of an engine; vLLM fills with KV cache what is left."""
    w, rows = number_size(config), max(1, config.generation_rows // config.samples) * config.samples
    tokens = rows * config.max_new_tokens
    cache = tokens * cache_numbers(a) * w / min(config.generation_tp, a.kv_heads)
    return {
        "generation: weights": a.parameters * w / config.generation_tp,
        f"generation: KV cache of {rows} responses of {config.max_new_tokens} tokens": cache,
    }


def cache_numbers(a: Architecture) -> int:
    """Keys and values of one token."""
    return 2 * a.layers * a.kv_heads * a.head_size


def plan_table(config: Config, gpu: Gpu | None = None) -> str:
    """The plan as text, with sums, and whether it fits."""
    p = config.parallel
    how = f"LoRA of rank {config.lora_rank}" if config.lora_rank else "all weights"
    lines = [
        f"{config.model}: {architecture(config.model).parameters / 1e9:.3f} billion parameters; {config.dtype}, "
        f"training {how}",
        f"training in {p.processes} processes (ddp {p.ddp}, fsdp {p.fsdp}, tp {p.tp}): {p.data_ranks} data ranks of "
        f"{config.batch_size // p.data_ranks} pairs; generation on {config.nodes} engines of {config.generation_tp}",
    ]
    for part, sizes in plan(config).items():
        rows = sizes | {f"{part}, in all": sum(sizes.values())}
        lines += [f"  {what:<66}{size:9.2f} GiB" for what, size in rows.items()]
    if gpu:
        room = USABLE * gpu.memory * 1e9 / GIB
        too_much = "does not fit: more GPUs in `parallel`, a smaller micro-batch, LoRA"
        fits = "fits" if needed(config) <= room else too_much
        lines.append(f"  {gpu.name}, of which {USABLE:.0%} are {room:.1f} GiB: {fits}")
    return "\n".join(lines)
