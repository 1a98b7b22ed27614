//! HTTP/1.1 as byte tables: what is taken, what is refused, each with its reason and the section it comes from.
//!
//! Every head is also fed one byte at a time and split at every position, through the same scanner that the gateway uses: how bytes
//! arrive must not change what they mean.

mod bodies;
mod encoding;
mod examples;
mod h2;
mod pairs;
mod properties;
mod requests;
mod responses;
mod support;
mod tokens;
