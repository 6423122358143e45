"""README and the documents beside the code: commands that exist, links that lead somewhere, a tree that is complete."""

import ast
import re
import shlex
import tomllib
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
from test_report import SMALL

from irpo_lib.config import load_config, parse_overrides
from irpo_lib.iteration import Experiment
from irpo_lib.terminal.cli import _parser, main

ROOT = Path(__file__).parents[1]
DOCUMENTS = [
    ROOT / "README.md", ROOT / ".github" / "CONTRIBUTING.md", ROOT / "figures" / "README.md",
    ROOT / "benchmarks" / "README.md", ROOT / "data" / "README.md", ROOT / "irpo_lib" / "cluster" / "README.md",
    ROOT / "figures" / "qwen2.5-coder-0.5b" / "README.md",
    ROOT / "irpo_lib" / "tasks" / "README.md", ROOT / "irpo_lib" / "README.md",
]  # fmt: skip


def commands() -> list[str]:
    """Every `irpo …` line of a code block, and every `irpo …` within a sentence that has an option."""
    found = []
    for path in DOCUMENTS:
        text = path.read_text(encoding="utf8")
        blocks = re.findall(r"^```\w*\n(.*?)^```", text, re.S | re.M)
        found += [line for block in blocks for line in block.splitlines() if line.startswith("irpo ")]
        found += re.findall(r"`(irpo [a-z]+ --[^`…]*)`", text)
    return list(dict.fromkeys(found))


def arguments(command: str) -> list[str]:
    return shlex.split(command, comments=True)[1:]


def test_there_are_commands():
    named = {arguments(c)[0] for c in commands()}
    assert {"run", "plan", "status", "report", "reproduce", "table", "figures", "claims"} <= named


@pytest.mark.parametrize("command", commands())
def test_a_documented_command_can_be_given(command, tmp_path, monkeypatch, capsys):
    """Its options exist and its settings are valid; what only computes or prints is run."""
    args = _parser().parse_args(arguments(command))
    if hasattr(args, "preset"):
        for task in getattr(args, "tasks", None) or [args.task]:
            load_config(args.preset, task, **parse_overrides(args.set))
    if args.command.__name__ == "plan" or getattr(args, "dry_run", False) or getattr(args, "sbatch", None):
        monkeypatch.chdir(tmp_path)
        assert main(arguments(command)) == 0
        assert capsys.readouterr().out.strip()


READING = [c for c in commands() if arguments(c)[0] in ("status", "report", "table", "figures", "claims")]


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with a small run under the names that the documents use for runs."""
    place = tmp_path_factory.mktemp("place")
    small = SMALL | {"iterations": 1, "temperatures": [0.8], "majority_iterations": [0]}
    config = load_config("mini", "gsm8k-mini", **small)
    Experiment(config, place / "runs/mini-gsm8k-mini").run()
    (place / "runs/reproduce/gsm8k-mini").mkdir(parents=True)
    (place / "runs/reproduce/gsm8k-mini/seed-0").symlink_to(place / "runs/mini-gsm8k-mini")
    return place


@pytest.mark.parametrize("command", READING)
@pytest.mark.slow  # a run that is made first
def test_a_documented_command_that_reads_a_run_does_so(command, place, monkeypatch, capsys):
    monkeypatch.chdir(place)
    assert main(arguments(command)) == 0, capsys.readouterr().err
    out = capsys.readouterr().out.splitlines()
    assert out
    assert all(Path(line).stat().st_size for line in out if line.startswith("runs/"))


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_to_files(path):
    text = path.read_text(encoding="utf8")
    links = re.findall(r"\]\(([^)\s]+)\)", text)
    missing = [x for x in links if not x.startswith("http") and not (path.parent / x.partition("#")[0]).exists()]
    assert not missing


def test_the_file_tree_names_every_module():
    tree = re.search(r"## Where things are\n\n```\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf8"), re.S)[1]
    modules = [p.name for p in (ROOT / "irpo_lib").iterdir() if p.suffix == ".py" or (p / "__init__.py").is_file()]
    unnamed = [name for name in modules if name not in tree and not name.startswith("__")]
    assert not unnamed, unnamed


def test_every_package_is_installed():
    setup = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf8"))["tool"]["setuptools"]
    elsewhere = {folder: name for name, folder in setup["package-dir"].items()}
    folders = [
        str(p.parent.relative_to(ROOT)) for top in ("irpo_lib", *elsewhere) for p in ROOT.glob(f"{top}/**/__init__.py")
    ]
    assert set(setup["packages"]) == {elsewhere.get(f, f.replace("/", ".")) for f in folders}


def test_the_make_targets_of_the_readme_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf8")
    for target in re.findall(r"^make ([a-z-]+)", (ROOT / "README.md").read_text(encoding="utf8"), re.M):
        assert re.search(rf"^{target}:", makefile, re.M), target


# --- the shape of the package ---

MODULES = sorted((ROOT / "irpo_lib").rglob("*.py"))
NAMES = {str(p.relative_to(ROOT).with_suffix("")).replace("/", ".").removesuffix(".__init__"): p for p in MODULES}


def imports_of(path: Path) -> set[str]:
    """Modules of the package that a module imports as soon as it is imported itself."""
    found = set()
    for node in ast.parse(path.read_text(encoding="utf8")).body:
        if isinstance(node, ast.ImportFrom):
            submodules = {f"{node.module}.{alias.name}" for alias in node.names} & NAMES.keys()
            found |= submodules or {str(node.module)}
    return found & NAMES.keys()


def test_modules_import_each_other_in_no_circle():
    TopologicalSorter({name: imports_of(path) for name, path in NAMES.items()}).prepare()  # raises with the circle


def test_stages_do_not_know_what_launches_them():
    for path in (ROOT / "irpo_lib" / "stages").glob("*.py"):
        assert "irpo_lib.cluster" not in path.read_text(encoding="utf8"), path


def test_modules_are_few_at_the_top_and_short():
    assert len([p for p in MODULES if p.parent.name == "irpo_lib" and p.name != "__init__.py"]) <= 12
    assert not [(str(p), n) for p in MODULES if (n := len(p.read_text(encoding="utf8").splitlines())) > 250]
