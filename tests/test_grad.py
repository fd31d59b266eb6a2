"""``anex.value_and_grad`` and ``anex.vjp``: whole programs, what they keep, and what they refuse."""

import dataclasses

import coremltools as ct
import numpy as np
import pytest
import torch
import transformer

import anex
from anex import mb
from anex.ops import OPS

TOLERANCE = {"float32": 2e-4, "float16": 3e-2}


def torch_gradients(given, weights):
    tensors = {name: torch.tensor(np.asarray(w, np.float64), requires_grad=True) for name, w in weights.items()}
    loss = transformer.torch_loss(given, tensors)
    return loss.item(), dict(zip(weights, torch.autograd.grad(loss, list(tensors.values())), strict=True))


def compare(results, loss, wanted, tolerance):
    assert abs(float(np.asarray(results[0])[0]) - loss) < tolerance * max(1, abs(loss))
    for found, (name, gradient) in zip(results[1:], wanted.items(), strict=False):
        scale = float(gradient.abs().max())
        error = np.abs(np.asarray(found, np.float64) - gradient.numpy()).max()
        assert error <= tolerance * scale, f"{name}: {error} of {scale}"


@pytest.mark.parametrize("attention", [False, True])
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_a_transformer_s_gradients_are_torch_s(dtype, attention):
    weights = {name: w.astype(dtype) for name, w in transformer.weights().items()}
    given = transformer.text()
    step = anex.compile(anex.value_and_grad(transformer.program(dtype, attention), weights))
    compare(step(**given, **weights), *torch_gradients(given, weights), TOLERANCE[dtype])


@pytest.mark.parametrize(
    "checkpoint", ["products", ["layer_0", "attended_1"], lambda op: op.op_type == "softmax", []],
    ids=["products", "layers", "a function", "nothing"],
)  # fmt: skip
def test_what_is_computed_again_changes_no_gradient(checkpoint):
    weights = {name: w.astype(np.float32) for name, w in transformer.weights().items()}
    given = transformer.text()
    program = transformer.program("float32")
    whole, again = (anex.value_and_grad(program, weights, checkpoint=c) for c in (None, checkpoint))
    counts = [len(p.functions["main"].operations) for p in (whole, again)]
    assert counts[0] < counts[1]
    results = [anex.compile(p)(**given, **weights) for p in (whole, again)]
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=1e-5, atol=1e-6)


def test_less_is_kept_where_it_is_computed_again():
    @anex.graph(x=anex.spec((64, 64), "float32"), w=anex.spec((64, 64), "float32"))
    def chain(x, w):
        for i in range(12):
            x = mb.tanh(x=mb.sin(x=mb.matmul(x=x, y=w)), name=f"layer_{i}")
        return mb.reduce_sum(x=x, axes=[0, 1], keep_dims=True, name="loss")

    whole, again = (
        anex.compile(anex.value_and_grad(chain, checkpoint=c)).stats()["live_bytes_peak"]
        for c in (None, ["layer_3", "layer_7"])
    )
    assert again < whole * 0.8


# ---- vjp, several functions of the same value ------------------------------------------------------------------


def spec(*shape, dtype="float32"):
    return anex.spec(shape, dtype)


def torchs(function, *arrays):
    tensors = [torch.tensor(np.asarray(a, np.float64), requires_grad=True) for a in arrays]
    y = function(*tensors)
    return [y.item(), *(g.numpy() for g in torch.autograd.grad(y, tensors))]


def test_a_value_that_is_used_twice_collects_both_gradients(rng):
    @anex.graph(x=spec(3, 4))
    def program(x):
        y = mb.sin(x=x)
        return mb.reduce_sum(x=mb.add(x=mb.mul(x=y, y=y), y=mb.exp(x=y)), axes=[0, 1], keep_dims=True, name="loss")

    x = rng.normal(size=(3, 4)).astype(np.float32)
    _, dx = anex.compile(anex.value_and_grad(program))(x)
    _, wanted = torchs(lambda x: (torch.sin(x) ** 2 + torch.exp(torch.sin(x))).sum(), x)
    np.testing.assert_allclose(np.asarray(dx), wanted, rtol=1e-4, atol=1e-5)


def test_an_input_that_the_loss_does_not_depend_on_has_the_gradient_zero():
    @anex.graph(x=spec(2), y=spec(300, 300))
    def program(x, y):
        return mb.reduce_sum(x=mb.square(x=x), axes=[0], keep_dims=True, name="loss"), mb.sin(x=y, name="other")

    step = anex.compile(anex.value_and_grad(program, ["y", "x"]))
    assert list(step.outputs) == ["loss", "other", "grad_y", "grad_x"]
    *_, dy, dx = step(np.ones(2, np.float32), np.ones((300, 300), np.float32))
    assert not np.asarray(dy).any()
    assert np.asarray(dx).tolist() == [2, 2]


def test_steps_end_the_gradient_silently():
    @anex.graph(x=spec(4))
    def program(x):
        y = mb.mul(x=x, y=mb.floor(x=x))
        return mb.reduce_sum(x=y, axes=[0], keep_dims=True, name="loss")

    _, dx = anex.compile(anex.value_and_grad(program))(np.array([0.5, 1.5, 2.5, -0.5], np.float32))
    assert np.asarray(dx).tolist() == [0, 1, 2, -1]


@pytest.mark.parametrize("value", [1.5, -1.5])
def test_a_branch_s_gradient_is_that_of_the_branch_taken(rng, value):
    @anex.graph(x=spec(3), w=spec(3), v=spec(3))
    def program(x, w, v):
        h = mb.mul(x=x, y=w)
        positive = mb.squeeze(x=mb.greater(x=mb.reduce_sum(x=x, axes=[0], keep_dims=True), y=0.0))
        y = mb.cond(
            pred=positive,
            _true_fn=lambda: mb.mul(x=mb.exp(x=h), y=v),
            _false_fn=lambda: mb.add(x=mb.square(x=h), y=0.5),
        )
        return mb.reduce_sum(x=mb.mul(x=y, y=h), axes=[0], keep_dims=True, name="loss")

    def reference(x, w, v):
        h = x * w
        y = torch.exp(h) * v if x.sum() > 0 else h**2 + 0.5
        return (y * h + 0 * v).sum()

    arrays = [np.full(3, value, np.float32), *rng.normal(size=(2, 3)).astype(np.float32)]
    found = anex.compile(anex.value_and_grad(program))(*arrays)
    for a, b in zip(found, torchs(reference, *arrays), strict=True):
        np.testing.assert_allclose(np.asarray(a).ravel(), np.ravel(b), rtol=2e-4, atol=1e-5)


# ---- what the gradients are multiplied and divided by ------------------------------------------------------------


@anex.graph(x=spec(4), w=spec(4))
def squares(x, w):
    return mb.reduce_sum(x=mb.square(x=mb.mul(x=x, y=w)), axes=[0], keep_dims=True, name="loss")


def test_a_loss_scale_multiplies_the_gradients_and_nothing_else(rng):
    x, w = rng.normal(size=(2, 4)).astype(np.float32)
    plain = anex.compile(anex.value_and_grad(squares))(x, w)
    fixed = anex.compile(anex.value_and_grad(squares, loss_scale=64.0))(x, w)
    given = anex.compile(anex.value_and_grad(squares, loss_scale=True))(x, w, loss_scale=np.full(1, 64, np.float32))
    for scaled in (fixed, given):
        assert float(scaled[0][0]) == float(plain[0][0])
        for a, b in zip(scaled[1:], plain[1:], strict=True):
            np.testing.assert_allclose(np.asarray(a), 64 * np.asarray(b), rtol=1e-6)


@pytest.mark.parametrize("scale", [False, 8.0])
@pytest.mark.parametrize("limit", [0.5, 1e3])
def test_gradients_are_clipped_together(rng, limit, scale):
    x, w = rng.normal(size=(2, 4)).astype(np.float32)
    plain = [np.asarray(g) for g in anex.compile(anex.value_and_grad(squares))(x, w)[1:]]
    norm = np.sqrt(sum((g.astype(np.float64) ** 2).sum() for g in plain))
    *_, dx, dw, found = anex.compile(anex.value_and_grad(squares, clip_norm=limit, loss_scale=scale))(x, w)
    assert float(found[0]) == pytest.approx(norm, rel=1e-5)
    for a, b in zip((dx, dw), plain, strict=True):
        np.testing.assert_allclose(np.asarray(a), b * min(1, limit / norm) * (scale or 1), rtol=1e-5)


def test_the_gradient_of_a_gradient_is_a_program_too(rng):
    """A Hessian times a vector."""

    @anex.graph(x=spec(4), w=spec(4))
    def program(x, w):
        y = mb.mul(x=mb.sin(x=mb.mul(x=x, y=w)), y=mb.square(x=x))
        return mb.reduce_sum(x=y, axes=[0], keep_dims=True, name="loss")

    once = anex.value_and_grad(program, ["x"])
    twice = anex.compile(anex.vjp(once, ["x", "w"], prefix="second_"))
    x, w, v = rng.normal(size=(3, 4)).astype(np.float32)
    found = dict(zip(twice.outputs, twice(x=x, w=w, second_loss=np.zeros(1, np.float32), second_grad_x=v), strict=True))
    x, w, v = (torch.tensor(each.astype(np.float64), requires_grad=True) for each in (x, w, v))
    (first,) = torch.autograd.grad((torch.sin(x * w) * x * x).sum(), x, create_graph=True)
    for name, wanted in zip("xw", torch.autograd.grad((first * v).sum(), [x, w]), strict=True):
        np.testing.assert_allclose(np.asarray(found[f"second_{name}"]), wanted.numpy(), rtol=1e-4, atol=1e-5)
    with pytest.raises(anex.ArgumentError, match=r"an output 'grad_x' already.*prefix="):
        anex.vjp(once, ["x"])


@pytest.mark.parametrize("empty", [True, False])
def test_what_has_no_elements_has_no_gradient(empty):
    @anex.graph(x=spec(4))
    def program(x):
        part = mb.slice_by_index(x=x, begin=[2], end=[2 if empty else 3])
        return mb.reduce_sum(x=mb.concat(values=[part, mb.sin(x=x)], axis=0), axes=[0], keep_dims=True, name="loss")

    _, dx = anex.compile(anex.value_and_grad(program))(np.zeros(4, np.float32))
    assert np.asarray(dx).tolist() == [1, 1, 1 if empty else 2, 1]


def whole(op, **more):
    return lambda x: getattr(mb, op)(x=x, axes=[0], keep_dims=True, **more)


CONVENTIONS = {
    "max of equals": (whole("reduce_max"), lambda x: x.amax()),
    "min of equals": (whole("reduce_min"), lambda x: x.amin()),
    "product with a zero": (whole("reduce_prod"), lambda x: x.prod()),
    "norm of zeros": (lambda x: whole("reduce_l2_norm")(mb.mul(x=x, y=0.0)), lambda x: (0 * x).norm()),
    "power of a negative": (lambda x: whole("reduce_sum")(mb.pow(x=x, y=3.0)), lambda x: (x**3).sum()),
    "product with itself": (lambda x: whole("reduce_sum")(mb.mul(x=x, y=x)), lambda x: (x * x).sum()),
    "largest of equals": (lambda x: whole("reduce_sum")(mb.topk(x=x, k=4, axis=0)[0]), lambda x: x.topk(4)[0].sum()),
    "relu of zero": (lambda x: whole("reduce_sum")(mb.relu(x=x)), lambda x: x.relu().sum()),
    "magnitude of zero": (lambda x: whole("reduce_sum")(mb.abs(x=x)), lambda x: x.abs().sum()),
}


@pytest.mark.parametrize("name", CONVENTIONS)
def test_where_a_gradient_is_a_convention_it_is_torch_s(name):
    found, wanted = CONVENTIONS[name]
    program = anex.graph(x=spec(6))(lambda x: mb.identity(x=found(x), name="loss"))
    x = np.array([2, -3, 0, 2, 1, -3], np.float32)
    _, dx = anex.compile(anex.value_and_grad(program))(x)
    np.testing.assert_allclose(np.asarray(dx), torchs(wanted, x)[1], rtol=1e-6)


# ---- refusals ----------------------------------------------------------------------------------------------------


def test_mistakes_are_named():
    @anex.graph(x=spec(4), n=spec(4, dtype="int32"))
    def program(x, n):
        return mb.square(x=x, name="y"), mb.add(x=n, y=n, name="m")

    with pytest.raises(anex.ArgumentError, match=r"'v' is no input; the float inputs are x "):
        anex.value_and_grad(program, ["v"])
    with pytest.raises(anex.ArgumentError, match="int32; only floats"):
        anex.value_and_grad(program, ["n"])
    with pytest.raises(anex.ShapeError, match=r"shape \(4,\).*anex.vjp"):
        anex.value_and_grad(program)
    with pytest.raises(anex.ArgumentError, match="'loss' is no output; the outputs are y, m"):
        anex.value_and_grad(program, loss="loss")
    with pytest.raises(anex.ArgumentError, match="int32"):
        anex.value_and_grad(program, loss="m")
    with pytest.raises(anex.ArgumentError, match="checkpoint: no op gives layer"):
        anex.value_and_grad(squares, checkpoint=["layer"])
    for wrong in (0.0, float("nan"), "1"):
        with pytest.raises(anex.ArgumentError, match=r"clip_norm=.* is no number above 0"):
            anex.value_and_grad(squares, clip_norm=wrong)
        with pytest.raises(anex.ArgumentError, match=r"loss_scale=.* is neither True nor a positive number"):
            anex.value_and_grad(squares, loss_scale=wrong)
    with pytest.raises(anex.ArgumentError, match=r"wrt=3: a list of names of inputs \(x, w\)"):
        anex.value_and_grad(squares, 3)
    with pytest.raises(anex.ArgumentError, match="checkpoint=3 is neither"):
        anex.value_and_grad(squares, checkpoint=3)
    with pytest.raises(anex.ArgumentError, match=r"not a function; anex\.graph makes one of a function"):
        anex.value_and_grad(lambda x: x)
    half = anex.graph(x=(4,))(lambda x: mb.reduce_sum(x=x, axes=[0], keep_dims=True, name="loss"))
    with pytest.raises(anex.ArgumentError, match="float16, which ends at 65504; cast it to fp32"):
        anex.value_and_grad(half, loss_scale=1e6)
    with pytest.raises(anex.ArgumentError, match="not a Program"):
        anex.value_and_grad(anex.compile(squares))


def test_an_operand_that_a_rule_takes_for_a_constant_is_no_silent_zero(monkeypatch):
    monkeypatch.setitem(OPS, "mul", dataclasses.replace(OPS["mul"], vjp=lambda mb, use, dy: {"x": lambda: dy}))
    anex.value_and_grad(squares, ["x"])
    with pytest.raises(anex.UnsupportedError, match=r"no gradient through mul 'mul_0' with respect to its y: the rule"):
        anex.value_and_grad(squares, ["w"])


def test_a_loop_is_refused_with_the_reason():
    @anex.graph(x=spec(2))
    def program(x):
        def goes_on(i, y):
            return mb.less(x=i, y=3)

        def body(i, y):
            return mb.add(x=i, y=1), mb.mul(x=y, y=2.0)

        _, y = mb.while_loop(_cond=goes_on, _body=body, loop_vars=(0, x))
        return mb.reduce_sum(x=y, axes=[0], keep_dims=True, name="loss")

    with pytest.raises(anex.UnsupportedError, match=r"while_loop.*how many there are; unroll it"):
        anex.value_and_grad(program)


def test_a_loop_beside_the_way_is_no_matter():
    @anex.graph(x=spec(2), n=spec(2))
    def program(x, n):
        _, y = mb.while_loop(
            _cond=lambda i, y: mb.less(x=i, y=3),
            _body=lambda i, y: (mb.add(x=i, y=1), mb.mul(x=y, y=2.0)),
            loop_vars=(0, n),
        )
        return mb.reduce_sum(x=mb.mul(x=x, y=y), axes=[0], keep_dims=True, name="loss")

    _, dx = anex.compile(anex.value_and_grad(program, ["x"]))(np.ones(2, np.float32), np.ones(2, np.float32))
    assert np.asarray(dx).tolist() == [8, 8]


def test_what_goes_through_a_state_is_refused():
    from coremltools.converters.mil.mil import types

    state = mb.StateTensorSpec((2,), dtype=types.fp16)

    @mb.program(input_specs=[mb.TensorSpec((2,), dtype=types.fp16), state], opset_version=ct.target.iOS18)
    def program(x, kept):
        mb.coreml_update_state(state=kept, value=mb.mul(x=x, y=np.float16(2)))
        y = mb.read_state(input=kept)
        return mb.reduce_sum(x=y, axes=[0], keep_dims=True, name="loss")

    with pytest.raises(anex.UnsupportedError, match="acts on later calls"):
        anex.value_and_grad(program, ["x"])


def test_a_state_beside_the_way_stays_a_state(rng):
    from coremltools.converters.mil.mil import types

    state = mb.StateTensorSpec((2,), dtype=types.fp16)

    @mb.program(input_specs=[mb.TensorSpec((2,), dtype=types.fp16), state], opset_version=ct.target.iOS18)
    def program(x, kept):
        y = mb.mul(x=x, y=mb.read_state(input=kept))
        return mb.reduce_sum(x=y, axes=[0], keep_dims=True, name="loss")

    step = anex.compile(anex.value_and_grad(program, ["x"]))
    kept = step.make_state()
    kept["kept"][...] = [2, 3]
    _, dx = step(np.ones(2, np.float16), state=kept)
    assert np.asarray(dx).tolist() == [2, 3]


def test_large_constants_are_not_doubled_by_computing_again():
    table = np.random.default_rng(0).normal(size=(64, 64)).astype(np.float32)

    @anex.graph(x=spec(64, 64))
    def program(x):
        y = mb.sin(x=mb.matmul(x=x, y=table))
        return mb.reduce_sum(x=mb.square(x=y), axes=[0, 1], keep_dims=True, name="loss")

    again = anex.value_and_grad(program, checkpoint=[])
    large = [op for op in again.functions["main"].operations if op.op_type == "const" and np.size(op.val.val) == 4096]
    assert len(large) == 1


def test_float16_learns_with_a_loss_scale_that_finds_itself(rng):
    """Gradients below float16's least number without one; the first scale overflows."""

    @anex.graph(x=spec(8, 4, dtype="float16"), t=spec(8, 1, dtype="float16"), w=spec(4, 1, dtype="float16"))
    def program(x, t, w):
        error = mb.cast(x=mb.sub(x=mb.matmul(x=x, y=w), y=t), dtype="fp32")
        mean = mb.reduce_mean(x=mb.square(x=error), axes=[0, 1], keep_dims=True)
        return mb.mul(x=mean, y=1e-7, name="loss")

    step = anex.compile(anex.value_and_grad(program, ["w"], loss_scale=True))
    w = anex.zeros((4, 1))
    optimizer, scale = anex.optim.SGD({"w": w}, lr=1e6), anex.optim.LossScale(2.0**44, most=2.0**44)
    aim, taken = rng.normal(size=(4, 1)), []
    for _ in range(80):
        x = rng.normal(size=(8, 4)).astype(np.float16)
        _, gradient = step(x, (x @ aim).astype(np.float16), w, loss_scale=scale.tensor)
        taken.append(optimizer.step([gradient], loss_scale=scale.value))
        scale.update(taken[-1])
    assert not taken[0]
    assert taken[-1]
    np.testing.assert_allclose(np.asarray(w), aim, atol=0.02)
