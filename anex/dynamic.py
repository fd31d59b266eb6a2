"""Weights that change without a compilation: packed beside the activations, or fed back from output to input.

The Neural Engine's compiler bakes constants in. Training and adapters therefore pass weights as inputs, in one of
two ways. ``Packed`` puts matrices behind the activations of one tensor, for engines and paths that like few inputs.
``PingPong`` runs a program whose outputs are its next inputs: two sets of tensors that change places, no copies.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType, TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from ._native import Tensor
from .creation import empty, empty_like, zeros
from .errors import ArgumentError, DTypeError, ShapeError
from .program import Program
from .spec import Spec, spec

__all__ = ["Packed", "PingPong"]

NEW = "new_"


class Packed:
    """Activations and the matrices they meet in one tensor: [1, channels, 1, positions + widths].

    Row d of the last axis holds the ``positions`` activations of channel d, then row d of each matrix
    [channels, width]. ``products`` are the ops that take them apart and multiply; before the M4 the slices that take
    matrices out turn values above 4094 in magnitude infinite.

    >>> packed = Packed(3, 2, widths=[4])
    >>> @anex.graph(xw=packed.spec)
    ... def product(xw):
    ...     (y,) = packed.products(xw)
    ...     return mb.identity(x=y, name="y")
    >>> xw = anex.zeros(packed.shape)
    >>> packed.activations(xw)[...], packed.matrix(xw, 0)[...] = 1, 2
    >>> anex.compile(product)(xw).tolist()
    [[[[6.0, 6.0]], [[6.0, 6.0]], [[6.0, 6.0]], [[6.0, 6.0]]]]
    """

    def __init__(
        self, channels: int, positions: int, *, widths: Sequence[int], dtype: npt.DTypeLike = "float16"
    ) -> None:
        if min(channels, positions, *widths) < 1:
            raise ShapeError(f"{channels} channels, {positions} positions, widths {list(widths)}: 1 is the least")
        self.channels, self.positions, self.widths = channels, positions, tuple(widths)
        self.spec: Spec = spec((1, channels, 1, positions + sum(widths)), dtype)
        self.shape = self.spec.shape

    def activations(self, tensor: Tensor) -> npt.NDArray[Any]:
        """A view of the activations, [channels, positions]: write through it."""
        return self._part(tensor, 0, self.positions)

    def matrix(self, tensor: Tensor, i: int) -> npt.NDArray[Any]:
        """A view of matrix i, [channels, widths[i]]: the weight of ``linear``, [out, in], turned."""
        return self._part(tensor, self._begin(i), self.widths[i])

    def products(self, var: Any) -> list[Any]:
        """In a program that is built: of each matrix [channels, width] its product [1, width, 1, positions]."""
        from coremltools.converters.mil.mil import Builder as mb

        def taken(begin: int, width: int) -> Any:
            part = mb.slice_by_size(x=var, begin=[0, 0, 0, begin], size=[1, self.channels, 1, width])
            return mb.reshape(x=part, shape=[1, 1, self.channels, width])

        rows = mb.transpose(x=taken(0, self.positions), perm=[0, 1, 3, 2])
        found = []
        for i, width in enumerate(self.widths):
            product = mb.matmul(x=rows, y=taken(self._begin(i), width))
            turned = mb.transpose(x=product, perm=[0, 1, 3, 2])
            found.append(mb.reshape(x=turned, shape=[1, width, 1, self.positions]))
        return found

    def _begin(self, i: int) -> int:
        return self.positions + sum(self.widths[:i])

    def _part(self, tensor: Tensor, begin: int, width: int) -> npt.NDArray[Any]:
        if tuple(tensor.shape) != self.shape:
            raise ShapeError(f"a tensor of shape {tuple(tensor.shape)}; packed it is {self.shape}")
        view: npt.NDArray[Any] = np.asarray(tensor)[0, :, 0, begin : begin + width]
        return view


class PingPong:
    """A program whose outputs are its next inputs: each has two tensors, which change places with every call.

    ``carry``: output -> input; by default every output ``new_x`` is the next ``x``. ``start``: what the carried
    inputs are at first, by name: tensors are used as they are and will be overwritten, arrays are copied, what is
    left out is zero. A call takes the other inputs by name and returns the other outputs by name, in tensors
    that the call after the next overwrites. ``current`` are the carried tensors as they stand.

    Raises ``ArgumentError`` for names that are not there, ``ShapeError`` and ``DTypeError`` where an output does not
    fit the input it becomes.

    >>> @anex.graph(w=(1, 2), g=(1, 2))
    ... def descend(w, g):
    ...     return mb.sub(x=w, y=g, name="new_w")
    >>> loop = PingPong(anex.compile(descend), start={"w": np.ones((1, 2))})
    >>> for _ in range(3):
    ...     _ = loop(g=np.ones((1, 2), np.float16))
    >>> loop.current["w"].tolist()
    [[-2.0, -2.0]]
    """

    def __init__(
        self, program: Program, *, carry: Mapping[str, str] | None = None, start: Mapping[str, Any] | None = None
    ) -> None:
        if carry is None:
            carry = {name: name[len(NEW) :] for name in program.outputs if name.startswith(NEW)}
        self.program, self.carry = program, dict(carry)
        self._check(start or {})
        self._current: dict[str, Tensor] = {}
        for name in self.carry.values():
            self._current[name] = self._first(name, (start or {}).get(name))
        self._spare = {name: empty_like(tensor) for name, tensor in self._current.items()}
        others = {name: spec for name, spec in program.outputs.items() if name not in self.carry}
        self._results = [{name: empty(s.shape, s.dtype) for name, s in others.items()} for _ in range(2)]

    @property
    def current(self) -> Mapping[str, Tensor]:
        """The carried inputs of the next call, by name."""
        return MappingProxyType(self._current)

    def __call__(self, **given: Any) -> dict[str, Tensor]:
        results = self._results[0]
        out = tuple(
            self._spare[self.carry[name]] if name in self.carry else results[name] for name in self.program.outputs
        )
        self.program(**given, **self._current, out=out if len(out) > 1 else out[0])
        self._current, self._spare = self._spare, self._current
        self._results.reverse()
        return dict(results)

    def close(self) -> None:
        """Give the carried tensors and the program back."""
        self.program.close()
        for tensor in (*self._current.values(), *self._spare.values()):
            tensor.close()

    def __enter__(self) -> PingPong:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _check(self, start: Mapping[str, Any]) -> None:
        inputs, outputs = self.program.inputs, self.program.outputs
        if not self.carry:
            raise ArgumentError(f"nothing to carry: no output is called {NEW}x with an input x; give carry=")
        if len(set(self.carry.values())) < len(self.carry):
            raise ArgumentError("carry gives one input two outputs")
        for output, name in self.carry.items():
            if output not in outputs or name not in inputs:
                raise ArgumentError(f"carry {output!r} to {name!r}: the program has no such output or input")
            made, taken = outputs[output], inputs[name]
            if made.shape != taken.shape:
                raise ShapeError(f"the output {output!r} is {made.shape}, and the input {name!r} {taken.shape}")
            if made.dtype != taken.dtype:
                raise DTypeError(f"the output {output!r} is {made.dtype}, and the input {name!r} {taken.dtype}")
        if unknown := sorted(set(start) - set(self.carry.values())):
            raise ArgumentError(f"start names {', '.join(unknown)}, which is not carried")

    def _first(self, name: str, value: Any) -> Tensor:
        wanted = self.program.inputs[name]
        if value is None:
            return zeros(wanted.shape, wanted.dtype)
        if not isinstance(value, Tensor):
            made = empty(wanted.shape, wanted.dtype)
            made[...] = value
            return made
        if tuple(value.shape) != wanted.shape or value.dtype != wanted.dtype:
            raise ShapeError(
                f"start {name!r} is {value.shape} {value.dtype}; the input is {wanted.shape} {wanted.dtype}"
            )
        return value
