"""Resident memory that work leaves behind, measured in an interpreter that does nothing else."""

import subprocess
import sys
import textwrap

MEASURE = """
import gc
import numpy as np
import anex
from anex import mb
{prepare}
def cycles(n):
    for _ in range(n):
        {cycle}
    gc.collect()
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096
before = cycles({warm})
print(cycles({n}) - before)
"""


def growth(prepare: str, cycle: str, *, warm: int, n: int) -> int:
    """Bytes that ``n`` times ``cycle`` add after ``warm`` times."""
    code = MEASURE.format(prepare=textwrap.dedent(prepare), cycle=cycle, warm=warm, n=n)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return int(done.stdout)
