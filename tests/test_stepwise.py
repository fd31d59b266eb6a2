"""Programs in which data decide shapes, against numpy and torch."""

from __future__ import annotations

import pickle
import threading

import numpy as np
import pytest
import torch
from coremltools.converters.mil.mil.ops.registry import SSAOpRegistry

import anex
from anex import mb
from anex.devices.stepwise import FOUND


@anex.graph(x=(3, 4))
def chosen(x):
    y = mb.gather_nd(x=x, indices=mb.non_zero(x=x, name="places"))
    return mb.mul(x=y, y=np.float16(2), name="y"), mb.reduce_sum(x=y, axes=[0], name="total")


@anex.graph(x=(3, 4), n=anex.spec((1,), "int32"))
def head(x, n):
    rows = mb.range_1d(start=np.int32(0), end=mb.squeeze(x=n), step=np.int32(1))
    return mb.transpose(x=mb.gather(x=x, indices=rows, axis=0), perm=[1, 0], name="y")


def sparse(rng, *shape):
    return (rng.normal(size=shape) * (rng.random(shape) < 0.5)).astype("float16")


def test_what_is_not_zero_is_found_in_order(rng):
    program = anex.compile(chosen)
    for _ in range(5):
        x = sparse(rng, 3, 4)
        x.flat[0], x.flat[5] = 1, -0.0
        y, total = program(x)
        np.testing.assert_array_equal(y, x[x != 0] * 2)
        np.testing.assert_allclose(total, x.sum(), atol=1e-2)


@pytest.mark.parametrize("dtype", sorted(FOUND["non_zero"]))
@pytest.mark.parametrize("shape", [(7,), (3, 4), (2, 3, 4), (2, 1, 3, 2, 2)])
def test_non_zero_of_every_dtype_and_rank(rng, dtype, shape):
    @anex.graph(x=anex.spec(shape, dtype))
    def places(x):
        return mb.identity(x=mb.non_zero(x=x), name="y")

    x = rng.integers(-1, 2, shape).astype(dtype)
    x.flat[-1] = 1
    np.testing.assert_array_equal(anex.compile(places)(x), np.argwhere(x))


def test_non_zero_takes_the_dtypes_that_coremltools_lists():
    (cls,) = {*SSAOpRegistry.core_ops["non_zero"].values()}
    names = {each.__type_info__().name for each in cls.type_domains["T"]}
    assert {name.replace("float", "fp") for name in FOUND["non_zero"]} == names


def test_outputs_say_which_dimensions_data_decide():
    program = anex.compile(chosen)
    assert program.outputs == {"y": anex.Spec((-1,), np.dtype("float16")), "total": anex.spec((), "float16")}
    assert "y: (-1,) float16" in repr(program)


def test_computed_sizes_and_places_decide_shapes(rng):
    program, x = anex.compile(head), sparse(rng, 3, 4)
    for n in (1, 3, 2, 3):
        np.testing.assert_array_equal(program(x, np.array([n], "int32")), x[:n].T)


@pytest.mark.parametrize(
    ("build", "expected"),
    [
        (lambda x, n: mb.tile(x=x, reps=mb.concat(values=[n, [2]], axis=0)), lambda x, n: np.tile(x, (n, 2))),
        (lambda x, n: mb.slice_by_size(x=x, begin=[1, 0], size=mb.concat(values=[n, [3]], axis=0)),
         lambda x, n: x[1 : 1 + n, :3]),
        (lambda x, n: mb.slice_by_index(x=x, begin=[0, 1], end=mb.concat(values=[n, [4]], axis=0)),
         lambda x, n: x[:n, 1:4]),
        (lambda x, n: mb.add(x=mb.fill(shape=mb.concat(values=[n, [4]], axis=0), value=np.float16(3)), y=np.float16(1)),
         lambda x, n: np.full((n, 4), 4)),
        (lambda x, n: mb.pad(x=x, pad=mb.concat(values=[n, [0, 1, 0]], axis=0), constant_val=np.float16(0)),
         lambda x, n: np.pad(x, [(n, 0), (1, 0)])),
    ],
)  # fmt: skip
def test_ops_whose_arguments_are_computed(rng, build, expected):
    @anex.graph(x=(3, 4), n=anex.spec((1,), "int32"))
    def graph(x, n):
        return mb.identity(x=build(x, n), name="y")

    program, x = anex.compile(graph), sparse(rng, 3, 4)
    for n in (1, 2):
        np.testing.assert_array_equal(program(x, np.array([n], "int32")), expected(x, n))


def test_one_after_the_other(rng):
    @anex.graph(x=(4, 5))
    def graph(x):
        first = mb.gather_nd(x=x, indices=mb.non_zero(x=x))
        large = mb.cast(x=mb.greater(x=first, y=np.float16(1)), dtype="fp16")
        return mb.gather_nd(x=first, indices=mb.non_zero(x=large), name="y")

    x = sparse(rng, 4, 5)
    x[2] = 3
    np.testing.assert_array_equal(anex.compile(graph)(x), x[(x != 0) & (x > 1)])


def test_a_torch_module_that_picks_elements_agrees_with_torch(rng):
    class Picks(torch.nn.Module):
        def forward(self, x):
            places = torch.nonzero(x > 0.5)
            return places, x[places[:, 0], places[:, 1]] * 2

    x = torch.tensor(rng.normal(size=(5, 6))).float()
    places, values = anex.compile(anex.from_torch(Picks().eval(), precision="float32", x=x))(x.numpy())
    wanted = Picks()(x)
    np.testing.assert_array_equal(places, wanted[0])
    np.testing.assert_allclose(values, wanted[1], rtol=1e-6)


def test_shapes_that_came_before_are_planned_no_more():
    program = anex.compile(chosen)
    program(np.eye(3, 4, dtype="float16"))
    steps = program.stats()["steps"]
    program(np.eye(3, 4, dtype="float16")[::-1])
    assert program.stats()["steps"] == steps
    program(np.ones((3, 4), "float16"))
    assert program.stats()["steps"] == steps + 1


def test_options_hold_for_every_step():
    @anex.graph(x=(3, 4))
    def small(x):
        y = mb.gather_nd(x=x, indices=mb.non_zero(x=x))
        return mb.mul(x=y, y=np.float16(2**-10), name="y")

    x = np.full((3, 4), 2.0**-8, "float16")
    with pytest.warns(anex.AneWarning, match="mul"):
        assert not np.asarray(anex.compile(small, ane_numerics=True)(x)).any()


def test_out_pickles_threads_and_futures(rng):
    program = pickle.loads(pickle.dumps(anex.compile(chosen)))
    x = np.eye(3, 4, dtype="float16")
    y, total = anex.empty((3,), "float16"), anex.empty((), "float16")
    assert program(x, out=(y, total))[0] is y
    assert np.asarray(y).tolist() == [2, 2, 2]
    with pytest.raises(anex.ShapeError, match="output 'y'"):
        program(np.ones((3, 4), "float16"), out=(y, total))
    assert np.asarray(program.submit(x).result()[1]) == 3
    wrong = []

    def call(seed):
        x = sparse(np.random.default_rng(seed), 3, 4)
        x[0, 0] = 1
        wrong.extend(0 for _ in range(10) if (np.asarray(program(x)[0]) != x[x != 0] * 2).any())

    threads = [threading.Thread(target=call, args=(seed,)) for seed in range(4)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert not wrong


def test_a_profile_has_the_ops_of_every_step_and_what_was_found_between_them(rng):
    x = (rng.random((3, 4)) < 0.5).astype("float16")
    x[0, 0] = 1

    @anex.graph(x=(3, 4))
    def program(x):
        places = mb.non_zero(x=x, name="places")
        return mb.gather_nd(x=mb.exp(x=x, name="e"), indices=places, name="y")

    compiled = anex.compile(program)
    profile = compiled.profile(x, repeat=2)
    rows = {row.name: row for row in profile.rows}
    count = int(x.sum())
    assert rows["places"].op == "non_zero"
    assert rows["places"].bytes == x.nbytes + count * 2 * 4
    assert rows["e"].flops == 12
    assert rows["y"].bytes == 2 * count * 2 + count * 2 * 4  # as much read as written, and the indices
    assert all(row.seconds > 0 for row in profile.rows)
    assert profile.memory.arena_bytes == compiled.stats()["arena_bytes"]
    np.testing.assert_array_equal(compiled(x), np.exp(x[x != 0]))


def test_what_cannot_be_is_said():
    program = anex.compile(chosen)
    with pytest.raises(anex.ShapeError, match="non_zero 'places' found nothing"):
        program(np.zeros((3, 4), "float16"))
    with pytest.raises(anex.ShapeError, match="input 'x'"):
        program(np.zeros((3, 5), "float16"))
    with pytest.raises(anex.ShapeError, match="dimension 0 is 0"):
        anex.compile(head)(np.ones((3, 4), "float16"), np.array([0], "int32"))
    program.close()
    with pytest.raises(anex.Error, match="closed"):
        program(np.ones((3, 4), "float16"))

    @anex.graph(x=(3, 4), b=anex.spec((1,), "bool"))
    def branches(x, b):
        places = mb.non_zero(x=x)
        y = mb.cond(pred=mb.squeeze(x=b), _true_fn=lambda: mb.identity(x=x), _false_fn=lambda: mb.relu(x=x))
        return places, y

    with pytest.raises(anex.UnsupportedError, match="without control flow"):
        anex.compile(branches)
