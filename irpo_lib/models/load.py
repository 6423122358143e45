"""Models and tokenizers from a folder or the hub; prompts and gold solutions as token ids."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging

from irpo_lib.config import DATA
from irpo_lib.models.device import device, keep_freed_memory
from irpo_lib.models.hub import hub_problem
from irpo_lib.stages.store import hash_folder, hash_json
from irpo_lib.terminal.errors import UserError, first_sentence


def resolve_model(name: str) -> str:
    """ "mini-llama" → its folder in data/; a .gguf file → the folder made of it; else a folder or a name on the hub."""
    if name.endswith(".gguf") and not Path(name).is_dir():
        from irpo_lib.models.gguf import folder_from_gguf

        return folder_from_gguf(name)
    return str(DATA / name) if name == "mini-llama" else name


def model_hash(name: str) -> str:
    """A hash of a model's files; for a name on the hub, of the name."""
    path = Path(resolve_model(name))
    return hash_folder(path) if path.is_dir() else hash_json(name)


def load_tokenizer(name: str) -> PreTrainedTokenizerBase:
    """Raises UserError when the folder is missing or holds no tokenizer."""
    path = _existing(name)
    with loading("tokenizer", path, Exception):  # a broken file raises nearly anything: KeyError, a bare Exception
        tokenizer = AutoTokenizer.from_pretrained(path)
    if tokenizer.eos_token_id is None:
        raise UserError(f"{path}: the tokenizer has no EOS token; a finished response must end with one")
    return tokenizer


def load_model(
    name: str, dtype: str, attention: str = "sdpa", distributed: Any = None, four_bit: bool = False
) -> PreTrainedModel:
    """A causal language model in evaluation mode, on the GPU where there is one.

    `distributed` cuts it up over processes while it loads (`parallel.distributed_config`); `four_bit` keeps its linear
    maps in 4 bits (NF4), which needs bitsandbytes.
    """
    path = _existing(name)
    keep_freed_memory()
    with loading("model", path, OSError, ValueError, RuntimeError, SafetensorError):
        model = whole_model(
            path, path, dtype=getattr(torch, dtype), attn_implementation=attention, distributed_config=distributed,
            **(_four_bits(dtype) if four_bit else {}),
        )  # fmt: skip
    if four_bit:
        for module in model.modules():  # else, scored on a CPU, they are packed into a form without a backward pass
            if hasattr(module, "support_avx512bf16_for_cpu"):
                module.support_avx512bf16_for_cpu = False
    elif not distributed:
        model.to(device())
    return model.eval()


def whole_model(path: str, source: str, **options: Any) -> Any:
    """`from_pretrained` of a source, which a UserError calls `path` where its files lack tensors.

    transformers fills them with random numbers.
    """
    logging.disable_progress_bar()
    loaded: Any = AutoModelForCausalLM.from_pretrained(source, output_loading_info=True, **options)
    model, found = loaded
    if missing := found["missing_keys"]:
        raise UserError(f"{path}: the weights lack {len(missing)} tensors, {min(missing)} among them")
    return model


def _four_bits(dtype: str) -> dict[str, Any]:
    """QLoRA's storage (Dettmers et al., 2023): NF4 with quantised constants, computing in `dtype`."""
    if find_spec("bitsandbytes") is None:
        raise UserError("lora_quantized needs bitsandbytes: install it with `pip install -e '.[qlora]'`")
    from transformers import BitsAndBytesConfig

    settings = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=getattr(torch, dtype),
    )  # fmt: skip
    return {"quantization_config": settings, "device_map": {"": device()}}


def encode_prompt(tokenizer: PreTrainedTokenizerBase, prompt: str) -> list[int]:
    """The user's message as token ids, through the model's chat template where it has one; exactly one BOS."""
    if tokenizer.chat_template is None:
        return tokenizer(prompt)["input_ids"]
    message = [{"role": "user", "content": prompt}]
    ids: Any = tokenizer.apply_chat_template(message, add_generation_prompt=True, return_dict=False)
    bos = tokenizer.bos_token_id
    if bos is not None and bos in tokenizer("")["input_ids"] and ids[0] != bos:
        ids = [bos, *ids]
    return ids


def encode_reply(tokenizer: PreTrainedTokenizerBase, prompt: str, reply: str) -> list[int]:
    """A written reply (a gold solution) as the token ids that follow the prompt's, with exactly one end token."""
    if tokenizer.chat_template is None:
        return [*tokenizer(" " + reply, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
    end = end_token_id(tokenizer)
    ids = tokenizer(_text_after_prompt(tokenizer, prompt, reply), add_special_tokens=False)["input_ids"]
    return [*ids[: ids.index(end)], end] if end in ids else [*ids, end]


def end_token_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """What ends a reply: the special token that the chat template writes behind it, else EOS.

    They differ where a chat template is used with a tokenizer whose EOS is the one of pre-training.
    """
    if tokenizer.chat_template is None:
        return tokenizer.eos_token_id
    special = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    special = (special | set(tokenizer.all_special_ids)) - {tokenizer.unk_token_id}
    behind = _text_after_prompt(tokenizer, "Hello", "Hello").rpartition("Hello")[2]
    found = tokenizer(behind, add_special_tokens=False)["input_ids"] if behind else []
    return next((i for i in found if i in special), tokenizer.eos_token_id)


def _text_after_prompt(tokenizer: PreTrainedTokenizerBase, prompt: str, reply: str) -> str:
    """The text with which the chat template goes on behind the prompt."""
    user, assistant = {"role": "user", "content": prompt}, {"role": "assistant", "content": reply}
    render: Any = partial(tokenizer.apply_chat_template, tokenize=False)
    before, whole = render([user], add_generation_prompt=True), render([user, assistant])
    if not whole.startswith(before):
        raise UserError("the chat template changes the prompt when a reply follows: gold solutions cannot be encoded")
    return whole[len(before) :]


def _existing(name: str) -> str:
    path = resolve_model(name)
    if not Path(path).is_dir() and (path.startswith((".", "/", "~")) or name == "mini-llama"):
        raise UserError(f"the model folder {path} does not exist")
    return path


def check_weights(name: str) -> None:
    """Raises UserError where a model has no weights, before any work is done with its tokenizer alone.

    Those of a name on the hub are downloaded; nothing is read into memory.
    """
    folder = Path(_existing(name))
    if not folder.is_dir():
        logging.disable_progress_bar()
        with loading("model", str(folder), OSError):
            AutoModelForCausalLM.from_pretrained(str(folder), device_map="meta")
    elif not [*folder.glob("*.safetensors"), *folder.glob("*.bin")]:
        raise UserError(f"{folder}: the model's weights (*.safetensors) are missing from it")


@contextmanager
def loading(what: str, path: str, *kinds: type[Exception]) -> Iterator[None]:
    """Errors of these kinds, met while a model or tokenizer is loaded, become a UserError that says what to do."""
    try:
        yield
    except UserError:
        raise
    except kinds as error:
        if Path(path).is_dir() or path.endswith(".gguf"):
            raise UserError(f"{path}: no {what} can be loaded from it ({first_sentence(error)})") from error
        sentence = hub_problem(path, error) or (
            f"the {what} of {path} is neither on this machine nor to be had from the hub: accept its licence at "
            f"https://huggingface.co/{path} if it has one, get it with `hf download {path}` where there is a network, "
            f"and pass model=FOLDER ({first_sentence(error)})"
        )
        raise UserError(sentence) from error
