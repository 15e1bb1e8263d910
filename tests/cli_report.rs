//! `rlt report` as a program.

use assert_cmd::Command;

#[test]
fn a_run_with_metrics_gets_a_report_and_its_path_is_the_answer() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("run");
    std::fs::create_dir(&run).unwrap();
    std::fs::write(
        run.join("metrics.jsonl"),
        "{\"step\":1,\"wall_s\":0.5,\"loss\":2.5}\n{\"step\":2,\"wall_s\":1.0,\"loss\":2.25}\n",
    )
    .unwrap();
    let rlt = || Command::new(assert_cmd::cargo::cargo_bin!("rlt"));
    rlt()
        .current_dir(dir.path())
        .args(["report", "run"])
        .assert()
        .success()
        .stdout("run/report.html\n")
        .stderr("");
    let html = std::fs::read_to_string(run.join("report.html")).unwrap();
    assert!(html.contains("<svg"), "the loss is drawn");

    rlt()
        .current_dir(dir.path())
        .args(["report", "run", "--json"])
        .assert()
        .success()
        .stdout("{\"report\":\"run/report.html\"}\n");

    std::fs::create_dir(dir.path().join("other")).unwrap();
    std::fs::copy(run.join("metrics.jsonl"), dir.path().join("other/metrics.jsonl")).unwrap();
    rlt()
        .current_dir(dir.path())
        .args(["report", "run", "other"])
        .assert()
        .success()
        .stdout("comparison.html\n");
    let html = std::fs::read_to_string(dir.path().join("comparison.html")).unwrap();
    assert!(html.contains("2 runs") && html.contains("<svg"));
    rlt().current_dir(dir.path()).args(["report", "run", "--out", "page.html"]).assert().code(2);
}
