"""A model in a .gguf file → an ordinary folder of safetensors, tokenizer and chat template, made once beside the file.

Beside the file, not in a run: other tasks and seeds, notebooks and a stage's processes need the same one. A run notices
another model by its hash.
"""

from functools import cache
from importlib.util import find_spec
from os import W_OK, access
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import transformers
from tokenizers.processors import TemplateProcessing
from transformers import AutoModelForCausalLM, AutoTokenizer

from irpo_lib.models.load import loading, whole_model
from irpo_lib.stages.store import MANIFEST, hash_file, run_stage
from irpo_lib.terminal.errors import UserError

#: Cosine from which on embedding and output matrix are one matrix, quantised twice (0.999 for 5 and 8 bits).
SAME_MATRIX = 0.95


def folder_from_gguf(name: str) -> str:
    """NAME.gguf → NAME-from-gguf; `stage.json` there has the file's name, size and sha256; another file is refused."""
    path = Path(name).absolute()
    if not path.is_file():
        raise UserError(f"the model file {name} does not exist")
    return str(_folder(path, path.stat().st_size, path.stat().st_mtime_ns))


@cache  # for each state of the file: its sha256 takes a second
def _folder(path: Path, size: int, modified: int) -> Path:
    folder = path.with_name(path.stem + "-from-gguf")
    if not (folder / MANIFEST).is_file():
        if find_spec("gguf") is None:
            raise UserError(f"{path} needs the package gguf: install it with `pip install -e '.[gguf]'`")
        if not access(path.parent, W_OK):
            raise UserError(f"{folder} cannot be made: move {path.name} into a folder that you can write to")

    def work(folder: Path) -> dict[str, Any]:
        model, tokenizer = _read(path)
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return {"parameters": model.num_parameters(), "tied": model.config.tie_word_embeddings}

    return run_stage(folder, {"file": path.name, "bytes": size}, {"sha256": hash_file(path)}, work)


@torch.no_grad()
def _read(path: Path) -> tuple[Any, Any]:
    """Model and tokenizer; bfloat16 rounds by 0.2 %, far below a step of 4 to 6 bits. A file in 16 or 32 loses more."""
    # transformers 5.19 may leave weights in 4 bits unless it is told; 5.16 never does and has no such class.
    unpacked = {"quantization_config": c(dequantize=True)} if (c := getattr(transformers, "GgufConfig", None)) else {}
    with (
        loading("model", str(path), Exception),  # a broken file raises nearly anything
        TemporaryDirectory() as alone,  # transformers would also read another model's config.json beside the file
    ):
        from gguf import GGUFReader

        (Path(alone) / "model.gguf").symlink_to(path)
        file = GGUFReader(path)
        tokenizer: Any = AutoTokenizer.from_pretrained(alone, gguf_file="model.gguf")
        model = whole_model(str(path), alone, gguf_file="model.gguf", dtype=torch.bfloat16, **unpacked)
    _add_bos(tokenizer, file)
    _tie(model, {t.name: t.n_bytes / t.n_elements for t in file.tensors})
    model.config.__dict__.pop("quantization_config", None)
    with torch.device("meta"):  # transformers does not save a model that it read from such a file
        plain = AutoModelForCausalLM.from_config(model.config, dtype=torch.bfloat16)
    plain.load_state_dict(model.state_dict(), assign=True)
    plain.tie_weights()
    plain.generation_config = model.generation_config
    return plain, tokenizer


def _add_bos(tokenizer: Any, file: Any) -> None:
    """Before every text where the file says so, which transformers overlooks, or says nothing and llama.cpp adds it."""
    said = {k: f.contents() for k in ("add_bos_token", "model", "pre") if (f := file.get_field(f"tokenizer.ggml.{k}"))}
    bos = tokenizer.bos_token
    if bos and said.get("add_bos_token", said.get("model") == "llama" or said.get("pre") == "llama-bpe"):
        tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
            single=f"{bos} $A", pair=f"{bos} $A $B", special_tokens=[(bos, tokenizer.bos_token_id)]
        )


def _tie(model: Any, bits: dict[str, float]) -> None:
    """Makes one matrix again of one that was written as embedding and as output matrix (Qwen2 0.5B): the finer one.

    transformers takes every model whose file has an output matrix for untied, and training would move the two apart.
    """
    embedding, head = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    if embedding is head or embedding.shape != head.shape:
        return
    if torch.cosine_similarity(embedding[::16].flatten().float(), head[::16].flatten().float(), dim=0) > SAME_MATRIX:
        if bits["output.weight"] > bits["token_embd.weight"]:
            embedding.copy_(head)
        model.config.tie_word_embeddings = True
