"""(c^n, y^n) ~ M_t(x): N sampled responses to each problem, as token ids (§ 2).

Which library samples is the config's `engine`: each is a module of `engines`.
"""

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from irpo_lib.config import Config, derive_seed
from irpo_lib.models.load import encode_prompt, end_token_id, load_tokenizer, model_hash
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
        if missing:
            draw = import_module(f"irpo_lib.engines.{config.engine}").sampler(config, model, end_token_id(tokenizer))
        for path, number, some in missing:
            prompts = [encode_prompt(tokenizer, task.prompt(p)) for p in some]
            drawn = {}
            seed = _seed(config, what, number, some)
            for index, samples in draw(prompts, n=n, temperature=temperature, seed=seed):
                drawn[index] = samples
                progress.add(1)
            records = [
                Completion(p.id, i, prompts[k], s.token_ids, to_text(tokenizer, s.token_ids), s.finish_reason)
                for k, p in enumerate(some)
                for i, s in enumerate(drawn[k])
            ]
            write_records(path, records)


def _seed(config: Config, what: str, shard: int, problems: Sequence[Problem]) -> int | list[int]:
    """A shard's; with vLLM each problem's own, so that the size of shards does not change what is sampled."""
    if config.engine == "transformers":
        return derive_seed(config.seed, what, shard)
    return [derive_seed(config.seed, what, p.id) for p in problems]


def to_text(tokenizer, token_ids: list[int]) -> str:
    return tokenizer.decode(token_ids, skip_special_tokens=True).strip()
