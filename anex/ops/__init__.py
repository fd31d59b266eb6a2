"""The registry of ops: one ``define()`` per MIL op, in a file per family.

coremltools owns the signatures and one C function the CPU kernel (csrc/cpu/kernels.inc); here is what
anex alone knows of an op. The MIL name joins the three, and a test checks that it does.
"""

from __future__ import annotations

from . import (  # noqa: F401  each defines its family
    activation,
    attention,
    control,
    conv,
    elementwise,
    generate,
    indexing,
    linear,
    normalization,
    pool,
    quantization,
    recurrent,
    reduction,
    resize,
    shape,
)
from .findings import CURES, ane_findings, program_findings, warn_contested
from .foreign import rules_of
from .record import OPS, Op, define, dtype_name
from .rule import Finding, Measured, Rule, family
from .verdict import Verdict, verdict

__all__ = [
    "CURES",
    "OPS",
    "Finding",
    "Measured",
    "Op",
    "Rule",
    "Verdict",
    "ane_findings",
    "define",
    "dtype_name",
    "family",
    "program_findings",
    "rules_of",
    "verdict",
    "warn_contested",
]
