"""Op names that appear in lists of what the engine takes, and that no builder of coremltools makes, or no user should.

They have rules, and no cost: a program with them cannot be loaded, but a reader may ask for them by name.
"""

from __future__ import annotations

from dataclasses import replace

from .acceptance import CATALOGUE, SWEPT, conditional, listed, refused
from .record import OPS
from .rule import Rule

NO_PROGRAM = (f"{SWEPT}: refused",)
_OUTSIDE = "only in a program of its own, or on some families"

FOREIGN: dict[str, tuple[Rule, ...]] = {
    **{name: (refused(source=(CATALOGUE,)),) for name in ("acosh", "asinh")},
    **{
        name: (conditional(_OUTSIDE, f"{CATALOGUE}: bridged"),)
        for name in (
            "call", "circular_buffer_to_tensor", "const", "cost_volume", "cross_product", "degamma", "gamma",
            "matrix_decomposition", "ne_bypass", "pe_goc", "pixel_buffer_to_tensor", "tensor_buffer_to_tensor",
            "tensor_to_circular_buffer", "tensor_to_pixel_buffer", "tensor_to_tensor_buffer",
        )
    },
    **{name: (listed(),) for name in ("ne_conv", "ne_matmul", "ne_pool", "pe_elementwise", "pe_pool")},
    **{
        name: (refused("is about lists, which the engine has none of", fix="unroll, or loop on the host"),)
        for name in ("list_gather", "list_length", "list_read", "list_scatter", "list_write", "make_list")
    },
    "classify": (refused("gives labels, not tensors", fix="choose on the host", source=NO_PROGRAM),),
    "custom_layer": (
        replace(refused("is code for CPU or GPU", fix="write it in MIL ops", source=("HOL",)), os="before macOS 13"),
    ),
    "depthwise_conv": (listed(),),
    "dilated_conv": (conditional("a problem of old Core ML; nothing newer says so", "HOL: possibly wrong by its own "
                                 "account", "SWP: conv compiles"),),
}  # fmt: skip

# Names of a form of an op, and of the op that it is.
FORMS = {
    "gelu_exact": "gelu",
    "gelu_sigmoid_approx": "gelu",
    "gelu_tanh_approx": "gelu",
    "write_state": "coreml_update_state",
}


def rules_of(op_type: str) -> tuple[Rule, ...] | None:
    """The rules of an op by its name alone, None for one that nobody ran."""
    op_type = FORMS.get(op_type, op_type)
    return OPS[op_type].ane if op_type in OPS else FOREIGN.get(op_type)
