"""`irpo report`: a run as one HTML file that needs no server, no network and no other file.

The page and its tables are templates, `page.html` and `macros.html`, in which all text is escaped; the sample browser
is made by `page.js` from JSON within the page, where text is only ever the text of a node.
"""

import json
import shlex
from pathlib import Path
from typing import Any

from irpo_lib.config import Config, load_config, read_yaml
from irpo_lib.report.browser import browser_data
from irpo_lib.report.folder import RunFolder, open_run
from irpo_lib.report.images import accuracy_images, log_prob_images
from irpo_lib.results.tables import table_rows, write_text
from irpo_lib.results.templates import TEMPLATES
from irpo_lib.terminal.errors import UserError


def write_report(folder: Path, out: Path | None = None, problems: int = 60, with_models: bool = True) -> Path:
    """The report of a run folder, whole or not at all.

    Args:
        folder: Of a run, of which stages may be missing.
        out: The file; `results/report.html` within the folder if None.
        problems: At most so many training problems in the sample browser.
        with_models: Whether the models are loaded, for the colours of tokens.

    Raises:
        UserError: the folder is no run, or a file of it is damaged.
    """
    run = open_run(folder)
    rows = table_rows([run])
    html = TEMPLATES.get_template("report/page.html").render(
        run=run, rows=rows, accuracy_images=[] if rows.empty else accuracy_images(rows),
        log_prob_images=log_prob_images(run), data=browser_data(run, problems, with_models), settings=_settings(run),
        command=reproduce_command(run),
    )  # fmt: skip
    out = out or folder / "results" / "report.html"
    return write_text(html, out / "report.html" if out.is_dir() else out)


def _settings(run: RunFolder) -> dict[str, dict[str, list[str]]]:
    """setting → value, as JSON → the iterations whose stages have recorded it."""
    values: dict[str, dict[str, list[str]]] = {}
    for stage in run.stages:
        for key, value in stage.settings.items():
            if stage.iteration is not None and key != "iteration":
                values.setdefault(key, {}).setdefault(json.dumps(value), []).append(f"iteration {stage.iteration}")
    return values


# --- the command that makes a run again ---


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
    found = {"model": model or "FOLDER"} | _config_keys(run, config)
    return _words(preset, run.task, {key: value for key, value in found.items() if value != getattr(config, key)})


def _words(preset: str, task: str, overrides: dict[str, Any]) -> str:
    words = ["irpo", "run", "--preset", preset, "--task", task]
    for key, value in overrides.items():
        plain = isinstance(value, str) and read_yaml(value, key) == value
        text = value if plain else json.dumps(value)  # JSON is YAML
        words += ["--set", f"{key}={text}"]
    return shlex.join(words)


def _config_keys(run: RunFolder, preset: Config) -> dict[str, Any]:
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
