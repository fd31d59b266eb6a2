"""What probes found out on this machine, kept for whoever asks later: one JSON file a chip, build and device."""

from __future__ import annotations

import json
import platform
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from . import files
from .devices.info import device_info, label

SCHEMA = 1


def folder() -> Path:
    """``ANEX_HOME``, or the user's cache folder."""
    return files.of_user("ANEX_HOME")


def path(device: str) -> Path:
    """Answers of the stand-in never stand in for those of hardware: the label is part of the name."""
    here = device_info()
    parts = (here.architecture, here.build) if device == "ane" else (platform.processor() or platform.machine(),)
    name = "-".join(filter(None, (label(device), *parts)))
    return folder() / f"probes-{re.sub('[^A-Za-z0-9]+', '-', name).strip('-').lower()}.json"


def load(device: str) -> dict[str, Mapping[str, Any]]:
    """By probe; empty where nothing was asked, or the file is of another schema or broken."""
    try:
        known = json.loads(path(device).read_text(encoding="utf-8"))
        answers = known["answers"] if known["schema_version"] == SCHEMA else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return {name: each for name, each in answers.items() if isinstance(each, dict)} if isinstance(answers, dict) else {}


def by_name(found: Iterable[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """Probes' answers as they are kept: without those that were not asked, and apart from the questions of the
    self-test that they put (``asked``), which are kept as ``selftest/NAME``."""
    kept: dict[str, Mapping[str, Any]] = {}
    for answer in found:
        if answer["status"] != "SKIP":
            kept[answer["name"]] = {key: value for key, value in answer.items() if key != "asked"}
            kept.update(of_selftest(answer.get("asked", {}).values()))
    return kept


def of_selftest(found: Iterable[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """Answers to questions of the self-test as they are kept; where none was given an older one stays."""
    return {f"selftest/{each['id']}": each for each in found if each["status"] == "answered"}


def save(device: str, answers: Mapping[str, Mapping[str, Any]]) -> Path:
    """Add these to what is known; whole or not at all."""
    file = path(device)
    files.folder(file.parent, "ANEX_HOME")
    files.write(file, files.as_json({"schema_version": SCHEMA, "answers": {**load(device), **answers}}) + "\n")
    return file
