//! loss.svg: the losses of all methods over the steps.

use std::path::Path;

use plotters::chart::{ChartBuilder, SeriesLabelPosition};
use plotters::element::{Circle, PathElement};
use plotters::series::LineSeries;
use plotters::style::{Color, IntoFont, WHITE};

use super::{Canvas, Drawn, FAINT, FONT, INK, color_of, draw, last_step};
use crate::choices::Method;
use crate::error::Result;
use crate::metrics::Line;

/// One method's losses.
pub(crate) struct Curve<'a> {
    pub(crate) method: Method,
    pub(crate) lines: &'a [Line],
    /// The held-out loss at the end, where the run has got there.
    pub(crate) held_out: Option<f64>,
}

/// Draws loss.svg.
pub(crate) fn loss(path: &Path, curves: &[Curve<'_>]) -> Result<()> {
    draw(path, (960, 560), |canvas| paint(canvas, curves))
}

fn points(lines: &[Line]) -> Vec<(f64, f64)> {
    lines.iter().filter_map(|line| Some((line.step as f64, line.loss?))).collect()
}

/// The mean over the steps around each: single batches differ too much for two curves to be told apart.
fn smooth(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let reach = (points.len() / 60).max(1);
    let mean = |i: usize| {
        let near = &points[i.saturating_sub(reach)..points.len().min(i + reach + 1)];
        (points[i].0, near.iter().map(|point| point.1).sum::<f64>() / near.len() as f64)
    };
    (0..points.len()).map(mean).collect()
}

fn paint(canvas: &Canvas<'_>, curves: &[Curve<'_>]) -> Drawn {
    let steps = curves.iter().map(|curve| last_step(curve.lines)).max().unwrap_or(0).max(1) as f64;
    let values = || curves.iter().flat_map(|curve| points(curve.lines).into_iter().map(|p| p.1).chain(curve.held_out));
    let (low, high) = values().fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), x| (a.min(x), b.max(x)));
    let (low, high) = if low <= high { (low, high) } else { (0.0, 1.0) };
    let margin = 0.05 * (high - low).max(0.1);
    let mut chart = ChartBuilder::on(canvas)
        .caption("Training loss (faint: single batches) and held-out loss (circles)", (FONT, 20).into_font().color(&INK))
        .margin(16)
        .x_label_area_size(44)
        .y_label_area_size(56)
        .build_cartesian_2d(0.0..steps * 1.01, low - margin..high + margin)?;
    chart
        .configure_mesh()
        .x_desc("step")
        .y_desc("loss, nats a byte")
        .x_label_formatter(&|x| format!("{x:.0}"))
        .y_label_formatter(&|y| format!("{y:.1}"))
        .label_style((FONT, 14).into_font().color(&INK))
        .axis_desc_style((FONT, 16).into_font().color(&INK))
        .bold_line_style(FAINT)
        .light_line_style(WHITE)
        .draw()?;
    for curve in curves {
        let color = color_of(curve.method);
        let points = points(curve.lines);
        chart
            .draw_series(LineSeries::new(smooth(&points), color.stroke_width(2)))?
            .label(label(curve))
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 24, y)], color.stroke_width(3)));
        chart.draw_series(LineSeries::new(points, color.mix(0.25)))?;
        let end = curve.held_out.map(|loss| (last_step(curve.lines) as f64, loss));
        chart.draw_series(end.map(|at| Circle::new(at, 5, color.stroke_width(2))))?;
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .legend_area_size(34)
        .margin(14)
        .background_style(WHITE.mix(0.9))
        .border_style(FAINT)
        .label_font((FONT, 16).into_font().color(&INK))
        .draw()?;
    Ok(())
}

fn label(curve: &Curve<'_>) -> String {
    let held_out = curve.held_out.map_or("not finished".to_string(), |loss| format!("held out {loss:.3}"));
    format!("{}, {held_out}", curve.method.title())
}
