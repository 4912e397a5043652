//! Figures in target/bench as pictures: bars side by side, with quartiles.

use std::{fs, path::Path};

use anyhow::{Context as _, Result, anyhow, ensure};
use plotters::{
    prelude::{
        BLACK, Circle, Color as _, IntoDrawingArea as _, PathElement, RGBColor, Rectangle, SVGBackend, Text,
        WHITE,
    },
    style::{
        IntoFont as _,
        text_anchor::{HPos, Pos, VPos},
    },
};
use serde_json::Value;

use crate::step::say;

const WIDTH: i32 = 860;
/// Where bars begin, and how long the longest is.
const LEFT: i32 = 210;
const LONGEST: i32 = 440;
const ROW: i32 = 20;

const OURS: RGBColor = RGBColor(0x1f, 0x77, 0xb4);
const OTHERS: RGBColor = RGBColor(0xb0, 0xb0, 0xb0);

struct Bar {
    label: String,
    value: f64,
    /// A quarter of the rounds gave less, and a quarter more.
    quartiles: (f64, f64),
    note: String,
    ours: bool,
}

/// Bars on one scale.
struct Group {
    title: String,
    bars: Vec<Bar>,
}

/// Draws what there is.
///
/// # Errors
///
/// There are no figures, or they are of another form; a picture cannot be written.
pub(super) fn draw(figures: &Path, docs: &Path) -> Result<()> {
    type Groups = fn(&[Value]) -> Result<Vec<Group>>;
    let all: [(&str, &str, Groups); 3] = [
        ("answer", "ns for one frame, under BPF_PROG_TEST_RUN (less is better)", answer),
        ("flood", "ns of CPU for one answer, over veth, net of the generator (less is better)", flood),
        ("collateral", "Others' traffic through the interface, on one CPU", collateral),
    ];
    let mut drawn = 0;
    for (name, title, groups) in all {
        let path = figures.join(format!("{name}.json"));
        if !path.is_file() {
            continue;
        }
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let figures: Value = serde_json::from_str(&text)?;
        let machine = &figures["machine"];
        let word = |key: &str| machine[key].as_str().unwrap_or("?").to_owned();
        let below =
            format!("{}, kernel {}, {}; medians and quartiles", word("date"), word("kernel"), word("cpu"));
        let rows = figures["rows"].as_array().with_context(|| format!("no rows in {}", path.display()))?;
        let picture = docs.join(format!("benchmarks-{name}.svg"));
        chart(&picture, title, &below, &groups(rows)?)?;
        say(picture.display().to_string());
        drawn += 1;
    }
    ensure!(drawn > 0, "no figures in {}: run `cargo xtask bench` first", figures.display());
    Ok(())
}

fn text(row: &Value, key: &str) -> Result<String> {
    Ok(row[key].as_str().with_context(|| format!("no {key} in {row}"))?.to_owned())
}

fn bar(label: String, stats: &Value, note: String, ours: bool) -> Result<Bar> {
    let number = |value: &Value| value.as_f64().with_context(|| format!("no figures in {stats}"));
    let quartiles = (number(&stats["quartiles"][0])?, number(&stats["quartiles"][1])?);
    Ok(Bar { label, value: number(&stats["median"])?, quartiles, note, ours })
}

/// Puts a bar into the group of this title, which may be a new one.
fn push(groups: &mut Vec<Group>, title: &str, bar: Bar) {
    match groups.iter_mut().find(|group| group.title == title) {
        Some(group) => group.bars.push(bar),
        None => groups.push(Group { title: title.to_owned(), bars: vec![bar] }),
    }
}

fn answer(rows: &[Value]) -> Result<Vec<Group>> {
    let mut groups = vec![];
    for row in rows {
        let against = text(row, "reference")?;
        let (title, note) = match against.as_str() {
            "nothing" => ("Parts of an answer, each with a program around it".to_owned(), String::new()),
            _ => {
                let ratio = row["ratio"]["median"].as_f64().context("no ratio")?;
                (format!("{} VIPs", row["vips"]), format!("{ratio:.1} × {against}"))
            }
        };
        push(&mut groups, &title, bar(text(row, "what")?, &row["ns"], note, true)?);
    }
    Ok(groups)
}

fn flood(rows: &[Value]) -> Result<Vec<Group>> {
    let mut groups = vec![];
    for row in rows {
        let by = text(row, "by")?;
        if by.starts_with("(dropped)") {
            continue;
        }
        let ours = by.starts_with("responder");
        let times = row["times_responder"]["median"].as_f64();
        let note = times.filter(|_times| !ours).map(|times| format!("{times:.1} ×")).unwrap_or_default();
        push(&mut groups, &text(row, "question")?, bar(by, &row["net_ns"], note, ours)?);
    }
    Ok(groups)
}

fn collateral(rows: &[Value]) -> Result<Vec<Group>> {
    let mut groups = vec![];
    let kinds = [
        ("TCP, Gbit/s (more is better)", "tcp_gigabits"),
        ("Frames of 64 bytes a second (more is better)", "small_packets"),
        ("Round trip, µs (less is better)", "round_trip_us"),
    ];
    for (title, key) in kinds {
        for row in rows {
            let on = text(row, "on_the_interface")?;
            let label = format!("{on}, {}", text(row, "flood")?);
            push(&mut groups, title, bar(label, &row[key], String::new(), on == "responder")?);
        }
    }
    Ok(groups)
}

fn number(value: f64) -> String {
    match value.abs() {
        much if much >= 10_000.0 => format!("{:.0} k", value / 1e3),
        much if much >= 100.0 => format!("{value:.0}"),
        _ => format!("{value:.1}"),
    }
}

fn chart(path: &Path, title: &str, below: &str, groups: &[Group]) -> Result<()> {
    let rows: usize = groups.iter().map(|group| group.bars.len() + 2).sum();
    let height = 60 + ROW * i32::try_from(rows)?;
    let area = SVGBackend::new(path, (WIDTH.cast_unsigned(), height.cast_unsigned())).into_drawing_area();
    let bad = |error: &dyn std::fmt::Display| anyhow!("cannot draw {}: {error}", path.display());
    area.fill(&WHITE).map_err(|error| bad(&error))?;
    let write = |words: &str, at: (i32, i32), size: i32, right: bool| {
        let place = Pos::new(if right { HPos::Right } else { HPos::Left }, VPos::Center);
        let style = ("sans-serif", size).into_font().color(&BLACK).pos(place);
        area.draw(&Text::new(words.to_owned(), at, style)).map_err(|error| bad(&error))
    };
    write(title, (12, 18), 16, false)?;
    write(below, (12, 38), 11, false)?;
    let mut y = 60;
    for group in groups {
        write(&group.title, (12, y + ROW / 2), 13, false)?;
        y += ROW;
        let most =
            group.bars.iter().map(|bar| bar.value.max(bar.quartiles.1)).fold(f64::MIN_POSITIVE, f64::max);
        let x = |value: f64| LEFT + (value.max(0.0) / most * f64::from(LONGEST)).round() as i32;
        for bar in &group.bars {
            let middle = y + ROW / 2;
            let color = if bar.ours { OURS } else { OTHERS };
            let body = Rectangle::new([(LEFT, y + 3), (x(bar.value), y + ROW - 3)], color.filled());
            area.draw(&body).map_err(|error| bad(&error))?;
            let (low, high) = (x(bar.quartiles.0), x(bar.quartiles.1));
            let spread = PathElement::new(vec![(low, middle), (high, middle)], BLACK.mix(0.7));
            area.draw(&spread).map_err(|error| bad(&error))?;
            area.draw(&Circle::new((x(bar.value), middle), 1, BLACK.filled()))
                .map_err(|error| bad(&error))?;
            write(&bar.label, (LEFT - 8, middle), 12, true)?;
            let words = [number(bar.value), bar.note.clone()].join("   ");
            write(words.trim_end(), (high.max(x(bar.value)) + 8, middle), 12, false)?;
            y += ROW;
        }
        y += ROW;
    }
    area.present().map_err(|error| bad(&error))
}
