"""Run with count.c preloaded: what calls of programs on the Neural Engine take from the heap, as JSON on stdout."""

import ctypes
import gc
import itertools
import json

from fake_ane import control as fake_ane

import anex
from anex import mb

heap = ctypes.CDLL(None)
heap.allocations_end.restype = ctypes.c_int64
SHAPE = (1, 4, 1, 5)


@anex.graph(x=SHAPE)
def one(x):
    return mb.add(x=x, y=x, name="y")


@anex.graph(x=SHAPE, y=SHAPE, z=SHAPE)
def several(x, y, z):
    return mb.add(x=x, y=y, name="p"), mb.sub(x=x, y=z, name="q")


single, multiple = anex.compile(one, device="ane"), anex.compile(several, device="ane")
x, y, z, p, q = (anex.zeros(SHAPE) for _ in range(5))
run_single, run_multiple = single._executable.run, multiple._executable.run
given_single, given_multiple, out = (x,), (x, y, z), (p, q)


def call_with_one_output(n):
    for _ in itertools.repeat(None, n):
        single(x, out=y)


def call_with_a_tuple(n):
    for _ in itertools.repeat(None, n):
        multiple(x, y, z, out=out)


def run_with_one_output(n):
    for _ in itertools.repeat(None, n):
        run_single(given_single, y)


def run_with_a_tuple(n):
    for _ in itertools.repeat(None, n):
        run_multiple(given_multiple, out)


def call_that_makes_its_output(n):
    for _ in itertools.repeat(None, n):
        single(x)


def count(loop, n):
    heap.allocations_begin()
    loop(n)
    return heap.allocations_end()


def count_without_free_lists(loop, n):
    gc.collect()  # empties them: each Python object made is then seen
    return count(loop, n)


gc.disable()
fake_ane.put("empty_evaluate", True)
found = {}
for loop in (
    call_with_one_output,
    call_with_a_tuple,
    run_with_one_output,
    run_with_a_tuple,
    call_that_makes_its_output,
):
    loop(300)
    found[loop.__name__] = {
        "thousand": count(loop, 1000) - count(loop, 0),
        "objects": count_without_free_lists(loop, 1) - count_without_free_lists(loop, 0),
    }
print(json.dumps(found | {"evaluations": fake_ane.count("evaluations"), "runs": fake_ane.count("runs")}))
