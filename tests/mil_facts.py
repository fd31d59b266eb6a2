"""What two MIL programs must share to be called the same, read off coremltools' objects.

Not a test: imported by test_build*.py and test_store*.py.
"""

import struct
from pathlib import Path

import numpy as np
from coremltools.converters.mil.mil import Builder as mb
from coremltools.converters.mil.mil import types

import anex

CORPUS = Path(__file__).parents[2] / "shared" / "reference" / "mil_corpus"  # beside the repository, if at all


HEADER = 'program(1.3)\n[buildInfo = dict<string, string>({{"coremlc-version", "3505.4.1"}})]\n'
X = "tensor<fp16, [1, 4, 1, 8]>"


def text(body, takes=f"{X} x", gives="y", opset="ios18"):
    """MIL text of one function."""
    return f"{HEADER}{{\n func main<{opset}>({takes}) {{\n{body}\n }} -> ({gives});\n}}\n"


def sample():
    """A program with weights, several inputs and outputs, and nested blocks."""
    weights = np.arange(64).reshape(4, 4, 2, 2) / 64

    @anex.graph(x=(1, 4, 2, 8), ids=anex.spec((3,), "int32"))
    def program(x, ids):
        h = mb.conv(x=x, weight=weights, pad_type="same")
        rows = mb.gather(x=np.linspace(0, 1, 40).reshape(10, 4), indices=ids, axis=0, name="rows")
        small = mb.less(x=mb.reduce_sum(x=x, keep_dims=False), y=3.0)
        z = mb.cond(pred=small, _true_fn=lambda: mb.relu(x=h), _false_fn=lambda: mb.exp(x=h), name="z")
        return mb.softmax(x=mb.concat(values=[h, h], axis=1), axis=1, name="y"), rows, z

    return program


def main(program):
    return program.functions["main"]


def dtype(var):
    """MIL's name of it."""
    return types.builtin_to_string(var.dtype)


def inputs(program):
    """Name, shape and dtype of every input, in order."""
    return [(name, tuple(var.shape), dtype(var)) for name, var in main(program).inputs.items()]


def outputs(program):
    return [(var.name, tuple(var.shape), dtype(var)) for var in main(program).outputs]


def ops(program):
    """Type, name and result names of every op, blocks included, consts apart: files may inline them."""
    found = []

    def walk(block):
        for op in block.operations:
            if op.op_type != "const":
                found.append((op.op_type, op.name, [var.name for var in op.outputs]))
            for inner in op.blocks:
                walk(inner)

    walk(main(program))
    return found


def constants(program):
    """(op, argument, index) -> the constant's dtype, shape and bytes."""
    found = {}

    def walk(block):
        for op in block.operations:
            for argument, given in op.inputs.items():
                for index, var in enumerate(given if isinstance(given, (list, tuple)) else [given]):
                    if var.op is not None and var.op.op_type == "const":
                        value = np.asarray(var.val)
                        found[op.name, argument, index] = (str(value.dtype), value.shape, value.tobytes())
            for inner in op.blocks:
                walk(inner)

    walk(main(program))
    return found


def names(program):
    """Every name a caller could see, to prove that nothing was renamed behind their back."""
    found = [list(main(program).inputs), [var.name for var in main(program).inputs.values()]]
    found += [[op.name, *[var.name for var in op.outputs]] for op in main(program).operations]
    return found


def assert_same(a, b):
    assert ops(a) == ops(b)
    assert sorted(inputs(a)) == sorted(inputs(b))
    assert outputs(a) == outputs(b)
    assert constants(a) == constants(b)


def zero_weights(folder, references):
    """Weight files in which every reference of ``anex.mil.blob.references`` finds its size in zeros.

    Masks of sparse weights get as many ones as there are values, which coremltools checks.
    """
    from anex.mil.scalars import SCALARS

    for text, wanted in references.items():
        path = folder / text.removeprefix("@model_path/")
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            file.write(struct.pack("<II56x", len(wanted), 2))
            for reference in wanted:
                scalar = SCALARS[reference.dtype]
                count = int(np.prod(reference.shape, dtype=np.int64))
                size = -(-count * scalar.bits // 8)
                data = bytes(size)
                if "sparse" in reference.owner:
                    others = [other.shape[0] for other in wanted if other.owner == reference.owner]
                    if size > 1 and min(others) == count:  # the mask is the smaller of the two
                        ones = max(others)
                        data = np.packbits(np.arange(8 * size) < ones, bitorder="little").tobytes()
                file.seek(reference.offset)
                record = (0xDEADBEEF, scalar.blob, size, reference.offset + 64, 8 * size - count * scalar.bits)
                file.write(struct.pack("<IIQQQ32x", *record) + data)
