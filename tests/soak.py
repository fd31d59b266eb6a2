"""Long runs on the stand-in, to see what grows, goes wrong or stops: ``make soak``, or from the root

    PYTHONPATH=tests python -m soak cycles --n 20000
    PYTHONPATH=tests python -m soak threads --seconds 60

The tests in test_soak.py are short versions of the same.
"""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import os
import random
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # before anex is imported: GNUstep, and so the stand-in, remembers this TEMP
    folder = tempfile.TemporaryDirectory(prefix="anex-soak-")
    os.environ |= {"TEMP": folder.name, "ANEX_CACHE_DIR": f"{folder.name}/notes", "FAKE_ANE": "compile_limit=0"}

import click
import numpy as np
from fake_ane import control

import anex
from anex import _native, mb
from anex.devices import isolate

SHAPE = (1, 8, 1, 40)
THREADS = 8
INTERNED = 1 << 18  # strings after which CPython's own table of them has grown, once, by 3.8 MB; cycles make some too
STALLED = 60  # seconds without a result of some thread, after which this is a deadlock


def graph(factor: int) -> Any:
    """Exact in float16 for the numbers that ``numbers`` gives, whatever order or precision it is computed in."""
    weight = np.eye(SHAPE[1], dtype=np.float16)[:, :, None, None] * np.float16(factor)

    @anex.graph(x=SHAPE)
    def scaled(x):
        return mb.add(x=mb.conv(x=x, weight=weight), y=x, name="y")

    return scaled


def numbers(rng: np.random.Generator) -> np.ndarray:
    return rng.integers(-50, 50, SHAPE).astype(np.float16)


def expect(found: Any, x: np.ndarray, factor: int) -> None:
    """Equal bits."""
    wanted = (x * np.float16(factor) + x) + np.float16(0)  # as a sum has it, no zero is negative
    if (np.asarray(found) + np.float16(0)).tobytes() != wanted.tobytes():
        raise AssertionError(f"x * {factor} + x came out wrong: {np.asarray(found)!r} of {x!r}")


# ---- cycles -----------------------------------------------------------------------------------


OWN = ("RssAnon", "RssShmem")  # the rest is of mapped files, which the system brings in and drops as it likes


def footprint() -> dict[str, int]:
    """What this process holds."""
    gc.collect()
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    resident, mapped = (sum(int(status[key].split()[0]) << 10 for key in keys) for keys in (OWN, ("RssFile",)))
    walk = [name for _, folders, files in os.walk(os.environ["TEMP"]) for name in (*folders, *files)]
    return {
        "resident": resident,
        "mapped": mapped,
        "descriptors": len(os.listdir("/proc/self/fd")),
        "threads": len(os.listdir("/proc/self/task")),
        "children": len(isolate._workers.alive),
        "files": len(walk),  # of the binding, of the stand-in's cache, and anex's notes
        "surfaces": control.count("live_surfaces"),
        "models": control.count("live_models"),
        "loaded": _native.ane_account()["loaded"],
    }


def cycle(programs: list[Any], i: int, rng: np.random.Generator, **options: Any) -> None:
    """Compile one, call it in each way, close it."""
    factor, x = i % len(programs), numbers(rng)
    with anex.compile(programs[factor], device="ane", recompile=i % 2 == 0, **options) as program:
        expect(program(x), x, factor)
        out = anex.empty(SHAPE)
        expect(program.submit(anex.tensor(x), out=out).result(60), x, factor)


def cycles(n: int, *, warm: int, say: Callable[[str], object] = lambda text: None, **options: Any) -> dict[str, int]:
    """What ``n`` cycles after ``warm`` ones leave behind."""
    programs, rng = [graph(factor) for factor in range(7)], np.random.default_rng(3)
    for i in range(warm):
        cycle(programs, i, rng, **options)
    for i in range(INTERNED):
        sys.intern(f"soak {i}")
    before, start = footprint(), time.monotonic()
    say(f"{'after ' + str(warm):>12}: {before}")
    for i in range(n):
        cycle(programs, i, rng, **options)
        if (i + 1) % max(1, n // 10) == 0:
            say(f"{'and ' + str(i + 1):>12}: {footprint()}")
    after = footprint()
    say(f"{(time.monotonic() - start) / n * 1e3:.1f} ms a cycle")
    return {name: after[name] - before[name] for name in before}


# ---- threads ----------------------------------------------------------------------------------


@contextlib.contextmanager
def watched(beats: list[int], until: threading.Event) -> Iterator[None]:
    """Ends the process with every thread's traceback if one of the threads comes to no result for long."""

    def watch() -> None:
        last, since = list(beats), [time.monotonic()] * len(beats)
        while not over.wait(1):
            for i, beat in enumerate(beats):
                if beat != last[i]:
                    last[i], since[i] = beat, time.monotonic()
                elif time.monotonic() - since[i] > STALLED and not until.is_set():
                    print(f"thread {i} has stood still for {STALLED} s", file=sys.stderr)
                    faulthandler.dump_traceback(all_threads=True)
                    os._exit(1)

    over = threading.Event()
    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()


def together(work: Callable[[int, Callable[[], bool]], None], seconds: float) -> int:
    """``work(i, go_on)`` on each thread; how often they went on. What one of them raises is raised."""
    beats, ended, wrong = [0] * THREADS, threading.Event(), []
    deadline = time.monotonic() + seconds
    faulthandler.dump_traceback_later(seconds + 4 * STALLED, exit=True)  # should they not end, or the watcher be stuck

    def run(i: int) -> None:
        def go_on() -> bool:
            beats[i] += 1
            return time.monotonic() < deadline and not wrong

        try:
            work(i, go_on)
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=run, args=(i,)) for i in range(THREADS)]
    with watched(beats, ended):
        for thread in threads:
            thread.start()
        time.sleep(seconds)
        ended.set()
        for thread in threads:
            thread.join()
    faulthandler.cancel_dump_traceback_later()
    if wrong:
        raise wrong[0]
    return sum(beats)


def call(program: anex.Program, rng: np.random.Generator, factor: int) -> None:
    """One evaluation, in one of the ways that there are."""
    x, way = numbers(rng), rng.integers(4)
    if way == 0:
        expect(program(x), x, factor)
    elif way == 1:
        out = anex.empty(SHAPE)
        expect(program(anex.tensor(x), out=out), x, factor)
    elif way == 2:
        expect(program.submit(x).result(STALLED), x, factor)
    else:
        several = [numbers(rng) for _ in range(5)]
        for given, future in [(each, program.submit(anex.tensor(each))) for each in several]:
            expect(future.result(STALLED), given, factor)


def on_one_program(seconds: float, **options: Any) -> int:
    """Evaluations of one program by all threads at once."""
    with anex.compile(graph(3), device="ane", **options) as program:

        def work(i: int, go_on: Callable[[], bool]) -> None:
            rng = np.random.default_rng(i)
            while go_on():
                call(program, rng, 3)

        return together(work, seconds)


def on_their_own(seconds: float, **options: Any) -> int:
    """Evaluations of a program by each thread; every other thread closes and compiles its own again and again.

    There is room for fewer programs than threads, so that some are unloaded for others meanwhile.
    """
    graphs = [graph(factor) for factor in range(THREADS)]

    def work(i: int, go_on: Callable[[], bool]) -> None:
        rng, chance = np.random.default_rng(i), random.Random(i)
        program = anex.compile(graphs[i], device="ane", **options)
        while go_on():
            call(program, rng, i)
            if i % 2 and chance.random() < 0.1:
                program.close()
                program = anex.compile(graphs[i], device="ane", recompile=chance.random() < 0.5, **options)
        program.close()

    account = _native.ane_account()
    _native.ane_set_limits(account["compile_limit"], THREADS - 2)
    try:
        return together(work, seconds)
    finally:
        _native.ane_set_limits(account["compile_limit"], account["load_limit"])


# ---- the command --------------------------------------------------------------------------------


@click.group()
def main() -> None:
    """Long runs on the stand-in, which compiles without limit."""
    os.environ[control.VARIABLE] = str(control.path())
    if reason := _native.ane_open():
        raise click.ClickException(reason)
    _native.ane_set_limits(0, _native.ane_account()["load_limit"])


@main.command("cycles")
@click.option("--n", default=20000)
@click.option("--warm", default=2000)
@click.option("--isolated", is_flag=True, help="In worker processes.")
@click.option("--growth", default=2 << 20, help="Bytes of resident memory that are no leak.")  # 100 a cycle
def run_cycles(n: int, warm: int, isolated: bool, growth: int) -> None:
    """Compile, run and close N times, and compare what the process holds before and after."""
    left = cycles(n, warm=warm, say=click.echo, isolate=isolated)
    click.echo(f"left: {left}")
    left.pop("mapped")
    if left.pop("resident") > growth or any(left.values()):
        raise click.ClickException("something is left")


@main.command("threads")
@click.option("--seconds", default=60.0)
@click.option("--isolated", is_flag=True, help="In worker processes.")
def run_threads(seconds: float, isolated: bool) -> None:
    """Eight threads on one program, then each on its own."""
    for work in (on_one_program, on_their_own):
        count = work(seconds, isolate=isolated)
        click.echo(f"{work.__name__}: {count} rounds in {seconds:g} s, every result right; {footprint()}")


if __name__ == "__main__":
    main()
