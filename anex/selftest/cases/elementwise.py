"""Elementwise ops and activations."""

from __future__ import annotations

from .record import array, case, half, weights

WIDE, AWKWARD, FLAT = (1, 64, 1, 64), (1, 3, 5, 7), (1, 17)
EXACT = 0.0

# Domain, and the tolerance where it is not the usual one. atan: 0.019 was measured on an M5 Pro (FRG).
UNARY = {
    "abs": (-2, 2, EXACT), "acos": (-0.9, 0.9, None), "asin": (-0.9, 0.9, None), "atan": (-2, 2, 2e-2),
    "atanh": (-0.9, 0.9, None), "ceil": (-4, 4, EXACT), "cos": (-3, 3, None), "cosh": (-2, 2, None),
    "erf": (-2, 2, None), "exp": (-4, 4, None), "exp2": (-4, 4, None), "floor": (-4, 4, EXACT), "round": (-4, 4, EXACT),
    "sin": (-3, 3, None), "sinh": (-2, 2, None), "sqrt": (0, 4, None), "tan": (-1, 1, None), "tanh": (-3, 3, None),
    "sign": (-2, 2, EXACT), "square": (-4, 4, None), "relu": (-2, 2, EXACT), "relu6": (-2, 8, EXACT),
    "sigmoid": (-6, 6, None), "silu": (-6, 6, None), "softplus": (-6, 6, None), "softsign": (-4, 4, None),
}  # fmt: skip
for _op, (_low, _high, _tolerance) in UNARY.items():
    for _shape in (WIDE, AWKWARD, FLAT):
        _given = {} if _tolerance is None else {"tolerance": _tolerance}
        case(_op, x=array(*_shape, low=_low, high=_high), **_given)

for _op, _given in {
    "leaky_relu": {"alpha": 0.1}, "thresholded_relu": {"alpha": 0.5}, "elu": {"alpha": 1.0},
    "clamped_relu": {"alpha": 0.1, "beta": 1.5}, "linear_activation": {"alpha": 2.0, "beta": 0.5},
    "scaled_tanh": {"alpha": 1.5, "beta": 0.7}, "sigmoid_hard": {"alpha": 0.2, "beta": 0.5},
    "threshold": {"alpha": 0.5}, "clip": {"alpha": -0.5, "beta": 1.0},
}.items():  # fmt: skip
    for _shape in (WIDE, AWKWARD):
        case(_op, x=array(*_shape), **_given)
for _channels, _width in ((64, 64), (3, 7)):
    case("prelu", x=array(1, _channels, 1, _width), alpha=weights(_channels, low=0, high=0.5))
    case(
        "softplus_parametric",
        x=array(1, _channels, 1, _width),
        alpha=weights(_channels, low=0.5, high=1),
        beta=weights(_channels, low=0.5, high=1),
    )
# The tanh form differs from erf by 3e-4 in itself; the exact one may be refused or approximated.
for _mode in ("TANH_APPROXIMATION", "EXACT", "SIGMOID_APPROXIMATION"):
    case("gelu", x=array(*WIDE, low=-4, high=4), mode=_mode)
case("gelu", x=array(*AWKWARD, low=-4, high=4), mode="TANH_APPROXIMATION")
for _op in ("inverse", "log", "rsqrt"):
    for _shape in (WIDE, AWKWARD):
        case(_op, x=array(*_shape, low=0.25, high=4), epsilon=1e-4)

PAIRS = [(WIDE, WIDE), (WIDE, (1, 64, 1, 1)), (AWKWARD, AWKWARD), (AWKWARD, (1, 1, 1, 7)), ((1, 32, 64), (1, 32, 1))]
for _op, _low, _high in (
    ("add", -2, 2), ("sub", -2, 2), ("mul", -2, 2), ("real_div", 0.5, 4), ("pow", 0.5, 2), ("maximum", -2, 2),
    ("minimum", -2, 2), ("floor_div", 1, 9), ("mod", 1, 9),
):  # fmt: skip
    for _x, _y in PAIRS:
        case(_op, x=array(*_x, low=_low, high=_high), y=array(*_y, low=_low, high=_high))
    case(_op, x=array(*WIDE, low=_low, high=_high), y=weights(1, 64, 1, 1, low=1, high=2))
for _op in ("greater", "greater_equal", "less", "less_equal", "equal", "not_equal"):
    for _x, _y in (PAIRS[0], PAIRS[3]):
        case(
            _op,
            x=array(*_x),
            y=array(*_y),
            make=lambda mb, a, op=_op: getattr(mb, op)(x=mb.round(x=a["x"]), y=mb.round(x=a["y"])),
        )
for _op in ("logical_and", "logical_or", "logical_xor"):
    for _x, _y in (PAIRS[0], PAIRS[3]):
        case(
            _op,
            x=array(*_x),
            y=array(*_y),
            make=lambda mb, a, op=_op: getattr(mb, op)(
                x=mb.greater(x=a["x"], y=half(0)), y=mb.greater(x=a["y"], y=half(0))
            ),
        )
for _shape in (WIDE, AWKWARD):
    case("logical_not", x=array(*_shape), make=lambda mb, a: mb.logical_not(x=mb.greater(x=a["x"], y=half(0))))
    case(
        "select",
        x=array(*_shape),
        y=array(*_shape),
        make=lambda mb, a: mb.select(cond=mb.greater(x=a["x"], y=a["y"]), a=a["x"], b=a["y"]),
    )
    for _dtype in ("fp32", "int32"):
        case(
            "cast",
            x=array(*_shape, low=-100, high=100),
            make=lambda mb, a, dtype=_dtype: mb.cast(x=mb.cast(x=a["x"], dtype=dtype), dtype="fp16"),
        )
