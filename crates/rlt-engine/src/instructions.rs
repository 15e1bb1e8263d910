//! The processor's instructions that the engine computes with: the best it has, or as far as `RLT_SIMD` allows.
//!
//! They are chosen once a process, at the first operation. Every kernel that exists for several sets asks here and
//! never looks at the processor itself, so that one variable decides about the whole engine.

use std::fmt;
use std::sync::OnceLock;

/// The environment variable that names the most that may be used.
pub const VARIABLE: &str = "RLT_SIMD";

/// A set of instructions. Of two that a processor has, the greater one holds the lesser.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum InstructionSet {
    /// What every processor of this kind has. On x86-64 without a fused multiply-add.
    Baseline,
    /// 128-bit vectors of ARM.
    Neon,
    /// 256-bit vectors with a fused multiply-add.
    Avx2,
    /// 512-bit vectors.
    Avx512,
    /// And dot products of bf16.
    Avx512Bf16,
    /// And tiles of bf16.
    Amx,
}

/// `RLT_SIMD` names what there is not.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{VARIABLE}={given}: this processor has {}; name one of them or leave it unset", names(.available))]
pub struct UnknownInstructions {
    given: String,
    available: Vec<InstructionSet>,
}

fn names(sets: &[InstructionSet]) -> String {
    sets.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

impl InstructionSet {
    const ALL: [Self; 6] =
        [Self::Baseline, Self::Neon, Self::Avx2, Self::Avx512, Self::Avx512Bf16, Self::Amx];

    /// Those that this processor has, the greatest last.
    pub fn available() -> Vec<Self> {
        Self::ALL.into_iter().filter(|set| set.is_available()).collect()
    }

    /// The one in use.
    ///
    /// # Panics
    /// If `RLT_SIMD` names what there is not: [`Self::chosen`] says so beforehand.
    pub fn in_use() -> Self {
        Self::chosen().unwrap_or_else(|error| panic!("{error}"))
    }

    /// The one in use, chosen at the first call.
    ///
    /// # Errors
    /// [`UnknownInstructions`] if `RLT_SIMD` names what this program does not know or the processor does not have.
    pub fn chosen() -> Result<Self, UnknownInstructions> {
        static CHOSEN: OnceLock<Result<InstructionSet, UnknownInstructions>> = OnceLock::new();
        let limit = || std::env::var_os(VARIABLE).map(|value| value.to_string_lossy().into_owned());
        CHOSEN.get_or_init(|| Self::at_most(limit())).clone()
    }

    fn at_most(name: Option<String>) -> Result<Self, UnknownInstructions> {
        let available = Self::available();
        let Some(given) = name.filter(|name| !name.is_empty()) else {
            return Ok(*available.last().expect("every processor has the baseline"));
        };
        let named = available.iter().copied().find(|set| set.to_string() == given);
        named.ok_or(UnknownInstructions { given, available })
    }

    fn is_available(self) -> bool {
        match self {
            Self::Baseline => true,
            #[cfg(target_arch = "aarch64")]
            Self::Neon => true,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => pulp::x86::V3::try_new().is_some(),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => pulp::x86::V4::try_new().is_some(),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Bf16 => Self::Avx512.is_available() && is_x86_feature_detected!("avx512bf16"),
            #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
            Self::Amx => Self::Avx512Bf16.is_available() && crate::amx::is_available(),
            #[allow(unreachable_patterns, reason = "each kind of processor has its own sets")]
            _ => false,
        }
    }
}

impl fmt::Display for InstructionSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Baseline if cfg!(target_arch = "x86_64") => "sse2",
            Self::Baseline => "scalar",
            Self::Neon => "neon",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
            Self::Avx512Bf16 => "avx512bf16",
            Self::Amx => "amx",
        })
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_name_limits_and_an_unknown_one_is_refused() {
        let available = InstructionSet::available();
        assert_eq!(InstructionSet::at_most(None).as_ref(), Ok(available.last().unwrap()));
        assert_eq!(InstructionSet::at_most(Some(String::new())), InstructionSet::at_most(None));
        for &set in &available {
            assert_eq!(InstructionSet::at_most(Some(set.to_string())), Ok(set));
        }
        assert!(InstructionSet::at_most(Some("AVX2".into())).is_err());
    }

    /// This crate's tests of kernels again, in processes of their own, with the lesser instructions that this processor
    /// has.
    #[test]
    fn kernels_are_right_with_lesser_instructions() {
        if std::env::var_os(VARIABLE).is_some() {
            return;
        }
        let lesser = InstructionSet::available().into_iter().filter(|&set| set < InstructionSet::Avx512);
        for set in lesser.filter(|&set| set < InstructionSet::in_use()) {
            let again = Command::new(std::env::current_exe().unwrap())
                .args(["product::", "packed::", "bf16::", "simd::", "tile::"])
                .env(VARIABLE, set.to_string())
                .output()
                .unwrap();
            let said = String::from_utf8_lossy(&again.stdout);
            assert!(again.status.success() && !said.contains(" 0 passed"), "with {set}:\n{said}");
        }
    }
}
