//! Lines in panels, as one SVG that needs nothing else.

use std::fmt::Write;

const WIDTH: f64 = 430.0;
const HEIGHT: f64 = 250.0;
const LEFT: f64 = 50.0;
const RIGHT: f64 = 12.0;
const TOP: f64 = 30.0;
const BOTTOM: f64 = 42.0;
const COLUMNS: usize = 2;
const LEGEND: f64 = 34.0;
/// Told apart by those who do not see all colours too (Okabe and Ito's set), the last for whatever comes on top.
const COLOURS: [&str; 8] = [
    "#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#999933", "#666666",
];

/// One set of axes.
#[derive(Default)]
pub struct Panel {
    pub title: String,
    pub x_label: String,
    /// Names and points; a name has one colour in all panels.
    pub lines: Vec<(String, Vec<(f64, f64)>)>,
    /// Places on the x axis that are written there; they lie at equal distances if `by_rank`.
    pub x_marks: Vec<f64>,
    /// x counts by its place among the marks, not by its value.
    pub by_rank: bool,
    /// What is written there instead of the marks, if it is something else.
    pub x_names: Vec<String>,
}

impl Panel {
    fn x(&self, x: f64) -> f64 {
        let at = if self.by_rank {
            let rank = self.x_marks.iter().position(|&mark| mark == x);
            rank.expect("each x is a mark") as f64 / (self.x_marks.len() - 1).max(1) as f64
        } else {
            let (first, last) = (self.x_marks[0], self.x_marks[self.x_marks.len() - 1]);
            (x - first) / (last - first)
        };
        LEFT + at * (WIDTH - LEFT - RIGHT)
    }

    fn draw(&self, names: &[&String], svg: &mut String) -> std::fmt::Result {
        let ys = || {
            self.lines
                .iter()
                .flat_map(|(_, points)| points)
                .map(|point| point.1)
        };
        let span = ys().fold(0.0, f64::max) - ys().fold(100.0, f64::min);
        let step = [1.0, 2.0, 5.0, 10.0, 20.0]
            .into_iter()
            .find(|step| span / step <= 6.0);
        let step = step.unwrap_or(25.0);
        let low = (ys().fold(100.0, f64::min) / step).floor() * step;
        let high = ((ys().fold(0.0, f64::max) / step).ceil() * step).max(low + step);
        let y = |y: f64| TOP + (high - y) / (high - low) * (HEIGHT - TOP - BOTTOM);
        let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
        writeln!(
            svg,
            "<text x=\"{LEFT}\" y=\"18\" class=\"title\">{}</text>",
            self.title
        )?;
        for n in 0..=((high - low) / step).round() as u32 {
            let at = low + f64::from(n) * step;
            writeln!(
                svg,
                "<line class=\"grid\" x1=\"{LEFT}\" y1=\"{0:.1}\" x2=\"{right}\" y2=\"{0:.1}\"/>\
                 <text x=\"{1}\" y=\"{2:.1}\" text-anchor=\"end\">{at} %</text>",
                y(at),
                LEFT - 6.0,
                y(at) + 4.0
            )?;
        }
        for (n, &mark) in self.x_marks.iter().enumerate() {
            let name = self.x_names.get(n).cloned();
            let name = name.unwrap_or_else(|| mark.to_string());
            writeln!(
                svg,
                "<line class=\"grid\" x1=\"{0:.1}\" y1=\"{TOP}\" x2=\"{0:.1}\" y2=\"{bottom}\"/>\
                 <text x=\"{0:.1}\" y=\"{1}\" text-anchor=\"middle\">{name}</text>",
                self.x(mark),
                bottom + 16.0
            )?;
        }
        writeln!(
            svg,
            "<text x=\"{}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
            (LEFT + right) / 2.0,
            HEIGHT - 8.0,
            self.x_label
        )?;
        for (name, points) in &self.lines {
            write!(svg, "<polyline {} points=\"", style(names, name))?;
            for &(px, py) in points {
                write!(svg, "{:.1},{:.1} ", self.x(px), y(py))?;
            }
            writeln!(svg, "\"/>")?;
        }
        Ok(())
    }
}

fn style(names: &[&String], name: &String) -> String {
    let index = names.iter().position(|&known| known == name).unwrap_or(0);
    // Other people's servers are dashed.
    let dash = if name.contains("memcached") {
        " stroke-dasharray=\"6 3\""
    } else {
        ""
    };
    let colour = if dash.is_empty() {
        COLOURS[index % COLOURS.len()]
    } else {
        "#000000"
    };
    format!("class=\"line\" stroke=\"{colour}\"{dash}")
}

/// The panels, two a row, under a legend.
pub fn svg(panels: &[Panel]) -> String {
    let mut names: Vec<&String> = Vec::new();
    for (name, _) in panels.iter().flat_map(|panel| &panel.lines) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let rows = panels.len().div_ceil(COLUMNS) as f64;
    let (width, height) = (WIDTH * COLUMNS as f64, LEGEND + rows * HEIGHT);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" role=\"img\">\n\
         <style>text {{ font: 12px sans-serif; fill: #333; }} .title {{ font-weight: bold; }} \
         .grid {{ stroke: #ddd; }} .line {{ fill: none; stroke-width: 1.8; }}</style>\n\
         <rect width=\"{width}\" height=\"{height}\" fill=\"#fff\"/>\n"
    );
    let mut write = || {
        for (n, name) in names.iter().enumerate() {
            let x = LEFT + n as f64 * (width - LEFT) / names.len().max(4) as f64;
            writeln!(
                svg,
                "<line {} x1=\"{x:.1}\" y1=\"18\" x2=\"{:.1}\" y2=\"18\"/><text x=\"{:.1}\" y=\"22\">{name}</text>",
                style(&names, name),
                x + 22.0,
                x + 27.0
            )?;
        }
        for (n, panel) in panels.iter().enumerate() {
            let (x, y) = (
                (n % COLUMNS) as f64 * WIDTH,
                LEGEND + (n / COLUMNS) as f64 * HEIGHT,
            );
            writeln!(svg, "<g transform=\"translate({x} {y})\">")?;
            panel.draw(&names, &mut svg)?;
            writeln!(svg, "</g>")?;
        }
        writeln!(svg, "</svg>")
    };
    write().expect("a string takes what is written");
    svg
}
