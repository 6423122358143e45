"""What a training leaves on disk: checkpoints to go on from, and the model; each there whole or not at all."""

from pathlib import Path

from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback

from irpo_lib.store import remove

#: A checkpoint without this file was cut off while it was being written.
COMPLETE = "complete"


class MarkComplete(TrainerCallback):
    """Marks a checkpoint as whole after its last file was written."""

    def on_save(self, args, state, control, **kwargs):
        if state.is_world_process_zero:
            (Path(args.output_dir) / f"checkpoint-{state.global_step}" / COMPLETE).touch()


def newest_complete_checkpoint(folder: Path) -> Path | None:
    """The checkpoint to go on from: never one that was cut off while it was being written."""
    found = [p.parent for p in folder.glob(f"checkpoint-*/{COMPLETE}")]
    return max(found, key=lambda p: int(p.name.rpartition("-")[2]), default=None)


def write_model(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """A model folder as transformers and vLLM read it (safetensors); there whole or not at all."""
    temporary = folder.with_name(folder.name + ".tmp")
    remove(temporary)
    model.save_pretrained(temporary)
    tokenizer.save_pretrained(temporary)
    remove(folder)
    temporary.rename(folder)
