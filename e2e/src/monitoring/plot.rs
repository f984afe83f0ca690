//! A plot of series as SVG.

use std::fmt::Write;

use super::Samples;

/// One plot among others.
#[derive(Clone, Debug)]
pub struct Plot {
    /// Above it.
    pub title: String,
    /// Each line with its name.
    pub lines: Vec<(String, Samples)>,
}

const COLUMNS: usize = 2;
const WIDTH: f64 = 460.0;
const HEIGHT: f64 = 200.0;
/// Around what is drawn in.
const TOP: f64 = 26.0;
const RIGHT: f64 = 14.0;
const BOTTOM: f64 = 54.0;
const LEFT: f64 = 50.0;
const COLOURS: [&str; 8] = [
    "#1f77b4", "#d62728", "#2ca02c", "#ff7f0e", "#9467bd", "#8c564b", "#17becf", "#7f7f7f",
];
/// More lines are not told apart.
const MOST_LINES: usize = 8;

/// All of them over the same time, in seconds since 1970, with a line of text below.
pub fn svg(plots: &[Plot], from: f64, to: f64, below: &str) -> String {
    let rows = plots.len().div_ceil(COLUMNS);
    let (width, height) = (WIDTH * float(COLUMNS), HEIGHT * float(rows) + 24.0);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" font-size=\"11\">\n\
         <rect width=\"{width}\" height=\"{height}\" fill=\"#ffffff\"/>\n"
    );
    for (i, plot) in plots.iter().enumerate() {
        let (x, y) = (WIDTH * float(i % COLUMNS), HEIGHT * float(i / COLUMNS));
        draw(&mut svg, plot, x, y, from, to);
    }
    let _ = writeln!(
        svg,
        "<text x=\"{}\" y=\"{}\" fill=\"#555555\">{}</text>\n</svg>",
        LEFT,
        height - 8.0,
        text(below)
    );
    svg
}

// Writing into a String can't fail.
fn draw(svg: &mut String, plot: &Plot, x: f64, y: f64, from: f64, to: f64) {
    let highest = plot
        .lines
        .iter()
        .flat_map(|(_, samples)| samples.iter().map(|(_, value)| *value))
        .filter(|value| value.is_finite())
        .fold(0.0, f64::max);
    let top = round_up(highest);
    let (left, right) = (x + LEFT, x + WIDTH - RIGHT);
    let (high, low) = (y + TOP, y + HEIGHT - BOTTOM);
    let _ = writeln!(
        svg,
        "<text x=\"{left}\" y=\"{}\" font-size=\"13\" font-weight=\"bold\">{}</text>",
        y + 16.0,
        text(&plot.title)
    );
    for (share, value) in [(0.0, 0.0), (0.5, top / 2.0), (1.0, top)] {
        let at = low - (low - high) * share;
        let _ = writeln!(
            svg,
            "<path d=\"M{left} {at}H{right}\" stroke=\"#dddddd\"/><text x=\"{}\" y=\"{}\" text-anchor=\"end\" fill=\"#555555\">{}</text>",
            left - 5.0,
            at + 4.0,
            short(value)
        );
    }
    let seconds = to - from;
    for share in [0.0, 0.5, 1.0] {
        let _ = writeln!(
            svg,
            "<text x=\"{}\" y=\"{}\" text-anchor=\"middle\" fill=\"#555555\">{:.0} s</text>",
            left + (right - left) * share,
            low + 14.0,
            seconds * share
        );
    }
    let mut named = left;
    for ((name, samples), colour) in plot.lines.iter().take(MOST_LINES).zip(COLOURS) {
        let mut path = String::new();
        let mut before = None;
        for (time, value) in samples.iter().filter(|(_, value)| value.is_finite()) {
            let px = left + (right - left) * (time - from) / seconds;
            let py = low - (low - high) * value / top;
            // Where there was nothing, nothing is drawn.
            let is_next = before.is_some_and(|before| time - before < 1.5);
            let _ = write!(path, "{}{px:.1} {py:.1}", if is_next { "L" } else { "M" });
            before = Some(time);
        }
        let _ = writeln!(
            svg,
            "<path d=\"{path}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.5\"/>"
        );
        let width = 6.6 * float(name.chars().count()) + 18.0;
        if named + width <= right {
            let _ = writeln!(
                svg,
                "<rect x=\"{named:.1}\" y=\"{}\" width=\"8\" height=\"8\" fill=\"{colour}\"/><text x=\"{:.1}\" y=\"{}\">{}</text>",
                low + 24.0,
                named + 11.0,
                low + 32.0,
                text(name)
            );
            named += width;
        }
    }
}

/// A number of the form 1, 2 or 5 times a power of ten that is not below.
fn round_up(highest: f64) -> f64 {
    if highest <= 0.0 {
        return 1.0;
    }
    let power = 10_f64.powf(highest.log10().floor());
    let steps = [1.0, 2.0, 5.0, 10.0];
    let found = steps
        .map(|step| step * power)
        .into_iter()
        .find(|step| *step >= highest);
    found.unwrap_or(highest)
}

fn short(value: f64) -> String {
    for (unit, size) in [("Ti", 1_u64 << 40), ("Gi", 1 << 30), ("Mi", 1 << 20)] {
        #[expect(clippy::cast_precision_loss, reason = "powers of two")]
        let size = size as f64;
        if value >= size {
            return format!("{:.1}{unit}", value / size);
        }
    }
    format!("{}", (value * 1000.0).round() / 1000.0)
}

fn text(words: &str) -> String {
    words
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[expect(clippy::cast_precision_loss, reason = "there are few of them")]
fn float(count: usize) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_drawn_where_there_are_samples() {
        let plot = Plot {
            title: "a < b".into(),
            lines: vec![("one".into(), vec![(0.0, 0.0), (1.0, 3.0), (9.0, 1.0)])],
        };
        let drawn = svg(&[plot], 0.0, 10.0, "below");
        assert!(
            drawn.contains("a &lt; b") && drawn.contains(">below</text>"),
            "{drawn}"
        );
        assert!(
            drawn.contains("d=\"M50.0 146.0L89.6 74.0M406.4 122.0\""),
            "{drawn}"
        );
        let steps = [0.0, 0.3, 3.0, 11.0].map(|value| short(round_up(value)));
        assert_eq!(steps, ["1", "0.5", "5", "20"]);
        assert_eq!(short(1024.0 * 1024.0 * 1536.0), "1.5Gi");
    }
}
