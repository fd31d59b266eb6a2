"""The columns of a row of measurements: other spellings, other units, and what can be read from its text."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from .work import MIB, PATHS, SCHEMES

LARGEST = 1e9  # of any column

# Other names of a column, and the factor to its unit.
ALIASES: dict[str, tuple[str, float]] = {
    **dict.fromkeys(("latency_ms", "time_ms", "median_ms", "ms/eval", "ms_per_eval", "latency"), ("ms", 1.0)),
    **dict.fromkeys(("us", "latency_us", "time_us", "µs"), ("ms", 1e-3)),
    **dict.fromkeys(("s", "seconds", "time_s", "latency_s"), ("ms", 1e3)),
    **dict.fromkeys(("weights_mb", "weight_mib", "weights_mib", "w(mb)", "w (mb)", "weight(mb)"), ("weight_mb", 1.0)),
    **dict.fromkeys(("weight_kb", "weights_kb", "weight_kib"), ("weight_mb", 1 / 1024)),
    **dict.fromkeys(("weight_bytes", "weights_bytes"), ("weight_mb", 1 / MIB)),
    **dict.fromkeys(("weight_gb", "weights_gb"), ("weight_mb", 1024.0)),
    **dict.fromkeys(("act_mib", "act(mb)", "activation_mb", "activations_mb"), ("act_mb", 1.0)),
    **dict.fromkeys(("act_kb", "act_kib", "activation_kb"), ("act_mb", 1 / 1024)),
    **dict.fromkeys(("act_bytes", "activation_bytes"), ("act_mb", 1 / MIB)),
    **dict.fromkeys(("gop", "gflop_per_call"), ("gflop", 1.0)),
    **dict.fromkeys(("flop", "flops"), ("gflop", 1e-9)),
    "mflop": ("gflop", 1e-3),
    "tflop": ("gflop", 1e3),
    "tops": ("tflops", 1.0),
    **dict.fromkeys(("in_channels", "cin", "c_in", "channels", "ch"), ("in_ch", 1.0)),
    **dict.fromkeys(("out_channels", "cout", "c_out"), ("out_ch", 1.0)),
    **dict.fromkeys(("h",), ("height", 1.0)),
    **dict.fromkeys(("w", "sp", "spatial", "seq", "seq_len", "tokens"), ("width", 1.0)),
    **dict.fromkeys(("layers", "n_layers"), ("depth", 1.0)),
    **dict.fromkeys(("kernel_size", "k"), ("kernel", 1.0)),
    **dict.fromkeys(("batch_size", "b"), ("batch", 1.0)),
    **dict.fromkeys(("precision", "data_type"), ("dtype", 1.0)),
    **dict.fromkeys(("macos", "os_version"), ("os", 1.0)),
    **dict.fromkeys(("machine", "soc", "chip_name"), ("chip", 1.0)),
    **dict.fromkeys(("kind", "benchmark", "test"), ("workload", 1.0)),
    **dict.fromkeys(("notes", "comment", "config"), ("note", 1.0)),
    "id": ("row_id", 1.0),
}
# Units that may stand behind a number, and the factor to the column's own.
_TIME = {"ms": 1.0, "us": 1e-3, "µs": 1e-3, "μs": 1e-3, "ns": 1e-6, "s": 1e3, "sec": 1e3}
_SIZE = {"mb": 1.0, "mib": 1.0, "kb": 1 / 1024, "kib": 1 / 1024, "b": 1 / MIB, "bytes": 1 / MIB, "gb": 1024.0,
         "gib": 1024.0}  # fmt: skip
_WORK = {"gflop": 1.0, "gflops": 1.0, "gop": 1.0, "mflop": 1e-3, "tflop": 1e3, "flop": 1e-9}
UNITS: dict[str, dict[str, float]] = {
    "ms": _TIME, "weight_mb": _SIZE, "act_mb": _SIZE, "gflop": _WORK, "tflops": {"tflops": 1.0, "tops": 1.0},
    "in_ch": {"ch": 1.0}, "out_ch": {"ch": 1.0}, "width": {"sp": 1.0, "tokens": 1.0},
    "depth": {"x": 1.0, "layers": 1.0},
}  # fmt: skip
_NUMBER = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(e[+-]?\d+)?\s*([^\d\s.,+-][^\d\s]*)?", re.IGNORECASE)

PATH_NAMES = {
    **dict.fromkeys(("private", "_aneclient", "aneclient", "inmemory", "inmem", "direct", "ane", "memory"), "private"),
    **dict.fromkeys(("e5rt", "espresso", "aneforge", "e5"), "e5rt"),
    **dict.fromkeys(("coreml", "mlpackage", "mlmodel", "mlmodelc", "mlprogram"), "coreml"),
}
SCHEME_NAMES = {
    **dict.fromkeys(("fp16", "float16", "f16", "half", "fp32", "float32", "f32", "fp16fp32", "w16", "w16a16"), "fp16"),
    **dict.fromkeys(("w8", "int8", "i8", "w8a16", "int8weights", "mixedint4", "mixedauto"), "w8"),
    **dict.fromkeys(("w8a8", "int8w8a8", "a8w8"), "w8a8"),
    **dict.fromkeys(("int4lut", "int4", "uint4", "w4", "w4a16", "lut4", "palette4", "mixedint4forced"), "int4lut"),
    **dict.fromkeys(("lut6", "w6", "palette6"), "lut6"),
    "sparse": "sparse",
}


class CannotPrice(ValueError):
    """Why a row has no prediction, in words."""


def _plain(text: str) -> str:
    return re.sub(r"[^a-z0-9]", "", text.lower())


def normal(line: Mapping[str, str]) -> dict[str, str]:
    """The line under the columns' own names and units; a column that is there under its own name wins."""
    found = {name.strip().lower(): (value or "").strip() for name, value in line.items()}
    for name, value in list(found.items()):
        if name in ALIASES and value and not found.get(ALIASES[name][0]):
            own, factor = ALIASES[name]
            amount = number(value, own) if factor != 1 else None
            found[own] = value if amount is None else repr(amount * factor)
    _from_text(found)
    return found


def _from_text(line: dict[str, str]) -> None:
    """Sizes that only the note has: "C=96 S=1024 K=7", "128x conv 512ch 64x64", "conv 512ch sp64"."""
    note = line.get("note", "")
    if line.get("in_ch") or not note:
        return
    marks = (
        ("depth", r"\b(\d+)x\s*conv"), ("in_ch", r"\b(\d+)\s*ch\b"), ("in_ch", r"\bC=(\d+)"), ("kernel", r"\bK=(\d+)"),
        ("width", r"\bsp(\d+)\b"), ("width", r"\bx\s*(\d+)\s*sp\b"), ("width", r"\bS=(\d+)"),
        ("height", r"\s(\d+)x\d+\s*$"), ("width", r"\s\d+x(\d+)\s*$"),
    )  # fmt: skip
    # the note alone says in_ch, so what the columns have beside it is the default of whoever wrote the file
    for name, pattern in marks:
        if match := re.search(pattern, note):
            line[name] = match[1]


def number(text: str | None, column: str = "") -> float | None:
    """What the text says in the unit of the column, or None: "0.4 ms", "400us", "1,024", "64 MB"."""
    match = _NUMBER.fullmatch((text or "").strip().replace(",", "").replace("_", ""))
    if match is None:
        return None
    unit = (match[3] or "").lower()
    factor = 1.0 if not unit else UNITS.get(column, {}).get(unit)
    if factor is None:
        return None
    found = float(match[1] + (match[2] or "")) * factor
    return found if math.isfinite(found) else None


def path_of(line: Mapping[str, str]) -> str:
    name = line.get("path") or "private"
    found = PATH_NAMES.get(_plain(name))
    if found is None:
        raise CannotPrice(f"path {name!r} is none of {', '.join(PATHS)}")
    return found


def milliseconds(line: Mapping[str, str]) -> float | None:
    """The measured time; of a row that has only a rate, derived from its work."""
    found = number(line.get("ms"), "ms")
    if found is None:
        work, rate = number(line.get("gflop"), "gflop"), number(line.get("tflops"), "tflops")
        found = work / rate if work and rate else None
    return found or None


class Sizes:
    """The columns as numbers; what is missing is derived from the others, or is an error that names it."""

    def __init__(self, line: Mapping[str, str]) -> None:
        self.line = line
        for name in ("depth", "in_ch", "out_ch", "height", "width", "batch", "weight_mb", "act_mb", "gflop"):
            if (number(line.get(name), name) or 0) > LARGEST:
                raise CannotPrice(f"column {name} is {line[name]}, beyond anything an engine takes")
        self.path = path_of(line)
        self.kernel = int(self.or_else("kernel", 1)) or 1
        for text in (line.get("kernel", ""), line.get("op", "")):  # 3x3, conv3x3
            if found := re.search(r"(\d+)x\d+", text):
                self.kernel = int(found[1])
        self.depth = max(1, int(self.or_else("depth", 1)))
        self.batch = max(1.0, self.or_else("batch", 1))
        scheme = line.get("dtype") or "fp16"
        self.scheme = SCHEME_NAMES.get(_plain(scheme), "")
        if self.scheme not in SCHEMES:
            raise CannotPrice(f"dtype {scheme!r} is none of {', '.join(SCHEMES)}")

    @property
    def note(self) -> str:
        return self.line.get("note", "")

    def optional(self, name: str) -> float | None:
        return number(self.line.get(name), name)

    def or_else(self, name: str, otherwise: float) -> float:
        found = self.optional(name)
        return otherwise if found is None else found

    def need(self, name: str) -> float:
        found = self.optional(name)
        if found is None or found <= 0:
            raise CannotPrice(f"column {name} is missing")
        return found

    @property
    def channels(self) -> tuple[int, int]:
        into = self.need("in_ch")
        return int(into), int(self.or_else("out_ch", into) or into)

    @property
    def positions(self) -> float:
        return max(1.0, self.or_else("height", 1) or 1) * self.need("width") * self.batch

    @property
    def in_bytes(self) -> float:
        found = self.optional("act_mb")
        return found * MIB if found else 2 * self.channels[0] * self.positions

    def flops(self, otherwise: float) -> float:
        found = self.optional("gflop")
        return found * 1e9 if found else otherwise

    def weights(self, parameters: float) -> float:
        """Bytes as stored."""
        found = self.optional("weight_mb")
        return found * MIB if found else parameters * stored(self.scheme)


def stored(scheme: str) -> float:
    """Bytes of one weight."""
    return {"fp16": 2, "w8": 1, "w8a8": 1, "int4lut": 0.5, "lut6": 0.75, "sparse": 0.75}[scheme]
