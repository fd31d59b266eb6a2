"""`python -m fuzz --programs 1000 --seed 0`: random programs; the ones that fail, made small. Exit status 1 if any."""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter

from .check import Count, check, quiet
from .maker import FAMILIES, random_graph
from .shrink import shrink, text


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--programs", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0, help="of the first program; the next has the next")
    parser.add_argument("--ops", nargs="*", default=(), help="only these")
    given = parser.parse_args()
    count, ops, broken, failed, begin = Count(), Counter(), Counter(), [], time.perf_counter()
    for seed in range(given.seed, given.seed + given.programs):
        with quiet():
            graph, maker = random_graph(seed, given.ops)
        broken.update(reason.split(":")[0] for reason in maker.broken)
        ops.update(step.op for step in graph.steps)
        try:
            check(graph, seed, count)
        except Exception as error:
            failed.append(seed)
            print(f"---- seed {seed}: {error}\n")
            graph, smaller = shrink(graph, maker, seed)
            print(f"smallest: {smaller or error}\n{text(graph)}\n", flush=True)
    missing = sorted(op for op in set(FAMILIES) - set(ops) if not op.startswith("anex_"))
    print(
        f"{given.programs} programs from seed {given.seed}, {sum(ops.values())} ops of {len(ops)} kinds, "
        f"{count.elements} values, {count.compared / max(count.elements, 1):.2%} of them compared, "
        f"{time.perf_counter() - begin:.0f} s; {len(failed)} failed {failed or ''}"
    )
    if broken:
        print(f"not made by coremltools: {', '.join(f'{n} {what}' for what, n in broken.most_common(8))}")
    if missing and not given.ops:
        print(f"not among them: {', '.join(missing)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
