//! Where and how it was measured: the machine, the load, the plan.

use super::markup::Markup;
use super::table::{Cell, Table, Tone};
use super::words;
use super::{Subject, fold, section};
use crate::result::{Described, Environment, Outcome};

/// Writes the section.
pub(super) fn draw(page: &mut Markup, subjects: &[Subject]) {
    section(page, "setting", "How it was measured", |page| {
        for subject in subjects {
            if !subject.name.is_empty() {
                page.leaf("h3", &[], &subject.name);
            }
            let outcome = subject.outcome;
            page.element("div", &[("class", "pair")], |page| {
                list(page, "Load", &load(&outcome.load, outcome));
                list(page, "Machine", &machine(&outcome.environment));
            });
            if outcome.load.targets.len() > 1 {
                mix(&outcome.load).draw(page);
            }
            for remark in &outcome.remarks {
                page.leaf("p", &[("class", "remark")], remark);
            }
            if let Some(plan) = &outcome.plan {
                fold(page, &format!("The plan, {}", plan.name), |page| page.leaf("pre", &[], &plan.text));
            }
        }
        super::drills::metrics(page, subjects);
    });
}

fn list(page: &mut Markup, heading: &str, rows: &[(&str, String)]) {
    page.element("div", &[], |page| {
        page.leaf("h4", &[], heading);
        page.element("dl", &[], |page| {
            for (name, value) in rows.iter().filter(|row| !row.1.is_empty()) {
                page.element("div", &[], |page| {
                    page.leaf("dt", &[], name);
                    page.leaf("dd", &[], value);
                });
            }
        });
    });
}

fn load(load: &Described, outcome: &Outcome) -> Vec<(&'static str, String)> {
    let pace = match load.pace.as_str() {
        "poisson" => "Poisson: independent arrivals, open loop",
        "even" => "evenly spaced, open loop",
        "recorded" => "as recorded, open loop",
        "closed" => "closed loop: saturation",
        other => other,
    };
    let kept = if load.reconnects { "one request each" } else { "kept alive" };
    let connections = match load.connections_max {
        most if most > load.connections => {
            format!("{} to {}, {kept}", words::count(load.connections as u64), words::count(most as u64))
        }
        _ => format!("{}, {kept}", words::count(load.connections as u64)),
    };
    let request = match load.targets.as_slice() {
        [only] if only.body_bytes > 0 => format!("{}, body of {}", only.request, words::bytes(only.body_bytes as u64)),
        [only] => only.request.clone(),
        [] => String::new(),
        several => format!("mix of {} targets", several.len()),
    };
    vec![
        ("Target", load.url.clone()),
        ("Request", request),
        ("Protocol", load.protocol.clone()),
        ("Arrivals", pace.to_owned()),
        ("Connections", connections),
        ("Timeout", if load.timeout > 0.0 { words::bound(load.timeout) } else { String::new() }),
        ("Seed", outcome.seed.to_string()),
    ]
}

fn machine(environment: &Environment) -> Vec<(&'static str, String)> {
    let started_here = |cores: &[usize]| if cores.is_empty() { String::new() } else { words::cores(cores) };
    let number = environment.cores.len() as u64;
    let memory = environment.memory_bytes;
    vec![
        ("Host", environment.host.clone()),
        ("Processor", environment.cpu.clone()),
        (
            "Cores",
            if number > 0 {
                format!("{} ({})", words::count(number), words::cores(&environment.cores))
            } else {
                String::new()
            },
        ),
        ("Generator on", words::cores(&environment.generator_cores)),
        ("Gateway on", started_here(&environment.gateway_cores)),
        ("Upstreams on", started_here(&environment.upstream_cores)),
        ("Memory", if memory > 0 { words::bytes(memory) } else { String::new() }),
        ("Kernel", environment.kernel.clone()),
    ]
}

fn mix(load: &Described) -> Table {
    let mut table = Table::new(&["target", "request", "#share", "#body"]);
    for target in &load.targets {
        table.row(vec![
            target.name.as_str().into(),
            Cell::new(target.request.as_str()).tone(Tone::Faint),
            words::percent(target.share).into(),
            words::bytes(target.body_bytes as u64).into(),
        ]);
    }
    table
}
