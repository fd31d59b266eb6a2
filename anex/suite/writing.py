"""The two reports of a whole run, text and JSON, written anew after each of its parts: whole at any time."""

from __future__ import annotations

import datetime
import platform
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from .. import files
from ..bench.machine import facts
from ..bench.report import SCHEMA
from .outcome import SECTIONS, Outcome, counted
from .playing import Plan
from .prerequisites import Prerequisite, prerequisites


def now() -> datetime.datetime:
    return datetime.datetime.now(datetime.timezone.utc)


@dataclass
class Report:
    """``folder``: where ``benchmark_results_<timestamp>.txt`` and ``.json`` are written."""

    plan: Plan
    folder: Path
    begun: datetime.datetime = field(default_factory=now)
    outcomes: list[Outcome] = field(default_factory=list)
    finished: bool = False
    needs: list[Prerequisite] = field(init=False)

    def __post_init__(self) -> None:
        self.needs = prerequisites(self.plan.device, self.folder)

    @property
    def stem(self) -> str:
        return f"benchmark_results_{self.begun:%Y%m%d_%H%M%S}"

    @property
    def text_file(self) -> Path:
        return self.folder / f"{self.stem}.txt"

    @property
    def json_file(self) -> Path:
        return self.folder / f"{self.stem}.json"

    @property
    def failed(self) -> bool:
        return self.plan.interrupted or any(each.status == "FAIL" for each in self.outcomes)

    def write(self) -> None:
        """Both files, each whole or not at all."""
        files.folder(self.folder, "--out")
        files.write(self.text_file, self.text() + "\n")
        files.write(self.json_file, files.as_json(self.as_json()) + "\n")

    def head(self) -> list[str]:
        known = facts(self.plan.device)
        mac = platform.mac_ver()[0] or f"none ({known['system']})"
        said = {"Date": f"{self.begun:%Y-%m-%d %H:%M:%S} UTC", "Machine": known["machine"], "macOS": mac,
                "Chip": known["chip"], "Device": f"{known['device']}; predictions for {self.plan.chip}",
                "Steps": str(self.plan.steps)}  # fmt: skip
        lines = [f"{name}: {value}" for name, value in said.items()]
        if self.plan.quick:
            lines.append("Quick: a selection of the configurations, the smallest; few calls of each")
        return [*lines, "", "=== PREREQUISITES ===", *(each.line for each in self.needs)]

    def state(self) -> str:
        if self.plan.interrupted:
            return "Interrupted: what is above is whole, and more was to come"
        return "" if self.finished else "Still running, or ended by force: more was to come"

    def text(self) -> str:
        lines = ["=== anex benchmark results ===", *self.head()]
        for section, title in SECTIONS.items():
            found = [each for each in self.outcomes if each.section == section]
            if section not in self.plan.sections:
                continue
            lines += ["", f"=== {title} ===", *(each.line for each in found)]
            lines += [f"\n{each.text}" for each in found if each.text]
            lines += [f"\nAneWarning ({each.name}): {warned.line}" for each in found if section != "benchmarks"
                      for warned in each.warned]  # fmt: skip
        lines += ["", *self.total()]
        return "\n".join([*lines, *filter(None, [self.state()])])

    def total(self) -> list[str]:
        return [f"{name.capitalize()}: {count}" for name, count in counted(self.outcomes).items()]

    def as_json(self) -> dict[str, Any]:
        def of(section: str) -> list[dict[str, Any]]:
            return [{**each.data, "status": each.data.get("status", each.status), "seconds": each.seconds,
                     "result": each.status, "reasons": list(each.reasons),
                     "warnings": [asdict(warned) for warned in each.warned]}
                    for each in self.outcomes if each.section == section]  # fmt: skip

        return {
            "schema_version": SCHEMA, "date": self.begun.isoformat(timespec="seconds"),
            "system": {**facts(self.plan.device), "macos": platform.mac_ver()[0]},
            "quick": self.plan.quick, "steps": self.plan.steps, "interrupted": self.plan.interrupted,
            "prerequisites": [asdict(each) for each in self.needs],
            "finished": self.finished, "summary": counted(self.outcomes),
            **{section: of(section) for section in SECTIONS},
        }  # fmt: skip
