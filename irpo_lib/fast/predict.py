"""One forward pass: the log-prob of each of a batch's targets, in the fastest way that a model can be computed in."""

import logging
from collections.abc import Sequence
from weakref import WeakSet

import torch
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

from irpo_lib.fast.batches import Batch, Tokens, row_batch, tree_batch
from irpo_lib.fast.chunked_logps import can_be_replaced, logps_instead_of_logits
from irpo_lib.fast.tree_attention import NAME as PREFIX_TREE
from irpo_lib.models.parallel import let_go

log = logging.getLogger(__name__)
#: How far two ways to compute a log-prob of a few tokens may be apart, in nats.
SAME = {torch.float64: 1e-3, torch.float32: 1e-3, torch.bfloat16: 0.1, torch.float16: 0.05}
#: Heads of models whose logits are their head's output, so that they can be made in chunks.
_in_chunks: WeakSet[torch.nn.Module] = WeakSet()


def predicted_logps(model: PreTrainedModel, batch: Batch) -> torch.Tensor:
    """The log-prob of each of a batch's targets, [R]; there are logits for these alone, in chunks where that works."""
    head = model.get_output_embeddings()
    if head in _in_chunks:
        with logps_instead_of_logits(head, batch.places, batch.targets):
            return model(**batch.inputs, use_cache=False).logits
    width = batch.inputs["input_ids"].shape[1]
    columns, column = torch.unique(batch.places % width, return_inverse=True)
    logits = model(**batch.inputs, use_cache=False, logits_to_keep=columns).logits[batch.places // width, column]
    return -cross_entropy(logits.to(torch.promote_types(logits.dtype, torch.float32)), batch.targets, reduction="none")


@torch.no_grad()
def choose_path(model: PreTrainedModel, attention: str) -> PreTrainedModel:
    """Makes a model score in the fastest way that leaves its log-probs as they are.

    Where `attention` is the prefix tree and the model cannot have it, the log says why; a training's counts, and so
    `irpo status`, say what it has.

    Caps behind the head, layers that are no attention, learnt biases: what a model does is seen by trying it on a few
    tokens. What does not show on a few tokens, such as a window, `tree_attention` refuses.
    """
    prompt = [*range(3, 15)]
    sequences = [(prompt, [3, 1, 2]), (prompt, [3, 1, 4, 2]), ([*prompt[:-1], 1], [2]), ([5, 4], [3, 1])]
    head, said = model.get_output_embeddings(), []
    kept = head.register_forward_hook(lambda module, inputs, output: said.append(output))
    logits = model(**row_batch(sequences, model.device).inputs, use_cache=False).logits
    kept.remove()
    if can_be_replaced(head) and torch.equal(logits, said[0]):
        _in_chunks.add(head)
    if attention == PREFIX_TREE:
        reason = _why_no_tree(model, sequences)
        if reason:
            model.set_attn_implementation("sdpa")
            log.warning("%s: shared beginnings of sequences are computed in each of them, since %s",
                        type(model).__name__, reason)  # fmt: skip
    let_go(model)
    return model


def _why_no_tree(model: PreTrainedModel, sequences: Sequence[Tokens]) -> str:
    expected = predicted_logps(model, row_batch(sequences, model.device))
    batch = tree_batch(sequences, model.device)
    try:
        model.set_attn_implementation(PREFIX_TREE)
        found = predicted_logps(model, batch)[batch.of_response]
    except (ValueError, TypeError, RuntimeError) as error:
        return " ".join(str(error).split())
    difference = (found - expected).abs().max().item()
    return "" if difference <= SAME[model.dtype] else f"their log-probs would be off by {difference:.2g} nats"
