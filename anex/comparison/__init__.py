"""Two programs compared op by op: inputs drawn, every intermediate value had, differences measured.

``inputs`` draws what a program takes, ``widen`` makes its float32 twin, ``runs`` has the values of a program's
intermediates on a device, ``metrics`` measures two arrays, ``compare`` joins them. ``anex.verify`` and
``anex.quantize`` stand on these.
"""
