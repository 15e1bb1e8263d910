//! A model folder of random weights that other programs can serve, too: `tests/servers/run.sh` makes its models with it.
//!
//! ```text
//! cargo run --example tiny_model -- FOLDER SEED
//! ```
//!
//! Heads are 64 wide, the least that vLLM computes on a processor, and the output matrix is one of its own. Weights are large
//! enough that distributions are far from uniform.

use std::path::PathBuf;

use rlt::worlds::lexicon::{ModelShape, write_model_folder};
use rlt_engine::random::RandomStream;
use rlt_model::config::ModelConfig;
use rlt_model::parameters::slots;
use rlt_model::weights::{Dtype, TensorView, write_safetensors};

/// Standard deviation of the matrices, and of what norms and biases are beside one and nothing.
const STD: f32 = 0.1;
const STD_OF_VECTORS: f32 = 0.05;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let (Some(folder), Some(seed)) = (args.next().map(PathBuf::from), args.next()) else {
        return Err("usage: tiny_model FOLDER SEED".into());
    };
    let shape =
        ModelShape { hidden_size: 128, intermediate_size: 256, n_layers: 2, n_heads: 2, context: 1024 };
    std::fs::create_dir_all(&folder)?;
    write_model_folder(&folder, &shape)?;
    let path = folder.join("config.json");
    let mut config: serde_json::Value = serde_json::from_slice(&std::fs::read(&path)?)?;
    config["tie_word_embeddings"] = false.into();
    // transformers 5 takes Qwen's own tokenizer for every model of the type, whatever the folder holds.
    config["model_type"] = "llama".into();
    config["architectures"] = ["LlamaForCausalLM"].as_slice().into();
    std::fs::write(&path, config.to_string())?;

    let stream = RandomStream::new(seed.parse()?, "tiny model");
    let mut tensors = Vec::new();
    for part in slots(&ModelConfig::from_dir(&folder)?).into_iter().flat_map(|slot| slot.parts) {
        let normals = stream.normals([tensors.len() as u64, 0, 0], part.shape.iter().product());
        let (mean, std) = match part.shape.len() {
            1 if part.name.contains("norm") => (1.0, STD_OF_VECTORS),
            1 => (0.0, STD_OF_VECTORS),
            _ => (0.0, STD),
        };
        let data: Vec<f32> = normals.into_iter().map(|normal| mean + std * normal).collect();
        tensors.push((part.name, part.shape, data));
    }
    let views: Vec<TensorView> =
        tensors.iter().map(|(name, shape, data)| TensorView { name, shape, data }).collect();
    write_safetensors(&folder.join("model.safetensors"), &views, Dtype::F32)?;
    Ok(())
}
