//! Draws what `cargo bench --bench decisions` has measured, and what was written down of whole requests and of a soak, into `docs/curves`.
//!
//! No measurement itself: it reads criterion's estimates, `docs/curves/connections.csv` and `soak.csv`, and overwrites the pictures that
//! `docs/performance.md` shows. Does nothing where nothing was measured.

use plotters::prelude::*;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

/// Amount of work, and what one request costs with it.
type Curve = Vec<(f64, f64)>;

const INK: RGBColor = RGBColor(0x20, 0x4a, 0x87);

fn main() -> Result<(), Box<dyn Error>> {
    let pictures = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/curves");
    for (group, title, axis) in [
        ("by_routes", "Decisions of a request by routes", "routes"),
        ("by_endpoints", "Decisions of a request by endpoints of its upstream", "endpoints"),
        ("by_clients", "Decisions of a request by clients with a rate of their own", "clients"),
    ] {
        draw(&pictures.join(format!("{group}.svg")), title, (axis, "ns a request"), &measured(group)?)?;
    }
    soak(&pictures)?;
    let whole = written_down(&pictures.join("connections.csv"))?;
    let title = "CPU of a whole request by connections, each with a request in flight";
    draw(&pictures.join("by_connections.svg"), title, ("connections", "microseconds a request"), &whole)
}

/// Criterion's medians of a group, by parameter.
fn measured(group: &str) -> Result<Curve, Box<dyn Error>> {
    let folder = target().join("criterion").join(group);
    let Ok(entries) = fs::read_dir(&folder) else {
        println!("nothing in {}: run `cargo bench --bench decisions` first", folder.display());
        return Ok(Curve::new());
    };
    let mut curve = Curve::new();
    for entry in entries {
        let entry = entry?;
        let Some(parameter) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let estimates = fs::read_to_string(entry.path().join("new/estimates.json"))?;
        let estimates: serde_json::Value = serde_json::from_str(&estimates)?;
        let median = estimates["median"]["point_estimate"].as_f64().ok_or("no median in the estimates")?;
        curve.push((parameter, median));
    }
    curve.sort_by(|one, other| one.0.total_cmp(&other.0));
    Ok(curve)
}

fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("target"), PathBuf::from)
}

/// Lines of two numbers, behind a line that names them.
fn written_down(file: &Path) -> Result<Curve, Box<dyn Error>> {
    let text = fs::read_to_string(file)?;
    let point = |line: &str| -> Result<(f64, f64), Box<dyn Error>> {
        let (amount, cost) = line.split_once(',').ok_or("a line without a comma")?;
        Ok((amount.trim().parse()?, cost.trim().parse()?))
    };
    text.lines().skip(1).map(point).collect()
}

/// What a gateway held while everything happened to it, a line for each driver; from zero, so that flat looks flat.
fn soak(pictures: &Path) -> Result<(), Box<dyn Error>> {
    const WARM: RGBColor = RGBColor(0xc4, 0x5a, 0x11);
    let text = fs::read_to_string(pictures.join("soak.csv"))?;
    let rows: Vec<Vec<f64>> =
        text.lines().skip(1).map(|line| line.split(',').map(str::parse).collect()).collect::<Result<_, _>>()?;
    let file = pictures.join("soak.svg");
    let area = SVGBackend::new(&file, (720, 480)).into_drawing_area();
    area.fill(&WHITE)?;
    let last = rows.last().map_or(1.0, |row| row[0] / 60.0);
    for (part, (first, title, scale)) in area.split_evenly((3, 1)).iter().zip([
        (1, "resident MiB", 1_024.0),
        (3, "descriptors", 1.0),
        (5, "connection slots", 1.0),
    ]) {
        let top = rows.iter().flat_map(|row| &row[first..first + 2]).copied().fold(0.0, f64::max) / scale * 1.3;
        let mut chart = ChartBuilder::on(part)
            .caption(title, ("sans-serif", 14))
            .margin(8)
            .x_label_area_size(36)
            .y_label_area_size(48)
            .build_cartesian_2d(0.0..last, 0.0..top)?;
        chart.configure_mesh().light_line_style(TRANSPARENT).x_desc("minutes").y_labels(4).draw()?;
        for (column, colour) in [(first, INK), (first + 1, WARM)] {
            let line = rows.iter().map(|row| (row[0] / 60.0, row[column] / scale));
            chart.draw_series(LineSeries::new(line, colour.stroke_width(2)))?;
        }
    }
    area.present()?;
    println!("{}", file.display());
    Ok(())
}

/// One curve over a logarithmic axis; the other begins at zero, so that flat looks flat.
fn draw(file: &Path, title: &str, (across, up): (&str, &str), curve: &Curve) -> Result<(), Box<dyn Error>> {
    let (Some(first), Some(last)) = (curve.first(), curve.last()) else { return Ok(()) };
    let top = curve.iter().map(|point| point.1).fold(0.0, f64::max) * 1.25;
    let area = SVGBackend::new(file, (720, 320)).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .caption(title, ("sans-serif", 16))
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(56)
        .build_cartesian_2d((first.0..last.0 * 1.3).log_scale(), 0.0..top)?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .x_desc(across)
        .y_desc(up)
        .x_label_formatter(&|amount| format!("{amount:.0}"))
        .y_label_formatter(&|cost| format!("{cost:.0}"))
        .draw()?;
    chart.draw_series(LineSeries::new(curve.iter().copied(), INK.stroke_width(2)))?;
    chart.draw_series(curve.iter().map(|point| Circle::new(*point, 4, INK.filled())))?;
    let label = |point: &(f64, f64)| {
        Text::new(
            format!("{:.*}", usize::from(top < 100.0), point.1),
            (point.0, point.1 + top * 0.09),
            ("sans-serif", 12),
        )
    };
    chart.draw_series(curve.iter().map(label))?;
    area.present()?;
    println!("{}", file.display());
    Ok(())
}
