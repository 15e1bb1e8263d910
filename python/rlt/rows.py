"""Rows and settings on their way to the native half and back."""

from __future__ import annotations

import json
from typing import Any, Mapping, Sequence, Union

import numpy

#: Columns of a ledger that hold one number a token.
LEDGER = (
    "d_j",
    "teacher_logprobs",
    "student_logprobs",
    "solution_logprobs",
    "solution_logprobs_without_explanation",
)


#: The address of a server, or those of several that serve the same model.
Server = Union[str, Sequence[str], None]


def server_settings(teacher: Server, student: Server) -> dict[str, Any]:
    """The keys of a configuration that say who serves teacher and student."""
    settings: dict[str, Any] = {}
    for table, server in (("teacher_server", teacher), ("student_server", student)):
        if server is not None:
            settings[f"{table}.urls"] = [server] if isinstance(server, str) else list(server)
    return settings


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
