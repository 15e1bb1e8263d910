//! Rotary frequencies: which scaling a configuration asks for, and the frequencies themselves.
//!
//! Formulas: `modeling_rope_utils.py` of transformers; yarn is Peng et al. 2023 (arXiv 2309.00071).

use std::f64::consts::PI;

use serde_json::{Value, json};

use super::fields::Fields;
use crate::Result;

/// How rotary frequencies are changed for contexts longer than the pre-training one.
#[derive(Debug, Clone, PartialEq)]
pub enum RopeScaling {
    /// Plain rotary embedding.
    None,
    /// `rope_type = "linear"`: every frequency divided (positions interpolated).
    Linear {
        /// Division of the frequencies.
        factor: f64,
    },
    /// `rope_type = "yarn"`: low frequencies divided, a linear ramp over the dimensions between,
    /// cosine and sine multiplied by `attention_factor`.
    Yarn {
        /// Division of the low frequencies.
        factor: f64,
        /// Factor on cosine and sine, with `mscale` folded in.
        attention_factor: f64,
        /// Dimensions that turn more often than this in `original_context` are kept.
        beta_fast: f64,
        /// Dimensions that turn less often than this in `original_context` are divided.
        beta_slow: f64,
        /// Context of the pre-training, tokens.
        original_context: f64,
        /// Whether the ends of the ramp are rounded outwards to whole dimensions.
        truncate: bool,
    },
    /// `rope_type = "llama3"`: low frequencies divided, a smooth ramp between.
    Llama3 {
        /// Division of the low frequencies.
        factor: f64,
        /// Wavelengths above `original_context / low_freq_factor` are divided.
        low_freq_factor: f64,
        /// Wavelengths below `original_context / high_freq_factor` are kept.
        high_freq_factor: f64,
        /// Context of the pre-training, tokens.
        original_context: f64,
    },
}

/// Rotary embedding: the angles by which positions turn.
#[derive(Debug, Clone, PartialEq)]
pub struct Rope {
    /// Base of the frequencies.
    pub theta: f64,
    /// Frequency scaling.
    pub scaling: RopeScaling,
}

impl Rope {
    /// Inverse frequencies (`head_dim / 2` of them, radians a position) and the factor on cosine and sine (1 except for
    /// yarn), as transformers computes them: each step is evaluated in f64 and rounded to the f32 that transformers
    /// holds there.
    pub fn inv_freq(&self, head_dim: usize) -> (Vec<f32>, f32) {
        inv_freq(&self.scaling, self.theta, head_dim)
    }
}

/// Where no rope_theta is given.
const DEFAULT_THETA: f64 = 10_000.0;

/// What transformers knows in a rope dictionary. Any other key (`mrope_section`, a layer type, ..)
/// belongs to arithmetic that is not here.
const KNOWN_KEYS: [&str; 16] = [
    "rope_type",
    "type",
    "rope_theta",
    "factor",
    "original_max_position_embeddings",
    "attention_factor",
    "beta_fast",
    "beta_slow",
    "mscale",
    "mscale_all_dim",
    "truncate",
    "low_freq_factor",
    "high_freq_factor",
    "partial_rotary_factor",
    "short_factor",
    "long_factor",
];

/// The settings from either spelling. `max_positions` is the context, tokens.
pub(super) fn read(f: &Fields, max_positions: usize) -> Result<Rope> {
    let parameters = f.nested("rope_parameters", "rope_parameters.")?;
    // As transformers: what somebody wrote into `rope_scaling` takes the place of all of `rope_parameters`.
    let scaling = f.nested("rope_scaling", "rope_scaling.")?.filter(|dict| dict.keys().next().is_some());
    let theta_in = |dict: &Option<Fields>| dict.as_ref().map_or(Ok(None), |dict| dict.number("rope_theta"));
    let theta_of_parameters = theta_in(&parameters)?;
    let replaces = scaling.is_some() && parameters.is_some();
    let dict = scaling.or(parameters);
    let theta = match theta_in(&dict)? {
        Some(theta) => theta,
        None => f.number("rope_theta")?.unwrap_or(DEFAULT_THETA),
    };
    if let Some(dropped) = theta_of_parameters.filter(|&dropped| replaces && dropped != theta) {
        return Err(f.error(&format!(
            "rope_scaling takes the place of rope_parameters, and with it rope_theta = {theta} that of {dropped}; write \
             the rope_theta that is meant into rope_scaling, too"
        )));
    }
    checked(f, dict.as_ref(), theta, max_positions)
}

/// The settings of one dictionary, or of none, with a base that has been read.
pub(super) fn checked(f: &Fields, dict: Option<&Fields>, theta: f64, max_positions: usize) -> Result<Rope> {
    if !(theta.is_finite() && theta > 1.0) {
        return Err(f.error(&format!("rope_theta = {theta} must be above 1")));
    }
    refuse_partial_rotation(f)?;
    let Some(dict) = dict else { return Ok(Rope { theta, scaling: RopeScaling::None }) };
    refuse_partial_rotation(dict)?;
    if let Some(key) = dict.keys().find(|key| !KNOWN_KEYS.contains(key)) {
        return Err(f.error(&format!("the rope setting {key:?} is not supported")));
    }

    // transformers gives a top-level field of the same name the first word (Phi-3's spelling).
    let original_context = match f.number("original_max_position_embeddings")? {
        Some(n) => n,
        None => dict.number("original_max_position_embeddings")?.unwrap_or(max_positions as f64),
    };
    if !(original_context.is_finite() && original_context >= 1.0) {
        return Err(
            f.error(&format!("original_max_position_embeddings = {original_context} must be 1 or more"))
        );
    }
    let rope_type = match dict.text("rope_type")? {
        Some(name) => name,
        None => dict.text("type")?.unwrap_or("default"),
    };
    let scaling = match rope_type {
        "default" => RopeScaling::None,
        "linear" => RopeScaling::Linear { factor: positive(dict, "factor")? },
        "llama3" => RopeScaling::Llama3 {
            factor: positive(dict, "factor")?,
            low_freq_factor: positive(dict, "low_freq_factor")?,
            high_freq_factor: positive(dict, "high_freq_factor")?,
            original_context,
        },
        "yarn" => {
            let factor = match dict.number("factor")? {
                Some(_) => positive(dict, "factor")?,
                None => max_positions as f64 / original_context,
            };
            RopeScaling::Yarn {
                factor,
                attention_factor: yarn_attention_factor(dict, factor)?,
                beta_fast: dict.number("beta_fast")?.filter(|&b| b != 0.0).unwrap_or(32.0),
                beta_slow: dict.number("beta_slow")?.filter(|&b| b != 0.0).unwrap_or(1.0),
                original_context,
                truncate: dict.flag("truncate")?.unwrap_or(true),
            }
        }
        other => {
            return Err(f.error(&format!(
                "rope_type {other:?} is not supported (supported: default, linear, llama3, yarn)"
            )));
        }
    };
    Ok(Rope { theta, scaling })
}

fn refuse_partial_rotation(f: &Fields) -> Result<()> {
    match f.number("partial_rotary_factor")? {
        Some(share) if share != 1.0 => {
            Err(f.error(&format!("partial_rotary_factor = {share} is not supported, only 1")))
        }
        _ => Ok(()),
    }
}

fn positive(dict: &Fields, key: &str) -> Result<f64> {
    let value = dict.required_number(key)?;
    if value.is_finite() && value > 0.0 {
        Ok(value)
    } else {
        Err(dict.error(&format!("the rope setting {key} = {value} must be above zero")))
    }
}

fn yarn_attention_factor(dict: &Fields, factor: f64) -> Result<f64> {
    if let Some(given) = dict.number("attention_factor")? {
        return Ok(given);
    }
    let mscale_of = |mscale: f64| if factor <= 1.0 { 1.0 } else { 0.1 * mscale * factor.ln() + 1.0 };
    let mscale = dict.number("mscale")?.filter(|&m| m != 0.0);
    let mscale_all_dim = dict.number("mscale_all_dim")?.filter(|&m| m != 0.0);
    Ok(match (mscale, mscale_all_dim) {
        (Some(mscale), Some(all)) => mscale_of(mscale) / mscale_of(all),
        _ => mscale_of(1.0),
    })
}

impl RopeScaling {
    /// Longest context of a model whose file says `max_positions`, tokens. As vLLM: yarn stretches the pre-training's
    /// length, linear scaling the file's; llama3 is named with its whole context.
    pub(super) fn context(&self, max_positions: usize) -> usize {
        let stretched = match *self {
            Self::None | Self::Llama3 { .. } => return max_positions,
            Self::Linear { factor } => factor * max_positions as f64,
            Self::Yarn { factor, original_context, .. } => factor * original_context,
        };
        // A cast of what is beyond all numbers gives the largest of them.
        (stretched as usize).max(1)
    }

    /// The dictionary as transformers spells it, with `rope_theta` inside where it is given.
    pub(super) fn to_json(&self, rope_theta: Option<f64>) -> Value {
        let mut dict = match *self {
            Self::None => json!({"rope_type": "default"}),
            Self::Linear { factor } => json!({"rope_type": "linear", "factor": factor}),
            Self::Llama3 { factor, low_freq_factor, high_freq_factor, original_context } => json!({
                "rope_type": "llama3",
                "factor": factor,
                "low_freq_factor": low_freq_factor,
                "high_freq_factor": high_freq_factor,
                "original_max_position_embeddings": whole(original_context),
            }),
            Self::Yarn { factor, attention_factor, beta_fast, beta_slow, original_context, truncate } => {
                json!({
                    "rope_type": "yarn",
                    "factor": factor,
                    "attention_factor": attention_factor,
                    "beta_fast": beta_fast,
                    "beta_slow": beta_slow,
                    "original_max_position_embeddings": whole(original_context),
                    "truncate": truncate,
                })
            }
        };
        if let Some(theta) = rope_theta {
            dict["rope_theta"] = json!(theta);
        }
        dict
    }
}

/// An integer where the number is one: transformers checks the type.
pub(super) fn whole(x: f64) -> Value {
    if x.fract() == 0.0 { json!(x as u64) } else { json!(x) }
}

/// As [`Rope::inv_freq`]. `r` marks where transformers holds an f32.
fn inv_freq(scaling: &RopeScaling, theta: f64, head_dim: usize) -> (Vec<f32>, f32) {
    let dim = head_dim as f64;
    let r = |x: f64| f64::from(x as f32);
    let pos_freq = |i: usize| r(r(theta).powf(r(2.0 * i as f64 / dim)));
    let plain = |i: usize| r(1.0 / pos_freq(i));
    let half = head_dim / 2;
    match *scaling {
        RopeScaling::None => ((0..half).map(|i| plain(i) as f32).collect(), 1.0),
        RopeScaling::Linear { factor } => ((0..half).map(|i| (plain(i) / factor) as f32).collect(), 1.0),
        RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_context } => {
            let scaled = |i: usize| {
                let freq = plain(i);
                let wavelength = r(r(2.0 * PI) / freq);
                if wavelength < original_context / high_freq_factor {
                    freq as f32
                } else if wavelength > original_context / low_freq_factor {
                    (freq / factor) as f32
                } else {
                    let smooth = r(r(r(original_context / wavelength) - low_freq_factor)
                        / (high_freq_factor - low_freq_factor));
                    (r(r(r(1.0 - smooth) * freq) / factor) + r(smooth * freq)) as f32
                }
            };
            ((0..half).map(scaled).collect(), 1.0)
        }
        RopeScaling::Yarn { factor, attention_factor, beta_fast, beta_slow, original_context, truncate } => {
            // The dimension that turns `rotations` times within the original context.
            let turning =
                |rotations: f64| dim * (original_context / (rotations * 2.0 * PI)).ln() / (2.0 * theta.ln());
            let (mut low, mut high) = (turning(beta_fast), turning(beta_slow));
            if truncate {
                (low, high) = (low.floor(), high.ceil());
            }
            low = low.max(0.0);
            high = high.min(dim - 1.0);
            if low == high {
                high += 0.001;
            }
            let scaled = |i: usize| {
                let ramp = r(r(i as f64 - r(low)) / r(high - low)).clamp(0.0, 1.0);
                let kept = r(1.0 - ramp);
                let interpolated = r(1.0 / r(factor * pos_freq(i)));
                (r(interpolated * r(1.0 - kept)) + r(plain(i) * kept)) as f32
            };
            ((0..half).map(scaled).collect(), attention_factor as f32)
        }
    }
}
