//! The `numbers` world: Countdown with two or three small numbers.
//!
//! > We have 3, 7 and 8: the answer is 80. How?
//!
//! The solution is an expression that uses every number once, `(3 + 7) x 8 = 80.`; any such expression is
//! right. The words are those of the `market` world, so one tokenizer serves both and a model can learn both.

pub mod dataset;
pub mod explanation;

use std::fmt;

use super::story::Side;
use rlt_grade::{Judgement, judge_countdown};
use rlt_method::random::{Stream, hash_bytes};

/// Smallest number given.
pub const MIN_NUMBER: u32 = 2;
/// Largest number given.
pub const MAX_NUMBER: u32 = 9;
/// Targets and everything on the way are below this.
const LIMIT: u32 = 100;
/// Smallest target: smaller ones are often one of the numbers.
const MIN_TARGET: u32 = 10;

/// One line of a solution: two numbers become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CountdownStep {
    /// Left operand.
    pub left: u32,
    /// `+`, `-`, `x` or `/`.
    pub sign: char,
    /// Right operand.
    pub right: u32,
    /// What they make.
    pub result: u32,
}

impl CountdownStep {
    /// `left sign right`, or `None` where that leaves the whole numbers from 1 to 99 or changes nothing.
    pub fn new(left: u32, sign: char, right: u32) -> Option<Self> {
        let result = match sign {
            '+' => left + right,
            '-' => left.checked_sub(right)?,
            'x' if left > 1 && right > 1 => left * right,
            '/' if right > 1 && left.is_multiple_of(right) => left / right,
            _ => return None,
        };
        (1..LIMIT).contains(&result).then_some(Self { left, sign, right, result })
    }

    /// Reads what [`fmt::Display`] writes, whether or not the equation holds.
    pub fn parse(line: &str) -> Option<Self> {
        let parts: Vec<&str> = line.strip_suffix('.')?.split(' ').collect();
        let [left, sign, right, "=", result] = parts[..] else { return None };
        let sign = sign.chars().next().filter(|c| sign.len() == 1 && "+-x/".contains(*c))?;
        let number = |text: &str| text.parse().ok();
        Some(Self { left: number(left)?, sign, right: number(right)?, result: number(result)? })
    }

    /// Whether the equation holds.
    pub fn holds(self) -> bool {
        Self::new(self.left, self.sign, self.right).is_some_and(|step| step.result == self.result)
    }
}

impl fmt::Display for CountdownStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {} = {}.", self.left, self.sign, self.right, self.result)
    }
}

/// Numbers and a target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// In the order in which they are listed.
    pub numbers: Vec<u32>,
    /// What they shall make.
    pub target: u32,
}

/// A problem with one way to solve it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SolvedProblem {
    /// The problem.
    pub problem: Problem,
    /// One step less than there are numbers.
    pub steps: Vec<CountdownStep>,
    /// The same as one expression.
    pub expression: String,
}

impl Problem {
    /// The side this problem belongs to: a hash of the sorted numbers and the target, so that neither the order
    /// of the numbers nor another solution brings a held-out problem into training.
    pub fn side(&self) -> Side {
        let mut sorted = self.numbers.clone();
        sorted.sort_unstable();
        let canonical = format!("{sorted:?}={}", self.target);
        if hash_bytes(canonical.as_bytes()).is_multiple_of(5) { Side::HeldOut } else { Side::Train }
    }

    /// The question.
    pub fn question(&self) -> String {
        let numbers: Vec<String> = self.numbers.iter().map(u32::to_string).collect();
        let (last, others) = numbers.split_last().expect("there are numbers");
        format!("We have {} and {last}: the answer is {}. How?", others.join(", "), self.target)
    }

    /// Reads what [`Self::question`] writes; `None` for any other text.
    pub fn parse(question: &str) -> Option<Self> {
        let rest = question.strip_prefix("We have ")?;
        let (list, rest) = rest.split_once(": the answer is ")?;
        let target = rest.strip_suffix(". How?")?.parse().ok()?;
        let numbers: Option<Vec<u32>> =
            list.replace(" and ", ", ").split(", ").map(|number| number.parse().ok()).collect();
        let problem = Self { numbers: numbers?, target };
        (problem.numbers.len() >= 2 && problem.question() == question).then_some(problem)
    }

    /// Whether `text` is an expression that makes the target from each number once, with or without the target
    /// behind an equals sign and a full stop.
    pub fn judge(&self, text: &str) -> Judgement {
        let numbers: Vec<i64> = self.numbers.iter().map(|&number| number.into()).collect();
        judge_countdown(&plain_expression(text), &numbers, self.target.into())
    }
}

/// The world writes `x` and closes a line with a full stop; graders read `*` and no full stop.
fn plain_expression(text: &str) -> String {
    text.trim().trim_end_matches('.').replace('x', "*")
}

impl SolvedProblem {
    /// A random problem of `n_numbers` (at least 2) on the given side.
    pub fn sample(n_numbers: usize, side: Side, stream: &mut Stream) -> Self {
        loop {
            if let Some(solved) = Self::attempt(n_numbers, stream).filter(|s| s.problem.side() == side) {
                return solved;
            }
        }
    }

    /// Combines random numbers at random; `None` when it comes to nothing.
    fn attempt(n_numbers: usize, stream: &mut Stream) -> Option<Self> {
        let range = (MAX_NUMBER - MIN_NUMBER + 1) as usize;
        let numbers: Vec<u32> = (0..n_numbers).map(|_| MIN_NUMBER + stream.below(range) as u32).collect();
        // Each value with its text; a text of several numbers stands in brackets inside another.
        let mut pool: Vec<(u32, String)> =
            numbers.iter().map(|&number| (number, number.to_string())).collect();
        let mut steps = Vec::with_capacity(n_numbers - 1);
        while pool.len() > 1 {
            let (left, left_text) = pool.swap_remove(stream.below(pool.len()));
            let (right, right_text) = pool.swap_remove(stream.below(pool.len()));
            let step = CountdownStep::new(left, *stream.pick(&['+', '-', 'x', '/']), right)?;
            steps.push(step);
            let text = format!("{left_text} {} {right_text}", step.sign);
            pool.push((step.result, if pool.is_empty() { text } else { format!("({text})") }));
        }
        let (target, expression) = pool.pop()?;
        let problem = Problem { numbers, target };
        // With three numbers and more the plain sum would be the best guess by far.
        let is_sum = problem.numbers.len() > 2 && target == problem.numbers.iter().sum::<u32>();
        (target >= MIN_TARGET && !is_sum).then_some(Self { problem, steps, expression })
    }

    /// A sum as it comes up on the way to a target: one of the two numbers is small, the other anything below 100.
    pub fn sum(stream: &mut Stream) -> Self {
        loop {
            let small = MIN_NUMBER + stream.below((MAX_NUMBER - MIN_NUMBER + 1) as usize) as u32;
            let other = 1 + stream.below(LIMIT as usize - 1) as u32;
            let mut numbers = vec![small, other];
            stream.shuffle(&mut numbers);
            let (left, right) = if stream.below(2) == 0 { (small, other) } else { (other, small) };
            let Some(step) = CountdownStep::new(left, *stream.pick(&['+', '-', 'x', '/']), right) else {
                continue;
            };
            let expression = format!("{left} {} {right}", step.sign);
            let solved =
                Self { problem: Problem { numbers, target: step.result }, steps: vec![step], expression };
            if solved.problem.side() == Side::Train {
                return solved;
            }
        }
    }

    /// The solution: the expression and what it makes.
    pub fn solution(&self) -> String {
        format!("{} = {}.", self.expression, self.problem.target)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};

    use rlt_grade::{SolutionTags, grade_expression};

    use super::*;

    fn problems(n: u64, n_numbers: usize, side: Side) -> Vec<SolvedProblem> {
        (0..n).map(|i| SolvedProblem::sample(n_numbers, side, &mut Stream::new(9, "problems", i))).collect()
    }

    #[test]
    fn questions_read_as_english_and_are_read_back() {
        let problem = Problem { numbers: vec![3, 7, 8], target: 80 };
        assert_eq!(problem.question(), "We have 3, 7 and 8: the answer is 80. How?");
        for n_numbers in 2..=4 {
            for solved in problems(200, n_numbers, Side::Train) {
                assert_eq!(Problem::parse(&solved.problem.question()), Some(solved.problem));
            }
        }
        for text in ["", "We have 3: the answer is 3. How?", "We have 3, 7 and 8: the answer is x. How?"] {
            assert_eq!(Problem::parse(text), None, "{text}");
        }
    }

    #[test]
    fn every_solution_is_right_by_the_independent_grader() {
        let tags = SolutionTags::default();
        for n_numbers in 2..=4 {
            for solved in problems(300, n_numbers, Side::HeldOut) {
                let solution = solved.solution();
                assert!(solved.problem.judge(&solution).equal, "{solution}");
                let text = |answer: &str| {
                    format!("t<|end_of_thought|><|begin_of_solution|>{answer}<|end_of_solution|>")
                };
                assert!(grade_expression(&text(&solution), &solution, &tags).correct, "{solution}");
                assert!(!grade_expression(&text("2 + 2 = 4."), &solution, &tags).correct);
                assert_eq!(solved.steps.last().map(|step| step.result), Some(solved.problem.target));
                assert!(solved.steps.iter().all(|step| step.holds()));
            }
        }
    }

    #[test]
    fn another_right_expression_is_right_and_a_number_used_twice_is_not() {
        let problem = Problem { numbers: vec![3, 7, 8], target: 80 };
        assert!(problem.judge("8 x (7 + 3) = 80.").equal);
        assert!(problem.judge("(3 + 7) x 8").equal);
        assert!(!problem.judge("(3 + 7) x 8 = 81.").equal);
        assert!(!problem.judge("8 x 8 + 8 + 8 = 80.").equal);
    }

    #[test]
    fn train_and_held_out_problems_are_disjoint_in_any_order() {
        let key = |solved: &SolvedProblem| {
            let mut numbers = solved.problem.numbers.clone();
            numbers.sort_unstable();
            (numbers, solved.problem.target)
        };
        for (n_numbers, at_least) in [(2, 5), (3, 150), (4, 400)] {
            let keys = |side| -> HashSet<_> { problems(3000, n_numbers, side).iter().map(key).collect() };
            let (train, held_out) = (keys(Side::Train), keys(Side::HeldOut));
            assert!(train.is_disjoint(&held_out));
            assert!(held_out.len() > at_least, "{n_numbers}: {}", held_out.len());
        }
    }

    #[test]
    fn the_best_way_to_combine_blindly_is_rarely_right() {
        // A student that always combines the numbers in their order with the same two signs.
        let mut hits: HashMap<(char, char), usize> = HashMap::new();
        let n = 4000;
        for solved in problems(n, 3, Side::HeldOut) {
            let numbers = &solved.problem.numbers;
            for first in "+-x/".chars() {
                for second in "+-x/".chars() {
                    let made = CountdownStep::new(numbers[0], first, numbers[1])
                        .and_then(|step| CountdownStep::new(step.result, second, numbers[2]));
                    let right = made.is_some_and(|step| step.result == solved.problem.target);
                    *hits.entry((first, second)).or_default() += usize::from(right);
                }
            }
        }
        let best = hits.values().max().copied().unwrap_or(0) as f64 / n as f64;
        assert!(best < 0.2, "one pair of signs is right for a share of {best}");
    }
}
