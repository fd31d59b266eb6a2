"""Attention in pieces that fit the Neural Engine: no tensor in between is larger than a chunk by a chunk."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from ._coremltools import builder
from .errors import ArgumentError, ShapeError

if TYPE_CHECKING:
    from coremltools.converters.mil.mil import Var

__all__ = ["chunked"]

LEAST = -65504.0  # of fp16


def chunked(q: Any, k: Any, v: Any, chunk: int = 512, *, causal: bool = False, scale: float | None = None) -> Any:
    """softmax(q k^T * scale) v, of ``chunk`` queries and ``chunk`` keys at a time: the same result at any length.

    ``q``: [*batch, L, E], ``k``: [*batch, S, E], ``v``: [*batch, S, V]; MIL vars while ``anex.graph`` builds, of
    which it gives the var [*batch, L, V], or arrays, which it computes on the CPU engine. ``scale``: 1 / sqrt(E).
    ``causal``: the query in row i sees the keys up to i + S - L. The maximum and the sum of each row are carried from
    chunk to chunk of keys, so nothing is left out: rule R-ATTN-CHUNK wants windows of 256 or 512.

    >>> @anex.graph(q=(1, 2, 600, 8), k=(1, 2, 600, 8), v=(1, 2, 600, 8))
    ... def attend(q, k, v):
    ...     return anex.attention.chunked(q, k, v, chunk=256)
    >>> max(max(op.outputs[0].shape[-2:]) for op in attend.functions["main"].operations if op.op_type == "matmul")
    256
    """
    if chunk < 1:
        raise ArgumentError(f"chunked: chunk is {chunk}; it counts queries and keys, so it is 1 at least")
    if not all(hasattr(each, "sym_type") for each in (q, k, v)):
        return _of_arrays(q, k, v, chunk, causal, scale)
    sizes = _sizes(q, k, v, causal)
    mb = builder()
    scaled = mb.mul(x=q, y=_like(q, 1 / math.sqrt(sizes["width"]) if scale is None else scale))
    rows = [
        _row(mb, _part(mb, scaled, begin, chunk), k, v, chunk, begin + sizes["keys"] - sizes["queries"], causal)
        for begin in range(0, sizes["queries"], chunk)
    ]
    return rows[0] if len(rows) == 1 else mb.concat(values=rows, axis=-2)


def _sizes(q: Any, k: Any, v: Any, causal: bool) -> dict[str, int]:
    shapes = [tuple(each.shape) for each in (q, k, v)]
    if any(len(each) < 2 for each in shapes) or len({len(each) for each in shapes}) > 1:
        raise ShapeError(f"chunked: q, k and v have the shapes {shapes}; they need the same rank, 2 at least")
    if not all(hasattr(dim, "__index__") for each in shapes for dim in each):
        raise ShapeError(f"chunked: q, k and v have the shapes {shapes}; chunks need fixed ones")
    query, key, value = shapes
    if query[-1] != key[-1] or key[-2] != value[-2] or key[:-2] != value[:-2] or query[:-2] != key[:-2]:
        raise ShapeError(
            f"chunked: q {query}, k {key} and v {value} do not fit: they are [*batch, L, E], [*batch, S, E] and "
            "[*batch, S, V]"
        )
    found = {"queries": int(query[-2]), "keys": int(key[-2]), "width": int(query[-1])}
    if not found["queries"] or not found["keys"]:
        raise ShapeError(f"chunked: q {query} and k {key} hold no queries, or no keys")
    if causal and found["queries"] > found["keys"]:
        raise ShapeError(f"chunked: causal attention of {found['queries']} queries to {found['keys']} keys hides all "
                         "keys from the first ones")  # fmt: skip
    return found


def _like(var: Var, value: float) -> Any:
    import numpy as np

    from .ops import dtype_name

    return np.float16(value) if dtype_name(var) == "fp16" else np.float32(value)


def _part(mb: Any, x: Var, begin: int, chunk: int) -> Var:
    """Rows from ``begin``: [*batch, chunk, E], fewer at the end."""
    rows = int(x.shape[-2])
    if chunk >= rows:
        return x
    first = [0] * len(x.shape)
    size = [int(dim) for dim in x.shape]
    first[-2], size[-2] = begin, min(chunk, rows - begin)
    found: Var = mb.slice_by_size(x=x, begin=first, size=size)
    return found


def _row(mb: Any, q: Var, k: Var, v: Var, chunk: int, ahead: int, causal: bool) -> Var:
    """All keys for one chunk of queries, of which the first sees the keys up to ``ahead``."""
    queries, keys = int(q.shape[-2]), int(k.shape[-2])
    highest = total = mixed = None
    for begin in range(0, keys, chunk):
        if causal and begin > ahead + queries - 1:
            break
        key, value = _part(mb, k, begin, chunk), _part(mb, v, begin, chunk)
        scores = mb.matmul(x=q, y=key, transpose_x=False, transpose_y=True)
        if causal and begin + int(key.shape[-2]) - 1 > ahead:
            scores = mb.add(x=scores, y=_mask(scores, queries, int(key.shape[-2]), ahead - begin))
        peak = mb.reduce_max(x=scores, axes=[-1], keep_dims=True)
        if highest is None:
            weights = mb.exp(x=mb.sub(x=scores, y=peak))
            highest, total = peak, mb.reduce_sum(x=weights, axes=[-1], keep_dims=True)
            mixed = mb.matmul(x=weights, y=value, transpose_x=False, transpose_y=False)
            continue
        now = mb.maximum(x=highest, y=peak)
        fades = mb.exp(x=mb.sub(x=highest, y=now))
        weights = mb.exp(x=mb.sub(x=scores, y=now))
        total = mb.add(x=mb.mul(x=total, y=fades), y=mb.reduce_sum(x=weights, axes=[-1], keep_dims=True))
        fresh = mb.matmul(x=weights, y=value, transpose_x=False, transpose_y=False)
        mixed = mb.add(x=mb.mul(x=mixed, y=fades), y=fresh)
        highest = now
    found: Var = mb.real_div(x=mixed, y=total)
    return found


def _mask(scores: Var, queries: int, keys: int, ahead: int) -> Any:
    """0 where query i sees key j, j <= i + ahead, and fp16's least number elsewhere."""
    import numpy as np

    hidden = np.arange(keys)[None] > np.arange(queries)[:, None] + ahead
    return (hidden * _like(scores, LEAST / 2)).astype(_like(scores, 0).dtype)


def _of_arrays(q: Any, k: Any, v: Any, chunk: int, causal: bool, scale: float | None) -> Any:
    """The same of arrays: a program, compiled and called once."""
    import numpy as np

    from .build import graph
    from .creation import tensor
    from .program import compile
    from .spec import spec

    arrays = [np.asarray(each) for each in (q, k, v)]
    _sizes(arrays[0], arrays[1], arrays[2], causal)
    dtype = "float16" if all(each.dtype == np.float16 for each in arrays) else "float32"
    specs = {name: spec(each.shape, dtype) for name, each in zip("qkv", arrays, strict=True)}

    @graph(**specs)
    def attend(q: Any, k: Any, v: Any) -> Any:
        return chunked(q, k, v, chunk, causal=causal, scale=scale)

    with compile(attend, device="cpu") as program:
        found: Any = np.array(program(*(tensor(each, dtype=dtype) for each in arrays)))
    return found
