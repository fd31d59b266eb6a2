"""float16 to float32 and back, which everybody needs who fills a tensor from an array."""

from __future__ import annotations

import numpy as np

from ..case import Case, Goal, Limit, Setting, Work, normal


def conversion(to: str, size: int) -> Case:
    """Into memory that is there (the first three), and into new memory."""
    source = "float32" if to == "float16" else "float16"

    def values() -> np.ndarray:
        return np.resize(normal((1 << 16,)), size).astype(source)

    def anex_into(setting: Setting) -> Work:
        import anex

        x, y = values(), anex.empty((size,), to)
        return Work(lambda: y.copy_from(x), lambda: np.asarray(y))

    def numpy_into(setting: Setting) -> Work:
        x, y = values(), np.empty(size, to)
        return Work(lambda: np.copyto(y, x), lambda: y)

    def torch_into(setting: Setting) -> Work:
        import torch

        x, y = torch.from_numpy(values()), torch.empty(size, dtype=getattr(torch, to))
        return Work(lambda: y.copy_(x), y.numpy)

    def anex_new(setting: Setting) -> Work:
        import anex

        x = values()
        return Work(lambda: anex.tensor(x, dtype=to), lambda: np.asarray(anex.tensor(x, dtype=to)))

    def numpy_new(setting: Setting) -> Work:
        x = values()
        return Work(lambda: x.astype(to), lambda: x.astype(to))

    def torch_new(setting: Setting) -> Work:
        import torch

        x, dtype = torch.from_numpy(values()), getattr(torch, to)
        return Work(lambda: x.to(dtype), lambda: x.to(dtype).numpy())

    return Case(
        f"{source} to {to}, {size / 1e6:.2g} M numbers",
        {
            "anex Tensor.copy_from": anex_into,
            "numpy copyto": numpy_into,
            "torch copy_": torch_into,
            "anex tensor": anex_new,
            "numpy astype": numpy_new,
            "torch to": torch_new,
        },
        goals=[Goal("anex Tensor.copy_from", "numpy copyto", 10), Goal("anex tensor", "numpy astype", 10)],
        limits=[Limit(kind, 6 * size) for kind in (("copy", "stream") if size > 1 << 24 else ("cache",))],
        tolerance=0.0,
    )
