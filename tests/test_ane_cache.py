"""anex.cache, and the budget of compilations, on the stand-in."""

import dataclasses
import gc
import json
import os
import subprocess
import sys

import numpy as np
import pytest
from fake_ane import control as fake_ane
from needs_ane import needs_ane

import anex
from anex import _native, cache, mb
from anex.errors import CompileLimitError

pytestmark = needs_ane


@pytest.fixture(autouse=True)
def notes(tmp_path, monkeypatch):
    """A folder of notes of this test alone, and limits as they were."""
    monkeypatch.setenv("ANEX_CACHE_DIR", str(tmp_path / "notes"))
    before = _native.ane_account()
    yield tmp_path / "notes" / "programs"
    _native.ane_set_limits(before["compile_limit"], before["load_limit"])


def times(by):
    @anex.graph(x=(1, 8))
    def program(x):
        return mb.mul(x=x, y=np.full((1, 8), by, np.float16), name="y")

    return program


X = np.ones((1, 8), np.float16)


def test_a_compiled_program_is_listed_with_what_it_is():
    program = anex.compile(times(3), device="ane")
    (entry,) = cache.list()
    assert entry.identifier == program.stats()["identifier"]
    assert entry.name == "main(x) -> y"
    assert entry.loaded
    assert not entry.kept
    assert entry.created <= entry.last_used
    assert entry.compiled_by.startswith(f"anex {anex.__version__}")
    assert cache.size() == entry.bytes > 100
    program.close()
    assert not cache.list()[0].loaded


def test_the_second_compilation_is_a_look_up():
    anex.compile(times(4), device="ane").close()
    before = cache.budget()
    program = anex.compile(times(4), device="ane")
    after = cache.budget()
    assert program.stats()["was_cached"]
    assert (after.compiles - before.compiles, after.hits - before.hits) == (0, 1)
    anex.compile(times(4), device="ane", recompile=True)
    assert cache.budget().compiles == after.compiles + 1
    assert len(cache.list()) == 1


def test_clear_has_the_system_forget_all_but_what_is_kept():
    kept, other = anex.compile(times(5), device="ane"), anex.compile(times(6), device="ane")
    cache.keep(kept)
    assert cache.clear() == 1
    assert [entry.identifier for entry in cache.list()] == [kept.stats()["identifier"]]
    assert not _native.ane_cache_has(other.stats()["identifier"])
    assert other(X)[0, 0] == 6
    cache.keep(kept, False)
    assert cache.clear() == 1
    assert cache.list() == ()


def test_a_program_that_the_system_dropped_is_not_listed():
    program = anex.compile(times(7), device="ane")
    _native.ane_cache_purge(program.stats()["identifier"])
    assert cache.list() == ()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"identifier": 3}', "\x00\xff", "null"])
def test_notes_that_cannot_be_read_are_passed_over(notes, text):
    anex.compile(times(8), device="ane")
    (path,) = notes.glob("*.json")
    (notes / "other.json").write_text(text)
    assert len(cache.list()) == 1
    path.write_text(text)
    assert cache.list() == ()
    anex.compile(times(8), device="ane")
    assert len(cache.list()) == 1


def test_a_folder_that_cannot_be_written_costs_the_notes_and_nothing_else(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("ANEX_CACHE_DIR", str(tmp_path / "file"))
    assert anex.compile(times(9), device="ane")(X)[0, 0] == 9
    assert cache.list() == ()


def test_no_half_written_note_is_left(notes):
    for _ in range(5):
        anex.compile(times(10), device="ane").close()
    (path,) = notes.iterdir()
    assert json.loads(path.read_text())["name"] == "main(x) -> y"


def test_only_programs_of_the_neural_engine_are_kept():
    with pytest.raises(anex.ArgumentError, match="device='ane'"):
        cache.keep(anex.compile(times(2)))


def test_the_compile_limit_is_an_error_that_names_the_way_out():
    program = anex.compile(times(11), device="ane")
    _native.ane_set_limits(cache.budget().compiles, 0)
    with pytest.raises(CompileLimitError, match="isolate=True") as raised:
        anex.compile(times(12), device="ane")
    assert isinstance(raised.value, anex.DeviceError)
    assert isinstance(raised.value, RuntimeError)
    assert program(X)[0, 0] == 11
    assert anex.compile(times(11), device="ane")(X)[0, 0] == 11  # compiled already: costs nothing
    with anex.compile(times(12), device="ane", isolate=True) as elsewhere:
        assert elsewhere(X)[0, 0] == 12


def test_programs_above_the_load_limit_take_turns():
    gc.collect()  # of other tests' programs, which count until then
    programs = [anex.compile(times(by), device="ane") for by in (13, 14)]
    before = cache.budget()
    _native.ane_set_limits(before.compile_limit, before.loaded)
    third = anex.compile(times(15), device="ane")
    for by, program in zip((13, 14, 15), (*programs, third), strict=True):
        assert program(X)[0, 0] == by
    assert cache.budget().evictions > before.evictions
    assert cache.budget().loaded <= before.loaded


def test_the_budget_is_plain_numbers():
    assert all(isinstance(value, int) for value in dataclasses.asdict(cache.budget()).values())


def test_notes_of_other_processes_are_seen(notes, tmp_path):
    code = (
        "import numpy as np, anex\nfrom anex import mb\n@anex.graph(x=(1, 8))\ndef f(x):\n"
        "    return mb.add(x=x, y=x, name='y')\nanex.compile(f, device='ane')\nprint(len(anex.cache.list()))"
    )
    env = {**os.environ, "FAKE_ANE": f"cache_dir={tmp_path}/system"}
    with fake_ane.switched(cache_dir=f"{tmp_path}/system"):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, timeout=120)
        assert done.stdout == "1\n", done.stderr
        (entry,) = cache.list()
        assert not entry.loaded
