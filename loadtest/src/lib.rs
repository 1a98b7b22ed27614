//! ringgate-load: capacity planning that can be believed.
//!
//! It offers requests to a gateway (any HTTP server) at times that were decided beforehand, measures how long each took from the time it was
//! *due*, looks for the rate at which a percentile is still met, injects faults while it does, and says INVALID rather than print a number
//! it cannot stand behind. This page says where things are; `docs/capacity.md` is for who plans.
//!
//! # The rooms, in reading order
//!
//! | room | what is in it | what is not |
//! |---|---|---|
//! | [`units`] | moments, rates, cores | – |
//! | [`arrivals`] | when each request is due: pure, from a seed | clocks |
//! | [`load`] | a load as it is described: targets and their weights, rate, length, connections, timeout | how it is made |
//! | [`wire`] | HTTP/1.1 as bytes in, outcomes out; the connection that carries it, behind one small interface | when anything is sent |
//! | [`engine`] | one pinned thread per core with an epoll loop of its own, which shares no code with the gateway's | what a result means |
//! | [`bootstrap`] | medians of a handful of runs, with intervals: pure | – |
//! | [`stats`] | histograms, slices of time, failures as infinity, bounds of quantiles: pure | clocks, sockets |
//! | [`search`] | the state machine that looks for capacity: one observation in, the next trial out | clocks, sockets |
//! | [`validity`] | the gates that a number has to pass | – |
//! | [`upstream`] | the built-in services, with faults on command | the generator |
//! | [`processes`] | children that never outlive us, their CPU and memory, ports that stay reserved, fleets of services | what they are for |
//! | [`gateways`] | gateways under test: found, configured, started, reloaded, scraped | judgement of them |
//! | [`machine`], [`hiccups`], [`clock`], [`url`] | what it runs on and how long that stood still, what time it is, where it goes | – |
//! | [`measure`] | what was seen of one load, as results keep it, and whether a trial passes | – |
//! | [`commands`] | the command line: one file a command | – |
//! | [`merge`] | results of several generators as one | – |
//! | [`report`] | what people see of a result: one HTML page, lines for a terminal, the difference between two | judging |
//! | [`plan`] | what is to happen, as a file: read with all its errors at once, and judged against a result | how it is made to happen |
//! | [`drill`] | what a fault drill shows, phase by phase: pure | doing it |
//! | [`sizing`], [`scalability`] | hosts for a peak; how throughput grows with workers: pure | – |
//! | [`result`] | `result.json`: everything that was seen, versioned; every verdict can be made from it again | – |
//!
//! Anything that decides is pure and takes a seed; only [`engine`], [`hiccups`], and who starts or plays a process, reads clocks and touches sockets.

pub mod arrivals;
pub mod bootstrap;
pub mod clock;
pub mod commands;
pub mod drill;
pub mod engine;
pub mod gateways;
pub mod hiccups;
pub mod load;
pub mod machine;
pub mod measure;
pub mod merge;
pub mod plan;
pub mod processes;
pub mod report;
pub mod result;
pub mod scalability;
pub mod search;
pub mod sizing;
pub mod stats;
pub mod units;
pub mod upstream;
pub mod url;
pub mod validity;
pub mod wire;
