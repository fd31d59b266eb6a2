"""Gradients of MIL programs as MIL programs: reverse mode, once, when the program is built.

``value_and_grad`` and ``vjp`` take a program and give another, which computes the same outputs and gradients beside
them and runs on every device that has its ops. What is trained must be an input (weights as inputs, so that
nothing is compiled again): constants have no gradient. The rules stand with the ops, as ``define(..., vjp=...)``.

>>> @anex.graph(x=anex.spec((4, 3), "float32"), w=anex.spec((3, 2), "float32"))
... def loss(x, w):
...     y = mb.matmul(x=x, y=w)
...     return mb.reduce_mean(x=mb.square(x=y), axes=[0, 1], keep_dims=True, name="loss")
>>> step = anex.compile(anex.value_and_grad(loss, wrt=["w"]))
>>> value, grad_w = step(np.ones((4, 3), np.float32), np.ones((3, 2), np.float32))
>>> value.tolist(), grad_w.shape
([[9.0]], (3, 2))
"""

from __future__ import annotations

from .blocks import clip_by_global_norm, global_norm
from .training import training_step
from .transform import value_and_grad, vjp

__all__ = ["clip_by_global_norm", "global_norm", "training_step", "value_and_grad", "vjp"]
