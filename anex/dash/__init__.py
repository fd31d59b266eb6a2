"""The command ``anex dash``: a training run in a terminal, live or from what it wrote. Needs ``anex[dash]``."""
