"""MIL programs: Apple's text form of them (``to_text``, ``from_text``) and their weight files (``blob``)."""

from .proto import equal
from .text import from_text, to_text

__all__ = ["equal", "from_text", "to_text"]
