"""States that are written in place, and constants that programs share: what a cache of keys and values needs."""

import mmap

import numpy as np
import pytest
from coremltools.converters.mil.mil import Builder as mb
from coremltools.converters.mil.mil import types
from memory import growth
from test_control import IOS18

import anex

pytestmark = pytest.mark.cpu_engine
SHAPE = (1, 2, 6, 4)


def cache(body):
    """A program of ``body(x, at, kept)`` with the state ``kept``; x [1, 2, 1, 4] is to be written at ``at``."""

    @mb.program(
        input_specs=[
            mb.TensorSpec((1, 2, 1, 4), types.fp16),
            mb.TensorSpec((4,), types.int32),
            mb.StateTensorSpec(SHAPE, types.fp16),
        ],
        **IOS18,
    )
    def program(x, at, kept):
        return body(x, at, kept)

    return anex.compile(program)


def written(x, at, kept, read=None):
    end = mb.add(x=at, y=np.array([1, 2, 1, 4], np.int32))
    return mb.slice_update(x=mb.read_state(input=kept) if read is None else read, update=x, begin=at, end=end)


def append(x, at, kept):
    return mb.reduce_sum(x=mb.coreml_update_state(state=kept, value=written(x, at, kept)), axes=[2], name="y")


def run(program, rng, check):
    state, expected = program.make_state(), np.zeros(SHAPE, np.float16)
    for position in (0, 3, 5, 3):
        x = rng.normal(size=(1, 2, 1, 4)).astype(np.float16)
        before = expected.copy()
        expected[:, :, position] = x[:, :, 0]
        found = program(x, np.array([0, 0, position, 0], np.int32), state=state)
        check(found, before, expected)
        np.testing.assert_array_equal(state["kept"], expected)


def ops_of(program):
    return [op for op, _, _ in program._executable.nodes()]


def test_a_slice_of_a_state_is_written_without_a_copy_of_the_state(rng):
    program = cache(append)
    assert "read_state" not in ops_of(program)
    assert "coreml_update_state" not in ops_of(program)
    assert program.stats()["arena_bytes"] < np.prod(SHAPE) * 2 + 200  # the sum and the end, no second state
    run(program, rng, lambda y, _, after: np.testing.assert_allclose(y, after.sum(2, dtype=np.float32), atol=1e-2))


def test_what_was_read_before_the_update_stays_what_it_was(rng):
    def body(x, at, kept):
        before = mb.read_state(input=kept)
        mb.coreml_update_state(state=kept, value=written(x, at, kept, before))
        return mb.mul(x=before, y=np.float16(1), name="y")

    run(cache(body), rng, lambda y, before, _: np.testing.assert_array_equal(y, before))


def test_two_reads_of_a_state_are_not_taken_for_one(rng):
    def body(x, at, kept):
        first = mb.read_state(input=kept)
        after = mb.coreml_update_state(state=kept, value=written(x, at, kept))
        return mb.sub(x=after, y=first, name="y")

    run(cache(body), rng, lambda y, before, after: np.testing.assert_array_equal(y, after - before))


def test_a_state_that_is_returned_is_returned_as_it_became(rng):
    def body(x, at, kept):
        return mb.coreml_update_state(state=kept, value=written(x, at, kept), name="y")

    run(cache(body), rng, lambda y, _, after: np.testing.assert_array_equal(y, after))


def test_what_is_written_may_depend_on_the_update_before_it_is_kept(rng):
    def body(x, at, kept):
        value = mb.mul(x=written(x, at, kept), y=np.float16(1))
        return mb.reduce_sum(x=mb.coreml_update_state(state=kept, value=value), axes=[2], name="y")

    run(cache(body), rng, lambda y, _, after: np.testing.assert_allclose(y, after.sum(2, dtype=np.float32), atol=1e-2))


# ---- constants ------------------------------------------------------------------------------------


def mapped(tmp_path, shape, rng):
    path = tmp_path / "weights"
    rng.normal(size=shape).astype(np.float16).tofile(path)
    return np.memmap(path, np.float16, "r", 0, shape)


def product(weight, rows=1):
    @anex.graph(x=anex.spec((rows, weight.shape[1]), "float16"))
    def linear(x):
        return mb.linear(x=x, weight=weight, name="y")

    return anex.compile(linear)


@pytest.mark.parametrize("rows", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("shape", [(1, 5), (64, 48), (131, 100), (300, 33)])
def test_a_product_with_weights_of_a_mapped_file_is_right(tmp_path, rng, rows, shape):
    weight = mapped(tmp_path, shape, rng)
    x = rng.normal(size=(rows, shape[1])).astype(np.float16)
    expected = x.astype(np.float64) @ weight.T.astype(np.float64)
    np.testing.assert_allclose(product(weight, rows)(x), expected, rtol=2e-3, atol=2e-2)


@pytest.mark.memory
def test_programs_share_weights_that_nobody_can_write():
    prepare = """
        weight = np.ones((2048, 2048), np.float16)
        weight.flags.writeable = False
        kept = []
        def another():
            program = anex.compile(anex.graph(x=(1, 2048))(lambda x: mb.linear(x=x, weight=weight)))
            assert np.asarray(program(np.ones((1, 2048), np.float16)))[0, 0] == 2048
            kept.append(program)
    """
    assert growth(prepare, "another()", warm=1, n=4) < 2048 * 2048 * 2


def test_shared_weights_outlive_the_array_that_brought_them(rng):
    weight = rng.normal(size=(64, 64)).astype(np.float16)
    x, expected = np.eye(1, 64, dtype=np.float16), weight[:, :1].T.copy()
    weight.flags.writeable = False
    program = product(weight)
    del weight
    np.testing.assert_array_equal(program(x), expected)


def test_a_constant_that_can_be_written_is_copied(rng):
    weight = rng.normal(size=(64, 64)).astype(np.float16)
    view = weight[:]
    view.flags.writeable = False  # the view only
    program = product(view)
    x = rng.normal(size=(1, 64)).astype(np.float16)
    before = np.array(program(x))
    weight[:] = 0
    np.testing.assert_array_equal(program(x), before)


def test_a_writable_map_is_copied_too(tmp_path, rng):
    path = tmp_path / "weights"
    path.write_bytes(rng.normal(size=(64, 64)).astype(np.float16).tobytes())
    with open(path, "r+b") as file:
        memory = mmap.mmap(file.fileno(), 0)
    array = np.frombuffer(memory, np.float16).reshape(64, 64)
    array.flags.writeable = False
    program = product(array)
    x = rng.normal(size=(1, 64)).astype(np.float16)
    before = np.array(program(x))
    memory[:] = bytes(len(memory))
    np.testing.assert_array_equal(program(x), before)


# ---- attention ------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float16", "float32", "bool"])
@pytest.mark.parametrize("queries", [1, 3, 40, 300])
def test_attention_leaves_out_what_a_mask_hides_at_the_end(queries, dtype, rng):
    """Keys behind the last that any query of a block sees are not even read: NaN there changes nothing."""
    keys, size, seen = 600, 16, 333
    q, k, v = (rng.normal(size=(1, 2, n, size)).astype(np.float16) for n in (queries, keys, keys))
    hidden = np.arange(keys) >= seen
    k[:, :, hidden], v[:, :, hidden] = np.nan, np.nan
    mask = ~hidden if dtype == "bool" else np.where(hidden, -np.inf, 0).astype(dtype)
    mask = np.broadcast_to(mask, (1, 1, queries, keys)).copy()
    causal = np.arange(keys)[None] > np.arange(queries)[:, None] + 20
    mask[..., causal] = False if dtype == "bool" else -np.inf

    @anex.graph(q=q.shape, k=k.shape, v=v.shape)
    def attention(q, k, v):
        return mb.scaled_dot_product_attention(query=q, key=k, value=v, attn_mask=mask, name="y")

    found = np.asarray(anex.compile(attention)(q, k, v), np.float64)
    scores = q.astype(np.float64) @ k[:, :, :seen].astype(np.float64).swapaxes(2, 3) / np.sqrt(size)
    scores = np.where((causal | hidden)[:, :seen], -np.inf, scores)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    expected = weights / weights.sum(-1, keepdims=True) @ v[:, :, :seen].astype(np.float64)
    np.testing.assert_allclose(found, expected, atol=5e-3)
