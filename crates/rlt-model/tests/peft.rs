//! Adapters as PEFT writes them, for checkpoints of three families, one with rsLoRA and patterns of ranks and weights: logits and the gradients of A and B are those of
//! PyTorch. `tests/parity/make_adapters.py` made them.

#![expect(clippy::print_stdout, reason = "says how close it came")]

use std::convert::Infallible;
use std::path::{Path, PathBuf};

use rlt_engine::head;
use rlt_model::batch::{PackedBatch, ScoringGroup};
use rlt_model::training_pass::Keep;
use rlt_model::{Decoder, Gradients};
use safetensors::SafeTensors;

const NAMES: [&str; 4] = ["qwen2_tied_f32", "qwen3_bias_bf16", "llama_bias_f32", "llama_patterns_f32"];

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/adapters").join(name)
}

fn floats(tensors: &SafeTensors, name: &str) -> Vec<f32> {
    let view = tensors.tensor(name).unwrap_or_else(|_| panic!("{name} is in the golden file"));
    view.data().as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
}

fn largest_difference(ours: &[f32], golden: &[f32]) -> f32 {
    assert_eq!(ours.len(), golden.len());
    ours.iter().zip(golden).fold(0.0, |worst, (a, b)| (a - b).abs().max(worst))
}

#[test]
fn logits_and_gradients_equal_those_of_pytorch() {
    for name in NAMES {
        let bytes = std::fs::read(folder(name).join("golden.safetensors")).unwrap();
        let golden = SafeTensors::deserialize(&bytes).unwrap();
        let ids = golden.tensor("input_ids").unwrap();
        let ids: Vec<u32> =
            ids.data().as_chunks::<8>().0.iter().map(|b| i64::from_le_bytes(*b) as u32).collect();
        let decoder = Decoder::load_frozen(&folder(name)).unwrap();

        // One row more than the tokens that are scored, so that the last logits are there too.
        let longer = [ids.as_slice(), &[0]].concat();
        let scored = 1..longer.len();
        let batch = PackedBatch::new(&[ScoringGroup::single(longer, vec![scored])]);
        let logits = head::logits(&decoder.hidden_states(&batch), decoder.parameters().head_weight());
        let expected = floats(&golden, "logits");
        let worst_logit = largest_difference(&logits.to_host()[..expected.len()], &expected);
        assert!(worst_logit < 1e-4, "{name}: {worst_logit}");

        let scored = 1..ids.len();
        let n = scored.len() as f32;
        let batch = PackedBatch::new(&[ScoringGroup::single(ids, vec![scored])]);
        let mut grads = Gradients::zeros(&decoder);
        let derivative = |_, logprobs: &[f32]| Ok::<_, Infallible>(vec![-1.0 / n; logprobs.len()]);
        decoder.train_micro_batch(&batch, 1.0, Keep::BlockInputs, &mut grads, derivative).unwrap();
        let mut worst = 0.0_f32;
        for (slot, ours) in decoder.trained_slots().iter().zip(grads.tensors()) {
            let expected = floats(&golden, &format!("grad.{}", slot.parts[0].name));
            let largest = expected.iter().fold(0.0_f32, |largest, v| largest.max(v.abs()));
            worst = worst.max(largest_difference(&ours.to_host(), &expected) / largest);
        }
        let n_gradients = golden.names().iter().filter(|name| name.starts_with("grad.")).count();
        assert_eq!(n_gradients, grads.tensors().len());
        println!("{name}: logits within {worst_logit:e}, gradients within {worst:e} of their largest");
        assert!(worst < 1e-5, "{name}: {worst}");
    }
}
