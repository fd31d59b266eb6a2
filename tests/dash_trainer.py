"""A run for the tests of `anex dash`: ends itself after --steps, or never; says what it was told to do.

Step n has the loss 100 - n. After step 3 it says that it kept a checkpoint of step 4; --resume goes on there.
"""

import argparse
import json
import os
import signal
import sys
import time
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=1_000_000)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--deaf", action="store_true", help="to SIGINT and SIGTERM")
    parser.add_argument("--ckpt", type=Path)
    parser.add_argument("--die", type=int, metavar="CODE")
    given = parser.parse_args()

    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs are born deaf to it
    if given.deaf:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    step = 4 if given.resume else 0
    print(f"=== fake training: process {os.getpid()} ===", flush=True)
    if given.resume:
        print("[RESUMED step 4, loss=97.0000]", flush=True)
    while step < given.steps:
        print(json.dumps({"type": "step", "step": step, "loss": 100.0 - step}), file=sys.stderr, flush=True)
        step += 1
        if step == 4:
            if given.ckpt:
                given.ckpt.write_text("checkpoint")
            print("[checkpoint saved: step 4, loss=97.0000]", flush=True)
        if given.steps == 1_000_000:
            time.sleep(0.02)
    if given.die:
        print("Traceback: the disk is full", file=sys.stderr)
        sys.exit(given.die)


if __name__ == "__main__":
    main()
