"""Random MIL programs for property-based tests, built as protobufs and never through text."""

from hypothesis import strategies as st

from anex.mil.proto import mil
from anex.mil.scalars import SCALARS, hexadecimal, limits, quote, store
from anex.mil.types import tensor_type

NAMES = st.from_regex(r"[A-Za-z_][A-Za-z0-9_@]{0,8}", fullmatch=True)
TEXT = st.text(st.characters(codec="utf-8"), max_size=8)
NUMERIC = [scalar for scalar in SCALARS.values() if scalar.kind in ("int", "uint")]


def sort_inputs(program):
    """A copy of ``program`` in the order of its text: inputs and buildInfo sorted by name."""
    copy = type(program)()
    copy.CopyFrom(program)
    for function in copy.functions.values():
        ordered = sorted(function.inputs, key=lambda value: value.name)
        del function.inputs[:]
        function.inputs.extend(ordered)
    if "buildInfo" in copy.attributes:
        pairs = copy.attributes["buildInfo"].immediateValue.dictionary.values
        ordered = sorted(pairs, key=lambda pair: pair.key.immediateValue.tensor.strings.values[0])
        del pairs[:]
        pairs.extend(ordered)
    return copy


def scalars(scalar):
    """Python values that are exact in this type."""
    if scalar.kind == "bool":
        return st.booleans()
    if scalar.kind == "string":
        return TEXT
    if scalar.kind == "float":
        if scalar.bits == 8:
            return st.sampled_from([0.0, -0.0, 1.0, -1.5, 2.0**-9, 448.0])
        if scalar.name == "bf16":
            return st.floats(width=16, allow_nan=False).map(lambda x: float(int(x) % 128) if abs(x) < 1e4 else x * 0)
        return st.floats(width=scalar.bits, allow_nan=False)
    low, high = limits(scalar)
    return st.integers(low, high)


def value_text(scalar):
    """Literals of this type as coremlc prints them."""
    write = {"float": hexadecimal, "bool": lambda x: str(x).lower(), "string": quote}
    return scalars(scalar).filter(lambda x: x == x).map(write.get(scalar.kind, str))


@st.composite
def types(draw, depth=2):
    """ValueTypes that a parameter or result may have."""
    kind = draw(
        st.sampled_from(["tensor", "tensor", "tensor", "list", "tuple", "dict", "state"] if depth else ["tensor"])
    )
    message = mil().ValueType()
    if kind == "tensor":
        shape = draw(st.lists(st.one_of(st.none(), st.integers(0, 2**64 - 1)), max_size=4))
        return tensor_type(draw(st.sampled_from(list(SCALARS.values()))), shape).message
    inner = types(depth=depth - 1)
    if kind == "list":
        message.listType.type.CopyFrom(draw(inner))
        message.listType.length.constant.size = draw(st.integers(0, 9))
    elif kind == "tuple":
        message.tupleType.types.extend(draw(st.lists(inner, min_size=1, max_size=3)))
    elif kind == "dict":
        message.dictionaryType.keyType.CopyFrom(draw(inner))
        message.dictionaryType.valueType.CopyFrom(draw(inner))
    else:
        message.stateType.wrappedType.CopyFrom(draw(inner))
    return message


@st.composite
def tensors(draw, scalar=None, shape=None):
    """Values of tensor type, inline."""
    scalar = scalar or draw(st.sampled_from(list(SCALARS.values())))
    shape = draw(st.lists(st.integers(0, 3), max_size=3)) if shape is None else shape
    count = 1
    for size in shape:
        count *= size
    value = mil().Value(type=tensor_type(scalar, shape).message)
    store(scalar, draw(st.lists(scalars(scalar), min_size=count, max_size=count)), value.immediateValue.tensor)
    return value


@st.composite
def values(draw, depth=2):
    """Values of every kind, from weight files too."""
    kind = draw(st.sampled_from(["tensor", "tensor", "blob", "list", "tuple", "dict"] if depth else ["tensor"]))
    if kind == "tensor":
        return draw(tensors())
    value = mil().Value()
    if kind == "blob":
        value.type.CopyFrom(tensor_type(SCALARS["fp16"], [draw(st.integers(0, 2**40))]).message)
        value.blobFileValue.fileName = draw(TEXT)
        value.blobFileValue.offset = draw(st.integers(0, 2**64 - 1))
    elif kind == "tuple":
        members = draw(st.lists(values(depth=depth - 1), min_size=1, max_size=3))
        value.type.tupleType.types.extend(member.type for member in members)
        value.immediateValue.tuple.values.extend(members)
    else:
        scalar, shape = draw(st.sampled_from(NUMERIC)), draw(st.lists(st.integers(0, 2), max_size=2))
        element = tensors(scalar, shape)
        if kind == "list":
            elements = draw(st.lists(element, max_size=3))
            value.type.listType.type.CopyFrom(tensor_type(scalar, shape).message)
            value.type.listType.length.constant.size = len(elements)
            value.immediateValue.list.SetInParent()
            value.immediateValue.list.values.extend(elements)
        else:
            value.type.dictionaryType.keyType.CopyFrom(tensor_type(SCALARS["string"], []).message)
            value.type.dictionaryType.valueType.CopyFrom(tensor_type(scalar, shape).message)
            value.immediateValue.dictionary.SetInParent()
            for key in draw(st.lists(TEXT, max_size=3, unique=True)):
                pair = value.immediateValue.dictionary.values.add(value=draw(element))
                pair.key.type.CopyFrom(tensor_type(SCALARS["string"], []).message)
                pair.key.immediateValue.tensor.strings.values.append(key)
    return value


class _Names:
    """Fresh names of one function."""

    def __init__(self, draw):
        self.draw, self.count = draw, 0

    def fresh(self):
        self.count += 1
        return f"{self.draw(NAMES)}_{self.count}"


def _fill_attributes(draw, attributes):
    for key, value in draw(st.dictionaries(NAMES, values(), max_size=2)).items():
        attributes[key].CopyFrom(value)


def _fill_block(draw, block, names, visible, depth):
    visible = list(visible)
    for _ in range(draw(st.integers(0, 3))):
        op = block.operations.add(type=draw(NAMES))
        for key in draw(st.lists(NAMES, max_size=3, unique=True)):
            argument = op.inputs[key]
            for _ in range(draw(st.integers(0, 3))):
                if visible and draw(st.booleans()):
                    argument.arguments.add(name=draw(st.sampled_from(visible)))
                else:
                    argument.arguments.add(value=draw(values()))
        _fill_attributes(draw, op.attributes)
        for _ in range(draw(st.integers(0, 2)) if depth else 0):
            inner = op.blocks.add()
            inputs = [names.fresh() for _ in range(draw(st.integers(0, 2)))]
            for name in inputs:
                inner.inputs.add(name=name, type=draw(types()))
            _fill_attributes(draw, inner.attributes)
            _fill_block(draw, inner, names, visible + inputs, depth - 1)
        for _ in range(draw(st.integers(0, 2))):
            op.outputs.add(name=names.fresh(), type=draw(types()))
        visible += [output.name for output in op.outputs]
    block.outputs.extend(draw(st.lists(st.sampled_from(visible), max_size=3)) if visible else [])


@st.composite
def programs(draw):
    """Programs as an exporter could make them, in the order of their text."""
    program = mil().Program(version=1)
    for name in draw(st.lists(NAMES, min_size=1, max_size=2, unique=True)):
        function = program.functions[name]
        function.opset = draw(st.sampled_from(["CoreML5", "CoreML7", "CoreML8", "CoreML9"]))
        names = _Names(draw)
        inputs = sorted(names.fresh() for _ in range(draw(st.integers(0, 3))))
        for parameter in inputs:
            function.inputs.add(name=parameter, type=draw(types()))
        _fill_attributes(draw, function.attributes)
        _fill_block(draw, function.block_specializations[function.opset], names, inputs, 2)
    _fill_attributes(draw, program.attributes)
    return program
