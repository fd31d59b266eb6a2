"""Random programs over the op table, held against a reference. `make fuzz N=1000 SEED=0` runs many.

graph.py      what a program is: inputs and steps; MIL from it
reference*.py what each op must give, in float64 where torch or numpy does it, else coremltools' inference
maker.py      picks shapes, values and arguments; families*.py: how each op is asked for
check.py      runs a program every way and compares; shrink.py: the smallest program that still fails
"""
