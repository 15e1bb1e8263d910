//! Four numbers that are added at once. Every processor has instructions for it; sums that are written out one by one the
//! compiler leaves so.

/// Four numbers.
#[derive(Clone, Copy)]
pub(crate) struct Four(Native);

#[cfg(target_arch = "x86_64")]
type Native = std::arch::x86_64::__m128;
#[cfg(target_arch = "aarch64")]
type Native = std::arch::aarch64::float32x4_t;
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
type Native = [f32; 4];

impl Four {
    #[inline(always)]
    pub(crate) fn new(numbers: [f32; 4]) -> Self {
        Self(pulp::bytemuck::cast(numbers))
    }

    #[inline(always)]
    pub(crate) fn plus(self, other: Self) -> Self {
        // SAFETY: every processor of this kind has the instruction.
        #[cfg(target_arch = "x86_64")]
        let sum = unsafe { std::arch::x86_64::_mm_add_ps(self.0, other.0) };
        // SAFETY: as above.
        #[cfg(target_arch = "aarch64")]
        let sum = unsafe { std::arch::aarch64::vaddq_f32(self.0, other.0) };
        #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
        let sum = std::array::from_fn(|i| self.0[i] + other.0[i]);
        Self(sum)
    }

    #[inline(always)]
    pub(crate) fn numbers(self) -> [f32; 4] {
        pulp::bytemuck::cast(self.0)
    }
}
