"""Which updates of a state can be written into the state itself.

``read_state``, ``slice_update`` and ``coreml_update_state`` of one state, as a cache of keys and values is
written in MIL, mean three copies of the whole state. Where nothing else looks at the state in between, only the
slice is written.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from coremltools.converters.mil.mil import Operation, Var


def in_place(
    ops: Sequence[Operation], outputs: Collection[Var], reads: Callable[[Operation], Iterable[Var]]
) -> dict[Operation, Var]:
    """The ops that need no tensor of their own, each with the state that holds what they give.

    Of each state it takes one read, whose only reader is one ``slice_update`` of it, and one write, of what that
    gives; ``reads`` tells the values an op and its blocks use.
    """
    readers = Counter(var for op in ops for var in {*reads(op)})
    readers.update(outputs)
    found: dict[Operation, Var] = {}
    for write in ops:
        if write.op_type != "coreml_update_state":
            continue
        state, update = write.inputs["state"], write.inputs["value"].op
        if readers[state] != 2 or update is None or update.op_type != "slice_update" or update not in ops:
            continue
        read = update.inputs["x"].op
        if read is None or read.op_type != "read_state" or read.inputs["input"] is not state:
            continue
        if readers[read.outputs[0]] == 1 and update.inputs["update"] is not read.outputs[0]:
            found |= {read: state, update: state, write: state}
    return found
