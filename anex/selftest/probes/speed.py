"""How long an evaluation takes: by the way it is sent, by its QoS, by the dtype. And what the device says of itself."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ... import _native
from ..probe import Answer, probe
from ..raw import Model, Refused, said
from ..text import Text, Word
from .binding import values

QOS = {0: "real time", 9: "background", 17: "utility", 21: "default", 25: "user initiated", 33: "user interactive"}


def small() -> Text:
    text = Text()
    text.input("x", 1, 64, 1, 64)
    text.op("y", (1, 64, 1, 64), "relu", x="x")
    return text


def microseconds(evaluate: Callable[[], Mapping[str, Any]], repeat: int = 50) -> float | str:
    """The median time inside the framework's method after five warm-ups, or what it said instead."""
    for _ in range(5):
        reply = evaluate()
        if not reply["yes"]:
            return said(reply)
    median: float = statistics.median(evaluate()["seconds"] for _ in range(repeat))
    return round(1e6 * median, 2)


@probe(
    "dispatch-ways",
    group="question",
    question="What does an evaluation cost by each way to send it?",
    MDX_FRG_INF="70 to 117 us by evaluateWithQoS, 106 direct (M4, M5)",
    LIB="413 and 401 us (M3)",
    MDX_INF2="real time gains nothing",
)
def dispatch_ways() -> Answer:
    with Model(small(), "y") as model:
        given, wanted, _ = model.start().bind({"x": values(1, 64, 1, 64)})
        found = {
            way: microseconds(lambda way=way: model.raw.evaluate(given, wanted, way=way))  # type: ignore[misc]
            for way in ("evaluate", "direct", "real_time")
        }
    works = [way for way, time in found.items() if not isinstance(time, str)]
    listed = ", ".join(f"{way}: {time}" + ("" if isinstance(time, str) else " us") for way, time in found.items())
    return Answer("+".join(works) or "none", f"Median of one evaluation: {listed}.", {"microseconds": found})


@probe(
    "real-time",
    group="rule",
    question="Does a real-time task begin?",
    MDX_INF="beginRealTimeTask says NO, though evaluateRealTime works",
)
def real_time() -> Answer:
    with Model(small(), "y") as model:
        given, wanted, _ = model.start().bind({"x": values(1, 64, 1, 64)})
        begun = model.raw.send("begin_real_time")
        reply = model.raw.evaluate(given, wanted, way="real_time")
        if begun["yes"]:
            model.raw.send("end_real_time")
    key = f"begin {'yes' if begun['yes'] else 'no'}, evaluate {'yes' if reply['yes'] else 'no'}"
    return Answer(key, f"beginRealTimeTask: {said(begun)}; evaluateRealTime: {said(reply)}.", {"evaluate": reply})


@probe(
    "qos-latency",
    group="question",
    question="Does the QoS change the time of an evaluation?",
    MDX="no, 0 to 63 succeed alike (M5)",
    M3P="background takes 143 us, default 248",
)
def qos_latency() -> Answer:
    with Model(small(), "y") as model:
        given, wanted, _ = model.start().bind({"x": values(1, 64, 1, 64)})
        found = {
            str(qos): microseconds(lambda qos=qos: model.raw.evaluate(given, wanted, qos=qos), 30)  # type: ignore[misc]
            for qos in (*QOS, 63)
        }
    times = [time for time in found.values() if not isinstance(time, str)]
    spread = max(times, default=0.0) / (min(times, default=0.0) or 1.0)
    key = "refused" if not times else "alike" if spread < 1.3 else "differs"
    return Answer(key, f"QoS {', '.join(f'{q}: {t}' for q, t in found.items())} (us).", {"microseconds": found})


def chain(layers: int, channels: int, size: int, quantized: bool) -> Text:
    """``layers`` 1x1 convs; ``quantized``: int8 weights, and activations that are int8 between the layers."""
    text = Text()
    text.input("x", 1, channels, size, size)
    shape, last = (1, channels, size, size), "x"
    for i in range(layers):
        weight = np.eye(channels, dtype="float16")[:, :, None, None]
        if quantized:
            scale = text.const(f"scale{i}", np.full((channels, 1, 1, 1), 0.5, "float16"))
            stored = text.const(f"stored{i}", (weight * 2).astype("int8"))
            name = text.op(f"w{i}", weight.shape, "constexpr_blockwise_shift_scale", data=stored, scale=scale)
        else:
            name = text.const(f"w{i}", weight)
        last = text.op(
            f"y{i}", shape, "conv", x=last, weight=name, strides=[1, 1], pad_type=Word("valid"), pad=[0, 0, 0, 0],
            dilations=[1, 1], groups=1,
        )  # fmt: skip
        if quantized and i < layers - 1:
            text.op(f"q{i}", shape, "quantize", of="int8", input=last, scale=0.125, output_dtype=Word("int8"))
            last = text.op(f"d{i}", shape, "dequantize", input=f"q{i}", scale=0.125)
    return text


@probe(
    "int8-speed",
    group="question",
    question="Are int8 weights and activations (W8A8) faster than float16?",
    Q38_S00="1.88 times on M4, 1.0 to 1.14 on M3 Pro; needs a width of 256",
)
def int8_speed() -> Answer:
    layers, channels, size = 8, 256, 16
    times: dict[str, float | str] = {}
    for name, quantized in (("float16", False), ("int8", True)):
        try:
            with Model(chain(layers, channels, size, quantized), f"y{layers - 1}") as model:
                given, wanted, _ = model.start().bind({"x": values(1, channels, size, size, scale=0.25)})
                times[name] = microseconds(lambda: model.raw.evaluate(given, wanted), 9)  # noqa: B023
        except Refused as refused:
            times[name] = str(refused)
    half, whole = times["float16"], times["int8"]
    if isinstance(half, str) or isinstance(whole, str):
        return Answer("refused", f"float16: {half}; int8: {whole}.", {"microseconds": times})
    ratio = half / whole if whole else 0.0
    key = "faster" if ratio > 1.2 else "alike" if ratio > 0.8 else "slower"
    verdict = f"{layers} convs of {channels} channels: float16 {half:g} us, int8 {whole:g} us, ratio {ratio:.2f}."
    return Answer(key, verdict, {"microseconds": times, "ratio": ratio})


@probe(
    "chip-family",
    group="question",
    question="Which architecture does the framework name on this chip?",
    FRG_M3P="h13g M1, h14g M2, h15g M3, h16g M4, h17s M5 Pro",
    MDX="an M5 is of the H16 family",
)
def chip_family() -> Answer:
    from ...doctor import machine

    device, here = _native.ane_device(), machine()
    architecture = device["architecture"]
    return Answer(
        architecture or "none",
        f"{here['chip']}: {architecture or 'no architecture'}, {device['anes']} engine(s), {device['cores']} cores.",
        {"device": device, "chip": here["chip"]},
    )


@probe(
    "qos-values",
    group="rule",
    question="Which numbers does the framework give its QoS classes?",
    M3P="0, 9, 17, 21, 25, 33",
)
def qos_values() -> Answer:
    from ...doctor import EXPECTED_QOS

    found = _native.ane_qos()
    as_said = found == EXPECTED_QOS
    verdict = f"The framework's QoS values are {'as published' if as_said else 'OTHER than published'}: {found}."
    return Answer("as published" if as_said else "otherwise", verdict, {"found": found, "expected": EXPECTED_QOS})
