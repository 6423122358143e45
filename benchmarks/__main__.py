"""Speed and memory beside named peers, in one table (README.md): `python -m benchmarks [NAME …]`."""

import sys

from benchmarks import generation, graders, real_size, scaling, startup, training
from benchmarks.table import save

BENCHMARKS = {
    "training": training.main,
    "generation": generation.main,
    "real-size": real_size.main,
    "scaling": scaling.main,
    "startup": startup.main,
    "graders": graders.main,
}

if __name__ == "__main__":
    for name in sys.argv[1:] or BENCHMARKS:
        rows = []
        for row in BENCHMARKS[name]():
            print(row, flush=True)
            rows.append(row)
            save(rows)
