"""The long work of the stages, which may run in processes of its own: sampling, reference log-probs, training.

Each function takes plain values and folders, so that a job file can hold them: `python -m irpo_lib.work JOB.json` does
in a new process, or in each of many, what a call does in this one. Which of the two it is, `cluster.launch` decides.
"""

import json
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Any

from irpo_lib.cluster.children import die_with_parent
from irpo_lib.config import Config, derive_seed
from irpo_lib.errors import UserError
from irpo_lib.parquet import Records
from irpo_lib.progress import Progress, quiet
from irpo_lib.records import Completion, PreferencePair, Problem
from irpo_lib.store import read_json, read_records, sole_writer, write_json, write_records
from irpo_lib.tasks import get_task


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
    from irpo_lib.models import encode_prompt, load_tokenizer, model_hash

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
    from irpo_lib.models import end_token_id

    end = end_token_id(tokenizer)
    if config.engine == "transformers":
        from irpo_lib.generation import generate
        from irpo_lib.models import load_model

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


def reference(config: Config, folder: Path, pairs: Path, model: str) -> None:
    """log M_t of each distinct response of the pairs, into `folder/logps.json`."""
    from irpo_lib.logprobs import reference_logps
    from irpo_lib.parallel import check_layout, join
    from irpo_lib.weights import computing, load_for_training

    ranks = join(config)
    with sole_writer(folder, ranks.is_main), quiet(not ranks.is_main):
        loaded = load_for_training(model, config)
        check_layout(loaded, ranks)
        with computing(config, loaded.device):
            logps = reference_logps(loaded, Records(pairs / "pairs.parquet", PreferencePair), ranks)
        if ranks.is_main:
            write_json(folder / "logps.json", logps)


def scored_pairs(pairs: Path, reference: Path, without: Sequence[str] = ()) -> "ScoredPairs":
    """D_pairs with its reference log-probs, each pair read when it is asked for; `without` problems are left out."""
    return ScoredPairs(Records(pairs / "pairs.parquet", PreferencePair), read_json(reference / "logps.json"), without)


class ScoredPairs(Sequence):
    """Pairs and `logps` by `response_key`; the log-prob of an empty response (SFT on gold rejects nothing) is 0."""

    def __init__(self, pairs: Records[PreferencePair], logps: dict[str, float], without: Sequence[str] = ()):
        hidden = set(without)
        self.pairs, self.logps = pairs, logps
        self.kept = [i for i, problem_id in enumerate(pairs.column("problem_id")) if problem_id not in hidden]

    def __len__(self) -> int:
        return len(self.kept)

    def __getitem__(self, index):
        from irpo_lib.training import ScoredPair

        if isinstance(index, slice):
            return [self[i] for i in range(len(self))[index]]
        pair = self.pairs[self.kept[index]]
        return ScoredPair(pair, self._logp(pair, pair.chosen_ids), self._logp(pair, pair.rejected_ids))

    def _logp(self, pair: PreferencePair, response: list[int]) -> float:
        from irpo_lib.logprobs import response_key

        return self.logps[response_key(pair.prompt_ids, response)] if response else 0.0


def train(
    config: Config, folder: Path, pairs: Path, reference: Path, model: str, iteration: int, steps: int,
    followed: Sequence[dict[str, Any]] = (), without: Sequence[str] = (), keep_checkpoints: bool = False,
) -> None:  # fmt: skip
    """The next model, `folder/model`, and what was logged; counts go to `folder/counts.json`."""
    from irpo_lib.models import load_tokenizer
    from irpo_lib.parallel import check_layout, join
    from irpo_lib.probe import ProbeItem
    from irpo_lib.weights import load_for_training

    ranks = join(config)
    engine = import_module({"irpo": "irpo_lib.training", "trl": "irpo_lib.engines.trl"}[config.training_engine])
    with sole_writer(folder, ranks.is_main), quiet(not ranks.is_main):
        loaded = load_for_training(model, config)
        check_layout(loaded, ranks)
        counts = engine.train(
            loaded, load_tokenizer(model), scored_pairs(pairs, reference, without), config, steps,
            derive_seed(config.seed, "train", iteration), folder, keep_checkpoints,
            [ProbeItem(**item) for item in followed], ranks,
        )  # fmt: skip
        if ranks.is_main:
            write_json(folder / "counts.json", counts)


WORK: dict[str, Callable[..., None]] = {"sample": sample, "reference": reference, "train": train}
#: Arguments that are paths; in a job file they are text.
PATHS = ("folder", "pairs", "reference", "problems")


def write_job(path: Path, work: str, config: Config, arguments: dict[str, Any]) -> None:
    plain = {name: str(value) if name in PATHS else value for name, value in arguments.items()}
    write_json(path, {"work": work, "config": asdict(config), "arguments": plain})


def main(argv: Sequence[str]) -> int:
    """`python -m irpo_lib.work JOB.json [PART OF]`; one sentence on stderr for what a user can put right."""
    from irpo_lib.config import config_from
    from irpo_lib.parallel import leave

    die_with_parent(signal.SIGKILL)
    job = json.loads(Path(argv[0]).read_text(encoding="utf8"))
    arguments = {n: Path(v) if n in PATHS else v for n, v in job["arguments"].items()}
    if len(argv) == 3:
        arguments |= {"part": int(argv[1]), "of": int(argv[2])}
    try:
        WORK[job["work"]](config_from(job["config"]), **arguments)
    except UserError as error:
        print(f"irpo: {error}", file=sys.stderr, flush=True)
        return 1
    leave()
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        sys.stdout.flush()
        os._exit(0)  # a thread of gloo's may still be there, and abort a process that ends in the ordinary way
    return 0


def to_text(tokenizer, token_ids: list[int]) -> str:
    return tokenizer.decode(token_ids, skip_special_tokens=True).strip()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
