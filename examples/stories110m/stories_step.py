"""The loss of a sequence and the gradients of all weights, by programs that are compiled once.

On the CPU it is one program. For the Neural Engine the model is cut where devices change, since that engine has no
scatter and is not meant for all of it: the host looks tokens up, layers run on the engine, and so do those of the
``PARTS`` after them that are offloaded; the rest runs on the CPU. A cut keeps only what passes it, so what comes
before it is computed again on the way back.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from stories_config import Config, StoriesError
from stories_model import Model
from stories_section import Section, Timed, results_of

import anex

PARTS = ("rmsnorm", "classifier", "softmax")  # what --offload names, in the order they run; the layers come first
ANE_LOSS_SCALE = 1024.0  # gradients of the logits of 32000 tokens are near the least that float16 has


class Step:
    """``step(tokens, targets)`` is the loss; ``gradients``, by name and resident, are then those of the sequence,
    times ``loss_scale``. ``times``: milliseconds since they were cleared, by what took them. ``compiles``: programs
    compiled. ``weights`` are float32 on the CPU, float16 where the Neural Engine reads them.
    """

    def __init__(
        self, config: Config, weights: Mapping[str, np.ndarray], device: str = "cpu", offload: Iterable[str] = ()
    ) -> None:
        self.config, self.device, self.offload = config, device, frozenset(offload)
        if unknown := sorted(self.offload - set(PARTS)):
            raise StoriesError(f"--offload {','.join(unknown)}: the parts are {', '.join(PARTS)}")
        self.dtype = "float16" if device == "ane" else "float32"
        self.loss_scale = ANE_LOSS_SCALE if device == "ane" else 1.0
        self.weights = {name: anex.tensor(weights[name], dtype=self.dtype) for name in config.shapes()}
        self.model = Model(config, self.dtype)
        self.compiles, self.times = 0, Counter[str]()
        self.gradients: dict[str, anex.Tensor] = {}
        self.sections: list[Section] = []
        start = time.perf_counter()
        if device == "ane":
            self._cut()
        else:
            self._whole()
        self.compile_ms = (time.perf_counter() - start) * 1e3

    def __call__(self, tokens: np.ndarray, targets: np.ndarray) -> float:
        """``tokens`` and ``targets``: int32 [seq_len]."""
        return self._run_cut(tokens, targets) if self.device == "ane" else self._run_whole(tokens, targets)

    def given(self, tokens: np.ndarray, targets: np.ndarray) -> dict[str, Any]:
        """The inputs of the one program of the CPU."""
        return {"tokens": tokens, "targets": targets[:, None], **self.weights}

    # ---- one program --------------------------------------------------------------------------

    def _whole(self) -> None:
        from anex import mb

        config, model = self.config, self.model

        def loss(tokens: Any, targets: Any, **w: Any) -> Any:
            x = mb.gather(x=w["embedding"], indices=tokens, axis=0, name="elem_lookup")
            x = model.norm(model.body(x, w), w["norm"], "rms_last")
            return model.loss(model.logits(x, w[config.classifier]), targets)

        inputs = {"tokens": anex.spec((config.seq_len,), "int32"), "targets": anex.spec((config.seq_len, 1), "int32")}
        program = anex.graph(**inputs, **self._specs(config.shapes()))(loss)
        made = self._compile(anex.value_and_grad(program, config.shapes()), "cpu")
        results = results_of(made)
        self.sections = [Section("cpu", list(config.shapes()), None, made, (), results)]
        self.gradients = dict(zip(config.shapes(), results[1:], strict=True))

    def _run_whole(self, tokens: np.ndarray, targets: np.ndarray) -> float:
        (section,) = self.sections
        with self.timed("cpu"):
            section.backward(**self.given(tokens, targets), out=section.results)
        return float(section.results[0][0, 0])

    # ---- cut where devices change -------------------------------------------------------------

    def _cut(self) -> None:
        config, model = self.config, self.model
        parts: dict[str, tuple[list[str], Callable[..., Any]]] = {
            "body": (list(config.body_shapes()), model.body),
            "rmsnorm": (["norm"], lambda x, w: model.norm(x, w["norm"], "rms_last")),
            "classifier": ([config.classifier], lambda x, w: model.logits(x, w[config.classifier])),
            "softmax": ([], lambda x, w: x),
        }
        devices = {name: "ane" if name == "body" or name in self.offload else "cpu" for name in parts}
        groups: list[list[str]] = []
        for name in parts:
            if groups and devices[groups[-1][0]] == devices[name]:
                groups[-1].append(name)
            else:
                groups.append([name])
        for group in groups:
            names = [name for part in group for name in parts[part][0]]
            makers = [parts[part][1] for part in group]
            width = config.vocab_size if group[0] == "softmax" else config.dim
            self.sections.append(self._section(devices[group[0]], names, makers, width, "softmax" in group))
        for section in self.sections:
            first = 2 if section.forward is None else 1
            self.gradients |= dict(zip(section.weights, section.results[first:], strict=True))
        if not config.shared:
            self.gradients["embedding"] = anex.zeros(config.shapes()["embedding"], self.dtype)
        self.gradients = {name: self.gradients[name] for name in config.shapes()}

    def _section(
        self, device: str, names: list[str], makers: list[Callable[..., Any]], width: int, last: bool
    ) -> Section:
        from anex import mb

        config, on_ane = self.config, device == "ane"
        x = anex.spec((config.seq_len, width), self.dtype)
        specs = self._specs({name: config.shapes()[name] for name in names})

        def run(x: Any, w: Mapping[str, Any]) -> Any:
            for make in makers:
                x = make(x, w)
            return x

        if not last:
            program = anex.graph(x=x, **specs)(lambda x, **w: mb.identity(x=run(x, w), name="y"))
            forward = self._compile(program, device)
            backward = self._compile(anex.vjp(program, ["x", *names]), device)
            # its first output is y once more
            return Section(device, names, forward, backward, results_of(forward), results_of(backward)[1:])
        rows = (config.seq_len, config.vocab_size) if on_ane else (config.seq_len, 1)  # one-hot, or numbers
        targets = anex.spec(rows, self.dtype if on_ane else "int32")

        def loss(x: Any, targets: Any, **w: Any) -> Any:
            logits = run(x, w)
            return self.model.loss(logits if on_ane else mb.cast(x=logits, dtype="fp32"), targets)

        program = anex.graph(x=x, targets=targets, **specs)(loss)
        made = self._compile(anex.value_and_grad(program, ["x", *names], loss_scale=self.loss_scale), device)
        return Section(device, names, None, made, (), results_of(made))

    def _run_cut(self, tokens: np.ndarray, targets: np.ndarray) -> float:
        with self.timed("io"):
            x: Any = np.asarray(self.weights["embedding"])[tokens]
            rows = targets[:, None]
            if self.sections[-1].device == "ane":
                rows = (rows == np.arange(self.config.vocab_size)).astype(self.dtype)
        inputs = []
        for section in self.sections[:-1]:
            inputs.append(x)
            with self.timed("ane" if section.device == "ane" else "cls"):
                section.forward(x=x, **self._of(section), out=section.made[0])
            x = section.made[0]
        last = self.sections[-1]
        with self.timed("ane" if last.device == "ane" else "cls"):
            last.backward(x=x, targets=rows, **self._of(last), out=last.results)
        dx = last.results[1]
        for section, x in zip(reversed(self.sections[:-1]), reversed(inputs), strict=True):
            with self.timed("ane" if section.device == "ane" else "cls"):
                y = section.made[0]  # is there already, and written once more
                section.backward(x=x, **self._of(section), grad_y=dx, out=(y, *section.results))
            dx = section.results[0]
        with self.timed("io"):
            self._add_lookups(tokens, np.asarray(dx))
        return float(last.results[0][0, 0])

    def _add_lookups(self, tokens: np.ndarray, dx: np.ndarray) -> None:
        """To the gradient of the embedding what came through the rows that were looked up."""
        found = np.asarray(self.gradients["embedding"])
        if not self.config.shared:
            found[...] = 0
        rows, where = np.unique(tokens, return_inverse=True)
        sums = np.zeros((len(rows), dx.shape[1]), np.float32)
        np.add.at(sums, where, dx)
        found[rows] = (found[rows] + sums).astype(found.dtype)

    # ---- both ---------------------------------------------------------------------------------

    def _specs(self, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, anex.Spec]:
        return {name: anex.spec(shape, self.dtype) for name, shape in shapes.items()}

    def _of(self, section: Section) -> dict[str, anex.Tensor]:
        return {name: self.weights[name] for name in section.weights}

    def _compile(self, program: Any, device: str) -> anex.Program:
        self.compiles += 1
        return anex.compile(program, device=device)

    def timed(self, name: str) -> Any:
        return Timed(self.times, name)
