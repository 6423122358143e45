"""The peak of live memory in a training step of this process: measure_memory.py CONFIG.json, alone or by torchrun."""

import gc
import json
import random
import re
import sys
from pathlib import Path

from irpo_lib.config import config_from
from irpo_lib.models.parallel import join, leave
from irpo_lib.models.weights import load_for_training, prepared
from irpo_lib.pairs import ScoredPair
from irpo_lib.records import PreferencePair
from irpo_lib.training import Loop


def resident(name: str) -> int:
    """VmRSS or VmHWM of this process, in bytes."""
    return int(re.search(name + r":\s+(\d+)", Path("/proc/self/status").read_text())[1]) * 1024


def size(tensor) -> int:
    return (tensor.to_local() if hasattr(tensor, "to_local") else tensor).nbytes


config = config_from(json.loads(Path(sys.argv[1]).read_text()))
ranks = join(config)
model = prepared(load_for_training(config.model, config), config)
loop = Loop(model, config, ranks)
prompt = 4  # too short to be shared, as the plan counts
response = config.max_length - prompt
rng = random.Random(0)


def ids(n: int) -> list[int]:
    return [rng.randrange(5, 90) for _ in range(n)]


batch = []
for i in range(config.batch_size):
    pair = PreferencePair(f"p{i}", 0, ids(prompt), ids(response), ids(response), "model")
    batch.append(ScoredPair(pair, -1.0, -2.0))
for _ in range(2):
    loop.step(batch)
gc.collect()
there = sum(size(p.detach()) for p in model.parameters())
there += sum(size(t) for state in loop.optimizer.state.values() for t in state.values())
Path("/proc/self/clear_refs").write_text("5")
before = resident("VmRSS")
loop.step(batch)
if ranks.is_main:
    print(f"peak: {there + resident('VmHWM') - before} bytes")
leave()
