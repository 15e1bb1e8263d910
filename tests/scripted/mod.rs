//! Model folders for tests: one with random weights, and one that writes what a script says.

use std::path::Path;

use rlt::worlds::lexicon::{ModelShape, write_model_folder};
use rlt_model::Decoder;
use rlt_model::config::ModelConfig;
use rlt_model::tokenizer::Tokenizer;
use rlt_model::weights::{Dtype, TensorView, write_safetensors};

/// How sharp a script is: the logit of the scripted token, about.
const LOGIT: f32 = 100.0;

/// A market model folder of tiny random weights. Returns its tokenizer.
#[allow(dead_code, reason = "not every test file needs both models")]
pub fn write_random_model(folder: &Path, context: usize) -> Tokenizer {
    let shape = ModelShape { hidden_size: 32, intermediate_size: 32, n_layers: 2, n_heads: 2, context };
    write_model_folder(folder, &shape).unwrap();
    Decoder::random(&ModelConfig::from_dir(folder).unwrap(), 1).save(folder).unwrap();
    Tokenizer::from_dir(folder).unwrap()
}

/// A market model folder whose model follows `script`: each pair is a token and what comes after it,
/// whatever came before. Both attention and feed-forward layers are zero, so that only the last token
/// counts: one-hot embeddings, and an output matrix that holds the script. A token that the script does
/// not mention is followed by all tokens alike.
#[allow(dead_code, reason = "not every test file needs both models")]
pub fn write_scripted_model(folder: &Path, script: &[(&str, &str)], context: usize) {
    let shape = ModelShape { hidden_size: 384, intermediate_size: 32, n_layers: 1, n_heads: 12, context };
    write_model_folder(folder, &shape).unwrap();
    let path = folder.join("config.json");
    let tied = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, tied.replace("\"tie_word_embeddings\": true", "\"tie_word_embeddings\": false"))
        .unwrap();
    let config = ModelConfig::from_dir(folder).unwrap();
    let (vocab, hidden) = (config.vocab_size, config.hidden_size);
    assert!(vocab <= hidden, "one hidden dimension a token");

    let tokenizer = Tokenizer::from_dir(folder).unwrap();
    let id = |text: &str| {
        let ids = tokenizer.encode(text).unwrap();
        assert_eq!(ids.len(), 1, "{text:?} is one token");
        ids[0] as usize
    };
    let mut embedding = vec![0.0; vocab * hidden];
    (0..vocab).for_each(|token| embedding[token * hidden + token] = 1.0);
    let mut head = vec![0.0; vocab * hidden];
    for (token, next) in script {
        // The norm before the head makes the one of the embedding sqrt(hidden).
        head[id(next) * hidden + id(token)] = LOGIT / (hidden as f32).sqrt();
    }
    let tensors: Vec<(String, Vec<usize>, Vec<f32>)> = rlt_model::parameters::slots(&config)
        .into_iter()
        .flat_map(|slot| slot.parts)
        .map(|part| {
            let data = match part.name.as_str() {
                "model.embed_tokens.weight" => embedding.clone(),
                "lm_head.weight" => head.clone(),
                name => vec![if name.contains("norm") { 1.0 } else { 0.0 }; part.shape.iter().product()],
            };
            (part.name, part.shape, data)
        })
        .collect();
    let views: Vec<TensorView> =
        tensors.iter().map(|(name, shape, data)| TensorView { name, shape, data }).collect();
    write_safetensors(&folder.join("model.safetensors"), &views, Dtype::F32).unwrap();
}
