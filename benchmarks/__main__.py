"""Times anex and its peers in turns and prints the ratios: peer's time / ours, so above 1 is faster than the peer."""

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
    print(f"\n{result.case}   [device cpu, {result.threads} thread(s)]")
    for name in result.seconds:
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
    for name in options.cases or CASES:
        case = CASES[name]()
        for threads in dict.fromkeys(options.threads):
            anex.set_num_threads(threads)
            torch.set_num_threads(threads)
            results.append(measure(case, threads=threads, rounds=options.rounds, turn=options.turn))
            show(results[-1])
    if options.json:
        options.json.write_text(json.dumps([result.as_json() for result in results], indent=1))


if __name__ == "__main__":
    main()
