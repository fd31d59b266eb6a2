"""What a stateful program keeps from one call to the next."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from .creation import zeros
from .errors import ArgumentError

if TYPE_CHECKING:
    from ._native import Tensor
    from .spec import Spec


class State(Mapping[str, "Tensor"]):
    """The tensors of a program's states, zero at first, by name; made by ``Program.make_state``.

    A call with ``state=`` reads and writes them in place. Two states of one program are independent;
    one state must not be in two calls at once. ``state["cache"]`` is the tensor itself.
    """

    def __init__(self, specs: Mapping[str, Spec]) -> None:
        self._tensors = {name: zeros(spec.shape, spec.dtype) for name, spec in specs.items()}

    def __getitem__(self, name: str) -> Tensor:
        return self._tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    def __repr__(self) -> str:
        return f"anex.State({', '.join(f'{name}: {t.shape} {t.dtype_name}' for name, t in self.items())})"


def tensors_of(state: State | None, specs: Mapping[str, Spec]) -> tuple[Tensor, ...]:
    """The tensors a call binds after its inputs. ``ArgumentError`` without the state the program needs."""
    if not specs:
        raise ArgumentError("this program has no states; leave state= out")
    if not isinstance(state, State) or set(state) != set(specs):
        found = "no state" if state is None else "one that is not its own" if isinstance(state, State) else repr(state)
        raise ArgumentError(
            f"the program keeps {', '.join(specs)} between calls and was given {found}: "
            "state = program.make_state(), then program(..., state=state)"
        )
    return tuple(state[name] for name in specs)
