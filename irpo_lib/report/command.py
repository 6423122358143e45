"""The command that makes a run again, from what the notebooks or the stages have recorded."""

import json
import shlex
from dataclasses import asdict
from typing import Any

from irpo_lib.config import PRESETS, Config, load_config, read_yaml
from irpo_lib.report.folder import RunFolder
from irpo_lib.tasks import get_task, read_split
from irpo_lib.terminal.errors import UserError


def reproduce_command(run: RunFolder, model: str | None) -> str:
    """`irpo run …` with the preset, task and changed keys of a run.

    Where the notebooks made it, their parameters are given back. Else the stages' settings are compared with the
    preset of M0, `model` (where that is not known, FOLDER is to be filled in); of a run that is not finished, the
    command makes as many iterations as are there.
    """
    if run.recorded:
        return _words(run.recorded["preset"], run.recorded["task"], run.recorded["overrides"])
    preset = _preset_of(model)
    try:
        config = load_config(preset, run.task)
    except UserError:  # a task of one's own whose file has gone
        return _words(preset, run.task, {})
    wanted = _wanted(run, model, config)
    return _words(preset, run.task, {k: v for k, v in wanted.items() if v != _plain(config)[k]})


def _words(preset: str, task: str, overrides: dict[str, Any]) -> str:
    words = ["irpo", "run", "--preset", preset, "--task", task]
    for key, value in overrides.items():
        plain = isinstance(value, str) and read_yaml(value, key) == value
        text = value if plain else json.dumps(value)  # JSON is YAML
        words += ["--set", f"{key}={text}"]
    return " ".join(map(shlex.quote, words))


def _preset_of(model: str | None) -> str:
    """The preset whose model it is; `mini` for a model of no preset."""
    for path in sorted(PRESETS.glob("*.yaml")):
        if load_config(path.stem).model == model:
            return path.stem
    return "mini"


def _wanted(run: RunFolder, model: str | None, preset: Config) -> dict[str, Any]:
    """Keys of the config as the run has them."""
    known = Config.__dataclass_fields__
    wanted = {k: v for k, v in run.settings.items() if k in known and k != "task"}
    trains, generates, votes = run.loop("train"), run.loop("generate"), run.loop("evaluate")
    wanted["model"] = model or "FOLDER"
    if run.loop("select"):
        wanted["select_checkpoint"] = True
    elif trains:
        wanted["max_steps"] = next(iter(trains.values())).settings["steps"]
    rates = [s.settings["learning_rate"] for s in trains.values()]
    if rates:
        wanted["learning_rate"] = rates[0]
    if len(rates) > 1 and (rates[1] != rates[0] or preset.later_learning_rate is not None):
        wanted["later_learning_rate"] = rates[1]
    if any("reward1" in s.inputs for s in run.loop("pairs").values()):  # pairs of more than one iteration's samples
        wanted["replay"] = True
    if generates:
        wanted["iterations"] = len(generates)
        wanted["temperatures"] = [s.settings["temperature"] for s in generates.values()]
        wanted["majority_iterations"] = [t for t, s in votes.items() if "majority_samples" in s.settings]
    return wanted | _bounds(run)


def _bounds(run: RunFolder) -> dict[str, int | None]:
    """How many problems were used, null for all of a split."""
    used = {"train_problems": len(run.sampled)} if run.loop("reward") else {}
    evaluated = run.loop("evaluate")
    if evaluated:
        used["test_problems"] = len(run.outcomes(f"M{min(evaluated)}"))
    found: dict[str, int | None] = {}
    for key, n in used.items():
        try:
            whole = len(read_split(get_task(run.task), key.partition("_")[0]))
        except UserError:
            continue
        found[key] = None if n == whole else n
    return found


def _plain(config: Config) -> dict[str, Any]:
    """As JSON gives it back: tuples are lists."""
    return json.loads(json.dumps(asdict(config)))
