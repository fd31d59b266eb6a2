"""Times anex and its peers in turns and prints the ratios: peer's time / ours, so above 1 is faster than the peer.

Of what is measured on the stand-in (device double) it prints the difference to the first row instead.
"""

from __future__ import annotations

import argparse
import json
import platform
from pathlib import Path

import torch

import anex

from .cases import CASES
from .timing import Result, measure


def show(result: Result) -> None:
    print(f"\n{result.case}   [device {result.device}, {result.threads} thread(s)]")
    for name in result.seconds:
        if result.device == "double":
            more, low, high = (seconds * 1e6 for seconds in result.over(name))
            print(f"  {name:28} {result.median(name) * 1e6:7.3f} us   +{more:.3f} us   ({low:.3f} to {high:.3f})")
            continue
        middle, low, high = result.ratios(name)
        print(f"  {name:12} {result.median(name) * 1e6:12.2f} us    {middle:6.2f}x   ({low:.2f} to {high:.2f})")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"of {', '.join(CASES)}; all without")
    parser.add_argument("--threads", type=int, nargs="*", default=[1, anex.get_num_threads()])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--turn", type=float, default=0.2, help="seconds a contender has in each round")
    parser.add_argument("--json", type=Path, help="write the results here as well")
    options = parser.parse_args()
    if unknown := set(options.cases) - set(CASES):
        parser.error(f"unknown case {', '.join(unknown)}")

    print(f"{platform.machine()}, {', '.join(anex._native.instruction_sets())}; ratio = peer's time / the first row's")
    print("threads are set for anex and torch; numpy's BLAS keeps its own number")
    results = []
    for name in CASES:  # in their order: once the stand-in is open, tensors are made otherwise
        if options.cases and name not in options.cases:
            continue
        case = CASES[name]()
        if case is None:
            print(f"\n{name}: left out, as anex was built without the binding (ANEX_OBJC=1) or its stand-in")
            continue
        for threads in dict.fromkeys(options.threads[:1] if case.device == "double" else options.threads):
            anex.set_num_threads(threads)
            torch.set_num_threads(threads)
            results.append(measure(case, threads=threads, rounds=options.rounds, turn=options.turn))
            show(results[-1])
    if options.json:
        options.json.write_text(json.dumps([result.as_json() for result in results], indent=1))


if __name__ == "__main__":
    main()
