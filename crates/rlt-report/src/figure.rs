//! Figures that stand alone: bars with intervals, lines and clouds of points, as SVGs with their own colours.

use std::fmt::Write;
use std::ops::Range;

use super::chart::{Axis, Frame, HEIGHT, LEFT, RIGHT, WIDTH};
use super::number::{escape, percent, round_up};

/// Colours on a ground of their own, so that the figure reads on a dark page as well.
const STYLE: &str = "text{font:10px system-ui,sans-serif;fill:#1d1f23}.tick{fill:#666c75;font-size:9px}\
    .grid{stroke:#e3e5e8}.axis{stroke:#666c75}.line{fill:none;stroke-width:1.8}.dot{stroke:#fcfcfb}\
    .whisker{stroke:#1d1f23;stroke-width:1.2}.bar{fill:#b4bac3}.bar.emphasis{fill:#5590cf}.fit{opacity:.6;\
    stroke-dasharray:4 3}";

/// One colour a line, in their order.
const COLOURS: [&str; 10] = [
    "#3b7dd8", "#e2681e", "#2e9d5b", "#9247c2", "#d0364a", "#159aa5", "#9a6b2f", "#7a828e", "#c24f96",
    "#5b6b1f",
];

/// A share with its interval.
#[derive(Debug, Clone, PartialEq)]
pub struct FigureBar {
    /// What it is of.
    pub label: String,
    /// 0 to 1.
    pub share: f64,
    /// Lower end of its interval.
    pub low: f64,
    /// Upper end.
    pub high: f64,
    /// Drawn in colour.
    pub emphasis: bool,
}

/// Points that belong together: a line, or a cloud.
#[derive(Debug, Clone, PartialEq)]
pub struct FigureLine {
    /// What it is of.
    pub label: String,
    /// Where they lie; the second of each is a share, 0 to 1.
    pub points: Vec<(f64, f64)>,
}

/// Shares as bars below each other, on an axis from 0 to 100 per cent.
pub fn bars(title: &str, bars: &[FigureBar]) -> String {
    const ROW: f64 = 19.0;
    const LABEL: f64 = 236.0;
    let (width, height) = (620.0, 34.0 + ROW * bars.len() as f64 + 20.0);
    let at = |share: f64| LABEL + share.clamp(0.0, 1.0) * (width - LABEL - 60.0);
    let mut svg = open(title, width, height);
    let bottom = height - 20.0;
    for tick in 0..=4 {
        let share = f64::from(tick) / 4.0;
        let x = at(share);
        let _ = write!(
            svg,
            r#"<path class="grid" d="M{x:.1} 28V{bottom:.1}"/><text class="tick" x="{x:.1}" y="{:.1}" text-anchor="middle">{}</text>"#,
            bottom + 13.0,
            percent(share)
        );
    }
    for (index, bar) in bars.iter().enumerate() {
        let y = 32.0 + ROW * index as f64;
        let middle = y + ROW / 2.0 - 2.0;
        let class = if bar.emphasis { "bar emphasis" } else { "bar" };
        let _ = write!(
            svg,
            r#"<text x="{:.1}" y="{:.1}" text-anchor="end">{}</text><rect class="{class}" x="{LABEL}" y="{y:.1}" width="{:.1}" height="{:.1}"/><path class="whisker" d="M{:.1} {middle:.1}H{:.1}"/><text class="tick" x="{:.1}" y="{:.1}">{}</text>"#,
            LABEL - 6.0,
            middle + 3.5,
            escape(&bar.label),
            at(bar.share) - LABEL,
            ROW - 5.0,
            at(bar.low),
            at(bar.high),
            at(bar.high.max(bar.share)) + 5.0,
            middle + 3.0,
            percent(bar.share)
        );
    }
    close(svg)
}

/// Shares over something else, a line and a colour each, named below.
pub fn lines(title: &str, x_label: &str, all: &[FigureLine]) -> String {
    let (frame, mut svg) = framed(title, all);
    for (line, colour) in all.iter().zip(COLOURS.iter().cycle()) {
        let _ = write!(svg, r#"<path class="line" stroke="{colour}" d="{}"/>"#, frame.path(&line.points));
        dots(&mut svg, &frame, &line.points, colour, 2.6);
    }
    label_x(&mut svg, x_label);
    for (index, (line, colour)) in all.iter().zip(COLOURS.iter().cycle()).enumerate() {
        let y = name_below(&mut svg, index, &line.label);
        let _ = write!(svg, r#"<path class="line" stroke="{colour}" d="M{LEFT} {y:.1}h18"/>"#);
    }
    svg.push_str("</g>");
    close(svg)
}

/// Shares over something else as points, with the line of least squares through them; one colour a cloud, named below.
pub fn clouds(title: &str, x_label: &str, all: &[FigureLine]) -> String {
    let (frame, mut svg) = framed(title, all);
    for (cloud, colour) in all.iter().zip(COLOURS.iter().cycle()) {
        if let Some(ends) = fitted(&cloud.points, &frame.y) {
            let _ = write!(svg, r#"<path class="fit" stroke="{colour}" d="{}"/>"#, frame.path(&ends));
        }
        dots(&mut svg, &frame, &cloud.points, colour, 4.0);
    }
    label_x(&mut svg, x_label);
    for (index, (cloud, colour)) in all.iter().zip(COLOURS.iter().cycle()).enumerate() {
        let y = name_below(&mut svg, index, &cloud.label);
        let _ =
            write!(svg, r#"<circle class="dot" fill="{colour}" cx="{:.1}" cy="{y:.1}" r="4"/>"#, LEFT + 9.0);
    }
    svg.push_str("</g>");
    close(svg)
}

/// Axes that hold all points, with room for a name each below.
fn framed(title: &str, all: &[FigureLine]) -> (Frame, String) {
    let points = || all.iter().flat_map(|line| &line.points);
    let highest = points().map(|p| p.1).fold(0.01, f64::max);
    let y = 0.0..if highest > 0.5 { 1.0 } else { round_up(highest) };
    let frame = Frame { x: domain(points().map(|p| p.0)), y };
    let mut svg = open(title, WIDTH, HEIGHT + 44.0 + 14.0 * all.len() as f64);
    svg.push_str(r#"<g transform="translate(0 14)">"#);
    frame.draw_axes(&mut svg, Axis::Share);
    (frame, svg)
}

fn dots(svg: &mut String, frame: &Frame, points: &[(f64, f64)], colour: &str, radius: f64) {
    for &(x, y) in points {
        let (x, y) = (frame.px(x), frame.py(y));
        let _ = write!(svg, r#"<circle class="dot" fill="{colour}" cx="{x:.1}" cy="{y:.1}" r="{radius}"/>"#);
    }
}

/// Writes the name of the `index`-th below the axes and says at which height its colour belongs.
fn name_below(svg: &mut String, index: usize, label: &str) -> f64 {
    let y = HEIGHT + 24.0 + 14.0 * index as f64;
    let _ = write!(svg, r#"<text x="{:.1}" y="{:.1}">{}</text>"#, LEFT + 24.0, y + 3.5, escape(label));
    y
}

fn open(title: &str, width: f64, height: f64) -> String {
    let title = escape(title);
    format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height:.0}" width="{width}" height="{height:.0}" role="img" aria-label="{title}"><style>{STYLE}</style><rect width="100%" height="100%" fill="#fcfcfb"/><text x="10" y="16" font-weight="600">{title}</text>"##
    )
}

fn close(mut svg: String) -> String {
    svg.push_str("</svg>\n");
    svg
}

fn label_x(svg: &mut String, label: &str) {
    let (x, y) = (f64::midpoint(LEFT, WIDTH - RIGHT), HEIGHT + 6.0);
    let _ = write!(
        svg,
        r#"<text class="tick" x="{x:.1}" y="{y:.1}" text-anchor="middle">{}</text>"#,
        escape(label)
    );
}

/// The range of some values with a little room on both sides.
fn domain(values: impl Iterator<Item = f64> + Clone) -> Range<f64> {
    let low = values.clone().fold(f64::INFINITY, f64::min);
    let high = values.fold(f64::NEG_INFINITY, f64::max);
    if !(low.is_finite() && high.is_finite()) {
        return 0.0..1.0;
    }
    let margin = if high > low { 0.04 * (high - low) } else { 0.5 };
    low - margin..high + margin
}

/// The ends of the line of least squares where the points lie, cut where it leaves `y`; none where there is no such line.
fn fitted(points: &[(f64, f64)], y: &Range<f64>) -> Option<[(f64, f64); 2]> {
    let (slope, intercept) = least_squares(points)?;
    let x = domain(points.iter().map(|p| p.0));
    let end = |at: f64| {
        let height = intercept + slope * at;
        let within = height.clamp(y.start, y.end);
        // A level line has no other place to be.
        (if height == within || slope == 0.0 { at } else { (within - intercept) / slope }, within)
    };
    Some([end(x.start), end(x.end)])
}

/// Slope and intercept; none when x does not vary.
fn least_squares(points: &[(f64, f64)]) -> Option<(f64, f64)> {
    let n = points.len() as f64;
    let (x, y) = points.iter().fold((0.0, 0.0), |(x, y), p| (x + p.0 / n, y + p.1 / n));
    let (xx, xy) = points
        .iter()
        .fold((0.0, 0.0), |(xx, xy), p| (xx + (p.0 - x) * (p.0 - x), xy + (p.0 - x) * (p.1 - y)));
    (xx > 0.0).then(|| (xy / xx, y - xy / xx * x))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_stand_alone() {
        let bar = |share: f64| FigureBar {
            label: "a & b".into(),
            share,
            low: share - 0.1,
            high: share + 0.1,
            emphasis: share > 0.5,
        };
        let line = FigureLine { label: "c".into(), points: vec![(0.0, 0.1), (10.0, 0.9)] };
        for svg in [
            bars("t", &[bar(0.2), bar(0.8)]),
            lines("t", "steps", &[line.clone(), line]),
            clouds(
                "t",
                "reward",
                &[FigureLine { label: "a & b".into(), points: vec![(-2.0, 0.1), (-1.0, 0.5), (-0.5, 0.7)] }],
            ),
            bars("nothing", &[]),
            lines("nothing", "", &[]),
            clouds("nothing", "", &[]),
        ] {
            assert!(svg.starts_with("<svg xmlns=") && svg.trim_end().ends_with("</svg>"), "{svg}");
            assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
            assert!(!svg.contains("a & b"));
        }
    }

    #[test]
    fn a_fitted_line_is_cut_and_keeps_its_slope() {
        // y = 0.5 + x, of which 0 to 1 is drawn: from x = -0.5 to 0.5.
        let points = [(-2.0, -1.5), (0.0, 0.5), (2.0, 2.5)];
        assert_eq!(fitted(&points, &(0.0..1.0)), Some([(-0.5, 0.0), (0.5, 1.0)]));
        let [left, right] = fitted(&[(0.0, 0.25), (1.0, 0.75)], &(0.0..1.0)).unwrap();
        assert!(left.0 < 0.0 && right.0 > 1.0 && (left.1 - 0.23).abs() < 1e-9, "{left:?} {right:?}");
        assert_eq!(fitted(&[(1.0, 0.2), (1.0, 0.4)], &(0.0..1.0)), None);
    }

    #[test]
    fn least_squares_by_hand() {
        assert_eq!(least_squares(&[(0.0, 1.0), (1.0, 3.0), (2.0, 5.0)]), Some((2.0, 1.0)));
        assert_eq!(least_squares(&[(1.0, 1.0), (1.0, 3.0)]), None);
    }
}
