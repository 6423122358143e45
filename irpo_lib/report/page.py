"""`irpo report`: a run as one HTML file that needs no server, no network and no other file.

The page and its tables are templates, `page.html` and `macros.html`, in which all text is escaped; the sample browser
is made by `page.js` from JSON within the page, where text is only ever the text of a node.
"""

import json
import shlex
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from irpo_lib.config import PRESETS, Config, load_config, read_yaml
from irpo_lib.report.browser import browser_data
from irpo_lib.report.folder import open_run
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
        log_prob_images=log_prob_images(run), data=browser_data(run, problems, with_models),
        settings=asdict(run.config) if run.config else run.settings,
        command=reproduce_command(run.config) if run.config else "not known: the folder has no config.json",
    )  # fmt: skip
    out = out or folder / "results" / "report.html"
    return write_text(html, out / "report.html" if out.is_dir() else out)


def reproduce_command(config: Config) -> str:
    """`irpo run …`: the preset that has most in common with a run's config, and what differs."""
    found = []
    for path in sorted(PRESETS.glob("*.yaml")):
        with suppress(UserError):  # a preset without this task
            preset = asdict(load_config(path.stem, config.task))
            found.append((path.stem, {k: v for k, v in asdict(config).items() if v != preset[k]}))
    name, changes = min(found, key=lambda known: len(known[1]))
    words = ["irpo", "run", "--preset", name, "--task", config.task]
    for key, value in changes.items():
        plain = isinstance(value, str) and read_yaml(value, key) == value
        words += ["--set", f"{key}={value if plain else json.dumps(value)}"]  # JSON is YAML
    return shlex.join(words)
