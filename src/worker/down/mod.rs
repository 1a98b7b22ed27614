//! What is spoken with clients: how a request comes to the line, by protocol.

pub(super) mod h1;
pub(super) mod h2;
