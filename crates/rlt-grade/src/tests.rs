use std::time::Instant;

use super::*;

#[test]
fn equal_answers_of_every_form() {
    for (gold, answer) in [
        ("\\frac{14}{3}", "14/3"),
        ("\\frac{14}{3}", "\\dfrac{14}{3}"),
        ("\\frac43", "\\frac{4}{3}"),
        ("\\frac{270}7\\text{ degrees}", "\\frac{270}{7}"),
        ("1\\frac{4}{5}", "1.8"),
        ("137 \\frac{1}{2}", "137.5"),
        ("10,\\!080", "10080"),
        ("11,\\! 111,\\! 111,\\! 100", "11111111100"),
        ("58,500", "58500"),
        ("\\$32,\\!348", "32348"),
        ("\\$18.90", "18.9"),
        ("50\\%", "0.5"),
        ("50\\%", "50"),
        ("90^\\circ", "90"),
        ("5.4 \\text{ cents}", "5.4"),
        ("15\\mbox{ cm}^2", "15 \\text{ cm}^2"),
        ("864 \\mbox{ inches}^2", "864"),
        ("x=5", "5"),
        ("5", "x = 5"),
        ("y = 2x + 3", "2x+3"),
        ("f(x)=2 x", "2x"),
        ("1,-2", "-2, 1"),
        ("1 \\pm \\sqrt{19}", "1-\\sqrt{19}, 1+\\sqrt{19}"),
        ("\\{1\\pm\\sqrt{5},-2\\}", "-2, 1+\\sqrt 5, 1 - \\sqrt 5"),
        ("x = 1 \\text{ or } x = 2", "\\{1, 2\\}"),
        ("(3,4]", "\\left(3, 4\\right]"),
        ("(-\\infty, 2) \\cup (3, \\infty)", "(3,\\infty)\\cup(-\\infty,2)"),
        ("(0,9) \\cup (9,36)", "(0,36) \\setminus \\{9\\}"),
        ("x \\in [-2,7]", "[-2,7]"),
        ("[-2,7]", "-2 \\le x \\le 7"),
        ("k \\geqslant 2", "2 \\le k"),
        ("x > 3", "(3, \\infty)"),
        (
            "\\begin{pmatrix} -1/3 \\\\ 2/3 \\end{pmatrix}",
            "\\begin{bmatrix}-\\frac13\\\\ \\frac23\\end{bmatrix}",
        ),
        ("5x - 7y + 11z + 4 = 0", "10x - 14y + 22z = -8"),
        ("\\text{Evelyn}", "Evelyn"),
        ("\\text{(C)}", "C"),
        ("\\text{east}", "\\text{East}"),
        ("52_8", "52_{8}"),
        ("6 - 5i", "-5i+6"),
        ("4\\times 3^{2010}-5\\times 2^{2010}+1", "1 - 5 \\cdot 2^{2010} + 4 \\cdot 3^{2010}"),
        ("\\sqrt{1+\\frac{\\sqrt{6}}{3}}", "\\sqrt{\\frac{3 + \\sqrt 6}{3}}"),
        ("\\pi - \\arctan \\frac{12}{5}", "\\pi - \\tan^{-1}(12/5)"),
        ("(-\\infty, 0) \\cup\\{1\\}.", "\\{1\\} \\cup (-\\infty, 0)"),
        ("\\left\\lfloor\\log _{2} n\\right\\rfloor+1", "1+\\lfloor \\log_2 n \\rfloor"),
        ("$(1,1), (3,2)$", "(3,2), (1,1)"),
        ("2\\sqrt{3}", "2\\sqrt{3} = \\sqrt{12}"),
        ("90", "\\angle BEA_1 = 90^{\\circ}"),
    ] {
        let judgement = equivalent(gold, answer);
        assert!(judgement.equal, "{gold} = {answer}: {}", judgement.reason);
    }
}

#[test]
fn different_answers_of_every_form() {
    for (gold, answer) in [
        ("\\frac{14}{3}", "\\frac{3}{14}"),
        ("0.5", "0.5\\%"),
        ("5", "6"),
        ("5.4 \\text{ cents}", "5.4 \\text{ dollars}"),
        ("15\\mbox{ cm}^2", "15\\text{ cm}"),
        ("x=5", "y=5"),
        ("1,-2", "1"),
        ("1", "1,-2"),
        ("(3,4]", "[3,4]"),
        ("(3,4]", "(4,3]"),
        ("(1,2,3)", "(1,3,2)"),
        ("(-\\infty, 2) \\cup (3, \\infty)", "(-\\infty, 2] \\cup (3, \\infty)"),
        ("x > 3", "x \\ge 3"),
        ("x > 3", "x < 3"),
        ("\\begin{pmatrix} 1 \\\\ 2 \\end{pmatrix}", "\\begin{pmatrix} 1 & 2 \\end{pmatrix}"),
        ("5x - 7y + 11z + 4 = 0", "5x - 7y + 11z - 4 = 0"),
        ("\\text{Evelyn}", "Eve"),
        ("\\text{(C)}", "\\text{(B)}"),
        ("52_8", "52_7"),
        ("6 - 5i", "6+5i"),
        ("2^{2020}", "2^{2019}"),
        ("2017^2", "2017"),
        ("\\frac{100!}{2^{50}}", "11\\sqrt2"),
        ("\\cot x", "\\frac{100!}{2^{50}}"),
        ("10^{12}\\sqrt{2}", "10^{12}\\sqrt{2}+1"),
        ("\\sqrt{51}", "7.14"),
        ("a-b", "a b"),
        ("AB", "ab"),
        ("2", ""),
        ("9", "Tom has9"),
    ] {
        let judgement = equivalent(gold, answer);
        assert!(!judgement.equal, "{gold} = {answer}: {}", judgement.reason);
    }
}

#[test]
fn a_solution_is_right_when_it_says_what_the_gold_solution_says() {
    let grade = |solution: &str, gold: &str| {
        let text = format!("t<|end_of_thought|><|begin_of_solution|>{solution}<|end_of_solution|>");
        grade_solution(&text, gold, &SolutionTags::default())
    };
    let right = grade("\n\nx = 4,\n  y = 5\n", "x = 4, y = 5");
    assert_eq!(
        (right.extracted.as_deref(), right.correct, right.formatted),
        (Some("x = 4, y = 5"), true, true)
    );
    for (solution, gold) in [
        ("4", "So it is \\boxed{4}."),
        ("Hence \\boxed{\\frac{1}{2}}", "0.5"),
        ("x=4", "x = 4"),
        ("4.", "4"),
        ("18", "9 * 2 = 18\n#### 18"),
    ] {
        assert!(grade(solution, gold).correct, "{solution:?} is {gold:?}");
    }
    for (solution, gold) in [("X", "x"), ("", "4"), ("Tom has 9.", "Tom has 8."), ("9", "Tom has 9.")] {
        let verdict = grade(solution, gold);
        assert!(verdict.formatted && !verdict.correct, "{solution:?} is not {gold:?}");
    }
    assert_eq!(grade_solution("4", "4", &SolutionTags::default()), Verdict::unformatted());
}

#[test]
fn completions_letters_and_expressions() {
    let verdict = grade_math("so \\boxed{\\dfrac{1}{2}}", "0.5", ThoughtRule::Keep);
    assert_eq!(
        (verdict.extracted.as_deref(), verdict.correct, verdict.formatted),
        (Some("\\dfrac{1}{2}"), true, true)
    );
    let wrong = grade_math("The answer is 3.", "4", ThoughtRule::Keep);
    assert_eq!(
        (wrong.correct, wrong.formatted, wrong.reason.as_str()),
        (false, false, "different: 3 is not 4")
    );
    assert!(!grade_math("no idea", "4", ThoughtRule::Keep).correct);
    assert!(grade_choice("I pick \\boxed{B}", "B", ThoughtRule::Keep).correct);
    assert!(!grade_choice("I pick \\boxed{A}", "B", ThoughtRule::Keep).correct);
    assert!(grade_countdown("<answer> 44 + 19 + 35 </answer>", &[44, 19, 35], 98, ThoughtRule::Keep).correct);
    assert!(!grade_countdown("98", &[44, 19, 35], 98, ThoughtRule::Keep).correct);
}

#[test]
fn hostile_input_takes_little_time() {
    let nested = |open: &str, close: &str| format!("{}1{}", open.repeat(20_000), close.repeat(20_000));
    let texts = [
        nested("{", "}"),
        nested("(", ")"),
        nested("\\frac{1}{", "}"),
        nested("\\sqrt{", "}")[..30_000].to_owned(),
        "\\boxed{".repeat(20_000),
        "9^9^9^9".into(),
        "9^{9^{9^9}}".into(),
        "1000!!!!!".into(),
        "99^99^99!".into(),
        "(x+1)^{999999999}".into(),
        format!("{}1", "1+".repeat(250)),
        format!("{}x", "x^".repeat(60)),
        format!("({})", vec!["\\frac{1}{x^9+1}"; 40].join("+")),
        vec!["\\pm \\sqrt{x+7^{99}}"; 60].join(","),
        vec!["\\frac{123456789123456789}{987654321x}"; 40].join("*"),
        format!("\\left|{}\\right|", "|".repeat(3000)),
        "$".repeat(20_000),
        "-".repeat(4000),
        "\u{202e}\u{0}é√²".repeat(100),
        "answer is ".repeat(10_000),
    ];
    for text in &texts {
        for other in [text.as_str(), "5", "x+1"] {
            let started = Instant::now();
            let _ = grade_math(&format!("\\boxed{{{text}}}"), other, ThoughtRule::Keep);
            let _ = grade_math(text, other, ThoughtRule::Remove);
            let _ = grade_math(other, text, ThoughtRule::Remove);
            let head: String = text.chars().take(30).collect();
            // Far above what it takes, so that a busy machine does not fail; what must not happen is seconds.
            assert!(started.elapsed().as_millis() < 2000, "{head}: {:?}", started.elapsed());
        }
    }
}
