//! The metrics of what the gateway itself is: its configuration, its workers.

use super::Family;
use super::families::{COUNTER, GAUGE};
use super::rows::{event_loop, names, once, per_worker};
use crate::observe::labels::{DriverRung, LookupResult, ReloadResult, WorkerState};
use crate::units::WorkerId;

/// They follow [`super::tls_families::TLS_FAMILIES`].
pub(super) const OWN_FAMILIES: &[Family] = &[
    Family {
        name: "ringgate_build_info",
        help: "Always 1; the labels tell the version.",
        kind: GAUGE,
        rows: once,
        render: |_, _, out| out.sample(&[("version", env!("CARGO_PKG_VERSION"))], 1),
    },
    Family {
        name: "ringgate_config_generation",
        help: "Number of the configuration in use; the one of the start is 1.",
        kind: GAUGE,
        rows: once,
        render: |scrape, _, out| out.sample(&[], scrape.stats.control.reloads.generation()),
    },
    Family {
        name: "ringgate_config_generations_old",
        help: "Configurations before the one in use that something in flight (a request, a tunnel) still uses.",
        kind: GAUGE,
        rows: once,
        render: |scrape, _, out| out.sample(&[], scrape.stats.control.reloads.old()),
    },
    Family {
        name: "ringgate_config_last_reload_success",
        help: "1 when the last reload, or the start, succeeded; 0 when the file was wrong and the configuration before it is still in use.",
        kind: GAUGE,
        rows: once,
        render: |scrape, _, out| out.sample(&[], u8::from(scrape.stats.control.reloads.last_succeeded())),
    },
    Family {
        name: "ringgate_config_last_reload_timestamp_seconds",
        help: "When the configuration in use came into use, since 1970.",
        kind: GAUGE,
        rows: once,
        render: |scrape, _, out| out.sample(&[], scrape.stats.control.reloads.changed_unix_seconds()),
    },
    Family {
        name: "ringgate_config_reloads_total",
        help: "Reloads, by result.",
        kind: COUNTER,
        rows: once,
        render: |scrape, _, out| {
            for result in ReloadResult::ALL {
                out.sample(&[("result", result.token())], scrape.stats.control.reloads.results(*result));
            }
        },
    },
    Family {
        name: "ringgate_name_lookups_total",
        help: "Lookups of names of endpoints, by result.",
        kind: COUNTER,
        rows: names,
        render: |scrape, row, out| {
            let view = &scrape.names[row];
            for result in LookupResult::ALL {
                out.sample(&[("name", &view.name), ("result", result.token())], view.lookups[result.index()]);
            }
        },
    },
    Family {
        name: "ringgate_name_endpoints",
        help: "Endpoints that are known of a name.",
        kind: GAUGE,
        rows: names,
        render: |scrape, row, out| out.sample(&[("name", &scrape.names[row].name)], scrape.names[row].endpoints),
    },
    Family {
        name: "ringgate_name_answer_age_seconds",
        help: "Time since what is known of a name was learned; absent where nothing ever was.",
        kind: GAUGE,
        rows: names,
        render: |scrape, row, out| {
            if let Some(learned) = scrape.names[row].learned {
                out.sample(&[("name", &scrape.names[row].name)], scrape.now.since(learned).as_secs_f64());
            }
        },
    },
    Family {
        name: "ringgate_worker_driver_info",
        help: "Always 1; the label tells the event loop that the worker found.",
        kind: GAUGE,
        rows: per_worker,
        render: |scrape, row, out| {
            let rung = scrape.stats.current(row).event_loop.driver.get();
            let rung = DriverRung::ALL.get(rung as usize).copied().unwrap_or(DriverRung::Unknown);
            out.sample(&[("worker", &row.to_string()), ("driver", rung.token())], 1);
        },
    },
    Family {
        name: "ringgate_worker_running",
        help: "1 while the worker's loop turns, 0 while it starts, has stalled or has stopped.",
        kind: GAUGE,
        rows: per_worker,
        render: |scrape, row, out| {
            let state = scrape.stats.worker(WorkerId::from_index(row)).state;
            out.sample(&[("worker", &row.to_string())], u8::from(state == WorkerState::Running));
        },
    },
    Family {
        name: "ringgate_worker_restarts_total",
        help: "Threads that have taken the place of one that panicked or stalled.",
        kind: COUNTER,
        rows: per_worker,
        render: |scrape, row, out| {
            let restarts = scrape.stats.worker(WorkerId::from_index(row)).restarts;
            out.sample(&[("worker", &row.to_string())], restarts);
        },
    },
    Family {
        name: "ringgate_worker_last_turn_age_seconds",
        help: "Time since the worker's loop last turned.",
        kind: GAUGE,
        rows: per_worker,
        render: |scrape, row, out| {
            if let Some(turn) = scrape.stats.worker(WorkerId::from_index(row)).last_turn {
                out.sample(&[("worker", &row.to_string())], scrape.now.since(turn).as_secs_f64());
            }
        },
    },
    Family {
        name: "ringgate_worker_loop_turns_total",
        help: "Turns of the worker's loop.",
        kind: COUNTER,
        rows: per_worker,
        render: |scrape, row, out| event_loop(scrape, row, out, |stats| stats.turns.get()),
    },
    Family {
        name: "ringgate_worker_panics_total",
        help: "Panics that were caught: in one connection, which ends, or in the worker itself, which is replaced.",
        kind: COUNTER,
        rows: per_worker,
        render: |scrape, row, out| event_loop(scrape, row, out, |stats| stats.panics.get()),
    },
    Family {
        name: "ringgate_worker_log_lines_dropped_total",
        help: "Access log lines that found no room because the writer is behind.",
        kind: COUNTER,
        rows: per_worker,
        render: |scrape, row, out| event_loop(scrape, row, out, |stats| stats.log_lines_dropped.get()),
    },
    Family {
        name: "ringgate_worker_buffers_in_use_bytes",
        help: "Read blocks that connections hold.",
        kind: GAUGE,
        rows: per_worker,
        render: |scrape, row, out| event_loop(scrape, row, out, |stats| stats.buffers_in_use_bytes.get()),
    },
    Family {
        name: "ringgate_worker_buffers_kept_bytes",
        help: "Read blocks kept for reuse.",
        kind: GAUGE,
        rows: per_worker,
        render: |scrape, row, out| event_loop(scrape, row, out, |stats| stats.buffers_kept_bytes.get()),
    },
];
