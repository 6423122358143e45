"""Stages that are cut off: kill -9 in the middle of generation and of pairing, and a disk that is full."""

import contextlib
import errno
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from helpers import kill_stage

from irpo_lib.iteration import Experiment
from irpo_lib.results.tables import status_table
from irpo_lib.stages.store import read_json, run_stage, stage_hash, write_json
from irpo_lib.terminal.errors import UserError

#: Not in `make check`: processes that are killed and go on, and a disk that is full.
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 1 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.geteuid() or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder]).returncode:
        pytest.skip("only root may mount the small file system that this test fills")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def fill(disk: Path, left: int = 0) -> Path:
    """Fills a disk up to `left` bytes with a file that can be removed to make room."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    os.truncate(ballast, ballast.stat().st_size - left)
    return ballast


def make_room(disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,size=16m", disk], check=True)


def stage_files(run_dir: Path) -> set[str]:
    """The names of all stages that count as done."""
    return {str(p.parent.relative_to(run_dir)) for p in run_dir.rglob("stage.json")}


# --- kill -9 ---


def test_a_killed_generation_goes_on_and_gives_the_same(small_config, tmp_path):
    config = replace(small_config, train_problems=200, problems_per_shard=4)
    whole, killed = Experiment(config, tmp_path / "whole"), Experiment(config, tmp_path / "killed")
    partial = tmp_path / "killed/iteration-1/generate.partial"

    kill_stage("generate", config, killed.run_dir, lambda: any(partial.glob("shard-*.parquet")))
    done = {p.name: p.stat().st_mtime_ns for p in partial.glob("shard-*.parquet")}
    assert f"kept: {len(done)} shard" in status_table(killed.run_dir)
    assert 1 <= len(done) < 50
    assert stage_files(killed.run_dir) == set()

    folder = killed.generate(1)
    assert stage_hash(folder) == stage_hash(whole.generate(1))
    assert {name: (folder / name).stat().st_mtime_ns for name in done} == done, "finished shards are kept"
    assert not partial.exists()


def test_a_killed_pairing_goes_on_and_gives_the_same(small_config, tmp_path):
    config = replace(small_config, train_problems=40, pairs_per_problem=500)
    whole = Experiment(config, tmp_path / "whole")
    whole.reward(1)
    shutil.copytree(whole.run_dir, tmp_path / "killed")
    killed = Experiment(config, tmp_path / "killed")
    partial = tmp_path / "killed/iteration-1/pairs.partial"

    kill_stage("pair", config, killed.run_dir, (partial / "begun.json").is_file)
    assert stage_files(killed.run_dir) == {"iteration-1/generate", "iteration-1/reward"}

    assert stage_hash(killed.pair(1)) == stage_hash(whole.pair(1))
    assert not partial.exists()


def test_a_killed_stage_is_not_finished_with_other_settings(small_config, tmp_path):
    config = replace(small_config, train_problems=200, problems_per_shard=4)
    partial = tmp_path / "iteration-1/generate.partial"
    kill_stage("generate", config, tmp_path, lambda: any(partial.glob("shard-*.parquet")))
    with pytest.raises(UserError, match="top_p"):
        Experiment(replace(config, top_p=0.5), tmp_path).generate(1)


# --- a full disk ---


def test_generation_on_a_full_disk(small_config, small_disk, tmp_path):
    config = replace(small_config, train_problems=60, problems_per_shard=4)
    experiment = Experiment(config, small_disk / "run")
    ballast = fill(small_disk, left=40_000)
    with pytest.raises(OSError, match="No space left") as error:
        experiment.generate(1)
    assert error.value.errno == errno.ENOSPC
    assert stage_files(small_disk) == set()
    assert not experiment.folder(1, "generate").exists()
    assert list(small_disk.rglob("shard-*.parquet")), "the disk was full before the stage had begun its work"

    ballast.unlink()
    other = Experiment(config, tmp_path / "roomy")
    assert stage_hash(experiment.generate(1)) == stage_hash(other.generate(1))


@pytest.mark.parametrize("engine", ["irpo", "trl"])
def test_training_on_a_full_disk(small_config, small_disk, tmp_path, engine):
    """Weights and optimizer states are written by other libraries, whose errors say nothing of a disk."""
    config = replace(small_config, training_engine=engine)
    roomy = Experiment(config, tmp_path / "roomy")
    roomy.reference(1)
    shutil.copytree(roomy.run_dir, small_disk / "run")
    experiment = Experiment(config, small_disk / "run")
    finished = stage_files(small_disk)
    for left in (40_000, 150_000, 250_000):
        ballast = fill(small_disk, left)
        with pytest.raises(OSError, match="No space left") as error:
            experiment.train(1)
        assert error.value.errno == errno.ENOSPC
        assert stage_files(small_disk) == finished
        ballast.unlink()
    make_room(small_disk)
    assert stage_hash(experiment.train(1)) == stage_hash(roomy.train(1))


def test_a_full_disk_when_a_stage_is_declared_done(small_disk):
    """The result is there and only the manifest does not fit: the stage is not done, and is done the next time."""

    def work(folder: Path) -> dict:
        write_json(folder / "result.json", {"right": 1})
        fill(small_disk)
        return {"note": "more than the file that says what was begun gives back " * 200}

    with pytest.raises(OSError, match="No space left"):
        run_stage(small_disk / "stage", {"beta": 0.1}, {}, work)
    assert not (small_disk / "stage").exists()
    (small_disk / "ballast").unlink()
    run_stage(small_disk / "stage", {"beta": 0.1}, {}, lambda folder: {"right": 1})
    assert read_json(small_disk / "stage/stage.json")["counts"] == {"right": 1}
    assert sorted(p.name for p in (small_disk / "stage").iterdir()) == ["result.json", "stage.json"]


def test_the_command_says_one_sentence_on_a_full_disk(small_disk, tmp_path):
    def make_data(out: Path) -> subprocess.CompletedProcess:
        command = [sys.executable, "-m", "irpo_lib.terminal.cli", "make-data", "--out", str(out)]
        return subprocess.run(command, capture_output=True, text=True)

    out = small_disk / "data"
    ballast = fill(small_disk, left=100_000)
    failed = make_data(out)
    assert failed.returncode == 1
    assert failed.stderr.startswith("irpo: No space left on device")
    assert failed.stderr.count("\n") == 1
    assert make_data(tmp_path / "whole").returncode == 0
    for path in out.rglob("*.jsonl"):
        assert path.read_bytes() == (tmp_path / "whole" / path.relative_to(out)).read_bytes(), path

    ballast.unlink()
    make_room(small_disk)
    assert make_data(out).returncode == 0
    made = {p.relative_to(out) for p in out.rglob("*") if p.is_file()}
    assert made == {p.relative_to(tmp_path / "whole") for p in (tmp_path / "whole").rglob("*") if p.is_file()}


def test_a_truncated_shard_is_one_sentence_and_is_made_again_when_it_is_deleted(small_config, tmp_path):
    whole, broken = Experiment(small_config, tmp_path / "whole"), Experiment(small_config, tmp_path / "broken")
    expected = {p.name: p.read_bytes() for p in whole.generate(1).glob("shard-*.parquet")}
    partial = tmp_path / "broken/iteration-1/generate.partial"
    partial.mkdir(parents=True)
    for name, content in expected.items():
        (partial / name).write_bytes(content[:-20] if name == "shard-00001.parquet" else content)
    with pytest.raises(UserError, match=r"shard-00001\.parquet is damaged .*delete this file"):
        broken.generate(1)
    (partial / "shard-00001.parquet").unlink()
    assert {p.name: p.read_bytes() for p in broken.generate(1).glob("shard-*.parquet")} == expected
