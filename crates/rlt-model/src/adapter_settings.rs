//! Rank, scale and places of an adapter's terms, as PEFT's `adapter_config.json` has them.

use regex::{Regex, RegexBuilder};

/// A projection that can have a low-rank term.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Target {
    /// Queries.
    Query,
    /// Keys.
    Key,
    /// Values.
    Value,
    /// Attention output.
    AttentionOut,
    /// Gate of the feed-forward layer.
    Gate,
    /// Up projection of the feed-forward layer.
    Up,
    /// Down projection of the feed-forward layer.
    Down,
}

impl Target {
    /// All of them, in the order of a block.
    pub const ALL: [Self; 7] =
        [Self::Query, Self::Key, Self::Value, Self::AttentionOut, Self::Gate, Self::Up, Self::Down];

    /// The module's own name, as in PEFT's `target_modules`.
    pub const fn module(self) -> &'static str {
        match self {
            Self::Query => "q_proj",
            Self::Key => "k_proj",
            Self::Value => "v_proj",
            Self::AttentionOut => "o_proj",
            Self::Gate => "gate_proj",
            Self::Up => "up_proj",
            Self::Down => "down_proj",
        }
    }

    /// The module's path in a block.
    pub(crate) fn path(self) -> String {
        let part = match self {
            Self::Query | Self::Key | Self::Value | Self::AttentionOut => "self_attn",
            Self::Gate | Self::Up | Self::Down => "mlp",
        };
        format!("{part}.{}", self.module())
    }
}

/// What a term of rank R and weight alpha is multiplied by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LoraScaling {
    /// alpha / R.
    #[default]
    ByRank,
    /// alpha / sqrt(R): rsLoRA (arXiv 2312.03732), `use_rslora` in PEFT.
    ByRootOfRank,
}

/// Rank, scale and places of an adapter's terms.
#[derive(Debug, Clone, PartialEq)]
pub struct LoraSettings {
    /// Rank of every term that no pattern names.
    pub rank: usize,
    /// Weight of every term that no pattern names; see [`LoraScaling`].
    pub alpha: f32,
    /// Which projections of every block have a term; ascending, each once.
    pub targets: Vec<Target>,
    /// How rank and weight become a factor.
    pub scaling: LoraScaling,
    /// Ranks of the modules that a pattern names (`rank_pattern`); the first that fits counts.
    pub rank_pattern: Vec<(Pattern, usize)>,
    /// Weights of the modules that a pattern names (`alpha_pattern`); the first that fits counts.
    pub alpha_pattern: Vec<(Pattern, f32)>,
}

impl LoraSettings {
    /// Terms of one rank and weight, counting `alpha / rank` times.
    pub fn new(rank: usize, alpha: f32, targets: Vec<Target>) -> Self {
        let (rank_pattern, alpha_pattern) = (Vec::new(), Vec::new());
        Self { rank, alpha, targets, scaling: LoraScaling::default(), rank_pattern, alpha_pattern }
    }

    /// Rank of the term beside `target` in block `layer`, and what it is multiplied by.
    pub fn term(&self, layer: usize, target: Target) -> (usize, f32) {
        if self.rank_pattern.is_empty() && self.alpha_pattern.is_empty() {
            return (self.rank, self.factor(self.rank, self.alpha));
        }
        let module = format!("model.layers.{layer}.{}", target.path());
        let rank = first_that_fits(&self.rank_pattern, &module).unwrap_or(self.rank);
        let alpha = first_that_fits(&self.alpha_pattern, &module).unwrap_or(self.alpha);
        (rank, self.factor(rank, alpha))
    }

    fn factor(&self, rank: usize, alpha: f32) -> f32 {
        match self.scaling {
            LoraScaling::ByRank => alpha / rank as f32,
            LoraScaling::ByRootOfRank => (f64::from(alpha) / (rank as f64).sqrt()) as f32,
        }
    }
}

fn first_that_fits<T: Copy>(patterns: &[(Pattern, T)], module: &str) -> Option<T> {
    patterns.iter().find(|(pattern, _)| pattern.fits(module)).map(|&(_, value)| value)
}

/// Names of modules, as PEFT matches them: a regular expression for the end of a module's path, from a dot (or the
/// beginning) on.
#[derive(Debug, Clone)]
pub struct Pattern {
    text: String,
    regex: Regex,
}

/// Bytes that an expression may take once it is compiled: what comes from a file is no expression of a megabyte.
const COMPILED_BYTES: usize = 1 << 20;

impl Pattern {
    /// Reads a key of `rank_pattern` or `alpha_pattern`.
    ///
    /// # Errors
    /// What is wrong with the expression.
    pub fn new(text: &str) -> Result<Self, String> {
        let whole = format!(r"^(?:.*\.)?(?:{text})$");
        let regex = RegexBuilder::new(&whole).size_limit(COMPILED_BYTES).build();
        let regex =
            regex.map_err(|_| format!("{text:?} is not a pattern of module names that can be read"))?;
        Ok(Self { text: text.to_owned(), regex })
    }

    /// As it is written in the file.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    fn fits(&self, module: &str) -> bool {
        self.regex.is_match(module)
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> Pattern {
        Pattern::new(text).expect("a pattern")
    }

    #[test]
    fn patterns_fit_as_pefts_do() {
        // `re.match(rf"(.*\.)?({key})$", module)` in Python.
        let module = "model.layers.11.self_attn.q_proj";
        for (text, fits) in [
            ("q_proj", true),
            ("self_attn.q_proj", true),
            ("proj", false),
            ("model.layers.11.self_attn.q_proj", true),
            ("^model.layers.11.self_attn.q_proj", true),
            ("layers.1.self_attn.q_proj", false),
            (r"layers\.\d+\.self_attn\.q_proj", true),
            ("k_proj|q_proj", true),
            ("layers.11", false),
        ] {
            assert_eq!(pattern(text).fits(module), fits, "{text}");
        }
        assert!(Pattern::new("(").unwrap_err().contains("\"(\""));
        assert!(Pattern::new(&"a{1000}".repeat(1000)).is_err());
    }

    #[test]
    fn the_first_pattern_that_fits_counts() {
        let mut settings = LoraSettings::new(8, 16.0, Target::ALL.to_vec());
        assert_eq!(settings.term(0, Target::Query), (8, 2.0));
        settings.rank_pattern = vec![(pattern("layers.1.self_attn.q_proj"), 2), (pattern("q_proj"), 4)];
        settings.alpha_pattern = vec![(pattern("down_proj"), 24.0)];
        assert_eq!(settings.term(0, Target::Query), (4, 4.0));
        assert_eq!(settings.term(1, Target::Query), (2, 8.0));
        assert_eq!(settings.term(1, Target::Down), (8, 3.0));
        settings.scaling = LoraScaling::ByRootOfRank;
        assert_eq!(settings.term(0, Target::Query), (4, 8.0));
    }
}
