"""`irpo report`: a run as one HTML file that needs no server, no network and no other file.

The figures and tables are made here; the sample browser is made by `page.js` from JSON within the page. Text of
models and tasks is escaped here, and is only ever the text of a node there.
"""

import json
import re
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from string import Template
from typing import Any

from irpo_lib.report.browser import browser_data
from irpo_lib.report.command import reproduce_command
from irpo_lib.report.figures import accuracy_images, composition_bar, composition_legend, log_prob_images
from irpo_lib.report.folder import RunFolder, find_seed_model, open_run
from irpo_lib.results.runs import Stage
from irpo_lib.results.tables import table_rows, write_text
from irpo_lib.terminal.errors import UserError

HERE = Path(__file__).parent
#: A number, an interval, or the dash in place of one.
NUMBER = re.compile(r"[\d.]*–?[\d.]*")


class Markup(str):
    """HTML that is not to be escaped again."""


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
    out = out or folder / "results" / "report.html"
    return write_text(report_html(run, problems, with_models), out / "report.html" if out.is_dir() else out)


def report_html(run: RunFolder, problems: int, with_models: bool) -> str:
    seed_model = find_seed_model(run)
    data = browser_data(run, problems, seed_model, with_models)
    parts = {name: (HERE / f"page.{name}").read_text(encoding="utf8") for name in ("html", "css", "js")}
    return Template(parts["html"]).substitute(
        title=escape(f"{run.task}: {run.folder.resolve().name}"), css=parts["css"], js=parts["js"],
        header=_header(run, seed_model), accuracy=_accuracy(run), log_probs=_log_probs(run),
        composition=_composition(run), shown=escape(_shown(data)), data=json_in_html(data),
        settings=_settings(run), stages=_stages(run.stages), versions=_versions(run.stages),
        command=escape(reproduce_command(run, seed_model)),
    )  # fmt: skip


def json_in_html(value: Any) -> str:
    """JSON that cannot end the <script> that it stands in, whatever its strings hold."""
    text = json.dumps(value, ensure_ascii=True, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _header(run: RunFolder, seed_model: str | None) -> str:
    facts = {
        "Task": run.task,
        "Preset": run.recorded.get("preset", "not recorded"),
        "Model (M0)": seed_model or "not known",
        "Seed": run.settings.get("seed", "not recorded"),
        "Iterations": f"{len(run.loop('train'))} trained, {len(run.loop('evaluate'))} models evaluated",
        "Arms": ", ".join(sorted({s.home.removeprefix("arms/") for s in run.stages if s.iteration is None})) or "none",
    }
    return "".join(f"<div><dt>{escape(k)}</dt><dd>{escape(str(v))}</dd></div>" for k, v in facts.items())


def _accuracy(run: RunFolder) -> str:
    try:
        rows = table_rows([run])
    except UserError:
        return "<p>No model of this run is evaluated yet.</p>"
    body: list[list[Any]] = []
    r: Any  # a row
    for r in rows.itertuples():
        label = r.row if r.measure == "greedy" else f"— majority vote of {r.samples_a_problem} samples"
        paper = "–" if r.paper is None or r.paper != r.paper else f"{r.paper:.1f}"
        ours, interval = f"{r.accuracy:.1f}", f"{r.low:.1f}–{r.high:.1f}"
        body.append([label, r.model, ours, interval, r.problems, f"{r.without_answer:.1f}", paper])
    head = ["", "Model", "Here, %", "95 % interval", "Test problems", "No answer, %", "Paper, Llama-2-70B, %"]
    images = "".join(accuracy_images(rows))
    figures = f'<div class="figures wide" tabindex="0" role="region" aria-label="Figures of accuracy">{images}</div>'
    return figures + _table(head, body, "Test accuracy")


def _log_probs(run: RunFolder) -> str:
    images = log_prob_images(run)
    if not images:
        return "<p>No training of this run was followed (probe_every=0), or none is finished yet.</p>"
    loop, arms = ([i for i in images if i[0].startswith("Arm ") is arm] for arm in (False, True))
    return _panels(loop) + ("<h3>Arms</h3>" + _panels(arms) if arms else "")


def _panels(images: Iterable[tuple[str, str]]) -> str:
    figures = (f"<figure><figcaption>{escape(title)}</figcaption>{svg}</figure>" for title, svg in images)
    return f'<div class="figures">{"".join(figures)}</div>'


def _composition(run: RunFolder) -> str:
    pairs, rewards, made = run.loop("pairs"), run.loop("reward"), run.loop("generate")
    if not pairs:
        return "<p>No iteration of this run has pairs yet.</p>"
    body: list[list[Any]] = []
    for t, stage in pairs.items():
        c = stage.counts
        right = rewards[t].counts.get("right") if t in rewards else None
        temperature = made[t].settings.get("temperature", "–") if t in made else "–"
        row: list[Any] = [t, f"M{t - 1}", temperature, "–" if right is None else f"{100 * right:.1f}"]
        row += [Markup(composition_bar(c)), c["problems"] - c["without_winner"] - c["without_loser"]]
        row += [c[k] for k in ("problems", "without_winner", "without_loser", "pairs", "gold_winners")]
        body.append([*row, c["too_long"] + c["over_cap"]])
    head = ["Iteration", "Sampled from", "Temperature", "Right, % of samples", "Problems", "With pairs", "Of problems",
            "Without a winner", "Without a loser", "Pairs", "Gold winners", "Left out"]  # fmt: skip
    return composition_legend() + _table(head, body, "Where the problems and pairs of each iteration went")


def _shown(data: dict[str, Any]) -> str:
    n = len(data["problems"])
    if not n:
        return "No iteration of this run has rewarded samples yet."
    samples = sum(len(i["samples"]) for p in data["problems"] for i in p["iterations"].values())
    which = "all" if n == data["of"] else "a random choice by the run's seed"
    return (
        f"Shown are {n} of {data['of']} training problems ({which}), with all of their {samples} samples and all of "
        f"their pairs. {data['note']}"
    )


def _settings(run: RunFolder) -> str:
    """One line a setting of the loop's stages; values that differ between iterations stand one after the other."""
    values: dict[str, dict[str, list[str]]] = {}
    for stage in run.stages:
        if stage.iteration is None:
            continue
        for key, value in stage.settings.items():
            if key != "iteration":
                values.setdefault(key, {}).setdefault(json.dumps(value), []).append(stage.home.replace("-", " "))
    body = []
    for key, found in sorted(values.items()):
        words = (f"{v} ({', '.join(dict.fromkeys(where))})" if len(found) > 1 else v for v, where in found.items())
        body.append([key, "; ".join(words)])
    return _table(["Setting", "Value"], body, "Settings of the loop, as its stages have recorded them")


def _stages(stages: Sequence[Stage]) -> str:
    body = []
    for s in stages:
        counts = ", ".join(f"{k} {v}" for k, v in s.counts.items())
        body.append([f"{s.home}/{s.name}", f"{s.seconds:.1f}", counts, s.device])
    body.append(["all", f"{sum(s.seconds for s in stages):.1f}", "", ""])
    return _table(["Stage", "Seconds", "Counts", "Device"], body, "Stages, as in irpo status")


def _versions(stages: Sequence[Stage]) -> str:
    names = dict.fromkeys(name for s in stages for name in s.versions)
    body = [[n, ", ".join(dict.fromkeys(s.versions[n] for s in stages if n in s.versions))] for n in names]
    return _table(["Library", "Version"], body, "Versions that the stages were made with")


def _table(head: Sequence[str], rows: Iterable[Sequence[Any]], caption: str) -> str:
    """A table that can be scrolled sideways where it is wider than the page; cells are escaped, but for `Markup`."""
    heads = "".join(f'<th scope="col">{escape(h)}</th>' for h in head)
    body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows)
    return (
        f'<div class="wide" tabindex="0" role="region" aria-label="{escape(caption)}"><table>'
        f"<caption>{escape(caption)}</caption><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _cell(value: Any) -> str:
    inner = value if isinstance(value, Markup) else escape(str(value))
    return f'<td class="number">{inner}</td>' if NUMBER.fullmatch(inner) else f"<td>{inner}</td>"
