"""Libraries for a box of Figure 1: transformers and vLLM, here or behind a URL, sample; TRL's `DPOTrainer` trains.

A module that samples is a value of the key `engine` (`config`). It has `sampler(config, model, end)`, the engine with
a model ready; `end` is the token that ends a reply. It is asked with `n=`, `temperature=` and `seed=`, and gives (index
of the prompt, its samples) as they come.
"""

from collections.abc import Callable, Iterator

from irpo_lib.records import Sample

#: (prompts, n, temperature, seed) → (index of the prompt, its samples) as they come.
Sampler = Callable[..., Iterator[tuple[int, list[Sample]]]]
