"""The shapes of Llama-like models: what a plan is computed from, before anything is downloaded or run."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from irpo_lib.config import read_yaml
from irpo_lib.models.load import resolve_model
from irpo_lib.terminal.errors import UserError


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
    def maps(self) -> list[tuple[int, int]]:
        """(in, out) of one layer's linear maps: queries, keys, values, output, then the MLP's gate, up and down."""
        h, q, kv = self.width, self.heads * self.head_size, self.kv_heads * self.head_size
        return [(h, q), (h, kv), (h, kv), (q, h), (h, self.mlp), (h, self.mlp), (self.mlp, h)]

    @property
    def block(self) -> int:
        """Parameters of one layer's linear maps."""
        return sum(a * b for a, b in self.maps)

    @property
    def split_by_tp(self) -> int:
        """Parameters that tensor parallelism cuts: the linear maps of the layers, and the head where it is not tied."""
        return self.layers * self.block + (0 if self.tied else self.vocabulary * self.width)

    @property
    def parameters(self) -> int:
        """Beside them the embedding, a norm before attention and MLP each and at the end, and biases."""
        bias = sum(out for _, out in self.maps[:3]) if self.qkv_bias else 0
        return self.split_by_tp + self.layers * (bias + 2 * self.width) + (self.vocabulary + 1) * self.width

    def lora_parameters(self, rank: int) -> int:
        """Adapters of a rank on all linear maps of all layers."""
        return self.layers * rank * sum(a + b for a, b in self.maps)


def sheets(name: str) -> dict[str, dict[str, Any]]:
    """A YAML file beside this one: what is described → its numbers."""
    return read_yaml(Path(__file__).with_name(name).read_text(encoding="utf8"), name)


#: So that a plan needs no network.
KNOWN = {name: Architecture(**shape) for name, shape in sheets("models.yaml").items()}


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
