"""How long things live: weights that are baked, programs that are cached, what a process may compile and load."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from ..probe import Answer, probe
from ..raw import Model, Refused, said
from ..text import WEIGHTS, Text
from .binding import values

MOST = 140  # above every limit that a source names


def scaled(factor: float, salt: int = 0) -> Text:
    """y = factor * x, with the factors in the weight file; ``salt`` makes the content another one."""
    text = Text()
    text.input("x", 1, 32, 1, 32)
    factors = np.full((1, 32, 1, 32), factor, "float16")
    factors[0, 0, 0, :2] = divmod(salt, 97)
    text.const("w", factors)
    text.op("y", (1, 32, 1, 32), "mul", x="x", y="w")
    return text


def factor_of(model: Model) -> float:
    """By which the loaded program multiplies."""
    array = np.ones((1, 32, 1, 32), "float16")
    return float(model.run({"x": array})["y"][0, 5, 0, 5])


@probe(
    "weight-reload",
    group="question",
    question="Do new weight files take effect after unload and load?",
    MDX_LIB="no, the program keeps the weights it was compiled with",
    ORI="yes",
    alone=True,
)
def weight_reload() -> Answer:
    old, new = scaled(2.0, salt=9001), scaled(3.0, salt=9001)
    ms: dict[str, float] = {}

    def timed(name: str, message: str) -> None:
        begun = time.perf_counter()
        model.must(message)
        ms[f"{name}_ms"] = 1e3 * (time.perf_counter() - begun)

    with Model(old, "y") as model:
        model.write_files()
        timed("compile", "compile")
        model.must("load")
        before = factor_of(model)
        timed("unload", "unload")
        model.write_files()
        model.write(Path(model.raw.state()["folder"]) / WEIGHTS.removeprefix("@model_path/"), new.blob)
        timed("reload", "load")
        after = factor_of(model)
    key = {2.0: "baked", 3.0: "reloaded"}.get(after, "neither")
    return Answer(
        key, f"Compiled with factor {before:g}, file overwritten with 3, reloaded: factor {after:g}.",
        {"before": before, "after": after, **ms},
    )  # fmt: skip


@probe(
    "load-without-compile",
    group="question",
    question="Does a program that was never compiled load from its files alone?",
    ORI="yes: new weights without a compilation",
    alone=True,
)
def load_without_compile() -> Answer:
    try:
        with Model(scaled(5.0, salt=9002), "y") as model:
            model.raw.send("purge")
            model.write_files()
            (files := _net_files(model))
            model.must("load")
            found = factor_of(model)
    except Refused as refused:
        return Answer("no", f"Not compiled, files written: {refused}.", {"stage": refused.stage})
    return Answer("yes", f"It loads, and multiplies by {found:g} (5 is right).", {"factor": found, "files": files})


def _net_files(model: Model) -> list[str]:
    """The names under which the framework itself would save them."""
    folder = Path(model.raw.state()["folder"])
    model.write(folder / "net.plist", model.mil)
    model.write(folder / "data", next(iter(model.text.blobs.values())))
    return sorted(path.name for path in folder.iterdir())


@probe(
    "compiled-cache",
    group="question",
    question="Does a second model of equal content find the first one's compilation?",
    LMC_Q38="yes, across processes too",
    FRG="its own bundles are per process",
    alone=True,
)
def compiled_cache() -> Answer:
    with Model(scaled(2.0, salt=9003), "y") as first:
        first.raw.send("purge")
        before = first.raw.send("exists")["yes"]
        first.start()
        with Model(scaled(2.0, salt=9003), "y") as second:
            same = first.raw.state()["identifier"] == second.raw.state()["identifier"]
            after = second.raw.send("exists")["yes"]
            loaded = second.raw.send("load")
            right = loaded["yes"] and factor_of(second) == 2.0
    data = {"before": before, "same_identifier": same, "exists": after, "load": said(loaded), "right": right}
    key = "shared" if same and after and right else "not shared"
    return Answer(
        key,
        f"Equal content: identifier {'equal' if same else 'NOT equal'}, load without compiling: {said(loaded)}.",
        data,
    )


def _until_no(count: int, act: Any) -> tuple[int, str]:
    """How often ``act(i)`` succeeded, and what it said when it did not."""
    for i in range(count):
        reply = act(i)
        if not reply["yes"]:
            return i, said(reply)
    return count, ""


@probe(
    "compile-limit",
    group="question",
    question="How many programs can one process compile?",
    MDX_ORI_M3P="about 119, then NO without an error; unloading gives nothing back",
    FRG="there is no such limit, but about 128 programs can be loaded",
    alone=True,
)
def compile_limit() -> Answer:
    def act(i: int) -> Any:
        with Model(scaled(1.0, salt=i), "y") as model:
            model.raw.send("purge")
            model.write_files()
            reply = model.raw.send("compile")
            model.raw.send("purge")
            return reply

    count, why = _until_no(MOST, act)
    if not why:
        return Answer("none", f"{MOST} programs compiled one after the other; no limit was met.", {"compiled": count})
    return Answer(str(count), f"{count} programs compiled; the next one: {why}.", {"compiled": count, "said": why})


@probe(
    "load-limit",
    group="question",
    question="How many programs can be loaded at once?",
    FRG="about 128 in a process, and releasing one makes room",
    alone=True,
)
def load_limit() -> Answer:
    """One compilation, loaded again and again: the limit of compilations is not in the way."""
    with ExitStack() as stack:
        models = _models(stack)

        def act(_: int) -> Any:
            model = next(models)
            model.write_files()
            return (
                model.raw.send("load")
                if model.raw.send("exists")["yes"]
                else model.raw.send("compile") | {"yes": False}
            )

        first = next(models).start()
        count, why = _until_no(MOST - 1, act)
        count += 1
        if not why:
            return Answer("none", f"{count} models loaded at once; no limit was met.", {"loaded": count})
        first.must("unload")
        model = next(models)
        model.write_files()
        freed = model.raw.send("load")["yes"]
    data = {"loaded": count, "said": why, "freed": freed}
    gives = "makes room" if freed else "makes NO room"
    return Answer(str(count), f"{count} models loaded at once; the next one: {why}; unloading one {gives}.", data)


def _models(stack: ExitStack) -> Iterator[Model]:
    while True:
        yield stack.enter_context(Model(scaled(2.0, salt=9004), "y"))


@probe(
    "after-unload",
    group="question",
    question="What does an evaluation of an unloaded program say?",
    nobody="not published",
    alone=True,
)
def after_unload() -> Answer:
    with Model(scaled(2.0, salt=9005), "y") as model:
        given, wanted, _ = model.start().bind({"x": values(1, 32, 1, 32)})
        model.must("unload")
        reply = model.raw.evaluate(given, wanted)
    key = "accepted" if reply["yes"] else f"code {reply['code']}" if reply["domain"] else "silent"
    return Answer(key, f"Evaluate after unload: {said(reply)}.", reply)


@probe(
    "loaded-state",
    group="question",
    question="What do the handles and the queue say after a load?",
    INF_LIB="state 3, queue depth 127, no intermediate buffer handle",
)
def loaded_state() -> Answer:
    with Model(scaled(2.0, salt=9006), "y") as model:
        before = model.raw.state()
        after = model.start().raw.state()
    names = ("state", "queue_depth", "program_handle", "intermediate_buffer_handle")
    data = {name: [before[name], after[name]] for name in names}
    data["identifier"] = after["identifier"]
    as_said = after["state"] == 3 and after["queue_depth"] == 127 and after["program_handle"] != 0
    verdict = (
        f"After load: state {after['state']}, queue depth {after['queue_depth']}, handle {after['program_handle']}."
    )
    return Answer("as published" if as_said else "otherwise", verdict, data)
