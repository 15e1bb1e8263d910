"""Three steps of TRL's GRPO with our reward, whose values are those of `rlt score`."""

import json
import subprocess

import pytest

import rlt

trl = pytest.importorskip("trl", reason="TRL is not installed")

TEACHER, STUDENT = "runs/demo-tiny/teacher/model", "runs/demo-tiny/base/model"
PROMPTS = {"prompts.teacher_system": "Explain the solution.", "prompts.student_system": "Think, then solve."}


def test_trl_trains_on_the_rewards_of_the_command_line(here):
    from datasets import Dataset

    subprocess.run(["rlt", "new", "for-trl", "--demo", "runs/demo-tiny"], check=True)
    rows = [json.loads(line) for line in (here / "for-trl" / "questions.jsonl").read_text().splitlines()]
    rows = [{"question": row["question"], "solution": row["solution"]} for row in rows]
    reward = rlt.Reward(teacher=TEACHER, student=STUDENT, settings=PROMPTS)
    seen = []

    def watched(prompts, completions, completion_ids, **columns):
        rewards = reward(prompts=prompts, completions=completions, completion_ids=completion_ids, **columns)
        for row in zip(columns["question"], columns["solution"], completion_ids, rewards):
            seen.append(row)
        return rewards

    trainer = trl.GRPOTrainer(
        model=TEACHER,
        reward_funcs=watched,
        train_dataset=Dataset.from_list(reward.prompts(rows)),
        args=trl.GRPOConfig(
            output_dir=str(here / "trl"),
            per_device_train_batch_size=8,
            num_generations=4,
            max_completion_length=100,
            max_steps=3,
            learning_rate=1e-4,
            use_cpu=True,
            bf16=False,
            report_to="none",
            save_strategy="no",
            disable_tqdm=True,
        ),
    )
    before = [parameter.detach().clone() for parameter in trainer.model.parameters()]
    trainer.train()
    assert trainer.state.global_step == 3
    assert any((was != now).any() for was, now in zip(before, trainer.model.parameters())), "nothing was learnt"
    assert len(seen) == 24 and len({row[3] for row in seen}) > 6, "rewards differ"

    texts = reward._scorer.completion_texts([ids for _, _, ids, _ in seen])
    with open("seen.jsonl", "w") as file:
        for (question, solution, ids, _), text in zip(seen, texts):
            row = {"question": question, "solution": solution, "completion": text, "completion_ids": ids}
            file.write(json.dumps(row) + "\n")
    settings = [f"{key}={value}" for key, value in PROMPTS.items()]
    command = ["rlt", "score", "--teacher", TEACHER, "--student", STUDENT, "--data", "seen.jsonl", "--out", "scored.jsonl"]
    subprocess.run([*command, "--quiet", *settings], check=True)
    with open("scored.jsonl") as file:
        scored = [json.loads(line) for line in file]
    statuses = [row["parts"]["status"] for row in scored]
    assert not any("do not spell" in status for status in statuses), statuses
    assert sum(status == "ok" for status in statuses) > 8, statuses
    for (*_, given), row in zip(seen, scored):
        assert given == pytest.approx(row["reward"], abs=1e-5)
