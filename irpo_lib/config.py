"""Presets: § 3 of the paper as flat YAML files, read into one frozen, validated `Config`."""

import hashlib
from dataclasses import dataclass, fields, replace
from inspect import formatannotation
from math import inf
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import yaml

from irpo_lib.cluster.layout import Parallel, check_batch, check_parallel, read_parallel
from irpo_lib.terminal.errors import UserError, check_keys, check_whole, nearest

PRESETS = Path(__file__).parent / "presets"
DATA = Path(__file__).parent.parent / "data"


def _one_of(*values: str):
    return (lambda v: v in values), "one of " + ", ".join(values)


# A type with its rule: what must hold of a value, and how an error puts it.
_NOT_NEGATIVE = (lambda v: 0 <= v < inf), "0 or more and finite"
_LATER_RATE = (lambda v: v is None or 0 < v < inf), "above 0 and finite, or null for learning_rate"
NotNegative = Annotated[float, _NOT_NEGATIVE]
NotNegativeInt = Annotated[int, _NOT_NEGATIVE]
Positive = Annotated[float, ((lambda v: 0 < v < inf), "above 0 and finite")]
Count = Annotated[int, ((lambda v: v >= 1), "1 or more")]
CountOrAll = Annotated[int | None, ((lambda v: v is None or v >= 1), "1 or more, or null for all")]


@dataclass(frozen=True)
class Config:
    """One experiment. Every key is explained in `presets/mini.yaml`; § numbers are the paper's."""

    task: str
    task_path: str | None
    model: str
    seed: int
    dtype: Annotated[str, _one_of("float32", "bfloat16", "float16")]
    attention: Annotated[str, _one_of("prefix_tree", "sdpa", "eager", "flash_attention_2")]
    # § 2, chain-of-thought and answer generation
    iterations: Count
    samples: Count
    temperatures: Annotated[tuple[float, ...], ((lambda v: all(0 < t < inf for t in v)), "above 0 and finite each")]
    top_p: Annotated[float, ((lambda v: 0 < v <= 1), "above 0 and at most 1")]
    max_new_tokens: Count
    engine: Annotated[str, _one_of("transformers", "vllm", "server")]
    server: str | None
    generation_tp: Count
    generation_rows: Count
    problems_per_shard: Count
    train_problems: CountOrAll
    # § 2, preference pairs
    pairs_per_problem: Count
    gold_in_winners: bool
    max_length: Count
    max_pairs: Count
    replay: bool
    # Equation 1 and its optimisation
    beta: Positive
    alpha: NotNegative
    dpo_weight: NotNegative
    nll_mean: Annotated[str, _one_of("sequence", "batch", "sum")]
    reference_model: Annotated[str, _one_of("previous", "seed")]
    learning_rate: Positive
    later_learning_rate: Annotated[float | None, _LATER_RATE]
    learning_rate_schedule: Annotated[str, _one_of("constant", "linear", "cosine")]
    warmup_steps: NotNegativeInt
    batch_size: Count
    micro_batch_size: Count
    max_steps: Count
    checkpoint_every: Count
    select_checkpoint: bool
    held_out: NotNegativeInt
    training_engine: Annotated[str, _one_of("irpo", "trl")]
    gradient_checkpointing: bool
    lora_rank: NotNegativeInt
    lora_alpha: Count
    lora_quantized: bool
    # § 3, "8 nodes": how the work is spread over processes
    parallel: Parallel
    launcher: Annotated[str, _one_of("local", "slurm")]
    nodes: Count
    slurm_options: tuple[str, ...]
    setup: tuple[str, ...]
    container: str
    # Figures 2-4, diagnostics
    probe_every: NotNegativeInt
    probe_pairs: Count
    # § 3, evaluation
    test_problems: CountOrAll
    majority_samples: Count
    majority_problems: CountOrAll
    majority_temperature: Positive
    majority_iterations: tuple[int, ...]

    def __post_init__(self) -> None:
        for f in fields(self):
            value = getattr(self, f.name)
            for holds, right in getattr(f.type, "__metadata__", ()):
                if not holds(value):
                    raise UserError(f"{f.name}={value!r} cannot be: it must be {right}")
        if len(self.temperatures) != self.iterations:
            raise UserError(
                f"temperatures={list(self.temperatures)} has {len(self.temperatures)} values for "
                f"iterations={self.iterations}: give one for each iteration"
            )
        check_batch(self)
        check_parallel(self)
        if self.alpha == 0 and self.dpo_weight == 0:
            raise UserError("alpha=0 with dpo_weight=0 leaves no loss: set one of them above 0")
        if any(not 0 <= t <= self.iterations for t in self.majority_iterations):
            raise UserError(
                f"majority_iterations={list(self.majority_iterations)} names a model that iterations={self.iterations} "
                f"does not make: give numbers from 0 (M0) to {self.iterations}"
            )
        if self.lora_quantized and not self.lora_rank:
            raise UserError("lora_quantized=true needs lora_rank above 0: adapters on a model in 4 bits")
        if self.training_engine == "trl" and self.nll_mean == "sum":
            raise UserError("nll_mean=sum needs training_engine=irpo: TRL's NLL term is a mean over tokens")
        if self.select_checkpoint and not self.held_out:
            raise UserError("select_checkpoint=true needs held_out above 0: problems to choose the checkpoint on")
        if self.select_checkpoint and self.checkpoint_every > self.max_steps:
            raise UserError("select_checkpoint=true needs checkpoint_every of at most max_steps")

    def of_iteration(self, iteration: int) -> "Config":
        """With the learning rate of iteration t."""
        if iteration == 1 or self.later_learning_rate is None:
            return self
        return replace(self, learning_rate=self.later_learning_rate)

    def only(self, *names: str) -> dict[str, Any]:
        """The named settings, as a stage records them."""
        return {name: getattr(self, name) for name in names}


#: Keys and the types of their values, as an error names them.
KINDS = {name: formatannotation(kind) for name, kind in get_type_hints(Config).items()}


def load_config(preset: str = "mini", task: str | None = None, /, **overrides: Any) -> Config:
    """Reads a preset, then the part it has for the task, then the overrides.

    Args:
        preset: A name in `irpo_lib/presets`, or a path to a YAML file of the same keys.
        task: Overrides the preset's task.
        overrides: Keys of `Config`, `task` among them; None values count as given.

    Raises:
        UserError: an unknown preset, task or key, a value of the wrong type or out of range; `dtype: auto` where other
            machines do the work.
    """
    path = Path(preset) if preset.endswith((".yaml", ".yml")) else PRESETS / f"{preset}.yaml"
    if not path.is_file():
        if path.parent != PRESETS:
            raise UserError(f"preset file {path} does not exist")
        raise UserError(f"unknown preset '{preset}'" + nearest(preset, [p.stem for p in PRESETS.glob("*.yaml")]))
    values = read_yaml(path.read_text(encoding="utf8"), str(path))
    per_task = values.pop("per_task", {}) if isinstance(values, dict) else None
    if not isinstance(per_task, dict) or not all(isinstance(v, dict) for v in per_task.values()):
        raise UserError(f"{path}: a preset is lines of 'key: value', and per_task has such keys for each task")
    values["task"] = overrides.get("task") or task or values.get("task")
    name = str(values["task"])
    if task_source(name) == "preset":  # other tasks take the plain values
        if name not in per_task:
            raise UserError(f"preset '{preset}' has no task '{name}'" + nearest(name, per_task))
        values |= per_task[name]
    check_keys(values, KINDS, str(path))
    check_whole(values, KINDS, str(path))
    check_keys(overrides, KINDS, "overrides")
    values |= overrides
    return config_from(values | {"dtype": _dtype_here(values)} if values["dtype"] == "auto" else values)


def _dtype_here(values: dict[str, Any]) -> str:
    """What "auto" stands for is settled once, so that every process and every later run computes in the same type."""
    if values["launcher"] != "local":
        raise UserError("dtype=auto looks at this machine, and launcher=slurm computes on others: name the type")
    from irpo_lib.models.device import fast_dtype  # torch takes seconds to import

    return fast_dtype()


def config_from(values: dict[str, Any], where: str = "a config") -> Config:
    """A Config of values as YAML or JSON give them; each becomes what its field is, or a UserError says why not."""
    check_whole(values, KINDS, where)
    return Config(**{name: _typed(name, kind, values[name]) for name, kind in KINDS.items()})


def task_source(task: str) -> str:
    """What a task's name refers to: a generator of "reasoning_gym", a Python "file" of one's own, or a "preset"."""
    if task.startswith("reasoning_gym:"):
        return "reasoning_gym"
    return "file" if task.endswith(".py") else "preset"


def short_name(task: str) -> str:
    """A task's name as files and folders have it: "sevens" for path/to/sevens.py."""
    return Path(task).stem.replace(":", "-")


def derive_seed(seed: int, *what: Any) -> int:
    """A seed for one piece of work, so that no two pieces share their random numbers."""
    return int.from_bytes(hashlib.sha256(repr((seed, *what)).encode()).digest()[:4], "big")


def parse_overrides(pairs: list[str]) -> dict[str, Any]:
    """["beta=0.3", "temperatures=[0.8, 1.0]"] → a dictionary; values are read as YAML."""
    overrides = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise UserError(f"--set {pair}: write key=value, as in --set beta=0.3")
        settings = key == "task_path" and value.startswith("{")  # JSON text, which is the task's to read
        overrides[key] = value if settings else read_yaml(value, f"--set {pair}")
    return overrides


def read_yaml(text: str, where: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UserError(f"{where}: not valid YAML ({' '.join(str(error).split())})") from error


def _typed(name: str, kind: str, value: Any) -> Any:
    """YAML reads 7e-7 as a string and [1, 2] as a list: makes each value of its field's type, or says why not."""
    try:
        if value is None and "None" in kind:
            return None
        if kind.startswith("tuple") and isinstance(value, list | tuple):
            inner = kind.removeprefix("tuple[").partition(",")[0]
            return tuple(_typed(name, inner, v) for v in value)
        if kind.endswith("Parallel"):
            return value if isinstance(value, Parallel) else read_parallel(value)
        if kind.startswith("bool") and isinstance(value, bool):
            return value
        if kind.startswith("float") and not isinstance(value, bool):
            return float(value)
        if kind.startswith("int") and not isinstance(value, bool) and int(value) == float(value):
            return int(value)
        if kind.startswith("str") and isinstance(value, str):
            return value
    except (TypeError, ValueError, OverflowError):
        pass
    raise UserError(f"{name}={value!r} is not of the right type: it must be {kind}")
