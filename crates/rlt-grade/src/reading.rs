//! Two answers as trees, read in the same way.
//!
//! `f(2)` may be a function's value or a product. A name that the gold answer writes before one number or symbol in
//! brackets is a function in both answers, and so is one that the gold answer does not know as a factor. Before a sum
//! a name is a factor, unless it is a function elsewhere: `k(x+1)`.

use super::derivative::{derived, in_one_notation, is_derivative};
use super::expression::Expr;
use super::parse::{Functions, parse};
use super::token::Comma;

/// The gold answer and the answer; `None` for what is not understood.
pub(super) fn read(gold: &str, answer: &str, comma: Comma) -> (Option<Expr>, Option<Expr>) {
    let by_arguments = |text: &str| parse(text, comma, Functions::ByTheirArguments);
    let (first, second) = (by_arguments(gold), by_arguments(answer));
    let applied = [&first, &second].map(|tree| tree.as_ref().map(functions).unwrap_or_default());
    let (first, second) = if applied.iter().all(Vec::is_empty) {
        (first, second)
    } else {
        let [of_gold, of_answer] = applied;
        let differential =
            [&first, &second].iter().all(|tree| tree.as_ref().is_some_and(differential_equation));
        // What the gold answer writes before a bracket could be a function there, too.
        let factors = match (&first, parse(gold, comma, Functions::Every)) {
            (Some(first), Some(every)) if !differential => {
                let functions = functions(&every);
                let factor = |name: &&str| !functions.iter().any(|function| function == name);
                first.variables().into_iter().filter(factor).map(str::to_owned).collect()
            }
            _ => Vec::new(),
        };
        let of_answer: Vec<String> = of_answer.into_iter().filter(|name| !factors.contains(name)).collect();
        let names = [of_gold, of_answer].concat();
        let read = |text: &str| parse(text, comma, Functions::Named(&names));
        match (read(gold), read(answer)) {
            (Some(gold), Some(answer)) if differential => without_arguments(gold, answer, &names),
            both => both,
        }
    };
    match (first, second) {
        (Some(first), Some(second)) => {
            let (first, second) = in_one_notation(&first, &second).unwrap_or((first, second));
            (Some(first), Some(second))
        }
        both => both,
    }
}

/// The names that are applied to something in it.
fn functions(tree: &Expr) -> Vec<String> {
    let applied = |name: &&str| name.ends_with("()") && !name.starts_with('\'');
    tree.variables().into_iter().filter(applied).map(|name| name.trim_end_matches("()").to_owned()).collect()
}

fn differential_equation(tree: &Expr) -> bool {
    matches!(tree, Expr::Statement(..)) && tree.variables().into_iter().any(is_derivative)
}

/// Two differential equations in which `x` stands for `x(t)`, as it does where all functions have the same argument.
fn without_arguments(gold: Expr, answer: Expr, functions: &[String]) -> (Option<Expr>, Option<Expr>) {
    let mut arguments = Vec::new();
    for tree in [&gold, &answer] {
        tree.visit(&mut |part| {
            if let Expr::Applied { of, .. } = part
                && let [Expr::Variable(name)] = of.as_slice()
                && !arguments.contains(name)
            {
                arguments.push(name.clone());
            }
        });
    }
    // `f(y)` in an equation for y depends on more than f.
    let derived = |name: &String| {
        let names = [gold.variables(), answer.variables()].concat();
        names.into_iter().any(|other| is_derivative(other) && derived(other) == name)
    };
    if arguments.len() != 1 || derived(&arguments[0]) {
        return (Some(gold), Some(answer));
    }
    // It stays the name of a function, and a derivative one of a derivative.
    let symbol = |name: &str| {
        let bare = name.trim_end_matches("()");
        Expr::Variable(if is_derivative(bare) { bare.to_owned() } else { format!("{bare}()") })
    };
    let change = |part| match part {
        Expr::Applied { name, of } if matches!(of.as_slice(), [Expr::Variable(_)]) => symbol(&name),
        Expr::Variable(name) if functions.contains(&name) => symbol(&name),
        other => other,
    };
    (Some(gold.changed(&change)), Some(answer.changed(&change)))
}
