"""Reinforcement Learning Teachers of Test Time Scaling: the reward, the grader and the chat templates of the command
line `rlt`, which this package brings along."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Iterable, Mapping, Sequence

from ._rlt import Error, Renderer, Scorer, UsageError, __version__, grade as _grade
from .reward import Reward
from .rows import Server, server_settings, settings_list, to_rows

__all__ = ["Error", "Reward", "UsageError", "Verdict", "grade", "render", "score", "__version__"]


@dataclass(frozen=True)
class Verdict:
    """What a grader says about one prediction; true where it is right."""

    correct: bool
    #: The answer that was found, as it was compared.
    extracted: str | None
    #: Why, in one line.
    reason: str
    #: Whether the answer has the form that was asked for (a closed box).
    formatted: bool

    def __bool__(self) -> bool:
        return self.correct


def grade(gold: str, prediction: str, *, grader: str = "math", remove_thought: bool = False) -> Verdict:
    """Whether `prediction` gives the answer `gold`: by mathematical equivalence, or as the letter of a multiple choice
    (`grader="choice"`). With `remove_thought` the answer is looked for behind the thought section only."""
    return Verdict(*_grade(str(gold), str(prediction), grader, remove_thought))


@lru_cache(maxsize=8)
def _renderer(folder: str) -> Renderer:
    return Renderer(folder)


def render(
    model: str | os.PathLike[str],
    messages: Sequence[Mapping[str, Any]],
    *,
    add_generation_prompt: bool = False,
    **variables: Any,
) -> tuple[str, list[int]]:
    """Text and token ids of `messages` through the chat template of the folder `model`. `variables` (`tools`, `documents`,
    ..) go to the template."""
    renderer = _renderer(os.fspath(model))
    return renderer.render(json.dumps(list(messages)), add_generation_prompt, json.dumps(variables))


def score(
    rows: Iterable[Mapping[str, Any]] | str | os.PathLike[str],
    *,
    teacher: str | os.PathLike[str],
    student: str | os.PathLike[str],
    teacher_server: Server = None,
    student_server: Server = None,
    config: str | os.PathLike[str] | None = None,
    settings: Mapping[str, Any] | None = None,
    ledger: bool = False,
    strict: bool = False,
    tokens_per_batch: int = 16384,
) -> list[dict[str, Any]]:
    """The RLT reward of explanations, part by part: what `rlt score` writes, as dictionaries.

    `rows` are mappings with `question`, `solution` and `completion` (or `explanation`), or a file of them. `teacher` and
    `student` are model folders, `config` a TOML file, `settings` keys of a configuration (`{"reward.lambda": 2.0}`). With
    `ledger`, each row has its per-token values as numpy arrays, too. A row that lacks its question, its solution or its
    explanation has `reward` None and says why in `parts["status"]`; with `strict` it is an error.

    `teacher_server` and `student_server` are addresses of servers (`rlt serve`, vLLM, ..), or lists of addresses that serve
    the same model: then `config.json` and the tokenizer of its folder are enough. Servers score at temperature 1, so
    `reward.teacher_temperature` or `reward.student_temperature` must be 1. Other keys of `[teacher_server]` and
    `[student_server]` go into `settings`."""
    scorer = Scorer(
        os.fspath(teacher),
        os.fspath(student),
        None if config is None else os.fspath(config),
        settings_list({**server_settings(teacher_server, student_server), **(settings or {})}),
        tokens_per_batch,
    )
    if isinstance(rows, (str, os.PathLike)):
        scored = scorer.score_file(os.fspath(rows), ledger, strict)
    else:
        scored = scorer.score(json.dumps([dict(row) for row in rows]), ledger, strict)
    return to_rows(scored)
