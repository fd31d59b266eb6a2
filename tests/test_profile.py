"""Profiles: what they say of a program is right, whatever the clock says."""

import dataclasses
import json
import math
from html.parser import HTMLParser

import numpy as np
import pytest
from coremltools.converters.mil import Builder as mb
from coremltools.converters.mil.mil.ops.registry import SSAOpRegistry

import anex
from anex import _native
from anex.devices.stepwise import FOUND
from anex.ops import OPS, define
from anex.profiling import Limits, Memory

LIMITS = Limits("cpu", "generic", 1, flops_per_second=100e9, bytes_per_second=10e9)


def cost(program, op_type):
    """(FLOP, bytes) of the last op of that type."""
    op = program.functions["main"].find_ops(op_type=op_type)[-1]
    return OPS[op_type].flops(op), OPS[op_type].bytes(op)


def half(*shape):
    return np.ones(shape, np.float16)


@anex.graph(x=(1, 8, 4, 4))
def small(x):
    h = mb.relu(x=mb.conv(x=x, weight=half(16, 8, 1, 1)), name="h")
    flat = mb.reshape(x=h, shape=[1, 16, 16])
    return mb.softmax(x=mb.matmul(x=flat, y=flat, transpose_y=True), axis=-1, name="y")


@pytest.fixture(scope="module")
def profile():
    return anex.compile(small).profile(half(1, 8, 4, 4), repeat=3)


# ---- the registry -------------------------------------------------------------------------------


def test_every_kernel_has_a_cost_and_every_cost_a_kernel():
    assert set(OPS) == {op for op in _native.kernels() if not op.startswith("anex_")} | set(FOUND)


def test_every_cost_is_that_of_an_op_of_coremltools():
    assert set(OPS) <= {*SSAOpRegistry.core_ops, *SSAOpRegistry.dialect_ops}


def test_an_op_is_defined_once():
    with pytest.raises(ValueError, match="softmax is defined twice"):
        define("softmax", vjp=OPS["softmax"].vjp)


def test_products_count_two_flop_per_multiply_add():
    @anex.graph(x=(2, 5, 7))
    def products(x):
        a = mb.linear(x=x, weight=half(11, 7), bias=half(11))
        b = mb.matmul(x=x, y=x, transpose_x=True)
        c = mb.einsum(values=(x, half(7, 5, 3)), equation="chw,whr->chr")
        return a, b, c

    assert cost(products, "linear") == (2 * 2 * 5 * 11 * 7, 2 * (70 + 77 + 11 + 110))
    assert cost(products, "matmul") == (2 * 2 * 7 * 7 * 5, 2 * (70 + 70 + 98))
    assert cost(products, "einsum") == (2 * 2 * 5 * 7 * 3, 2 * (70 + 105 + 30))


def test_convolutions_count_their_kernel_groups_and_strides():
    @anex.graph(x=(1, 8, 10, 10))
    def convs(x):
        a = mb.conv(x=x, weight=half(16, 4, 3, 3), groups=2, strides=[2, 2], pad_type="valid")
        return a, mb.conv_transpose(x=x, weight=half(8, 6, 2, 2), strides=[2, 2])

    assert cost(convs, "conv") == (2 * 16 * 4 * 4 * 4 * 9, 2 * (800 + 16 * 36 + 256))
    assert cost(convs, "conv_transpose") == (2 * 800 * 6 * 4, 2 * (800 + 8 * 24 + 6 * 400))


def test_softmax_counts_five_flop_per_element_and_attention_both_products():
    @anex.graph(x=(1, 12, 64, 32))
    def attention(x):
        return mb.softmax(x=x), mb.scaled_dot_product_attention(query=x, key=x, value=x)

    size = 12 * 64 * 32
    assert cost(attention, "softmax") == (5 * size, 2 * 2 * size)
    scores = 12 * 64 * 64
    assert cost(attention, "scaled_dot_product_attention") == (scores * (2 * 32 + 5 + 2 * 32), 2 * 4 * size)


def test_moving_data_counts_no_flop_and_a_view_no_bytes_either():
    @anex.graph(x=(4, 6))
    def moves(x):
        rows = mb.gather(x=half(1000, 6), indices=np.array([1, 2], np.int32), axis=0)
        return mb.transpose(x=x, perm=[1, 0]), mb.reshape(x=x, shape=[24]), mb.concat(values=(x, rows), axis=0)

    assert cost(moves, "transpose") == (0, 2 * 48)
    assert cost(moves, "reshape") == (0, 0)
    assert cost(moves, "concat") == (0, 2 * (24 + 12 + 36))


def test_a_gather_counts_the_rows_it_takes_not_the_table():
    @anex.graph(i=anex.spec((2,), "int32"))
    def embed(i):
        return mb.gather(x=half(1000, 6), indices=i, axis=0)

    assert cost(embed, "gather") == (0, 8 + 2 * 2 * 12)


def test_a_recurrent_op_counts_the_products_of_every_step():
    @anex.graph(x=(5, 2, 3), h=(2, 4), c=(2, 4))
    def lstm(x, h, c):
        return mb.lstm(x=x, initial_h=h, initial_c=c, weight_ih=half(16, 3), weight_hh=half(16, 4), bias=half(16))

    assert cost(lstm, "lstm")[0] == 2 * 5 * 2 * (16 * 3 + 16 * 4)


def test_the_published_model_of_128_convolutions_has_the_published_flop_and_bytes():
    @anex.graph(x=(1, 512, 64, 64))
    def chain(x):
        weight = half(512, 512, 1, 1)
        for _ in range(128):
            x = mb.conv(x=x, weight=weight)
        return x

    ops = chain.functions["main"].find_ops(op_type="conv")
    assert len(ops) == 128
    assert round(sum(OPS["conv"].flops(op) for op in ops) / 1e9, 2) == 274.88
    assert {OPS["conv"].bytes(op) for op in ops} == {int(8.5 * 2**20)}


def test_quantizing_costs_what_the_published_profiler_says():
    @anex.graph(x=(1, 512, 64, 64))
    def quantize(x):
        return mb.dequantize(input=mb.quantize(input=x, scale=np.float16(0.125), output_dtype="int8"), scale=half()[()])

    assert cost(quantize, "quantize") == (2 * 512 * 4096, 6 * 2**20)


# ---- products of integers ----


def w8a8(weight):
    """A convolution between quantized values, 64 channels of 8 x 8."""

    @anex.graph(x=(1, 64, 8, 8))
    def program(x):
        scale = np.float16(0.125)
        q = mb.dequantize(input=mb.quantize(input=x, scale=scale, output_dtype="int8"), scale=scale)
        y = mb.conv(x=q, weight=mb.constexpr_blockwise_shift_scale(**weight), name="y")
        return mb.dequantize(input=mb.quantize(input=y, scale=scale, output_dtype="int8", name="q"), scale=scale)

    return program


def test_an_int8_product_touches_the_bytes_of_its_integers(rng):
    weight = {
        "data": rng.integers(-99, 99, (64, 64, 1, 1)).astype(np.int8),
        "scale": np.ones((64, 1, 1, 1), np.float16),
    }
    profile = anex.compile(w8a8(weight)).profile(half(1, 64, 8, 8), repeat=1)
    (row,) = [row for row in profile.rows if row.op == "anex_conv_int8"]
    assert row.name == "y + q"
    assert row.bytes == 4096 + (4096 + 2 * 64) + 4096  # int8 in, int8 weights and their scales, int8 out
    assert row.flops == 2 * 64 * 64 * 64 + 2 * 4096


def test_a_product_with_4_bit_weights_touches_half_a_byte_of_each(rng):
    from coremltools.converters.mil.mil import types

    data = rng.integers(-8, 8, (32, 64)).astype(types.np_int4_dtype)

    @anex.graph(x=(4, 64))
    def program(x):
        weight = mb.constexpr_blockwise_shift_scale(data=data, scale=half(32, 4))
        return mb.linear(x=x, weight=weight, name="y")

    (row,) = anex.compile(program).profile(half(4, 64), repeat=1).rows
    assert row.op == "anex_linear_codes"
    assert row.bytes == 2 * 4 * 64 + (32 * 64 // 2 + 2 * 32 * 4) + 2 * 32 + 2 * 4 * 32  # with a bias of zeros


# ---- a profile ----------------------------------------------------------------------------------


def test_rows_are_the_ops_that_ran_in_their_order(profile):
    assert [row.op for row in profile.rows] == ["conv", "matmul", "softmax"]
    assert profile.rows[0].name.endswith(" + h")  # the relu runs as part of the convolution
    assert profile.rows[2].name == "y"
    assert [row.flops for row in profile.rows] == [2 * 16 * 16 * 8 + 256, 2 * 16 * 16 * 16, 5 * 256]
    assert profile.flops == sum(row.flops for row in profile.rows)


def test_shares_sum_to_one(profile):
    assert math.isclose(sum(row.share for row in profile.rows), 1)
    assert math.isclose(sum(each.share for each in profile.by_op), 1)


def test_rates_follow_from_cost_and_time(profile):
    for row in profile.rows:
        assert row.p10 <= row.seconds <= row.p90
        assert row.bound in ("compute", "memory", "overhead")
        assert math.isclose(row.gflops * 1e9 * max(row.seconds, 1e-9), row.flops)
        assert math.isclose(row.gbytes_per_s * 1e9 * max(row.seconds, 1e-9), row.bytes)
    assert math.isclose(profile.tflops * 1e12 * profile.median, profile.flops)


def test_memory_is_that_of_the_program(profile):
    stats = anex.compile(small).stats()
    assert profile.memory.arena_bytes == stats["arena_bytes"]
    assert profile.memory.live_bytes_peak == stats["live_bytes_peak"]
    assert profile.memory.packed_bytes == stats["packed_bytes"]
    assert profile.memory.ratio >= 1


def test_the_limits_are_measured_once_and_named(profile):
    again = anex.compile(small).profile(half(1, 8, 4, 4), repeat=1)
    assert again.limits is profile.limits
    assert profile.limits.device == "cpu"
    assert profile.limits.instruction_set == _native.instruction_sets()[0]
    assert profile.limits.flops_per_second > 0
    assert profile.limits.bytes_per_second > 0


@pytest.mark.parametrize(
    ("flops", "bytes", "bound"),
    [(100e9, 1e9, "compute"), (10e9, 10e9, "memory"), (1e9, 0.5e9, "overhead"), (0, 0, "overhead")],
)
def test_the_bound_is_the_limit_that_explains_the_time(flops, bytes, bound):
    assert LIMITS.bound(flops, bytes, seconds=1) == bound


def test_profiling_changes_no_result_and_no_input(rng):
    program = anex.compile(small)
    x = rng.normal(size=(1, 8, 4, 4)).astype(np.float16)
    before, kept = np.array(program(x)), x.copy()
    program.profile(x=x, repeat=2)
    np.testing.assert_array_equal(x, kept)
    np.testing.assert_array_equal(program(x), before)


def test_a_profiled_run_computes_what_a_run_does(rng):
    program = anex.compile(small)
    x = rng.normal(size=(1, 8, 4, 4)).astype(np.float16)
    out = anex.zeros((1, 16, 16))
    seconds = program._executable.profile((x,), out)
    np.testing.assert_array_equal(out, program(x))
    assert len(seconds) == len(program._executable.nodes()) == program.stats()["nodes"]


def test_a_program_that_only_copies_has_the_copy_as_its_row():
    @anex.graph(x=(4, 4))
    def same(x):
        return mb.identity(x=x, name="y")

    (row,) = anex.compile(same).profile(half(4, 4), repeat=1).rows
    assert (row.op, row.flops, row.bytes, row.share) == ("anex_copy", 0, 64, 1)


@pytest.mark.parametrize("repeat", [0, -1, 1.5, True, "3"])
def test_a_repeat_that_counts_nothing_is_refused(repeat):
    with pytest.raises(anex.ArgumentError, match="repeat="):
        anex.compile(small).profile(half(1, 8, 4, 4), repeat=repeat)


def test_wrong_inputs_and_closed_programs_are_refused_as_in_a_call():
    program = anex.compile(small)
    with pytest.raises(anex.ArgumentError, match="missing 'x'"):
        program.profile(z=half(1, 8, 4, 4))
    with pytest.raises(anex.ShapeError):
        program.profile(half(1, 8, 4))
    program.close()
    with pytest.raises(anex.ClosedError):
        program.profile(half(1, 8, 4, 4))


# ---- what it prints and writes ------------------------------------------------------------------


def test_the_text_names_the_device_and_lists_types_and_ops(profile, capfd):
    text = str(profile)
    assert text.startswith("device cpu (measured): ")
    assert "limits of cpu (measured)" in text
    header = next(line for line in text.splitlines() if line.startswith("op "))
    assert header.split("  ")[0] == "op"
    for column in ("count", "ms/op", "total ms", "GFLOP", "GB/s", "share", "bound"):
        assert column in header
    for row in profile.rows:
        assert text.count(row.name) >= 1
    assert "TOTAL" in text
    assert capfd.readouterr() == ("", "")


def test_json_comes_back_as_the_same_profile(profile):
    text = profile.to_json()
    assert anex.Profile.from_json(text) == profile
    found = json.loads(text)
    assert found["device"] == "cpu"
    assert found["tflops"] == profile.tflops
    assert found["rows"][0]["op"] == "conv"


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"device": "cpu"}'])
def test_what_is_no_profile_is_refused(text):
    with pytest.raises(anex.FormatError, match="no profile"):
        anex.Profile.from_json(text)


class Page(HTMLParser):
    """Tags that were opened, which must close in order; and words."""

    VOID = ("meta", "br")

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.words = [], [], ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words += data


def test_the_page_is_well_formed_with_one_bar_per_op_and_nothing_from_elsewhere(profile):
    text = profile.to_html()
    page = Page(text)
    assert page.open == []
    bars = [attributes for tag, attributes in page.tags if tag == "rect" and attributes.get("class") == "op"]
    assert len(bars) == len(profile.rows)
    assert math.isclose(sum(float(bar["width"]) for bar in bars), 960, abs_tol=0.1)
    assert sum(tag == "circle" for tag, _ in page.tags) == len(profile.rows)
    assert not any(tag in ("script", "link", "img", "iframe") for tag, _ in page.tags)
    assert not any(key in ("src", "href") for _, attributes in page.tags for key in attributes)
    assert "http" not in text
    assert "device cpu (measured)" in page.words


def test_names_are_text_whatever_is_in_them(profile):
    row = dataclasses.replace(profile.rows[0], name="<b>&", op='"<i>')
    page = Page(dataclasses.replace(profile, rows=(row,), device="<u>").to_html())
    assert page.open == []
    assert not any(tag in ("b", "u") for tag, _ in page.tags)
    assert "<b>&" in page.words


def test_a_notebook_shows_the_page_without_its_frame(profile):
    text = profile._repr_html_()
    assert Page(text).open == []
    assert "<html" not in text
    assert text in profile.to_html()


def test_a_program_of_which_nothing_runs_has_an_empty_profile():
    empty = anex.Profile("cpu", 1, 1e-6, 1e-6, 1e-6, 1e-6, (), Memory(0, 0, 0), LIMITS)
    assert str(empty).startswith("device cpu")
    assert Page(empty.to_html()).open == []
    assert anex.Profile.from_json(empty.to_json()) == empty
