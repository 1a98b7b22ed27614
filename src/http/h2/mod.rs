//! HTTP/2 (RFC 9113) as bytes in, values out: frames, HPACK (RFC 7541), streams, windows, and the bounds that its attacks ask for.
//!
//! In reading order: [`frame`] and [`code`] are what stands on the wire, [`decoder`] turns header blocks into a [`section`] (with
//! `integer`, `huffman`, the two tables, and `name`, which says what a field is), [`request`] makes of that the head that HTTP/1.1 has too,
//! [`respond`] and [`encoder`] write the head of a response. [`connection`] is a client's connection as a whole (`heads` and `control` are its
//! parts, by frame), over `streams`, [`window`], [`settings`] and [`guard`].
//!
//! Downstream only: the gateway is the server here, and `worker::down::h2` is who uses it. Nothing waits, allocates per request in steady state,
//! or reads a clock. The client's side (responses into a head, requests into frames) does not exist yet but for [`section`], which knows
//! both roles.
//!
//! What it does not do: priorities (RFC 9218), pushes, extended CONNECT (RFC 8441).

pub mod code;
pub mod connection;
mod control;
pub mod decoder;
mod dynamic_table;
pub mod encoder;
pub mod frame;
pub mod guard;
mod heads;
mod huffman;
mod integer;
mod name;
mod request;
pub mod respond;
pub mod section;
pub mod settings;
mod static_table;
mod streams;
pub mod window;

pub use dynamic_table::TABLE_BYTES_MAX;
pub use integer::Undecodable;
pub use streams::Stream;
