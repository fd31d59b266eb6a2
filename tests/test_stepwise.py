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


def test_nothing_found_is_an_empty_result():
    program, x = anex.compile(chosen), np.zeros((3, 4), "float16")
    y, total = program(x)
    assert y.shape == (0,)
    assert np.asarray(total) == 0
    assert np.asarray(anex.compile(chosen, ane_numerics=True)(x)[1]) == 0
    assert program(x, out=(np.empty((0,), "float16"), np.empty((), "float16")))[0].size == 0
    assert anex.compile(head)(np.ones((3, 4), "float16"), np.array([0], "int32")).shape == (4, 0)


# Of [n, 3] values, n of them chosen: what each op makes of none, as torch has it.
OF_NONE = {
    "reduce_sum": (lambda x: mb.reduce_sum(x=x, axes=[0]), lambda x: x.sum(0)),
    "reduce_prod": (lambda x: mb.reduce_prod(x=x, axes=[0], keep_dims=True), lambda x: x.prod(0, keepdim=True)),
    "reduce_mean": (lambda x: mb.reduce_mean(x=x), lambda x: x.mean()),
    "reduce_l2_norm": (lambda x: mb.reduce_l2_norm(x=x, axes=[0]), lambda x: x.norm(dim=0)),
    "reduce_sum_square": (lambda x: mb.reduce_sum_square(x=x, axes=[0]), lambda x: x.square().sum(0)),
    "reduce_log_sum_exp": (lambda x: mb.reduce_log_sum_exp(x=x, axes=[0]), lambda x: x.logsumexp(0)),
    "reduce_max of the other axis": (lambda x: mb.reduce_max(x=x, axes=[1]), lambda x: x.amax(1)),
    "matmul": (lambda x: mb.matmul(x=x, y=x, transpose_x=True), lambda x: x.T @ x),
    "linear": (
        lambda x: mb.linear(x=x, weight=np.ones((2, 3), "float32"), bias=np.arange(2, dtype="float32")),
        lambda x: torch.nn.functional.linear(x, torch.ones(2, 3), torch.arange(2.0)),
    ),
    "concat": (
        lambda x: mb.concat(values=[x, np.ones((2, 3), "float32"), x], axis=0),
        lambda x: torch.cat([x, torch.ones(2, 3), x]),
    ),
    "pad": (
        lambda x: mb.pad(x=x, pad=[1, 2, 0, 1], constant_val=np.float32(7)),
        lambda x: torch.nn.functional.pad(x, (0, 1, 1, 2), value=7),
    ),
    "scatter": (
        lambda x: mb.scatter(data=np.ones((2, 3), "float32"), indices=_zeros(x), updates=x, axis=0, mode="add"),
        lambda x: torch.ones(2, 3).index_add(0, torch.zeros(len(x), dtype=torch.long), x),
    ),
    "elementwise": (lambda x: mb.exp(x=mb.add(x=x, y=np.float32(1))), lambda x: (x + 1).exp()),
    "softmax": (lambda x: mb.softmax(x=x, axis=-1), lambda x: x.softmax(-1)),
    "layer_norm": (lambda x: mb.layer_norm(x=x, axes=[1]), lambda x: torch.nn.functional.layer_norm(x, (3,))),
    "transpose": (lambda x: mb.transpose(x=x, perm=[1, 0]), lambda x: x.T),
    "tile": (lambda x: mb.tile(x=x, reps=[2, 1]), lambda x: x.tile(2, 1)),
    "reshape": (
        lambda x: mb.reshape(x=x, shape=mb.concat(values=[_rows(x), [1, 3]], axis=0)),
        lambda x: x.reshape(len(x), 1, 3),
    ),
    "tile by none": (
        lambda x: mb.tile(x=np.ones((1, 3), "float32"), reps=mb.concat(values=[_rows(x), [1]], axis=0)),
        lambda x: torch.ones(1, 3).tile(len(x), 1),
    ),
    "stack": (lambda x: mb.stack(values=[x, x], axis=0), lambda x: torch.stack([x, x])),
    "split": (lambda x: mb.split(x=x, num_splits=3, axis=1)[1], lambda x: x[:, 1:2]),
    "cumsum": (lambda x: mb.cumsum(x=x, axis=0), lambda x: x.cumsum(0)),
    "reverse": (lambda x: mb.reverse(x=x, axes=[0]), lambda x: x.flip(0)),
    "gather": (lambda x: mb.gather(x=x, indices=[0, 2], axis=1), lambda x: x[:, [0, 2]]),
    "cast": (lambda x: mb.cast(x=x, dtype="int32"), lambda x: x.int()),
    "where": (lambda x: mb.select(cond=mb.greater(x=x, y=np.float32(0)), a=x, b=x), lambda x: x),
}  # fmt: skip


def _rows(x):
    return mb.slice_by_size(x=mb.shape(x=x), begin=[0], size=[1])


def _zeros(x):
    return mb.squeeze(x=mb.cast(x=mb.mul(x=mb.slice_by_size(x=x, begin=[0, 0], size=[-1, 1]), y=np.float32(0)),
                                dtype="int32"), axes=[1])  # fmt: skip


@pytest.mark.parametrize("op", OF_NONE)
def test_ops_of_nothing_give_what_torch_gives(op):
    build, expected = OF_NONE[op]

    @anex.graph(x=anex.spec((4, 3), "float32"), chosen=anex.spec((4,), "bool"))
    def graph(x, chosen):
        return mb.identity(x=build(mb.gather_nd(x=x, indices=mb.non_zero(x=chosen))), name="y")

    program, x = anex.compile(graph), np.arange(12, dtype="float32").reshape(4, 3)
    for chosen_rows in (np.zeros(4, bool), np.array([True, False, True, False])):
        found, wanted = np.asarray(program(x, chosen_rows)), expected(torch.from_numpy(x[chosen_rows])).numpy()
        assert found.shape == wanted.shape
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)


def test_what_has_no_result_of_nothing_is_said():
    @anex.graph(x=(3,))
    def largest(x):
        return mb.reduce_max(x=mb.gather_nd(x=x, indices=mb.non_zero(x=x)), axes=[0], name="y")

    program = anex.compile(largest)
    assert np.asarray(program(np.array([0, 3, 5], "float16"))) == 5
    with pytest.raises(anex.ShapeError, match=r"reduce_max 'y': .* is empty, shape \(0,\)"):
        program(np.zeros(3, "float16"))


def test_a_slice_that_ends_where_it_begins_is_empty():
    @anex.graph(x=(3, 4))
    def rest(x):
        return mb.slice_by_index(x=x, begin=[1, 0], end=[1, 4], name="y")

    program = anex.compile(rest)
    assert program.outputs["y"].shape == (0, 4)
    assert np.asarray(program(np.ones((3, 4), "float16"))).shape == (0, 4)
    with pytest.raises(anex.UnsupportedError, match="empty"):
        anex.compile(rest, device="ane", unchecked=False)


def test_warnings_blame_the_line_that_calls():
    compiled = anex.compile(chosen, ane_numerics=True)
    with pytest.warns(anex.AneWarning) as caught:
        compiled(np.full((3, 4), 2.0**-24, "float16"))
    assert {warning.filename for warning in caught} == {__file__}


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
    with pytest.raises(anex.ShapeError, match="input 'x'"):
        program(np.zeros((3, 5), "float16"))
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
