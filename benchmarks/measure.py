"""One case from beginning to end: contenders built, answers held against ours, then rounds of turns."""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from .case import Case
from .processes import Inline, Player, Process, Refused, write_file
from .results import Result
from .runtimes import Found, runtime_of
from .turn import MACHINE

PAUSE = 0.05  # seconds before a turn, for what the one before left to the system

Start = Callable[[str], Player]


def in_processes(name: str, case: Case, *, threads: int, rounds: int, turn: float, folder: Path,
                 found: Found) -> Result:  # fmt: skip
    """Each contender in a process of its own. ``folder`` is kept from one number of threads to the next."""
    absent = {each: found.absent[runtime] for each in case.contenders if (runtime := runtime_of(each)) in found.absent}
    folder.mkdir(parents=True, exist_ok=True)
    for file, made in case.files.items():
        readers = [each for each in case.contenders if each not in absent and runtime_of(each) in made.readers]
        try:
            if readers:
                write_file(name, file, folder)
        except Refused as refused:
            absent |= dict.fromkeys(readers, str(refused))
    result = Result.of(name, case, threads, turn)
    result.left_out |= absent
    play(result, case, lambda each: Process(name, each, threads, folder, found), rounds)
    return result


def inline(name: str, case: Case, *, threads: int, rounds: int, turn: float, folder: Path,
           runtimes: Sequence[str]) -> Result:  # fmt: skip
    """All in this process, one after the other, of ``runtimes`` only: what tests can afford."""
    result = Result.of(name, case, threads, turn)
    absent = [each for each in case.contenders if runtime_of(each) not in runtimes]
    result.left_out |= {each: "not asked for" for each in absent}
    play(result, case, lambda each: Inline(case, each, threads, folder), rounds)
    return result


def play(result: Result, case: Case, start: Start, rounds: int) -> None:
    """Start everybody who is not left out, check them, and give them turns; fills in ``result``.

    Our own contender comes first, as without its answer nothing can be checked; the others are built two at a time.
    """
    result.date = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    names = [each for each in case.contenders if each not in result.left_out]
    players: dict[str, Player] = {}
    try:
        expected = None
        for first in range(0, len(names), 2):
            pair = names[first : first + 2]
            players |= {name: start(name) for name in pair}
            for name in pair:
                try:
                    answer = players[name].ready()
                except Refused as refused:
                    result.left_out[name] = str(refused)
                    continue
                if name == names[0]:
                    expected = answer
                if answer is None or expected is None:
                    result.unchecked.append(name)
                elif wrong := difference(answer, expected, case.tolerance):
                    result.left_out[name] = wrong
        players[MACHINE] = start(MACHINE)
        players[MACHINE].ready()
        for name in result.left_out:
            if name in players:
                players.pop(name).close()
        _rounds(result, players, rounds)
    finally:
        for player in players.values():
            player.close()


def _rounds(result: Result, players: dict[str, Player], rounds: int) -> None:
    """Turns in order, each round beginning with another one. Who fails on the way is left out from then on."""
    names = [name for name in players if name != MACHINE]
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for i in range(rounds):
        for name in (MACHINE, *names[i % len(names) :], *names[: i % len(names)]) if names else ():
            if name in result.left_out:
                continue
            time.sleep(PAUSE)
            try:
                said = players[name].turn(result.turn)
            except Refused as refused:
                result.left_out[name] = str(refused)
                continue
            if name != MACHINE:
                seconds[name].append(said["seconds"])
                if "memory" in said:
                    result.memory.setdefault(name, []).append(said["memory"])
                continue
            for found, kept in ((said["rates"], result.rates), (said["state"], result.state)):
                for kind, value in found.items():
                    if value is not None:
                        kept.setdefault(kind, []).append(value)
    result.seconds = {name: times for name, times in seconds.items() if name not in result.left_out}


def difference(answer: np.ndarray, expected: np.ndarray, tolerance: float) -> str:
    """What is wrong with an answer; "" if nothing is."""
    if answer.shape != expected.shape:
        return f"its answer has the shape {answer.shape}, ours {expected.shape}"
    most = float(np.abs(expected).max())
    worst = float(np.abs(answer - expected).max())
    if worst <= tolerance * most:  # false for NaN
        return ""
    return f"its answer differs from ours by {worst:.3g}, {worst / most:.1%} of the largest number in it"
