"""What a training leaves on disk: checkpoints to go on from, and the model; each there whole or not at all.

A checkpoint holds the trained weights and AdamW's two moments, each rank's part in a safetensors file of its own,
through `torch.distributed.checkpoint`: a training may go on in another layout than it began with.
"""

import copy
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import torch.distributed.checkpoint as dcp
from huggingface_hub import split_state_dict_into_shards_factory
from safetensors.torch import save_file
from torch.distributed.checkpoint.api import CheckpointException
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from irpo_lib.config import Config
from irpo_lib.models.parallel import Ranks, wait_for_all, whole
from irpo_lib.models.weights import merged_copy
from irpo_lib.stages.store import COMPLETE, read_json, remove, replace_file, write_json
from irpo_lib.terminal.errors import UserError

#: What AdamW keeps of each weight.
MOMENTS = ("exp_avg", "exp_avg_sq")
#: Checkpoints that stay while a training goes on: should the newest be damaged, there is one before it.
KEPT = 2
#: The largest file of a model that is written in parts, in bytes.
FILE_SIZE = 5 * 10**9
#: The same of a rank's part of a checkpoint: while safetensors writes a file, all of it is in memory twice more.
PART_SIZE = 2**29


def save(folder: Path, model: Any, optimizer: torch.optim.AdamW, log: list[dict[str, float]], ranks: Ranks,
         keep: bool = False) -> None:  # fmt: skip
    """Writes `folder/checkpoint-STEP`; of the older ones all but the newest are deleted, none with `keep`."""
    target = folder / f"checkpoint-{len(log)}"
    _make_empty(target, ranks)
    state = _state(model, optimizer)
    writer = dcp.HuggingFaceStorageWriter(str(target), _files(state, ranks), save_distributed=True)
    with warnings.catch_warnings(action="ignore"):  # that one process is alone
        try:
            dcp.save(state, storage_writer=writer, no_dist=ranks.layout.processes == 1)
        except CheckpointException as error:
            raise next(iter(error.failures.values()))[0] from error
    wait_for_all(ranks)
    if ranks.is_main:
        write_json(target / COMPLETE, log)
        made = sorted(folder.glob("checkpoint-*"), key=_step)
        for old in [] if keep else made[:-KEPT]:
            remove(old)


def resume(folder: Path, model: Any, optimizer: torch.optim.AdamW, ranks: Ranks) -> list[dict[str, float]]:
    """Puts the newest complete checkpoint into model and optimiser and returns its log; [] where there is none.

    Raises:
        UserError: a file of the checkpoint cannot be read.
    """
    newest = newest_complete_checkpoint(folder)
    if newest is None:
        return []
    log = read_json(newest / COMPLETE)
    state = _state(model, optimizer)
    try:
        reader = dcp.HuggingFaceStorageReader(str(newest))
        with warnings.catch_warnings(action="ignore"):
            dcp.load(state, storage_reader=reader, no_dist=ranks.layout.processes == 1)
    except (Exception, CheckpointException) as error:  # whatever a broken file raises, on whichever rank
        raise UserError(
            f"{newest} cannot be read ({type(error).__name__}): delete this folder, and the training goes on from the "
            f"checkpoint before it"
        ) from error
    for moments in optimizer.state.values():
        moments["step"].fill_(len(log))
    return log


def newest_complete_checkpoint(folder: Path) -> Path | None:
    """The checkpoint to go on from: never one that was cut off while it was being written."""
    return max((p.parent for p in folder.glob(f"checkpoint-*/{COMPLETE}")), key=_step, default=None)


def _make_empty(folder: Path, ranks: Ranks) -> None:
    """A folder that all ranks write into; what is there was cut off earlier."""
    if ranks.is_main:
        remove(folder)
        folder.mkdir(parents=True)
    wait_for_all(ranks)


def _step(checkpoint: Path) -> int:
    return int(checkpoint.name.rpartition("-")[2])


def _state(model: Any, optimizer: torch.optim.AdamW) -> dict[str, torch.Tensor]:
    """The tensors of a checkpoint by name; they are the training's own, so that loading changes them in place."""
    state: dict[str, torch.Tensor] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        weight, moments = parameter.detach(), optimizer.state[parameter]
        if not moments:  # before the first step
            moments["step"] = torch.zeros((), dtype=torch.float32, device=weight.device)
            moments |= {kind: torch.zeros_like(weight) for kind in MOMENTS}
        state |= {f"weight.{name}": weight} | {f"{kind}.{name}": moments[kind] for kind in MOMENTS}
    return state


def _files(state: dict[str, torch.Tensor], ranks: Ranks) -> dict[str, int]:
    """The number of the file that each tensor, or a rank's piece of it, goes to."""
    parts = split_state_dict_into_shards_factory(
        state, get_storage_size=lambda t: t.numel() * t.itemsize // (ranks.layout.fsdp * ranks.layout.tp),
        max_shard_size=PART_SIZE, filename_pattern="{suffix}",
    )  # fmt: skip
    return {name: i for i, names in enumerate(parts.filename_to_tensors.values(), start=1) for name in names}


def write_model(model: Any, tokenizer: PreTrainedTokenizerBase, folder: Path, config: Config, ranks: Ranks) -> None:
    """A model folder as transformers and vLLM read it (safetensors), in the storage form of `dtype`.

    Adapters are merged in. A model that is cut up is put together tensor by tensor, and no rank ever holds more of
    it than one file.
    """
    temporary = folder.with_name(folder.name + ".tmp")
    _make_empty(temporary, ranks)
    if ranks.sharded:
        _write_parts(model, temporary, getattr(torch, config.dtype), ranks)
    elif ranks.is_main:
        plain = merged_copy(model, config)
        plain.config.use_cache = True
        plain.save_pretrained(temporary)
    wait_for_all(ranks)
    if ranks.is_main:
        tokenizer.save_pretrained(temporary)
        remove(folder)
        temporary.rename(folder)
    wait_for_all(ranks)


def _write_parts(model: PreTrainedModel, folder: Path, dtype: torch.dtype, ranks: Ranks) -> None:
    """Files of at most `FILE_SIZE`; each is put together on all ranks and kept and written by one."""
    tied = getattr(model, "all_tied_weights_keys", None) or {}  # written once, under the other name
    parameters = {name: p for name, p in model.named_parameters() if name not in tied}
    parts = split_state_dict_into_shards_factory(
        parameters, get_storage_size=lambda p: p.numel() * dtype.itemsize, max_shard_size=FILE_SIZE,
        filename_pattern="model{suffix}.safetensors",
    )  # fmt: skip
    for number, (file, names) in enumerate(parts.filename_to_tensors.items()):
        kept = {}
        for name in names:
            tensor = whole(parameters[name].detach().to(dtype))
            if number % ranks.layout.processes == ranks.rank:
                kept[name] = tensor.cpu().contiguous()
        if kept:
            save_file(kept, folder / file, metadata={"format": "pt"})
    if ranks.is_main:
        if parts.is_sharded:
            index = {"metadata": parts.metadata, "weight_map": parts.tensor_to_filename}
            write_json(folder / "model.safetensors.index.json", index)
        _write_configs(model, folder, dtype)


def _write_configs(model: PreTrainedModel, folder: Path, dtype: torch.dtype) -> None:
    config = copy.deepcopy(model.config)
    name = type(model).__name__.removeprefix("FSDP")  # FSDP2 makes a class of its own of the model's
    config.use_cache, config.dtype, config.architectures = True, dtype, [name]
    config.save_pretrained(folder)
    if model.generation_config is not None:
        model.generation_config.save_pretrained(folder)


def write_log(path: Path, rows: list[dict[str, float]]) -> None:
    """The training log: a line a step."""
    names = ["step", "loss", "dpo", "nll", "chosen_rewards", "rejected_rewards", "margins", "accuracies",
             "grad_norm", "learning_rate"]  # fmt: skip
    replace_file(path, partial(pd.DataFrame(rows).reindex(columns=names).to_csv, index=False))
