"""`irpo report`: a run as one HTML file that needs no server, no network and no other file.

The page and its tables are templates, `page.html` and `macros.html`, in which all text is escaped; the sample browser
is made by `page.js` from JSON within the page, where text is only ever the text of a node.
"""

import json
from pathlib import Path

import pandas as pd

from irpo_lib.report.browser import browser_data
from irpo_lib.report.command import reproduce_command
from irpo_lib.report.folder import RunFolder, open_run
from irpo_lib.report.images import accuracy_images, log_prob_images
from irpo_lib.report.templates import TEMPLATES
from irpo_lib.results.tables import table_rows, write_text
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
    rows = _accuracies(run)
    html = TEMPLATES.get_template("page.html").render(
        run=run, rows=rows, accuracy_images=[] if rows is None else accuracy_images(rows),
        log_prob_images=log_prob_images(run), data=browser_data(run, problems, with_models), settings=_settings(run),
        command=reproduce_command(run),
    )  # fmt: skip
    out = out or folder / "results" / "report.html"
    return write_text(html, out / "report.html" if out.is_dir() else out)


def _accuracies(run: RunFolder) -> pd.DataFrame | None:
    try:
        return table_rows([run])
    except UserError:  # no model is evaluated yet
        return None


def _settings(run: RunFolder) -> dict[str, dict[str, list[str]]]:
    """setting → value, as JSON → the iterations whose stages have recorded it."""
    values: dict[str, dict[str, list[str]]] = {}
    for stage in run.stages:
        for key, value in stage.settings.items():
            if stage.iteration is not None and key != "iteration":
                values.setdefault(key, {}).setdefault(json.dumps(value), []).append(f"iteration {stage.iteration}")
    return values
