"""``python -m anex``."""

from .cli import main

main(prog_name="anex")
