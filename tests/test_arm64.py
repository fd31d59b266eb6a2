"""The engine built for arm64 and run under qemu: the op suite's plans give what they give on this machine."""

import os
import pickle
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from arm64.record import Recording
from fake_ane.build import alone
from harness import RTOL

ROOT = Path(__file__).parent.parent
GCC = "aarch64-linux-gnu-gcc"
# Linux's, and what a Mac has as a release has it. The results may not depend on -O: one of the two takes less of it,
# which is less than half the time (and then it warns of what only more of it shows). (CC, ANEX_CFLAGS)
COMPILERS = {
    "gcc": (GCC, "-O1 -Wno-maybe-uninitialized"),
    "clang": ("clang-19 --target=aarch64-linux-gnu", ""),
}
# float16 arithmetic and nothing that Apple's processors lack, apart from bf16 and i8mm, which no flag asks for
APPLE_LIKE, WITHOUT_FLOAT16 = "max,sve=off", "cortex-a53"
EVERY = 11  # of the op suite's tests, one in so many is recorded

# The sums of these are long, and in fast plans their order is that of the register tile: machines differ in it. Others
# have a shorter way to a float16 (csrc/cpu/quick.h), which every machine goes with instructions of its own.
ONLY_FAST = {"anex_attention", "anex_linear_codes"}  # which strict plans do not have
DIFFER = ONLY_FAST | {
    "conv", "conv_transpose", "einsum", "gelu", "gru", "instance_norm", "l2_norm", "layer_norm", "linear", "lstm",
    "matmul", "rnn", "scaled_dot_product_attention", "sigmoid", "silu", "softmax",
}  # fmt: skip


def qemu(cpu, program, *arguments):
    return subprocess.run(["qemu-aarch64", "-cpu", cpu, program, *arguments], check=True, capture_output=True).stdout


@pytest.fixture(scope="module", params=COMPILERS)
def replay(request, tmp_path_factory):
    """replay.c with the engine, for arm64 Linux."""
    compiler, extra = COMPILERS[request.param]
    chosen = {"ANEX_TARGET": "linux-arm64", "ANEX_OBJC": "0", "CC": f"{compiler} -Werror", "ANEX_CFLAGS": extra}
    program = tmp_path_factory.mktemp("arm64") / "replay"
    flags = ["-std=c11", "-O2", "-Wall", "-Wextra", "-Werror", "-static", "-Icsrc"]
    with alone():
        build = [sys.executable, "setup.py", "--quiet", "build_engine"]
        subprocess.run(build, cwd=ROOT, env={**os.environ, **chosen}, check=True)
        engine = max((ROOT / "build").glob("engine-linux-arm64*.o"), key=lambda path: path.stat().st_mtime)
        subprocess.run(
            [GCC, *flags, "tests/arm64/replay.c", engine, "-lm", "-pthread", "-o", program], cwd=ROOT, check=True
        )
    return program


@pytest.fixture(scope="module", params=["fast", "strict"])
def recorded(request, tmp_path_factory):
    """A part of the op suite: the file of its plans, (what ran, outputs here) of each run, and what may differ."""
    folder = tmp_path_factory.mktemp("records")
    options = ["-p", "arm64.record", "-p", "no:cacheprovider", "--records", folder, "--every", str(EVERY)]
    if request.param == "strict":
        options.append("--strict-plans")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, "tests/ops"], cwd=ROOT, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT / "tests")}, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr
    differ = DIFFER if request.param == "fast" else ONLY_FAST
    return folder / "records", pickle.loads((folder / "results").read_bytes()), differ


def compare(output, results, differ):
    """All values equal, except that those of ops that may differ keep the op suite's tolerance."""
    at = 0
    for what, arrays in results:
        exact = not differ.intersection(what.split(": ")[-1].split())
        for here in arrays:
            there = np.frombuffer(output, here.dtype, here.size, at).reshape(here.shape)
            at += here.nbytes
            if here.dtype.kind != "f" or exact:
                np.testing.assert_array_equal(there, here, err_msg=what)
                continue
            tolerance = RTOL[here.dtype.name]
            most = np.abs(here[np.isfinite(here)]).max(initial=1)
            np.testing.assert_allclose(there, here, rtol=tolerance, atol=tolerance * most, err_msg=what)
    assert at == len(output)


def converted(values, dtype):
    """A record of one cast, and what it gives here."""
    recording = Recording()
    plan = recording.plan()
    x = plan.add_input("x", values.shape, values.dtype.name)
    y = plan.add_value(values.shape, dtype)
    plan.add_op("cast", "y", [x, plan.add_constant(dtype.replace("float", "fp"))], [], [y])
    plan.finish([("y", y)])
    plan.run((values,))
    return recording


def test_processors_with_float16_arithmetic_get_the_kernels_that_use_it(replay):
    assert qemu(APPLE_LIKE, replay).split() == [b"neon_dot", b"neon", b"generic"]
    assert qemu("cortex-a76", replay).split() == [b"neon_dot", b"neon", b"generic"]


@pytest.mark.parametrize("isa", ["neon_dot", "neon"])
def test_the_op_suite_computes_the_same_with_float16_arithmetic(replay, recorded, isa):
    records, results, differ = recorded
    assert len(results) > 200
    compare(qemu(APPLE_LIKE, replay, records, isa), results, differ)


def test_the_op_suite_computes_the_same_on_a_processor_without_float16_arithmetic(replay, recorded):
    assert qemu(WITHOUT_FLOAT16, replay).split() == [b"generic"]
    records, results, differ = recorded
    compare(qemu(WITHOUT_FLOAT16, replay, records), results, differ)


@pytest.mark.parametrize("isa", ["neon", "generic"])
def test_conversions_give_the_same_bits(replay, tmp_path, isa):
    halves = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    rng = np.random.default_rng(3)
    ends = halves[np.isfinite(halves)].astype(np.float32)
    between = ((ends[:-1].astype(np.float64) + ends[1:]) / 2).astype(np.float32)  # ties
    random = rng.integers(0, 1 << 32, 200_003, dtype=np.uint64).astype(np.uint32).view(np.float32)
    floats = np.concatenate([ends, between, np.nextafter(between, np.inf), np.nextafter(between, -np.inf), random])
    for values, dtype in ((halves, "float32"), (floats.astype(np.float32), "float16")):
        recording = converted(values, dtype)
        recording.save(tmp_path)
        output = qemu(APPLE_LIKE, replay, tmp_path / "records", isa)
        wanted = recording.results[0][1][0]
        bits = np.dtype(f"u{wanted.itemsize}")
        np.testing.assert_array_equal(np.frombuffer(output, bits), wanted.view(bits))


def test_float16_arithmetic_forced_upon_a_processor_without_it_is_an_error_and_no_crash(replay, tmp_path):
    recording = Recording()
    recording.records.append(struct.pack("<q", 2) + b"P\0" + struct.pack("<qq", 0, 0))
    recording.save(tmp_path)
    forced = subprocess.run(
        ["qemu-aarch64", "-cpu", WITHOUT_FLOAT16, replay, tmp_path / "records", "neon"], capture_output=True, text=True
    )
    assert forced.returncode == 1
    assert "neon" in forced.stderr
