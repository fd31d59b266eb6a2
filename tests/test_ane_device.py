"""device="ane" from Python, on the stand-in: operands, tensors on surfaces, options, faults, device information."""

import gc
import os
import pickle
import subprocess
import sys
import sysconfig
import threading

import numpy as np
import pytest
from fake_ane import control as fake_ane
from needs_ane import needs_ane

import anex
from anex import _native, mb
from anex.devices.info import chip_of

pytestmark = needs_ane


@anex.graph(x=(1, 4, 1, 5))
def scaled(x):
    return mb.add(x=mb.mul(x=x, y=np.float16(2)), y=np.float16(1), name="y")


@anex.graph(zebra=(2, 3), apple=(2, 3))
def quotient(zebra, apple):
    return mb.real_div(x=zebra, y=apple, name="q"), mb.sub(x=zebra, y=apple, name="d")


def half(*shape):
    return np.random.default_rng(3).uniform(1, 4, shape).astype(np.float16)


def test_a_program_compiled_for_the_neural_engine_gives_what_the_cpu_gives():
    x = half(1, 4, 1, 5)
    before = fake_ane.count("runs")
    found = anex.compile(scaled, device="ane")(x)
    assert fake_ane.count("runs") == before + 1
    np.testing.assert_allclose(np.asarray(found), np.asarray(anex.compile(scaled)(x)), rtol=2e-3)


def test_operands_are_bound_by_name_whatever_the_order_of_symbols():
    zebra, apple = half(2, 3), half(2, 3) + 1
    program = anex.compile(quotient, device="ane")
    assert list(program.inputs) == ["zebra", "apple"]
    for q, d in (program(zebra, apple), program(apple=apple, zebra=zebra)):
        np.testing.assert_allclose(np.asarray(q), zebra / apple, rtol=2e-3)
        np.testing.assert_allclose(np.asarray(d), zebra - apple, rtol=2e-3)


def test_tensors_are_surfaces_with_padded_rows_and_are_not_staged():
    program = anex.compile(scaled, device="ane")
    x = anex.tensor(half(1, 4, 1, 5))
    assert x.share_id
    assert x.strides == (256, 64, 64, 2)
    y = program(x)
    assert (y.strides, bool(y.share_id)) == (x.strides, True)
    assert program(x, out=y) is y
    assert program.stats()["staged"] == 0
    assert program.stats()["requests_built"] <= 2


@pytest.mark.parametrize("kind", ["numpy", "packed", "reversed", "foreign", "read-only"])
def test_operands_that_are_no_fitting_surface_are_staged_and_right(kind):
    program = anex.compile(scaled, device="ane")
    x = half(1, 4, 1, 5)
    out = None
    given = x
    if kind == "packed":
        given, out = anex.tensor(x, padded=False), anex.empty((1, 4, 1, 5), padded=False)
    elif kind == "reversed":
        given = x[:, ::-1]
    elif kind == "foreign":
        given, out = anex.from_dlpack(x), np.empty_like(x)
    elif kind == "read-only":
        given = x.copy()
        given.flags.writeable = False
    found = program(given, out=out)
    np.testing.assert_allclose(np.asarray(found), np.asarray(given) * 2 + 1, rtol=2e-3)
    assert program.stats()["staged"] == (1 if out is None else 2)


def test_staging_surfaces_are_made_once():
    program = anex.compile(scaled, device="ane")
    x, y = half(1, 4, 1, 5), np.empty((1, 4, 1, 5), np.float16)
    program(x, out=y)
    before = fake_ane.count("live_surfaces"), fake_ane.count("requests")
    for _ in range(20):
        program(x, out=y)
    assert (fake_ane.count("live_surfaces"), fake_ane.count("requests")) == before


@pytest.mark.parametrize("shape", [(7,), (1,), (2, 3, 2, 3, 4), (1, 1, 5), (3, 1, 2)])
def test_every_rank_is_carried(shape):
    @anex.graph(x=shape)
    def negated(x):
        return mb.mul(x=x, y=np.float16(-1), name="y")

    x = np.asarray(half(*shape))
    found = anex.compile(negated, device="ane")(anex.tensor(x))
    assert found.shape == shape
    np.testing.assert_array_equal(np.asarray(found), -x)


def test_booleans_travel_as_bytes():
    @anex.graph(x=(2, 40))
    def larger(x):
        return mb.greater(x=x, y=np.float16(2), name="y")

    x = half(2, 40)
    found = anex.compile(larger, device="ane")(x)
    assert found.dtype == np.bool_
    np.testing.assert_array_equal(np.asarray(found), x > 2)


def test_views_stay_valid_and_current_while_the_device_writes():
    program = anex.compile(scaled, device="ane")
    x, y = anex.ones((1, 4, 1, 5)), anex.zeros((1, 4, 1, 5))
    into, of = np.asarray(x), np.asarray(y)
    for value in (1, 5):
        into[...] = value
        program(x, out=y)
        assert (of == 2 * value + 1).all()
    assert fake_ane.count("unlocked_writes") == 0
    assert fake_ane.count("evaluated_locked") == 0


def test_surfaces_are_shared_by_number():
    x = anex.tensor(half(2, 3))
    same = _native.Tensor.from_surface(x.share_id, x.shape, "float16", x.strides)
    same[0, 0] = 77
    assert x[0, 0] == 77
    with pytest.raises(anex.ShapeError, match="needs"):
        _native.Tensor.from_surface(x.share_id, (1 << 20,), "float16", (2,))
    with pytest.raises(anex.ArgumentError, match="no IOSurface number"):
        _native.Tensor.from_surface(123456789, (1,), "float16", (2,))


def test_an_output_that_is_an_input_too_is_refused():
    x = anex.ones((1, 4, 1, 5))
    with pytest.raises(anex.ArgumentError, match="shares memory"):
        anex.compile(scaled, device="ane")(x, out=x)


def test_a_call_into_given_tensors_allocates_nothing():
    program = anex.compile(scaled, device="ane")
    x, y = anex.ones((1, 4, 1, 5)), anex.zeros((1, 4, 1, 5))
    with fake_ane.switched(empty_evaluate=True):
        counts = []
        gc.collect()
        for _ in range(4):  # the first rounds fill the interpreter's free lists
            before = sys.getallocatedblocks()
            for _ in range(5000):
                program(x, out=y)
            counts.append(sys.getallocatedblocks() - before)
        assert counts[-1] < 20
    assert program.stats()["requests_built"] == 1


@pytest.mark.parametrize("way", ["evaluate", "direct", "real_time"])
def test_every_way_of_evaluating_gives_the_same(way):
    x = half(1, 4, 1, 5)
    found = anex.compile(scaled, device="ane", way=way)(x)
    np.testing.assert_allclose(np.asarray(found), x * 2 + 1, rtol=2e-3)


@pytest.mark.parametrize("qos", ["background", "user_interactive", "real_time", 33])
def test_every_quality_of_service_runs(qos):
    assert anex.compile(scaled, device="ane", qos=qos)(half(1, 4, 1, 5)).shape == (1, 4, 1, 5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"speed": 9}, "no option speed; it takes the options qos, isolate, "),
        ({"qos": "fast"}, "qos='fast' is neither one of real_time, background"),
        ({"qos": True}, "qos=True"),
        ({"way": "sideways"}, "way='sideways' is none of evaluate, direct, real_time"),
        ({"keep": 1}, "keep=1 is neither True nor False"),
        ({"passes": "all"}, "passes='all' is no mapping"),
        ({"passes": {"magic": True}}, "passes magic: the passes are"),
    ],
)
def test_options_that_are_wrong_are_named(options, message):
    with pytest.raises(anex.ArgumentError, match=message):
        anex.compile(scaled, device="ane", **options)


def test_the_cpu_takes_no_options_and_a_fallback_drops_those_of_the_first_device():
    with pytest.raises(anex.ArgumentError, match="device='cpu' has no option qos; it takes the options strict"):
        anex.compile(scaled, device="cpu", qos=9)

    program = anex.compile(refused(), device="ane", fallback="cpu", qos="background")
    assert (program.device, program._options) == ("cpu", {})


def test_equal_programs_share_an_identifier_and_other_ones_do_not():
    def made(by):
        @anex.graph(x=(1, 8))
        def program(x):
            return mb.mul(x=x, y=np.full((1, 8), by, np.float16), name="y")

        return anex.compile(program, device="ane").stats()["identifier"]

    assert made(3) == made(3) != made(4)


def test_a_program_survives_pickling_with_its_options():
    program = anex.compile(scaled, device="ane", qos="background", keep=True)
    back = pickle.loads(pickle.dumps(program))
    assert back.device == "ane"
    assert back._options == {"qos": "background", "keep": True}
    assert back(np.ones((1, 4, 1, 5), np.float16))[0, 0, 0, 0] == 3


def test_a_profile_is_one_row_whose_limits_nobody_claims_to_know():
    profile = anex.compile(scaled, device="ane", perf_stats=True).profile(half(1, 4, 1, 5), repeat=3)
    assert [row.op for row in profile.rows] == ["ane"]
    assert profile.rows[0].bound == "unknown"
    assert "limits of double: not measured" in str(profile)


def test_a_closed_program_says_so_and_gives_everything_back():
    gc.collect()
    before = fake_ane.count("live_models"), fake_ane.count("live_programs")
    program = anex.compile(scaled, device="ane")
    program.close()
    program.close()
    with pytest.raises(anex.ClosedError, match="closed"):
        program(half(1, 4, 1, 5))
    with pytest.raises(anex.ClosedError, match="closed"):
        program.stats()
    assert (fake_ane.count("live_models"), fake_ane.count("live_programs")) == before


def test_programs_that_are_dropped_give_everything_back():
    gc.collect()
    names = ("live_models", "live_programs", "live_requests", "live_surfaces")
    before = [fake_ane.count(name) for name in names]
    for _ in range(50):
        anex.compile(scaled, device="ane")(half(1, 4, 1, 5))
    gc.collect()
    assert [fake_ane.count(name) for name in names] == before


@pytest.mark.parametrize("kind", ["no", "silent", "throw"])
@pytest.mark.parametrize("call", ["descriptor", "model", "compile", "load"])
def test_a_compilation_that_fails_says_why_and_the_next_one_works(call, kind):
    with (
        fake_ane.switched(**{call: kind}),
        pytest.raises((anex.DeviceError, anex.CompileError, anex.UnsupportedError)) as raised,
    ):
        anex.compile(scaled, device="ane", recompile=True)
    assert len(str(raised.value)) > 30
    assert anex.compile(scaled, device="ane")(half(1, 4, 1, 5)).shape == (1, 4, 1, 5)


@pytest.mark.parametrize("kind", ["no", "silent", "throw"])
def test_a_run_that_fails_says_why_and_the_next_one_works(kind):
    program = anex.compile(scaled, device="ane")
    x = anex.tensor(half(1, 4, 1, 5))
    for arguments in ((x,), (np.asarray(x),)):  # direct and staged
        with fake_ane.switched(evaluate=kind), pytest.raises(anex.DeviceError) as raised:
            program(*arguments)
        assert len(str(raised.value)) > 30
        np.testing.assert_allclose(np.asarray(program(*arguments)), np.asarray(x) * 2 + 1, rtol=2e-3)


def test_a_program_that_the_daemon_forgot_runs_again():
    program = anex.compile(scaled, device="ane")
    x = anex.tensor(half(1, 4, 1, 5))
    program(x)
    with fake_ane.switched(forgets=1):
        np.testing.assert_allclose(np.asarray(program(x)), np.asarray(x) * 2 + 1, rtol=2e-3)


def test_one_program_serves_many_threads_with_operands_of_any_kind():
    program = anex.compile(scaled, device="ane")
    wrong = []

    def work(seed):
        x = np.random.default_rng(seed).uniform(1, 4, (1, 4, 1, 5)).astype(np.float16)
        given = anex.tensor(x) if seed % 2 else x
        for _ in range(50):
            if not np.allclose(np.asarray(program(given)), x * 2 + 1, rtol=2e-3):
                wrong.append(seed)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def refused():
    @anex.graph(x=(2, 8))
    def windows(x):
        return mb.sliding_windows(x=x, axis=1, size=4, name="w")

    return windows


def test_an_op_that_the_rules_refuse_is_named_with_the_rule():
    with pytest.raises(
        anex.UnsupportedError, match=r"cannot run 1 op\(s\):\n  sliding_windows 'w': \[unsupported-op\]"
    ):
        anex.compile(refused(), device="ane")


def test_device_info_names_the_chip():
    info = anex.device_info()
    assert (info.chip, info.family, info.architecture) == ("M1", "H13", "h13g")
    assert info.available
    assert info.reason is None
    with fake_ane.switched(arch="h17s"):
        assert anex.device_info().chip == "M5 Pro"


@pytest.mark.parametrize(
    ("architecture", "chip", "family"),
    [("h13g", "M1", "H13"), ("h14g", "M2", "H14"), ("h15g", "M3", "H15"), ("h16g", "M4", "H16"),
     ("h17s", "M5 Pro", "H17"), ("h18g", "M6", "H18"), ("h11", "", ""), ("", "", ""), ("t8132", "", "")],
)  # fmt: skip
def test_chips_follow_from_architectures(architecture, chip, family):
    assert chip_of(architecture) == (chip, family)


def fresh(code, **environment):
    """What ``code`` prints in a process of its own."""
    env = {**os.environ, **environment}
    if environment.get("ANEX_ANE_FRAMEWORK") == "":
        del env["ANEX_ANE_FRAMEWORK"]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("switches", "reason"),
    [
        ("has_ane=no", "no Neural Engine"),
        ("has_ane=no;virtual_machine=yes", "virtual machine"),
        ("missing_class=_ANERequest", "_ANERequest"),
        ("missing_class=_ANEInMemoryModel", "_ANEInMemoryModel"),
    ],
)
def test_a_machine_without_the_device_says_why(switches, reason):
    code = "import anex; print(anex.devices.available(), anex.device_info().reason, anex.zeros(3).share_id)"
    said = fresh(code.replace("import anex", "import anex, anex.devices"), FAKE_ANE=switches)
    assert reason in said
    assert "('cpu',)" in said


def test_without_the_framework_everything_else_works():
    said = fresh(
        "import anex, anex.devices; i = anex.device_info(); print(i.available, i.reason); "
        "t = anex.zeros((2, 3)); print(t.share_id, t.packed, anex.cache.budget().compiles)",
        ANEX_ANE_FRAMEWORK="",
    )
    assert "False" in said
    assert ("this is Linux; the Neural Engine is part of Apple silicon under macOS" in said) or (
        sysconfig.get_platform().startswith("macosx")
    )
    assert "0 True 0" in said
