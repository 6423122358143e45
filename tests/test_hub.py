"""Models and datasets by name: downloaded once, at the pinned commit, from a hub that may refuse, break off or be away.

The hub is `hub.Hub` on this machine; every test asks it from processes of their own, as a user's are.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from hub import Hub
from test_bad_input import one_sentence

from irpo_lib.models.load import load_tokenizer
from irpo_lib.tasks import arc, gsm8k, math
from irpo_lib.terminal.errors import UserError

#: Not in `make check`: downloads, each in a process of its own.
pytestmark = pytest.mark.slow

MODEL = "someone/tiny-llama"
COMMITS = {task.SOURCE.hub: task.SOURCE.revision for task in (gsm8k, arc, math)} | {MODEL: "1" * 40}
GSM8K = [
    {"question": f"Ann has {n} pens and buys 2 more. How many has she?", "answer": f"{n} + 2 = {n + 2}\n#### {n + 2}"}
    for n in range(3, 8)
]
ARC = [
    {"id": f"item-{n}", "question": "Which one is a metal?", "answerKey": "2",
     "choices": {"text": ["wood", "iron", "glass"], "label": ["1", "2", "3"]}}
    for n in range(2)
]  # fmt: skip
MATH = [
    {"problem": f"What is ${n}^2$?", "level": "Level 1", "type": "Algebra", "solution": f"It is $\\boxed{{{n * n}}}$."}
    for n in range(2, 5)
]
#: Where there is no network, the hub's client would try again for most of a minute.
IMPATIENT = "import time; time.sleep = lambda seconds: None\n"
RUN = "import sys; from irpo_lib.terminal.cli import main; sys.exit(main(['run', *sys.argv[1:]]))"
#: Reads both splits of a task and makes a prompt, and prints how many problems there are; fails as `irpo run` does.
READ = """
import sys
from irpo_lib.terminal.errors import UserError
from irpo_lib.tasks import get_task, read_split
task = get_task(sys.argv[1])
try:
    splits = [read_split(task, split) for split in ("train", "test")]
except UserError as error:
    sys.exit(f"irpo: {error}")
assert task.prompt(splits[1][0])
print([len(split) for split in splits])
"""
#: M0's accuracy on two test problems of GSM8K.
EVALUATE = """
import sys
from irpo_lib.config import load_config
from irpo_lib.iteration import Experiment
config = load_config("mini", "gsm8k", model=sys.argv[1], test_problems=2, max_new_tokens=8, majority_iterations=[])
print(Experiment(config, sys.argv[2]).evaluate(0))
"""


def write_dataset(folder: Path, tables: dict[str, dict[str, list[dict]]]) -> None:
    """config → split → rows, as Parquet with a card that lists them, like the published ones."""
    card = ["---", "configs:"]
    for config, splits in tables.items():
        card += [f"- config_name: {config}", "  data_files:"]
        for split, rows in splits.items():
            path = folder / config / f"{split}-00000-of-00001.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            numbered = [row | {"id": f"{config}-{split}-{row['id']}"} if "id" in row else row for row in rows]
            pyarrow.parquet.write_table(pyarrow.Table.from_pylist(numbered), path)
            card += [f"  - split: {split}", f"    path: {config}/{split}-*"]
    (folder / "README.md").write_text("\n".join([*card, "---", "# A few rows", ""]))


@pytest.fixture(scope="module")
def root(tiny_model, tmp_path_factory) -> Path:
    """What the hub serves."""
    folder = tmp_path_factory.mktemp("hub")
    shutil.copytree(tiny_model, folder / "models" / MODEL)
    splits = {
        gsm8k: {"main": {"train": GSM8K, "test": GSM8K[:2]}},
        arc: {part: {"train": ARC, "validation": ARC, "test": ARC} for part in ("ARC-Easy", "ARC-Challenge")},
        math: {subject: {"train": MATH, "test": MATH[1:]} for subject in math.SOURCE.splits["train"]["configs"]},
    }
    for task, tables in splits.items():
        write_dataset(folder / "datasets" / task.SOURCE.hub, tables)
    return folder


@pytest.fixture
def hub(root):
    with Hub(root, dict(COMMITS)).serve() as hub:
        yield hub


def python(hub: Hub, home: Path, code: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess:
    """A new process with its cache in `home`; where the hub is, its client reads when it is imported."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("HF_") and "proxy" not in k.lower()}
    env |= {"HF_ENDPOINT": f"http://127.0.0.1:{hub.port}", "HF_HOME": str(home), "OMP_NUM_THREADS": "1"} | variables
    command = [sys.executable, "-c", IMPATIENT + code, *arguments]
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False)


@pytest.fixture
def irpo_run(tmp_path):
    """Gives `irpo run` a model by name, and returns what stands on stderr; no run folder may be left."""

    def run(hub: Hub, model: str = MODEL) -> str:
        settings = ["--task", "gsm8k", "--set", f"model={model}", "--run-dir", str(tmp_path / "run")]
        done = python(hub, tmp_path / "home", RUN, *settings)
        assert done.returncode == 1, done.stdout
        assert not (tmp_path / "run").exists()
        return done.stderr

    return run


def read_fails(hub: Hub, home: Path, task: str, **variables: str) -> str:
    done = python(hub, home, READ, task, **variables)
    assert done.returncode == 1, done.stdout
    return done.stderr


def last_sentence(stderr: str) -> str:
    """The client says above it, as it goes, that it tries again, or takes what is in its cache."""
    assert "Traceback" not in stderr
    return one_sentence(stderr.splitlines(keepends=True)[-1])


# --- what works ---


@pytest.mark.parametrize(("task", "sizes"), [(gsm8k, (5, 2)), (arc, (4, 2)), (math, (17, 14))])
def test_a_dataset_is_read_at_the_pinned_commit(hub, tmp_path, task, sizes):
    """Of ARC both parts for training, the challenge for the test; of MATH's training set four are examples."""
    done = python(hub, tmp_path, READ, task.__name__.rpartition(".")[2])
    assert done.returncode == 0, done.stderr
    assert tuple(json.loads(done.stdout.splitlines()[-1])) == sizes
    asked = [r for r in hub.requests if task.SOURCE.hub in r and "/cdn/" not in r]
    assert asked
    assert all(task.SOURCE.revision in r for r in asked), asked


def test_the_second_run_needs_no_network(root, tmp_path):
    """The first downloads each file once."""
    with Hub(root, dict(COMMITS)).serve() as hub:
        first = python(hub, tmp_path / "home", EVALUATE, MODEL, str(tmp_path / "first"))
    assert first.returncode == 0, first.stderr
    files = [r.rpartition("/")[2].partition("-")[0] for r in hub.requests if r.startswith("GET /cdn/")]
    assert sorted(files) == ["model.safetensors", "test", "train"]
    second = python(hub, tmp_path / "home", EVALUATE, MODEL, str(tmp_path / "second"), HF_HUB_OFFLINE="1")
    assert second.returncode == 0, second.stderr
    found = [(tmp_path / run / "iteration-0" / "evaluate" / "greedy.csv").read_text() for run in ("first", "second")]
    assert found[0] == found[1]


# --- a hub that refuses ---


@pytest.mark.parametrize("status", [401, 403])
def test_a_gated_model(hub, irpo_run, status):
    hub.gated[MODEL] = status
    message = one_sentence(irpo_run(hub))
    assert f"licence (status {status}): accept it at https://huggingface.co/{MODEL}, then log in" in message


def test_no_such_model(hub, irpo_run):
    message = one_sentence(irpo_run(hub, "someone/tiny-lama"))
    assert "someone/tiny-lama is no folder here, and the hub has no model of that name" in message


def test_a_folder_that_is_not_there_is_no_name_on_the_hub():
    with pytest.raises(UserError, match="runs/mini/train/model is no folder here, and the hub has no model of that"):
        load_tokenizer("runs/mini/train/model")


def test_no_such_dataset(hub, tmp_path):
    hub.root = tmp_path
    message = one_sentence(read_fails(hub, tmp_path / "home", "arc"))
    assert "task arc: allenai/ai2_arc (ARC-Easy) can be read neither from the hub nor from its cache" in message
    assert "(Dataset 'allenai/ai2_arc' doesn't exist on the Hub" in message


def test_no_such_commit(hub, tmp_path):
    hub.commits[gsm8k.SOURCE.hub] = "2" * 40
    message = one_sentence(read_fails(hub, tmp_path, "gsm8k"))
    assert f"(Revision '{gsm8k.SOURCE.revision}' doesn't exist for dataset 'openai/gsm8k'" in message


# --- a hub that is away, or goes away ---


def test_no_network_and_an_empty_cache(root, irpo_run, tmp_path):
    with Hub(root, dict(COMMITS)).serve() as hub:
        pass
    message = last_sentence(irpo_run(hub))
    assert f"the model {MODEL} is not in the cache ({tmp_path / 'home'}" in message
    assert f"the hub (http://127.0.0.1:{hub.port}) cannot be reached" in message
    assert "(Couldn't reach 'openai/gsm8k' on the Hub" in last_sentence(read_fails(hub, tmp_path, "gsm8k"))


def test_another_commit_in_the_cache_is_not_taken(hub, tmp_path):
    """`datasets` would take it, without a network, whatever commit is asked for."""
    hub.commits[gsm8k.SOURCE.hub] = "2" * 40
    load = "import datasets; datasets.load_dataset('openai/gsm8k', 'main')"
    assert python(hub, tmp_path, load).returncode == 0
    message = last_sentence(read_fails(hub, tmp_path, "gsm8k", HF_HUB_OFFLINE="1"))
    assert "task gsm8k: of openai/gsm8k (main) the cache holds another commit than e53f04" in message


def test_tables_that_break_off_are_downloaded_again(hub, tmp_path):
    hub.breaks = True
    message = last_sentence(read_fails(hub, tmp_path, "gsm8k"))
    assert "openai/gsm8k (main) can be read neither from the hub nor from its cache" in message
    hub.breaks = False
    assert python(hub, tmp_path, READ, "gsm8k").stdout.endswith("[5, 2]\n")


def test_weights_that_break_off_are_downloaded_again(hub, irpo_run, tmp_path):
    hub.breaks = True
    assert f"broke off while the model {MODEL} was downloaded" in last_sentence(irpo_run(hub))
    assert not list((tmp_path / "home").rglob("model.safetensors"))
    hub.breaks = False
    done = python(hub, tmp_path / "home", EVALUATE, MODEL, str(tmp_path / "run"))
    assert done.returncode == 0, done.stderr
