"""Rows and settings on their way to the native half and back."""

from __future__ import annotations

import json
from typing import Any, Mapping

import numpy

#: Columns of a ledger that hold one number a token.
LEDGER = (
    "d_j",
    "teacher_logprobs",
    "student_logprobs",
    "solution_logprobs",
    "solution_logprobs_without_explanation",
)


def settings_list(settings: Mapping[str, Any] | None) -> list[str]:
    """Keys of a configuration as they stand on a command line. JSON's texts, numbers and lists are TOML's."""
    return [f"{key}={json.dumps(value)}" for key, value in (settings or {}).items()]


def to_rows(text: str) -> list[dict[str, Any]]:
    """Scored rows, their ledgers as arrays of 32-bit numbers."""
    rows: list[dict[str, Any]] = json.loads(text)
    for row in rows:
        for name in LEDGER:
            if isinstance(row.get(name), list):
                row[name] = numpy.array(row[name], dtype=numpy.float32)
    return rows
