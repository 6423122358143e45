"""Effects, claims, tables and figures, from run folders written by hand: what is known beforehand must come out."""

import json
import random
import re
import statistics
import subprocess
import sys
import zlib
from pathlib import Path

import pandas as pd
import pytest
from conftest import REAL_DATA
from irpo_reproduction.claims import Claim, claims_markdown, claims_table, judge, judge_all, read_claims

from irpo_lib.probe import with_parts
from irpo_lib.results.effects import effect
from irpo_lib.results.figures import LOG_PROB_FIGURES, log_prob_lines, write_figures, write_results
from irpo_lib.results.runs import Run, find_runs
from irpo_lib.results.tables import table_rows, tuning_rows
from irpo_lib.terminal.errors import UserError

PROBLEMS = 400
CLAIMS = read_claims()


def write_stage(folder: Path, settings: dict, counts: dict | None = None) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "stage.json").write_text(json.dumps({"settings": settings, "counts": counts or {}, "seconds": 1.0}))


def write_evaluation(folder: Path, task: str, seed: int, accuracy: float, majority: float | None = None) -> None:
    """A model that is right on a random share of the problems."""
    write_stage(folder, {"task": task, "seed": seed})
    rng = random.Random(f"{folder.parent.name}{seed}")
    summary = {}
    for measure, share, samples in (("greedy", accuracy, 1), ("majority", majority, 32)):
        if share is None:
            continue
        right = [1] * round(PROBLEMS * share) + [0] * (PROBLEMS - round(PROBLEMS * share))
        rng.shuffle(right)
        frame = pd.DataFrame({"problem_id": [f"p{i}" for i in range(PROBLEMS)], "answer": "1", "right": right})
        frame.to_csv(folder / f"{measure}.csv", index=False)
        summary[measure] = {"accuracy": share, "low": share - 0.01, "high": share + 0.01, "problems": PROBLEMS,
                            "samples": samples * PROBLEMS, "without_answer": 0.0}  # fmt: skip
    (folder / "summary.json").write_text(json.dumps(summary))


def write_probe(folder: Path, seed: int, **ends: float) -> None:
    """Log-probs of 40 pairs that go in a straight line from −50 to −50 + ends[kind], with noise."""
    write_stage(folder, {})
    rng, rows = random.Random(f"{folder.parent.name}{seed}"), []
    for i in range(40):
        noise = {kind: rng.gauss(0, 1) for kind in ends}
        for step in (0, 50, 100):
            row = {"step": step, "problem_id": f"p{i}", "k": 0}
            for kind in ("chosen", "rejected", "gold"):
                change = (ends.get(kind, 0) + noise.get(kind, 0)) * step / 100
                row |= {f"{kind}_logps": -50 + change, f"{kind}_length": 50}
            rows.append(row)
    with_parts(pd.DataFrame(rows), 0.1).to_parquet(folder / "probe.parquet")


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> list[Run]:
    """Three seeds of gsm8k-mini that turn out exactly as in the paper."""
    root = tmp_path_factory.mktemp("as-in-the-paper")
    greedy = {"M0": 0.556, "M1": 0.731, "M2": 0.78, "M3": 0.811, "M4": 0.816, "dpo": 0.618, "dpo-from-sft": 0.603,
              "sft-gold": 0.635, "sft-chosen": 0.652, "star-twice": 0.669, "irpo-from-sft": 0.731,
              "irpo-twice": 0.748}  # fmt: skip
    for seed in range(3):
        run = Run(root / f"gsm8k-mini/seed-{seed}")
        for model, share in greedy.items():
            majority = {"M0": 0.707, "M4": 0.887}.get(model)
            write_evaluation(run.of(model, "evaluate"), "gsm8k-mini", seed, share, majority)
        write_probe(run.of("M1", "train"), seed, chosen=10, rejected=-200)
        write_probe(run.of("irpo-from-sft", "train"), seed, chosen=10, rejected=-200)
        write_probe(run.of("dpo", "train"), seed, chosen=-40, rejected=-150)
        write_probe(run.of("dpo-from-sft", "train"), seed, chosen=-80, rejected=-200)
        write_probe(run.of("sft-chosen", "train"), seed, chosen=20, rejected=18)
        write_probe(run.of("sft-gold", "train"), seed, chosen=3, rejected=1, gold=40)
    return find_runs([root])


# --- effects ---


def test_an_effect_of_one_seed_is_students_interval_over_problems():
    values = [0.0, 1.0, 1.0, 1.0, 0.0, 1.0, 0.0, 1.0, 1.0, 0.0]
    found = effect([pd.Series(values)])
    half = 2.262157 * statistics.stdev(values) / 10**0.5  # Student's t, 9 degrees of freedom, 97.5 %
    assert (found.mean, found.low, found.high) == pytest.approx((0.6, 0.6 - half, 0.6 + half), abs=1e-5)
    assert (found.seeds, found.problems) == (1, 10)


def test_an_effect_of_seeds_without_problems_is_students_interval_over_seeds():
    found = effect([pd.Series([v]) for v in (1.0, 2.0, 6.0)])
    half = 4.302653 * statistics.stdev([1, 2, 6]) / 3**0.5
    assert (found.mean, found.low, found.high) == pytest.approx((3.0, 3.0 - half, 3.0 + half), abs=1e-4)


def test_the_interval_holds_the_truth_95_times_in_100():
    """Problems and seeds both vary; the truth is 0.3."""
    rng, held, trials = random.Random(0), 0, 400
    for _ in range(trials):
        problems = [rng.gauss(0.3, 1) for _ in range(60)]
        seeds = [rng.gauss(0, 0.15) for _ in range(3)]
        found = effect([pd.Series([p + s + rng.gauss(0, 0.5) for p in problems]) for s in seeds])
        held += found.low <= 0.3 <= found.high
    assert 0.92 <= held / trials <= 0.995


def test_one_number_alone_is_no_interval():
    found = effect([pd.Series([2.0])])
    assert (found.mean, found.low, found.high) == (2.0, float("-inf"), float("inf"))


# --- claims ---


def test_every_claim_holds_or_is_open_on_the_papers_own_numbers(runs):
    """The synthetic runs have no pairing between models, so small differences are open; none may fail."""
    found = {v.claim.name: v.verdict for v in judge_all(runs, CLAIMS)}
    assert len(found) == len([c for c in CLAIMS if c.task == "gsm8k"]) >= 20
    assert set(found.values()) <= {"holds", "undecided"}
    sure = ["DPO+NLL raises chosen", "DPO+NLL lowers rejected", "DPO alone lowers chosen", "DPO+NLL beats DPO",
            "DPO alone lowers chosen more when started from SFT", "Iterative RPO beats M0",
            "SFT on gold barely raises the model's own chosen (under a fifth of gold's rise)",
            "SFT on chosen raises rejected too (at least half as much as chosen)",
            "the margin grows in all four settings", "majority voting helps M0", "majority voting helps the last model",
            "DPO+NLL lowers rejected more than SFT on chosen does"]  # fmt: skip
    assert {name: found[name] for name in sure} == dict.fromkeys(sure, "holds")


def test_the_opposite_does_not_hold(runs, tmp_path):
    for seed in range(3):
        run = Run(tmp_path / f"seed-{seed}")
        write_evaluation(run.of("M0", "evaluate"), "gsm8k-mini", seed, 0.5)
        write_evaluation(run.of("M1", "evaluate"), "gsm8k-mini", seed, 0.6)
        write_evaluation(run.of("sft-chosen", "evaluate"), "gsm8k-mini", seed, 0.8)
        write_probe(run.of("dpo", "train"), seed, chosen=5, rejected=-5)
    found = {v.claim.name: v.verdict for v in judge_all(find_runs([tmp_path]), CLAIMS)}
    assert found["DPO+NLL beats SFT on chosen (STaR)"] == "does not hold"
    assert found["DPO alone lowers chosen"] == "does not hold"
    assert found["Iterative RPO beats M0"] == "holds"
    assert "DPO+NLL beats DPO" not in found, "a claim whose arm was not run has no verdict"


def test_two_seeds_do_not_decide_what_needs_three(runs):
    verdicts = judge_all(runs[:2], CLAIMS)
    assert {v.verdict for v in verdicts} == {"undecided (2 of 3 seeds)"}


def test_one_failing_part_is_enough(runs):
    up, down = pd.Series([1.0, 1.1, 0.9, 1.0]), pd.Series([-1.0, -1.1, -0.9, -1.0])
    open_ = pd.Series([-5.0, 5.0, 1.0, -1.0])

    def verdict(*parts) -> str:
        return judge(Claim("", "", "", "", "", "", lambda _: [effect([p]) for p in parts], seeds=1), runs).verdict

    assert [verdict(up, up), verdict(up, open_), verdict(up, down), verdict(open_, down)] == [
        "holds", "undecided", "does not hold", "does not hold",
    ]  # fmt: skip


def test_claims_quote_the_paper():
    """Each sentence (its parts between ellipses) stands in the paper's text, where that is at hand."""
    path = REAL_DATA.parent / "paper" / "paper.txt"
    if not path.is_file():
        pytest.skip("the paper's text is not here")
    text = re.sub(r"\W+", "", path.read_text(encoding="utf8").replace("-\n", ""))
    missing = [
        c.name
        for c in CLAIMS
        for part in c.sentence.split("…")
        if re.sub(r"\W+", "", part.replace("\n", "")) not in text
    ]
    assert missing == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("gain: [M1, dpo]", "a file of claims is a list, each of them lines of 'key: value'"),
        ("- {name: a, gain: [M1, dpo]}", r"claim 1 \('a'\) has name, gain, not name, task, .* and one of gain, votes"),
        ("- {name: a, task: b, sentence: c, place: d, paper: e, unit: f, wins: []}", "claim 1 .* has .*, wins, not"),
        ("- {name: a, task: b, sentence: c, place: d, paper: e, unit: f, gain: [M1]}",
         r"claim 1 \('a'\): gain cannot take \['M1'\]: missing a required argument: 'worse'"),
        ("- {name: a, task: b, sentence: c, place: d, paper: e, unit: f, moves: [[1, M1]]}",
         r"claim 1 \('a'\): moves cannot take \[\[1, 'M1'\]\]"),
        ("- {name: a, task: b, sentence: c, place: d, paper: e, unit: f, gains: 3}", r"claim 1 \('a'\): gains cannot"),
        ("- [", "not valid YAML"),
    ],
)  # fmt: skip
def test_a_claim_that_cannot_be_is_named(text, said, tmp_path):
    (tmp_path / "claims.yaml").write_text(text)
    with pytest.raises(UserError, match=f"claims.yaml.*{said}"):
        read_claims(tmp_path / "claims.yaml")


def test_claims_as_a_table_and_as_text(runs):
    verdicts = judge_all(runs, CLAIMS)
    table = claims_table(verdicts)
    assert len(table) == sum(len(v.effects) for v in verdicts)
    text = claims_markdown(verdicts)
    assert text.count("\n") == len(verdicts) + 2
    assert all(f"| {v.claim.name} | **{v.verdict}** | " in text for v in verdicts)  # as it is, apostrophes too
    assert "| DPO+NLL beats DPO | **holds** | +11.2 (" in text


# --- tables ---


def test_the_table_has_ours_beside_the_papers(runs):
    rows = table_rows(runs).set_index(["model", "measure"])
    assert rows.loc[("M4", "greedy"), "accuracy"] == 81.5  # 326 of 400
    assert rows.loc[("M4", "greedy"), "paper"] == 81.6
    assert rows.loc[("M4", "majority"), "paper"] == 88.7
    assert rows.loc[("M4", "majority"), "samples_a_problem"] == 32
    assert rows.loc[("irpo-twice", "greedy"), "paper"] == 74.8
    assert rows.loc[("M1", "greedy"), "seeds"] == 3
    assert rows.loc[("M1", "greedy"), "each_seed"] == "73.0 73.0 73.0"
    assert rows.loc[("M1", "greedy"), "low"] < 73.0 < rows.loc[("M1", "greedy"), "high"]


def test_every_row_of_the_papers_tables_has_one_here():
    from irpo_lib.config import DATA
    from irpo_lib.results.tables import ARM_ROWS

    paper = pd.read_csv(DATA / "paper/tables.csv")
    assert set(paper.method) == {"CoT", "Iterative RPO"} | {method for _, _, method in ARM_ROWS if method}


def test_the_tuning_table_reads_coefficients_from_the_manifests(tmp_path):
    run = Run(tmp_path / "seed-0")
    write_evaluation(run.of("M0", "evaluate"), "gsm8k-mini", 0, 0.5)
    for model, alpha, beta, share in (("M1", 1.0, 1.0, 0.6), ("alpha-2", 2.0, 1.0, 0.7)):
        write_stage(run.of(model, "train"), {"alpha": alpha, "beta": beta})
        write_evaluation(run.of(model, "evaluate-dev"), "gsm8k-mini", 0, share)
    rows = tuning_rows(find_runs([tmp_path]))
    assert rows[["alpha", "beta", "accuracy"]].to_numpy().tolist() == [[1.0, 1.0, 60.0], [2.0, 1.0, 70.0]]


def test_write_results_makes_csv_markdown_and_figures(runs, tmp_path):
    paths = write_results(runs, tmp_path)
    assert {p.name for p in paths} == {"table.csv", "table.md", "table.pdf", "table.png", "accuracy-gsm8k-mini.pdf",
                                       "accuracy-gsm8k-mini.png"}  # fmt: skip
    assert all(p.stat().st_size > 200 for p in paths)
    assert "± 0.0" in (tmp_path / "table.md").read_text(encoding="utf8")


@pytest.fixture
def trained_by_dpo(tmp_path) -> list[Run]:
    """A run with alpha=0: its loop is plain DPO."""
    run = Run(tmp_path / "seed-0")
    for model in ("M0", "M1", "dpo"):
        write_evaluation(run.of(model, "evaluate"), "gsm8k-mini", 0, 0.5)
    for model in ("M1", "dpo"):
        write_probe(run.of(model, "train"), 0, chosen=10, rejected=-200)
        write_stage(run.of(model, "train"), {"alpha": 0.0, "dpo_weight": 1.0})
    return find_runs([tmp_path])


def test_a_loop_that_is_plain_dpo_is_not_called_irpo(trained_by_dpo):
    rows = table_rows(trained_by_dpo).set_index("model")
    assert rows.loc["M1", "row"] == "Iterative DPO, iteration 1"
    assert pd.isna(rows.loc["M1", "paper"])
    assert rows.loc["dpo", "paper"] == 61.8
    lines = log_prob_lines(trained_by_dpo, LOG_PROB_FIGURES["figure3a"])
    assert list(lines.line.unique()) == ["DPO chosen", "DPO rejected", "DPO (M1) chosen", "DPO (M1) rejected"]
    with pytest.raises(UserError, match=r"seed-0 was trained by DPO, and the claims are about DPO\+NLL"):
        judge_all(trained_by_dpo, CLAIMS)


# --- figures ---


def test_a_line_is_the_mean_over_pairs_and_its_band_the_range_over_seeds(runs):
    lines = log_prob_lines(runs, LOG_PROB_FIGURES["figure3a"])
    assert list(lines.line.unique()) == ["DPO chosen", "DPO rejected", "DPO+NLL chosen", "DPO+NLL rejected"]
    end = lines[(lines.line == "DPO rejected") & (lines.step == 100)].iloc[0]
    means = [r.probe("dpo").query("step == 100").rejected_logps.mean() for r in runs]
    assert (end["mean"], end.low, end.high) == pytest.approx((sum(means) / 3, min(means), max(means)))
    assert (end.seeds, end.pairs) == (3, 40)


def test_figures_are_vector_files_with_the_papers_words_and_embedded_fonts(runs, tmp_path):
    paths, missing = write_figures(runs, tmp_path)
    assert {p.name for p in paths} == {"figure1.pdf", "figure1.png"} | {
        f"figure{n}.{e}" for n in ("2a", "2b", "3a", "3b") for e in ("pdf", "png", "csv")
    }
    assert missing == ["figure4a is not drawn: no run has the log-probs of 'dpo'",
                       "figure4b is not drawn: no run has the log-probs of 'dpo'"]  # fmt: skip
    pdf = (tmp_path / "figure3a.pdf").read_bytes()
    assert b"/FontFile2" in pdf, "fonts are not embedded"
    assert b"/Subtype /Image" not in pdf, "not a vector graphic"
    drawn = b"".join(inflated(pdf))
    assert drawn.count(b"\n") > 50


def inflated(pdf: bytes):
    for match in re.finditer(rb"stream\r?\n(.*?)endstream", pdf, re.DOTALL):
        try:
            yield zlib.decompress(match[1])
        except zlib.error:
            continue


def test_figures_are_the_same_bytes_each_time(runs, tmp_path):
    for name in ("a", "b"):
        write_figures(runs, tmp_path / name)
    for path in sorted((tmp_path / "a").iterdir()):
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes(), path.name


def test_figures_need_neither_torch_nor_a_model(runs, tmp_path):
    code = (
        "import sys; from pathlib import Path; from irpo_lib.results.figures import write_figures; "
        "from irpo_lib.results.runs import find_runs; "
        f"write_figures(find_runs([Path({str(runs[0].folder)!r})]), Path({str(tmp_path)!r})); "
        "assert 'torch' not in sys.modules and 'transformers' not in sys.modules"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr


def test_a_model_without_log_probs_is_named(runs, tmp_path):
    with pytest.raises(UserError, match="nothing was not trained here, or with probe_every=0"):
        runs[0].probe("nothing")
