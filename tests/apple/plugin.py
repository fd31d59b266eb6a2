"""Apple's own operator tests, run on anex: a pytest plugin that stands in for Core ML.

    make apple EVERY=10

coremltools predicts through one class, ``_MLModelProxy``, which only its macOS wheel has. ``Engine``
takes its place and the gates that ask for macOS are opened; coremltools' files stay as they are. Only
ML programs count: the cases of the older neural networks are left out. What anex refuses in so many
words (``UnsupportedError``) is reported as xfailed, with a table of reasons at the end.
"""

from __future__ import annotations

import os
import random
import re
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

os.environ.setdefault("PYMIL_TEST_TARGETS", "mlprogram")
os.environ.setdefault("INCLUDE_MIL_FP32_UNIT_TESTS", "1")  # their fp16 tolerance is 0.5: fp32 is the sharper half

import coremltools as ct
import numpy as np
import pytest

import anex
from anex.load import from_model

MACOS = (15, 5)
refusals: Counter[str] = Counter()


class Engine:
    """What ``MLModel`` asks of Core ML, asked of anex: a model package, loaded and run."""

    @staticmethod
    def maximum_supported_specification_version() -> int:
        return int(max(ct._SPECIFICATION_VERSION_IOS_18, 9))

    def __init__(self, path: str, units: str, function: str, hints: dict[str, str], asset: Any) -> None:
        self.path, self.function = path, function or None
        self.model = ct.utils.load_spec(path)
        self.converted: Any = None  # with --direct: the MIL program that ct.convert made
        self.compiled: dict[tuple[Any, ...], anex.Program] = {}

    def predict(self, data: dict[str, Any], state: State | None = None) -> dict[str, np.ndarray]:
        arrays = {name: pixels(value, self.feature(name)) for name, value in data.items()}
        for name, array in arrays.items():
            refuse_size(array.shape, self.feature(name))
        for feature in self.model.description.input:
            if feature.name not in arrays and feature.type.isOptional:
                arrays[feature.name] = default(feature)
        program = self.program({name: array.shape for name, array in arrays.items()})
        missing = [name for name in program.inputs if name not in arrays]
        if missing:
            raise RuntimeError(f"no value for the input(s) {', '.join(missing)}")
        given = {name: np.ascontiguousarray(arrays[name], spec.dtype) for name, spec in program.inputs.items()}
        try:
            results = program(**given, state=state and state.tensors)
        except anex.ArgumentError as error:  # what only the data can show, such as an index out of range
            raise RuntimeError(f"Unable to compute the prediction using ML Program: {error}") from error
        results = results if isinstance(results, tuple) else (results,)
        kinds = {feature.name: feature.type for feature in self.model.description.output}
        named = zip(program.outputs, results, strict=True)
        return {name: picture(np.array(value, ndmin=1), kinds.get(name)) for name, value in named}

    def batchPredict(self, batch: list[dict[str, Any]]) -> list[dict[str, np.ndarray]]:  # noqa: N802
        return [self.predict(data) for data in batch]

    def newState(self) -> State:  # noqa: N802
        shapes = {feature.name: tuple(feature.type.multiArrayType.shape) for feature in self.model.description.input}
        return State(self.program(shapes).make_state())

    def feature(self, name: str) -> Any:
        return next((feature for feature in self.model.description.input if feature.name == name), None)

    def program(self, shapes: dict[str, tuple[int, ...]]) -> anex.Program:
        """The model compiled for inputs of these shapes."""
        key = tuple(sorted(shapes.items()))
        if key not in self.compiled:
            model = type(self.model).FromString(self.model.SerializeToString())
            for function in model.mlProgram.functions.values():
                specialise(function, shapes)
            package = ct.libmodelpackage.ModelPackage(self.path) if os.path.isdir(self.path) else None
            folder = Path(package.getRootModel().path()).parent if package else Path(tempfile.gettempdir())
            loaded = self.converted if is_static(self.converted) else None
            if loaded is None:
                loaded = from_model(model.SerializeToString(), folder, self.path, self.function)
            self.compiled[key] = anex.compile(loaded, device="cpu")
        return self.compiled[key]


class State:
    """What ``MLState`` is: a program's state, read and written by name."""

    def __init__(self, state: anex.State) -> None:
        self.tensors = state

    def read_state(self, name: str) -> np.ndarray:
        return np.array(self.tensors[name])

    def write_state(self, name: str, value: np.ndarray) -> None:
        self.tensors[name][...] = value


def is_static(program: Any) -> bool:
    """Whether it is one function whose inputs have fixed shapes."""
    if program is None or list(program.functions) != ["main"]:
        return False
    return all(isinstance(dim, (int, np.integer)) for var in program["main"].inputs.values() for dim in var.shape)


def specialise(function: Any, shapes: dict[str, tuple[int, ...]]) -> None:
    """Give inputs of flexible shape the shape they have in this call: anex compiles one program a size."""
    for item in function.inputs:
        dimensions = item.type.tensorType.dimensions
        if item.name in shapes and any(dim.WhichOneof("dimension") == "unknown" for dim in dimensions):
            for dim, size in zip(dimensions, shapes[item.name], strict=True):
                dim.constant.size = size


def pixels(value: Any, feature: Any) -> np.ndarray:
    """An array as it is; an image as the [1, C, H, W] that Core ML makes of it."""
    if not hasattr(value, "getbands"):
        return np.asarray(value)
    image = np.asarray(value, np.float32)
    if image.ndim == 2:
        return image[None, None]
    colours = ct.proto.FeatureTypes_pb2.ImageFeatureType
    if feature.type.imageType.colorSpace == colours.BGR:
        image = image[..., ::-1]
    return image.transpose(2, 0, 1)[None]


def picture(array: np.ndarray, kind: Any) -> Any:
    """An output as it is; as an image, where the model says that it is one."""
    if kind is None or kind.WhichOneof("Type") != "imageType":
        return array
    from PIL import Image

    colours = ct.proto.FeatureTypes_pb2.ImageFeatureType
    space = kind.imageType.colorSpace
    if space == colours.GRAYSCALE_FLOAT16:
        return Image.fromarray(array.reshape(array.shape[-2:]).astype(np.float32), "F")
    whole = np.clip(np.rint(array.astype(np.float32)), 0, 255).astype(np.uint8)
    if space == colours.GRAYSCALE:
        return Image.fromarray(whole.reshape(whole.shape[-2:]), "L")
    channels = whole.reshape(whole.shape[-3:]).transpose(1, 2, 0)
    return Image.fromarray(np.ascontiguousarray(channels[..., ::-1] if space == colours.BGR else channels), "RGB")


def refuse_size(shape: tuple[int, ...], feature: Any) -> None:
    """Core ML looks at the ranges and choices of the model's description."""
    if feature is None or feature.type.WhichOneof("Type") != "multiArrayType":
        return
    array = feature.type.multiArrayType
    flexibility = array.WhichOneof("ShapeFlexibility")
    if flexibility == "enumeratedShapes":
        if list(shape) not in [list(each.shape) for each in array.enumeratedShapes.shapes]:
            text = " x ".join(map(str, shape))
            raise RuntimeError(f"MultiArray Shape ({text}) was not in enumerated set of allowed shapes")
    elif flexibility == "shapeRange":
        for i, (n, each) in enumerate(zip(shape, array.shapeRange.sizeRanges, strict=False)):
            high = each.upperBound if each.upperBound >= 0 else n
            if not each.lowerBound <= n <= high:
                allowed = f"{each.lowerBound}..{high}"
                raise RuntimeError(f"Size ({n}) of dimension ({i}) is not in allowed range ({allowed})")


def default(feature: Any) -> np.ndarray:
    """What Core ML takes for an optional input that is left out."""
    array = feature.type.multiArrayType
    kind = array.WhichOneof("defaultOptionalValue")
    return np.full(tuple(array.shape), getattr(array, kind) if kind else 0)


def pytest_configure(config: pytest.Config) -> None:
    ct.models.model._MLModelProxy = Engine
    if config.getoption("direct"):
        load = ct.models.MLModel.__init__

        def made(self: Any, *arguments: Any, **named: Any) -> None:
            load(self, *arguments, **named)
            if self.__proxy__:
                self.__proxy__.converted = self._mil_program

        ct.models.MLModel.__init__ = made
    gates = {"_is_macos": lambda: True, "_macos_version": lambda: MACOS, "_IS_MACOS": True}
    for name, module in list(sys.modules.items()):
        for gate, open_ in gates.items():
            if name.startswith("coremltools") and hasattr(module, gate):
                setattr(module, gate, open_)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--every", type=int, default=1, help="run one case in so many, the same ones each time")
    parser.addoption("--direct", action="store_true", help="compile what ct.convert made, not the package it wrote")
    parser.addoption("--each", type=int, help="run at most so many cases of each test function, drawn at random")
    parser.addoption("--seed", type=int, default=0, help="what --each draws with")


def counts(case: str) -> bool:
    """Not a neural network, nor half precision held to the tolerance of single: that is half an ulp's luck."""
    half = "numpy.float16" in case or "dtype=fp16" in case
    return "neuralnetwork" not in case and not ("'fp32'" in case and half)


def draw(items: list[pytest.Item], most: int, seed: int) -> list[pytest.Item]:
    """At most so many cases of each test function, in their order."""
    functions: dict[str, list[int]] = {}
    for i, item in enumerate(items):
        functions.setdefault(item.nodeid.partition("[")[0], []).append(i)
    rng = random.Random(seed)
    return [items[i] for cases in functions.values() for i in sorted(rng.sample(cases, min(most, len(cases))))]


@pytest.hookimpl(trylast=True)  # after -k has chosen
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    sampled = [item for item in items if counts(item.nodeid)][:: config.getoption("every")]
    if most := config.getoption("each"):
        sampled = draw(sampled, most, config.getoption("seed"))
    chosen = set(map(id, sampled))
    config.hook.pytest_deselected(items=[item for item in items if id(item) not in chosen])
    items[:] = sampled


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
    report = yield
    if call.excinfo is not None and isinstance(call.excinfo.value, anex.UnsupportedError):
        why = " ".join(str(call.excinfo.value).split())
        refusals[re.sub("'[^']*' ?", "", why)[:120]] += 1
        report.outcome, report.wasxfail = "skipped", f"refused: {why}"
    return report


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if refusals:
        terminalreporter.section("what anex refused")
        for reason, count in refusals.most_common():
            terminalreporter.write_line(f"{count:6}  {reason}")
