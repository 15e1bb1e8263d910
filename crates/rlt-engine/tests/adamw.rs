//! AdamW against the textbook formula in f64.

mod common;

use common::{assert_close, dot, random, wide};
use rlt_engine::adamw::{AdamW, sum_of_squares};
use rlt_engine::moment::Moment;
use rlt_engine::{Device, Tensor};

/// More than one of the blocks that updates and sums are cut into.
const ELEMENTS: usize = 40_000;

fn tensor(moment: &Moment) -> Tensor {
    let numbers = moment.to_host().into_owned();
    Tensor::from_vec(1, numbers.len(), numbers)
}

/// Runs `steps` steps with gradients scaled by `scale`; both by [`AdamW::update`] and in f64 by
/// arXiv 1711.05101, algorithm 2. Checks the distance travelled and both moments.
fn check(adamw: AdamW, scale: f32, decay: bool, steps: u64, start: &Tensor) {
    let n = start.len();
    let mut value = start.clone();
    let (mut first, mut second) =
        (Moment::zeros_f32(&Device::Cpu, 1, n), Moment::zeros_f32(&Device::Cpu, 1, n));
    let mut x = wide(start);
    let (mut m, mut v) = (vec![0.0_f64; n], vec![0.0_f64; n]);
    let (b1, b2, lr) = (adamw.beta1, adamw.beta2, adamw.learning_rate);
    let weight_decay = if decay { adamw.weight_decay } else { 0.0 };
    for t in 1..=steps {
        let gradient = random(1, n, 100 + t);
        adamw.update(&mut value, &gradient, &mut first, &mut second, scale, t, decay, 0);
        let power = t as i32;
        for (i, g) in wide(&gradient).into_iter().enumerate() {
            let g = g * f64::from(scale);
            m[i] = b1 * m[i] + (1.0 - b1) * g;
            v[i] = b2 * v[i] + (1.0 - b2) * g * g;
            let (m_hat, v_hat) = (m[i] / (1.0 - b1.powi(power)), v[i] / (1.0 - b2.powi(power)));
            x[i] -= lr * (m_hat / (v_hat.sqrt() + adamw.epsilon) + weight_decay * x[i]);
        }
        let what = format!("step {t}, decay {decay}, scale {scale}");
        let travelled = |end: &[f64]| -> Vec<f64> {
            end.iter().zip(start.to_host().iter()).map(|(a, b)| a - f64::from(*b)).collect()
        };
        let ours = travelled(&wide(&value)).iter().map(|d| *d as f32).collect();
        assert_close(&format!("{what}: distance"), &Tensor::from_vec(1, n, ours), &travelled(&x), 2e-5);
        assert_close(&format!("{what}: first moment"), &tensor(&first), &m, 1e-6);
        assert_close(&format!("{what}: second moment"), &tensor(&second), &v, 1e-6);
    }
}

const ADAMW: AdamW =
    AdamW { learning_rate: 3e-2, beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weight_decay: 0.1 };

#[test]
fn follows_the_textbook() {
    let start = random(1, ELEMENTS, 1);
    for decay in [false, true] {
        check(ADAMW, 1.0, decay, 12, &start);
    }
    check(AdamW { beta1: 0.8, beta2: 0.95, learning_rate: 0.1, ..ADAMW }, 1.0, true, 12, &start);
}

#[test]
fn gradients_are_scaled_before_the_moments() {
    // Without an epsilon the step itself does not see the scale, but the moments do; with a large
    // one the step does too.
    let start = random(1, 500, 2);
    check(ADAMW, 0.37, true, 5, &start);
    check(AdamW { epsilon: 0.1, ..ADAMW }, 0.01, false, 5, &start);
}

#[test]
fn decay_alone_shrinks_the_value() {
    let mut value = Tensor::full(1, 3, 2.0);
    let (gradient, mut first, mut second) =
        (Tensor::zeros(1, 3), Moment::zeros_f32(&Device::Cpu, 1, 3), Moment::zeros_f32(&Device::Cpu, 1, 3));
    ADAMW.update(&mut value, &gradient, &mut first, &mut second, 1.0, 1, true, 0);
    assert_close("decay", &value, &[2.0 * (1.0 - 3e-2 * 0.1); 3], 1e-7);
    let before = value.clone();
    ADAMW.update(&mut value, &gradient, &mut first, &mut second, 1.0, 2, false, 0);
    assert_eq!(wide(&value), wide(&before), "nothing moves without decay");
}

/// Rounded to nearest, a second moment in bf16 stands still where a step moves it by less than half a unit in the
/// last place. Rounded at random it follows the f32 one, in the mean over many elements.
#[test]
fn moments_in_bf16_follow_those_in_f32() {
    let n = 20_000;
    let run = |mut first: Moment, mut second: Moment| {
        let mut value = Tensor::zeros(1, n);
        for t in 1..=400 {
            let gradient = Tensor::full(1, n, if t <= 200 { 1.0 } else { 0.5 });
            ADAMW.update(&mut value, &gradient, &mut first, &mut second, 1.0, t, false, 3);
        }
        [tensor(&first), tensor(&second), value].map(|x| wide(&x).iter().sum::<f64>() / n as f64)
    };
    let exact = run(Moment::zeros_f32(&Device::Cpu, 1, n), Moment::zeros_f32(&Device::Cpu, 1, n));
    let rounded = run(Moment::zeros_bf16(&Device::Cpu, 1, n), Moment::zeros_bf16(&Device::Cpu, 1, n));
    for (exact, rounded) in exact.iter().zip(rounded) {
        assert!((rounded / exact - 1.0).abs() < 2e-3, "{rounded} instead of {exact}");
    }
}

#[test]
fn bf16_moments_do_not_depend_on_the_number_of_threads_and_are_bf16_numbers() {
    let run = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let (mut first, mut second) = (
                Moment::zeros_bf16(&Device::Cpu, 1, ELEMENTS),
                Moment::zeros_bf16(&Device::Cpu, 1, ELEMENTS),
            );
            let mut value = random(1, ELEMENTS, 1);
            for t in 1..=3 {
                ADAMW.update(&mut value, &random(1, ELEMENTS, t), &mut first, &mut second, 1.0, t, true, 0);
            }
            let mut again = Moment::zeros_bf16(&Device::Cpu, 1, ELEMENTS);
            again.set(&second.to_host());
            assert_eq!(again.to_host(), second.to_host());
            [tensor(&first), tensor(&second), value].map(|x| common::bits(&x))
        })
    };
    assert!(run(1) == run(3));
}

#[test]
fn sums_of_squares_are_exact_to_six_digits() {
    for n in [1, 31, 1 << 14, ELEMENTS] {
        let x = random(1, n, n as u64);
        let (ours, exact) = (sum_of_squares(&x), dot(&wide(&x), &wide(&x)));
        assert!((ours - exact).abs() <= 1e-6 * exact, "{n} elements: {ours} instead of {exact}");
    }
    assert_eq!(sum_of_squares(&Tensor::zeros(1, 5)), 0.0);
}

#[test]
fn all_of_this_with_lesser_instructions() {
    common::repeat_with_lesser_instructions("all_of_this_with_lesser_instructions");
}
