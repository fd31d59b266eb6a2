"""FlexibleShapeInformation: the function attribute that coremlc derives from a model's description."""

from collections.abc import Iterable, Sequence

from ..errors import FormatError
from .printer import has_bare_scalars
from .proto import Message
from .scalars import quote

Shape = Sequence[int]


def flexible_shapes(model: Message, version: str) -> dict[str, str]:
    """The attribute's text for every function of ``model`` with inputs of flexible shape."""
    description = model.description
    inputs = {function.name: function.input for function in description.functions}
    texts = {}
    for name, function in model.mlProgram.functions.items():
        text = _information(inputs.get(name, description.input), function, version)
        if text:
            texts[name] = text
    return texts


def default_shapes(model: Message, name: str) -> dict[str, tuple[int, ...]]:
    """Of the inputs of the function ``name`` whose shapes are flexible: the default ones, from the description."""
    inputs = {function.name: function.input for function in model.description.functions}
    defaults: dict[str, Shape] = {}
    for feature in inputs.get(name, model.description.input):
        _collect(feature, model.mlProgram.functions[name], defaults, {}, {})
    return {each: tuple(map(int, shape)) for each, shape in defaults.items()}


def written_defaults(function: Message) -> dict[str, tuple[int, ...]]:
    """The same from the attribute that a compiled model's text has."""
    attribute = function.attributes.get("FlexibleShapeInformation")
    found: dict[str, tuple[int, ...]] = {}
    for entry in attribute.immediateValue.tuple.values if attribute is not None else ():
        label, table = entry.immediateValue.tuple.values[:2]
        if list(label.immediateValue.tensor.strings.values) == ["DefaultShapes"]:
            for pair in table.immediateValue.dictionary.values:
                (name,) = pair.key.immediateValue.tensor.strings.values
                found[name] = tuple(map(int, pair.value.immediateValue.tensor.ints.values))
    return found


def _information(features: Iterable[Message], function: Message, version: str) -> str:
    """``tuple<…>((("DefaultShapes", …), ("RangeDims", …)))``, or "" if all shapes are fixed."""
    defaults: dict[str, Shape] = {}
    choices: dict[str, list[Shape]] = {}
    ranges: dict[str, Sequence[Shape]] = {}
    for feature in sorted(features, key=lambda feature: str(feature.name)):
        _collect(feature, function, defaults, choices, ranges)
    if not defaults:
        return ""
    string = "string" if has_bare_scalars(version) else "tensor<string, []>"
    shapes, spans = f"dict<{string}, tensor<int32, [?]>>", f"dict<{string}, list<tensor<int32, [2]>, ?>>"
    entries = [("DefaultShapes", shapes, _dict((name, _list(shape)) for name, shape in defaults.items()))]
    if choices:
        entries.append(("EnumeratedShapes", f"dict<{string}, {shapes}>", _enumerated(choices)))
    if ranges:
        text = _dict((name, f"[{', '.join(map(_list, spans))}]") for name, spans in ranges.items())
        entries.append(("RangeDims", spans, text))
    types = ", ".join(f"tuple<{string}, {type}>" for _, type, _ in entries)
    literals = ", ".join(f"({quote(label)}, {literal})" for label, _, literal in entries)
    return f"tuple<{types}>(({literals}))"


def _collect(
    feature: Message,
    function: Message,
    defaults: dict[str, Shape],
    choices: dict[str, list[Shape]],
    ranges: dict[str, Sequence[Shape]],
) -> None:
    """Sort one input into the three tables, if its shape is flexible."""
    name, kind = feature.name, feature.type.WhichOneof("Type")
    if kind == "multiArrayType":
        array = feature.type.multiArrayType
        flexibility = array.WhichOneof("ShapeFlexibility")
        default: Shape = list(array.shape)
        if flexibility == "enumeratedShapes":
            choices[name] = [list(shape.shape) for shape in array.enumeratedShapes.shapes]
        elif flexibility == "shapeRange":
            ranges[name] = [(span.lowerBound, span.upperBound) for span in array.shapeRange.sizeRanges]
    elif kind == "imageType":
        image = feature.type.imageType
        flexibility = image.WhichOneof("SizeFlexibility")
        front = _image_front(name, function) if flexibility else []
        default = [*front, image.height, image.width]
        if flexibility == "enumeratedSizes":
            choices[name] = [[*front, size.height, size.width] for size in image.enumeratedSizes.sizes]
        elif flexibility == "imageSizeRange":
            spans = (image.imageSizeRange.heightRange, image.imageSizeRange.widthRange)
            ranges[name] = [(size, size) for size in front] + [(s.lowerBound, s.upperBound) for s in spans]
    else:
        return
    if flexibility:
        defaults[name] = default


def _image_front(name: str, function: Message) -> list[int]:
    """Batch and channels of an image input, which only the function's own type says."""
    for value in function.inputs:
        if value.name == name:
            return [dimension.constant.size for dimension in value.type.tensorType.dimensions[:-2]]
    raise FormatError(f"the description's input {name!r} is no input of the function")


def _enumerated(choices: dict[str, list[Shape]]) -> str:
    """One entry per choice; coremlc's key is a hash that nobody has published, ours is its number."""
    counts = {len(shapes) for shapes in choices.values()}
    if len(counts) != 1:
        raise FormatError(f"inputs {', '.join(choices)} have different numbers of enumerated shapes")
    entries = []
    for index in range(counts.pop()):
        shapes = _dict((name, _list(options[index])) for name, options in choices.items())
        entries.append((f"{index:08x}", shapes))
    return _dict(entries)


def _dict(entries: Iterable[tuple[str, str]]) -> str:
    return f"{{{', '.join(f'{{{quote(key)}, {value}}}' for key, value in entries)}}}"


def _list(sizes: Iterable[int]) -> str:
    return f"[{', '.join(map(str, sizes))}]"
