//! The plots, as SVG.

use std::ops::Range;
use std::path::Path;

use anyhow::{Result, anyhow};
use plotters::coord::Shift;
use plotters::prelude::*;

use crate::runs::{Done, Table};

type Root<'a> = DrawingArea<SVGBackend<'a>, Shift>;

const COLOURS: [RGBColor; 6] = [
    RGBColor(0x1b, 0x6c, 0xa8),
    RGBColor(0xd1, 0x49, 0x5b),
    RGBColor(0x2e, 0x8b, 0x57),
    RGBColor(0xed, 0xae, 0x49),
    RGBColor(0x6a, 0x4c, 0x93),
    RGBColor(0x55, 0x55, 0x55),
];

/// One line of a plot.
struct Line {
    name: &'static str,
    points: Vec<(f64, f64)>,
}

/// What is beside the axes, and which part is shown.
struct Axes {
    title: &'static str,
    x: &'static str,
    y: &'static str,
    log_x: bool,
}

/// Draws all plots into `folder`.
pub(crate) fn draw(folder: &Path, done: &[Done]) -> Result<()> {
    let commands = |report: &circuitry_simulation::Report| report.calm.sum();
    let timeline = done.iter().filter(|done| done.run.table == Table::Region).map(|done| Line {
        name: done.run.series,
        points: (0_u32..)
            .zip(&done.report.timeline)
            .take(100)
            .map(|(bin, counts)| (f64::from(bin) / 10.0, counts.iter().sum::<u64>() as f64 * 10.0))
            .collect(),
    });
    page(&folder.join("scale-timeline.svg"), 1, |root| {
        let title = "Store commands of the fleet; the region fails from second 1.5 to 3.5";
        let axes = Axes { title, x: "seconds", y: "commands a second", log_x: false };
        chart(&parts(root, 1), 0, &axes, &timeline.collect::<Vec<_>>())
    })?;
    page(&folder.join("scale-staleness.svg"), 2, |root| {
        let halves = parts(root, 2);
        let of = |y: &dyn Fn(&Done) -> f64| lines(done, Table::Staleness, y);
        let axes = Axes {
            title: "What a staleness costs: 1,000 processes, 10,000 circuits",
            x: "max_staleness, milliseconds",
            y: "commands a second",
            log_x: true,
        };
        chart(&halves, 0, &axes, &of(&|done| commands(&done.report)))?;
        let title = "… and what it brings: 99 % of the processes refuse so long after the trip";
        let axes = Axes { title, y: "milliseconds", ..axes };
        chart(&halves, 1, &axes, &of(&|done| done.report.incident.spread_after.p99_us as f64 / 1e3))
    })?;
    page(&folder.join("scale-hot-key.svg"), 2, |root| {
        let halves = parts(root, 2);
        let of = |y: &dyn Fn(&Done) -> f64| lines(done, Table::HotKey, y);
        let axes = Axes {
            title: "Commands on one circuit that all processes use, 20 requests a second each",
            x: "processes",
            y: "commands a second",
            log_x: true,
        };
        chart(&halves, 0, &axes, &of(&|done| commands(&done.report)))?;
        let title = "… and how long 99 % of the swaps take until their outcomes are stored";
        let axes = Axes { title, y: "milliseconds", ..axes };
        chart(&halves, 1, &axes, &of(&|done| done.report.outcomes.told_after_p99_us as f64 / 1e3))
    })
}

/// The runs of a table as lines, in the order of their first points.
fn lines(done: &[Done], table: Table, y: &dyn Fn(&Done) -> f64) -> Vec<Line> {
    let mut lines: Vec<Line> = Vec::new();
    for done in done.iter().filter(|done| done.run.table == table) {
        let point = (done.run.x as f64, y(done));
        match lines.iter_mut().find(|line| line.name == done.run.series) {
            Some(line) => line.points.push(point),
            None => lines.push(Line { name: done.run.series, points: vec![point] }),
        }
    }
    lines
}

fn page(path: &Path, charts: u32, fill: impl FnOnce(&Root<'_>) -> Result<()>) -> Result<()> {
    let root = SVGBackend::new(path, (900, 420 * charts)).into_drawing_area();
    root.fill(&WHITE).map_err(failed)?;
    fill(&root)?;
    root.present().map_err(failed)
}

fn parts<'a>(root: &Root<'a>, charts: usize) -> Vec<Root<'a>> {
    root.split_evenly((charts, 1))
}

fn failed(error: impl std::fmt::Display) -> anyhow::Error {
    anyhow!("a plot could not be drawn: {error}")
}

fn bounds(lines: &[Line], pick: impl Fn(&(f64, f64)) -> f64) -> Range<f64> {
    let points = lines.iter().flat_map(|line| &line.points).map(pick);
    let (least, most) = points.fold((f64::MAX, 1.0_f64), |(least, most), at| (least.min(at), most.max(at)));
    least.min(most / 2.0)..most
}

/// A chart whose y axis is logarithmic.
fn chart(parts: &[Root<'_>], place: usize, axes: &Axes, lines: &[Line]) -> Result<()> {
    let Some(root) = parts.get(place) else { return Ok(()) };
    let (x, y) = (bounds(lines, |point| point.0), bounds(lines, |point| point.1));
    let y = (y.start.max(1.0) / 1.3)..(y.end * 1.3);
    let mut builder = ChartBuilder::on(root);
    builder.caption(axes.title, ("sans-serif", 18)).margin(12).x_label_area_size(42).y_label_area_size(84);
    macro_rules! fill {
        ($x:expr) => {{
            let mut chart = builder.build_cartesian_2d($x, y.log_scale()).map_err(failed)?;
            chart
                .configure_mesh()
                .x_desc(axes.x)
                .y_desc(axes.y)
                .light_line_style(WHITE)
                .x_label_formatter(&|at| format!("{at:.0}"))
                .y_label_formatter(&|at| crate::text::number(*at))
                .draw()
                .map_err(failed)?;
            for (line, colour) in lines.iter().zip(COLOURS.iter().cycle()) {
                let shown = line.points.iter().map(|(x, y)| (*x, y.max(1.0)));
                chart
                    .draw_series(LineSeries::new(shown, colour.stroke_width(2)))
                    .map_err(failed)?
                    .label(line.name)
                    .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2)));
            }
            let position = SeriesLabelPosition::LowerRight;
            chart
                .configure_series_labels()
                .position(position)
                .background_style(WHITE.mix(0.5))
                .draw()
                .map_err(failed)
        }};
    }
    if axes.log_x { fill!(x.log_scale()) } else { fill!(x) }
}
