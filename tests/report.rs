//! Reports of made-up run directories: what they contain, what they escape, that they stand alone.
//!
//! `made_up` writes the runs. They stay under `target/tmp/report-*/`, so that a changed page can
//! be looked at: `cargo test --test report`, then open the `report.html` there.

mod made_up;

use std::fs;
use std::path::{Path, PathBuf};

use rlt::report::{write_comparison, write_report};

/// An empty run directory that outlives the test.
fn run_dir(name: &str) -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("report-{name}"));
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir_all(&dir).unwrap();
    dir
}

fn report_of(dir: &Path) -> String {
    let path = write_report(dir).unwrap();
    assert_eq!(path, dir.join("report.html"));
    let html = fs::read_to_string(path).unwrap();
    let elements = without_program(&html);
    assert_stands_alone(&elements);
    assert_balanced(&elements);
    html
}

/// The page of a run that goes on has one program, its own, which keeps the reader's place and asks nobody for anything.
fn without_program(html: &str) -> String {
    let Some((before, rest)) = html.split_once("\n<script>") else { return html.into() };
    let (program, after) = rest.split_once("</script>").unwrap();
    assert!(!["http", "src", "fetch", "import"].iter().any(|word| program.contains(word)), "{program}");
    format!("{before}{after}")
}

/// Nothing is fetched and nothing runs: no element that loads, no attribute or style that does.
fn assert_stands_alone(html: &str) {
    let (style, body) = html.split_once("</style>").unwrap();
    for loads in ["@import", "url(", "<link", "<script"] {
        assert!(!style.contains(loads), "the style contains `{loads}`");
    }
    for tag in body.split('<').skip(1).filter_map(|part| part.split('>').next()) {
        let name = tag.trim_start_matches('/').split(' ').next().unwrap();
        assert!(
            !["script", "link", "img", "iframe", "object", "embed", "base", "form"].contains(&name),
            "{tag}"
        );
        // Attribute names are what is left without the quoted values.
        let names: String = tag.split('"').step_by(2).collect();
        for loads in ["src=", "href=", " on", "srcdoc="] {
            assert!(!names.contains(loads), "`{loads}` in <{tag}>");
        }
    }
}

/// Every tag is closed in its order, attributes are quoted, and no bare `&` is left: a browser has
/// nothing to repair, and each SVG is well-formed XML.
fn assert_balanced(html: &str) {
    const VOID: [&str; 2] = ["meta", "!doctype"];
    let mut open: Vec<&str> = Vec::new();
    let mut rest = html;
    while let Some(at) = rest.find('<') {
        let (text, tag) = (&rest[..at], &rest[at + 1..]);
        if open.last() != Some(&"style") {
            assert!(!text.contains('>'), "bare `>` in {text:?}");
            for entity in text.split('&').skip(1) {
                let end = entity.find(';').unwrap_or_else(|| panic!("bare `&` in {text:?}"));
                assert!(entity[..end].chars().all(|c| c.is_alphanumeric() || c == '#'), "{text:?}");
            }
        }
        let end = tag.find('>').expect("a tag ends");
        let tag_text = &tag[..end];
        assert_eq!(tag_text.matches('"').count() % 2, 0, "{tag_text}");
        let name = tag_text.trim_start_matches('/').split([' ', '/']).next().unwrap();
        if tag_text.starts_with('/') {
            assert_eq!(open.pop(), Some(name), "closing tag out of order");
        } else if !tag_text.ends_with('/') && !VOID.contains(&name) {
            open.push(name);
        }
        rest = &tag[end + 1..];
    }
    assert!(open.is_empty(), "left open: {open:?}");
}

/// The text between tags, as a reader sees it, with one plain space for any white space.
fn visible_text(html: &str) -> String {
    let body = html.split_once("</style>").unwrap().1;
    let text: Vec<&str> = body.split('<').filter_map(|part| Some(part.split_once('>')?.1)).collect();
    text.join(" ").split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn the_demo_shows_students_curves_and_explanations_side_by_side() {
    let dir = run_dir("demo");
    made_up::demo(&dir);
    let html = report_of(&dir);
    let text = visible_text(&html);

    for expected in [
        "reinforcement-learned teacher",
        "Student of the RLT-trained teacher",
        "33 % → 84 %",
        "81 % to 86.8 %",
        "Explanations, side by side",
        "Before RL reward",
        "Solution, as the student then sees it",
        "Where the time went",
        "mean log-probability of the solution",
    ] {
        assert!(text.contains(expected), "missing: {expected}");
    }
    assert_eq!(html.matches(r#"<article class="pair">"#).count(), 4);
    assert_eq!(html.matches("<svg").count(), 11, "a curve for every metric of an RLT run");
    // Four pairs, two sides, each with its largest D and its least likely solution token.
    assert_eq!(html.matches(r#"data-label="max D "#).count(), 8);
    assert_eq!(html.matches(r#"data-label="min "#).count(), 8);
}

/// While the run goes on the page is loaded again and again, by itself; when it is over, not any more.
#[test]
fn the_page_of_a_run_that_goes_on_reloads_itself() {
    let dir = run_dir("alive");
    made_up::rlt_training(&dir);
    let alive = report_of(&dir);
    assert!(alive.contains(r#"<meta http-equiv="refresh" content="20">"#), "{}", &alive[..600]);
    assert!(
        visible_text(&alive)
            .contains("The run is not finished: this page refreshes itself every 20 seconds.")
    );
    // It keeps what its reader has opened, and where; a page that stays has no program in it.
    assert!(alive.contains("sessionStorage.setItem(") && alive.contains("<details>"));
    fs::create_dir(dir.join("model")).unwrap();
    let ended = report_of(&dir);
    assert!(!ended.contains("<script"));
    assert!(!ended.contains("http-equiv") && !visible_text(&ended).contains("not finished"));
    // Neither does the page of a demo, or of an evaluation alone.
    let dir = run_dir("alive-demo");
    made_up::demo(&dir);
    assert!(!report_of(&dir).contains("http-equiv"));
}

#[test]
fn the_parts_of_a_sample_add_up_on_the_page() {
    let dir = run_dir("parts");
    made_up::demo(&dir);
    let html = report_of(&dir);
    let number = |cell: &str| cell.replace('\u{2212}', "-").parse::<f64>().unwrap();
    let table = html.split("<tbody>").nth(1).unwrap().split("</table>").next().unwrap();
    let cells: Vec<f64> = table
        .split("<tr>")
        .filter_map(|row| row.split("<td>").nth(3)?.split("</td>").next().map(number))
        .collect();
    let (reward, parts) = cells.split_last().unwrap();
    let sum: f64 = parts.iter().sum();
    assert!(parts.len() >= 4 && (sum - reward).abs() < 0.03, "{parts:?} should make {reward}");
}

#[test]
fn a_training_run_compares_its_first_and_last_step() {
    let dir = run_dir("train");
    made_up::rlt_training(&dir);
    let text = visible_text(&report_of(&dir));
    for expected in [
        "Teacher training · RLT reward",
        "Step 1 reward",
        "Step 40 reward",
        "tale-teller",
        "seed 7",
        "Reward forensics",
        "No sign that the reward is gamed: solution overlap",
        "steps 1 to 20 steps 21 to 40 mean log-probability",
        "Think token with the largest D",
    ] {
        assert!(text.contains(expected), "missing: {expected}");
    }
}

#[test]
fn fine_tuning_opens_with_the_loss() {
    let dir = run_dir("sft");
    made_up::sft(&dir);
    let html = report_of(&dir);
    let text = visible_text(&html);
    assert!(text.contains("Supervised fine-tuning") && text.contains("negative log-probability"));
    assert!(!text.contains("How an explanation is scored"), "there is no reward in a fine-tuning run");
    assert!(!text.contains("Reward forensics"));
    assert_eq!(html.matches("<svg").count(), 3);
}

#[test]
fn a_correctness_run_shows_its_completions() {
    let dir = run_dir("correctness");
    made_up::correctness(&dir);
    let text = visible_text(&report_of(&dir));
    assert!(text.contains("GRPO · correctness reward") && text.contains("Completions, side by side"));
    assert!(!text.contains("How an explanation is scored"));
    assert!(text.contains("cut off at the length limit") && text.contains("Cannot be scored: empty thought"));
}

#[test]
fn evaluations_alone_make_a_report() {
    let dir = run_dir("eval");
    made_up::evaluations(&dir);
    let text = visible_text(&report_of(&dir));
    assert!(text.contains("register machines, held-out") && text.contains("500 questions × 4"), "{text}");
}

#[test]
fn hostile_text_stays_text() {
    let dir = run_dir("hostile");
    made_up::hostile(&dir);
    let html = report_of(&dir);
    for harm in ["<img", "<script", "</script", "<b>bold", "\" onmouseover", "\u{202e}"] {
        assert!(!html.contains(harm), "{harm:?} came through");
    }
    assert!(html.matches("&lt;img src=x onerror=alert(1)&gt;&quot;").count() > 10, "shown as it is");
    assert!(html.contains("{{ 7*7 }}") && html.contains("&amp;amp;"), "{html}");
}

#[test]
fn an_empty_folder_and_damaged_files_are_clear_errors() {
    let dir = run_dir("wrong");
    let message = |dir: &Path| write_report(dir).unwrap_err().to_string();
    assert!(message(&dir).contains("nothing to report yet"));
    assert!(message(&dir.join("absent")).contains("no such run directory"));
    fs::write(dir.join("metrics.jsonl"), "{\"step\":1,\"loss\":1}\nnot json\n").unwrap();
    assert!(message(&dir).contains("metrics.jsonl, row 2"));
    fs::write(dir.join("metrics.jsonl"), "{\"step\":1,\"loss\":1}\n").unwrap();
    fs::write(dir.join("eval.json"), "{\"accuracy\": \"high\"}").unwrap();
    assert!(message(&dir).contains("eval.json: cannot be read"));
    fs::remove_file(dir.join("eval.json")).unwrap();
    fs::write(dir.join("config.toml"), "sed = 1").unwrap();
    assert!(message(&dir).contains("config.toml: not a configuration"));
    assert!(!dir.join("report.html").exists(), "nothing half-written");
}

#[test]
fn a_run_that_is_still_going_can_be_reported() {
    let dir = run_dir("going");
    fs::write(dir.join("metrics.jsonl"), "{\"step\":1,\"loss\":1.5}\n{\"step\":2,\"lo").unwrap();
    let html = report_of(&dir);
    assert!(visible_text(&html).contains("1 steps"));
}

#[test]
fn runs_are_compared_on_one_page() {
    let [a, b] = ["compared-a", "compared-b"].map(run_dir);
    made_up::rlt_training(&a);
    made_up::rlt_training(&b);
    fs::write(b.join("config.toml"), "name = \"other\"\nseed = 8\n\n[grpo]\nsteps = 40\n").unwrap();
    let out = a.join("comparison.html");
    write_comparison(&[&a, &b], &out).unwrap();
    let html = fs::read_to_string(out).unwrap();
    assert_stands_alone(&html);
    assert_balanced(&html);
    let text = visible_text(&html);
    for words in ["2 runs", "Settings that differ", "seed", "model.student", "Reward", "Gradient norm"] {
        assert!(text.contains(words), "{words}");
    }
    // What is the same in both is not listed, nor are their names.
    assert!(!text.contains("grpo.steps") && !text.contains("tale-teller"));
    for run in ["line run-0", "line run-1"] {
        assert!(html.matches(run).count() > 5, "{run}");
    }
    let message = write_comparison(&[a.as_path(); 9], &b.join("x.html")).unwrap_err().to_string();
    assert!(message.contains("at most 8") && !b.join("x.html").exists(), "{message}");
}
