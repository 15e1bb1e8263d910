"""The RLT reward as a function that other people's trainers call."""

from __future__ import annotations

import json
import os
from typing import Any, Iterable, Mapping, Sequence

from ._rlt import Scorer, UsageError
from .rows import Server, server_settings, settings_list


class Reward:
    """How much an explanation helps a student to the solution, less how surprising it is to that student.

    An instance is a reward function for TRL's `GRPOTrainer` (`reward_funcs=rlt.Reward(..)`), its method `verl` one for
    verl's batch reward manager. Models that no server has stay loaded.

    `teacher` gives the log-probabilities that r_KL compares with the student's. A trainer does not hand those of its policy
    to reward functions, so this is a folder: the model as training began, or one that is saved now and then and taken by
    `update_teacher`. `config` and `settings` are those of `rlt score`, `teacher_server` and `student_server` those of
    `rlt.score`: addresses of servers that score in place of this process."""

    def __init__(
        self,
        *,
        teacher: str | os.PathLike[str],
        student: str | os.PathLike[str],
        teacher_server: Server = None,
        student_server: Server = None,
        question: str = "question",
        solution: str = "solution",
        config: str | os.PathLike[str] | None = None,
        settings: Mapping[str, Any] | None = None,
        tokens_per_batch: int = 16384,
    ) -> None:
        self.question = question
        self.solution = solution
        # Trainers log a reward under the name of its function.
        self.__name__ = "rlt_reward"
        self._scorer = Scorer(
            os.fspath(teacher),
            os.fspath(student),
            None if config is None else os.fspath(config),
            settings_list(
                {
                    "data.question": question,
                    "data.solution": solution,
                    **server_settings(teacher_server, student_server),
                    **(settings or {}),
                }
            ),
            tokens_per_batch,
        )

    def __call__(
        self,
        prompts: Sequence[Any] | None = None,
        completions: Sequence[Any] | None = None,
        completion_ids: Sequence[Sequence[int]] | None = None,
        **columns: Any,
    ) -> list[float]:
        """One reward a completion, as TRL asks for them. `columns` hold the question and the solution of each. Where TRL
        gives the sampled ids, they are scored, and not the text, which lacks special tokens."""
        questions = self._column(columns, self.question)
        solutions = self._column(columns, self.solution)
        if completion_ids is not None:
            ids = [[int(token) for token in one] for one in completion_ids]
            texts = self._scorer.completion_texts(ids)
            rows = [self._row(*row) for row in zip(questions, solutions, texts)]
            for row, one in zip(rows, ids):
                row["completion_ids"] = one
        elif completions is not None:
            texts = [_text(completion) for completion in completions]
            rows = [self._row(*row) for row in zip(questions, solutions, texts)]
        else:
            raise UsageError("give completions or completion_ids")
        if len(rows) != len(texts) or len(questions) != len(solutions):
            raise UsageError(
                f"{len(texts)} completions, {len(questions)} questions and {len(solutions)} solutions do not pair up"
            )
        return self._rewards(rows)

    def verl(
        self,
        data_sources: Sequence[Any],
        solution_strs: Sequence[str],
        ground_truths: Sequence[Any],
        extra_infos: Sequence[Mapping[str, Any] | None],
        **_: Any,
    ) -> list[float]:
        """One reward a response, as verl's batch reward manager asks for them: the ground truth is the solution, and the
        extra information of each row holds its question."""
        rows = []
        for index, (text, solution, extra) in enumerate(zip(solution_strs, ground_truths, extra_infos)):
            if extra is None or self.question not in extra:
                raise UsageError(f"row {index + 1}: extra_info has no {self.question!r}; put the question there")
            rows.append(self._row(extra[self.question], solution, text))
        if len(rows) != len(data_sources):
            raise UsageError(f"{len(data_sources)} rows, but {len(rows)} responses with truth and extra information")
        return self._rewards(rows)

    def prompts(self, rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """The rows with the teacher's `prompt` as text: what a policy is to be trained on. It ends inside the explanation,
        which the model goes on writing."""
        rows = [dict(row) for row in rows]
        made = json.loads(self._scorer.prompts(json.dumps(rows)))
        return [{**row, "prompt": one["prompt"]} for row, one in zip(rows, made)]

    @property
    def teacher(self) -> str:
        """The folder of the teacher."""
        return os.fspath(self._scorer.teacher)

    def update_teacher(self, folder: str | os.PathLike[str]) -> None:
        """Takes the teacher of another folder from now on, for example the policy as a callback has just saved it."""
        self._scorer.set_teacher(os.fspath(folder))

    def _column(self, columns: Mapping[str, Sequence[Any]], name: str) -> Sequence[Any]:
        if name not in columns:
            known = ", ".join(sorted(columns)) or "none"
            raise UsageError(f"the rows have no column {name!r}; they have: {known}")
        return columns[name]

    def _row(self, question: Any, solution: Any, completion: str) -> dict[str, Any]:
        return {self.question: question, self.solution: solution, "completion": completion}

    def _rewards(self, rows: list[dict[str, Any]]) -> list[float]:
        scored = json.loads(self._scorer.score(json.dumps(rows), False, True))
        return [float(row["reward"]) for row in scored]


def _text(completion: Any) -> str:
    """The text of a completion, which may be a list of turns."""
    if isinstance(completion, str):
        return completion
    return "".join(turn["content"] for turn in completion)
