//! Figures as SVG.

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::Results;
use super::tables::shown;
use crate::catalogue::{PLANNED, Unit};

type Drawn = Result<(), Box<dyn std::error::Error>>;

const WIDTH: u32 = 880;
const BAR: i32 = 20;
const LEFT: i32 = 330;
const RIGHT: i32 = 110;
const TOP: i32 = 50;
const FONT: &str = "sans-serif";
const INK: RGBColor = RGBColor(40, 44, 52);
const OURS: RGBColor = RGBColor(31, 119, 180);
const OTHERS: RGBColor = RGBColor(160, 168, 180);
const WAYS: [(&str, RGBColor); 3] = [
    ("strict", RGBColor(44, 160, 44)),
    ("polling", RGBColor(255, 127, 14)),
    ("push", RGBColor(31, 119, 180)),
];

/// All plots, by name.
///
/// # Panics
/// Where a plot cannot be drawn: it is drawn to memory, so that is a defect.
pub(super) fn all(results: &Results) -> Vec<(&'static str, String)> {
    vec![("bounded", bounded(results)), ("strict", strict(results)), ("propagation", propagation(results))]
}

/// One bar.
struct Bar {
    label: String,
    value: Option<f64>,
    is_ours: bool,
}

fn bounded(results: &Results) -> String {
    let mut bars = Vec::new();
    for planned in PLANNED {
        let Some(cell) = planned.cell.filter(|cell| cell.table == "bounded") else { continue };
        if cell.column.contains("one circuit") {
            bars.push(Bar {
                label: format!("{}, {}", cell.row.replace('`', ""), cell.column.replace(", one circuit", "")),
                value: results.figure(planned.id).map(|figure| figure.value),
                is_ours: cell.row.starts_with('`'),
            });
        }
    }
    draw_bars("A no-op through a closed circuit breaker, time a call", &bars, Unit::Nanoseconds, &[])
}

fn strict(results: &Results) -> String {
    let figure = |id: &str| results.figure(id).map(|figure| figure.value);
    let mut bars = Vec::new();
    for (store, name) in [("redis", "Redis"), ("dynamodb", "DynamoDB Local")] {
        let bare = figure(&format!("strict/{store} bare"));
        for (what, is_ours) in [("bare", false), ("adapter", true), ("execute", true)] {
            let value = figure(&format!("strict/{store} {what}"));
            let label = match what {
                "bare" => format!("{name}: its two operations, bare"),
                "adapter" => format!("{name}: load and swap by the adapter"),
                _ => format!("{name}: execute"),
            };
            bars.push(Bar { label, value: value.zip(bare).map(|(value, bare)| value / bare), is_ours });
        }
    }
    let title = "Strict execute, against its own two operations sent bare";
    draw_bars(title, &bars, Unit::Ratio, &[(1.15, "must"), (1.05, "goal")])
}

fn draw_bars(title: &str, bars: &[Bar], unit: Unit, marks: &[(f64, &str)]) -> String {
    let height = TOP + (BAR + 8) * bars.len() as i32 + 20;
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, (WIDTH, height as u32)).into_drawing_area();
        draw_bars_on(&root, height, title, bars, unit, marks).expect("a drawing in memory");
        root.present().expect("a drawing in memory");
    }
    svg
}

fn draw_bars_on(
    root: &DrawingArea<SVGBackend<'_>, Shift>,
    height: i32,
    title: &str,
    bars: &[Bar],
    unit: Unit,
    marks: &[(f64, &str)],
) -> Drawn {
    root.fill(&WHITE)?;
    let text = |size: i32| (FONT, size).into_font().color(&INK);
    root.draw(&Text::new(title.to_owned(), (12, 10), text(17)))?;
    let values = bars.iter().filter_map(|bar| bar.value).chain(marks.iter().map(|(mark, _)| *mark));
    let longest = values.fold(f64::MIN_POSITIVE, f64::max);
    let room = f64::from(WIDTH as i32 - LEFT - RIGHT);
    let x = |value: f64| LEFT + (value / longest * room) as i32;
    for (index, bar) in bars.iter().enumerate() {
        let top = TOP + (BAR + 8) * index as i32;
        let label = text(13).pos(Pos::new(HPos::Right, VPos::Center));
        root.draw(&Text::new(bar.label.clone(), (LEFT - 8, top + BAR / 2), label))?;
        let told = match bar.value {
            Some(value) => {
                let color = if bar.is_ours { OURS } else { OTHERS };
                root.draw(&Rectangle::new([(LEFT, top), (x(value), top + BAR)], color.filled()))?;
                (shown(value, unit), x(value))
            }
            None => ("not measured".to_owned(), LEFT),
        };
        let value = text(13).pos(Pos::new(HPos::Left, VPos::Center));
        root.draw(&Text::new(told.0, (told.1 + 6, top + BAR / 2), value))?;
    }
    for (mark, name) in marks {
        let (at, end) = (x(*mark), height - 18);
        root.draw(&PathElement::new(vec![(at, TOP - 6), (at, end)], INK.stroke_width(1)))?;
        // The names would meet each other on one line.
        let (side, top) = if *name == "must" { (HPos::Left, TOP - 18) } else { (HPos::Right, TOP - 18) };
        root.draw(&Text::new((*name).to_owned(), (at, top), text(12).pos(Pos::new(side, VPos::Top))))?;
    }
    Ok(())
}

fn propagation(results: &Results) -> String {
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, (WIDTH, 360)).into_drawing_area();
        draw_propagation(&root, results).expect("a drawing in memory");
        root.present().expect("a drawing in memory");
    }
    svg
}

/// The share of trips that the other process has seen by some time.
fn draw_propagation(root: &DrawingArea<SVGBackend<'_>, Shift>, results: &Results) -> Drawn {
    root.fill(&WHITE)?;
    let ways: Vec<_> = WAYS
        .iter()
        .map(|(way, color)| (*way, *color, results.points.get(&format!("propagation/{way}"))))
        .collect();
    let in_ms = |values: &Vec<f64>| values.iter().map(|value| value / 1e6).collect::<Vec<_>>();
    let all = ways.iter().filter_map(|(_, _, values)| *values).flat_map(in_ms);
    let longest = all.fold(1.0, f64::max) * 1.05;
    let mut chart = ChartBuilder::on(root)
        .caption(
            "Trips that another process has seen, by the time since they were stored",
            (FONT, 17).into_font().color(&INK),
        )
        .margin(12)
        .x_label_area_size(40)
        .y_label_area_size(50)
        .build_cartesian_2d(0.0..longest, 0.0..100.0)?;
    chart
        .configure_mesh()
        .x_desc("milliseconds")
        .y_desc("percent")
        .label_style((FONT, 13).into_font().color(&INK))
        .light_line_style(TRANSPARENT)
        .draw()?;
    for (index, (way, color, values)) in ways.into_iter().enumerate() {
        let measured = values.filter(|values| !values.is_empty());
        let told = if measured.is_some() { way.to_owned() } else { format!("{way}: not measured") };
        let at = (WIDTH as i32 - 220, 210 + 24 * index as i32);
        root.draw(&Rectangle::new([at, (at.0 + 14, at.1 + 14)], color.filled()))?;
        root.draw(&Text::new(told, (at.0 + 22, at.1), (FONT, 14).into_font().color(&INK)))?;
        let Some(values) = measured else { continue };
        let values = in_ms(values);
        let share = |seen: usize| 100.0 * seen as f64 / values.len() as f64;
        let mut path = vec![(0.0, 0.0)];
        for (index, value) in values.iter().enumerate() {
            path.extend([(*value, share(index)), (*value, share(index + 1))]);
        }
        path.push((longest, 100.0));
        chart.draw_series([PathElement::new(path, color.stroke_width(2))])?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plot_of_nothing_says_that_nothing_was_measured() {
        for (name, svg) in all(&Results::default()) {
            assert!(svg.starts_with("<svg") && svg.contains("not measured"), "{name}: {svg}");
        }
    }

    #[test]
    fn a_plot_shows_what_was_measured() {
        let mut results = Results::default();
        let line = r#"{"figure":{"name":"bounded/recloser 1","unit":"ns","value":5.25,"samples":3}}"#;
        results.add("bounded", line).unwrap();
        let points = r#"{"points":{"name":"propagation/strict","values":[1000000.0,2000000.0]}}"#;
        results.add("propagation", points).unwrap();
        let plots = all(&results);
        assert!(plots[0].1.contains("5.25 ns"), "{}", plots[0].1);
        assert!(!plots[2].1.contains("strict: not measured") && plots[2].1.contains("push: not measured"));
    }
}
