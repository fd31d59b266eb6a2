"""The stand-in for the framework, asked directly: loaded programs and their evaluation."""

import ctypes
import shutil
import sys
import threading
import time

import numpy as np
import pytest

if not shutil.which("clang-19") or sys.platform != "linux":
    pytest.skip("the stand-in is built with clang-19 and GNUstep on Linux", allow_module_level=True)

import fake_ane
from fake_client import BOOL, RUNTIME, UINT, Answer, Block, Model, Surface, call, main, request, text
from fake_client import fresh as fresh  # a fixture of every test here

ONES = np.ones((4, 8), np.float16)


def subtraction(model, left=2 * ONES, right=ONES, **order):
    """Inputs x and W of SUBTRACTION, whose table says W, x; the request, and the output's surface."""
    x, w, y = Surface().write(left), Surface().write(right), Surface()
    return request([(x, order.get("x", 1)), (w, order.get("w", 0))], [(y, 0)]), y


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
