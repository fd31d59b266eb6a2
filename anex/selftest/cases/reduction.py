"""Reductions, sums along an axis, sorting."""

from __future__ import annotations

from .record import array, case, distinct, half

_shape: tuple[int, ...]

for _op, _low, _high in (
    ("reduce_sum", -1, 1), ("reduce_mean", -1, 1), ("reduce_sum_square", -1, 1), ("reduce_l1_norm", -1, 1),
    ("reduce_l2_norm", -1, 1), ("reduce_log_sum", 0.1, 1), ("reduce_log_sum_exp", -2, 2), ("reduce_prod", 0.9, 1.1),
    ("reduce_max", -4, 4), ("reduce_min", -4, 4),
):  # fmt: skip
    for _shape, _axes in (
        ((1, 64, 1, 64), [1]),
        ((1, 64, 8, 32), [3]),
        ((1, 64, 8, 32), [2, 3]),
        ((1, 3, 5, 7), [1, 3]),
    ):
        # the ANE accumulates sums in float16 (FRG), so a sum of n may lose half a unit n times
        case(_op, x=array(*_shape, low=_low, high=_high), axes=_axes, keep_dims=True, tolerance=1e-2)
    case(_op, x=array(1, 3, 5, 7, low=_low, high=_high), axes=[-1], keep_dims=False, tolerance=1e-2)
for _op in ("reduce_argmax", "reduce_argmin"):
    for _shape, _axis in (((1, 64, 1, 64), 1), ((1, 8, 8, 32), 3), ((1, 3, 5, 7), 2)):
        case(_op, x=distinct(*_shape), axis=_axis, keep_dims=True, tolerance=0.0)
for _options in ({}, {"exclusive": True}, {"reverse": True}):
    case("cumsum", x=array(1, 8, 8, 32, low=-1, high=1), axis=3, tolerance=1e-2, **_options)
case("cumsum", x=array(3, 7), axis=0, tolerance=1e-2)
for _shape, _k in (((1, 8, 64), 4), ((3, 17), 5)):
    case("topk", x=distinct(*_shape), k=_k, axis=-1, tolerance=0.0)
    case("argsort", x=distinct(*_shape), axis=-1, tolerance=0.0)
case("non_maximum_suppression", boxes=array(1, 4, 16, low=1, high=20), scores=distinct(1, 2, 16), opset="iOS18",
     make=lambda mb, a: mb.non_maximum_suppression(**a, iou_threshold=half(0.3), max_boxes=8))  # fmt: skip
