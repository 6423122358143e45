"""What a preset needs in memory, computed from the architecture before anything is downloaded or run.

Llama-like models: L layers of width h, with q query and k key-value heads of size d, an MLP of width m, a vocabulary v.
Sizes are in GiB on one device; nothing here knows of several. They are estimates from below: what libraries, the
allocator and fragmentation take comes on top, 10 to 20 %.

- weights and gradients: bytes a parameter, by how it is trained (`weights`);
- AdamW: two float32 moments for each trained parameter;
- activations of one layer, kept for the backward pass, for b sequences of s tokens in 2-byte computation with an
  attention that does not keep its matrix: b·s·(14·h + 2·d·(q + 2k) + 8·m) bytes, after Korthikanti et al. (2022),
  without dropout; with gradient checkpointing b·s·2·h a layer and one layer in full;
- logits of the response tokens, and their gradient, in float32: 2·4·b·s·v bytes;
- KV cache: 2·L·k·d·2 bytes a token.
"""

import json
from dataclasses import dataclass
from pathlib import Path

from irpo_lib.config import Config
from irpo_lib.errors import UserError
from irpo_lib.models import resolve_model

GIB = 2**30


@dataclass(frozen=True)
class Architecture:
    """The shape of a Llama-like model."""

    layers: int
    width: int
    heads: int
    kv_heads: int
    head_size: int
    mlp: int
    vocabulary: int
    tied: bool = False
    qkv_bias: bool = False

    @property
    def block(self) -> int:
        """Parameters of one layer's linear maps."""
        attention = (
            self.width * self.head_size * (self.heads + 2 * self.kv_heads) + self.heads * self.head_size * self.width
        )
        return attention + 3 * self.width * self.mlp

    @property
    def parameters(self) -> int:
        bias = self.head_size * (self.heads + 2 * self.kv_heads) if self.qkv_bias else 0
        embeddings = self.vocabulary * self.width * (1 if self.tied else 2)
        return self.layers * (self.block + bias + 2 * self.width) + embeddings + self.width

    def lora_parameters(self, rank: int) -> int:
        """Adapters of a rank on all linear maps of all layers."""
        h, q, kv = self.width, self.heads * self.head_size, self.kv_heads * self.head_size
        sides = [(h, q), (h, kv), (h, kv), (q, h), (h, self.mlp), (h, self.mlp), (self.mlp, h)]
        return self.layers * rank * sum(a + b for a, b in sides)


#: So that a plan needs no network.
KNOWN = {
    "Qwen/Qwen2.5-0.5B-Instruct": Architecture(24, 896, 14, 2, 64, 4864, 151936, tied=True, qkv_bias=True),
    "meta-llama/Llama-2-7b-chat-hf": Architecture(32, 4096, 32, 32, 128, 11008, 32000),
    "meta-llama/Llama-2-70b-chat-hf": Architecture(80, 8192, 64, 8, 128, 28672, 32000),
}


def architecture(model: str) -> Architecture:
    """Of a model folder's config.json, or of a name in `KNOWN`."""
    path = Path(resolve_model(model)) / "config.json"
    if not path.is_file():
        if model in KNOWN:
            return KNOWN[model]
        raise UserError(f"no plan for {model}: give a folder with a config.json, or one of {', '.join(KNOWN)}")
    c = json.loads(path.read_text(encoding="utf8"))
    try:
        heads = c["num_attention_heads"]
        return Architecture(
            c["num_hidden_layers"], c["hidden_size"], heads, c.get("num_key_value_heads") or heads,
            c.get("head_dim") or c["hidden_size"] // heads, c["intermediate_size"], c["vocab_size"],
            bool(c.get("tie_word_embeddings")), c.get("model_type") == "qwen2",
        )  # fmt: skip
    except KeyError as error:
        raise UserError(f"{path}: {error} is missing; a plan needs a Llama-like architecture") from error


def plan(config: Config) -> list[tuple[str, float]]:
    """(what, GiB) for scoring and training, then for generation, on one device."""
    a, b, s = architecture(config.model), 2 * config.micro_batch_size, config.max_length
    n, small = a.parameters, 4 if config.dtype == "float32" else 2
    trained = a.lora_parameters(config.lora_rank) if config.lora_rank else n
    frozen = n * small if config.lora_rank else 0
    layer = b * s * (14 * a.width + 2 * a.head_size * (a.heads + 2 * a.kv_heads) + 8 * a.mlp) * small / 2
    kept = a.layers * b * s * a.width * small + layer if config.gradient_checkpointing else a.layers * layer
    rows = max(1, config.generation_rows // config.samples) * config.samples
    cache = rows * config.max_new_tokens * 2 * a.layers * a.kv_heads * a.head_size * small
    sizes = [
        ("training: weights", frozen + 4 * trained),
        ("training: gradients", 4 * trained),
        ("training: AdamW", 8 * trained),
        (f"training: activations of {b} sequences of {s} tokens", kept),
        ("training: logits and their gradient", 8 * b * s * a.vocabulary),
        ("generation: weights", n * small),
        (f"generation: KV cache of {rows} responses of {config.max_new_tokens} tokens", cache),
    ]  # fmt: skip
    return [(what, size / GIB) for what, size in sizes]


def plan_table(config: Config) -> str:
    """The plan as text, with sums."""
    a, rows = architecture(config.model), plan(config)
    how = f"LoRA of rank {config.lora_rank}" if config.lora_rank else "all weights"
    lines = [f"{config.model}: {a.parameters / 1e9:.3f} billion parameters; {config.dtype}, training {how}"]
    for part in ("training", "generation"):
        some = [(what, size) for what, size in rows if what.startswith(part)]
        lines += [f"  {what:<66}{size:9.2f} GiB" for what, size in some]
        lines.append(f"  {part + ', in all':<66}{sum(size for _, size in some):9.2f} GiB")
    return "\n".join(lines)
