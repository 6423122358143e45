"""Commands and scripts for a cluster, and a real Slurm of two nodes on this machine."""

import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from helpers import START, assert_same, ranks_of, run_training, start_training, wait_until

from irpo_lib.cluster import launch, slurm
from irpo_lib.cluster.layout import Parallel
from irpo_lib.config import load_config
from irpo_lib.iteration import Experiment
from irpo_lib.stages.store import hash_file
from irpo_lib.terminal.errors import UserError

#: Not in `make check`: a real Slurm.
pytestmark = pytest.mark.slow

NEEDED = ("slurmctld", "slurmd", "sbatch", "srun", "munged")
SLURM = Path(__file__).parent / "start-slurm"


@pytest.fixture(scope="module")
def two_nodes(tmp_path_factory):
    """A real Slurm; what it needs is installed by `.ci/run`."""
    missing = [name for name in NEEDED if not shutil.which(name)]
    if missing or os.geteuid():
        pytest.skip(f"a Slurm of one's own needs root and {', '.join(missing) or 'nothing else'}")
    folder = tmp_path_factory.mktemp("slurm")
    subprocess.run([SLURM, folder], check=True, capture_output=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", str(folder / "slurm.conf"))
        patch.setenv("OMP_NUM_THREADS", "1")
        yield folder
    subprocess.run([SLURM, folder, "stop"], check=True)


@pytest.fixture
def config(twenty_steps):
    return twenty_steps


@pytest.fixture
def big():
    return load_config("llama-2-70b")


def on_slurm(config):
    return replace(config, launcher="slurm", nodes=2, parallel=Parallel(fsdp=2), setup=("export TASK_IS_SET_UP=1",))


def queue() -> str:
    return subprocess.run(["squeue", "--noheader"], capture_output=True, text=True).stdout


# --- scripts, without a cluster ---


def test_generation_of_the_70b_preset_is_an_array_with_a_node_for_each_engine(big, tmp_path):
    script = slurm.batch_script("sample", big, tmp_path / "job.json")
    lines = script.splitlines()
    assert "#SBATCH --array=0-7" in lines
    assert "#SBATCH --nodes=1" in lines
    assert "#SBATCH --gpus-per-node=8" in lines
    task = slurm.task_script("sample", big, tmp_path / "job.json")
    assert f"-m irpo_lib.cluster.job {tmp_path / 'job.json'} ${{SLURM_ARRAY_TASK_ID:-$SLURM_PROCID}} 8" in task


def test_training_of_the_70b_preset_starts_a_launcher_of_8_ranks_on_each_of_8_nodes(big, tmp_path):
    script = slurm.batch_script("train", big, tmp_path / "job.json")
    assert "#SBATCH --nodes=8" in script
    assert "srun --nodes=8 --ntasks=8 --ntasks-per-node=1" in script
    task = slurm.task_script("train", big, tmp_path / "job.json")
    assert "--nnodes=8 --nproc-per-node=8 --rdzv-backend=c10d" in task


def test_setup_lines_stand_before_the_command(big, tmp_path):
    with_setup = replace(big, setup=("module load cuda", "source env/bin/activate"))
    lines = slurm.task_script("train", with_setup, tmp_path / "job.json").splitlines()
    assert lines[:4] == ["#!/bin/bash", "set -e", "module load cuda", "source env/bin/activate"]
    assert subprocess.run(["bash", "-n"], input="\n".join(lines), text=True).returncode == 0


def test_within_a_job_stages_are_its_steps(big, tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    command, files = launch.start("train", big, tmp_path / "job.json")
    assert command[0] == "srun"
    assert list(files) == [tmp_path / "task.sh"]


# --- a real one ---


def test_a_training_over_both_nodes_equals_one_process(two_nodes, config, scored, alone, tmp_path):
    log = run_training(on_slurm(config), scored, tmp_path)
    assert_same(log, alone[1])
    assert "COMPLETED" in (tmp_path / "work.log").read_text()


def test_a_generation_is_an_array_whose_tasks_share_the_shards(two_nodes, small_config, tmp_path):
    here = Experiment(small_config, tmp_path / "here").generate(1)
    there = Experiment(on_slurm(small_config), tmp_path / "there").generate(1)
    shards = {p.name: hash_file(p) for p in here.glob("shard-*.parquet")}
    assert len(shards) == 3
    assert {p.name: hash_file(p) for p in there.glob("shard-*.parquet")} == shards
    assert "COMPLETED, COMPLETED" in (there / "work.log").read_text()


def test_steps_of_a_job_that_is_there(two_nodes, config, scored, alone, tmp_path):
    """The whole run in one allocation: the notebook's stages are steps of its job."""
    from dataclasses import asdict
    from json import dumps

    script = tmp_path / "start.py"
    script.write_text(START)
    values = dumps(asdict(on_slurm(config)))
    command = [sys.executable, str(script), values, str(tmp_path / "out"), *map(str, scored), str(config.max_steps)]
    (tmp_path / "out").mkdir()
    done = subprocess.run(["salloc", "-N2", "--ntasks-per-node=1", *command], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    from irpo_lib.stages.store import read_log

    assert_same(read_log(tmp_path / "out" / "log.csv"), alone[1])


def test_a_failed_job_fails_with_its_reason(two_nodes, config, scored, tmp_path):
    with pytest.raises(UserError, match="the model folder /nowhere does not exist"):
        run_training(replace(on_slurm(config), model="/nowhere"), scored, tmp_path)


def test_a_job_that_slurm_refuses_fails_with_its_words(two_nodes, config, scored, tmp_path):
    with pytest.raises(UserError, match=r"sbatch refused .*partition"):
        run_training(replace(on_slurm(config), slurm_options=("--partition=none",)), scored, tmp_path)


def test_a_job_is_cancelled_with_the_notebook_that_waits_for_it(two_nodes, config, scored, alone, tmp_path):
    config = on_slurm(config)
    checkpoint = tmp_path / "checkpoints" / "checkpoint-5" / "log.json"
    with start_training(config, scored, tmp_path) as process:
        wait_until(checkpoint.is_file, process)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate(timeout=60)
    deadline = time.monotonic() + 60
    while queue() or ranks_of(tmp_path):
        assert time.monotonic() < deadline, queue()
        time.sleep(0.2)
    assert_same(run_training(config, scored, tmp_path), alone[1])


def test_a_job_is_cancelled_when_its_notebook_dies_while_it_is_handed_in(two_nodes, tmp_path, monkeypatch):
    """The end of the notebook: first its end of the pipe goes, then come signals, of each of its threads perhaps."""
    for name, before, after in (("sbatch", "", "sleep 2"), ("scancel", "sleep 1", "")):
        slow = tmp_path / name
        lines = ["#!/bin/bash", f"touch {slow}-runs", before, f'{shutil.which(name)} "$@"', f"touch {slow}-ran", after]
        slow.write_text("\n".join(lines))
        slow.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    script = tmp_path / "job.sbatch"
    script.write_text(f"#!/bin/bash\n#SBATCH --output={tmp_path}/slurm-%j.log\nsleep 300\n")
    command = [sys.executable, "-m", "irpo_lib.cluster.slurm", script]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as waits:
        wait_until((tmp_path / "sbatch-ran").is_file, waits)
        waits.stdout.close()
        waits.terminate()
        wait_until((tmp_path / "scancel-runs").is_file, waits)
        waits.terminate()
    assert waits.returncode
    wait_until(lambda: not queue(), seconds=60)


# --- the whole run, without running it ---


def test_a_dry_run_shows_every_stage_command_and_script_and_writes_nothing(tmp_path):
    command = [sys.executable, "-m", "irpo_lib.terminal.cli", "run", "--preset", "llama-2-70b", "--dry-run"]
    done = subprocess.run([*command, "--run-dir", str(tmp_path / "run")], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert not list(tmp_path.iterdir())
    for t in range(1, 5):
        for stage in ("generate", "reward", "pairs", "reference", "select", "train", "evaluate"):
            assert f"\niteration-{t}/{stage} " in done.stdout, (t, stage)
            if stage not in ("reward", "pairs"):
                assert f"{tmp_path}/run/iteration-{t}/{stage}.partial/job.sbatch" in done.stdout
    for arm in ("sft-chosen", "dpo", "dpo-from-sft", "sft-gold", "irpo-from-sft", "star-twice", "irpo-twice"):
        assert f"\narms/{arm}/train " in done.stdout
    for wanted in ("--array=0-7", "--nnodes=8 --nproc-per-node=8", "#SBATCH --gpus-per-node=8", "30 samples",
                   "at temperature 1.3", '"learning_rate": 7e-07', "at most 5000 steps of 16 pairs"):  # fmt: skip
        assert wanted in done.stdout, wanted


def test_a_dry_run_of_mini_runs_in_one_process(capsys):
    from irpo_lib.terminal.cli import main

    assert main(["run", "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "in the notebook's own process" in said
    assert "job.json:" not in said


def test_one_script_for_the_whole_run(tmp_path, capsys):
    from irpo_lib.terminal.cli import main

    script = tmp_path / "irpo.sbatch"
    assert main(["run", "--preset", "llama-2-70b", "--task", "arc", "--sbatch", str(script)]) == 0
    text = script.read_text()
    assert "#SBATCH --nodes=8" in text
    assert text.rstrip().endswith("-m irpo_lib.terminal.cli run --preset llama-2-70b --task arc")
    assert subprocess.run(["bash", "-n", script]).returncode == 0


def test_a_container_stands_before_python(big, tmp_path):
    inside = replace(big, container="apptainer exec --nv irpo.sif")
    for work in ("sample", "train"):
        assert "exec apptainer exec --nv irpo.sif python -m" in slurm.task_script(work, inside, tmp_path / "job.json")
