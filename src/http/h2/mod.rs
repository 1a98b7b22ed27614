//! HTTP/2 (RFC 9113) as bytes in, values out: frames, HPACK (RFC 7541), streams, windows, and the bounds that its attacks ask for.
//!
//! In reading order: [`frame`] and [`code`] are what stands on the wire, [`decoder`] turns header blocks into a [`section`] (with
//! `integer`, `huffman`, the two tables, and `name`, which says what a field is), [`request`] makes of that the head that HTTP/1.1 has too,
//! [`respond`] and [`encoder`] write the head of a response. [`connection`] is a client's connection as a whole (`heads` and `control` are its
//! parts, by frame), over `streams`, [`window`], [`settings`] and [`guard`].
//!
//! The gateway is the server of its clients, and [`ask`] makes it the client of an endpoint on the same [`connection`]. There, requests come
//! from the line as HTTP/1.1 writes them, and [`upward`] makes frames of that. Who uses them are `worker::down::h2` and `worker::up::h2`. Nothing
//! waits, allocates per request in steady state, or reads a clock.
//!
//! An extended CONNECT (RFC 8441) is to everybody above what a WebSocket's Upgrade is on HTTP/1.1; [`request`] and [`upward`] translate.
//!
//! What is sent first where a client has said what is urgent (RFC 9218, [`priority`]) is for who sends it. What it does not do: pushes.

pub mod ask;
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
pub mod priority;
mod request;
pub mod respond;
pub mod section;
pub mod settings;
mod static_table;
mod streams;
pub mod upward;
pub mod window;

pub use dynamic_table::TABLE_BYTES_MAX;
pub use integer::Undecodable;
pub use streams::Stream;
