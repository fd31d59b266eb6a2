"""The process of one contender, or of the making of one file: lines of JSON in, lines of JSON out.

    python -m benchmarks.worker CASE CONTENDER THREADS FOLDER
    python -m benchmarks.worker CASE --file NAME FOLDER

Says ``{"ready": true}`` with the answer in FOLDER, then for each line ``{"turn": seconds}`` what the turn gave;
``{"error": text}`` where something failed. Whoever started it stops it (SIGSTOP) between its turns.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from pathlib import Path

import numpy as np

from .case import Setting
from .catalogue import CASES
from .runtimes import runtime_of
from .turn import folder_of, prepare


def _without_frameworks() -> None:
    """As `anex train` runs: coremltools would load torch where it is installed, and that would count as our memory."""
    from anex._coremltools import keep_frameworks_out

    keep_frameworks_out()


def main() -> None:
    # What libraries print to the standard output must not get into what we say.
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)

    def say(**message: object) -> None:
        out.write(json.dumps(message) + "\n")
        out.flush()

    try:
        name, contender, *rest = sys.argv[1:]
        case = CASES[name]()
        if contender == "--file":
            case.files[rest[0]].write(Path(rest[1]) / rest[0])
            say(ready=True)
            return
        threads, folder = int(rest[0]), Path(rest[1])
        if case.memory and runtime_of(contender) == "anex":
            _without_frameworks()
        turn, answer = prepare(case, contender, Setting(threads, folder))
        if answer is not None:
            np.save(folder_of(folder, contender), answer)
        say(ready=True)
        for line in sys.stdin:
            say(**turn(json.loads(line)["turn"]))
    except Exception as error:
        traceback.print_exc()
        say(error=f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    main()
