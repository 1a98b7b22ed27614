//! Where the command line meets the gateway itself.
//!
//! MERGE: these two functions are the only open ends of the command line; their bodies become calls of the control plane
//! (`ringgate::control::supervisor::run`) and of the demo (`ringgate::demo::run`). What they say in an error is shown to the operator as
//! it is, and the exit code is 3.

use anyhow::bail;
use ringgate::config::Config;

/// MERGE: `ringgate::control::supervisor::run(config)`. Returns after a drain.
pub(crate) fn run(config: Config) -> anyhow::Result<()> {
    let binds = config.listeners.iter().map(|listener| listener.bind.to_string()).collect::<Vec<_>>().join(", ");
    bail!("cannot listen on {binds}: this build has no data plane")
}

/// MERGE: `ringgate::demo::run(&Options { seconds }, …)`. Returns when it was ended.
pub(crate) fn demo(seconds: Option<u64>) -> anyhow::Result<()> {
    let _ = seconds;
    bail!("cannot run the demo: this build has no data plane")
}
