"""What coremltools exports prints as text and parses back to the same protobuf, which its loader takes."""

import coremltools as ct
import numpy as np
import pytest
from coremltools.converters.mil.backend.mil.load import MILProtoExporter
from coremltools.converters.mil.frontend.milproto.load import load
from coremltools.converters.mil.mil import Program, types
from coremltools.proto import FeatureTypes_pb2, Model_pb2
from milgen import sort_inputs

from anex import FormatError, mil
from anex._coremltools import coremltools
from anex.mil import blob
from anex.mil.proto import equal, kept_source

RNG = np.random.default_rng(0)
mb = ct.converters.mil.Builder
FP32, FP16 = types.fp32, types.fp16


def program(opset, *dtypes, states=0):
    """Build a function of [1, 4] tensors, and states of fp16, and keep it under its own name."""

    def register(function):
        specs = [mb.TensorSpec((1, 4), dtype=dtype) for dtype in dtypes]
        specs += [mb.StateTensorSpec((1, 4), dtype=FP16) for _ in range(states)]
        built = mb.program(input_specs=specs, opset_version=opset)(function)
        PROGRAMS[function.__name__] = (built, opset)
        return function

    return register


PROGRAMS = {}


@program(ct.target.iOS15, FP32)
def arithmetic(a):
    return mb.softmax(x=mb.add(x=a, y=np.float32(0.1)), axis=-1), mb.concat(values=(a, a, a), axis=1)


@program(ct.target.iOS16, FP32, FP32)
def control_flow(x, b):
    def more(i, y):
        return mb.less(x=mb.reduce_sum(x=i, axes=[0], keep_dims=False), y=np.float32(5))

    def step(i, y):
        return mb.add(x=i, y=np.float32(1)), mb.mul(x=y, y=b)

    _, y = mb.while_loop(_cond=more, _body=step, loop_vars=(mb.fill(shape=[1], value=0.0), x))
    positive = mb.greater(x=mb.reduce_sum(x=y, axes=[0, 1], keep_dims=False), y=np.float32(3))

    def inner():
        return mb.cond(pred=positive, _true_fn=lambda: mb.add(x=y, y=x), _false_fn=lambda: x)

    return mb.cond(pred=positive, _true_fn=inner, _false_fn=lambda: mb.sub(x=y, y=x))


@program(ct.target.iOS16, FP16)
def constexpr_ios16(x):
    quantized = mb.constexpr_affine_dequantize(
        quantized_data=RNG.integers(-128, 127, (4, 4)).astype(np.int8),
        scale=np.float16([0.5, 0.25, 2, 1]),
        zero_point=np.int8([1, 2, 3, 4]),
        axis=0,
    )
    looked_up = mb.constexpr_lut_to_dense(
        indices=RNG.integers(0, 255, 12).astype(np.uint8),
        lut=np.arange(64, dtype=np.float16),
        shape=np.uint32([4, 4]),
    )
    sparse = mb.constexpr_sparse_to_dense(
        nonzero_data=np.float16([1, 2, 3]), mask=np.uint8([0b10000001, 0b10]), shape=np.uint32([4, 4])
    )
    x = mb.matmul(x=mb.matmul(x=x, y=quantized), y=looked_up)
    return mb.matmul(x=x, y=sparse)


@program(ct.target.iOS18, FP16)
def constexpr_ios18(x):
    int4, uint1, uint2 = (types.nptype_from_builtin(types.string_to_builtin(n)) for n in ("int4", "uint1", "uint2"))
    blockwise = mb.constexpr_blockwise_shift_scale(
        data=RNG.integers(-8, 7, (4, 4)).astype(int4), scale=np.float16([[0.5], [1], [2], [3]])
    )
    looked_up = mb.constexpr_lut_to_dense(
        indices=RNG.integers(0, 3, (4, 4)).astype(uint2), lut=RNG.normal(size=(1, 1, 4, 1)).astype(np.float16)
    )
    mask, values = mb.constexpr_lut_to_sparse(
        indices_mask=np.eye(4).astype(uint1),
        indices_nonzero_data=np.array([0, 1, 1, 0]).astype(uint1),
        lut=np.float16([1, 2]).reshape(1, 1, 2, 1),
    )
    sparse = mb.constexpr_sparse_to_dense(mask=mask, nonzero_data=values)
    x = mb.matmul(x=mb.matmul(x=x, y=blockwise), y=looked_up)
    return mb.matmul(x=x, y=sparse)


@program(ct.target.iOS18, FP16, states=1)
def states(x, cache):
    old = mb.read_state(input=cache)
    new = mb.coreml_update_state(state=cache, value=mb.add(x=old, y=x))
    return mb.mul(x=new, y=x)


@program(ct.target.iOS17, FP16)
def every_width(x):
    y = mb.quantize(input=x, scale=np.float16(0.5), zero_point=np.int8(3), output_dtype="int8")
    y = mb.dequantize(input=y, scale=np.float16(0.5), zero_point=np.int8(3))
    indices = mb.cast(x=mb.shape(x=y), dtype="int16")
    picked = mb.gather(x=y, indices=mb.const(val=np.uint16([0, 3])), axis=1)
    empty = mb.const(val=np.zeros((0, 3), np.float16))
    words = mb.one_hot(indices=np.int32([1, 0]), one_hot_vector_size=3)
    return picked, mb.cast(x=indices, dtype="fp32"), mb.cast(x=words, dtype="fp32"), mb.identity(x=empty)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Every program as a converted model, and its weight folder."""
    found = {}
    with coremltools():
        for name, (built, opset) in PROGRAMS.items():
            model = ct.convert(
                built,
                convert_to="mlprogram",
                minimum_deployment_target=opset,
                skip_model_load=True,
                compute_precision=ct.precision.FLOAT16,
            )
            found[name] = (model, model.get_spec(), model.weights_dir)
    return found


@pytest.mark.parametrize("name", PROGRAMS)
def test_an_exported_program_survives_its_text(models, name):
    _, spec, _ = models[name]
    text = mil.to_text(spec)
    program = mil.from_text(text)
    assert equal(program, sort_inputs(spec.mlProgram))
    assert kept_source(program) is None
    assert mil.to_text(program) == text


@pytest.mark.parametrize("name", PROGRAMS)
def test_coremltools_loads_what_was_parsed(models, name):
    _, spec, weights = models[name]
    copy = Model_pb2.Model()
    copy.CopyFrom(spec)
    copy.mlProgram.CopyFrom(mil.from_text(mil.to_text(spec)))
    copy.mlProgram.functions["main"].attributes.clear()
    with coremltools():
        loaded = load(copy, specification_version=spec.specificationVersion, file_weights_dir=weights)
    ops = [op.op_type for op in loaded.functions["main"].operations if op.op_type != "const"]
    assert len(ops) >= 2


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_weights_of_an_exported_program_pass_the_check(models, name):
    _, spec, weights = models[name]
    for file, references in blob.references(spec.mlProgram).items():
        blob.check(f"{weights}/{file.rsplit('/', 1)[1]}", references)


def test_dialects_say_constexpr_and_states_as_coremlc_does(models):
    old = mil.to_text(models["constexpr_ios16"][1])
    assert "= constexpr_affine_dequantize()[axis = tensor<int32, []>(0), name = tensor<string, []>(" in old
    new = mil.to_text(models["constexpr_ios18"][1])
    assert "= constexpr_blockwise_shift_scale(data = tensor<int4, [4, 4]>(BLOBFILE(path = string(" in new
    assert "main<ios18>(state<tensor<fp16, [1, 4]>> cache, tensor<fp16, [1, 4]> x) {" in mil.to_text(
        models["states"][1]
    )
    assert "            write_state(data = " in mil.to_text(models["states"][1])


def test_a_program_of_several_functions_prints_them_sorted(models, tmp_path):
    both = Program()
    for name, source in (("zeta", "constexpr_ios18"), ("alpha", "states")):
        both.add_function(name, models[source][0]._mil_program.functions["main"])
    both.default_function_name = "alpha"
    with coremltools():
        proto = MILProtoExporter(both, str(tmp_path), 9).export()
    text = mil.to_text(proto)
    assert 0 < text.index("    func alpha<ios18>(") < text.index("    func zeta<ios18>(")
    assert equal(mil.from_text(text), sort_inputs(proto))


# ---- FlexibleShapeInformation


def flexible(**inputs):
    """A model of iOS 16 whose inputs have these types in the description."""
    specs = ", ".join(f"tensor<fp16, [1, 3, ?, ?]> {name}" for name in inputs)
    first = next(iter(inputs))
    model = Model_pb2.Model(specificationVersion=7)
    body = f'tensor<fp16, [1, 3, ?, ?]> y = relu(x = {first})[name = tensor<string, []>("y")];'
    text = f"program(1.0)\n{{\nfunc main<ios16>({specs}) {{\n{body}\n}} -> (y);\n}}"
    model.mlProgram.CopyFrom(mil.from_text(text))
    model.mlProgram.DiscardUnknownFields()
    for name, kind in inputs.items():
        model.description.input.add(name=name).type.CopyFrom(kind)
    return model


def array(shape, ranges=(), choices=()):
    kind = FeatureTypes_pb2.FeatureType()
    kind.multiArrayType.shape.extend(shape)
    for low, high in ranges:
        kind.multiArrayType.shapeRange.sizeRanges.add(lowerBound=low, upperBound=high)
    for choice in choices:
        kind.multiArrayType.enumeratedShapes.shapes.add(shape=choice)
    return kind


def test_ranges_of_a_model_become_flexible_shape_information():
    ranges = [(1, 1), (3, 3), (1, 64), (2, -1)]
    model = flexible(x=array([1, 3, 8, 8], ranges), fixed=array([1, 3, 8, 8]))
    string, shape = "tensor<string, []>", "tensor<int32, [?]>"
    assert mil.to_text(model).splitlines()[3] == (
        f"    func main<ios16>(tensor<fp16, [1, 3, ?, ?]> fixed, tensor<fp16, [1, 3, ?, ?]> x) "
        f"[FlexibleShapeInformation = tuple<tuple<{string}, dict<{string}, {shape}>>, "
        f"tuple<{string}, dict<{string}, list<tensor<int32, [2]>, ?>>>>("
        '(("DefaultShapes", {{"x", [1, 3, 8, 8]}}), '
        '("RangeDims", {{"x", [[1, 1], [3, 3], [1, 64], [2, -1]]}})))] {'
    )
    assert equal(mil.from_text(mil.to_text(mil.from_text(mil.to_text(model)))), mil.from_text(mil.to_text(model)))


def test_enumerated_shapes_of_a_model_become_flexible_shape_information():
    model = flexible(x=array([1, 3, 8, 8], choices=[[1, 3, 8, 8], [1, 3, 9, 9]]))
    line = mil.to_text(model).splitlines()[3]
    assert '("DefaultShapes", {{"x", [1, 3, 8, 8]}}), ("EnumeratedShapes", {{"' in line
    assert '", {{"x", [1, 3, 9, 9]}}}}))' in line
    assert mil.to_text(mil.from_text(mil.to_text(model))) == mil.to_text(model)


def test_sizes_of_an_image_get_batch_and_channels_from_the_function():
    kind = FeatureTypes_pb2.FeatureType()
    kind.imageType.width, kind.imageType.height = 20, 10
    kind.imageType.imageSizeRange.widthRange.lowerBound = 5
    kind.imageType.imageSizeRange.widthRange.upperBound = 50
    kind.imageType.imageSizeRange.heightRange.lowerBound = 1
    kind.imageType.imageSizeRange.heightRange.upperBound = 10
    model = flexible(x=kind)
    line = mil.to_text(model).splitlines()[3]
    assert '{{"x", [1, 3, 10, 20]}}), ("RangeDims", {{"x", [[1, 1], [3, 3], [1, 10], [5, 50]]}})' in line
    model.description.input[0].name = "z"
    with pytest.raises(FormatError, match="'z' is no input"):
        mil.to_text(model)
