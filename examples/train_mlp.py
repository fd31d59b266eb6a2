"""Train a network to tell two spirals apart: one program a step, compiled once. ``python examples/train_mlp.py``

The weights are inputs and outputs of the step, which ``anex.PingPong`` feeds back without copying them.
"""

import numpy as np

import anex
from anex import mb

POINTS, WIDTH, STEPS = 256, 32, 600
SHAPES = {"w1": (2, WIDTH), "b1": (WIDTH,), "w2": (WIDTH, WIDTH), "b2": (WIDTH,), "w3": (WIDTH, 1)}


def spirals(rng, n):
    """Points [n, 2], and on which spiral they lie, [n, 1]."""
    label = np.arange(n)[:, None] % 2
    turn = np.sqrt(rng.random((n, 1))) * 2.5
    angle = turn * np.pi + label * np.pi
    points = np.hstack([turn * np.cos(angle), turn * np.sin(angle)]) + rng.normal(0, 0.03, (n, 2))
    return points.astype(np.float32), label.astype(np.float32)


def score(x, w1, b1, w2, b2, w3):
    """Above 0 for the second spiral, [n, 1]."""
    h = mb.tanh(x=mb.add(x=mb.matmul(x=x, y=w1), y=b1))
    h = mb.tanh(x=mb.add(x=mb.matmul(x=h, y=w2), y=b2))
    return mb.matmul(x=h, y=w3)


SPECS = {name: anex.spec(shape, "float32") for name, shape in SHAPES.items()}


def prepare(device=None):
    """The step, compiled, with weights to start from."""

    @anex.graph(x=anex.spec((POINTS, 2), "float32"), label=anex.spec((POINTS, 1), "float32"), **SPECS)
    def loss(x, label, **weights):
        s = score(x, **weights)  # log(1 + e^s) - label s
        each = mb.sub(x=mb.softplus(x=s), y=mb.mul(x=label, y=s))
        return mb.reduce_mean(x=each, axes=[0, 1], keep_dims=True, name="loss")

    rng = np.random.default_rng(0)
    start = {name: rng.normal(size=shape) / np.sqrt(shape[0]) for name, shape in SHAPES.items()}
    step = anex.compile(anex.training_step(loss, SHAPES, rule="sgd", momentum=0.9), device=device)
    return anex.PingPong(step, start=start)


def training(steps, device=None, loop=None):
    """The loss of each step."""
    loop, rng = loop or prepare(device), np.random.default_rng(1)
    for i in range(steps):
        x, label = spirals(rng, POINTS)
        rate = anex.optim.warmup_cosine(i, peak=0.3, steps=STEPS, warmup=20)
        found = loop(x=x, label=label, rate=np.full(1, rate, np.float32))
        yield float(found["loss"][0, 0])


def main() -> float:
    loop = prepare()
    for i, loss in enumerate(training(STEPS, loop=loop)):
        if i % 100 == 0 or i == STEPS - 1:
            print(f"step {i:4}  loss {loss:.4f}")

    x, label = spirals(np.random.default_rng(2), POINTS)
    test = anex.compile(anex.graph(x=anex.spec((POINTS, 2), "float32"), **SPECS)(lambda x, **w: score(x, **w)))
    right = float(((np.asarray(test(x, **{n: loop.current[n] for n in SHAPES})) > 0) == label).mean())
    print(f"{right:.1%} of new points are right")
    return right


if __name__ == "__main__":
    main()
