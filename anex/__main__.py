"""``python -m anex``."""

from .cli import run

run()
