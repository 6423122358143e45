"""Speed and memory, each against a named peer on the same work in the same run: `python -m benchmarks [NAME …]`."""

import sys

from benchmarks import generation, graders, scaling, startup

BENCHMARKS = {"generation": generation.main, "graders": graders.main, "scaling": scaling.main, "startup": startup.main}

if __name__ == "__main__":
    for name in sys.argv[1:] or BENCHMARKS:
        BENCHMARKS[name]()
