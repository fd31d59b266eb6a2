"""The stand-in for the framework, asked directly: what ties it to the binding, its switches, surfaces, counters."""

import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

if not shutil.which("clang-19") or sys.platform != "linux":
    pytest.skip("the stand-in is built with clang-19 and GNUstep on Linux", allow_module_level=True)

import fake_ane
from fake_ane import build
from fake_client import BOOL, LIB, RUNTIME, Model, Surface, child, descriptor, request
from fake_client import fresh as fresh  # a fixture of every test here

TESTS = Path(__file__).parent
ONES = np.ones((4, 8), np.float16)


# ---- what holds it to csrc/ane/private.h


@pytest.mark.parametrize(
    ("there", "changed"),
    [
        ("- (BOOL)unloadWithQoS:(unsigned int)", "- (BOOL)unloadWithQoS:(unsigned long)"),
        ("- (NSString *)localModelPath;", "- (NSData *)localModelPath;"),
        ("- (void)purgeCompiledModel;", "- (void)purgeCompiledModel;\n- (void)purgeAll;"),
        ("inMemoryModelWithDescriptor:(id<ANEDescriptor>)", "modelOfDescriptor:(id<ANEDescriptor>)"),
    ],
)
def test_a_message_that_the_binding_sends_otherwise_does_not_compile(tmp_path, there, changed):
    header = build.write_headers()
    good = (header / "private_plus.h").read_text()
    there, changed = (part if part in good else part.replace("- (", "+ (") for part in (there, changed))
    assert there in good
    include = tmp_path / "include"
    shutil.copytree(header, include, symlinks=True)
    (include / "private_plus.h").write_text(good.replace(there, changed))
    with pytest.raises(RuntimeError, match=r"model\.m:.*error: "):
        build.compile_one(build.HERE / "model.m", include, tmp_path / "objects")


# ---- switches and counters


def test_unknown_switches_counters_and_values_are_named():
    for name, value in (("compil", "no"), ("compile", "maybe"), ("numerics", "an"), ("compile_limit", "-1")):
        with pytest.raises(ValueError, match=name):
            fake_ane.put(name, value)
    with pytest.raises(ValueError, match=r"environment\(missing_class="):
        fake_ane.put("missing_class", "_ANERequest")
    with pytest.raises(ValueError, match="evaluatons"):
        fake_ane.count("evaluatons")


def test_switches_return_to_what_they_were():
    with fake_ane.switched(load="once", arch="h15g"):
        with fake_ane.switched(load="slow:1"):
            assert fake_ane.get("load") == "slow:1"
        assert (fake_ane.get("load"), fake_ane.get("arch")) == ("once", "h15g")
    assert (fake_ane.get("load"), fake_ane.get("arch")) == ("ok", "h13g")


def test_a_process_starts_with_the_switches_of_its_environment():
    assert child("print(control.get('arch'), control.get('load'))", arch="h16g", load="once") == ["h16g", "once"]


@pytest.mark.parametrize("name", ["_ANERequest", "_ANEClient", "_ANEInMemoryModelDescriptor"])
def test_a_class_can_be_missing(name):
    names = ["_ANERequest", "_ANEClient", "_ANEInMemoryModelDescriptor"]
    code = f"print(*(name for name in {names} if not RUNTIME.find(name)))"
    assert child(code, missing_class=name) == [name]


def test_a_method_can_be_missing():
    code = "m = Model().id\nprint(RUNTIME.has(m, 'unloadWithQoS:error:'), RUNTIME.has(m, 'compiledModelExists'))"
    with_pool = f"with RUNTIME.pool():\n    {code.replace(chr(10), chr(10) + '    ')}"
    assert child(with_pool, missing_selector="unloadWithQoS:error:") == ["False", "True"]


def test_messages_without_a_pool_are_counted():
    def ask():
        RUNTIME.send("_ANEDeviceInfo", "hasANE", result=BOOL)

    ask()
    assert fake_ane.count("messages_without_pool") == 0
    thread = threading.Thread(target=ask)
    thread.start()
    thread.join()
    assert fake_ane.count("messages_without_pool") == 1


@pytest.mark.parametrize(
    ("fault", "first", "second"),
    [("no", 6, 6), ("silent", None, None), ("once", 6, 0), ("slow:1", 0, 0), ("once:60000", 6, 6), ("ok", 0, 0)],
)
def test_a_call_fails_as_its_switch_says(fault, first, second):
    model = Model().ready()
    with fake_ane.switched(load=fault):
        for code in (first, second):
            answer = model.load()
            assert (answer.ok, answer.code) == (code == 0, code or None)
    assert model.load().ok
    model.unload()


@pytest.mark.parametrize("fault", ["no", "silent"])
def test_factories_and_surfaces_fail_with_nil(fault):
    with fake_ane.switched(descriptor=fault, request=fault, surface=fault, surface_object=fault):
        assert descriptor() is None
        assert LIB.IOSurfaceCreate(RUNTIME.dictionary({"IOSurfaceAllocSize": RUNTIME.number(64)})) is None
    surface = Surface()
    with fake_ane.switched(surface_object=fault):
        assert surface.wrap() is None
    surface.close()


def test_objects_that_only_factories_make_are_nil_otherwise():
    for name in ("_ANEInMemoryModel", "_ANEInMemoryModelDescriptor", "_ANEIOSurfaceObject", "_ANEPerformanceStats"):
        assert RUNTIME.send(name, "new") is None
        assert RUNTIME.send(RUNTIME.send(name, "alloc"), "init") is None


# ---- surfaces


def test_fresh_surfaces_are_not_zero_and_as_large_as_pages():
    surface = Surface(100)
    assert surface.bytes.size == 16384
    assert (surface.bytes == 0xAB).all()
    surface.close()


def test_another_process_finds_a_global_surface_by_its_number():
    surface = Surface(64, is_global=True)
    seed = LIB.IOSurfaceGetSeed(surface.ref)
    code = f"with RUNTIME.pool():\n    Surface(id={surface.id}).write(np.full((2, 3), 7, np.float16))"
    child(code)
    assert (surface.rows(2, 3) == 7).all()
    assert LIB.IOSurfaceGetSeed(surface.ref) == seed + 1
    assert child(f"print(LIB.IOSurfaceLookup({surface.id + 1}))") == ["None"]
    surface.close()
    assert child(f"print(LIB.IOSurfaceLookup({surface.id}))") == ["None"]


def test_another_process_does_not_find_a_surface_that_is_not_global():
    surface = Surface(64)
    assert child(f"print(LIB.IOSurfaceLookup({surface.id}))") == ["None"]
    assert LIB.IOSurfaceLookup(surface.id) == surface.ref
    surface.close()
    surface.close()


def test_numbers_are_unique_among_processes():
    code = "with RUNTIME.pool():\n    print(*(Surface(64).id for _ in range(50)))"
    mine = [Surface(64) for _ in range(50)]
    numbers = [*child(code), *child(code), *(str(surface.id) for surface in mine)]
    assert len(set(numbers)) == 150
    for surface in mine:
        surface.close()


@pytest.mark.parametrize("end", ["pass", f"os.kill(os.getpid(), {int(signal.SIGKILL)})"])
def test_surfaces_of_a_process_leave_no_files(end):
    code = f"import os\nwith RUNTIME.pool():\n    print(Surface(64, is_global=True).id, flush=True)\n    {end}"
    setup = f"import sys; sys.path[:0] = [{str(TESTS)!r}]\nfrom fake_client import *\n"
    done = subprocess.run(
        [sys.executable, "-c", setup + code], env=fake_ane.environment(), capture_output=True, text=True
    )
    name = f"/dev/shm/fake_iosurface_{os.getuid()}_{int(done.stdout)}"
    if end != "pass":
        assert os.path.exists(name)
        child("with RUNTIME.pool():\n    Surface(64)")  # whoever comes next sweeps
    assert not os.path.exists(name)


def test_locks_count_and_only_those_for_writing_change_the_seed():
    surface = Surface(64)
    for options, seed in ((1, 0), (0, 1), (0, 2), (1, 2)):
        assert LIB.IOSurfaceLock(surface.ref, options, None) == 0
        assert LIB.IOSurfaceUnlock(surface.ref, options, None) == 0
        assert LIB.IOSurfaceGetSeed(surface.ref) == seed
    assert LIB.IOSurfaceUnlock(surface.ref, 0, None) != 0
    assert fake_ane.count("unbalanced_unlocks") == 1
    surface.close()


def test_writing_without_a_lock_is_noticed():
    model = Model().ready()
    x, w, y = Surface().write(ONES), Surface().write(ONES), Surface()
    bound = request([(x, 1), (w, 0)], [(y, 0)])
    assert model.evaluate(bound).ok
    assert fake_ane.count("unlocked_writes") == 0
    x.rows(4, 8)[0, 0] = 9
    assert model.evaluate(bound).ok
    assert fake_ane.count("unlocked_writes") == 1
    LIB.IOSurfaceLock(w.ref, 0, None)
    assert model.evaluate(bound).ok
    assert fake_ane.count("evaluated_locked") == 1
    model.unload()


def test_nothing_keeps_surfaces_after_request_wrapper_and_model():
    surfaces = [Surface().write(ONES) for _ in range(3)]
    live = {name: fake_ane.count(name) for name in fake_ane.names(counters=True) if name.startswith("live")}
    for _ in range(20):
        with RUNTIME.pool():
            model = Model().ready()
            assert model.evaluate(request([(surfaces[0], 0), (surfaces[1], 1)], [(surfaces[2], 0)])).ok
            model.unload()
    assert {name: fake_ane.count(name) for name in live} == live
    assert [surface.references for surface in surfaces] == [1, 1, 1]
    for surface in surfaces:
        surface.close()
