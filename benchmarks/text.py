"""Results for people: tables in the terminal."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from . import machine
from .results import Comparison, Result, Spread, spread

RATIOS = ("ratio", "quartiles", "at the limit", "goal")
UNITS = (("s", 1.0), ("ms", 1e-3), ("us", 1e-6))


def time_in_words(seconds: float) -> str:
    """Three digits: 1.23 ms."""
    unit, size = next((each for each in UNITS if seconds >= each[1]), UNITS[-1])
    return f"{three_digits(seconds / size)} {unit}"


def three_digits(value: float) -> str:
    return f"{value:.0f}" if value >= 99.95 else f"{value:.1f}" if value >= 9.995 else f"{value:.2f}"


def quartiles(found: Spread) -> str:
    return f"{three_digits(found.low)} to {three_digits(found.high)}"


def of_limit_in_words(result: Result, name: str) -> str:
    return ", ".join(f"{share.median:.0%} of {kind}" for kind, share in result.of_limit(name).items())


def goal_in_words(each: Comparison) -> str:
    goal = "" if each.goal is None else f"{each.goal:g}"
    return f"{goal} {each.verdict}".strip()


def most_in_words(each: Comparison) -> str:
    return f"{three_digits(each.most.median)}x" if each.most else ""


def against(each: Comparison, first: str) -> str:
    """Who is compared; ours is named where it is another than the case's first."""
    who = each.peer if each.ours == first else f"{each.peer} / {each.ours}"
    return who if each.of == "time" else f"{who}: {each.of}"


def limits_in_words(result: Result) -> str:
    parts = []
    for kind, rates in result.rates.items():
        text, unit = machine.KINDS[kind]
        parts.append(f"{kind} ({text}) {spread(rates).median / 1e9:.1f} G{unit}")
    return "; ".join(parts)


def state_in_words(result: Result) -> str:
    """What the two processors were while this was measured."""
    if not result.state:
        return "one processor"
    scaling, signal = (spread(result.state[name]).median for name in ("scaling", "signal"))
    return f"{machine.state_in_words(scaling)} (a second thread: x{scaling:.2f}; signal and back {signal * 1e9:.0f} ns)"


def columns(result: Result) -> list[str]:
    """What is told of each contender, beside its name."""
    found = ["median", "more than the first" if result.device == "double" else "of the limit"]
    return [*found, "peak memory"] if result.memory else found


def memory_in_words(result: Result, name: str) -> list[str]:
    """A cell, of cases that measure it."""
    found = result.memory.get(name)
    return [f"{spread(found).median / 2**20:.0f} MiB" if found else ""] if result.memory else []


def show(result: Result, console: Console) -> None:
    console.print(f"\n[bold]{result.case}[/]: {result.title}; {result.threads} thread(s), device {result.device}")
    table = Table(box=None, pad_edge=False, padding=(0, 2))
    double = result.device == "double"
    table.add_column("", no_wrap=True)
    for name in columns(result):
        table.add_column(name, justify="right", no_wrap=True)
    for name, seconds in result.seconds.items():
        last = of_limit_in_words(result, name)
        if double:
            more = result.more(name)
            last = f"{more.median * 1e6:.3f} us ({more.low * 1e6:.3f} to {more.high * 1e6:.3f})"
        table.add_row(name, time_in_words(spread(seconds).median), last, *memory_in_words(result, name))
    console.print(table)
    if comparisons := result.comparisons():
        table = Table(box=None, pad_edge=False, padding=(0, 2))
        for name in (f"time / {result.first}", *RATIOS):
            table.add_column(name, justify="left" if "/" in name else "right", no_wrap=True)
        for each in comparisons:
            ratio = (f"{three_digits(each.ratio.median)}x", quartiles(each.ratio)) if each.ratio else ("-", "")
            table.add_row(against(each, result.first), *ratio, most_in_words(each), goal_in_words(each))
        console.print(table)
        for each in comparisons:
            if each.why:
                console.print(f"{against(each, result.first)}: {each.why}", highlight=False)
    for name, why in result.left_out.items():
        console.print(f"left out: {name}: {why}", markup=False, highlight=False)
    if result.unchecked:
        console.print(f"answers not compared: {', '.join(result.unchecked)}")
    limits = limits_in_words(result)
    console.print(f"machine: {state_in_words(result)}{'; ' if limits else ''}{limits}", style="dim", highlight=False)
