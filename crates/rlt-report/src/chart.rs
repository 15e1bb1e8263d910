//! Curves over steps, drawn as small SVGs that take their colours from the page's style sheet.

use std::fmt::Write;
use std::ops::Range;

use serde_json::{Map, Value};

use super::number::{compact, percent, round_up, ticks};
use rlt_method::metrics::{Metric, STEP};

/// What a curve shows.
pub(super) struct Chart {
    /// HTML.
    pub title: &'static str,
    /// One sentence on how to read it.
    pub caption: &'static str,
    /// The metric that is drawn as a line.
    pub metric: Metric,
    /// Metrics of the outer and of the inner band around it.
    pub bands: &'static [(Metric, Metric)],
    pub axis: Axis,
    /// False for what has no noise, such as a schedule.
    pub smoothed: bool,
}

#[derive(Clone, Copy, PartialEq)]
pub(super) enum Axis {
    Plain,
    /// A share between 0 and 1, shown as per cent on an axis from zero.
    Share,
    /// Cannot be negative; the axis starts at zero.
    Positive,
}

/// Size and margins in SVG units, about one pixel each.
pub(super) const WIDTH: f64 = 380.0;
pub(super) const HEIGHT: f64 = 200.0;
pub(super) const LEFT: f64 = 44.0;
pub(super) const RIGHT: f64 = 10.0;
const TOP: f64 = 18.0;
const BOTTOM: f64 = 24.0;

/// More steps than this are averaged in bins: more would not be seen.
const MOST_POINTS: usize = 240;

/// Shorter runs are drawn as they are.
const SMOOTHED_FROM: usize = 12;

/// The values of one chart at one point.
struct Point {
    step: f64,
    value: f64,
    /// Low and high end of each band.
    bands: Vec<(f64, f64)>,
}

impl Chart {
    /// The drawing, or none when no row has the metric.
    pub fn svg(&self, rows: &[Map<String, Value>]) -> Option<String> {
        let points = self.points(rows);
        let (first, last) = (points.first()?, points.last()?);
        let x_domain =
            if first.step < last.step { first.step..last.step } else { first.step - 1.0..first.step + 1.0 };
        let frame = Frame { x: x_domain, y: self.value_domain(&points) };

        let mut svg = String::new();
        let _ = write!(
            svg,
            r#"<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{}: {} at step {}, {} at step {}">"#,
            self.metric.name,
            self.format(first.value),
            first.step,
            self.format(last.value),
            last.step
        );
        frame.draw_axes(&mut svg, self.axis);
        let clip = frame.clip(&points);
        for (index, class) in (0..self.bands.len()).zip(["band outer", "band inner"]) {
            frame.draw_band(&mut svg, &clip, index, class);
        }
        let raw: Vec<(f64, f64)> = points.iter().map(|p| (p.step, p.value)).collect();
        if raw.len() >= SMOOTHED_FROM && self.smoothed {
            frame.draw_line(&mut svg, &raw, "raw");
            frame.draw_line(&mut svg, &smooth(&raw), "line");
        } else {
            frame.draw_line(&mut svg, &raw, "line");
            let dots = if raw.len() < SMOOTHED_FROM { &raw[..] } else { &[] };
            for &(step, value) in dots {
                let _ = write!(
                    svg,
                    r#"<circle class="dot" cx="{:.1}" cy="{:.1}" r="2.2"/>"#,
                    frame.px(step),
                    frame.py(value)
                );
            }
        }
        self.draw_readouts(&mut svg, &frame, &points);
        svg.push_str("</svg>");
        Some(svg)
    }

    /// One line a run in the runs' colours, or none when no run has the metric. Bands are left out.
    pub fn overlay(&self, runs: &[&[Map<String, Value>]]) -> Option<String> {
        let plain = |rows: &&[Map<String, Value>]| -> Vec<Point> {
            self.points(rows).into_iter().map(|point| Point { bands: Vec::new(), ..point }).collect()
        };
        let lines: Vec<Vec<Point>> = runs.iter().map(plain).collect();
        let steps = || lines.iter().flatten().map(|point| point.step);
        let (first, last) = (steps().reduce(f64::min)?, steps().reduce(f64::max)?);
        let x = if first < last { first..last } else { first - 1.0..first + 1.0 };
        let values = |line: &Vec<Point>| (!line.is_empty()).then(|| self.value_domain(line));
        let y = lines.iter().filter_map(values).reduce(|a, b| a.start.min(b.start)..a.end.max(b.end))?;
        let frame = Frame { x, y };

        let mut svg = format!(
            r#"<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{} of {} runs">"#,
            self.metric.name,
            runs.len()
        );
        frame.draw_axes(&mut svg, self.axis);
        for (index, line) in lines.iter().enumerate() {
            let raw: Vec<(f64, f64)> = line.iter().map(|point| (point.step, point.value)).collect();
            if raw.len() >= SMOOTHED_FROM && self.smoothed {
                frame.draw_line(&mut svg, &raw, &format!("raw run-{index}"));
                frame.draw_line(&mut svg, &smooth(&raw), &format!("line run-{index}"));
            } else if !raw.is_empty() {
                frame.draw_line(&mut svg, &raw, &format!("line run-{index}"));
            }
        }
        svg.push_str("</svg>");
        Some(svg)
    }

    /// A note when a band leaves the frame, so that nobody reads its edge as its end.
    pub fn clipping_note(&self, rows: &[Map<String, Value>]) -> Option<String> {
        let points = self.points(rows);
        let domain = self.value_domain(&points);
        let lowest = points.iter().flat_map(|p| &p.bands).map(|b| b.0).fold(f64::INFINITY, f64::min);
        let highest = points.iter().flat_map(|p| &p.bands).map(|b| b.1).fold(f64::NEG_INFINITY, f64::max);
        let beyond: Vec<String> = [
            (lowest < domain.start).then(|| format!("down to {}", self.format(lowest))),
            (highest > domain.end).then(|| format!("up to {}", self.format(highest))),
        ]
        .into_iter()
        .flatten()
        .collect();
        (!beyond.is_empty()).then(|| format!("The outer band leaves the frame: {}.", beyond.join(" and ")))
    }

    fn format(&self, value: f64) -> String {
        match self.axis {
            Axis::Share => percent(value),
            Axis::Plain | Axis::Positive => compact(value),
        }
    }

    /// The finite values, binned when there are many.
    fn points(&self, rows: &[Map<String, Value>]) -> Vec<Point> {
        let all: Vec<Point> = rows
            .iter()
            .filter_map(|row| {
                let value = self.metric.of(row)?;
                let band = |(low, high): &(Metric, Metric)| {
                    (low.of(row).unwrap_or(value), high.of(row).unwrap_or(value))
                };
                Some(Point { step: STEP.of(row)?, value, bands: self.bands.iter().map(band).collect() })
            })
            .collect();
        if all.len() <= MOST_POINTS {
            return all;
        }
        all.chunks(all.len().div_ceil(MOST_POINTS)).map(Point::mean).collect()
    }

    /// Holds the line and the narrowest band whole, and of an outer band what does not flatten them.
    fn value_domain(&self, points: &[Point]) -> Range<f64> {
        if self.axis == Axis::Share {
            let highest = points.iter().map(|p| p.value).fold(0.01, f64::max);
            return 0.0..if highest > 0.5 { 1.0 } else { round_up(highest) };
        }
        let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
        for point in points {
            let inner = point.bands.get(1).copied().unwrap_or((point.value, point.value));
            low = low.min(point.value).min(inner.0);
            high = high.max(point.value).max(inner.1);
        }
        let slack = (high - low).max(1e-12);
        let outer = |p: &Point| p.bands.first().copied().unwrap_or((low, high));
        let lowest = points.iter().map(|p| outer(p).0).fold(low, f64::min);
        let highest = points.iter().map(|p| outer(p).1).fold(high, f64::max);
        low = lowest.max(low - slack);
        high = highest.min(high + slack);
        if self.axis == Axis::Positive {
            low = low.min(0.0);
        }
        if high - low < 1e-12 {
            let margin = (high.abs() * 0.1).max(1e-9);
            return low - margin..high + margin;
        }
        let margin = (high - low) * 0.04;
        let bottom = if self.axis == Axis::Positive && low >= 0.0 { low } else { low - margin };
        bottom..high + margin
    }

    /// A column for each point: hovering it shows the point and its figures.
    fn draw_readouts(&self, svg: &mut String, frame: &Frame, points: &[Point]) {
        for (index, point) in points.iter().enumerate() {
            let at = frame.px(point.step);
            let edge = |other: Option<&Point>, border: f64| {
                other.map_or(border, |o| f64::midpoint(at, frame.px(o.step)))
            };
            let left = edge(index.checked_sub(1).and_then(|i| points.get(i)), LEFT);
            let right = edge(points.get(index + 1), WIDTH - RIGHT);
            let mut text = format!("step {}: {}", point.step.round(), self.format(point.value));
            if let Some(&(low, high)) = point.bands.first() {
                let _ = write!(text, " ({} to {})", self.format(low), self.format(high));
            }
            let _ = write!(
                svg,
                r#"<g class="readout"><rect x="{left:.1}" y="{TOP}" width="{:.1}" height="{:.1}"/><path d="M{at:.1} {TOP}V{:.1}"/><circle cx="{at:.1}" cy="{:.1}" r="3.2"/><text x="{:.1}" y="11" text-anchor="end">{text}</text></g>"#,
                right - left,
                HEIGHT - TOP - BOTTOM,
                HEIGHT - BOTTOM,
                frame.py(point.value),
                WIDTH - RIGHT,
            );
        }
    }
}

impl Point {
    fn mean(points: &[Point]) -> Point {
        let n = points.len() as f64;
        let bands = (0..points[0].bands.len()).map(|band| {
            let low = points.iter().map(|p| p.bands[band].0).fold(f64::INFINITY, f64::min);
            let high = points.iter().map(|p| p.bands[band].1).fold(f64::NEG_INFINITY, f64::max);
            (low, high)
        });
        Point {
            step: points.iter().map(|p| p.step).sum::<f64>() / n,
            value: points.iter().map(|p| p.value).sum::<f64>() / n,
            bands: bands.collect(),
        }
    }
}

/// The ranges of step and value that fill the plot.
pub(super) struct Frame {
    pub x: Range<f64>,
    pub y: Range<f64>,
}

impl Frame {
    pub fn px(&self, step: f64) -> f64 {
        LEFT + (step - self.x.start) / (self.x.end - self.x.start) * (WIDTH - LEFT - RIGHT)
    }

    pub fn py(&self, value: f64) -> f64 {
        TOP + (self.y.end - value) / (self.y.end - self.y.start) * (HEIGHT - TOP - BOTTOM)
    }

    pub fn draw_axes(&self, svg: &mut String, axis: Axis) {
        let bottom = HEIGHT - BOTTOM;
        for (value, label) in ticks(self.y.start, self.y.end) {
            let label = if axis == Axis::Share { percent(value) } else { label };
            let y = self.py(value);
            let _ = write!(
                svg,
                r#"<path class="grid" d="M{LEFT} {y:.1}H{:.1}"/><text class="tick" x="{:.1}" y="{:.1}" text-anchor="end">{label}</text>"#,
                WIDTH - RIGHT,
                LEFT - 6.0,
                y + 3.5
            );
        }
        // Steps are whole numbers: no ticks between them.
        let whole = ticks(self.x.start, self.x.end).into_iter().filter(|(step, _)| step.fract() == 0.0);
        for (step, label) in whole {
            let x = self.px(step);
            let anchor = if x > WIDTH - RIGHT - 12.0 { "end" } else { "middle" };
            let _ = write!(
                svg,
                r#"<path class="axis" d="M{x:.1} {bottom}v4"/><text class="tick" x="{x:.1}" y="{:.1}" text-anchor="{anchor}">{label}</text>"#,
                bottom + 16.0
            );
        }
        let _ = write!(svg, r#"<path class="axis" d="M{LEFT} {bottom}H{:.1}"/>"#, WIDTH - RIGHT);
    }

    /// The bands cut off at the frame.
    fn clip(&self, points: &[Point]) -> Vec<Point> {
        let cut = |value: f64| value.clamp(self.y.start, self.y.end);
        points
            .iter()
            .map(|p| Point {
                bands: p.bands.iter().map(|&(low, high)| (cut(low), cut(high))).collect(),
                ..*p
            })
            .collect()
    }

    fn draw_band(&self, svg: &mut String, points: &[Point], band: usize, class: &str) {
        let upper = points.iter().map(|p| (p.step, p.bands[band].1));
        let lower = points.iter().rev().map(|p| (p.step, p.bands[band].0));
        let outline: Vec<(f64, f64)> = upper.chain(lower).collect();
        let _ = write!(svg, r#"<path class="{class}" d="{}Z"/>"#, self.path(&outline));
    }

    fn draw_line(&self, svg: &mut String, points: &[(f64, f64)], class: &str) {
        let _ = write!(svg, r#"<path class="{class}" d="{}"/>"#, self.path(points));
    }

    pub fn path(&self, points: &[(f64, f64)]) -> String {
        let mut path = String::new();
        for (index, &(step, value)) in points.iter().enumerate() {
            let command = if index == 0 { 'M' } else { 'L' };
            let _ = write!(path, "{command}{:.1} {:.1}", self.px(step), self.py(value));
        }
        path
    }
}

/// A straight line fitted around each point with Gaussian weights, whose width grows with the run.
/// Unlike a plain average it does not bend towards the middle at the ends.
fn smooth(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let sigma = (points.len() as f64 / 25.0).max(1.5);
    let reach = (3.0 * sigma).ceil() as usize;
    let fitted = |center: usize| {
        let window = center.saturating_sub(reach)..(center + reach + 1).min(points.len());
        // Weighted sums of 1, x, x^2, y and xy, x from the centre.
        let (mut s0, mut s1, mut s2, mut sy, mut sxy) = (0.0, 0.0, 0.0, 0.0, 0.0);
        for index in window {
            let x = (index as f64 - center as f64) / sigma;
            let (weight, y) = ((-0.5 * x * x).exp(), points[index].1);
            s0 += weight;
            s1 += weight * x;
            s2 += weight * x * x;
            sy += weight * y;
            sxy += weight * x * y;
        }
        (s2 * sy - s1 * sxy) / (s0 * s2 - s1 * s1)
    };
    points.iter().enumerate().map(|(index, &(step, _))| (step, fitted(index))).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use rlt_method::metrics::REWARD;

    const CHART: Chart = Chart {
        title: "Reward",
        caption: "",
        metric: REWARD.mean,
        bands: &[(REWARD.min, REWARD.max), (REWARD.q25, REWARD.q75)],
        axis: Axis::Plain,
        smoothed: true,
    };

    fn rows(steps: u64, worst: f64) -> Vec<Map<String, Value>> {
        (1..=steps)
            .map(|step| {
                let mean = -1.0 + step as f64 / steps as f64;
                let row = json!({"step": step, "reward_mean": mean, "reward_min": worst, "reward_max": 0.5,
                    "reward_q25": mean - 0.1, "reward_q75": mean + 0.1});
                row.as_object().unwrap().clone()
            })
            .collect()
    }

    #[test]
    fn nothing_to_draw_is_no_chart() {
        assert!(CHART.svg(&[]).is_none());
        let sft = json!({"step": 1, "loss": 2.0}).as_object().unwrap().clone();
        assert!(CHART.svg(&[sft]).is_none());
    }

    #[test]
    fn every_coordinate_is_finite_and_inside() {
        for steps in [1, 2, 11, 12, 1000] {
            let svg = CHART.svg(&rows(steps, -60.0)).unwrap();
            assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
            for attribute in ["cx=\"", "cy=\""] {
                for rest in svg.split(attribute).skip(1) {
                    let value: f64 = rest.split('"').next().unwrap().parse().unwrap();
                    assert!((0.0..=WIDTH).contains(&value), "{value}");
                }
            }
        }
    }

    #[test]
    fn one_bad_sample_does_not_flatten_the_curve_and_is_told() {
        let rows = rows(50, -60.0);
        let domain = CHART.value_domain(&CHART.points(&rows));
        assert!(domain.start > -4.0, "{domain:?}");
        let note = CHART.clipping_note(&rows).unwrap();
        assert_eq!(note, "The outer band leaves the frame: down to −60.0.");
        assert!(CHART.clipping_note(&self::rows(50, -1.5)).is_none());
    }

    #[test]
    fn smoothing_keeps_a_straight_line_to_its_ends() {
        let line: Vec<(f64, f64)> =
            (0..40).map(|step| (f64::from(step), 2.0 - 0.25 * f64::from(step))).collect();
        for (smoothed, given) in smooth(&line).iter().zip(&line) {
            assert!((smoothed.1 - given.1).abs() < 1e-9, "{smoothed:?} {given:?}");
        }
    }

    #[test]
    fn smoothing_takes_half_of_alternating_noise_at_least() {
        let noisy: Vec<(f64, f64)> = (0..40).map(|step| (f64::from(step), f64::from(step % 2))).collect();
        assert!(smooth(&noisy)[5..35].iter().all(|&(_, value)| (value - 0.5).abs() < 0.25));
    }

    #[test]
    fn long_runs_are_binned() {
        assert!(CHART.points(&rows(10_000, -2.0)).len() <= MOST_POINTS);
        assert_eq!(CHART.points(&rows(200, -2.0)).len(), 200);
    }
}
