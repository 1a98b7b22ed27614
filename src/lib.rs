//! ringgate: an API gateway that keeps APIs answering while the services behind them fail.
//!
//! (The architecture document; completed as the rooms are.)

pub mod config;
pub mod control;
pub mod demo;
pub mod error;
pub mod http;
pub mod limits;
pub mod net;
pub mod observe;
pub mod policy;
pub mod units;
pub mod worker;
