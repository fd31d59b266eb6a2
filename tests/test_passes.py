"""What prepare makes of a program: copies, switches, dtypes, ranks and names."""

import numpy as np
import pytest
from passes_case import only, op_types, run, same, texts

import anex
from anex import mb
from anex.ops import CURES, ane_findings, program_findings
from anex.passes import PASSES, carrier, chosen, prepare


def small(**inputs):
    """x + 1 with whatever inputs; the first is x."""

    @anex.graph(**inputs)
    def program(**given):
        x = next(iter(given.values()))
        return mb.add(x=x, y=x, name="y")

    return program


@anex.graph(x=(1, 8, 1, 32))
def plain(x):
    return mb.relu(x=x, name="y")


# ---- prepare itself -----------------------------------------------------------------------------


def test_every_pass_says_what_it_does_and_who_found_it_needed():
    for name, each in PASSES.items():
        assert name == each.name
        assert each.statement
        assert each.source


def test_the_cures_that_rules_count_on_are_passes_that_are_on():
    assert {name for name in CURES} <= set(chosen())
    assert all(name in CURES for name in chosen() if any(
        rule.cure == name for op in anex.ops.OPS.values() for rule in op.ane
    ))  # fmt: skip


def test_unknown_switches_are_refused_with_the_names_there_are():
    with pytest.raises(anex.ArgumentError, match=r"passes gelu: the passes are .*fold, .*gelu_tanh"):
        prepare(plain, {"gelu": True})


def test_an_unknown_chip_is_refused():
    with pytest.raises(anex.ArgumentError, match=r"chip 'h11'.*h13"):
        prepare(plain, chip="h11")


def test_without_passes_the_program_is_a_plain_copy():
    prepared = prepare(plain, only())
    assert prepared.program is not plain
    assert texts(prepared.program) == texts(plain)
    assert dict(prepared.inputs) == {"x": "x"}
    assert prepared.passes == ()


def test_passes_for_one_chip_run_there_alone_unless_switched_on():
    assert "matmul_pad_k32" not in chosen({}, "h13g")
    assert "matmul_pad_k32" in chosen({"matmul_pad_k32": True}, "h17s")


def test_several_functions_are_prepared_together():
    from coremltools.converters.mil.mil import Program

    program = Program()
    for name in ("first", "second"):

        @anex.graph(x=(1, 4, 1, 8))
        def one(x, name=name):
            return mb.gelu(x=x, mode="EXACT", name=f"{name}_y")

        program.add_function(name, one.functions["main"])
    program.default_function_name = "first"
    prepared = prepare(program)
    assert list(prepared.program.functions) == ["first", "second"]
    assert dict(prepared.ports["second"].outputs) == {"second_y": "o00_second_y"}
    assert "gelu" not in op_types(prepared.program)


def test_the_text_holds_no_inline_argument():
    @anex.graph(x=(1, 8, 1, 32), y=(1, 8, 32, 4))
    def product(x, y):
        return mb.matmul(x=x, y=y, transpose_x=False, name="z")

    text, _ = texts(prepare(product).program)
    line = next(line for line in text.splitlines() if "matmul(" in line)
    assert "(false)" not in line.split("[name")[0]


def test_an_attention_block_is_prepared_and_equal(rng):
    w = (rng.normal(size=(96, 32)) / 6).astype(np.float16)

    @anex.graph(x=(1, 20, 32), mask=(1, 1, 20))
    def block(x, mask):
        q, k, v = mb.split(x=mb.linear(x=x, weight=w, bias=np.ones(96, np.float16)), num_splits=3, axis=-1)
        mixed = mb.scaled_dot_product_attention(query=q, key=k, value=v, attn_mask=mask)
        return mb.gelu(x=mb.add(x=mixed, y=x), mode="EXACT", name="y")

    prepared = same(block, rng)
    for function in prepared.program.functions.values():
        found = [f for op in function.operations for f in ane_findings(op, "h16g", cures=())]
        assert not [f for f in found if f.refuses or f.rule.cure in chosen()]


# ---- dtypes -------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(1, 3, 5, 7), (2, 5)])
def test_fp32_programs_compute_in_fp16_between_casts_at_the_edges(rng, shape):
    weight = rng.normal(size=(4, shape[-1])).astype(np.float32)

    @anex.graph(x=anex.spec(shape, "float32"))
    def program(x):
        return mb.tanh(x=mb.linear(x=mb.relu(x=x), weight=weight), name="y")

    prepared = same(program, rng, only("fp16_compute"), atol=5e-3)
    assert op_types(prepared.program) == ["cast", "relu", "linear", "tanh", "cast"]
    assert prepared.outputs == {"y": "y"}


def test_masks_beyond_fp16_become_its_lowest_number(rng):
    lowest = np.array([[0, -1e9, 0, -1e9]], np.float32)

    @anex.graph(x=anex.spec((3, 4), "float32"))
    def program(x):
        return mb.softmax(x=mb.add(x=x, y=lowest), axis=-1, name="y")

    prepared = same(program, rng, only("finite_constants", "fp16_compute"))
    assert "softmax" in op_types(prepared.program)
    findings = [f for op in prepared.program.functions["main"].operations for f in ane_findings(op, "h17s", cures=())]
    assert not [f for f in findings if f.refuses]


def test_bool_inputs_and_outputs_travel_as_uint8(rng):
    @anex.graph(mask=anex.spec((1, 4, 8), "bool"), x=(1, 4, 8))
    def program(mask, x):
        return (
            mb.select(cond=mask, a=x, b=np.float16(0), name="y"),
            mb.logical_not(x=mask, name="z"),
        )

    prepared = same(program, rng)
    with anex.compile(prepared.program) as compiled:
        dtypes = [spec.dtype.name for spec in (*compiled.inputs.values(), *compiled.outputs.values())]
    assert dtypes == ["uint8", "float16", "float16", "uint8"]


def test_before_ios17_bool_travels_as_fp16(rng):
    @anex.graph("iOS16", mask=anex.spec((1, 4, 8), "bool"), x=(1, 4, 8))
    def program(mask, x):
        return mb.select(cond=mask, a=x, b=np.float16(0), name="y")

    prepared = same(program, rng)
    with anex.compile(prepared.program) as compiled:
        assert compiled.inputs["i00_mask"].dtype == np.float16


def test_int32_inputs_stay(rng):
    table = rng.normal(size=(9, 4)).astype(np.float16)

    @anex.graph(ids=anex.spec((1, 6), "int32"))
    def program(ids):
        return mb.gather(x=table, indices=ids, axis=0, name="y")

    prepared = same(program, rng)
    with anex.compile(prepared.program) as compiled:
        assert compiled.inputs["i00_ids"].dtype == np.int32


# ---- ranks --------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(7,), (2, 3, 4, 5, 6), (1, 1, 1, 1, 1), (2, 3), (2, 3, 4), (1, 2, 3, 4)])
def test_ports_of_rank_1_and_5_are_carried_in_rank_4(rng, shape):
    @anex.graph(x=shape)
    def program(x):
        return mb.relu(x=x, name="y")

    prepared = same(program, rng)
    with anex.compile(prepared.program) as compiled:
        assert compiled.inputs["i00_x"].shape == compiled.outputs["o00_y"].shape == carrier(shape)
    assert ("reshape" in op_types(prepared.program)) == (len(shape) in (1, 5))


def test_an_output_of_rank_0_is_carried_in_rank_4(rng):
    @anex.graph(x=(7,))
    def program(x):
        return mb.reduce_max(x=x, axes=[0], keep_dims=False, name="y")

    prepared = same(program, rng)
    with anex.compile(prepared.program) as compiled:
        assert compiled.outputs["o00_y"].shape == (1, 1, 1, 1)


def test_fp32_ports_of_rank_5_are_carried_and_cast(rng):
    @anex.graph(x=anex.spec((2, 3, 4, 5, 6), "float32"), b=anex.spec((6,), "float32"), m=anex.spec((6,), "bool"))
    def program(x, b, m):
        return mb.add(x=x, y=b, name="y"), mb.select(cond=m, a=b, b=np.float32(0), name="z")

    prepared = same(program, rng)
    findings = [f for op in prepared.program.functions["main"].operations for f in ane_findings(op, "h16g", cures=())]
    assert not [f.text for f in findings if f.refuses]
    with anex.compile(prepared.program) as compiled:
        assert {spec.dtype.name for spec in compiled.outputs.values()} == {"float32"}


def test_packed_weights_stay_packed(rng):
    packed = rng.integers(-8, 8, (4, 6)).astype(np.int8)

    @anex.graph("iOS16", x=anex.spec((3, 6), "float32"))
    def program(x):
        w = mb.constexpr_affine_dequantize(
            quantized_data=packed, zero_point=np.int8(0), scale=np.float32(0.125), axis=0
        )
        return mb.linear(x=x, weight=w, name="y")

    prepared = same(program, rng)
    assert "constexpr_affine_dequantize" in op_types(prepared.program)
    findings = [f for op in prepared.program.functions["main"].operations for f in ane_findings(op, "h16g", cures=())]
    assert not [f.text for f in findings if f.refuses]


@pytest.mark.parametrize("shape", [(7,), (2, 3, 4, 5, 6), (3, 1, 2, 2, 5)])
def test_padded_rows_are_seen_in_both_shapes(shape):
    carried = np.zeros((*carrier(shape)[:-1], 32), np.float16)[..., : shape[-1]]
    view = np.lib.stride_tricks.as_strided(carried, shape, [s for s in np.zeros((*shape[:-1], 32), np.float16).strides])
    view[...] = np.arange(view.size).reshape(shape)
    np.testing.assert_array_equal(carried.reshape(-1), np.arange(view.size))


# ---- names --------------------------------------------------------------------------------------


def test_sorted_names_are_in_declared_order():
    names = ["zeta", "W", "a10", "a9", "b", "x", "c", "d", "e", "f", "g", "h"]

    def body(*given):
        raise AssertionError

    from coremltools.converters.mil.mil import Function, Program

    program = Program()
    with Function({name: mb.placeholder((1, 2)) for name in names}) as function:
        outputs = [mb.relu(x=function.inputs[name], name=f"{name}_y") for name in names]
        function.set_outputs(outputs)
    program.add_function("main", function)
    prepared = prepare(program)
    renamed = list(prepared.inputs.values())
    assert list(prepared.inputs) == names
    assert renamed == sorted(renamed) == list(prepared.program.functions["main"].inputs)
    outputs = list(prepared.outputs.values())
    assert outputs == sorted(outputs) == [var.name for var in prepared.program.functions["main"].outputs]
    assert prepared.inputs["a10"] == "i02_a10"


def test_states_keep_their_names(rng):
    from coremltools.converters.mil.mil import Function, Program, types

    program = Program()
    with Function({"x": mb.placeholder((1, 4)), "cache": mb.state_tensor_placeholder((1, 4), types.fp16)},
                  anex.mb and __import__("coremltools").target.iOS18) as function:  # fmt: skip
        old = mb.read_state(input=function.inputs["cache"])
        new = mb.coreml_update_state(state=function.inputs["cache"], value=mb.add(x=old, y=np.float16(1)))
        function.set_outputs([mb.mul(x=new, y=np.float16(2), name="y")])
    program.add_function("main", function)
    prepared = prepare(program)
    assert dict(prepared.inputs) == {"x": "i00_x", "cache": "cache"}


def test_an_identity_that_tells_an_output_from_an_input_stays(rng):
    @anex.graph(x=(1, 4))
    def program(x):
        return mb.identity(x=x, name="y"), mb.identity(x=mb.relu(x=x), name="z")

    prepared = same(program, rng)
    assert op_types(prepared.program) == ["identity", "relu"]
    assert dict(prepared.outputs) == {"y": "o00_y", "z": "o01_z"}


def test_default_arguments_take_the_dtype_of_the_tensors(rng):
    from anex import store

    @anex.graph("iOS15", x=(1, 4, 8))
    def program(x):
        scale = np.ones(8, np.float16)
        y = mb.layer_norm(x=x, axes=[-1], gamma=scale, beta=scale)
        return mb.l2_norm(x=mb.layer_norm(x=y, axes=[-1]), name="y")

    same(program, rng)
    text = store.text(program)
    assert "fp32" not in text
    assert store.text(store.loads(store.dumps(program))) == text


def test_an_embedding_of_torch_is_accepted_when_no_index_is_negative(rng):
    import torch

    module = torch.nn.Embedding(9, 4)
    program = anex.from_torch(module, input=anex.spec((1, 6), "int32"))
    ids = rng.integers(0, 9, (1, 6)).astype(np.int32)
    prepared = same(program, rng, {"plain_indices": True}, arguments=[ids])
    assert not [f for f in program_findings(prepared.program, "h16g", cures=()) if f.refuses]
    refused = [f for f in program_findings(program, "h16g") if f.refuses]
    assert {f.op_type for f in refused} == {"greater_equal", "add"}
    assert all("plain_indices" in f.text for f in refused)
    assert not [f for f in program_findings(program, "h16g", cures=chosen({"plain_indices": True})) if f.refuses]


def test_an_output_may_be_named_as_an_input(rng):
    from coremltools.converters.mil.mil import Function, Program

    program = Program()
    with Function({"x": mb.placeholder((1, 4)), "y": mb.placeholder((1, 4))}) as function:
        function.set_outputs([mb.sub(x=function.inputs["x"], y=function.inputs["y"], name="y")])
    program.add_function("main", function)
    prepared = prepare(program)
    assert dict(prepared.inputs) == {"x": "i00_x", "y": "i01_y"}
    assert list(prepared.outputs) == ["y"]
    assert [var.name for var in function.outputs] == ["y"]
    a, b = np.float16([[1, 2, 3, 4]]), np.float16([[4, 3, 2, 1]])
    np.testing.assert_array_equal(run(prepared.program, [a, b])[0], a - b)


def test_an_input_may_be_an_output():
    text = """program(1.3) {
        func main<ios18>(tensor<fp16, [1, 4]> x) {
            tensor<fp16, [1, 4]> y = relu(x = x);
        } -> (y, x);
    }"""
    prepared = prepare(anex.from_mil(text))
    assert dict(prepared.inputs) == {"x": "i00_x"}
    assert dict(prepared.outputs) == {"y": "o00_y", "x": "o01_x"}
    found = run(prepared.program, [np.float16([[-1, 2, -3, 4]])])
    assert [y.tolist() for y in found] == [[[0, 2, 0, 4]], [[-1, 2, -3, 4]]]


def test_a_copy_of_an_fp32_input_is_cast_to_and_fro(rng):
    @anex.graph(x=anex.spec((1, 4), "float32"))
    def program(x):
        return mb.identity(x=x, name="y")

    assert op_types(same(program, rng).program) == ["cast", "cast"]


def test_outputs_keep_their_names_where_ports_are_not_renamed(rng):
    @anex.graph(x=(1, 4))
    def program(x):
        return mb.identity(x=mb.relu(x=x), name="z")

    prepared = same(program, rng, {"port_names": False})
    assert dict(prepared.outputs) == {"z": "z"}
    assert list(run(prepared.program, [np.ones((1, 4), np.float16)])[0].flat) == [1, 1, 1, 1]
