"""Control flow, states, recurrent cells and random numbers: what no published source has seen the ANE compile alone."""

from __future__ import annotations

from typing import Any

from .record import array, case, half, weights


def _flag(mb: Any, x: Any) -> Any:
    """A predicate that is only known while the program runs."""
    return mb.squeeze(x=mb.greater(x=mb.reduce_max(x=x, axes=[0, 1], keep_dims=True), y=half(0)))


def _loop(mb: Any, a: Any) -> Any:
    import numpy as np

    return mb.while_loop(
        _cond=lambda i, x: mb.squeeze(x=mb.less(x=i, y=3)),
        _body=lambda i, x: (mb.add(x=i, y=1), mb.mul(x=x, y=half(0.5))),
        loop_vars=(np.zeros(1, np.int32), a["x"]),
    )[1]


case("cond", x=array(1, 32), make=lambda mb, a: mb.cond(
    pred=_flag(mb, a["x"]), _true_fn=lambda: mb.relu(x=a["x"]), _false_fn=lambda: mb.abs(x=a["x"])))  # fmt: skip
case("while_loop", x=array(1, 32), make=_loop)
case(
    "read_state", x=array(1, 32), state=(1, 32), make=lambda mb, a: mb.add(x=a["x"], y=mb.read_state(input=a["state"]))
)
case("coreml_update_state", x=array(1, 32), state=(1, 32), make=lambda mb, a: mb.coreml_update_state(
    state=a["state"], value=mb.add(x=a["x"], y=mb.read_state(input=a["state"]))))  # fmt: skip
for _op, _gates in (("rnn", 1), ("gru", 3), ("lstm", 4)):
    _states = {"initial_h": array(1, 32, low=-1, high=1)}
    if _op == "lstm":
        _states["initial_c"] = array(1, 32, low=-1, high=1)
    case(_op, x=array(8, 1, 64, low=-1, high=1), **_states, bias=weights(_gates * 32),
         weight_ih=weights(_gates * 32, 64, low=-0.2, high=0.2),
         weight_hh=weights(_gates * 32, 32, low=-0.2, high=0.2), tolerance=1e-2)  # fmt: skip
for _op in ("random_uniform", "random_normal", "random_bernoulli"):
    case(_op, x=array(1, 64), is_random=True, shape=[1, 64], make=lambda mb, a, op=_op: mb.add(
        x=a["x"], y=mb.cast(x=getattr(mb, op)(shape=a["shape"], seed=1), dtype="fp16")))  # fmt: skip
case(
    "random_categorical",
    x=array(1, 8),
    is_random=True,
    make=lambda mb, a: mb.random_categorical(x=a["x"], size=64, seed=1),
)
