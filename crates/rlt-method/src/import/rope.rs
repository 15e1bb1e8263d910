//! Rotary settings: what GGUF writes as keys, and as a tensor of factors (Llama 3).

use std::f64::consts::PI;

use rlt_gguf::Gguf;
use rlt_model::config::RopeScaling;

use crate::error::{Error, Result};

/// Keys of yarn below the architecture's name, beside those of any scaling.
pub(super) const YARN_KEYS: [&str; 5] = [
    "rope.scaling.yarn_attn_factor",
    "rope.scaling.yarn_beta_fast",
    "rope.scaling.yarn_beta_slow",
    "rope.scaling.yarn_ext_factor",
    "rope.scaling.yarn_log_multiplier",
];

/// The tensor of factors by which Llama 3's frequencies are divided, `[head_dim / 2]`.
pub(super) const FACTORS: &str = "rope_freqs.weight";

/// How far a factor may be from its formula, of itself: the file has them in f32.
const TOLERANCE: f64 = 1e-4;

/// What is done to the frequencies of base `theta`. `context` is the model's, tokens.
///
/// # Errors
/// A scaling that is not known, or a setting of it that transformers' formula does not have.
pub(super) fn read(
    file: &Gguf,
    architecture: &str,
    theta: f64,
    head_dim: usize,
    context: usize,
) -> Result<RopeScaling> {
    let key = |name: &str| format!("{architecture}.rope.{name}");
    let wrong = |what: String| Error::from(file.error(what));
    let number = |name: &str| -> Result<Option<f64>> { Ok(file.number(&key(name))?) };
    for (name, only) in [
        ("scaling.attn_factor", [1.0, 0.0]),
        ("scaling.yarn_attn_factor", [1.0, 1.0]),
        ("scaling.yarn_ext_factor", [1.0, -1.0]),
        ("scaling.yarn_log_multiplier", [0.0, 0.0]),
    ] {
        if let Some(x) = number(name)?.filter(|x| !only.contains(x)) {
            return Err(wrong(format!("{} = {x} is not supported", key(name))));
        }
    }
    let scale = match number("scaling.factor")? {
        Some(factor) => Some(factor),
        None => number("scale_linear")?,
    };
    let factor = |scale: Option<f64>| {
        scale
            .filter(|factor| factor.is_finite() && *factor > 0.0)
            .ok_or_else(|| wrong(format!("{} is missing or not above zero", key("scaling.factor"))))
    };
    let original = number("scaling.original_context_length")?;
    let kind = file.text(&key("scaling.type"))?;
    let scaling = match kind {
        None | Some("linear") if scale.is_some_and(|scale| scale != 1.0) || kind.is_some() => {
            RopeScaling::Linear { factor: factor(scale)? }
        }
        None | Some("none") => RopeScaling::None,
        Some("yarn") => {
            let factor = factor(scale)?;
            RopeScaling::Yarn {
                factor,
                attention_factor: if factor > 1.0 { 0.1 * factor.ln() + 1.0 } else { 1.0 },
                beta_fast: number("scaling.yarn_beta_fast")?.unwrap_or(32.0),
                beta_slow: number("scaling.yarn_beta_slow")?.unwrap_or(1.0),
                original_context: original.unwrap_or(context as f64),
                truncate: true,
            }
        }
        Some(other) => {
            let key = key("scaling.type");
            return Err(wrong(format!("{key} {other:?} is not supported (supported: none, linear, yarn)")));
        }
    };
    let Some(tensor) = file.tensor(FACTORS) else { return Ok(scaling) };
    if scaling != RopeScaling::None {
        return Err(wrong(format!("{FACTORS} beside {} is not supported", key("scaling.type"))));
    }
    if tensor.len() != head_dim / 2 || tensor.shape.len() != 1 {
        return Err(wrong(format!("{FACTORS} has the shape {:?}, not [{}]", tensor.shape, head_dim / 2)));
    }
    let mut factors = vec![0.0; tensor.len()];
    file.read_rows(tensor, 0, &mut factors)?;
    llama3(&factors, theta, head_dim, original).ok_or_else(|| {
        wrong(format!(
            "the factors of {FACTORS} are not those of a Llama 3 scaling, which is the only one supported"
        ))
    })
}

/// The settings that give these factors: Meta's (low frequencies below 1 turn, high ones above 4) with the original
/// context that is named, or else theirs.
fn llama3(factors: &[f32], theta: f64, head_dim: usize, original: Option<f64>) -> Option<RopeScaling> {
    let near = |a: f64, b: f64| (a - b).abs() <= TOLERANCE * b.abs();
    if factors.iter().all(|&factor| near(f64::from(factor), 1.0)) {
        return Some(RopeScaling::None);
    }
    // Powers of two as they are written: the largest factor is the whole division.
    let factor = f64::from(factors.iter().copied().fold(f32::MIN, f32::max));
    let (low, high) = (1.0, 4.0);
    let expected = |i: usize, original: f64| {
        let wavelength = 2.0 * PI * theta.powf(2.0 * i as f64 / head_dim as f64);
        if wavelength < original / high {
            1.0
        } else if wavelength > original / low {
            factor
        } else {
            let smooth = (original / wavelength - low) / (high - low);
            1.0 / ((1.0 - smooth) / factor + smooth)
        }
    };
    let original_context = original.into_iter().chain([8192.0]).find(|&original| {
        factors.iter().enumerate().all(|(i, &f)| near(f64::from(f), expected(i, original)))
    })?;
    Some(RopeScaling::Llama3 { factor, low_freq_factor: low, high_freq_factor: high, original_context })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Factors as llama.cpp's converter writes them for Llama 3.1 (theta 500,000, heads of 128).
    fn factors(factor: f64, original: f64) -> Vec<f32> {
        let frequencies = (0..64).map(|i| 1.0 / 500_000_f64.powf(2.0 * f64::from(i) / 128.0));
        let one = |frequency: f64| {
            let wavelength = 2.0 * PI / frequency;
            if wavelength < original / 4.0 {
                return 1.0;
            }
            if wavelength > original {
                return factor as f32;
            }
            let smooth = (original / wavelength - 1.0) / 3.0;
            (1.0 / ((1.0 - smooth) / factor + smooth)) as f32
        };
        frequencies.map(one).collect()
    }

    #[test]
    fn the_settings_of_llama_3_are_found_in_its_factors() {
        let llama3 = |f: &[f32], original| llama3(f, 500_000.0, 128, original);
        let settings = |factor, original_context| {
            Some(RopeScaling::Llama3 {
                factor,
                low_freq_factor: 1.0,
                high_freq_factor: 4.0,
                original_context,
            })
        };
        assert_eq!(llama3(&factors(8.0, 8192.0), None), settings(8.0, 8192.0));
        assert_eq!(llama3(&factors(32.0, 8192.0), None), settings(32.0, 8192.0));
        assert_eq!(llama3(&factors(8.0, 4096.0), Some(4096.0)), settings(8.0, 4096.0));
        assert_eq!(llama3(&factors(8.0, 4096.0), None), None, "another original context");
        assert_eq!(llama3(&[1.0; 64], None), Some(RopeScaling::None));
        let mut bent = factors(8.0, 8192.0);
        bent[40] *= 1.01;
        assert_eq!(llama3(&bent, None), None);
        assert_eq!(llama3(&[f32::NAN; 64], None), None);
    }
}
