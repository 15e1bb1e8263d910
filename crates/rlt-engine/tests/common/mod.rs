//! What the engine's tests share: random tensors and derivatives by central differences in f64.

#![allow(dead_code, reason = "each test file uses a part")]

use std::process::Command;

use rlt_engine::Tensor;
use rlt_engine::instructions::{InstructionSet, VARIABLE};
use rlt_engine::random::RandomStream;

/// Runs the tests of this file again, in processes of their own, with the lesser instructions that this processor has:
/// all but the test `name`, which asks for it.
pub fn repeat_with_lesser_instructions(name: &str) {
    if std::env::var_os(VARIABLE).is_some() {
        return;
    }
    let lesser = InstructionSet::available().into_iter().filter(|&set| set < InstructionSet::Avx512);
    for set in lesser.filter(|&set| set < InstructionSet::in_use()) {
        let again = Command::new(std::env::current_exe().unwrap())
            .args(["--skip", name])
            .env(VARIABLE, set.to_string())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&again.stdout);
        assert!(again.status.success(), "with {set}:\n{said}{}", String::from_utf8_lossy(&again.stderr));
        assert!(said.contains("test result: ok") && !said.contains(" 0 passed"), "with {set}:\n{said}");
    }
}

/// Standard normal values, the same for the same `key`.
pub fn random(rows: usize, cols: usize, key: u64) -> Tensor {
    Tensor::from_vec(rows, cols, RandomStream::new(7, "test").normals([key, 0, 0], rows * cols))
}

/// A tensor's values in f64.
pub fn wide(tensor: &Tensor) -> Vec<f64> {
    tensor.to_host().iter().map(|&v| f64::from(v)).collect()
}

/// The bits of a tensor.
pub fn bits(tensor: &Tensor) -> Vec<u32> {
    tensor.to_host().iter().map(|v| v.to_bits()).collect()
}

/// Sum of products.
pub fn dot(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len(), "lengths of a dot product");
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// `a (m x k) . b (n x k)^T` in f64.
pub fn product_nt(a: &[f64], b: &[f64], k: usize) -> Vec<f64> {
    a.chunks_exact(k).flat_map(|row| b.chunks_exact(k).map(|col| dot(row, col))).collect()
}

fn norm(x: &[f64]) -> f64 {
    dot(x, x).sqrt()
}

/// Checks f32 values against f64 ones: the largest difference within `tolerance` of the largest
/// value.
pub fn assert_close(what: &str, ours: &Tensor, expected: &[f64], tolerance: f64) {
    let ours = wide(ours);
    assert_eq!(ours.len(), expected.len(), "{what}: length");
    let largest = expected.iter().fold(0.0_f64, |m, v| m.max(v.abs()));
    for (i, (a, b)) in ours.iter().zip(expected).enumerate() {
        assert!((a - b).abs() <= tolerance * largest, "{what}[{i}]: {a} instead of {b}");
    }
}

/// Checks `gradient` against central differences of `loss` (computed in f64) around `x`.
///
/// Each group of coordinates is moved along one random direction d that is zero elsewhere; the
/// derivative must equal `gradient . d` within `tolerance * |d| * |gradient|`, the last norm being
/// the larger of the group's own and of what a group of its size has on average.
pub fn check_groups(
    what: &str,
    x: &[f64],
    loss: impl Fn(&[f64]) -> f64,
    gradient: &Tensor,
    groups: &[Vec<usize>],
    tolerance: f64,
) {
    const STEP: f64 = 1e-5;
    let gradient = wide(gradient);
    assert_eq!(x.len(), gradient.len(), "{what}: length of the gradient");
    let mean_square = dot(&gradient, &gradient) / gradient.len() as f64;
    for (index, group) in groups.iter().enumerate() {
        let direction = wide(&random(1, group.len(), 1000 + index as u64));
        let moved_loss = |step: f64| {
            let mut moved = x.to_vec();
            for (&at, d) in group.iter().zip(&direction) {
                moved[at] += step * d;
            }
            loss(&moved)
        };
        let numeric = (moved_loss(STEP) - moved_loss(-STEP)) / (2.0 * STEP);
        let own: Vec<f64> = group.iter().map(|&at| gradient[at]).collect();
        let size = norm(&own).max((mean_square * group.len() as f64).sqrt());
        let analytic = dot(&own, &direction);
        assert!(
            (analytic - numeric).abs() <= tolerance * norm(&direction) * size,
            "{what}, coordinates {}..={}: gradient {analytic}, central difference {numeric}",
            group[0],
            group[group.len() - 1]
        );
    }
}

/// [`check_groups`] on every coordinate where there are few, otherwise on 32 runs of coordinates
/// that cover all.
pub fn check_gradient(
    what: &str,
    x: &[f64],
    loss: impl Fn(&[f64]) -> f64,
    gradient: &Tensor,
    tolerance: f64,
) {
    let run = if x.len() <= 600 { 1 } else { x.len().div_ceil(32) };
    let all: Vec<usize> = (0..x.len()).collect();
    let groups: Vec<Vec<usize>> = all.chunks(run).map(<[usize]>::to_vec).collect();
    check_groups(what, x, loss, gradient, &groups, tolerance);
}
