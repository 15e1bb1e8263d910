//! The forward pass that keeps nothing for a backward pass, over packed batches.
//!
//! Between two layers of attention every operation is row-wise, so a few rows at a time go through all of them and
//! what lies between the operations stays in the cache. The bits are those of [`Decoder::forward`].

use rlt_engine::Tensor;
use rlt_engine::attention::{Layout, attention};
use rlt_engine::norm::rms_norm;

use crate::batch::PackedBatch;
use crate::decoder::{Decoder, RopeTables};
use crate::packed_block::PackedBlock;

impl Decoder {
    /// Hidden states after the final norm (rows x hidden), keeping nothing else.
    pub fn hidden_states(&self, batch: &PackedBatch) -> Tensor {
        let rope = self.rope_for(&batch.layout);
        let mut x = self.embedded(&batch.ids);
        for layer in 0..self.config().n_layers {
            let block = PackedBlock::new(self, layer);
            let qkv = self.qkv_rows(&block, &mut x, &batch.layout, &rope);
            self.rest_of_block(&block, qkv, &batch.layout, &mut x);
        }
        rms_norm(&x, &self.norm_scale(&self.final_norm()), self.config().rms_norm_eps).0
    }

    /// Query, key and value rows of a block's input.
    pub(crate) fn qkv_rows(
        &self,
        block: &PackedBlock,
        x: &mut Tensor,
        layout: &Layout,
        rope: &RopeTables,
    ) -> Tensor {
        x.map_row_blocks(self.attention_shape().qkv_cols(), |rows, x, qkv| {
            block.before_attention(x, &layout.positions()[rows], rope, false, qkv);
        })
    }

    /// Attention and what follows it: turns the block's input `x` into its output.
    pub(crate) fn rest_of_block(&self, block: &PackedBlock, qkv: Tensor, layout: &Layout, x: &mut Tensor) {
        let (mut attended, _) = attention(&qkv, layout, self.attention_of(block.layer()), self.arithmetic());
        drop(qkv);
        x.update_row_blocks(&mut attended, |attended, x| {
            block.add_attended(attended, x);
            block.add_feed_forward(x);
        });
    }
}
