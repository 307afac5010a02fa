//! blocks.svg: when each block was active. Blocks down, steps across.

use std::path::Path;

use plotters::element::{Rectangle, Text};
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{Color, IntoFont, RGBColor};

use super::{BLUE, Canvas, Drawn, FAINT, FONT, INK, ORANGE, draw, last_step};
use crate::choices::Method;
use crate::error::Result;
use crate::metrics::Line;

/// Where the field begins, and how large it is, in pixels.
const LEFT: i32 = 210;
const TOP: i32 = 76;
const WIDTH: i32 = 860;
const ROW: i32 = 14;
const RIGHT: i32 = 70;
const BOTTOM: i32 = 52;

/// A stretch of steps in which a block was as active as that.
#[derive(Debug, PartialEq)]
struct Run {
    block: usize,
    first: usize,
    last: usize,
    whole: bool,
}

/// Draws blocks.svg; `names` and `sizes` are those of the model's blocks.
pub(crate) fn blocks(path: &Path, method: Method, lines: &[Line], blocks: &[(String, usize)]) -> Result<()> {
    let size = ((LEFT + WIDTH + RIGHT) as u32, (TOP + ROW * blocks.len() as i32 + BOTTOM) as u32);
    draw(path, size, |canvas| paint(canvas, method, lines, blocks))
}

fn runs(lines: &[Line], blocks: &[(String, usize)]) -> Vec<Run> {
    let mut done = Vec::new();
    let mut open: Vec<Option<Run>> = blocks.iter().map(|_| None).collect();
    for line in lines {
        for &(block, count) in line.blocks.iter().filter(|(block, _)| *block < blocks.len()) {
            let whole = count == blocks[block].1;
            match &mut open[block] {
                Some(run) if run.last + 1 == line.step && run.whole == whole => run.last = line.step,
                other => done.extend(other.replace(Run { block, first: line.step, last: line.step, whole })),
            }
        }
    }
    done.extend(open.into_iter().flatten());
    done
}

fn text(canvas: &Canvas<'_>, at: (i32, i32), size: i32, hpos: HPos, words: &str) -> Drawn {
    let style = (FONT, size).into_font().color(&INK).pos(Pos::new(hpos, VPos::Center));
    Ok(canvas.draw(&Text::new(words.to_string(), at, style))?)
}

fn fill(canvas: &Canvas<'_>, from: (i32, i32), to: (i32, i32), color: RGBColor) -> Drawn {
    Ok(canvas.draw(&Rectangle::new([from, to], color.filled()))?)
}

fn paint(canvas: &Canvas<'_>, method: Method, lines: &[Line], blocks: &[(String, usize)]) -> Drawn {
    let steps = last_step(lines).max(1);
    let x = |step: usize| LEFT + (step as i64 * i64::from(WIDTH) / steps as i64) as i32;
    let y = |block: usize| TOP + ROW * block as i32;
    let title = format!("{}: which blocks had Adam's state, and when", method.title());
    text(canvas, (LEFT, 22), 20, HPos::Left, &title)?;
    legend(canvas)?;

    let mut active = vec![0; blocks.len()];
    for (block, (name, _)) in blocks.iter().enumerate() {
        fill(canvas, (LEFT, y(block)), (LEFT + WIDTH, y(block) + ROW - 2), FAINT)?;
        let name = name.trim_start_matches("model.").trim_end_matches(".weight");
        text(canvas, (LEFT - 8, y(block) + ROW / 2 - 1), 12, HPos::Right, name)?;
    }
    for run in runs(lines, blocks) {
        let color = if run.whole { BLUE } else { ORANGE };
        fill(canvas, (x(run.first - 1), y(run.block)), (x(run.last), y(run.block) + ROW - 2), color)?;
        active[run.block] += run.last - run.first + 1;
    }
    for (block, active) in active.into_iter().enumerate() {
        let share = format!("{:.0} %", 100.0 * active as f64 / steps as f64);
        text(canvas, (LEFT + WIDTH + RIGHT - 14, y(block) + ROW / 2 - 1), 12, HPos::Right, &share)?;
    }

    let bottom = y(blocks.len()) + 4;
    let every = tick(steps);
    for step in (0..=steps).step_by(every) {
        fill(canvas, (x(step), bottom - 3), (x(step) + 1, bottom + 2), INK)?;
        text(canvas, (x(step), bottom + 11), 12, HPos::Center, &step.to_string())?;
    }
    text(canvas, (LEFT + WIDTH / 2, bottom + 32), 14, HPos::Center, "step")?;
    text(canvas, (LEFT + WIDTH + RIGHT - 14, TOP - 12), 12, HPos::Right, "of steps")
}

fn legend(canvas: &Canvas<'_>) -> Drawn {
    let entries = [(BLUE, "whole block"), (ORANGE, "part of it (masked)"), (FAINT, "without")];
    let mut left = LEFT;
    for (color, words) in entries {
        fill(canvas, (left, 44), (left + 22, 56), color)?;
        text(canvas, (left + 30, 50), 14, HPos::Left, words)?;
        left += 60 + 7 * words.len() as i32;
    }
    Ok(())
}

/// A round distance between ticks, of which there are at most eleven.
fn tick(steps: usize) -> usize {
    let mut distance = 1;
    loop {
        for factor in [1, 2, 5] {
            if steps <= 10 * factor * distance {
                return factor * distance;
            }
        }
        distance *= 10;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(step: usize, blocks: &[(usize, usize)]) -> Line {
        Line {
            step,
            loss: Some(1.0),
            lr: 1.0,
            active: 0,
            blocks: blocks.to_vec(),
            grad_norm: None,
            decision: false,
            skipped: false,
            ms: 1.0,
        }
    }

    #[test]
    fn neighbouring_steps_are_one_stretch() {
        let blocks = [("a".to_string(), 4), ("b".to_string(), 9)];
        let lines = [line(1, &[(0, 4)]), line(2, &[(0, 4), (1, 3)]), line(3, &[(1, 9)]), line(4, &[(0, 4), (1, 9)])];
        let mut runs = runs(&lines, &blocks);
        runs.sort_by_key(|run| (run.block, run.first));
        let run = |block, first, last, whole| Run { block, first, last, whole };
        assert_eq!(runs, [run(0, 1, 2, true), run(0, 4, 4, true), run(1, 2, 2, false), run(1, 3, 4, true)]);
    }

    #[test]
    fn ticks_are_round() {
        assert_eq!([1, 10, 11, 200, 400, 1000, 1001].map(tick), [1, 1, 2, 20, 50, 100, 200]);
    }
}
