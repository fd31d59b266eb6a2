"""Train a convolutional network on scikit-learn's handwritten digits. ``python examples/train_digits.py``

Gradients come from one program, AdamW's step is one native pass over weights that stay where they are. Under
``torchrun --nproc-per-node 2`` or ``mpirun -n 2`` each process takes its share of every batch, with the same result.
"""

import numpy as np
from sklearn.datasets import load_digits

import anex
from anex import mb

BATCH, EPOCHS = 64, 12
SHAPES = {
    "conv1": (16, 1, 3, 3), "bias1": (1, 16, 1, 1), "conv2": (32, 16, 3, 3), "bias2": (1, 32, 1, 1),
    "head": (128, 10), "bias": (10,),
}  # fmt: skip


def network(x, conv1, bias1, conv2, bias2, head, bias):
    """Images [n, 1, 8, 8] to scores [n, 10]."""

    def layer(x, weight, bias):
        y = mb.relu(x=mb.add(x=mb.conv(x=x, weight=weight, pad_type="same"), y=bias))
        return mb.max_pool(x=y, kernel_sizes=[2, 2], strides=[2, 2], pad_type="valid")

    y = layer(layer(x, conv1, bias1), conv2, bias2)
    return mb.add(x=mb.matmul(x=mb.reshape(x=y, shape=[x.shape[0], 128]), y=head), y=bias, name="scores")


def data():
    """(images, digits) to train and to test on."""
    images, digits = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(images))
    images = (images[order].reshape(-1, 1, 8, 8) / 16).astype(np.float32)
    digits = digits[order].astype(np.int32)[:, None]
    return (images[:1408], digits[:1408]), (images[1408:], digits[1408:])


def main(epochs: int = EPOCHS, device: str = "cpu") -> float:
    with anex.distributed.join() as group:
        return train(epochs, device, group)


def train(epochs, device, group):
    """The share of new digits that are right."""
    specs = {name: anex.spec(shape, "float32") for name, shape in SHAPES.items()}
    n, odd = divmod(BATCH, group.size)
    if odd:
        raise SystemExit(f"batches of {BATCH} images cannot be shared by {group.size} processes")

    @anex.graph(x=anex.spec((n, 1, 8, 8), "float32"), digit=anex.spec((n, 1), "int32"), **specs)
    def loss(x, digit, **weights):
        scores = network(x, **weights)
        right = mb.gather_along_axis(x=scores, indices=digit, axis=1)
        each = mb.sub(x=mb.reduce_log_sum_exp(x=scores, axes=[1], keep_dims=True), y=right)
        return mb.reduce_mean(x=each, axes=[0, 1], keep_dims=True, name="loss")

    (images, digits), (test_images, test_digits) = data()
    rng = np.random.default_rng(1)
    weights = {
        name: anex.tensor(rng.normal(0, np.sqrt(2 / np.prod(shape[1:] if "conv" in name else shape[:1])), shape)
                          * ("bias" not in name), dtype="float32")
        for name, shape in SHAPES.items()
    }  # fmt: skip
    step = anex.compile(anex.value_and_grad(loss, SHAPES), device=device)
    results = tuple(anex.empty(found.shape, found.dtype) for found in step.outputs.values())
    optimizer = anex.optim.AdamW(
        weights, lr=3e-3, weight_decay={"conv1": 0.01, "conv2": 0.01, "head": 0.01}, group=group
    )
    steps = epochs * (len(images) // BATCH)
    for epoch in range(epochs):
        order, total = rng.permutation(len(images)), np.zeros(1)
        for batch in order.reshape(-1, BATCH):
            chosen = batch[group.rank :: group.size]
            step(x=images[chosen], digit=digits[chosen], **weights, out=results)
            total += float(results[0][0, 0])
            optimizer.step(results[1:], anex.optim.warmup_cosine(optimizer.steps, peak=3e-3, steps=steps, warmup=20))
        group.all_reduce([total])
        if group.rank == 0:
            print(f"epoch {epoch + 1:2}  loss {total[0] / group.size / (len(images) // BATCH):.4f}")

    n = len(test_images)
    scores = anex.compile(anex.graph(x=anex.spec((n, 1, 8, 8), "float32"), **specs)(lambda x, **w: network(x, **w)))
    right = float((np.asarray(scores(test_images, **weights)).argmax(1) == test_digits[:, 0]).mean())
    if group.rank == 0:
        print(f"{right:.1%} of {n} digits it has not seen are right")
    return right


if __name__ == "__main__":
    main()
