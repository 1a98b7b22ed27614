//! The real gateway, as a process, against scripted services: what a user would see, on both event loops. One file per feature.

// These tests are a client: they may read the clock and lock.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

mod support;

mod access_log;
mod admin;
mod auth;
mod backpressure;
mod bodies;
mod breaks;
mod command_line;
mod deadlines;
mod demo;
mod departures;
mod descriptors;
mod dnsmasq;
mod drain;
mod duplex;
mod failover;
mod families;
mod files;
mod forbidden;
mod frozen;
mod garbage;
mod harness;
mod headers;
mod health_checks;
mod interim;
mod knobs;
mod limits;
mod lives;
mod messages;
mod misbehaviour;
mod mixture;
mod names;
mod operation;
mod own_log;
mod proxy_protocol;
mod reload;
mod reload_state;
mod reload_traffic;
mod replaced;
mod retries;
mod reuse;
mod routing;
mod sockets;
mod stale;
mod systemd;
mod tls;
mod tokens;
mod tools;
mod tunnels;
mod upgrade;
