"""The command that makes a run again, from what the notebooks or the stages have recorded."""

import json
import shlex
from typing import Any

from irpo_lib.config import Config, load_config, read_yaml
from irpo_lib.report.folder import RunFolder
from irpo_lib.terminal.errors import UserError


def reproduce_command(run: RunFolder) -> str:
    """`irpo run …` with the preset, task and changed keys of a run.

    Where the notebooks made it, their parameters are given back. Else the stages' settings are compared with the
    preset of M0 (where that is not known, FOLDER is to be filled in); of a run that is not finished, the command makes
    as many iterations as are there.
    """
    if run.recorded:
        return _words(run.recorded["preset"], run.recorded["task"], run.recorded["overrides"])
    preset, model = run.preset_and_model
    try:
        config = load_config(preset, run.task)
    except UserError:  # a task that the preset does not have
        return _words(preset, run.task, {})
    found = {"model": model or "FOLDER"} | _settings(run, config)
    return _words(preset, run.task, {key: value for key, value in found.items() if value != getattr(config, key)})


def _words(preset: str, task: str, overrides: dict[str, Any]) -> str:
    words = ["irpo", "run", "--preset", preset, "--task", task]
    for key, value in overrides.items():
        plain = isinstance(value, str) and read_yaml(value, key) == value
        text = value if plain else json.dumps(value)  # JSON is YAML
        words += ["--set", f"{key}={text}"]
    return shlex.join(words)


def _settings(run: RunFolder, preset: Config) -> dict[str, Any]:
    """Keys of the config as the loop's stages have them."""
    found = {key: value for key, value in run.settings.items() if hasattr(preset, key)}
    trains, generates = list(run.loop("train").values()), list(run.loop("generate").values())
    if run.loop("select"):
        found["select_checkpoint"] = True
    elif trains:
        found["max_steps"] = trains[0].settings["steps"]
    rates = [s.settings["learning_rate"] for s in trains]
    found |= zip(("learning_rate", "later_learning_rate"), rates, strict=False)
    if any("reward1" in s.inputs for s in run.loop("pairs").values()):  # pairs of more than one iteration's samples
        found["replay"] = True
    if generates:
        found["iterations"] = len(generates)
        found["temperatures"] = tuple(s.settings["temperature"] for s in generates)
        votes = run.loop("evaluate").items()
        found["majority_iterations"] = tuple(t for t, s in votes if "majority_samples" in s.settings)
    if run.sampled:
        found["train_problems"] = len(run.sampled)
    if run.has("M0"):
        found["test_problems"] = len(run.outcomes("M0"))
    return found
