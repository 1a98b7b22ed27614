//! HTTP/2 as byte tables, and beside other implementations of it.

mod cases;
mod differential;
mod flow;
mod frames;
mod heads;
mod priorities;
mod support;
mod vectors;
