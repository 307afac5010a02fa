//! The pictures: drawn from metrics.jsonl, so that they show the whole run however often it was stopped.

mod blocks;
mod loss;

use std::path::Path;

use plotters::backend::SVGBackend;
use plotters::coord::Shift;
use plotters::drawing::{DrawingArea, IntoDrawingArea};
use plotters::style::{RGBColor, WHITE};

use crate::choices::Method;
use crate::error::{Failure, Result};
use crate::fault::Fault;
use crate::files;
use crate::metrics::Line;

pub(crate) use blocks::blocks;
pub(crate) use loss::{Curve, loss};

type Canvas<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn = std::result::Result<(), Box<dyn std::error::Error>>;

const FONT: &str = "sans-serif";
const BLUE: RGBColor = RGBColor(31, 95, 168);
const ORANGE: RGBColor = RGBColor(235, 140, 30);
const INK: RGBColor = RGBColor(40, 44, 52);
const FAINT: RGBColor = RGBColor(236, 238, 242);

/// The last step of which there is a line.
fn last_step(lines: &[Line]) -> usize {
    lines.last().map_or(0, |line| line.step)
}

fn color_of(method: Method) -> RGBColor {
    if method == Method::Adamw { ORANGE } else { BLUE }
}

/// Draws on a white canvas of that size, and puts the picture in its place when it is whole.
fn draw(path: &Path, size: (u32, u32), paint: impl FnOnce(&Canvas<'_>) -> Drawn) -> Result<()> {
    let mut svg = String::new();
    let drawn = {
        let canvas = SVGBackend::with_string(&mut svg, size).into_drawing_area();
        canvas.fill(&WHITE).map_err(Into::into).and_then(|()| paint(&canvas)).and_then(|()| Ok(canvas.present()?))
    };
    drawn.map_err(|error| Failure::new(format!("cannot draw {}: {error}", path.display())))?;
    files::write_whole(path, Fault::None, |out| out.write_all(svg.as_bytes()))
}
