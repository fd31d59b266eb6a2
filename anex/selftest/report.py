"""The whole self-test as one record, to be written as JSON, and as a page of text."""

from __future__ import annotations

import datetime
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from .. import doctor
from ..devices.info import label
from ..errors import ArgumentError
from . import runner
from .cases import CASES, every
from .probe import GROUPS
from .probes import PROBES
from .suite import FAILURES

SCHEMA = 1
Listener = Callable[[str, int, int], None]  # what is done, how many are, of how many


def run(
    *, quick: bool = False, only: Iterable[str] = (), force: bool = False, listener: Listener | None = None
) -> dict[str, Any]:
    """Everything, or only ops, probes and groups of that name; without a Neural Engine, the reason in its place."""
    start = time.monotonic()
    facts = doctor.examine()
    jobs = list(_jobs(quick, tuple(only), force)) if facts["ane"]["available"] else []
    ops, probes = [], []
    for i, (job, answer) in enumerate(runner.perform(jobs)):
        if job["kind"] == "case":
            ops.append(_named(job, answer))
        else:
            probes.append(_asked(job, answer))
        if listener is not None:
            listener(job["id"], i + 1, len(jobs))
    report: dict[str, Any] = {
        "schema": SCHEMA,
        "device": label("ane"),
        "started": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "seconds": round(time.monotonic() - start, 1),
        "options": {"quick": quick, "only": sorted(only), "force": force},
        "machine": facts,
        "ops": ops,
        "probes": probes,
    }
    report["summary"] = summary(report)
    return report


def _jobs(quick: bool, only: tuple[str, ...], force: bool) -> Iterator[dict[str, Any]]:
    known = {*CASES, *PROBES, *GROUPS, "ops", "probes"}
    if unknown := sorted(name for name in only if name not in known):
        raise ArgumentError(
            f"--only {', '.join(unknown)}: neither an op nor a probe; ops, probes, {', '.join(GROUPS)} are groups, "
            f"and probes are {', '.join(PROBES)}"
        )
    for case in every(quick=quick):
        if not only or case.op in only or "ops" in only:
            yield {"kind": "case", "id": case.id, "force": force}
    for probe in PROBES.values():
        if not only or probe.id in only or probe.group in only or "probes" in only:
            yield {"kind": "probe", "id": probe.id, "alone": probe.alone}


def _named(job: dict[str, Any], answer: dict[str, Any]) -> dict[str, Any]:
    """A case's record; where its process died, who it was."""
    return {"id": job["id"], "op": job["id"].rpartition("-")[0], **answer}


def _asked(job: dict[str, Any], answer: dict[str, Any]) -> dict[str, Any]:
    if "key" in answer:
        return answer
    probe = PROBES[job["id"]]
    return {
        "id": probe.id,
        "group": probe.group,
        "question": probe.question,
        "claims": dict(probe.claims),
        "status": answer["status"],
        "key": answer["status"],
        "verdict": f"No answer: {answer['reason']}.",
        "data": {},
    }


def summary(report: dict[str, Any]) -> dict[str, Any]:
    """Counts, what failed, and whether all is well."""
    ane = report["machine"]["ane"]
    selectors = ane["selectors"]
    misfits = [f"{each['kind']}[{each['class']} {each['name']}]" for each in selectors if not each["fits"]]
    required = [each["name"] for each in selectors if each["is_required"] and not each["fits"]]
    failed = [each["id"] for each in report["ops"] if each["status"] in FAILURES]
    silent = [each["id"] for each in report["probes"] if each["status"] != "answered"]
    return {
        "available": ane["available"],
        "ops": dict(Counter(each["status"] for each in report["ops"])),
        "refused_ops": sorted({each["op"] for each in report["ops"] if each["status"] == "refused"}),
        "failed_cases": failed,
        "probes": dict(Counter(each["status"] for each in report["probes"])),
        "unanswered_probes": silent,
        "misfit_selectors": misfits,
        "passed": bool(ane["available"] and not failed and not silent and not required),
    }


# ---- as text -----------------------------------------------------------------------------------------------------


def text(report: dict[str, Any]) -> str:
    return "\n".join(_lines(report))


def _lines(report: dict[str, Any]) -> Iterator[str]:
    machine, counts = report["machine"], report["summary"]
    ane = machine["ane"]
    where = "a stand-in, no hardware" if report["device"] == "double" else "the Neural Engine"
    yield f"anex {machine['versions']['anex']} self-test on {where}: {ane['architecture'] or 'no architecture'}"
    yield f"{machine['machine']['chip']}, {machine['machine']['system']}"
    yield ""
    if not ane["available"]:
        yield f"device='ane' is not available: {ane['reason']}"
        return
    fits = sum(each["fits"] for each in ane["selectors"])
    yield f"Selectors: {fits} of {len(ane['selectors'])} as expected."
    for each in ane["selectors"]:
        if not each["fits"]:
            need = "required" if each["is_required"] else "not required"
            what = f"found {each['found']}, expected {each['expected']}" if each["found"] else "missing"
            yield f"  {each['kind']}[{each['class']} {each['name']}]: {what} ({need})"
    listed = ", ".join(f"{count} {status}" for status, count in counts["ops"].items())
    yield ""
    yield f"Ops: {listed or 'none run'}."
    for each in report["ops"]:
        if each["status"] in FAILURES:
            yield f"  {each['id']} ({each.get('inputs', '')}): {each['status']}: {_first(each.get('reason', ''))}"
    refused: dict[str, str] = {}
    for each in report["ops"]:
        if each["status"] == "refused":
            refused.setdefault(each["op"], each["reason"])
    if refused:
        yield f"Refused by rule: {', '.join(refused)}."
    contradicted = [each["id"] for each in report["ops"] if _contradicts(each)]
    if contradicted:
        yield f"Refused by rule, and right when tried anyway: {', '.join(contradicted)}."
    for group, title in GROUPS.items():
        asked = [each for each in report["probes"] if each["group"] == group]
        if asked:
            yield ""
            yield f"{title.capitalize()}s:" if not title.endswith("s") else f"{title.capitalize()}:"
        for each in asked:
            yield f"  {each['id']}: {each['question']}"
            yield f"    -> {each['verdict']}"
            for source, claim in each["claims"].items():
                yield f"       {source}: {claim}"
    yield ""
    yield "Everything passed." if counts["passed"] else "Something failed; see above."


def _contradicts(case: dict[str, Any]) -> bool:
    return bool(case["status"] == "refused" and case.get("forced", {}).get("status") == "ok")


def _first(reason: str) -> str:
    """What matters of a reason of several lines."""
    return " ".join(line.strip() for line in reason.splitlines()[:2])[:300]
