"""How inputs and outputs reach a program: order, sizes, layout, several functions, other buffers."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..compare import compare
from ..probe import Answer, probe
from ..raw import Model, Refused, judged, said
from ..text import Text


def values(*shape: int, scale: float = 1.0) -> np.ndarray:
    """Small whole numbers, the same at each call: every sum of them is exact in float16."""
    return np.asarray((np.arange(np.prod(shape)) % 17 - 8).reshape(shape).astype("float16") * np.float16(scale))


def add_relu(first: str, second: str, one: str, other: str, widths: tuple[int, int] = (64, 64)) -> Text:
    """Two inputs declared as ``first``, ``second``; outputs ``one`` = abs(first), ``other`` = relu(second)."""
    text = Text()
    text.input(first, 1, 32, 1, widths[0])
    text.input(second, 1, 32, 1, widths[1])
    text.op(one, (1, 32, 1, widths[0]), "abs", x=first)
    text.op(other, (1, 32, 1, widths[1]), "relu", x=second)
    return text


@probe(
    "symbol-order",
    group="question",
    question="In which order does a loaded program bind its inputs and outputs?",
    ORI_H3_Q38="by name in ASCII order, whatever the signature says",
    MDX="several inputs fail with status 0x1D",
)
def symbol_order() -> Answer:
    text = add_relu("zeta", "Alpha", "omega", "Beta")
    with Model(text, "omega", "Beta") as model:
        model.start()
        inputs, outputs = model.symbols()
        names = [each.name for each in inputs], [each.name for each in outputs]
        arrays = {"zeta": values(1, 32, 1, 64), "Alpha": values(1, 32, 1, 64, scale=-2)}
        found = model.run(arrays)
    wanted = {"omega": np.abs(arrays["zeta"]), "Beta": np.maximum(arrays["Alpha"], 0)}
    right = all(compare(found[name], wanted[name])["relative"] == 0 for name in wanted)
    data = {"declared": ["zeta", "Alpha", "omega", "Beta"], "inputs": names[0], "outputs": names[1], "right": right}
    order = {(True, True): "ascii", (False, False): "declared"}.get(
        (names[0] == sorted(names[0]), names[1] == sorted(names[1])), "mixed"
    )
    how = "right" if right else "WRONG"
    return Answer(
        order, f"The tables list inputs {names[0]} and outputs {names[1]}; bound by them, results are {how}.", data
    )


@probe(
    "unequal-sizes",
    group="question",
    question="May inputs and outputs have surfaces of different sizes?",
    ORI_M3P="no, all inputs (outputs) must be allocated alike",
    H3_CGT="yes, when bound in the order of the symbols",
)
def unequal_sizes() -> Answer:
    text = add_relu("a", "b", "c", "d", widths=(64, 256))
    arrays = {"a": values(1, 32, 1, 64), "b": values(1, 32, 1, 256)}
    result = judged(text, arrays, 0.0, c=np.abs(arrays["a"]), d=np.maximum(arrays["b"], 0))
    if result["status"] == "right":
        return Answer("yes", "Inputs of 4,096 and 16,384 bytes evaluate, and results are right.", result)
    largest = _with_equal_surfaces(text, arrays)
    return Answer("no", f"Exact sizes are {result['status']}; with equal surfaces it is {largest}.", result)


def _with_equal_surfaces(text: Text, arrays: dict[str, np.ndarray]) -> str:
    again = add_relu("a", "b", "c", "d", widths=(64, 256))
    try:
        with Model(again, "c", "d") as model:
            model.start()
            size = max(each.bytes for side in model.symbols() for each in side)
            given, wanted, _ = model.bind(arrays, size=size)
            return said(model.raw.evaluate(given, wanted))
    except Refused as refused:
        return str(refused)


@probe(
    "surface-floor",
    group="question",
    question="How small may the surface of a small tensor be?",
    ORI_MDX="49,152 bytes at least",
    TRN="2,048 bytes work",
    H3_Q38="BatchStride of the load reply, from rows of 64 bytes",
)
def surface_floor() -> Answer:
    """[1, 768, 1, 1] needs 49,152 bytes by rows of 64; [1, 16, 1, 1] would need 1,024 then."""
    found: dict[str, Any] = {}
    for channels in (16, 768):
        text = Text()
        text.input("x", 1, channels, 1, 1)
        text.op("y", (1, channels, 1, 1), "abs", x="x")
        with Model(text, "y") as model:
            model.start()
            (symbol,), _ = model.symbols()
            array = values(1, channels, 1, 1)
            sizes, allocated = {}, {}
            for size in sorted({symbol.bytes, symbol.bytes // 2, 49152, channels * 2}):
                given, wanted, outputs = model.bind({"x": array}, size=size)
                reply = model.raw.evaluate(given, wanted)
                sizes[size] = said(reply)
                allocated[size] = len(wanted[0][0].read())  # the system may round up, and the hardware look at that
                if reply["yes"] and size >= symbol.bytes:
                    right = bool((model.read(wanted[0][0], outputs[0]) == np.abs(array)).all())
                    sizes[size] = "right" if right else "wrong"
            found[str(channels)] = {
                "row": symbol.row,
                "bytes": symbol.bytes,
                "evaluated": sizes,
                "allocated": allocated,
            }
    small = found["16"]
    floor = "none" if small["evaluated"][small["bytes"]] == "right" else "larger"
    return Answer(
        f"rows-of-{small['row']}, floor {floor}",
        f"[1,16,1,1] asks for {small['bytes']} bytes in rows of {small['row']}, and evaluates with them: "
        f"{small['evaluated'][small['bytes']]}; [1,768,1,1] asks for {found['768']['bytes']}.",
        found,
    )


@probe(
    "narrow-rows",
    group="question",
    question="Is a tensor narrower than 64 bytes read in padded rows, or packed?",
    MDX_LMC_EIL_M3P="rows are padded to 64 bytes",
    ORI="a larger surface is read packed from byte 0",
    CGT="fewer than 64 columns are refused",
)
def narrow_rows() -> Answer:
    found = {}
    for width in (1, 4, 16, 48):
        text = Text()
        text.input("x", 1, 8, 4, width)
        text.op("y", (1, 8, 4, width), "relu", x="x")
        array = values(1, 8, 4, width)
        found[width] = judged(text, {"x": array}, 0.0, y=np.maximum(array, 0))["status"]
    right = all(status == "right" for status in found.values())
    listed = ", ".join(f"W={width}: {status}" for width, status in found.items())
    return Answer("padded" if right else "otherwise", f"Rows laid out by RowStride: {listed}.", {"by_width": found})


@probe(
    "nil-weights",
    group="question",
    question="What becomes of nil in place of the weights of a program without any?",
    TRN="the descriptor is nil",
    CRN_INF="they pass nil, and it works",
    ORI="it crashes",
    alone=True,
)
def nil_weights() -> Answer:
    text = Text()
    text.input("x", 1, 32, 1, 32)
    text.op("y", (1, 32, 1, 32), "relu", x="x")
    try:
        with Model(text, "y", nil_weights=True) as model:
            model.start()
    except Refused as refused:
        key = "nil" if refused.stage == "descriptor" else refused.stage
        return Answer(key, f"With nil weights: {refused}.", {"stage": refused.stage})
    return Answer("works", "With nil weights the program compiles and loads.", {})


@probe(
    "several-functions",
    group="rule",
    question="Do programs of several functions run, each by its procedure index?",
    INF_Q38_RST="yes, up to 128; procedure N uses the symbols listed for N",
)
def several_functions() -> Answer:
    text = Text()
    for i, op in enumerate(("relu", "abs")):
        text.input(f"x{i}", 1, 32, 1, 32)
        text.op(f"y{i}", (1, 32, 1, 32), op, x=f"x{i}")
        text.end(f"y{i}", function=f"layer{i}")
    array = values(1, 32, 1, 32)
    with Model(text) as model:
        model.start()
        found = [model.run({f"x{i}": array}, i)[f"y{i}"] for i in (0, 1)]
    right = bool((found[0] == np.maximum(array, 0)).all() and (found[1] == np.abs(array)).all())
    return Answer(
        "yes" if right else "wrong", f"Two functions in one program give {'right' if right else 'WRONG'} results."
    )


@probe(
    "procedure-index",
    group="rule",
    question="Is a procedure index that the program does not have refused?",
    MDX="0 to 15 succeed for one procedure",
    INF="status 0x2",
)
def procedure_index() -> Answer:
    text = Text()
    text.input("x", 1, 32, 1, 32)
    text.op("y", (1, 32, 1, 32), "relu", x="x")
    with Model(text, "y") as model:
        given, wanted, _ = model.start().bind({"x": values(1, 32, 1, 32)})
        replies = {str(i): said(model.raw.evaluate(given, wanted, procedure=i)) for i in (0, 1, 15, 129)}
    refused = [i for i, reply in replies.items() if reply != "YES"]
    return Answer(
        "checked" if "1" in refused else "ignored", f"Refused indices: {', '.join(refused) or 'none'}.", replies
    )


@probe(
    "small-surface",
    group="rule",
    question="What does an evaluation say whose surface is too small?",
    H3_Q38="status 0x1D, from macOS 27 code 42",
)
def small_surface() -> Answer:
    text = Text()
    text.input("x", 1, 64, 8, 64)
    text.op("y", (1, 64, 8, 64), "relu", x="x")
    with Model(text, "y") as model:
        given, wanted, _ = model.start().bind({"x": values(1, 64, 8, 64)}, size=16384)
        reply = model.raw.evaluate(given, wanted)
    return Answer(
        "accepted" if reply["yes"] else f"code {reply['code']}",
        f"65,536 bytes wanted, 16,384 given: {said(reply)}.",
        reply,
    )


@probe(
    "weights-buffer",
    group="rule",
    question="Does a weights buffer replace baked constants?",
    MDX="no, it is accepted and ignored",
)
def weights_buffer() -> Answer:
    from ... import _native

    text = Text()
    text.input("x", 1, 32, 1, 32)
    text.const("w", np.full((1, 32, 1, 32), 3, "float16"))
    text.op("y", (1, 32, 1, 32), "mul", x="x", y="w")
    array = values(1, 32, 1, 32)
    with Model(text, "y") as model:
        given, wanted, symbols = model.start().bind({"x": array})
        buffer = _native.AneSurface(49152)
        buffer.write(np.full(24576, 5, "float16").tobytes())
        reply = model.raw.evaluate(given, wanted, weights=buffer)
        found = model.read(wanted[0][0], symbols[0])
    if not reply["yes"]:
        return Answer("refused", f"A weights buffer is refused: {said(reply)}.", reply)
    ignored = bool((found == array * np.float16(3)).all())
    return Answer("ignored" if ignored else "used", f"A weights buffer is {'ignored' if ignored else 'USED'}.")


@probe(
    "map-surfaces",
    group="rule",
    question="Can the surfaces of an in-memory program be mapped ahead of its evaluations?",
    LIB_INF="no, code 13 (0x12); it is not needed",
)
def map_surfaces() -> Answer:
    text = Text()
    text.input("x", 1, 32, 1, 32)
    text.op("y", (1, 32, 1, 32), "relu", x="x")
    with Model(text, "y") as model:
        given, wanted, _ = model.start().bind({"x": values(1, 32, 1, 32)})
        reply = model.raw.evaluate(given, wanted, way="map")
    return Answer(
        "yes" if reply["yes"] else f"code {reply['code']}", f"mapIOSurfacesWithRequest: {said(reply)}.", reply
    )


@probe(
    "chaining",
    group="rule",
    question="Can programs be chained by _ANEChainingRequest?",
    MDX_LIB_INF="no, code 15",
    FRG="an entitlement is missing",
    alone=True,
)
def chaining() -> Answer:
    from ... import _native

    text = Text()
    text.input("x", 1, 32, 1, 32)
    text.op("y", (1, 32, 1, 32), "relu", x="x")
    with Model(text, "y") as model:
        given, wanted, _ = model.start().bind({"x": values(1, 32, 1, 32)})
        reply = model.raw.evaluate(given, wanted, weights=_native.AneSurface(4096), chain=True)
    return Answer("yes" if reply["yes"] else f"code {reply['code']}", f"prepareChaining: {said(reply)}.", reply)
