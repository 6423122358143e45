"""`irpo report`: what the page shows against the run's files, hostile text, runs that are not finished, the browser."""

import csv
import json
import math
import shlex
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import asdict, replace
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from irpo_lib.arms import BASELINES, evaluate_arm
from irpo_lib.config import Config, load_config, parse_overrides
from irpo_lib.iteration import Experiment
from irpo_lib.logprobs import sequence_logps
from irpo_lib.models.load import load_model, load_tokenizer
from irpo_lib.pairs import response_key
from irpo_lib.records import Completion, PreferencePair, Problem
from irpo_lib.report import folder as report_folder
from irpo_lib.report import sample_table
from irpo_lib.report.page import write_report
from irpo_lib.report.ratios import token_texts
from irpo_lib.results.templates import TEMPLATES
from irpo_lib.stages.store import read_json, read_records, write_records
from irpo_lib.tasks import get_task, read_split
from irpo_lib.terminal.cli import main
from irpo_lib.terminal.errors import UserError

SMALL = {
    "train_problems": 24, "test_problems": 20, "majority_problems": 4, "majority_samples": 4, "samples": 6,
    "max_steps": 4, "checkpoint_every": 4, "problems_per_shard": 24, "probe_every": 2, "probe_pairs": 4,
    "learning_rate": 1e-3, "warmup_steps": 0,
}  # fmt: skip
HOSTILE = "</script><img src=x onerror=window.broken=1><!--<script>window.broken=1</script>"


class Page(HTMLParser):
    """A page as a browser would take it apart: its tags, the rows of its tables, and the content of its scripts."""

    def __init__(self, path: Path):
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.rows: list[list[str]] = []
        self.scripts: list[str] = []
        self.text = ""
        self.inside = ""
        self.feed(path.read_text(encoding="utf8"))

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self.inside = tag
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")
        elif tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag):
        self.inside = "td" if tag in ("svg", "rect", "title") and self.rows and self.inside in ("td", "title") else ""

    def handle_data(self, text):
        if self.inside == "script":
            self.scripts[-1] += text
        elif self.inside in ("td", "th"):
            self.rows[-1][-1] += text
        else:
            self.text += text

    @property
    def data(self) -> dict:
        return json.loads(self.scripts[0])

    def row(self, *begins: str) -> list[str]:
        return next(r for r in self.rows if r[: len(begins)] == list(begins))


@pytest.fixture(scope="module")
def config() -> Config:
    changes = SMALL | {"iterations": 2, "temperatures": [0.8, 1.2], "majority_iterations": [0, 2], "seed": 3}
    return load_config("mini", "gsm8k-mini", **changes)


@pytest.fixture(scope="module")
def run(config, tmp_path_factory) -> Path:
    """Two iterations and an arm."""
    experiment = Experiment(config, tmp_path_factory.mktemp("runs") / "small")
    experiment.run()
    evaluate_arm(experiment, BASELINES[0])
    return experiment.run_dir


@pytest.fixture(scope="module")
def report(run, tmp_path_factory) -> Path:
    return write_report(run, tmp_path_factory.mktemp("report") / "report.html", problems=10)


def completions(run: Path, t: int) -> list[Completion]:
    return read_records(run / f"iteration-{t}/reward/completions.parquet", Completion)


def pairs(run: Path, t: int) -> list[PreferencePair]:
    return read_records(run / f"iteration-{t}/pairs/pairs.parquet", PreferencePair)


# --- its numbers are those of the run's files ---


@pytest.mark.parametrize("model", ["M0", "M1", "M2", "sft-chosen"])
def test_accuracies_and_intervals(run, report, model):
    home = f"iteration-{model[1:]}" if model[1:].isdigit() else f"arms/{model}"
    with (run / home / "evaluate" / "greedy.csv").open(encoding="utf8") as file:
        right = [int(row["right"]) for row in csv.DictReader(file)]
    n, p, z = len(right), sum(right) / len(right), 1.96
    middle, half = (p + z * z / (2 * n)), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    low, high = ((middle + sign * half) / (1 + z * z / n) for sign in (-1, 1))
    row = next(r for r in Page(report).rows if len(r) == 7 and r[1] == model)
    assert row[2:5] == [f"{100 * p:.1f}", f"{100 * max(0, low):.1f}–{100 * min(1, high):.1f}", "20"]


def test_composition_of_the_pairs(run, report):
    for t in (1, 2):
        right = Counter(c.problem_id for c in completions(run, t) if c.reward == 1)
        all_right = sum(n == 6 for n in right.values())
        sources = Counter(p.chosen_source for p in pairs(run, t))
        row = Page(report).row(str(t), f"M{t - 1}", str([0.8, 1.2][t - 1]))
        assert row[3] == f"{100 * sum(right.values()) / (24 * 6):.1f}"
        assert [int(x) for x in row[5:]] == [24 - all_right, 24, 0, all_right, sources.total(), sources["gold"], 0]


def test_samples_and_problems_are_those_of_the_run(config, run, report):
    data = Page(report).data
    train = {p.id: p for p in read_split(get_task("gsm8k-mini"), "train")[:24]}
    assert data["of"] == 24
    assert len(data["problems"]) == 10
    for shown in data["problems"]:
        problem = train[shown["id"]]
        assert (shown["question"], shown["answer"]) == (problem.question, problem.answer)
        assert shown["solution"] == problem.gold_solution
        for t in (1, 2):
            own = [c for c in completions(run, t) if c.problem_id == problem.id]
            found = shown["iterations"][str(t)]["samples"]
            assert [(s["n"], s["text"], s["answer"]) for s in found] == [(c.index, c.text, c.answer) for c in own]
            kinds = {(1.0, True): "right", (0.0, True): "wrong", (0.0, False): "none"}
            assert [s["kind"] for s in found] == [kinds[c.reward, c.answer is not None] for c in own]
    assert "Shown are 10 of 24 training problems" in Page(report).text
    assert "all of their 120 samples" in Page(report).text


@torch.no_grad()
def test_log_ratios_are_those_of_the_two_models(config, run, report):
    tokenizer, seen = load_tokenizer("mini-llama"), 0
    for t in (1, 2):
        reference = read_json(run / f"iteration-{t}/reference/logps.json")
        model = load_model(str(run / f"iteration-{t}/train/model"), "float32")
        for shown in Page(report).data["problems"]:
            found = shown["iterations"][str(t)]
            own = [p for p in pairs(run, t) if p.problem_id == shown["id"]]
            assert [(p["k"], p["source"]) for p in found["pairs"]] == [(p.k, p.chosen_source) for p in own]
            for pair, place in zip(own, found["pairs"], strict=True):
                for side, ids in (("chosen", pair.chosen_ids), ("rejected", pair.rejected_ids)):
                    response = found["responses"][place[side]]
                    assert "".join(response["tokens"]) == tokenizer.decode(ids)
                    assert response["before"] == pytest.approx(reference[response_key(pair.prompt_ids, ids)], abs=2e-3)
                    after = sequence_logps(model, [(pair.prompt_ids, ids)]).item()
                    assert response["after"] == pytest.approx(after, abs=2e-3)
                    assert sum(response["ratios"]) == pytest.approx(after - response["before"], abs=0.05)
                    seen += 1
    assert seen > 20


def test_log_probs_are_drawn_of_every_training_that_was_followed(run, report):
    alts = [a["alt"] for tag, a in Page(report).tags if tag == "img"]
    for title, home, words in (("Iteration 1: M1 from M0", "iteration-1", "DPO+NLL"),
                               ("Iteration 2: M2 from M1", "iteration-2", "DPO+NLL"),
                               ("Arm sft-chosen", "arms/sft-chosen", "SFT")):  # fmt: skip
        # Not probe.csv, whose means are rounded once already.
        probe = pd.read_parquet(run / home / "train" / "probe.parquet").groupby("step")
        alt = next(a for a in alts if a.startswith(title))
        for kind in ("chosen", "rejected"):
            first, last = probe[f"{kind}_logps"].mean().iloc[[0, -1]]
            assert f"{words} {kind} from {first:.1f} to {last:.1f} nats" in alt


def test_the_command_makes_the_same_config(config, report):
    page = Page(report)
    words = shlex.split(next(line for line in page.text.splitlines() if line.startswith("irpo run")))
    assert words[:6] == ["irpo", "run", "--preset", "mini", "--task", "gsm8k-mini"]
    again = load_config("mini", "gsm8k-mini", **parse_overrides(words[7::2]))
    assert again == config


def test_the_command_of_a_folder_that_holds_stages_only_is_not_known(run, tmp_path):
    copy = shutil.copytree(run, tmp_path / "run", ignore=shutil.ignore_patterns("model", "config.json"))
    page = Page(write_report(copy, with_models=False))
    assert "the folder has no config.json" in page.text
    assert not [line for line in page.text.splitlines() if line.startswith("irpo run")]


def test_a_config_of_another_version_is_one_sentence(run, tmp_path, capsys):
    copy = shutil.copytree(run, tmp_path / "run", ignore=shutil.ignore_patterns("model"))
    values = read_json(copy / "config.json")
    assert values["seed"] == 3
    (copy / "config.json").write_text(json.dumps({k: v for k, v in values.items() if k != "beta"}))
    assert main(["report", str(copy)]) == 1
    assert f"{copy / 'config.json'}: these keys are missing: beta" in capsys.readouterr().err


# --- hostile text ---


def test_json_cannot_end_its_script():
    value = {"text": HOSTILE + "\u2028&lt;", "lone": "\ud800"}
    text = TEMPLATES.from_string("{{ value | tojson }}").render(value=value)
    assert "<" not in text
    assert ">" not in text
    assert json.loads(text) == value
    text.encode("utf8")


@pytest.fixture(scope="module")
def hostile(run, tmp_path_factory) -> Path:
    """The report of a run whose responses are written to break out of the page, as samples and as tokens of pairs."""
    copy = shutil.copytree(run, tmp_path_factory.mktemp("hostile") / "run")
    ids = load_tokenizer("mini-llama").convert_tokens_to_ids(list(HOSTILE))
    bad = [replace(c, text=HOSTILE, answer=HOSTILE, token_ids=ids) for c in completions(copy, 1)]
    write_records(copy / "iteration-1/reward/completions.parquet", bad)
    write_records(copy / "iteration-1/pairs/pairs.parquet", [replace(p, rejected_ids=ids) for p in pairs(copy, 1)])
    return write_report(copy, problems=6)


def test_hostile_text_stays_text(hostile, report):
    page, clean = Page(hostile), Page(report)
    assert len(page.scripts) == 2
    assert Counter(tag for tag, _ in page.tags) == Counter(tag for tag, _ in clean.tags)
    assert not [a for _, a in page.tags if "onerror" in a]
    shown = page.data["problems"][0]["iterations"]["1"]
    assert {s["text"] for s in shown["samples"]} == {HOSTILE}
    paired = next(p["iterations"]["1"] for p in page.data["problems"] if p["iterations"]["1"]["pairs"])
    assert "".join(paired["responses"][paired["pairs"][0]["rejected"]]["tokens"]) == HOSTILE


def test_sample_table_escapes_all_text():
    problem = Problem(HOSTILE, f"How many?\n{HOSTILE}", "4 < 5", None, (HOSTILE, "b"))
    own = [Completion(HOSTILE, i, [1], [2], f"{HOSTILE} $1 and $2", "stop", str(i), float(i < 2)) for i in range(7)]
    own[6] = replace(own[6], answer=None, finish_reason="length")
    other = replace(own[0], problem_id="another", text="not of this problem")
    html = sample_table(problem, [*own, other], most=3).data
    assert "<script" not in html
    assert "<img" not in html
    assert "not of this problem" not in html
    assert html.count("<tr>") == 4
    assert "2 right</th>" in html
    assert "5 wrong or without an answer, 3 of them shown</th>" in html
    assert "sample 2: answer 2" in html
    assert "cut at the length limit" not in html
    assert "sample 6: no answer, cut at the length limit" in sample_table(problem, own, most=5).data
    assert "tex2jax_ignore" in html
    with pytest.raises(UserError, match="no reward yet"):
        sample_table(problem, [replace(own[0], reward=None)])


# --- runs that are not finished, and folders that are none ---


@pytest.mark.parametrize("task", ["arc-mini", "math-mini"])
def test_a_run_that_has_only_pairs(task, tmp_path):
    small = SMALL | {"iterations": 1, "temperatures": [0.8], "majority_iterations": []}
    experiment = Experiment(load_config("mini", task, **small), tmp_path)
    experiment.pair(1)
    assert main(["report", str(tmp_path)]) == 0
    page = Page(tmp_path / "results" / "report.html")
    data = page.data
    assert (len(data["problems"]), data["of"]) == (24, 24)
    problem = next(p for p in data["problems"] if p["iterations"]["1"]["pairs"])
    original = {p.id: p for p in experiment.train_problems()}[problem["id"]]
    letters = [f"({a}) {c}" for a, c in zip("ABCDE", original.choices or (), strict=False)]
    assert (problem["choices"], problem["solution"]) == (letters, original.gold_solution)
    assert data["iterations"] == [{"t": 1, "temperature": 0.8, "why": "M1 is not trained yet", "paired": True}]
    assert "No model of this run is evaluated yet." in page.text
    assert "No training of this run was followed" in page.text
    assert all("text" in r for r in problem["iterations"]["1"]["responses"])


def test_a_run_that_has_only_its_first_evaluation(run, tmp_path):
    shutil.copytree(run / "iteration-0", tmp_path / "run" / "iteration-0")
    page = Page(write_report(tmp_path / "run"))
    assert page.data["problems"] == []
    assert "No iteration of this run has rewarded samples yet." in page.text
    assert any(len(r) == 7 and r[1] == "M0" for r in page.rows)


def test_without_a_trained_model_there_are_no_colours(run, tmp_path):
    copy = shutil.copytree(run, tmp_path / "run")
    shutil.rmtree(copy / "iteration-2" / "train" / "model")
    first, second = Page(write_report(copy, problems=4)).data["iterations"]
    assert first["why"] == ""
    assert second["why"].endswith("iteration-2/train/model is missing")


def test_a_seed_model_that_is_another_one_now_is_said_to_be_unknown(small_config, tmp_path):
    own = shutil.copytree(small_config.model, tmp_path / "own")
    experiment = Experiment(replace(small_config, model=str(own)), tmp_path / "tiny")
    experiment.train(1)
    assert Page(write_report(experiment.run_dir)).data["iterations"][0]["why"] == ""
    (own / "generation_config.json").write_text("{}")
    page = Page(write_report(experiment.run_dir))
    assert "is not known, or is another one now" in page.data["iterations"][0]["why"]
    assert f"model={own}" in page.text


def test_problems_that_have_changed_are_not_shown(run, tmp_path):
    copy = shutil.copytree(run, tmp_path / "run")
    manifest = read_json(copy / "iteration-1/generate/stage.json")
    manifest["inputs"]["problems"] = "another hash"
    (copy / "iteration-1/generate/stage.json").write_text(json.dumps(manifest))
    page = Page(write_report(copy, problems=2))
    assert "are others now than in this run" in page.data["note"]
    train = {p.id: p for p in read_split(get_task("gsm8k-mini"), "train")}
    for shown in page.data["problems"]:
        assert train[shown["id"]].question in shown["question"]
        assert "answer" not in shown


def test_long_samples_make_fewer_problems(run, monkeypatch):
    monkeypatch.setattr(report_folder, "MOST_TOKENS", 3000)
    some = report_folder.open_run(run).choose(10)
    tokens = Counter()
    for c in completions(run, 1) + completions(run, 2):
        tokens[c.problem_id] += len(c.token_ids)
    assert 1 <= len(some) < 10
    assert sum(tokens[i] for i in some) <= 3000


def test_a_folder_that_is_no_run_is_one_sentence(run, tmp_path, capsys):
    (tmp_path / "stage").mkdir()
    for folder, words in (("missing", "does not exist"), ("stage", "is no run folder")):
        assert main(["report", str(tmp_path / folder)]) == 1
        said = capsys.readouterr().err.strip()
        assert said.startswith(f"irpo: {tmp_path / folder} {words}")
        assert "give the folder of one run, as in runs/mini-gsm8k-mini" in said
        assert len(said.splitlines()) == 1
    assert main(["report", str(run.parent)]) == 1
    assert f"holds 1 runs and is none itself: give one of them, as in {run}" in capsys.readouterr().err


def test_a_report_is_one_file_that_asks_for_no_other(report):
    page = Page(report)
    policy = next(a["content"] for tag, a in page.tags if tag == "meta" and "http-equiv" in a)
    assert policy.startswith("default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:")
    assert not [t for t, a in page.tags if t in ("link", "iframe", "object") or ("href" in a and a["href"][0] != "#")]
    assert all(a["src"].startswith("data:image/svg+xml;base64,") for _, a in page.tags if "src" in a)
    assert [p.name for p in report.parent.iterdir()] == ["report.html"]
    assert report.stat().st_size < 2_000_000
    ids = [a["id"] for _, a in page.tags if "id" in a]
    assert len(ids) == len(set(ids))


def test_importing_it_is_light():
    code = "import irpo_lib.report, sys; print(sorted({'torch', 'pandas', 'matplotlib', 'IPython'} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


# --- token texts ---


def test_texts_of_byte_tokens_are_whole_characters():
    vocabulary = {c: i for i, c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    plain = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    plain.pre_tokenizer, plain.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=plain)
    text = "a é日本 b😀"
    ids = tokenizer(text)["input_ids"]
    texts = token_texts(tokenizer, ids)
    assert len(texts) == len(ids)
    assert [t for t in texts if t] == list(text)
    assert token_texts(tokenizer, ids[:-1])[-1] == "\ufffd"


def test_texts_of_tokens_keep_their_spaces():
    pieces = ["<unk>", "▁two", "▁", "▁times", "<0xE6>", "<0x97>", "<0xA5>", "<0x9C>", "<0xAC>"]
    plain = Tokenizer(models.BPE(vocab={p: i for i, p in enumerate(pieces)}, merges=[], byte_fallback=True))
    plain.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(),
                                       decoders.Strip(" ", 1, 0)])  # fmt: skip
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=plain)
    texts = token_texts(tokenizer, [1, 2, 3, 4, 5, 6, 4, 7, 8, 1])
    assert texts == ["two", " ", " times", "", "", "日", "", "", "本", " two"]


# --- in a real browser ---


@pytest.fixture
def opened(chromium):
    """Opens a report; in the end there must be no error, and no request but the one for the file."""
    troubles, requests, pages = [], [], []

    def open_report(path: Path, width: int = 1280):
        page = chromium.new_page(viewport={"width": width, "height": 900})
        pages.append(page)
        page.on("console", lambda message: troubles.append(message.text))
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(path.as_uri())
        return page

    yield open_report
    for page in pages:
        page.close()
    assert troubles == []
    assert [r for r in requests if not r.startswith(("file://", "data:image/svg+xml"))] == []
    assert sum(r.startswith("file://") for r in requests) == len(pages)


def test_the_browser_shows_what_is_asked_for(report, opened):
    data, page = Page(report).data, opened(report)
    assert page.locator("#problem option").count() == 10
    for label, t in (("1: sampled from M0 at temperature 0.8", "1"), ("2: sampled from M1 at temperature 1.2", "2")):
        page.get_by_label("Iteration", exact=True).select_option(label=label)
        for button, kind in (("right", "right"), ("wrong", "wrong"), ("no answer", "none"), ("all", None)):
            page.get_by_role("button", name=button, exact=True).click()
            have = [
                p
                for p in data["problems"]
                if kind is None or kind in [s["kind"] for s in p["iterations"][t]["samples"]]
            ]
            assert page.locator("#problem option").evaluate_all("all => all.map(o => o.value)") == [
                p["id"] for p in have
            ]
            for problem in have[:2]:
                page.locator("#problem").select_option(value=problem["id"])
                own = [s for s in problem["iterations"][t]["samples"] if kind in (None, s["kind"])]
                texts = page.locator("#shown .card > div.text").all_text_contents()
                assert sorted(texts) == sorted(s["text"].strip() for s in own)
                assert problem["question"] in page.locator(".question").text_content()


def test_the_browser_can_be_searched_and_stepped_through_with_the_keyboard(report, opened):
    data, page = Page(report).data, opened(report)
    wanted = data["problems"][3]
    page.get_by_label("Search problems").fill(wanted["id"])
    values = page.locator("#problem option").evaluate_all("all => all.map(o => o.value)")
    assert wanted["id"] in values
    assert len(values) < 10
    page.get_by_label("Search problems").fill("no such words")
    assert "No problem matches" in page.locator("#shown").text_content()
    page.get_by_label("Search problems").fill("")
    page.locator("#problem").select_option(value=data["problems"][0]["id"])
    page.locator("#next").focus()
    page.keyboard.press("Enter")
    assert page.locator("#shown h3").text_content() == data["problems"][1]["id"]
    page.locator("#problem").focus()
    page.keyboard.press("ArrowDown")
    assert page.locator("#shown h3").text_content() == data["problems"][2]["id"]


def test_tokens_have_colours_lines_and_numbers(report, opened):
    data, page = Page(report).data, opened(report)
    problem = next(p for p in data["problems"] if p["iterations"]["1"]["pairs"])
    page.locator("#problem").select_option(value=problem["id"])
    found = problem["iterations"]["1"]
    response = found["responses"][found["pairs"][0]["rejected"]]
    tokens = page.locator(".card.rejected").first.locator(".token")
    titles = tokens.evaluate_all("all => all.map(t => t.title)")
    assert [float(t.split()[0].replace("−", "-")) for t in titles] == response["ratios"]
    styles = tokens.evaluate_all(
        "all => all.map(t => [getComputedStyle(t).backgroundColor, getComputedStyle(t).textDecorationStyle])"
    )
    assert len(styles) == len(response["ratios"])
    for ratio, (color, line) in zip(response["ratios"], styles, strict=True):
        if abs(ratio) >= data["scale"] / 10:
            assert color.startswith("rgba(0, 114, 178" if ratio > 0 else "rgba(213, 94, 0")
            assert line == ("solid" if ratio > 0 else "dotted")
        else:
            assert color == "rgba(0, 0, 0, 0)"
    assert max(abs(r) for r in response["ratios"]) >= data["scale"] / 10
    assert not tokens.first.locator("small").is_visible()
    page.get_by_label("write the log-ratio under each token").check()
    assert tokens.first.locator("small").is_visible()
    total = response["after"] - response["before"]
    meta = page.locator(".card.rejected").first.locator(".meta").text_content()
    assert float(meta.split()[1].replace("−", "-")) == pytest.approx(total, abs=0.006)


def test_hostile_text_is_shown_as_it_is(hostile, opened):
    page = opened(hostile)
    assert page.locator("#shown .card > div.text").first.text_content() == HOSTILE
    assert page.evaluate("window.broken") is None
    assert page.locator("img[src=x]").count() == 0


@pytest.mark.parametrize("width", [1280, 400])
def test_a_page_is_not_wider_than_its_window(report, opened, width):
    page = opened(report, width)
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_asdict_of_problems_is_what_was_hashed(config):
    """A report takes problems for those of the run by the hash that the `generate` stage has recorded."""
    problem = Problem("a", "b", "c", None, ("d", "e"))
    assert vars(problem) == asdict(problem)
