"""Speed, against a named peer on the same work in the same run: `python -m benchmarks [generation|graders]`."""

import sys

from benchmarks import generation, graders

BENCHMARKS = {"generation": generation.main, "graders": graders.main}

for name in sys.argv[1:] or BENCHMARKS:
    BENCHMARKS[name]()
