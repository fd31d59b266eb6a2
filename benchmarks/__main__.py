"""Times anex and its peers in turns and prints ratios: peer's time / ours, so above 1 we are faster.

Every contender has a process of its own, which is stopped while another one runs. In each round each has a turn: a
call to warm up, then calls for --turn seconds, of which the median counts. A ratio is taken in each round, so that
what the machine does to one it does to all; the table shows their median and quartiles. Beside a time stands its share
of what the machine can do at most, measured in the same rounds.

Of what is measured on the stand-in (device double) the table shows the difference to the first row instead.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

from rich.console import Console

from . import machine, runtimes
from .catalogue import CASES, matching
from .measure import in_processes
from .results import Report
from .text import show


def arguments() -> argparse.ArgumentParser:
    both = sorted({min(2, machine.processors()), 1}, reverse=True)
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("cases", nargs="*", metavar="CASE", help="names of --list, or their beginnings; all without")
    parser.add_argument("--list", action="store_true", help="the cases, and nothing else")
    parser.add_argument("--threads", type=int, nargs="+", default=both, help="each is a run of its own")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--turn", type=float, default=0.2, help="seconds that a contender has in each round")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results here, after each case")
    parser.add_argument("--append", action="store_true", help="keep the other results that FILE has")
    parser.add_argument("--plot", type=Path, metavar="FILE.png", help="draw the ratios; with --json those of FILE")
    parser.add_argument("--peers", type=Path, metavar="PYTHON", default=runtimes.PEERS,
                        help="the interpreter that has the other runtimes")  # fmt: skip
    return parser


def main() -> None:
    parser = arguments()
    options = parser.parse_args()
    try:
        names = matching(options.cases)
    except KeyError as error:
        parser.error(f"no case is called {error.args[0]!r}; --list names them")
    if options.rounds < 1 or options.turn <= 0 or min(options.threads) < 1:
        parser.error("--rounds, --threads and --turn are above 0")
    console = Console(soft_wrap=True, width=max(Console().width, 110))
    if options.list:
        for name in names:
            console.print(f"{name:20} {CASES[name]().title}", markup=False, highlight=False)
        return

    found = runtimes.find(options.peers.absolute())
    report = Report(machine.described(), found.versions, found.absent)
    if options.append and options.json and options.json.exists():
        try:
            report.results = Report.read(options.json).results
        except ValueError as error:
            parser.error(str(error))
    console.print(f"{report.machine['processor']}, {report.machine['processors']} processors")
    console.print(", ".join(f"{name} {version}" for name, version in found.versions.items()), highlight=False)
    for name, why in found.absent.items():
        console.print(f"not here: {name}: {why}", highlight=False)
    try:
        with tempfile.TemporaryDirectory(prefix="anex-bench-") as folder:
            for name in names:
                for threads in dict.fromkeys(options.threads):
                    case = CASES[name]()
                    if case.device == "double" and threads != options.threads[0]:
                        continue  # a call computes nothing there
                    result = in_processes(name, case, threads=threads, rounds=options.rounds, turn=options.turn,
                                          folder=Path(folder) / name, found=found)  # fmt: skip
                    show(result, console)
                    report.add(result)
                    if options.json:
                        report.write(options.json)
                shutil.rmtree(Path(folder) / name, ignore_errors=True)  # half a gigabyte, of some
    except KeyboardInterrupt:
        console.print("\nstopped; what was measured so far is kept")
    if options.plot:
        from .plot import draw

        draw(report.in_order(CASES), options.plot)
    wrong = [f"{each.case}: {name}: {why}" for each in report.results for name, why in each.left_out.items()
             if "differs" in why]  # fmt: skip
    if wrong:
        sys.exit("\n".join(["wrong answers, which were not timed:", *wrong]))


if __name__ == "__main__":
    main()
