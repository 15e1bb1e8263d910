//! What a newcomer types first, as a program: `rlt new` and its five commands, `rlt config`, completions, manual pages.

mod scripted;

use std::fs;
use std::path::Path;

use assert_cmd::Command;
use rlt::config::Config;
use serde_json::Value;

fn rlt(folder: &Path, args: &[&str]) -> assert_cmd::assert::Assert {
    Command::new(assert_cmd::cargo::cargo_bin!("rlt")).current_dir(folder).args(args).assert()
}

fn printed(folder: &Path, args: &[&str]) -> String {
    String::from_utf8(rlt(folder, args).success().get_output().stdout.clone()).unwrap()
}

fn refusal(folder: &Path, args: &[&str]) -> String {
    String::from_utf8(rlt(folder, args).code(2).get_output().stderr.clone()).unwrap()
}

/// The lines of the fenced blocks of a page that call rlt, as words.
fn commands(page: &str) -> Vec<Vec<String>> {
    let lines = page.lines().filter_map(|line| line.strip_prefix("rlt "));
    lines.map(|line| line.split_whitespace().map(str::to_owned).collect()).collect()
}

#[test]
fn a_new_project_runs_by_the_commands_that_stand_in_it() {
    let dir = tempfile::tempdir().unwrap();
    let models = ["demo/teacher/model", "demo/base/model"].map(|name| dir.path().join(name));
    for model in &models {
        fs::create_dir_all(model).unwrap();
        scripted::write_random_model(model, 512);
    }
    let answer = printed(dir.path(), &["new", "a/mine", "--demo", "demo"]);
    let project = dir.path().join("a/mine");
    let mut names: Vec<String> =
        fs::read_dir(&project).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert_eq!(names, ["README.md", "questions.jsonl", "student.toml", "teacher.toml"]);
    assert_eq!(fs::read_to_string(project.join("questions.jsonl")).unwrap().lines().count(), 10);
    let page = fs::read_to_string(project.join("README.md")).unwrap();
    let commands = commands(&page);
    assert_eq!(commands.len(), 6, "one look and five commands");
    assert!(answer.contains(&format!("rlt {}", commands[0].join(" "))), "{answer}");
    for command in &commands {
        let mut words: Vec<&str> = command.iter().map(String::as_str).collect();
        words.push("--quiet");
        // Less of the same.
        if words[0] == "train" {
            words.extend(["grpo.steps=1", "sampling.max_new_tokens=12"]);
        } else if words[0] == "explain" {
            words.push("sampling.max_new_tokens=12");
        }
        // What random weights write does not end, so that nothing can be learnt from it.
        if words[0] == "sft" {
            words.extend(["data.path=questions.jsonl", "sft.epochs=1"]);
        }
        rlt(&project, &words).success();
    }
    let given = fs::read_to_string(project.join("given.jsonl")).unwrap();
    for line in given.lines() {
        let row: Value = serde_json::from_str(line).unwrap();
        assert_eq!(row["parts"]["status"], "ok", "{row}");
    }
    assert!(project.join("runs/teacher/report.html").exists());
    assert!(project.join("runs/student/model/model.safetensors").exists());
}

#[test]
fn a_new_project_of_ones_own_models_says_where_they_belong() {
    let dir = tempfile::tempdir().unwrap();
    let answer = printed(dir.path(), &["new", "mine"]);
    assert!(answer.contains("put your models where teacher.toml and student.toml name them"), "{answer}");
    let teacher = Config::load(Some(&dir.path().join("mine/teacher.toml")), &[]).unwrap();
    assert_eq!((teacher.name.as_str(), teacher.model.path.to_str()), ("teacher", Some("models/teacher")));
    assert_eq!(teacher.prompts.teacher_system, None, "the paper's prompts");
    let student = Config::load(Some(&dir.path().join("mine/student.toml")), &[]).unwrap();
    assert_eq!(student.data.reasoning_trace, "explanation");
    // A model that is named is named by its whole path.
    fs::create_dir(dir.path().join("a \"model\"")).unwrap();
    printed(dir.path(), &["new", "named", "--teacher", "a \"model\"", "--student", "a \"model\""]);
    let named = Config::load(Some(&dir.path().join("named/teacher.toml")), &[]).unwrap();
    assert_eq!(named.model.path, fs::canonicalize(dir.path().join("a \"model\"")).unwrap());
}

#[test]
fn a_folder_that_is_not_empty_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("mine");
    fs::create_dir(&folder).unwrap();
    printed(dir.path(), &["new", "mine"]);
    fs::write(folder.join("teacher.toml"), "# my own\n").unwrap();
    let message = refusal(dir.path(), &["new", "mine"]);
    assert_eq!(message, "error: mine: is not empty, and nothing in it is replaced; name a new folder\n");
    assert_eq!(fs::read_to_string(folder.join("teacher.toml")).unwrap(), "# my own\n");
    fs::write(dir.path().join("file"), "").unwrap();
    let message = refusal(dir.path(), &["new", "file"]);
    assert!(message.starts_with("error: file: ") && message.ends_with("; name a new folder\n"), "{message}");
    let message = String::from_utf8(
        rlt(dir.path(), &["new", "other", "--demo", "nowhere"]).code(1).get_output().stderr.clone(),
    )
    .unwrap();
    assert!(message.contains("no such folder") && !dir.path().join("other").exists(), "{message}");
}

#[test]
fn the_configuration_explains_itself() {
    let dir = tempfile::tempdir().unwrap();
    let defaults = printed(dir.path(), &["config"]);
    let read = Config::parse("defaults", &defaults, &[]).unwrap();
    assert_eq!(read, Config { name: "run".into(), ..Config::default() });
    let key = printed(dir.path(), &["config", "reward.kl"]);
    for words in ["reward.kl\n", "default: \"sampled\"", "full     The divergence over the whole vocabulary"]
    {
        assert!(key.contains(words), "{words:?} in {key}");
    }
    assert!(printed(dir.path(), &["config", "reward.add"]).contains("reward.add.overlap"));
    let schema: Value = serde_json::from_str(&printed(dir.path(), &["config", "--schema"])).unwrap();
    assert_eq!(schema["properties"]["grpo"]["properties"]["steps"]["default"], 125);
    let message = refusal(dir.path(), &["config", "grpo.step"]);
    assert_eq!(
        message,
        "error: there is no key or table `grpo.step`; the nearest known one is `grpo.steps`\n"
    );
}

#[test]
fn shells_complete_and_man_has_a_page_of_every_command() {
    let dir = tempfile::tempdir().unwrap();
    for (shell, words) in [("bash", "complete -F _rlt"), ("zsh", "#compdef rlt"), ("fish", "complete -c rlt")]
    {
        let script = printed(dir.path(), &["completions", shell]);
        assert!(script.contains(words) && script.contains("logprobs"), "{shell}");
    }
    assert!(printed(dir.path(), &["man"]).contains(".TH rlt 1"));
    let page = printed(dir.path(), &["man", "score"]);
    assert!(page.contains(".TH rlt-score 1") && page.contains("\\-\\-teacher"), "{page}");
    let message = refusal(dir.path(), &["man", "scores"]);
    assert!(
        message.starts_with("error: there is no command `scores`; the commands are: compare, "),
        "{message}"
    );
}
