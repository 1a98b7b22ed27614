//! `ringgate-load upstream`: the built-in service on the command line.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::PathBuf;

use super::control::Control;
use super::instance::Instance;
use super::service::{Service, Time};
use super::words::Misread;

/// Answer requests as a service of known speed does, and fail on command
///
/// Control: one line of text in, one line of JSON out. Lines are: fine, slow 200ms, drip 10ms, error 20%, blackhole, reset, freeze 1.4s
/// (faults; the latest counts), counters, die.
#[derive(Clone, Debug, clap::Args)]
pub struct Upstream {
    /// Where it listens; port 0 for one that is free
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:9001")]
    pub listen: SocketAddr,
    /// How long an answer takes: '5ms', 'lognormal 2ms 20ms' (median, p99) or 'mm1 2000/s' (one server, one queue)
    #[arg(long, value_name = "TIME", default_value = "0")]
    pub time: Time,
    /// Bytes of an answer's body: 0 to 1073741824
    #[arg(long, value_name = "BYTES", default_value_t = 1024, value_parser = body_bytes)]
    pub body: usize,
    /// Of service times and of which answers are errors
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Who commands it: nobody without this, 'unix:/PATH' for anyone who connects there, 'stdio' for who started it
    #[arg(long, value_name = "WHERE", value_parser = control)]
    pub control: Option<Control>,
}

/// Serves as `arguments` say, until it is killed, or standard input ends where that is the control. Where it listens is said on standard
/// output, unless that is the control's.
///
/// # Errors
/// As [`Instance::open`] and [`Instance::serve`].
pub fn command(arguments: &Upstream) -> io::Result<()> {
    let control = arguments.control.clone().unwrap_or(Control::None);
    let service =
        Service { listen: arguments.listen, time: arguments.time, body_bytes: arguments.body, seed: arguments.seed };
    let instance = Instance::open(&service, &control)?;
    if control != Control::Stdio {
        // standard output may be closed: it serves nevertheless
        let _ = writeln!(io::stdout(), "listening on http://{}/, {}", instance.address()?, service.time);
    }
    instance.serve()
}

fn control(text: &str) -> Result<Control, Misread> {
    match text {
        "stdio" => Ok(Control::Stdio),
        _ => match text.strip_prefix("unix:") {
            Some(path) if !path.is_empty() => Ok(Control::Unix(PathBuf::from(path))),
            _ => Err(Misread::new(format!("{text:?} is neither stdio nor a path: unix:/run/upstream.sock?"))),
        },
    }
}

fn body_bytes(text: &str) -> Result<usize, Misread> {
    let bytes = text.parse().map_err(|_| Misread::new(format!("{text:?} is no number of bytes, such as 1024")))?;
    if bytes > Service::BODY_BYTES_MAX {
        return Err(Misread::new(format!("{bytes} bytes are more than 1 GiB")));
    }
    Ok(bytes)
}
