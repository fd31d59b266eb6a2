"""The Neural Engine's rules for single ops, each at the edge of its limit."""

import numpy as np
import pytest
from rules_case import CHIPS, ids, op_of, refusals

import anex
from anex import mb
from anex.ops import CURES, ane_findings
from anex.ops.limits import KERNEL_WIDTH
from anex.ops.rule import family


def conv(channels=3, out=2, kernel=(1, 1), batch=1, size=20, **more):
    weight = np.zeros((out, channels, *kernel), np.float16)
    return op_of("conv", x=(batch, channels, *[size] * len(kernel)), consts={"weight": weight, **more})


@pytest.mark.parametrize("chip", CHIPS)
def test_kernels_have_a_width(chip):
    limit = KERNEL_WIDTH[family(chip)]
    assert not refusals(conv(kernel=(20, limit)), chip)
    assert refusals(conv(kernel=(1, limit + 1)), chip) == {"kernel-width"}


def test_what_nobody_measured_of_kernels_is_doubtful():
    assert ids(conv(kernel=(1, 14)), "h14g") == {"kernel-width"}
    assert not refusals(conv(kernel=(1, 14)), "h14g")
    assert ids(conv(kernel=(14,)), "h17s") == {"kernel-width"}
    assert not ids(conv(kernel=(1, 15)), "h16g")


def test_weights_that_are_inputs_allow_one_image():
    def dynamic(batch):
        return op_of("conv", x=(batch, 3, 8, 8), weight=(2, 3, 1, 1))

    assert not refusals(dynamic(1))
    assert refusals(dynamic(2)) == {"dynamic-weights"}


def test_a_bias_is_contested_and_cured():
    op = conv(bias=np.zeros(2, np.float16))
    assert ids(op) == {"conv-bias"}
    assert not any(f.warns for f in ane_findings(op, "h16g"))
    assert any(f.warns for f in ane_findings(op, "h16g", cures=()))
    assert not ids(op, path="e5rt")


def test_4096_channels_are_slow_on_m4():
    op = conv(4096, 4096, size=1)
    assert ids(op, "h16g") == ids(op, "h17g") == {"conv-4096"}
    assert not ids(op, "h14g")
    assert not ids(conv(4096, 64, size=1), "h16g")


def test_contractions_have_an_extent():
    def product(k):
        return op_of("matmul", x=(1, 1, 2, k), y=(1, 1, k, 2))

    assert refusals(product(16416), "h14g") == {"axis-extent", "contraction-extent"}
    assert not refusals(product(16416), "h16g")
    assert ids(product(33), "h13g") == {"matmul-k32"}
    assert not ids(product(33), "h14g")


def test_products_of_rank_5_transposes_are_refused():
    @anex.graph(x=(1, 2, 3, 4, 5))
    def program(x):
        moved = mb.transpose(x=x, perm=(0, 1, 2, 4, 3))
        return mb.matmul(x=moved, y=x, name="y")

    product = next(op for op in program.functions["main"].operations if op.op_type == "matmul")
    assert refusals(product) == {"rank-5-matmul"}


def test_masks_and_length_of_attention():
    def attention(tokens, **mask):
        shape = (1, 2, tokens, 16)
        return op_of("scaled_dot_product_attention", query=shape, key=shape, value=shape, **mask)

    assert not ids(attention(511))
    assert ids(attention(512)) == {"sdpa-extent"}
    assert ids(attention(8, attn_mask=(8, 8))) == {"sdpa-mask"}
    assert not ids(attention(8, attn_mask=(8, 8)), path="e5rt")


def test_the_length_of_a_softmax():
    assert not ids(op_of("softmax", x=(1, 512, 1, 511), consts={"axis": -1}))
    assert ids(op_of("softmax", x=(1, 512, 1, 511), consts={"axis": 1})) == {"softmax-extent"}


@pytest.mark.parametrize(("chip", "warned"), [("h13g", True), ("h15g", True), ("h16g", False)])
def test_slices_inside_the_last_axis(chip, warned):
    inside = op_of("slice_by_index", x=(1, 8), consts={"begin": [0, 2], "end": [1, 4]})
    counted = op_of("slice_by_index", x=(1, 8), consts={"begin": [0, -3], "end": [1, 8]})
    masked = op_of("slice_by_index", x=(1, 8), consts={"begin": [0, 2], "end": [1, 4], "begin_mask": [False, True]})
    other = op_of("slice_by_size", x=(4, 8), consts={"begin": [2, 0], "size": [2, 8]})
    assert ids(inside, chip) == ids(counted, chip) == ({"slice-range"} if warned else set())
    assert not ids(other, chip)
    assert not ids(masked, chip)


@pytest.mark.parametrize(
    ("op", "inputs", "consts", "chip", "found"),
    [
        ("max_pool", {"x": (1, 2, 40, 40)}, {"kernel_sizes": [1, 30], "pad_type": "valid"}, "h13g", {"pool-window"}),
        ("max_pool", {"x": (1, 2, 40, 40)}, {"kernel_sizes": [1, 30], "pad_type": "valid"}, "h14g", set()),
        ("avg_pool", {"x": (1, 2, 40, 40)}, {"kernel_sizes": [32, 1], "pad_type": "valid"}, "h17g", {"pool-window"}),
        ("topk", {"x": (1, 9)}, {"k": 3}, "h17g", {"topk-k"}),
        ("topk", {"x": (1, 9)}, {"k": 5}, "h17g", set()),
        ("topk", {"x": (1, 9)}, {"k": 5}, "h13g", {"too-old"}),
        ("reduce_sum", {"x": (1, 2, 1025)}, {"axes": [1, 2]}, "h16g", {"sum-range"}),
        ("reduce_sum", {"x": (1, 2, 1024)}, {"axes": [1, 2]}, "h16g", set()),
        ("l2_norm", {"x": (2, 3, 4)}, {}, "h16g", {"l2-norm-axes"}),
        ("l2_norm", {"x": (2, 3, 4, 5)}, {}, "h16g", set()),
        ("l2_norm", {"x": (2, 3, 4, 5, 6)}, {}, "h16g", {"l2-norm-axes"}),
        ("local_response_norm", {"x": (1, 16, 4)}, {"size": 3}, "h16g", {"lrn-channels"}),
        ("local_response_norm", {"x": (1, 15, 4)}, {"size": 3}, "h16g", set()),
        ("pad", {"x": (1, 2, 4, 4)}, {"pad": [0, 0, 1, 1], "mode": "reflect"}, "h13g", {"pad-mode"}),
        ("pad", {"x": (1, 2, 4, 4)}, {"pad": [0, 0, 1, 1], "mode": "reflect"}, "h14g", set()),
        ("sin", {"x": (1, 4)}, {}, "h14g", {"too-old"}),
        ("sin", {"x": (1, 4)}, {}, "h15g", set()),
        ("add", {"x": (1, 4, 8), "y": (1, 4, 1)}, {}, "h13g", {"thin-broadcast"}),
        ("add", {"x": (1, 4, 8), "y": (1, 4, 1)}, {}, "h14g", set()),
        ("gelu", {"x": (1, 4)}, {"mode": "EXACT"}, "h16g", {"gelu"}),
        ("stack", {"x": (1, 4)}, None, "h16g", {"concat"}),
        ("reduce_argmax", {"x": (1, 4096)}, {"axis": -1}, "h16g", {"contested-op", "index-range"}),
    ],
)  # fmt: skip
def test_limits_at_their_edges(op, inputs, consts, chip, found):
    if op == "stack":

        @anex.graph(x=(1, 4))
        def program(x):
            return mb.stack(values=[x, x], axis=0, name="y")

        use = program.functions["main"].operations[-1]
    else:
        use = op_of(op, **inputs, consts=consts)
    assert ids(use, chip) == found
    assert not refusals(use, chip)


@pytest.mark.parametrize("op", ["tan", "acos", "cosh"])
def test_what_a_pass_writes_in_other_ops_is_refused_only_without_it(op):
    use = op_of(op, x=(1, 4))
    assert not refusals(use)
    assert refusals(use, cures=CURES - {"rewrite_refused"}) == {"unsupported-op"}


def test_every_check_runs_on_every_op_of_the_op_tests_own_kind():
    """No rule raises on odd but legal uses: constants left out, rank 1, scalars."""
    uses = [
        op_of("softmax", x=(5,)), op_of("topk", x=(5,)), op_of("reduce_sum", x=(5,)),
        op_of("matmul", x=(2, 5), y=(5, 3)),
        op_of("slice_by_index", x=(5,), consts={"begin": [0], "end": [2]}), op_of("gelu", x=(5,)),
        op_of("pad", x=(5,), consts={"pad": [1, 1]}), op_of("l2_norm", x=(1, 2, 3)),
        op_of("linear", x=(1, 5), consts={"weight": np.zeros((2, 5), np.float16)}),
        op_of("conv", x=(1, 2, 5), weight=(2, 2, 3)), op_of("reduce_argmax", x=(5,), consts={"axis": 0}),
    ]  # fmt: skip
    for use in uses:
        for chip in CHIPS:
            assert not refusals(use, chip)
