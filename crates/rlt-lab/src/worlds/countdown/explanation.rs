//! Explanations of a Countdown solution, of every quality, and the judge that tells them apart.
//!
//! A complete explanation has one line per step, separated by blank lines:
//!
//! ```text
//! 3 + 7 = 10.
//!
//! 10 x 8 = 80.
//! ```

use super::super::explanation::{ExplanationKind, LINE_BREAK, Read, with_remarks, without_some};
use super::{CountdownStep, Problem, SolvedProblem};
use rlt_method::random::Stream;

/// An explanation of `kind`. With one step there is none to skip: `Skipping` gives the full explanation.
pub fn write(kind: ExplanationKind, solved: &SolvedProblem, stream: &mut Stream) -> String {
    let steps = || solved.steps.iter().map(CountdownStep::to_string).collect::<Vec<_>>();
    let lines = match kind {
        ExplanationKind::Full => steps(),
        ExplanationKind::Skipping => without_some(steps(), stream),
        ExplanationKind::Wrong => with_a_slip(solved, stream),
        ExplanationKind::Restatement => {
            let mut lines = vec![solved.solution(), answer_line(&solved.problem)];
            stream.shuffle(&mut lines);
            // With two numbers the solution is itself the one step.
            if solved.steps.len() == 1 {
                vec![answer_line(&solved.problem)]
            } else {
                lines.truncate(1 + stream.below(2));
                lines
            }
        }
        ExplanationKind::Rambling => with_remarks(steps(), remarks(), stream),
        ExplanationKind::Other => with_remarks(Vec::new(), remarks(), stream),
    };
    lines.join(LINE_BREAK)
}

fn answer_line(problem: &Problem) -> String {
    format!("The answer is {}.", problem.target)
}

/// Lines that say nothing about the steps.
fn remarks() -> Vec<String> {
    ["Let us look at the story again.", "That was the easy part.", "We are getting near the end."]
        .map(str::to_owned)
        .to_vec()
}

/// The steps with a wrong result in one of them, which the later steps carry on as far as they use it.
fn with_a_slip(solved: &SolvedProblem, stream: &mut Stream) -> Vec<String> {
    let at = stream.below(solved.steps.len());
    let slip = 1 + stream.below(9) as u32;
    let mut steps = solved.steps.clone();
    let right = steps[at].result;
    let wrong = if stream.below(2) == 0 && right > slip { right - slip } else { right + slip };
    steps[at].result = wrong;
    let later = steps[at + 1..].iter_mut().find(|step| step.left == right || step.right == right);
    if let Some(step) = later {
        let operand = if step.left == right { &mut step.left } else { &mut step.right };
        *operand = wrong;
        if let Some(made) = CountdownStep::new(step.left, step.sign, step.right) {
            *step = made;
        }
    }
    steps.iter().map(CountdownStep::to_string).collect()
}

/// The kind of `explanation` for `problem`. Surrounding white space does not count. Any right way to the target is
/// full; right equations that are fewer than the way needs are skipping.
pub fn classify(problem: &Problem, explanation: &str) -> ExplanationKind {
    let n_needed = problem.numbers.len() - 1;
    let mut pool = problem.numbers.clone();
    let (mut n_steps, mut n_remarks) = (0, 0);
    let (mut restated_early, mut wrong, mut jumped) = (false, false, false);
    let remarks = remarks();
    for line in explanation.trim().split(LINE_BREAK) {
        if let Some(step) = CountdownStep::parse(line) {
            n_steps += 1;
            wrong |= !step.holds();
            jumped |= !take(&mut pool, step);
        } else if line == answer_line(problem) || problem.judge(line).equal {
            restated_early |= n_steps < n_needed;
        } else if remarks.iter().any(|known| known == line) {
            n_remarks += 1;
        } else {
            return ExplanationKind::Other;
        }
    }
    match (Read { wrong, restated_early, n_steps, n_remarks }).kind(n_needed) {
        ExplanationKind::Full | ExplanationKind::Rambling if jumped || pool != [problem.target] => {
            ExplanationKind::Wrong
        }
        kind => kind,
    }
}

/// Share of the needed steps, 0 to 1, that `explanation` takes rightly from what is at hand.
pub fn right_steps(problem: &Problem, explanation: &str) -> f64 {
    let mut pool = problem.numbers.clone();
    let steps = explanation.trim().split(LINE_BREAK).filter_map(CountdownStep::parse);
    let n_right = steps.filter(|&step| step.holds() && take(&mut pool, step)).count();
    n_right as f64 / (problem.numbers.len() - 1) as f64
}

/// Puts a step's result in the place of its operands; false when they are not there.
fn take(pool: &mut Vec<u32>, step: CountdownStep) -> bool {
    let mut rest = pool.clone();
    for operand in [step.left, step.right] {
        let Some(at) = rest.iter().position(|&number| number == operand) else { return false };
        rest.swap_remove(at);
    }
    rest.push(step.result);
    *pool = rest;
    true
}

#[cfg(test)]
mod tests {
    use super::super::super::story::Side;
    use super::*;

    #[test]
    fn classify_inverts_write() {
        for i in 0..3000 {
            let mut stream = Stream::new(4, "classify", i);
            let solved = SolvedProblem::sample(2 + stream.below(3), Side::Train, &mut stream);
            for kind in ExplanationKind::ALL {
                let text = write(kind, &solved, &mut stream);
                let expected = if kind == ExplanationKind::Skipping && solved.steps.len() == 1 {
                    ExplanationKind::Full
                } else {
                    kind
                };
                let question = solved.problem.question();
                assert_eq!(classify(&solved.problem, &text), expected, "{question}\n{text}");
            }
        }
    }

    #[test]
    fn texts_by_hand() {
        let problem = Problem { numbers: vec![3, 7, 8], target: 80 };
        let kind = |text: &str| classify(&problem, text);
        assert_eq!(kind("7 + 3 = 10.\n\n8 x 10 = 80."), ExplanationKind::Full);
        assert_eq!(kind("10 x 8 = 80."), ExplanationKind::Skipping);
        assert_eq!(kind("3 + 7 = 11.\n\n11 x 8 = 88."), ExplanationKind::Wrong);
        assert_eq!(kind("3 + 8 = 11.\n\n11 + 7 = 18."), ExplanationKind::Wrong);
        assert_eq!(kind("(3 + 7) x 8 = 80."), ExplanationKind::Restatement);
        assert_eq!(kind("3 + 7 = 10.\n\nThat was the easy part.\n\n10 x 8 = 80."), ExplanationKind::Rambling);
        assert_eq!(kind("Because."), ExplanationKind::Other);
        assert_eq!(right_steps(&problem, "3 + 7 = 10.\n\n10 x 8 = 81."), 0.5);
        assert_eq!(right_steps(&problem, "10 x 8 = 80."), 0.0);
    }
}
