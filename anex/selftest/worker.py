"""The process in which cases and probes run, so that what crashes or hangs costs one answer.

Jobs come as lines of JSON on standard input, {"kind": "case" or "probe", "id": ..., "force": ...}; each is
answered by one line on standard output. By hand: ``python -m anex.selftest.worker weight-reload relu-0``.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any


def perform(job: dict[str, Any]) -> dict[str, Any]:
    """Run one job; its record in the report."""
    if job["kind"] == "probe":
        from .probes import PROBES

        return PROBES[job["id"]].ask()
    from . import suite
    from .cases import find

    try:
        return suite.run(find(job["id"]), force=job.get("force", False))
    except Exception as error:  # a fault of the suite itself is a result too
        case = find(job["id"])
        reason = f"the self-test failed: {type(error).__name__}: {error}"
        return {"id": case.id, "op": case.op, "inputs": case.label, "status": "no reference", "reason": reason}


def plain(value: Any) -> Any:
    """What JSON can hold: infinities and NaN become text, keys become str."""
    if isinstance(value, dict):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(each) for each in value]
    if isinstance(value, float) and value - value != 0:
        return repr(value)
    if value is None or isinstance(value, (str, int, float)):
        return value
    return plain(value.item()) if hasattr(value, "item") else str(value)


def job_of(id: str) -> dict[str, Any]:
    from .probes import PROBES

    return {"kind": "probe" if id in PROBES else "case", "id": id}


def main() -> None:
    sys.modules.setdefault("torch", None)  # type: ignore[arg-type]  # coremltools would import it, for seconds
    if len(sys.argv) > 1:
        for id in sys.argv[1:]:
            print(json.dumps(plain(perform(job_of(id))), indent=1))
        return
    # What libraries print must not mix with the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        print(json.dumps(plain(perform(json.loads(line)))), file=answers, flush=True)


if __name__ == "__main__":
    main()
