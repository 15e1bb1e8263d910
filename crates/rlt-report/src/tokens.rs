//! Explanations token by token: how strongly each is shaded, what hovering tells, which is marked.

use std::fmt::Write;

use minijinja::HtmlEscape;
use serde::Serialize;

use super::number::{compact, nats};
use super::sample::Sample;

/// More tokens of one text than this make a page that nobody scrolls; the rest is counted.
const MOST_TOKENS: usize = 4000;

/// Full shade is reached at this quantile, so that one outlier does not bleach the page.
const SCALE_QUANTILE: f64 = 0.98;

/// The figures at which a token has full shade, common to all explanations of a page. Nats.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Scale {
    /// |D_j|.
    pub kl: f64,
    /// −log π_S of a solution token.
    pub logprob: f64,
}

impl Scale {
    pub fn of<'a>(samples: impl Iterator<Item = &'a Sample> + Clone) -> Self {
        let kl = samples.clone().flat_map(|s| &s.d_j).map(|d| d.abs()).collect();
        let logprob = samples.flat_map(|s| &s.solution_logprobs).map(|p| p.abs()).collect();
        Self { kl: full_shade(kl), logprob: full_shade(logprob) }
    }
}

fn full_shade(mut magnitudes: Vec<f64>) -> f64 {
    magnitudes.retain(|m| m.is_finite());
    magnitudes.sort_by(f64::total_cmp);
    let index = (magnitudes.len() as f64 * SCALE_QUANTILE) as usize;
    let quantile = magnitudes.get(index.min(magnitudes.len().saturating_sub(1)));
    // To the next half, for a legend with round ends.
    (quantile.copied().unwrap_or(1.0).max(0.5) * 2.0).ceil() / 2.0
}

/// A text in shaded tokens, as HTML, with what stands beside it.
#[derive(Debug, Serialize)]
pub(super) struct ShadedText {
    /// One `<span>` a token, escaped.
    pub html: String,
    pub n_tokens: usize,
    /// Tokens beyond [`MOST_TOKENS`] that are not shown.
    pub n_hidden: usize,
}

/// The think tokens shaded by D_j, the largest marked. None without a ledger.
pub(super) fn think(sample: &Sample, scale: Scale) -> Option<ShadedText> {
    let largest = position_of(&sample.d_j, |a, b| a > b);
    shaded(&sample.think_tokens, |index, token| {
        let d = sample.d_j.get(index).copied();
        let mut title = format!("“{}”", visible(token));
        if let Some(d) = d {
            let _ = write!(title, "  D = {} nats", nats(d));
        }
        if let Some(teacher) = sample.teacher_logprobs.get(index) {
            let _ = write!(title, "\nlog π_T = {}", nats(*teacher));
        }
        if let Some(student) = sample.student_logprobs.get(index) {
            let _ = write!(title, "\nlog π_S = {}", nats(*student));
        }
        Look {
            class: if d.unwrap_or(0.0) < 0.0 { "cool" } else { "warm" },
            shade: d.map_or(0.0, |d| d.abs() / scale.kl),
            title,
            mark: d.filter(|_| largest == Some(index)).map(|d| format!("max D {}", compact(d))),
        }
    })
}

/// The solution tokens shaded by their log-probability, the least likely marked.
pub(super) fn solution(sample: &Sample, scale: Scale) -> Option<ShadedText> {
    let smallest = position_of(&sample.solution_logprobs, |a, b| a < b);
    shaded(&sample.solution_tokens, |index, token| {
        let logprob = sample.solution_logprobs.get(index).copied();
        let mut title = format!("“{}”", visible(token));
        if let Some(logprob) = logprob {
            let _ =
                write!(title, "  log π_S = {} nats (probability {})", nats(logprob), compact(logprob.exp()));
        }
        Look {
            class: "sol",
            shade: logprob.map_or(0.0, |p| -p / scale.logprob),
            title,
            mark: logprob.filter(|_| smallest == Some(index)).map(|p| format!("min {}", compact(p))),
        }
    })
}

/// How one token looks.
struct Look {
    class: &'static str,
    /// 0 (none) to 1 (full); more is full.
    shade: f64,
    title: String,
    /// The label of the extreme token.
    mark: Option<String>,
}

fn shaded(tokens: &[String], look: impl Fn(usize, &str) -> Look) -> Option<ShadedText> {
    if tokens.is_empty() {
        return None;
    }
    let mut html = String::new();
    for (index, token) in tokens.iter().enumerate().take(MOST_TOKENS) {
        let look = look(index, token);
        // Below linear, so that the middle of the scale can be told from its lower end.
        let alpha = look.shade.clamp(0.0, 1.0).powf(0.8);
        let mark = match &look.mark {
            Some(label) => format!(r#" mark" data-label="{}"#, HtmlEscape(label)),
            None => String::new(),
        };
        let _ = write!(
            html,
            r#"<span class="t {}{mark}" style="--a:{alpha:.2}" title="{}">{}</span>"#,
            look.class,
            HtmlEscape(&look.title),
            text_html(token)
        );
    }
    let n_hidden = tokens.len().saturating_sub(MOST_TOKENS);
    Some(ShadedText { html, n_tokens: tokens.len(), n_hidden })
}

/// The first position whose value is better than every other.
fn position_of(values: &[f64], better: impl Fn(f64, f64) -> bool) -> Option<usize> {
    let mut best: Option<usize> = None;
    for (index, &value) in values.iter().enumerate() {
        if best.is_none_or(|b| better(value, values[b])) {
            best = Some(index);
        }
    }
    best
}

/// Escaped text in which line breaks are shown, and break; several in a row leave a gap.
pub(super) fn text_html(text: &str) -> String {
    let mut html = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('\n') {
        let after = rest[at..].trim_start_matches('\n');
        let breaks = rest.len() - at - after.len();
        let gap = if breaks > 1 { r#"<i class="gap"></i>"# } else { "\n" };
        let _ = write!(html, "{}<i>{}</i>{gap}", HtmlEscape(&visible(&rest[..at])), "↵".repeat(breaks));
        rest = after;
    }
    let _ = write!(html, "{}", HtmlEscape(&visible(rest)));
    html
}

/// Text on one line: control characters become their pictures (`␉`, `␍`, `␛`; `↵` for a line break).
pub(super) fn visible(text: &str) -> String {
    let picture = |c: char| match c {
        '\n' => '↵',
        '\u{7f}' => '␡',
        c if (c as u32) < 0x20 => char::from_u32(0x2400 + c as u32).unwrap_or(c),
        // Marks that reorder or hide the text around them.
        '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}' => '·',
        c => c,
    };
    text.chars().map(picture).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Sample {
        Sample {
            think_tokens: vec!["Take".into(), " 5".into(), "\n\n".into(), "<b>".into()],
            d_j: vec![0.1, 2.4, -0.6, 0.0],
            teacher_logprobs: vec![-0.1, -0.2, -1.0, -0.5],
            student_logprobs: vec![-0.2, -2.6, -0.4, -0.5],
            solution_tokens: vec!["4".into(), "2".into()],
            solution_logprobs: vec![-0.01, -3.2],
            ..Sample::default()
        }
    }

    const SCALE: Scale = Scale { kl: 2.0, logprob: 5.0 };

    #[test]
    fn the_largest_divergence_and_the_least_likely_token_are_marked() {
        let html = think(&sample(), SCALE).unwrap().html;
        assert_eq!(html.matches(" mark").count(), 1);
        assert!(html.contains(
            "<span class=\"t warm mark\" data-label=\"max D 2.40\" style=\"--a:1.00\" title=\"“ 5”  D = +2.400 nats\nlog π_T = −0.200\nlog π_S = −2.600\"> 5</span>"
        ), "{html}");
        let html = solution(&sample(), SCALE).unwrap().html;
        assert!(html.contains("class=\"t sol mark\" data-label=\"min −3.20\""), "{html}");
    }

    #[test]
    fn shades_follow_sign_and_size() {
        let html = think(&sample(), SCALE).unwrap().html;
        assert!(html.contains("class=\"t cool\" style=\"--a:0.38\""), "{html}");
        assert!(html.contains("class=\"t warm\" style=\"--a:0.00\""), "{html}");
    }

    #[test]
    fn whitespace_shows_and_text_is_escaped() {
        assert_eq!(text_html(" a\n\nb\t<"), " a<i>↵↵</i><i class=\"gap\"></i>b␉&lt;");
        assert_eq!(text_html("a\nb\n"), "a<i>↵</i>\nb<i>↵</i>\n");
        assert_eq!(visible("\u{202e}x"), "·x");
        let html = think(&sample(), SCALE).unwrap().html;
        assert!(html.contains(">&lt;b&gt;</span>") && !html.contains("<b>"), "{html}");
    }

    #[test]
    fn one_outlier_does_not_set_the_scale() {
        let mut outlier = sample();
        outlier.d_j = (0..100).map(|i| f64::from(i % 10) / 10.0).chain([80.0]).collect();
        assert_eq!(Scale::of([outlier].iter()).kl, 1.0);
        assert_eq!(Scale::of([Sample::default()].iter()), Scale { kl: 1.0, logprob: 1.0 });
    }

    #[test]
    fn a_ledger_with_too_few_numbers_is_shown_unshaded() {
        let short = Sample { think_tokens: vec!["a".into(), "b".into()], ..Sample::default() };
        let shown = think(&short, SCALE).unwrap();
        assert_eq!((shown.n_tokens, shown.n_hidden), (2, 0));
        assert!(!shown.html.contains("mark"));
        assert!(think(&Sample::default(), SCALE).is_none());
    }
}
