"""``anex mil``: MIL programs in files formatted, compared, counted, judged and converted.

``fmt``, ``diff``, ``stats``, ``lint``, ``to_text`` and ``to_package`` take paths of a ``.mlpackage``, a ``.mlmodelc``
or MIL text, and ``stats`` and ``lint`` MIL programs too.
"""

from .files import diff, fmt, to_package, to_text
from .lint import Warned, lint
from .stats import Stats, stats

__all__ = ["Stats", "Warned", "diff", "fmt", "lint", "stats", "to_package", "to_text"]
