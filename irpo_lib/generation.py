"""(c^n, y^n) ~ M_t(x): N sampled responses to each problem, as token ids (§ 2).

Which library samples is the config's `engine`: each is a module of `engines`.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from irpo_lib.config import Config, derive_seed
from irpo_lib.models.load import encode_prompt, end_token_id, load_model, load_tokenizer, model_hash
from irpo_lib.records import Completion, Problem
from irpo_lib.stages.store import read_records, write_records
from irpo_lib.tasks import get_task
from irpo_lib.terminal.errors import UserError
from irpo_lib.terminal.progress import Progress


def sample(
    config: Config, folder: Path, model: str, weights: str, problems: Path, n: int, temperature: float, what: str,
    part: int = 0, of: int = 1,
) -> None:  # fmt: skip
    """n responses of a model to each problem, shard by shard; shards that are there are kept.

    Of several processes, each writes every `of`-th shard. `problems` is a Parquet file of them, `weights` the hash of
    the model's files.

    Raises:
        UserError: the files are others, here or now: a shared disk that lags behind, a folder written anew.
    """
    everything = read_records(problems, Problem)
    task, tokenizer = get_task(config.task, config.task_path), load_tokenizer(model)
    size, mine = config.problems_per_shard, []
    for number in range(part, -(-len(everything) // size), of):
        mine.append((folder / f"shard-{number:05d}.parquet", number, everything[number * size : (number + 1) * size]))
    missing = [shard for shard in mine if not shard[0].is_file()]
    if missing and (found := model_hash(model)) != weights:
        raise UserError(
            f"the files of {model} are not those that this stage began with (hash {found}, should be {weights}): "
            f"see that every machine has the same files, and run again"
        )
    with Progress(sum(len(some) for _, _, some in mine), what) as progress:
        progress.skip(sum(len(some) for path, _, some in mine if path.is_file()))
        draw = _sampler(config, model, tokenizer) if missing else None
        for path, number, some in missing:
            prompts = [encode_prompt(tokenizer, task.prompt(p)) for p in some]
            drawn = {}
            for index, samples in draw(prompts, n, temperature, what, number, some):  # type: ignore[misc]
                drawn[index] = samples
                progress.add(1)
            records = [
                Completion(p.id, i, prompts[k], s.token_ids, to_text(tokenizer, s.token_ids), s.finish_reason)
                for k, p in enumerate(some)
                for i, s in enumerate(drawn[k])
            ]
            write_records(path, records)


def _sampler(config: Config, model: str, tokenizer: Any) -> Any:
    """The engine, ready: (prompts, n, temperature, what, shard, problems) → (index, samples) as they come."""
    end = end_token_id(tokenizer)
    if config.engine == "transformers":
        from irpo_lib.engines.transformers import generate

        loaded = load_model(model, config.dtype)

        def draw(prompts, n, temperature, what, shard, problems) -> Iterator:
            seed = derive_seed(config.seed, what, shard)
            return generate(loaded, prompts, n, temperature, config.top_p, config.max_new_tokens, seed,
                            config.generation_rows, end)  # fmt: skip

        return draw
    if config.engine == "vllm":
        from irpo_lib.engines import vllm

        draw_from: Any = vllm.generate
        source: Any = vllm.load_engine(model, config.dtype, config.generation_tp)
    else:
        from irpo_lib.engines import server

        draw_from = server.generate
        source = (config.server, server.check_server(str(config.server), model))

    def draw_with_seeds(prompts, n, temperature, what, shard, problems) -> Iterator:
        """Each problem has a seed of its own, so that the size of shards does not change what is sampled."""
        seeds = [derive_seed(config.seed, what, p.id) for p in problems]
        return draw_from(source, prompts, n, temperature, config.top_p, config.max_new_tokens, seeds, end)

    return draw_with_seeds


def to_text(tokenizer, token_ids: list[int]) -> str:
    return tokenizer.decode(token_ids, skip_special_tokens=True).strip()
