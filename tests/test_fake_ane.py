"""The stand-in for the framework, asked directly: what tests through anex cannot see."""

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

if not shutil.which("clang-19") or sys.platform != "linux":
    pytest.skip("the stand-in is built with clang-19 and GNUstep on Linux", allow_module_level=True)

import fake_ane
from fake_ane import build
from fake_client import (
    BOOL,
    LIB,
    RUNTIME,
    SUBTRACTION,
    UINT,
    WEIGHT,
    Answer,
    Block,
    Model,
    Surface,
    blob,
    call,
    descriptor,
    main,
    request,
    text,
    with_weight,
)

TESTS = Path(__file__).parent
ONES = np.ones((4, 8), np.float16)
COMPILER = "com.apple.appleneuralengine.compiler"


@pytest.fixture(autouse=True)
def fresh():
    """A pool, as every client needs one, and the stand-in as it is at first."""
    was_at = fake_ane.get("cache_dir")
    fake_ane.reset()
    with RUNTIME.pool():
        yield
    fake_ane.reset()
    assert fake_ane.get("cache_dir") == was_at


def subtraction(model, left=2 * ONES, right=ONES, **order):
    """Inputs x and W of SUBTRACTION, whose table says W, x; the request, and the output's surface."""
    x, w, y = Surface().write(left), Surface().write(right), Surface()
    return request([(x, order.get("x", 1)), (w, order.get("w", 0))], [(y, 0)]), y


def child(code, **switches):
    """Python code in a process of its own that sees the same stand-in."""
    setup = f"import sys; sys.path[:0] = [{str(TESTS)!r}]\nfrom fake_client import *\n"
    done = subprocess.run(
        [sys.executable, "-c", setup + code],
        env=fake_ane.environment(**switches),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


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


# ---- descriptors, compiling, the cache


def test_descriptors_refuse_what_the_framework_refuses():
    make = "modelWithMILText:weights:optionsPlist:"
    source, empty = RUNTIME.data(SUBTRACTION), RUNTIME.dictionary()
    no_pair = RUNTIME.dictionary({WEIGHT: RUNTIME.dictionary()})
    for words, weights in ((source, None), (RUNTIME.text("a string"), empty), (None, empty), (source, no_pair)):
        assert RUNTIME.send("_ANEInMemoryModelDescriptor", make, words, weights, None) is None
    assert RUNTIME.send("_ANEInMemoryModel", "inMemoryModelWithDescriptor:", None) is None


def test_the_identifier_follows_from_what_the_program_holds():
    def identifier(*arguments):
        return RUNTIME.string(RUNTIME.send(descriptor(*arguments), "hexStringIdentifier"))

    weight = with_weight()
    name = identifier(weight, {WEIGHT: blob(ONES)})
    assert [len(part) for part in name.split("_")] == [64, 64, 64]
    assert identifier(weight, {WEIGHT: blob(ONES)}) == name
    assert identifier(weight, {WEIGHT: blob(2 * ONES)}) != name
    with fake_ane.switched(hash_case="upper"):
        assert identifier(weight, {WEIGHT: blob(ONES)}) == name.upper()


@pytest.mark.parametrize(
    ("source", "value", "why"),
    [
        (with_weight(), blob(ONES, magic=1), "0xDEADBEEF"),
        (with_weight(), blob(ONES, start=4096), "outside the file"),
        (with_weight(), blob(ONES)[:100], "past the end"),
        (with_weight(96), blob(ONES), "aligned"),
        (with_weight(1 << 20), blob(ONES), "past the end"),
        (text(main("garbage")), None, "garbage"),
    ],
)
def test_wrong_programs_and_weights_do_not_compile(source, value, why):
    model = Model(source, {WEIGHT: value} if value else None).write_files()
    answer = model.compile()
    assert (answer.ok, answer.domain) == (False, COMPILER)
    assert "_ANECompiler : ANECCompile() FAILED" in answer.text
    assert "InvalidMILProgram" in answer.text
    assert why in fake_ane.reason()
    assert not model.has()
    model.remove_files()


def test_the_directory_must_hold_what_the_descriptor_was_given():
    model = Model(with_weight(), {WEIGHT: blob(ONES)})
    assert not model.compile().ok
    model.write_files()
    (model.path / "model.mil").write_bytes(model.source + b"\n")
    assert not model.compile().ok
    model.write_files()
    (model.path / "weights/weight.bin").unlink()
    assert not model.compile().ok
    assert model.write_files().compile().ok
    assert (model.path / "net.plist").read_bytes() == model.source
    assert (model.path / "data").read_bytes() == blob(ONES)
    model.remove_files()


def test_a_directory_that_cannot_be_written_is_refused_without_an_error():
    model = Model()
    model.path.write_text("in the way")
    assert model.compile() == Answer(False)
    assert "cannot be written" in fake_ane.reason()
    model.path.unlink()


def test_ops_can_be_rejected():
    with fake_ane.switched(reject="softmax,sub"):
        model = Model().write_files()
        assert "InvalidMILProgram" in model.compile().text
    assert model.compile().ok
    model.remove_files()


def test_axes_that_are_too_long_for_the_chip():
    kind = "tensor<fp16, [1, 1, 1, 20000]>"
    model = Model(text(main(f'{kind} y = abs(x = x)[name = string("y")];', parameters=f"{kind} x"))).write_files()
    for arch, is_limited, compiles in (("h13g", True, False), ("h16g", True, True), ("h13g", False, True)):
        with fake_ane.switched(arch=arch, chip_limits=is_limited):
            assert model.compile().ok == compiles
    model.remove_files()


def test_one_compilation_too_many_is_refused_without_an_error():
    model = Model().write_files()
    with fake_ane.switched(compile_limit=3):
        assert [model.compile().ok for _ in range(4)] == [True, True, True, False]
        assert model.compile() == Answer(False)
    with fake_ane.switched(compile_limit=False):
        assert model.compile().ok
    model.remove_files()


def test_a_compiled_program_loads_without_its_files_in_another_process(tmp_path):
    with fake_ane.switched(cache_dir=tmp_path / "cache"):
        Model().ready().unload()
    code = "with RUNTIME.pool():\n    m = Model()\n    print(m.has(), m.load().ok, m.path.exists())"
    assert child(code, cache_dir=tmp_path / "cache") == ["True", "True", "False"]
    assert child(code) == ["False", "False", "True"]
    Model().remove_files()
    with fake_ane.switched(cache_dir=tmp_path / "cache"):
        model = Model()
        RUNTIME.send(model.id, "purgeCompiledModel", result=None)
        assert not model.has()
        assert model.load().code == 17
        model.remove_files()
    assert child(code, cache_dir=tmp_path / "cache")[0] == "False"
    Model().remove_files()


def test_a_loaded_program_keeps_the_weights_it_was_compiled_with():
    model = Model(with_weight(), {WEIGHT: blob(ONES)}).ready()
    (model.path / "weights/weight.bin").write_bytes(blob(5 * ONES))
    model.unload()
    assert not model.path.exists()
    assert model.load().ok
    x, y = Surface().write(ONES), Surface()
    assert model.evaluate(request([(x, 0)], [(y, 0)])).ok
    assert (y.rows(4, 8) == 2).all()
    model.unload()


# ---- loaded programs


def test_state_and_attributes_follow_loading():
    model = Model()
    get = {"state": ctypes.c_ulonglong, "queueDepth": ctypes.c_byte, "programHandle": ctypes.c_ulonglong}
    assert [RUNTIME.send(model.id, name, result=kind) for name, kind in get.items()] == [0, 0, 0]
    assert model.attributes == {}
    model.ready()
    state, depth, handle = (RUNTIME.send(model.id, name, result=kind) for name, kind in get.items())
    assert (state, depth, handle > 0) == (3, 127, True)
    described = model.attributes["ANEFModelDescription"]
    assert described["kANEFModelInputSymbolsArrayKey"] == ["W", "x"]
    assert described["kANEFModelOutputSymbolsArrayKey"] == ["y@output"]
    model.unload()


@pytest.mark.parametrize(
    ("shape", "nchw"),
    [
        ((5,), (1, 1, 1, 5)),
        ((4, 5), (1, 1, 4, 5)),
        ((3, 4, 5), (1, 3, 4, 5)),
        ((2, 3, 4, 33), (2, 3, 4, 33)),
        ((6, 2, 3, 4, 5), (12, 3, 4, 5)),
    ],
)
def test_strides_of_every_rank(shape, nchw):
    kind = f"tensor<fp16, {list(shape)}>"
    model = Model(text(main(f'{kind} y = abs(x = x)[name = string("y")];', parameters=f"{kind} x"))).ready()
    entry = model.attributes["NetworkStatusList"][0]["LiveInputList"][0]
    assert tuple(entry[key] for key in ("Batches", "Channels", "Height", "Width")) == nchw
    row = -(-nchw[3] * 2 // 64) * 64
    plane, batch = row * nchw[2], row * nchw[2] * nchw[1]
    assert [entry[key] for key in ("RowStride", "PlaneStride", "BatchStride")] == [row, plane, batch]
    values = -np.arange(np.prod(shape), dtype=np.float16).reshape(shape)
    x, y = Surface(batch * nchw[0]).write(values), Surface(batch * nchw[0])
    assert model.evaluate(request([(x, 0)], [(y, 0)])).ok, fake_ane.reason()
    assert (y.rows(*shape) == -values).all()
    model.unload()


@pytest.mark.parametrize("table", ["procedure", "global"])
def test_each_function_is_a_procedure_with_symbols_of_its_own(table):
    kind = "tensor<fp16, [1, 4, 1, 8]>"
    functions = [
        main(
            f'{kind} out = {op}(x = a, y = b)[name = string("o")];', name=name, parameters=f"{kind} a, {kind} b"
        ).replace("(y);", "(out);")
        for name, op in (("first", "add"), ("second", "sub"))
    ]
    with fake_ane.switched(symbols=table):
        model = Model(text(*functions)).ready()
    described = model.attributes["ANEFModelDescription"]
    assert described["kANEFModelProcedureNameToIDMapKey"] == {"first": 0, "second": 1}
    indices = [procedure["ANEFModelInputSymbolIndexArray"] for procedure in described["ANEFModelProcedures"]]
    assert indices == ([[0, 1], [2, 3]] if table == "procedure" else [[0, 2], [1, 3]])
    a, b, y = Surface().write(3 * ONES), Surface().write(ONES), Surface()
    for procedure, expected in ((0, 4), (1, 2)):
        bound = request([(a, indices[procedure][0]), (b, indices[procedure][1])], [(y, procedure)], procedure)
        assert model.evaluate(bound).ok, fake_ane.reason()
        assert (y.rows(4, 8) == expected).all()
    assert "status=0x2 " in model.evaluate(request([(a, indices[1][0]), (b, indices[0][1])], [(y, 0)])).text
    assert "status=0x2 " in model.evaluate(request([(a, 0), (b, 1)], [(y, 0)], 2)).text
    model.unload()


# ---- evaluating


def test_surfaces_go_where_their_index_says():
    model = Model().ready()
    bound, y = subtraction(model)
    assert model.evaluate(bound).ok
    assert (y.rows(4, 8) == 1).all()
    assert (y.bytes.view(np.float16)[8:32].view(np.uint8) == 0xAB).all()  # between the rows
    swapped, y = subtraction(model, x=0, w=1)
    assert model.evaluate(swapped).ok
    assert (y.rows(4, 8) == -1).all()
    model.unload()


@pytest.mark.parametrize(("macos", "code", "words"), [(26, 8, "status=0x1d : statusType=0x9"), (27, 42, "0x1D")])
def test_a_surface_that_is_too_small(macos, code, words):
    kind = "tensor<fp16, [1, 1024, 1, 8]>"
    model = Model(text(main(f'{kind} y = abs(x = x)[name = string("y")];', parameters=f"{kind} x"))).ready()
    small, large = Surface(1024 * 16), Surface(1024 * 64)
    with fake_ane.switched(macos=macos):
        for bound in (request([(small, 0)], [(large, 0)]), request([(large, 0)], [(small, 0)])):
            answer = model.evaluate(bound)
            assert (answer.ok, answer.code) == (False, code)
            assert words in answer.text
    model.unload()


def test_requests_are_validated_and_refused_without_an_error():
    model = Model().ready()
    one = Surface().write(ONES)
    good = [(one, 0), (one, 1)]
    for bad in (
        request([], [(one, 0)]),
        request(good, []),
        request([(one, 0)] * 256, [(one, 0)]),
        request([(one, 255)], [(one, 0)]),
        request(good, [(one, 0)], 129),
        None,
    ):
        assert model.evaluate(bad) == Answer(False)
    assert "status=0x2 " in model.evaluate(request([(one, 0)], [(one, 0)])).text
    assert model.evaluate(request(good, [(Surface(), 0)], 15)).ok  # any small number, with one procedure
    model.unload()


def test_a_program_that_the_daemon_forgot_runs_again_once_loaded_again():
    model = Model().ready()
    bound, _ = subtraction(model)
    with fake_ane.switched(forgets=1):
        answers = [model.evaluate(bound), model.evaluate(bound)]
    assert [(answer.ok, answer.code) for answer in answers] == [(False, 23)] * 2
    assert "Program not found" in answers[0].text
    assert model.load().ok
    assert model.evaluate(bound).ok
    model.unload()
    assert model.evaluate(bound).code == 23
    with fake_ane.switched(after_unload="silent"):
        assert model.evaluate(bound) == Answer(False)


@pytest.mark.parametrize(
    ("switches", "codes"), [({"virtual_machine": True}, (22, 22, 22)), ({"has_ane": False}, (4, 4, 4))]
)
def test_a_machine_without_the_hardware(switches, codes):
    model = Model().ready()
    bound, _ = subtraction(model)
    with fake_ane.switched(**switches):
        assert (model.compile().code, model.load().code, model.evaluate(bound).code) == codes
        assert not RUNTIME.send("_ANEDeviceInfo", "hasANE", result=BOOL)
    assert model.evaluate(bound).ok
    model.unload()


def test_completion_handlers_run_later_on_another_thread():
    model = Model().ready()
    bound, y = subtraction(model)
    said, done = [], threading.Event()

    def complete(error):
        said.append((threading.get_ident(), error))
        done.set()

    block = Block.of(complete)
    RUNTIME.send(bound, "setCompletionHandler:", ctypes.addressof(block), result=None)
    for fault, fails in (("slow:30", False), ("no", True), ("throw", True)):
        with fake_ane.switched(completion=fault):
            begun = time.monotonic()
            assert model.evaluate(bound).ok
            took = time.monotonic() - begun
            assert done.wait(10)
            done.clear()
        thread, error = said.pop()
        assert thread != threading.get_ident()
        assert (error is not None) == fails
        assert fails or took < 0.03
    assert (y.rows(4, 8) == 1).all()
    RUNTIME.send(bound, "setCompletionHandler:", None, result=None)
    model.unload()


def test_a_full_queue_refuses_without_an_error():
    model = Model().ready()
    bound, _ = subtraction(model)
    left = threading.Semaphore(0)
    block = Block.of(lambda _: left.release())
    RUNTIME.send(bound, "setCompletionHandler:", ctypes.addressof(block), result=None)
    with fake_ane.switched(completion="slow:300", queue_wait=1):
        answers = [model.evaluate(bound) for _ in range(128)]
        fake_ane.put("completion", "ok")
        assert answers == [Answer(True)] * 127 + [Answer(False)]
        assert all(left.acquire(timeout=10) for _ in range(127))
    RUNTIME.send(bound, "setCompletionHandler:", None, result=None)
    model.unload()


@pytest.mark.parametrize(("of_load", "of_evaluate", "has"), [(15, 15, True), (0, 15, False), (15, 0, False)])
def test_statistics_need_the_mask_twice(of_load, of_evaluate, has):
    model = Model().ready()
    assert model.load(kANEFPerformanceStatsMask=of_load).ok
    memory = Surface()
    kind = ctypes.c_longlong(2)
    stats = RUNTIME.send("_ANEPerformanceStatsIOSurface", "objectWithIOSurface:statType:", memory.wrap(), kind)
    x, y = Surface().write(ONES), Surface()
    bound = request([(x, 0), (x, 1)], [(y, 0)], 0, RUNTIME.array(stats))
    assert model.evaluate(bound, kANEFPerformanceStatsMask=of_evaluate).ok
    found = RUNTIME.send(bound, "perfStats")
    assert bool(found) == has
    if has:
        assert RUNTIME.send(found, "hwExecutionTime", result=ctypes.c_ulonglong) > 0
        counters = RUNTIME.python(RUNTIME.send(found, "performanceCounters"))
        assert counters["kANE_DMA_READ_BYTES"] > 0
        assert memory.bytes[:8].tobytes() == b"FAKE_ANE"
    model.unload()


def test_other_ways_to_evaluate_and_what_they_refuse():
    model = Model().ready()
    bound, y = subtraction(model)
    client = RUNTIME.send("_ANEClient", "sharedConnection")
    options = RUNTIME.dictionary()
    direct = "doEvaluateDirectWithModel:options:request:qos:error:"
    for target in (model.id, RUNTIME.send(model.id, "model")):
        assert call(client, direct, target, options, bound, UINT(21)).ok
    assert call(client, "evaluateRealTimeWithModel:options:request:error:", model.id, options, bound).ok
    assert (y.rows(4, 8) == 1).all()
    assert not RUNTIME.send(client, "beginRealTimeTask", result=BOOL)
    assert call(model.id, "mapIOSurfacesWithRequest:cacheInference:error:", bound, BOOL(1)).code == 13
    assert call(client, "loadModel:options:qos:error:", model.id, options, UINT(21)).code == 1
    model.unload()


def test_numbers_are_plain_unless_they_shall_be_the_chips():
    kind = "tensor<fp16, [1, 1, 1, 4096]>"
    body = (
        'tensor<int32, [1]> axes = const()[name = string("axes"), val = tensor<int32, [1]>([-1])];'
        'bool keep = const()[name = string("keep"), val = bool(true)];'
        'tensor<fp16, [1, 1, 1, 1]> y = reduce_sum(axes = axes, keep_dims = keep, x = x)[name = string("y")];'
    )
    model = Model(text(main(body, parameters=f"{kind} x"))).ready()
    x, y = Surface().write(np.ones((1, 4096), np.float16)), Surface()
    bound = request([(x, 0)], [(y, 0)])
    for numerics, total in (("plain", 4096), ("ane", 2048)):
        with fake_ane.switched(numerics=numerics):
            assert model.evaluate(bound).ok
        assert y.rows(1)[0] == total
    model.unload()


def test_an_empty_evaluate_does_nothing_and_says_yes():
    model = Model()
    with fake_ane.switched(empty_evaluate=True):
        assert model.evaluate(None).ok
    assert (fake_ane.count("evaluations"), fake_ane.count("runs")) == (1, 0)
