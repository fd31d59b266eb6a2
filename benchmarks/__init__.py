"""anex beside its peers on this machine: ``make bench`` or ``python -m benchmarks --help``.

To add a case, write a function that gives a ``Case`` (case.py says all of it) and a line in catalogue.py:

    def product(size: int) -> Case:
        x, y = normal((size, size)), normal((size, size), seed=1)   # the same numbers in every process

        def anex_fp16(setting: Setting) -> Work:                    # called in a process of its own
            import anex                                             # libraries are imported here, not above
            ...
            return Work(lambda: program(tx, ty, out=tz), lambda: tz)

        def numpy_fp32(setting: Setting) -> Work:
            return Work(lambda: np.matmul(x, y, out=z), lambda: z)

        return Case(
            "a product",
            {"anex fp16": anex_fp16, "numpy fp32": numpy_fp32},     # ours first
            goals=[Goal("anex fp16", "numpy fp32", 2)],             # numpy's time / ours, at least
            limits=[Limit("fma", 2 * size**3)],                     # FLOP that the work needs
        )

The first word of a contender's name is its runtime, a row of runtimes.py. What is not installed is left out, with the
reason in the table. Before anything is timed each answer is held against the first contender's.
"""
