"""The binding of the Neural Engine when the framework refuses: what is said, and that all goes on afterwards."""

import ctypes
import json
import re
import subprocess
import sys
import threading
from pathlib import Path

import lean
import numpy as np
import pytest
from ane_native import (
    ROW,
    Failure,
    Function,
    Memory,
    Program,
    account,
    call,
    device,
    limits,
    native,
    pointer,
    scale,
    scaled,
    selectors,
)
from fake_ane import control as fake

X = np.arange(128, dtype="float16").reshape(1, 4, 1, 32)


def check(function, by):
    np.testing.assert_array_equal(function(X)[0], X * np.float16(by))


def refusal(job):
    """What the job fails with, without a traceback that keeps its tensors."""
    try:
        job()
    except Failure as failure:
        return failure.status, failure.message
    raise AssertionError("it did not fail")


@pytest.fixture(autouse=True, scope="module")
def all_closed():
    """No program may be left loaded, for others to be surprised by."""
    loaded = account().loaded
    yield
    assert account().loaded == loaded


@pytest.fixture
def standing():
    """A program that was there before, and must still run afterwards."""
    program, function = scaled(99)
    yield function
    check(function, 99)
    program.close()
    assert fake.count("messages_without_pool") == 0


REFUSED = {
    ("descriptor", "no"): ("INVALID", "describing the program failed, and the framework gives no reason; it dislikes"),
    ("model", "no"): ("DEVICE", "making a model .* no reason; its daemon, aned, may not be running"),
    ("compile", "no"): ("INVALID", r"compiling .*InvalidMILProgram.*\(com.apple.appleneuralengine.compiler, code 1\)"),
    ("compile", "silent"): ("DEVICE", "compiling .* no reason; it does so when a process has compiled too often"),
    ("load", "no"): ("DEVICE", r"loading .*Program load failure.*\(com.apple.appleneuralengine, code 6\)"),
    ("load", "silent"): ("DEVICE", "loading .* no reason; it does so when too many programs are loaded"),
    ("evaluate", "no"): ("DEVICE", r"evaluating .*status=0x16 : statusType=0x9.*code 8\)"),
    ("evaluate", "silent"): ("DEVICE", "evaluating .* no reason; the driver refuses some requests at once"),
    ("request", "no"): ("DEVICE", "making a request .* it dislikes a surface or an index"),
    ("surface", "no"): ("MEMORY", "no IOSurface for a tensor of .* bytes.*close tensors"),
    ("surface_object", "no"): ("DEVICE", "wrapping a surface .* takes no such surface"),
}
REFUSED |= {
    (at, "throw"): ("DEVICE", "framework raised .*please report it")
    for at in ("descriptor", "model", "compile", "load", "evaluate", "request", "surface", "surface_object")
}


@pytest.mark.parametrize(("at", "fault"), REFUSED)
def test_what_the_framework_refuses_is_put_into_words_and_passes(standing, at, fault):
    status, message = REFUSED[at, fault]
    before = account(), fake.count("live_surfaces"), fake.count("live_requests"), fake.count("live_models")
    number = 100 + list(REFUSED).index((at, fault))

    def attempt():
        with scaled(number)[0] as program:
            program.functions[0](X)

    with fake.switched(**{at: fault}):
        found, text = refusal(attempt)
    assert found == status
    assert re.search(message, text)
    after = account(), fake.count("live_surfaces"), fake.count("live_requests"), fake.count("live_models")
    # a load that fails makes room for its second try
    assert after[0].loaded == before[0].loaded - (at == "load")
    assert after[1:] == before[1:]
    program, function = scaled(number)
    check(function, number)
    program.close()


@pytest.mark.parametrize("fault", ["no", "silent", "throw"])
def test_an_unload_that_fails_is_reported_and_the_program_comes_back(standing, fault):
    program, function = scaled(140)
    loaded = account().loaded
    with fake.switched(unload=fault), pytest.raises(Failure, match="DEVICE: unloading from the Neural Engine failed"):
        program.unload()
    assert account().loaded == loaded - 1
    check(function, 140)
    with fake.switched(unload=fault):
        program.close()


def test_a_load_that_fails_once_is_tried_again_after_a_while(standing):
    retries = account().load_retries
    with fake.switched(load="once"):
        program, function = scaled(141)
    assert account().load_retries == retries + 1
    assert program.info.load_seconds > 0.1
    check(function, 141)
    program.close()


@pytest.mark.parametrize("at", ["compile", "evaluate", "request"])
def test_other_calls_are_not_repeated_in_silence(standing, at):
    with fake.switched(**{at: "once"}):
        if at == "compile":
            refusal(lambda: scaled(142))
        with scaled(142)[0] as program:
            if at != "compile":
                refusal(lambda: program.functions[0](X))
            check(program.functions[0], 142)


def test_an_op_that_the_compiler_refuses_makes_the_program_wrong(standing):
    with fake.switched(reject="mul"), pytest.raises(Failure, match=r"INVALID: .*InvalidMILProgram"):
        scaled(160)


def test_a_program_that_the_daemon_forgot_is_loaded_again(standing):
    program, function = scaled(151)
    with fake.switched(forgets=1):
        check(function, 151)
    assert program.info.loads == 2
    with fake.switched(forgets=2), pytest.raises(Failure, match=r"Program not found.*code 23.*compile it again"):
        function(X)
    check(function, 151)
    program.close()


def test_a_surface_that_is_too_small_is_found_out_before_the_framework_does(standing):
    big = ("float16", (1, 64, 16, 64))
    with Program(scale(152, big[1])) as program:
        function = program.bind({"x": big}, {"y": big})
        memories = [Memory.new(function.ports[0].bytes), Memory.new(64)]
        with pytest.raises(Failure, match=r"SHAPE: output y is in a surface of 49152 bytes; the program needs 131072"):
            function.run(memories)


def test_memory_that_is_no_surface_is_refused_by_name(standing):
    program, function = scaled(153)
    memories = function.memories()
    plain, block = pointer(), np.zeros(4096, "uint8")
    call("memory_wrap", pointer(block.ctypes.data), None, None, ctypes.byref(plain))
    with pytest.raises(Failure, match=r"ARGUMENT: output y is not in an IOSurface.*copy it to a tensor made now"):
        function.run([memories[0], Memory(plain)])
    with pytest.raises(Failure, match="ARGUMENT: input x is missing"):
        call("ane_run", function.handle, (pointer * 2)(None, memories[1].handle))
    program.close()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mil": ""}, "INVALID: there is no MIL text"),
        ({"qos": 64}, "ARGUMENT: a quality of service of 64; the framework knows 0 to 63"),
        ({"blobs": {"@model_path/w.bin": b""}}, "INVALID: the blob @model_path/w.bin is empty"),
        ({"mil": "program(1.3) {"}, "INVALID: .*InvalidMILProgram"),
    ],
)
def test_arguments_are_checked(standing, arguments, message):
    with pytest.raises(Failure, match=message):
        Program(**{"mil": scale(154), **arguments})


# ---- ways of evaluating ----------------------------------------------------------------------------------------

DIRECT, REAL_TIME = 1, 2


@pytest.mark.parametrize("way", [DIRECT, REAL_TIME])
def test_other_ways_of_evaluating_give_the_same(standing, way):
    with scaled(155, way=way)[0] as program:
        check(program.bind({"x": ROW}, {"y": ROW}), 155)


def test_a_real_time_evaluation_that_is_refused_says_why(standing):
    with scaled(155, way=REAL_TIME)[0] as program, fake.switched(real_time="no"):
        with pytest.raises(Failure) as failure:
            program.functions[0](X)
        assert failure.value.status in ("UNSUPPORTED", "DEVICE")


def test_a_run_is_measured_where_it_can_be_and_run_all_the_same_where_not(standing):
    with scaled(156, perf_stats_mask=15)[0] as program:
        function = program.functions[0]
        memories = function.memories()
        stats = function.measure(memories)
        assert stats.has_stats
        assert stats.hardware_ns > 0
        assert stats.n_counters == 29
        assert native.anex_ane_counter_name(13) == b"kANE_NE_COMPUTE_CYCLES"
        for switches in ({"perf_stats": False}, {"surface_object": "once"}, {"request": "once"}):
            with fake.switched(**switches):
                function.fill(memories, X)
                function.measure(memories)
                np.testing.assert_array_equal(function.read(memories)[0], X * np.float16(156))
    with scaled(156)[0] as program:
        assert not program.functions[0].measure(program.functions[0].memories()).has_stats


# ---- submissions -----------------------------------------------------------------------------------------------


def landed(function: Function, memories) -> tuple[str, str]:
    found, event = [], threading.Event()
    keep = function.submit(memories, lambda *what: (found.append(what), event.set()))
    assert event.wait(30)
    assert keep
    return found[0]


def test_a_submission_that_fails_later_tells_so(standing):
    program, function = scaled(157)
    memories = function.memories()
    with fake.switched(completion="no"):
        status, message = landed(function, memories)
    assert status == "DEVICE"
    assert "evaluating on the Neural Engine failed" in message
    assert landed(function, memories) == ("OK", "")
    program.close()


@pytest.mark.parametrize("fault", ["no", "silent", "throw"])
def test_a_submission_that_fails_at_once_is_an_error_and_tells_nobody(standing, fault):
    program, function = scaled(158)
    memories, told = function.memories(), []
    with fake.switched(evaluate=fault), pytest.raises(Failure, match="evaluating on the Neural Engine failed"):
        function.submit(memories, lambda *what: told.append(what))
    assert not told
    assert landed(function, memories) == ("OK", "")
    with fake.switched(forgets=1):
        assert landed(function, memories) == ("OK", "")
    program.close()


# ---- what cannot be changed in a process that has opened the framework -----------------------------------------

ELSEWHERE = """
import json, sys
from ane_native import *
def attempt():
    found = Device()
    call("ane_get_device", ctypes.byref(found))
    try:
        program, function = scaled(2)
        function(np.ones((1, 4, 1, 32), "float16"))
        return {"status": "OK", "text": ""}
    except Failure as failure:
        return {"status": failure.status, "text": failure.message}
try:
    found = attempt()
except Failure as failure:
    found = {"status": failure.status, "text": failure.message}
memory = Memory.new(8)
print(json.dumps({**found, "open": native.anex_ane_is_open(), "surface": memory.surface_id}))
"""


def elsewhere(environment):
    tests = Path(__file__).parent
    paths = {"PYTHONPATH": lean.path(tests.parent, tests)}
    done = subprocess.run(
        [sys.executable, "-c", ELSEWHERE], env={**environment, **paths}, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout.splitlines()[-1])


MISSING = {
    "_ANEInMemoryModelDescriptor": "class _ANEInMemoryModelDescriptor",
    "_ANEInMemoryModel": "class _ANEInMemoryModel",
    "_ANERequest": "class _ANERequest",
    "_ANEIOSurfaceObject": "class _ANEIOSurfaceObject",
    "compileWithQoS:options:error:": r"-\[_ANEInMemoryModel compileWithQoS:options:error:\]",
    "evaluateWithQoS:options:request:error:": r"-\[_ANEInMemoryModel evaluateWithQoS:options:request:error:\]",
}


@pytest.mark.parametrize("name", MISSING)
def test_what_is_missing_from_the_framework_is_named(name):
    switch = "missing_selector" if ":" in name else "missing_class"
    found = elsewhere(fake.environment(**{switch: name}))
    assert found["status"] == "UNSUPPORTED"
    assert re.search(f"lacks what anex needs: .*{MISSING[name]}.*use device=", found["text"])
    assert not found["open"]
    assert not found["surface"]


@pytest.mark.parametrize(
    "name",
    ["_ANEDeviceInfo", "_ANEClient", "_ANEPerformanceStatsIOSurface", "compiledModelExists", "queueDepth", "model"],
)
def test_what_anex_can_do_without_may_be_missing(name):
    switch = "missing_class" if name.startswith("_") else "missing_selector"
    assert elsewhere(fake.environment(**{switch: name}))["status"] == "OK"


def test_a_computer_without_a_neural_engine_says_so():
    found = elsewhere(fake.environment(has_ane=False))
    assert (found["status"], found["open"], found["surface"]) == ("UNSUPPORTED", False, 0)
    assert "this computer has no Neural Engine" in found["text"]


def test_a_virtual_machine_is_told_that_its_host_lends_none():
    found = elsewhere(fake.environment(virtual_machine=True))
    assert found["status"] == "UNSUPPORTED"
    assert re.search("virtual machine", found["text"])


def test_a_library_that_cannot_be_opened_is_named():
    found = elsewhere({**fake.environment(), fake.VARIABLE: "/nowhere/lib.so"})
    assert found["status"] == "UNSUPPORTED"
    assert "/nowhere/lib.so" in found["text"]


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere there is a framework")
def test_linux_has_no_neural_engine():
    environment = {name: value for name, value in fake.environment().items() if name != fake.VARIABLE}
    found = elsewhere({**environment, fake.VARIABLE: ""})
    assert found["status"] == "UNSUPPORTED"


# ---- what the framework answers to -----------------------------------------------------------------------------


def test_the_device_describes_itself():
    with fake.switched(arch="h16g"):
        found = device()
    assert (found.has_ane, found.is_virtual_machine, found.architecture) == (True, False, b"h16g")
    assert found.framework.decode() == str(fake.path())


def test_every_selector_of_the_stand_in_has_the_types_of_the_real_one():
    found = selectors()
    assert len(found) > 100
    there = [selector for selector in found if selector.found]
    assert not [(s.class_name, s.name, s.expected, s.found) for s in there if not s.fits]
    assert not [s.name for s in found if s.is_required and not s.found]
    with pytest.raises(Failure, match="ARGUMENT: selector"):
        call("ane_get_selector", len(found), None)


def test_limits_can_be_turned_off():
    with limits(compiles=0, loaded=0), scaled(159)[0] as program:
        assert program.info.is_loaded
