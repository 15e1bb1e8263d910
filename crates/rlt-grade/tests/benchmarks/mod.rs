//! The answers of the benchmarks that a development checkout has beside it.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

/// The rows of a file of JSON lines.
pub fn rows(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The shared data folder of a development checkout, or a printed reason to skip.
pub fn shared(name: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data").join(name);
    if !path.exists() {
        eprintln!("skipped: {} is absent", path.display());
    }
    path.exists().then_some(path)
}

/// The answers of every row of every benchmark.
pub fn golds() -> Vec<(String, Vec<String>)> {
    let files = [
        ("aime24", "eval/aime24.jsonl"),
        ("amc23", "eval/amc23.jsonl"),
        ("math500", "eval/math500.jsonl"),
        ("gsm8k", "eval/gsm8k_test.first200.jsonl"),
        ("olymmath easy", "eval/olymmath_en_easy.jsonl"),
        ("olymmath hard", "eval/olymmath_en_hard.jsonl"),
        ("olympiadbench", "eval/olympiadbench.first100.jsonl"),
    ];
    files.iter().filter_map(|(name, file)| Some(((*name).to_owned(), answers(&shared(file)?)))).collect()
}

/// The answers of a file: its column `answer`, else `final_answer`, else the last box of `solution`.
pub fn answers(path: &Path) -> Vec<String> {
    let answer = |row: Value| match (&row["answer"], &row["final_answer"], &row["solution"]) {
        (Value::String(text), ..) => text.rsplit("####").next().unwrap().trim().to_owned(),
        (Value::Number(number), ..) => number.to_string(),
        (_, Value::Array(list), _) => {
            list.iter().map(|text| text.as_str().unwrap()).collect::<Vec<_>>().join(", ")
        }
        (_, _, Value::String(solution)) => rlt_grade::gold_answer(solution).into_owned(),
        other => panic!("{}: {other:?}", path.display()),
    };
    rows(path).into_iter().map(answer).collect()
}
