"""The real vLLM engine on a CPU, and its server, beside the `transformers` engine."""

import math
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from statistics import fmean, variance

import pytest

pytest.importorskip("vllm", reason="vLLM is not installed here: `make test-vllm` has an environment with it")

from helpers import kill_stage

from irpo_lib.config import load_config
from irpo_lib.engines import server, transformers, vllm
from irpo_lib.generation import to_text
from irpo_lib.iteration import Experiment
from irpo_lib.models.load import encode_prompt, end_token_id, load_model, load_tokenizer, resolve_model
from irpo_lib.records import Completion
from irpo_lib.rewards import grade
from irpo_lib.stages.store import hash_file, read_records
from irpo_lib.tasks import get_task, read_split
from irpo_lib.terminal.errors import UserError

MODEL, TASK, LENGTH = "mini-llama", "gsm8k-mini", 160


@pytest.fixture(scope="module", autouse=True)
def one_thread_each():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        yield


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer(MODEL)


@pytest.fixture(scope="module")
def end(tokenizer):
    return end_token_id(tokenizer)


@pytest.fixture(scope="module")
def problems():
    return read_split(get_task(TASK), "dev")[:60]


@pytest.fixture(scope="module")
def prompts(tokenizer, problems):
    return [encode_prompt(tokenizer, get_task(TASK).prompt(p)) for p in problems]


@pytest.fixture(scope="module")
def engine():
    return vllm.load_engine(MODEL, "float32")


def draw(source, prompts, end, n=1, temperature=0.0, seeds=None, length=LENGTH, module=vllm):
    seeds = seeds or range(len(prompts))
    wanted = {"n": n, "temperature": temperature, "top_p": 1.0, "max_tokens": length, "stop_token_ids": [end]}
    found = dict(module.generate(source, prompts, list(seeds), **wanted))
    return [found[i] for i in range(len(prompts))]


@pytest.fixture(scope="module")
def greedy(engine, prompts, end):
    return draw(engine, prompts, end)


def by_transformers(prompts, end, n=1, temperature=0.0):
    model = load_model(MODEL, "float32")
    found = dict(transformers.generate(model, prompts, n, temperature, 1.0, LENGTH, 5, end=end))
    return [found[i] for i in range(len(prompts))]


def test_greedy_is_the_same_token_for_token(greedy, prompts, end):
    assert greedy == by_transformers(prompts, end)


def test_finished_responses_end_with_one_end_token_and_cut_ones_with_none(engine, greedy, prompts, end):
    assert {s.finish_reason for some in greedy for s in some} == {"stop"}
    assert all(s.token_ids.index(end) == len(s.token_ids) - 1 for some in greedy for s in some)
    for whole, (cut,) in zip(greedy, draw(engine, prompts, end, length=9), strict=True):
        assert cut.finish_reason == "length"
        assert cut.token_ids == whole[0].token_ids[:9]


def test_thirty_samples_are_like_those_of_the_other_engine(engine, prompts, problems, tokenizer, end):
    """Shares of right answers and mean lengths differ by less than four standard errors."""

    def measured(samples):
        rights, lengths = [], []
        for problem, some in zip(problems, samples, strict=True):
            assert len(some) == 30
            assert len({tuple(s.token_ids) for s in some}) > 3
            rights.append(fmean(grade(TASK, problem.answer, to_text(tokenizer, s.token_ids)) for s in some))
            lengths.append(fmean(len(s.token_ids) for s in some))
        return rights, lengths

    problems, prompts = problems[:30], prompts[:30]
    ours = measured(draw(engine, prompts, end, n=30, temperature=0.8, seeds=[1000 * i for i in range(30)]))
    theirs = measured(by_transformers(prompts, end, n=30, temperature=0.8))
    for a, b in zip(ours, theirs, strict=True):  # pairs of values for the same problem
        differences = [x - y for x, y in zip(a, b, strict=True)]
        assert variance(differences) > 0
        assert abs(fmean(differences)) < 4 * math.sqrt(variance(differences) / len(differences))


def test_samples_depend_on_the_seed_of_their_prompt_alone(engine, prompts, end):
    seeds = [7_000_000_019 * (i + 1) for i in range(12)]
    together = draw(engine, prompts[:12], end, n=4, temperature=1.0, seeds=seeds)
    order = random.Random(0).sample(range(12), 12)
    shuffled = draw(engine, [prompts[i] for i in order], end, n=4, temperature=1.0, seeds=[seeds[i] for i in order])
    assert [together[i] for i in order] == shuffled
    assert draw(engine, prompts[3:4], end, n=4, temperature=1.0, seeds=seeds[3:4]) == together[3:4]
    assert draw(engine, prompts[3:4], end, n=4, temperature=1.0, seeds=[1]) != together[3:4]


def test_a_prompt_without_room_for_its_response_is_refused(engine, end):
    with pytest.raises(UserError, match=r"a prompt of \d+ tokens and max_new_tokens=160 are more than the \d+ tokens"):
        draw(engine, [[5] * 2000], end)


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(UserError, match="vLLM cannot load this model"):
        vllm.load_engine(str(tmp_path), "float32")


# --- as a source of the loop ---


@pytest.fixture
def config():
    return load_config(
        "mini", TASK, engine="vllm", iterations=1, temperatures=[0.8], train_problems=40, samples=30,
        test_problems=6, majority_iterations=[], problems_per_shard=8, max_steps=2, max_new_tokens=LENGTH,
    )  # fmt: skip


def samples(folder):
    return read_records(sorted(folder.glob("shard-*.parquet")), Completion)


def test_a_killed_generation_goes_on_at_its_next_shard_with_the_same_samples(config, tmp_path):
    whole = samples(Experiment(config, tmp_path / "whole").generate(1))
    assert len(whole) == 40 * 30
    partial = tmp_path / "killed/iteration-1/generate.partial"
    kill_stage("generate", config, tmp_path / "killed", lambda: len(list(partial.glob("shard-*.parquet"))) > 1)
    kept = {p.name: hash_file(p) for p in partial.glob("shard-*.parquet")}
    assert 2 <= len(kept) < 5
    deadline = time.monotonic() + 30
    while any(str(partial) in line for line in processes()):
        assert time.monotonic() < deadline, "the engine outlived the process that had started it"
        time.sleep(0.1)
    folder = Experiment(config, tmp_path / "killed").generate(1)
    assert samples(folder) == whole
    assert kept.items() <= {p.name: hash_file(p) for p in folder.glob("shard-*.parquet")}.items()


def processes() -> list[str]:
    return subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True).stdout.splitlines()


def test_an_engine_over_two_processes_gives_the_same_greedy_tokens(config, end, tmp_path):
    config = replace(config, generation_tp=2, test_problems=20)
    with ThreadPoolExecutor(1) as thread:
        evaluated = thread.submit(Experiment(config, tmp_path).evaluate, 0)
        workers: set[str] = set()
        while not evaluated.done():
            workers |= {line.split()[0] for line in processes() if line.startswith("VLLM::Worker_TP")}
            time.sleep(0.1)
    assert workers == {"VLLM::Worker_TP0", "VLLM::Worker_TP1"}
    found = samples(evaluated.result() / "greedy")
    assert len(found) == 20
    alone = by_transformers([c.prompt_ids for c in found], end)
    assert [c.token_ids for c in found] == [sample.token_ids for (sample,) in alone]


def test_the_size_of_shards_does_not_change_what_is_sampled(config, tmp_path):
    config = replace(config, train_problems=12, samples=3)
    one, many = (
        samples(Experiment(replace(config, problems_per_shard=n), tmp_path / str(n)).generate(1)) for n in (12, 5)
    )
    assert one == many


def test_an_iteration_with_vllm(config, tmp_path):
    experiment = Experiment(replace(config, train_problems=12, samples=6), tmp_path)
    experiment.run()
    assert (experiment.folder(1, "evaluate") / "summary.json").is_file()


# --- the server ---


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = tmp_path_factory.mktemp("server") / "log.txt"
    command = [
        sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", resolve_model(MODEL), "--dtype",
        "float32", "--host", "127.0.0.1", "--port", str(port), "--no-enable-chunked-prefill", "--enforce-eager",
        "--kv-cache-memory-bytes", str(2**28),
    ]  # fmt: skip
    settings = vllm.SETTINGS | {"VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1"}
    settings.pop("VLLM_ENABLE_V1_MULTIPROCESSING")
    environment = {k: v for k, v in os.environ.items() if k != "VLLM_ENABLE_V1_MULTIPROCESSING"} | settings
    url = f"http://127.0.0.1:{port}/v1"
    with log.open("w") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file, env=environment, start_new_session=True)
    try:
        deadline = time.monotonic() + 240
        while True:
            with socket.socket() as attempt:
                if attempt.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert process.poll() is None, log.read_text()[-3000:]
            assert time.monotonic() < deadline, log.read_text()[-3000:]
            time.sleep(0.5)
        yield url
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)


def test_the_server_gives_what_the_engine_gives(endpoint, greedy, prompts, end):
    name = server.check_server(endpoint, MODEL)
    assert draw((endpoint, name), prompts, end, module=server) == greedy


def test_the_server_repeats_what_it_sampled(endpoint, prompts, end):
    source = (endpoint, server.check_server(endpoint, MODEL))
    seeds = [99_991 * i for i in range(6)]
    first, again = (draw(source, prompts[:6], end, n=4, temperature=1.0, seeds=seeds, module=server) for _ in range(2))
    assert first == again
    assert all(len({tuple(s.token_ids) for s in some}) > 1 for some in first)


def test_a_run_with_a_server_as_its_source(config, endpoint, tmp_path):
    config = replace(config, engine="server", server=endpoint, train_problems=6, samples=3)
    assert len(samples(Experiment(config, tmp_path).generate(1))) == 18


def test_a_server_of_another_model_is_refused(endpoint, tmp_path):
    shutil.copytree(resolve_model(MODEL), tmp_path / "other")
    with pytest.raises(UserError, match=r"serves .*mini-llama, but .*other is needed: start one with"):
        server.check_server(endpoint, str(tmp_path / "other"))


def test_a_server_that_is_not_there_is_one_sentence(monkeypatch):
    monkeypatch.setattr(server, "PAUSES", (0.01, 0.01))
    with pytest.raises(UserError, match=r"http://127\.0\.0\.1:9/v1/models does not answer .*is the server running"):
        server.check_server("http://127.0.0.1:9/v1", MODEL)


def test_config_names_server_and_engine_together():
    assert asdict(load_config("mini", TASK))["server"] is None
    with pytest.raises(UserError, match="engine=server and server=URL go together"):
        load_config("mini", TASK, engine="server")
