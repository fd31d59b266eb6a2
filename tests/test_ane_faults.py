"""Every fault of the stand-in, every error code of the framework and every status of anex, provoked from Python.

The lists come from the sources; what provokes an entry stands in the tables below, and an entry without one fails.
"""

import re
from pathlib import Path

import numpy as np
import pytest
from fake_ane import control as fake_ane
from needs_ane import needs_ane

import anex
from anex import _native, mb
from anex.selftest.probes import PROBES

pytestmark = needs_ane

ROOT = Path(__file__).parent.parent
SWITCH_TEXT = (ROOT / "tests/fake_ane/switches.inc").read_text()
SWITCHES = dict(re.findall(r"^FAKE_SWITCH\((\w+), (\w+)", SWITCH_TEXT, re.M))
FAULTS = [name for name, kind in SWITCHES.items() if kind == "FAULT"]
CODES = [int(n) for n in re.findall(r"^ +\[(\d+)\] = @", (ROOT / "tests/fake_ane/errors.m").read_text(), re.M)]
ADVISED = [int(n) for n in re.findall(r"^ +\{(\d+), ANEX_", (ROOT / "csrc/ane/errors.m").read_text(), re.M)]
STATUSES = dict(re.findall(r'^ANEX_STATUS\((\w+), "(\w+)"', (ROOT / "csrc/status.inc").read_text(), re.M))

SHAPE = (1, 4, 1, 5)
X = np.arange(20, dtype=np.float16).reshape(SHAPE)


def graph(by):
    @anex.graph(x=SHAPE)
    def program(x):
        return mb.mul(x=x, y=np.float16(by), name="y")

    return program


def compiled(by=2, **options):
    return anex.compile(graph(by), device="ane", **options)


@pytest.fixture(autouse=True)
def standing():
    """A program and tensors that were there before: they must work afterwards, and the process compile another."""
    with compiled(3) as program:
        x, y = anex.tensor(X), anex.zeros(SHAPE)
        view = np.asarray(y)
        program(x, out=y)
        yield
        view[...] = 0
        assert program(x, out=y) is y
        np.testing.assert_array_equal(view, X * 3)
        assert fake_ane.count("in_flight") == 0
        with compiled(5, recompile=True) as another:
            np.testing.assert_array_equal(np.asarray(another(X)), X * 5)
            np.testing.assert_array_equal(np.asarray(another.submit(x).result(30)), X * 5)


# ---- each fault, each way of it ------------------------------------------------------------------------------------


def run_new(**options):
    with compiled(recompile=True, **options) as program:
        return program(X)


def submit():
    with compiled() as program:
        return program.submit(X).result(30)


# what sends the message that the fault is at
JOBS = {
    "descriptor": run_new,
    "model": run_new,
    "compile": run_new,
    "load": run_new,
    "evaluate": run_new,
    "request": run_new,
    "surface": run_new,
    "surface_object": run_new,
    "completion": submit,
    "real_time": lambda: run_new(way="real_time"),
}
# what goes wrong as a program is closed, which is no error of the caller's: AneProgram.unload tells it, close does not
CLOSING = ["unload"]
# what only the self-test asks for, by probe
PROBED = {"map": "map-surfaces", "chaining": "chaining"}
KINDS = ["no", "silent", "once", "once:50", "throw", "slow:30", "code:8", "status:22"]
# what is refused once and then tried again by anex itself: a load, after a while
RETRIED = {("load", "once"), ("load", "once:50")}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("at", JOBS)
def test_whatever_fails_however_says_what_and_why_and_all_goes_on(at, kind):
    with fake_ane.switched(**{at: kind}):
        if kind.startswith("slow") or (at, kind) in RETRIED:
            np.testing.assert_array_equal(np.asarray(JOBS[at]()), X * 2)
            return
        with pytest.raises(anex.Error) as raised:
            JOBS[at]()
    said = str(raised.value)
    assert re.search(r"failed|no IOSurface|no memory", said), said
    assert len(said.split()) >= 10, said
    assert said.rstrip(".")[-1].isalnum() or said.endswith('"'), said
    np.testing.assert_array_equal(np.asarray(JOBS[at]()), X * 2)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("at", CLOSING)
def test_a_program_is_closed_however_its_end_fails(at, kind):
    program = compiled()
    with fake_ane.switched(**{at: kind}):
        program.close()
    with pytest.raises(anex.ClosedError, match="this program is closed"):
        program(X)


@pytest.mark.parametrize(("kind", "key"), [("no", "code {}"), ("silent", "code"), ("throw", "code"), ("ok", "yes")])
@pytest.mark.parametrize(("at", "code"), [("map", 13), ("chaining", 15)])
def test_what_only_the_self_test_asks_for_is_an_answer_in_its_report(at, code, kind, key):
    probe = PROBES[PROBED[at]]
    with fake_ane.switched(**{at: kind}):
        found = probe.ask()
    assert found["status"] == "answered"
    assert found["key"].startswith(key.format(code))
    assert kind not in ("no", "throw") or len(found["verdict"].split()) >= 4


def test_every_fault_switch_is_provoked_here_in_every_way_it_has():
    assert sorted([*JOBS, *CLOSING, *PROBED]) == sorted(FAULTS)
    said = re.search(r"FAULT: .*?FLAG:", SWITCH_TEXT, re.DOTALL)[0]
    ways = set(re.findall(r"(no|silent|once|throw|slow|code|status)\b(?=:<| \()", said))
    assert ways == {kind.partition(":")[0] for kind in KINDS}


# ---- each error code of the framework, each status of the driver, each status of anex -------------------------------

NEEDED_RIGHTS, DEVICE = anex.UnsupportedError, anex.DeviceError
# (what is raised, what the framework says, what anex advises)
BY_CODE = {
    1: (NEEDED_RIGHTS, "requires restricted access", "Apple gives to its own programs only"),
    2: (NEEDED_RIGHTS, "real-time priority requires", "Apple gives to its own programs only"),
    3: (DEVICE, "timed out", "try again, or split the program"),
    4: (DEVICE, "Program creation failure", "compile it again with recompile"),
    5: (DEVICE, "Program Inference overflow", "try again"),
    6: (DEVICE, "Program load failure", "close some"),
    7: (DEVICE, "Missing code signing identity", "anex doctor"),
    8: (DEVICE, "Program Inference error", "try again"),
    9: (DEVICE, "file access failure", "is the temporary directory in place"),
    10: (DEVICE, "invalid model", "missing or damaged"),
    11: (DEVICE, "invalid model key", "anex doctor"),
    12: (DEVICE, "system model purge not allowed", "anex doctor"),
    13: (anex.UnsupportedError, "map failure", "running them does not need it"),
    14: (DEVICE, "unmap failure", "anex doctor"),
    15: (anex.UnsupportedError, "chaining prepare error", "run them one after the other"),
    16: (DEVICE, "file not found", "compile it again"),
    17: (DEVICE, "model identifier not found", "compile it again"),
    18: (DEVICE, "new instance", "anex doctor"),
    19: (DEVICE, "new instance", "anex doctor"),
    20: (DEVICE, "invalid model instance", "anex doctor"),
    21: (DEVICE, "load new instance failure", "anex doctor"),
    22: (anex.UnsupportedError, "Host too old", 'use device="cpu"'),
    23: (DEVICE, "Program Inference error", "compile it again"),
    24: (DEVICE, "Data not found error", "anex doctor"),
    25: (anex.UnsupportedError, "Not supported", "this macOS does not offer it"),
    26: (DEVICE, "Bad argument error", "anex doctor"),
    27: (DEVICE, "virtualization", "anex doctor"),
    28: (DEVICE, "virtualization", "anex doctor"),
    29: (DEVICE, "virtualization", "anex doctor"),
}
BY_STATUS = {  # of the driver, on macOS 26
    0x2: (DEVICE, "status=0x2 ", "bound to an index that the program lacks"),
    0xE: (DEVICE, "Program not found", "the daemon has forgotten the program"),
    0xF: (DEVICE, "timed out", "try again, or split the program"),
    0x12: (DEVICE, "status=0x12 ", "try again"),
    0x16: (DEVICE, "status=0x16 ", "try again"),
    0x1D: (anex.ShapeError, "status=0x1d ", "smaller than the program expects"),
}


def refused(job, expected, *words):
    with pytest.raises(expected) as raised:
        job()
    for each in words:
        assert each in str(raised.value)


GONE = (17, 23)  # the program is not loaded: of a submission that has left, the next one tells


@pytest.mark.parametrize(
    ("code", "at"),
    [
        *((code, at) for code in BY_CODE for at in ("load", "evaluate")),
        *((code, "completion") for code in BY_CODE if code not in GONE),
    ],
)
def test_every_error_code_is_put_into_words_with_a_way_out(code, at):
    expected, words, advice = BY_CODE[code]
    with fake_ane.switched(**{at: f"code:{code}"}):
        refused(JOBS[at], expected, words, f"com.apple.appleneuralengine, code {code})", advice)


@pytest.mark.parametrize("status", BY_STATUS)
def test_every_status_of_the_driver_is_put_into_words_with_a_way_out(status):
    with fake_ane.switched(evaluate=f"status:{status}"):
        refused(run_new, *BY_STATUS[status])


@pytest.mark.parametrize(
    ("status", "expected", "words"),
    [(0x1D, anex.ShapeError, "code 42"), (0x2, DEVICE, "lacks"), (0x16, DEVICE, "firmware/hardware failure")],
)
def test_the_words_of_macos_27_are_understood(status, expected, words):
    with fake_ane.switched(evaluate=f"status:{status}", macos=27):
        refused(run_new, expected, words)


def test_a_code_that_nobody_knows_yet_is_handed_on():
    with fake_ane.switched(evaluate="code:77"):
        refused(run_new, anex.DeviceError, "an error of a newer framework", "code 77", "anex doctor")


def test_every_code_of_the_framework_and_of_our_advice_has_a_test():
    assert sorted(BY_CODE) == sorted(CODES)
    assert set(ADVISED) - {42} <= set(BY_CODE)  # 42: in the words of macOS 27


def wrong_shape():
    with compiled() as program:
        program(X[:, :2])


def wrong_dtype():
    with compiled() as program:
        program(X.astype(np.float32))


def no_array():
    with compiled() as program:
        program("x")


def one_too_many():
    before = _native.ane_account()
    try:
        _native.ane_set_limits(before["compiles"], before["load_limit"])
        with compiled(recompile=True):
            pass
    finally:
        _native.ane_set_limits(0, before["load_limit"])


BY_ANEX = {
    "UNSUPPORTED": ({"real_time": "code:2"}, lambda: run_new(way="real_time"), "entitlement"),
    "INVALID": ({"reject": "mul"}, run_new, 'device="cpu" runs'),
    "SHAPE": ({}, wrong_shape, "input 'x' is (1, 2, 1, 5) float16; the program has (1, 4, 1, 5) float16"),
    "DTYPE": ({}, wrong_dtype, "input 'x' is (1, 4, 1, 5) float32; the program has (1, 4, 1, 5) float16"),
    "ARGUMENT": ({}, no_array, "input 'x' is a str; pass an anex.Tensor or a numpy array"),
    "DEVICE": ({"evaluate": "silent"}, run_new, "run it again"),
    "MEMORY": ({"surface": "no"}, run_new, "close tensors"),
    "COMPILE_LIMIT": ({}, one_too_many, "isolate=True"),
}


@pytest.mark.parametrize("status", BY_ANEX)
def test_every_status_of_anex_is_its_exception_and_names_the_way_out(status):
    switches, job, words = BY_ANEX[status]
    with fake_ane.switched(**switches):
        refused(job, getattr(anex, STATUSES[status]), words)


def test_every_status_has_a_test():
    assert sorted(BY_ANEX) == sorted(STATUSES)


# ---- each switch that is no fault ----------------------------------------------------------------------------------

# settings under which programs run as ever; of CHOICE and FLAG all values
HARMLESS = {
    "arch": ["h16g"],
    "macos": ["27"],
    "compile_limit": ["0"],
    "load_limit": ["99"],
    "forgets": ["1"],
    "queue_wait": ["10"],
    "cache_dir": [""],
    "reject": ["softmax"],
}
HARMLESS |= {
    name: {"FLAG": ["yes", "no"], "CHOICE": choices.split("|")}[kind]
    for name, kind, choices in re.findall(r'^FAKE_SWITCH\((\w+), (FLAG|CHOICE), "(.*?)"', SWITCH_TEXT, re.M)
    if name not in ("has_ane", "virtual_machine", "empty_evaluate")
}
# those that refuse, or have to be set before a process begins: by whom they are tested
REFUSING = {
    "has_ane": "test_a_computer_without_a_neural_engine_says_so",
    "virtual_machine": "test_a_virtual_machine_is_told_that_its_host_lends_none",
    "missing_class": "test_what_is_missing_from_the_framework_is_named",
    "missing_selector": "test_what_is_missing_from_the_framework_is_named",
    "wrong_types": "test_a_method_of_other_types_is_named_with_what_was_found",
    "empty_evaluate": "test_a_thousand_calls_into_given_tensors_take_nothing_from_the_heap",
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in HARMLESS.items() for value in values])
def test_however_the_framework_is_set_programs_run_and_are_submitted(name, value):
    with fake_ane.switched(**{name: value}):
        np.testing.assert_array_equal(np.asarray(run_new()), X * 2)
        np.testing.assert_array_equal(np.asarray(submit()), X * 2)
        run_new(perf_stats=True)


def test_every_switch_has_a_test():
    assert sorted(SWITCHES) == sorted(fake_ane.names())
    assert sorted([*FAULTS, *HARMLESS, *REFUSING]) == sorted(SWITCHES)
    tests = "".join(path.read_text() for path in (ROOT / "tests").glob("test_*.py"))
    assert not [name for name in REFUSING.values() if f"def {name}" not in tests]
