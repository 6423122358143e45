"""The peak of live memory in a training step of this process: measure_memory.py CONFIG.json, alone or by torchrun."""

import gc
import json
import re
import sys
from pathlib import Path

from irpo_lib.config import config_from
from irpo_lib.parallel import join, leave
from irpo_lib.records import PreferencePair
from irpo_lib.training import Loop, ScoredPair, prepared
from irpo_lib.weights import load_for_training


def resident(name: str) -> int:
    """VmRSS or VmHWM of this process, in bytes."""
    return int(re.search(name + r":\s+(\d+)", Path("/proc/self/status").read_text())[1]) * 1024


def size(tensor) -> int:
    return (tensor.to_local() if hasattr(tensor, "to_local") else tensor).nbytes


config = config_from(json.loads(Path(sys.argv[1]).read_text()))
ranks = join(config)
model = prepared(load_for_training(config.model, config), config)
loop = Loop(model, config, ranks)
prompt = config.max_length // 4
response = config.max_length - prompt
pair = PreferencePair("p", 0, [5] * prompt, [6] * response, [7] * response, "model")
batch = [ScoredPair(pair, -1.0, -2.0)] * config.batch_size
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
