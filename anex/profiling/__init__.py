"""What a program's calls spend their time on: measured, never predicted. ``Program.profile`` makes a ``Profile``."""

from .profile import Limits, Memory, OpType, Profile, Row

__all__ = ["Limits", "Memory", "OpType", "Profile", "Row"]
