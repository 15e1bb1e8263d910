"""What the README does not show: agreement with the command line, errors, threads."""

import json
import subprocess
import threading

import numpy
import pytest

import rlt

TEACHER, STUDENT = "runs/demo-tiny/teacher/model", "runs/demo-tiny/base/model"
PROMPTS = {"prompts.teacher_system": "Explain the solution.", "prompts.student_system": "Think, then solve."}


@pytest.fixture
def project(here):
    if not (here / "project").exists():
        subprocess.run(["rlt", "new", "project", "--demo", "runs/demo-tiny"], check=True)
    return here / "project"


def test_version_is_that_of_the_command_line():
    printed = subprocess.run(["rlt", "--version"], check=True, capture_output=True, text=True).stdout
    assert printed == f"rlt {rlt.__version__}\n"


def test_scores_are_those_of_the_command_line(project):
    command = ["rlt", "score", "--config", "teacher.toml", "--data", "questions.jsonl", "--out", "given.jsonl", "--ledger"]
    subprocess.run([*command, "--quiet"], cwd=project, check=True)
    written = [json.loads(line) for line in (project / "given.jsonl").read_text().splitlines()]
    models = {"teacher": TEACHER, "student": STUDENT, "config": project / "teacher.toml", "ledger": True}
    rows = [json.loads(line) for line in (project / "questions.jsonl").read_text().splitlines()]
    for scored in (rlt.score(rows, **models), rlt.score(project / "questions.jsonl", **models)):
        assert [row["reward"] for row in scored] == [row["reward"] for row in written]
        assert [row["parts"] for row in scored] == [row["parts"] for row in written]
        for row, line in zip(scored, written):
            assert row["d_j"].dtype == numpy.float32
            numpy.testing.assert_array_equal(row["d_j"], numpy.array(line["d_j"], dtype=numpy.float32))
            assert row["id"] == line["id"]


def test_full_explanations_are_worth_more_than_restatements(project):
    scored = rlt.score(project / "questions.jsonl", teacher=TEACHER, student=STUDENT, config=project / "teacher.toml")
    mean = lambda kind: numpy.mean([row["reward"] for row in scored if row["kind"] == kind])
    assert mean("full") > mean("restatement")


def test_a_row_without_a_solution_says_so_or_is_refused(here):
    rows = [{"question": "q", "solution": None, "explanation": "e"}]
    scored = rlt.score(rows, teacher=TEACHER, student=STUDENT, settings=PROMPTS)
    assert scored[0]["reward"] is None and "solution" in scored[0]["parts"]["status"]
    with pytest.raises(rlt.Error, match="rows, row 1: "):
        rlt.score(rows, teacher=TEACHER, student=STUDENT, settings=PROMPTS, strict=True)


@pytest.fixture(scope="module")
def serve(folder):
    """Starts `rlt serve` on models, each on a port of its own, and gives the addresses."""
    running = []

    def start(model):
        command = ["rlt", "serve", "--model", model, "--port", "0", "--json"]
        process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True)
        running.append(process)
        return json.loads(process.stdout.readline())["url"]

    yield start
    for process in running:
        process.terminate()
        process.wait()


def test_servers_score_as_this_process_does(project, serve):
    rows = [json.loads(line) for line in (project / "questions.jsonl").read_text().splitlines()]
    cold = {**PROMPTS, "reward.teacher_temperature": 1, "reward.student_temperature": 1}
    here = rlt.score(rows, teacher=TEACHER, student=STUDENT, settings=cold)
    teacher, student = serve(TEACHER), serve(STUDENT)
    servers = {"teacher_server": teacher, "student_server": [student]}
    there = rlt.score(rows, teacher=TEACHER, student=STUDENT, settings=cold, **servers)
    assert [row["reward"] for row in there] == pytest.approx([row["reward"] for row in here], abs=1e-4)
    # One of them, by a key of the configuration; and a reward function.
    mixed = rlt.score(rows, teacher=TEACHER, student=STUDENT, settings={**cold, "student_server.url": student})
    assert [row["reward"] for row in mixed] == pytest.approx([row["reward"] for row in here], abs=1e-4)
    reward = rlt.Reward(teacher=TEACHER, student=STUDENT, settings=cold, **servers)
    columns = {name: [row[name] for row in rows] for name in ("question", "solution")}
    completions = [row["explanation"] + "\n\n<|end_of_explanation|>" for row in rows]
    assert reward(completions=completions, **columns) == pytest.approx([row["reward"] for row in here], abs=1e-4)


def test_wrong_servers_are_told_in_one_line(here):
    models = {"teacher": TEACHER, "student": STUDENT}
    with pytest.raises(rlt.UsageError, match="servers give log-probabilities of given tokens at temperature 1 only"):
        rlt.score([], **models, student_server="http://127.0.0.1:9")
    with pytest.raises(rlt.UsageError, match="is an address: give it as teacher_server"):
        rlt.score([], teacher="http://127.0.0.1:9", student=STUDENT)
    with pytest.raises(rlt.Error, match="http://127.0.0.1:9"):
        rlt.score([], **models, student_server="http://127.0.0.1:9", settings={"reward.student_temperature": 1})


@pytest.mark.parametrize(
    "settings, line",
    [
        ({"reward.lamda": 1.0}, "the nearest known key is `reward.lambda`"),
        ({"reward.lambda": "much"}, "`lambda` in table [reward] must be a number, found"),
    ],
)
def test_a_wrong_setting_is_one_line(here, settings, line):
    with pytest.raises(rlt.UsageError) as caught:
        rlt.score([], teacher=TEACHER, student=STUDENT, settings=settings)
    assert line in str(caught.value) and "\n" not in str(caught.value)


def test_wrong_calls_of_a_reward_are_told(here):
    reward = rlt.Reward(teacher=TEACHER, student=STUDENT, settings=PROMPTS)
    with pytest.raises(rlt.UsageError, match="no column 'solution'; they have: question"):
        reward(completions=["c"], question=["q"])
    with pytest.raises(rlt.UsageError, match="do not pair up"):
        reward(completions=["c", "d"], question=["q"], solution=["s"])
    with pytest.raises(rlt.UsageError, match="put the question there"):
        reward.verl(data_sources=["d"], solution_strs=["c"], ground_truths=["s"], extra_infos=[None])
    with pytest.raises(rlt.Error, match="no such folder"):
        reward.update_teacher("nowhere")
    assert reward.teacher == TEACHER
    with pytest.raises(rlt.UsageError, match="grader is"):
        rlt.grade("1", "1", grader="maths")


def test_a_reward_reads_turns_and_texts_alike(here):
    reward = rlt.Reward(teacher=TEACHER, student=STUDENT, settings=PROMPTS)
    columns = {"question": ["Zoe has 75 shells. She buys 9. How many shells does she have?"], "solution": ["Zoe has 84 shells."]}
    text = "She buys 9: 75 + 9 = 84.\n\n<|end_of_explanation|>"
    turns = [{"role": "assistant", "content": text}]
    assert reward(completions=[text], **columns) == reward(completions=[turns], **columns)
    worse = reward(completions=["The answer is 84.\n\n<|end_of_explanation|>"], **columns)
    assert len(worse) == 1


def test_other_threads_run_while_a_score_is_computed(project):
    rows = [json.loads(line) for line in (project / "questions.jsonl").read_text().splitlines()] * 30
    ticks, done = [], threading.Event()

    def tick():
        while not done.wait(0.005):
            ticks.append(None)

    thread = threading.Thread(target=tick)
    thread.start()
    rlt.score(rows, teacher=TEACHER, student=STUDENT, settings=PROMPTS)
    done.set()
    thread.join()
    assert len(ticks) > 5
