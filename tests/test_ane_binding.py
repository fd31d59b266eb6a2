"""The binding of the Neural Engine, on the stand-in: programs from text to results, and what they share."""

import os
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from ane_native import BUILD, ROW, Failure, Memory, Program, account, cache_has, cache_purge, limits, scale, scaled
from fake_ane import control as fake

F16 = "float16"

# z before a: where the compiled program's symbols are sorted, they stand the other way round
DIFFERENCE = (
    f"program(1.3)\n{BUILD}"
    + """
{
    func main<ios18>(tensor<fp16, [1, 4, 1, 32]> z, tensor<fp16, [1, 1, 1, 32]> a) {
        tensor<fp16, [1, 4, 1, 32]> y = sub(x = z, y = a)[name = string("y")];
        tensor<fp16, [1, 1, 1, 32]> b = add(x = a, y = a)[name = string("b")];
    } -> (y, b);
}
"""
)
DIFFERENCE_PORTS = {"z": ROW, "a": (F16, (1, 1, 1, 32))}, {"y": ROW, "b": (F16, (1, 1, 1, 32))}


@pytest.fixture
def difference():
    with Program(DIFFERENCE) as program:
        yield program, program.bind(*DIFFERENCE_PORTS)


def values(rng, *shape):
    return rng.normal(size=shape).astype(F16)


def check_difference(function, rng):
    z, a = values(rng, 1, 4, 1, 32), values(rng, 1, 1, 1, 32)
    y, b = function(z, a)
    np.testing.assert_array_equal(y, z - a)
    np.testing.assert_array_equal(b, a + a)


def test_tensors_reach_their_names_whatever_the_order_of_declaration(difference, rng):
    _, function = difference
    assert [port.symbol for port in function.ports] == [1, 0, 1, 0]
    check_difference(function, rng)


def test_strides_and_sizes_are_those_of_the_loaded_program(rng):
    shape = (2, 3, 4, 5)  # rows of 10 bytes, padded to 64
    with Program(scale(3, shape)) as program:
        function = program.bind({"x": (F16, shape)}, {"y": (F16, shape)})
        assert list(function.ports[0].tensor.strides[:4]) == [3 * 4 * 64, 4 * 64, 64, 2]
        assert function.ports[0].bytes == 2 * 3 * 4 * 64
        x = values(rng, *shape)
        np.testing.assert_array_equal(function(x)[0], x * np.float16(3))


@pytest.mark.parametrize("shape", [(7,), (5, 7), (3, 5, 7), (1, 1, 7), (6, 1, 1, 1), (2, 3, 4, 5, 6), (1, 2, 1, 3, 1)])
def test_shapes_of_every_rank_are_laid_out(shape, rng):
    with Program(scale(2, shape)) as program:
        function = program.bind({"x": (F16, shape)}, {"y": (F16, shape)})
        x = values(rng, *shape)
        np.testing.assert_array_equal(function(x)[0], x * np.float16(2))


def test_functions_of_one_program_are_bound_by_name(rng):
    x = values(rng, 1, 4, 1, 32)
    with Program(scale(2, functions=("prefill", "decode", "admit"))) as program:
        for by, name in enumerate(("prefill", "decode", "admit"), 2):
            np.testing.assert_array_equal(program.bind({"x": ROW}, {"y": ROW}, name)(x)[0], x * np.float16(by))
        with pytest.raises(Failure, match="3 functions, and none is called generate") as failure:
            program.bind({"x": ROW}, {"y": ROW}, "generate")
        assert failure.value.status == "ARGUMENT"


def test_blobs_are_found_where_the_text_names_them(rng):
    weight = values(rng, 1, 4, 1, 32)
    chunk = np.zeros(16, np.uint32)
    chunk[[0, 1, 2, 4]] = 0xDEADBEEF, 1, weight.nbytes, 128
    header = np.zeros(16, np.uint32)
    header[:2] = 1, 2
    blob = header.tobytes() + chunk.tobytes() + weight.tobytes()
    path = "@model_path/weights/deep/weight.bin"
    t = "tensor<fp16, [1, 4, 1, 32]>"
    mil = f"""program(1.3)\n{BUILD}\n{{\nfunc main<ios18>({t} x) {{
        {t} w = const()[name = string("w"), val = {t}(BLOBFILE(path = string("{path}"), offset = uint64(64)))];
        {t} y = mul(x = x, y = w)[name = string("y")];\n}} -> (y);\n}}\n"""
    with Program(mil, {path: blob}) as program:
        x = values(rng, 1, 4, 1, 32)
        np.testing.assert_array_equal(program.bind({"x": ROW}, {"y": ROW})(x)[0], x * weight)
    for wrong in ("weights/w.bin", "@model_path/../w.bin", "@model_path/", "@model_path//w.bin", "@model_path/a/."):
        with pytest.raises(Failure, match=r"INVALID: .*leads out of the program's directory"):
            Program(mil, {wrong: blob})


WRONG_PORTS = [
    ({"x": ROW}, {"y": ROW, "b": ROW}, "INVALID", "input x is not among .* inputs, which are a, z"),
    ({"z": ROW}, DIFFERENCE_PORTS[1], "INVALID", "1 inputs are declared, and the compiled program has 2: a, z"),
    (
        {**DIFFERENCE_PORTS[0], "a": ROW},
        DIFFERENCE_PORTS[1],
        "SHAPE",
        r"a is declared as \[1, 4, 1, 32\].*\[1, 1, 1, 1, 32\]",
    ),
    (
        {**DIFFERENCE_PORTS[0], "z": ("float32", (1, 4, 1, 32))},
        DIFFERENCE_PORTS[1],
        "DTYPE",
        "z is declared as float32, and the compiled program takes Float16",
    ),
    ({}, DIFFERENCE_PORTS[1], "UNSUPPORTED", "0 inputs; the Neural Engine takes 1 to 255"),
    ({"z": ("int4", (1, 4, 1, 32))}, DIFFERENCE_PORTS[1], "DTYPE", "no surface holds"),
]


@pytest.mark.parametrize(("inputs", "outputs", "status", "message"), WRONG_PORTS)
def test_a_declaration_that_the_compiled_program_contradicts_is_refused(
    difference, inputs, outputs, status, message, rng
):
    program, function = difference
    with pytest.raises(Failure, match=message) as failure:
        program.bind(inputs, outputs)
    assert failure.value.status == status
    check_difference(function, rng)


# ---- what programs share ---------------------------------------------------------------------------------------


def directories(identifier: bytes) -> list[Path]:
    """Where files of the program lie below the temporary directory."""
    walk = os.walk(os.environ["TEMP"])  # GNUstep's; unlike a glob, it does not mind what others remove
    found = [Path(folder, name) for folder, names, _ in walk for name in names if name == identifier.decode()]
    return [path for path in found if "cache" not in path.parent.name]  # the stand-in's


def test_equal_programs_are_compiled_once_and_one_outlives_the_other(rng):
    before = account()
    first, first_scale = scaled(11)
    second, second_scale = scaled(11)
    assert first.info.identifier == second.info.identifier
    assert (first.info.was_cached, second.info.was_cached) == (False, True)
    after = account()
    assert (after.compiles - before.compiles, after.cache_hits - before.cache_hits) == (1, 1)
    identifier = first.info.identifier
    assert (directories(identifier)[0] / "model.mil").read_text() == scale(11)
    first.close()
    x = values(rng, 1, 4, 1, 32)
    np.testing.assert_array_equal(second_scale(x)[0], x * np.float16(11))
    second.unload()
    np.testing.assert_array_equal(second_scale(x)[0], x * np.float16(11))
    second.close()
    assert not directories(identifier)
    assert account().loaded == before.loaded
    assert first_scale.handle.value is None


def test_a_program_can_be_compiled_again_although_it_is_cached():
    scaled(12)[0].close()
    compiles = fake.count("compiles")
    with scaled(12, recompile=True)[0] as program:
        assert not program.info.was_cached
    assert fake.count("compiles") == compiles + 1


def test_the_least_recently_used_idle_program_makes_room_and_comes_back(rng):
    x = values(rng, 1, 4, 1, 32)
    base = account()
    with limits(loaded=base.loaded + 2):
        programs = [scaled(20 + i) for i in range(2)]
        programs[0][1](x)  # now the second is the one that was used longest ago
        programs.append(scaled(22))
        assert [program.info.is_loaded for program, _ in programs] == [True, False, True]
        np.testing.assert_array_equal(programs[1][1](x)[0], x * np.float16(21))
        assert [program.info.is_loaded for program, _ in programs] == [False, True, True]
        assert account().evictions == base.evictions + 2
        assert programs[1][0].info.loads == 2
        for program, _ in programs:
            program.close()
    assert account().loaded == base.loaded


def test_a_framework_that_loads_fewer_programs_than_thought_is_made_room_in(rng):
    x = values(rng, 1, 4, 1, 32)
    first, function = scaled(25)
    with fake.switched(load_limit=fake.count("live_programs")), scaled(26)[0] as second:
        assert not first.info.is_loaded
        np.testing.assert_array_equal(second.functions[0](x)[0], x * np.float16(26))
        np.testing.assert_array_equal(function(x)[0], x * np.float16(25))
        assert not second.info.is_loaded
    first.close()


def test_kept_programs_stay_and_say_so_when_there_is_no_room_left():
    base = account()
    kept, _ = scaled(30)
    kept.keep()
    with limits(loaded=base.loaded + 1):
        with pytest.raises(Failure, match=r"DEVICE: .* programs are loaded .* all are kept; close one"):
            scaled(31)
        kept.keep(False)
        with scaled(31)[0]:
            assert not kept.info.is_loaded
    kept.close()
    assert account().loaded == base.loaded


def test_the_compile_limit_is_announced_before_the_framework_fails_in_silence():
    with limits(compiles=account().compiles):
        with pytest.raises(Failure, match=r"compiled \d+ programs.*isolate=True"):
            scaled(40)
        compiles = fake.count("compiles")
        with pytest.raises(Failure):
            scaled(40)
        assert fake.count("compiles") == compiles  # the framework was not asked
    with scaled(40)[0]:
        pass


def test_the_frameworks_own_silence_at_its_limit_is_put_into_words():
    with limits(compiles=0), fake.switched(compile_limit=1):
        with pytest.raises(Failure, match=r"DEVICE: .*no reason; it does so when a process has compiled too often"):
            scaled(41)
        with pytest.raises(Failure):
            scaled(41)


def test_the_cache_is_asked_by_identifier_and_a_purged_program_cannot_come_back(rng):
    program, function = scaled(50)
    identifier = program.info.identifier
    assert cache_has(identifier)
    program.unload()
    cache_purge(identifier)
    assert not cache_has(identifier)
    with pytest.raises(Failure, match="no longer in the cache; compile it anew"):
        function(values(rng, 1, 4, 1, 32))
    program.close()


# ---- requests --------------------------------------------------------------------------------------------------


def test_a_request_is_built_once_per_set_of_memories_and_goes_with_them(difference, rng):
    program, function = difference
    live, surfaces = fake.count("live_requests"), fake.count("live_surfaces")
    sets = [function.memories() for _ in range(2)]
    for _ in range(3):
        for memories in sets:
            function.run(memories)
    assert program.info.requests_built == 2
    assert fake.count("live_requests") == live + 2
    sets[0][2].close()
    assert fake.count("live_requests") == live + 1
    sets[0][2] = Memory.new(function.ports[2].bytes)
    function.run(sets[0])
    assert program.info.requests_built == 3
    del sets, memories
    assert fake.count("live_requests") == live
    assert fake.count("live_surfaces") == surfaces


def test_many_sets_of_memories_do_not_pile_up_requests(difference):
    _, function = difference
    live = fake.count("live_requests")
    sets = [function.memories() for _ in range(40)]
    for memories in sets:
        function.run(memories)
    assert fake.count("live_requests") == live + 32
    function.run(sets[0])


def test_two_programs_share_a_tensor_without_a_copy(rng):
    (first, double), (second, triple) = scaled(2), scaled(3)
    x, between = double.memories()
    _, result = triple.memories()
    value = values(rng, 1, 4, 1, 32)
    double.fill([x], value)
    double.run([x, between])
    triple.run([between, result])
    np.testing.assert_array_equal(triple.read([between, result])[0], value * np.float16(2) * np.float16(3))
    first.close(), second.close()


# ---- threads ---------------------------------------------------------------------------------------------------


def together(*jobs):
    """Run them at once; the first exception is raised here."""
    failures = []

    def guarded(job):
        try:
            job()
        except BaseException as failure:
            failures.append(failure)

    threads = [threading.Thread(target=guarded, args=(job,)) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not [thread for thread in threads if thread.is_alive()], "a deadlock"
    if failures:
        raise failures[0]


@pytest.mark.parametrize("n_programs", [1, 8])
def test_threads_run_programs_while_there_is_room_for_two_of_them(n_programs):
    programs = [scaled(60 + i) for i in range(n_programs)]

    def job(i):
        def run():
            rng = np.random.default_rng(i)
            _, function = programs[i % n_programs]
            for _ in range(20):
                x = values(rng, 1, 4, 1, 32)
                np.testing.assert_array_equal(function(x)[0], x * np.float16(60 + i % n_programs))

        return run

    with limits(loaded=2):
        together(*map(job, range(8)))
    for program, _ in programs:
        program.close()


def test_threads_compile_equal_programs_at_once():
    before = account()

    def job():
        for i in range(5):
            program, function = scaled(70 + i)
            function(np.ones((1, 4, 1, 32), F16))
            program.close()

    together(*[job] * 6)
    assert account().loaded == before.loaded
    assert account().compiles == before.compiles + 5


# ---- submit ----------------------------------------------------------------------------------------------------


class Landing:
    """Collects what completion handlers are told."""

    def __init__(self, n):
        self.found, self.n, self.all = [], n, threading.Event()

    def __call__(self, status, message):
        self.found.append((status, message))
        if len(self.found) == self.n:
            self.all.set()

    def wait(self):
        assert self.all.wait(30)
        return self.found


def test_submissions_complete_and_leave_the_caller_free_meanwhile(difference, rng):
    _, function = difference
    memories, landing = [function.memories() for _ in range(6)], Landing(6)
    expected = [(values(rng, 1, 4, 1, 32), values(rng, 1, 1, 1, 32)) for _ in memories]
    for one, (z, a) in zip(memories, expected, strict=True):
        function.fill(one, z, a)
    keep = [function.submit(one, landing) for one in memories]
    assert landing.wait() == [("OK", "")] * 6
    for one, (z, a) in zip(memories, expected, strict=True):
        np.testing.assert_array_equal(function.read(one)[0], z - a)
    assert keep


def test_no_more_submissions_are_under_way_than_the_queue_holds(difference):
    program, function = difference
    n = program.info.queue_depth + 20
    landing, memories = Landing(n), function.memories()
    keep = [function.submit(memories, landing) for _ in range(n)]
    assert {status for status, _ in landing.wait()} == {"OK"}
    assert fake.count("in_flight") == 0
    assert keep


def test_freeing_a_program_waits_for_what_is_under_way():
    program, function = scaled(80)
    memories, landing = function.memories(), Landing(3)
    with fake.switched(completion="slow:100"):
        keep = [function.submit(memories, landing) for _ in range(3)]
        start = time.monotonic()
        del memories  # the submissions keep them
        program.unload()
        assert time.monotonic() - start > 0.09
    assert landing.wait() == [("OK", "")] * 3
    program.close()
    assert keep
