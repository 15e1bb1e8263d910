//! The grader against known pairs, the benchmarks' own answers, and real model outputs.

#![expect(clippy::print_stderr, reason = "figures that docs/GRADING.md quotes, and why a test was skipped")]

mod benchmarks;

use std::path::Path;
use std::time::{Duration, Instant};

use benchmarks::{golds, rows, shared};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{RngAlgorithm, TestRng, TestRunner};
use rlt_grade::{ThoughtRule, equivalent, extract, grade_choice, grade_countdown, grade_math};

/// Pairs made by rules, with math-verify's verdicts (tests/parity/grading_pairs.py).
#[test]
fn pairs_made_by_rules_are_judged_as_they_are() {
    let pairs = rows(Path::new("tests/golden/grading_pairs.jsonl"));
    assert!(pairs.len() > 1500);
    let mut wrong = Vec::new();
    let mut agree = 0;
    for pair in &pairs {
        let text = |key: &str| pair[key].as_str().unwrap();
        let prediction = format!("The answer is $\\boxed{{{}}}$.", text("answer"));
        let verdict = grade_math(&prediction, text("gold"), ThoughtRule::Keep);
        agree += usize::from(pair["math_verify"] == verdict.correct);
        if pair["truth"].as_bool().is_some_and(|truth| truth != verdict.correct) {
            wrong.push(format!("{} | {}: {}", text("gold"), text("answer"), verdict.reason));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(agree as f64 >= 0.98 * pairs.len() as f64, "agreement {agree} of {}", pairs.len());
}

#[test]
fn cases_that_were_misjudged_once_are_judged_right() {
    let Some(path) = shared("../cases/grade.jsonl") else { return };
    for row in rows(&path) {
        let text = |key: &str| row[key].as_str().unwrap();
        let grade = if row["grader"] == "choice" { grade_choice } else { grade_math };
        let verdict = grade(text("prediction"), text("gold"), ThoughtRule::Keep);
        assert_eq!(row["right"], verdict.correct, "{row}: {}", verdict.reason);
    }
}

#[test]
fn every_benchmark_answer_is_right_in_five_rewrites() {
    let mut n = 0;
    for (name, answers) in golds() {
        for gold in &answers {
            let plain = gold.trim_matches('$');
            // `\{1\}$, $` stands for text between formulas; its dollars stay.
            let spaced = plain.replace('+', " + ").replace('=', " = ").replace(',', ", ");
            // A comma between digits stays as it is: it may group them.
            let spaced = if plain.contains(",\\!") || plain.bytes().any(|b| b == b',') {
                format!("  {plain}  ")
            } else {
                spaced
            };
            let between = plain.split('$').skip(1).step_by(2);
            let has_words = between.flat_map(str::chars).any(char::is_alphabetic);
            let rewrites = [
                format!("Thus the result is $\\boxed{{{gold}}}$."),
                format!("\\boxed{{{}}}", gold.replace("\\dfrac", "\\frac").replace("\\frac{", "\\dfrac{")),
                format!("\\boxed{{{spaced}}}"),
                // Words have no unit, and neither have sentences: formulas with words between them. A unit stands
                // before the full stop.
                format!(
                    "\\boxed{{{}{}}}",
                    plain.trim_end_matches(['.', '$']),
                    if plain.starts_with("\\text") || has_words { "" } else { "\\text{ units}" }
                ),
                format!(
                    "First $\\boxed{{{gold}}}$, as was to be shown. I hope it is correct: 12345.\n\nDone."
                ),
            ];
            for rewrite in &rewrites {
                n += 1;
                let verdict = grade_math(rewrite, gold, ThoughtRule::Keep);
                assert!(verdict.correct, "{name}: {rewrite} for {gold}: {}", verdict.reason);
            }
        }
    }
    eprintln!("{n} rewrites");
}

#[test]
fn the_next_row_s_answer_is_wrong_unless_it_is_the_same() {
    let mut pairs = 0;
    for (name, answers) in golds() {
        for (gold, next) in answers.iter().zip(answers.iter().cycle().skip(1)) {
            // `x=5` and `5` are neighbours in MATH-500.
            let bare = |text: &str| text.trim_matches('$').replace([' ', 'x', '='], "");
            if bare(gold) == bare(next) {
                continue;
            }
            pairs += 1;
            let verdict = grade_math(&format!("\\boxed{{{next}}}"), gold, ThoughtRule::Keep);
            assert!(!verdict.correct, "{name}: {next} for {gold}: {}", verdict.reason);
        }
    }
    eprintln!("{pairs} different neighbours");
}

#[test]
fn model_outputs_are_judged_as_their_authors_did() {
    let Some(path) = shared("eval_outputs/math_cot_100x8.jsonl") else { return };
    let (mut n, mut differ) = (0, Vec::new());
    for row in rows(&path) {
        let texts = |key: &str| row[key].as_array().unwrap().clone();
        let gold = row["gt"].as_str().unwrap();
        for (code, score) in texts("code").iter().zip(texts("score")) {
            n += 1;
            let verdict = grade_math(code.as_str().unwrap(), gold, ThoughtRule::Keep);
            if verdict.correct != score.as_bool().unwrap() {
                differ.push(format!(
                    "gold {gold}, found {:?}, they say {score}: {}",
                    verdict.extracted, verdict.reason
                ));
            }
        }
    }
    eprintln!("{} of {n} differ: {differ:#?}", differ.len());
    assert!(differ.len() * 100 <= n, "more than 1 % differ");
}

#[test]
fn math_verify_s_examples_are_read() {
    let Some(path) = shared("answer_equiv/math_verify_few_shot_answers.csv") else { return };
    let mut reader = csv::Reader::from_path(path).unwrap();
    let answers: Vec<String> = reader
        .records()
        .map(|record| {
            // Backslashes and line ends are written as in a program.
            let text =
                record.unwrap()[0].replace("\\\\", "\u{0}").replace("\\n", "\n").replace('\u{0}', "\\");
            extract(&text).map(|answer| answer.text.into_owned()).unwrap_or_default()
        })
        .collect();
    let expected = ["26", "3000", "25", "12.5", "[2,5)", "24", "16", "-\\frac{2}{3}"];
    for (answer, expected) in answers.iter().zip(expected) {
        assert!(equivalent(expected, answer).equal, "{answer} is not {expected}");
    }
    let path = shared("answer_equiv/math_verify_model_outputs.csv").unwrap();
    for record in csv::Reader::from_path(path).unwrap().records() {
        let record = record.unwrap();
        assert!(grade_math(&record[0], &record[1], ThoughtRule::Keep).correct, "{record:?}");
    }
}

/// Fragments that a hostile or broken answer is made of.
fn fragment() -> impl Strategy<Value = String> {
    let parts = [
        "\\frac",
        "\\sqrt",
        "{",
        "}",
        "(",
        ")",
        "[",
        "]",
        "\\{",
        "\\}",
        "^",
        "_",
        "9",
        "99",
        "x",
        "y",
        "e",
        "i",
        ",",
        "!",
        "+",
        "-",
        "*",
        "/",
        "\\pm",
        "\\cup",
        "\\setminus",
        "\\text{",
        "=",
        "<",
        "\\le",
        "|",
        "\\lfloor",
        "\\rfloor",
        "\\log_",
        "\\sin",
        "\\begin{pmatrix}",
        "\\end{pmatrix}",
        "&",
        "\\\\",
        "\\infty",
        "\\pi",
        "%",
        ".",
        " ",
        "\\binom",
        "\\boxed{",
        "$",
        "é",
        "1,000",
        "\\in",
        "\\left",
        "\\mathbb{R}",
        "\\circ",
        "'",
        "\\dot",
        "\\bar{",
        "\\frac{d",
        "d",
        "dx/dt",
        "f(",
        "f(x)",
        "t",
        "^{\\prime}",
        "\\partial",
        "np.",
        "./",
        "ABCD=",
    ];
    prop_oneof![
        8 => proptest::sample::select(parts.to_vec()).prop_map(str::to_owned),
        1 => any::<char>().prop_map(String::from),
        1 => (any::<u32>()).prop_map(|n| n.to_string()),
    ]
}

fn fragments() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => proptest::collection::vec(fragment(), 0..60).prop_map(|parts| parts.concat()),
        // The same thing again and again.
        1 => (proptest::collection::vec(fragment(), 1..4), 1..400_usize).prop_map(|(parts, n)| parts.concat().repeat(n)),
    ]
}

/// How long to search, and from where: `RLT_FUZZ_SECONDS=600 RLT_FUZZ_SEED=3 cargo test -p rlt-grade --test grading fuzz --
/// --nocapture`.
fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name)
        .map_or(default, |text| text.parse().unwrap_or_else(|e| panic!("{name}: {text:?}: {e}")))
}

#[test]
fn fuzz_finds_no_panic_and_no_slow_input() {
    let seconds = setting("RLT_FUZZ_SECONDS", 2);
    let deadline = Instant::now() + Duration::from_secs(seconds);
    let mut seed = [0; 32];
    seed[..8].copy_from_slice(&setting("RLT_FUZZ_SEED", 0).to_le_bytes());
    let mut runner =
        TestRunner::new_with_rng(ProptestConfig::default(), TestRng::from_seed(RngAlgorithm::ChaCha, &seed));
    let strategy = (fragments(), fragments());
    let (mut n, mut slowest) = (0_u64, (Duration::ZERO, String::new()));
    while Instant::now() < deadline {
        let (gold, answer): (String, String) = strategy.new_tree(&mut runner).unwrap().current();
        let timed = || {
            let started = Instant::now();
            let verdict = grade_math(&format!("\\boxed{{{answer}}}"), &gold, ThoughtRule::Keep);
            (started.elapsed(), verdict)
        };
        let (mut took, verdict) = timed();
        // A process that waits for its turn is slow, too: what counts is slow every time.
        for _ in 0..if took.as_millis() > 20 { 3 } else { 0 } {
            took = took.min(timed().0);
        }
        let _ = grade_math(&answer, &gold, ThoughtRule::Remove);
        let _ = grade_countdown(&answer, &[1, 2, 3], 6, ThoughtRule::Keep);
        assert!(!verdict.reason.is_empty());
        if took > slowest.0 {
            slowest = (took, format!("gold {gold:?}, answer {answer:?}"));
        }
        n += 1;
    }
    let (took, input) = slowest;
    eprintln!("{n} pairs, the slowest took {took:?}: {}", input.chars().take(300).collect::<String>());
    // A quick run among other tests only shows that nothing takes seconds.
    let limit = if seconds > 10 { 50 } else { 2000 };
    assert!(took.as_millis() < limit, "{input}");
}

proptest! {
    #[test]
    fn an_answer_equals_itself(answer in fragments()) {
        prop_assume!(answer.chars().any(char::is_alphanumeric) && !answer.contains('$') && !answer.ends_with('.'));
        prop_assert!(equivalent(&answer, &answer).equal);
    }

    #[test]
    fn equivalence_of_fractions_is_that_of_numbers(a in -50_i64..50, b in 1_i64..50, c in -50_i64..50, d in 1_i64..50) {
        let judgement = equivalent(&format!("\\frac{{{a}}}{{{b}}}"), &format!("{c}/{d}"));
        prop_assert_eq!(judgement.equal, a * d == c * b, "{}", judgement.reason);
    }

    #[test]
    fn a_product_written_out_equals_its_factors(a in -9_i64..9, b in -9_i64..9, k in 1_i64..9) {
        let expanded = format!("{k}x^2+({})x+({})", k * (a + b), k * a * b);
        let factors = format!("{k}(x+({a}))(x+({b}))");
        prop_assert!(equivalent(&factors, &expanded).equal);
        let off = format!("{expanded}+1");
        prop_assert!(!equivalent(&factors, &off).equal);
    }
}
