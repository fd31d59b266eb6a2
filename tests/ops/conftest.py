"""Every test of an operator runs on every device; what the Neural Engine's rules refuse is listed by name."""

from __future__ import annotations

import harness
import pytest
import refused

from anex import UnsupportedError, devices


def pytest_generate_tests(metafunc):
    """Once a device, unless the test's subject is the CPU engine itself: its instruction sets, threads, memory."""
    about_the_engine = "isa" in metafunc.fixturenames or metafunc.definition.get_closest_marker("cpu_engine")
    metafunc.parametrize("device", ["cpu"] if about_the_engine else devices.available(), indirect=True)


@pytest.fixture(autouse=True, scope="session")
def device(request):
    """The device that ``check`` and ``run`` take when they are told none."""
    harness.DEVICE = request.param
    return request.param


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem):
    """A refusal by rule ends the test, if it stands in the list of refusals: nothing is skipped silently."""
    try:
        return (yield)
    except UnsupportedError as error:
        found = refused.rules_of(str(error)) if pyfuncitem.callspec.params["device"] == "ane" else []
        if not found or not refused.RULES.issuperset(found):
            raise
        pyfuncitem.user_properties += [("refused", f"{op}: {rule}") for op, rule in found]
        return True


def pytest_terminal_summary(terminalreporter):
    names = [value for each in terminalreporter.stats.get("passed", []) for key, value in each.user_properties]
    if names:
        terminalreporter.section("ops refused by the Neural Engine's rules (op: rule, times)")
        for name in sorted(set(names)):
            terminalreporter.line(f"{name} {names.count(name)}")
