//! `rlt doctor`: what a server can do for rlt.

use std::path::PathBuf;

use clap::Args;
use rlt::config::ServerConfig;
use rlt::located::LocatedModel;
use rlt::prompts::ChatText;
use rlt::ranks::Holding;
use rlt::server::doctor::{Examination, examine};
use rlt::training::run::frozen_model;
use rlt::{Error, Result};
use serde_json::json;

use super::common::{ConfigArgs, Context, model_folder};

/// Report what a server can do for rlt, how well its numbers agree with the local weights, and how fast it is
///
/// The server is asked for a few completions and scores of a fixed text. No weights are changed.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// Address of the server; without it the configuration's server.url
    #[arg(long, value_name = "URL")]
    server: Option<String>,
    /// Folder of the model that it serves: tokenizer and config.json, and weights to compare with where it has them;
    /// without it the configuration's model.path
    #[arg(long, value_name = "DIR")]
    model: Option<PathBuf>,
    #[command(flatten)]
    config: ConfigArgs,
}

impl DoctorArgs {
    /// Asks, and prints one screen.
    pub fn run(&self, context: &Context) -> Result<()> {
        let mut config = context.load_config(&self.config)?;
        if let Some(url) = &self.server {
            config.server = ServerConfig { url: url.clone(), urls: Vec::new(), ..config.server };
            config.validate()?;
        }
        let Some(server) = config.server_of_teacher() else {
            return Err(Error::Usage(
                "say which server: --server URL, or server.url in the configuration".into(),
            ));
        };
        let model = self.model.as_ref().unwrap_or(&config.model.path);
        if model.as_os_str().is_empty() {
            let what = "give --model DIR, the folder of the model that it serves (tokenizer and config.json are enough)";
            return Err(Error::Usage(what.into()));
        }
        let model = model_folder(model)?;
        let chat = ChatText::from_dir(model)?;
        let located =
            LocatedModel::find(Some(server), &config.model, model, &Holding::Whole, &context.progress)?;
        let Some(served) = located.served() else { return Ok(()) };
        let params = located.params(&config.sampling, &chat)?;
        let has_weights = std::fs::read_dir(model).is_ok_and(|entries| {
            entries.flatten().any(|entry| entry.path().extension().is_some_and(|e| e == "safetensors"))
        });
        let local = has_weights.then(|| frozen_model(&config.model, model)).transpose()?;
        let found = examine(served, &chat.tokenizer, &params, local.as_ref(), &context.progress)?;
        context.answer(&text(&found), &json!(found))
    }
}

fn text(found: &Examination) -> String {
    let mut lines = vec![found.server.clone()];
    if !found.root.is_empty() {
        lines.push(format!("  {:<38}{}", "its folder", found.root));
    }
    lines.push(format!("  {:<38}{} tokens", "longest sequence", found.context));
    for ability in &found.abilities {
        let name = format!("{} ({})", ability.what, ability.needed_for);
        let says = ability.obstacle.as_ref().map_or("yes".into(), |obstacle| format!("no: {obstacle}"));
        lines.push(format!("  {name:<46}{says}"));
    }
    let agreement = match &found.agreement {
        Some(agreement) => {
            format!("{:.1e} nats a token on average, {:.1e} at most", agreement.mean, agreement.max)
        }
        None => "not known: no local weights, or it does not score".into(),
    };
    lines.push(format!("  {:<46}{agreement}", "distance from the local weights"));
    let rate = |rate: Option<f64>| rate.map_or("-".into(), |rate| format!("{rate:.0}"));
    lines.push(format!(
        "  {:<46}{} sampled, {} scored (32 requests)",
        "tokens a second",
        rate(found.sampled_per_s),
        rate(found.scored_per_s)
    ));
    lines.join("\n")
}
