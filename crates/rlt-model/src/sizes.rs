//! The sizes that files give: how large each may be, and products of them that cannot wrap.
//!
//! A model's files come from strangers. Every size is bounded where it is read, far above any model that exists, and so
//! low that no product formed of them (numbers of a tensor, of all tensors, of a batch's rows, in bytes) wraps 64 bits.
//! What a configuration asks for is then compared with what the weights hold, before anything is allocated for it.

/// Decoder blocks (Llama 3.1 405B has 126).
pub const MAX_LAYERS: usize = 1 << 12;
/// Features of the residual stream, of the feed-forward layer, and of all heads together (405B: 16,384 and 53,248).
pub const MAX_WIDTH: usize = 1 << 20;
/// Query heads, and features of one of them.
pub const MAX_HEADS: usize = 1 << 14;
/// Tokens of a vocabulary, and one above the largest id (the largest known is a million).
pub const MAX_VOCABULARY: usize = 1 << 24;
/// Tokens of a context.
pub const MAX_CONTEXT: usize = 1 << 30;
/// Rank of an adapter's term.
pub const MAX_RANK: usize = 1 << 16;
/// Numbers of all weights together: 64 times those of the largest models.
pub const MAX_PARAMETERS: usize = 1 << 46;
/// Rows that are computed, sampled or kept together: sequences, tokens of a batch, completions of a question.
pub const MAX_ROWS: usize = 1 << 30;

// The largest products: numbers of a batch's rows beside the widest matrix, and of all weights, in bytes.
const _: () = assert!(MAX_ROWS <= usize::MAX / (4 * MAX_WIDTH) / size_of::<f32>());
const _: () = assert!(MAX_VOCABULARY * MAX_WIDTH < MAX_PARAMETERS);
const _: () = assert!(MAX_PARAMETERS <= usize::MAX / size_of::<f64>());

/// The product of sizes, if it can be counted.
pub fn product(sizes: &[usize]) -> Option<usize> {
    sizes.iter().try_fold(1_usize, |product, &size| product.checked_mul(size))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_that_wrap_are_none() {
        assert_eq!(product(&[3, 4, 5]), Some(60));
        assert_eq!(product(&[]), Some(1));
        assert_eq!(product(&[1 << 32, 1 << 32]), None);
    }
}
