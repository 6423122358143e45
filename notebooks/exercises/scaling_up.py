"""Exercises of notebook 07."""

from irpo_exercises.checker import Exercise


def state_bytes(parameters: float, ddp: int, fsdp: int, tp: int) -> float:
    """Bytes on each GPU for weights, gradients and AdamW's two moments in full fine-tuning, in float32."""
    return 4 * 4 * parameters / (fsdp * tp)


def accumulation_steps(batch: int, micro_batch: int, ddp: int, fsdp: int, tp: int) -> int | None:
    """Micro-batches that each data rank adds up before a step; None if the batch cannot be so divided."""
    steps, left = divmod(batch, micro_batch * ddp * fsdp)
    return steps if steps and not left else None


def _tp_counts(batch, micro_batch, ddp, fsdp, tp):
    steps, left = divmod(batch, micro_batch * ddp * fsdp * tp)
    return steps if steps and not left else None


def _only_ddp(batch, micro_batch, ddp, fsdp, tp):
    steps, left = divmod(batch, micro_batch * ddp)
    return steps if steps and not left else None


def _rounded(batch, micro_batch, ddp, fsdp, tp):
    return batch // (micro_batch * ddp * fsdp)


def kv_cache_bytes(layers: int, kv_heads: int, head_dim: int, tokens: int, rows: int) -> int:
    """Bytes of the keys and values of `rows` sequences of `tokens` tokens, in bfloat16."""
    return 2 * layers * kv_heads * head_dim * tokens * rows * 2


def tree_tokens(sequences: list[list[int]]) -> int:
    """Tokens of a prefix tree of the sequences: a beginning that several have in common counts once."""
    return len({tuple(s[: i + 1]) for s in sequences for i in range(len(s))})


def _different_tokens(sequences):
    return len({token for s in sequences for token in s})


def _common_to_all(sequences):
    common = 0
    while all(len(s) > common and s[common] == sequences[0][common] for s in sequences):
        common += 1
    return common + sum(len(s) - common for s in sequences)


def _same_place(sequences):
    return len({(i, token) for s in sequences for i, token in enumerate(s)})


EXERCISES = [
    Exercise(
        state_bytes,
        "The four numbers a parameter, cut up by a layout. Which of ddp, fsdp and tp divide them?",
        1,
        5,
        "DDP keeps whole copies. FSDP and TP each cut every weight, and their cuts multiply.",
        [(70e9, 1, 8, 8), (70e9, 16, 1, 1), (1e9, 2, 4, 1)],
        {
            "DDP divides the pairs, not the state": lambda p, d, f, t: 16 * p / (d * f * t),
            "the gradients are missing": lambda p, d, f, t: 12 * p / (f * t),
            "AdamW's two moments are missing": lambda p, d, f, t: 8 * p / (f * t),
            "nothing is divided": lambda p, d, f, t: 16 * p,
        },
    ),
    Exercise(
        accumulation_steps,
        "16 pairs a step, whatever the number of GPUs. How many micro-batches does each data rank add up?",
        2,
        5,
        "The ranks of a TP group see the same pairs, so they count once. `divmod`.",
        [(16, 1, 1, 8, 8), (16, 4, 1, 1, 1), (16, 1, 1, 64, 1), (16, 1, 2, 4, 4), (16, 3, 1, 2, 1)],
        {
            "a TP group sees the same pairs, and is one data rank": _tp_counts,
            "FSDP ranks have pairs of their own, as DDP ranks have": _only_ddp,
            "a batch that cannot be divided is None, not rounded: it would be another batch size": _rounded,
        },
    ),
    Exercise(
        kv_cache_bytes,
        "What a response costs in memory while it is being sampled. With Llama-2-70B's 80 layers and 8 key-value heads "
        "of 128 numbers, one sequence of 4,096 tokens takes 1.34 GB.",
        1,
        5,
        "Keys *and* values, in each layer, for each token; a bfloat16 has two bytes.",
        [(80, 8, 128, 4096, 1), (32, 32, 128, 100, 16), (4, 4, 32, 128, 512)],
        {
            "keys and values: two of each, or a bfloat16's second byte is missing": lambda *a: kv_cache_bytes(*a) // 2,
            "one byte a number and keys only": lambda *a: kv_cache_bytes(*a) // 4,
            "a bfloat16 has two bytes, not four": lambda *a: kv_cache_bytes(*a) * 2,
        },
    ),
    Exercise(
        tree_tokens,
        "How many tokens does a prefix tree compute? Each node of a tree is a *different beginning* of a sequence.",
        2,
        10,
        "Put all beginnings `tuple(sequence[: i + 1])` of all sequences into a set.",
        [([[1, 2, 3], [1, 2, 4]],), ([[1, 1, 1], [1, 1], [2]],), ([[5, 6, 7, 8], [5, 9, 7, 8], [5, 9, 7, 1]],)],
        {
            "equal tokens are not enough: they must follow the same beginning": _different_tokens,
            "only what *all* sequences share is shared; two of them may have more in common": _common_to_all,
            "the same token at the same place is shared only if all before it is the same, too": _same_place,
        },
    ),
]
