"""First contact: a transformer's feed-forward block as one fused program. ``python examples/fused_ffn.py``"""

import numpy as np

import anex
from anex import mb

rng = np.random.default_rng(0)
w1 = rng.normal(0, 0.03, (3072, 768, 1, 1)).astype(np.float16)
w2 = rng.normal(0, 0.03, (768, 3072, 1, 1)).astype(np.float16)


@anex.graph(x=(1, 768, 1, 256))  # 256 tokens of 768 channels, float16
def ffn(x):
    hidden = mb.gelu(x=mb.conv(x=x, weight=w1), mode="TANH_APPROXIMATION")
    return mb.add(x=x, y=mb.conv(x=hidden, weight=w2), name="y")


def main() -> None:
    with anex.compile(ffn) as program:  # device="ane" on a Mac, one day; the CPU engine here
        print(program)

        x = anex.tensor(rng.normal(size=(1, 768, 1, 256)), dtype="float16")
        y = program(x)  # a new tensor
        print("y", y.shape, y.dtype, "mean |y|:", round(float(np.abs(np.asarray(y), dtype=np.float32).mean()), 3))

        before = np.asarray(y).copy()
        np.asarray(x)[...] *= 2  # the view is the tensor's memory
        program(x, out=y)  # writes where y already is, allocates nothing
        print("changed by", round(float(np.abs(np.asarray(y) - before).mean(dtype=np.float32)), 3))

        try:
            program(np.zeros((1, 768, 1, 128), np.float16))
        except anex.ShapeError as error:
            print("refused:", error)


if __name__ == "__main__":
    main()
