//! `rlt plan`: what a configuration will need.

use clap::{Args, ValueEnum};
use rlt::plan::{Card, Command, Plan, plan};
use rlt::{Error, Result};
use rlt_files::MOST_SETTINGS;
use serde_json::{Map, Value, json};

use super::common::{ConfigArgs, Context, DeviceArgs, model_folder};

/// Print the memory and the time that a configuration will need, and refuse what cannot fit
///
/// Rows and tokenizer are read, weights are not. Every completion is counted at its longest (sampling.max_new_tokens).
#[derive(Debug, Args)]
pub struct PlanArgs {
    #[command(flatten)]
    config: ConfigArgs,
    #[command(flatten)]
    device: DeviceArgs,
    /// The command that will run; without it, the one whose table (`[sft]`, `[grpo]`) the file has
    #[arg(long = "for", value_name = "COMMAND")]
    command: Option<CommandName>,
    /// Plan for this much memory instead of this machine's, or its GPU's: 80, or 80GiB
    #[arg(long, value_name = "GIB", value_parser = gibibytes)]
    memory: Option<f64>,
    /// Where `ranks` is above 1: what a rank sends, and receives at the same time, gigabytes a second
    #[arg(long, value_name = "GB/S", default_value_t = 12.5)]
    bandwidth: f64,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum CommandName {
    /// `rlt sft`
    Sft,
    /// `rlt train`
    Train,
}

impl PlanArgs {
    /// Plans, prints, and fails where the run would not fit.
    pub fn run(&self, context: &Context) -> Result<()> {
        let mut config = context.load_config(&self.config)?;
        if let Some(device) = self.device.device {
            config.model.device = device;
            config.validate()?;
        }
        if !(self.bandwidth > 0.0 && self.bandwidth.is_finite()) {
            let what = format!("--bandwidth is {}; it must be above 0", self.bandwidth);
            return Err(Error::Usage(what));
        }
        let command = self.command()?;
        model_folder(&config.model.path)?;
        let memory = self.memory.map(|gib| (gib * GIB) as u64);
        let plan = plan(&config, command, config.ranks.max(1), memory, &context.progress)?;
        let network_s = plan.network_s(self.bandwidth * 1e9);
        context.answer(&text(&plan, self.bandwidth), &as_json(&plan, network_s))?;
        plan.check()
    }

    fn command(&self) -> Result<Command> {
        match self.command {
            Some(CommandName::Sft) => return Ok(Command::Sft),
            Some(CommandName::Train) => return Ok(Command::Train),
            None => {}
        }
        let text = self.config.config.as_deref().map(|path| rlt_files::read_text(path, MOST_SETTINGS));
        let text = text.and_then(std::result::Result::ok).unwrap_or_default();
        let has = |table: &str| text.lines().any(|line| line.trim() == format!("[{table}]"));
        if has("distill") {
            let what = "rlt plan knows `rlt sft` and `rlt train`; what `rlt distill` needs beside the latter is a second model's \
                        forward pass: --for train with reward.kind=correctness is close";
            return Err(Error::Usage(what.into()));
        }
        match (has("sft"), has("grpo")) {
            (true, false) => Ok(Command::Sft),
            (false, true) => Ok(Command::Train),
            _ => Err(Error::Usage("say which command is planned: --for sft or --for train".into())),
        }
    }
}

const GIB: f64 = (1 << 30) as f64;

/// `80` or `80GiB`.
fn gibibytes(text: &str) -> std::result::Result<f64, String> {
    let number = text.strip_suffix("GiB").unwrap_or(text).trim_end().parse::<f64>();
    number
        .ok()
        .filter(|gib| gib.is_finite() && *gib > 0.0)
        .ok_or_else(|| "a number of GiB above 0 is expected: 80, or 80GiB".into())
}

fn text(plan: &Plan, bandwidth: f64) -> String {
    let gib = |bytes: u64| bytes as f64 / GIB;
    let (all, trained) = plan.parameters;
    let mut lines =
        vec![format!("{:.1} M parameters, {:.1} M trained", all as f64 / 1e6, trained as f64 / 1e6)];
    if plan.ranks > 1 {
        lines.push(format!("of each of {} ranks, at most:", plan.ranks));
    }
    lines.push(String::new());
    lines.push(format!("{:<28}{:>8}", "stays in memory", "GiB"));
    lines.extend(plan.stays.iter().map(|(name, bytes)| format!("  {name:<26}{:>8.2}", gib(*bytes))));
    lines.push(format!("{:<28}{:>8}", "peak of each stage", "GiB"));
    lines.extend(plan.stages.iter().map(|(name, bytes)| format!("  {name:<26}{:>8.2}", gib(*bytes))));
    let offloaded = plan.gpu.iter().flat_map(|gpu| &gpu.offloaded).filter(|(_, bytes)| *bytes > 0);
    let offloaded: Vec<String> =
        offloaded.map(|(name, bytes)| format!("  {name:<26}{:>8.2}", gib(*bytes))).collect();
    if !offloaded.is_empty() {
        lines.push(format!("{:<28}{:>8}", "in the host's memory", "GiB"));
        lines.extend(offloaded);
    }
    let of = plan.memory.map_or_else(String::new, |memory| format!(" of {:.1} GiB", gib(memory)));
    lines.push(format!("peak: {:.2} GiB{of}", gib(plan.peak())));
    lines.push(String::new());
    let step_s: f64 = plan.step_s.iter().map(|(_, s)| s).sum();
    let time = |all: &[(&str, f64)]| {
        let parts: Vec<String> = all.iter().map(|(name, s)| format!("{name} {}", duration(*s))).collect();
        let sum: f64 = all.iter().map(|(_, s)| s).sum();
        let of_all = duration(sum * plan.steps as f64);
        format!("{} a step ({}), {of_all} for {} steps", duration(sum), parts.join(", "), plan.steps)
    };
    match &plan.gpu {
        None => lines.push(format!("time, roughly: {}", time(&plan.step_s))),
        Some(gpu) => {
            lines.push("time at least, by published peaks of the card (no card has run it)".into());
            lines.extend(gpu.bounds.iter().map(|(card, all)| format!("  {:<10} {}", card.name, time(all))));
        }
    }
    if plan.ranks > 1 {
        let sent: Vec<String> =
            plan.sent.iter().map(|(name, bytes)| format!("{name} {:.2} GiB", gib(*bytes))).collect();
        let network_s = plan.network_s(bandwidth * 1e9);
        let total: u64 = plan.sent.iter().map(|(_, bytes)| bytes).sum();
        lines.push(format!(
            "network: each rank sends {:.2} GiB a step ({}), {} at {bandwidth} GB/s, which nothing hides{}",
            gib(total),
            sent.join(", "),
            duration(network_s),
            if plan.gpu.is_some() {
                String::new()
            } else {
                format!(": {} a step in all", duration(step_s + network_s))
            }
        ));
    }
    if !plan.savings.is_empty() {
        lines.push(String::new());
        lines.push("lower peaks".into());
        lines.extend(plan.savings.iter().map(|(keys, bytes)| format!("{:>8.2} GiB  {keys}", gib(*bytes))));
    }
    let not_built = plan.gpu.as_ref().map(|gpu| &gpu.not_built).filter(|all| !all.is_empty());
    if let Some(not_built) = not_built {
        lines.push("lower peaks by what is not built for GPUs".into());
        lines.extend(not_built.iter().map(|(what, bytes)| format!("{:>8.2} GiB  {what}", gib(*bytes))));
    }
    lines.join("\n")
}

fn duration(seconds: f64) -> String {
    match seconds {
        s if s < 10.0 => format!("{s:.1} s"),
        s if s < 120.0 => format!("{s:.0} s"),
        s if s < 7200.0 => format!("{:.0} min", s / 60.0),
        s => format!("{:.1} h", s / 3600.0),
    }
}

fn as_json(plan: &Plan, network_s: f64) -> Value {
    let object = |pairs: Vec<(String, Value)>| Value::Object(pairs.into_iter().collect::<Map<_, _>>());
    let bytes = |named: &[(&'static str, u64)]| {
        object(named.iter().map(|(name, bytes)| ((*name).to_owned(), json!(bytes))).collect())
    };
    let pairs =
        |all: &[(String, u64)]| all.iter().map(|(what, bytes)| json!([what, bytes])).collect::<Vec<_>>();
    let seconds = plan.step_s.iter().map(|(name, s)| ((*name).to_owned(), json!(s))).collect();
    json!({
        "parameters": plan.parameters.0,
        "trained": plan.parameters.1,
        "stays_bytes": bytes(&plan.stays),
        "stage_peak_bytes": bytes(&plan.stages),
        "peak_bytes": plan.peak(),
        "memory_bytes": plan.memory,
        "fits": plan.memory.is_none_or(|memory| plan.peak() <= memory),
        "step_s": object(seconds),
        "steps": plan.steps,
        "ranks": plan.ranks,
        "sent_bytes": bytes(&plan.sent),
        "network_s": network_s,
        "lower_peaks": pairs(&plan.savings),
        "bounds_s": plan.gpu.as_ref().map(|gpu| {
            let of_card = |(card, all): &(Card, Vec<(&str, f64)>)| {
                let parts = all.iter().map(|(name, s)| ((*name).to_owned(), json!(s))).collect();
                (card.name.to_owned(), object(parts))
            };
            object(gpu.bounds.iter().map(of_card).collect())
        }),
        "host_bytes": plan.gpu.as_ref().map(|gpu| bytes(&gpu.offloaded)),
        "not_built": plan.gpu.as_ref().map(|gpu| pairs(&gpu.not_built)),
    })
}
