//! The guardian: a process between us and each process that we start, so that nobody outlives us, whatever ends us.
//!
//! ringgate-load is started once more as `guard`. It starts the program in a process group of its own and waits: for the end of its standard
//! input, which is ours to close and is closed by the kernel when we die, even of SIGKILL; for a signal; for the program's end. Then it ends the
//! whole group: SIGTERM, a second later SIGKILL, also for those who left the group, since they become the guardian's children. Should the
//! guardian itself be killed, the kernel sends the program a signal: this can only be arranged from inside, which is why a second `guard`
//! process arranges it and *becomes* the program (so no code runs between fork and exec, which would be unsafe).
//!
//! The program's end is reported at once; the process stays a zombie until the guardian ends, so its number (and its group's) is nobody
//! else's for as long as we may send signals to it.

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{self, Pid, PidfdFlags, Resource, Rlimit, Signal, WaitId, WaitIdOptions, WaitOptions};
use rustix::thread::CpuSet;
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use std::ffi::OsString;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use super::family;
use crate::clock;

/// Between SIGTERM and SIGKILL.
pub(super) const FAREWELL: Duration = Duration::from_secs(1);
/// After SIGKILL: who is in the middle of something uninterruptible takes a moment.
const DEATH: Duration = Duration::from_secs(2);
/// Folders that may be removed are called so.
pub(crate) const FOLDER_PREFIX: &str = "ringgate-load-";
/// The program could not be started (as shells have it).
const EXIT_NO_PROGRAM: u8 = 127;
/// Highest core that can be asked for.
const CORES_MAX: usize = CpuSet::MAX_CPU;

/// Start a program and end it, with all that it starts, when standard input ends (used by ringgate-load itself)
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Guard {
    /// Cores that it may run on, such as 0,1; all without it
    #[arg(long, value_delimiter = ',', value_name = "CORES")]
    pub cores: Vec<usize>,
    /// Its niceness, -20 to 19
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    pub nice: Option<i32>,
    /// Standard input is a socket, which is the program's standard input and output too
    #[arg(long)]
    pub talks: bool,
    /// It has children, which it ends by itself on SIGTERM
    #[arg(long)]
    pub has_children: bool,
    /// A folder that is removed in the end
    #[arg(long, value_name = "FOLDER")]
    pub folder: Option<PathBuf>,
    /// The guardian: become the program
    #[arg(long, value_name = "PID", hide = true)]
    pub inside: Option<u32>,
    /// The program and its arguments
    #[arg(last = true, required = true, value_name = "PROGRAM ARGS")]
    pub command: Vec<OsString>,
}

/// Guards, or becomes the program. Standard output has a line `pid N` when the program is about to start, and a line `ended …` when it
/// has ended.
///
/// # Errors
/// A process cannot be started, or not be waited for.
pub fn guard(arguments: &Guard) -> io::Result<ExitCode> {
    match arguments.inside {
        Some(guardian) => {
            let error = become_program(arguments, guardian);
            eprintln!("{}: {error}", Path::new(&arguments.command[0]).display());
            Ok(ExitCode::from(EXIT_NO_PROGRAM))
        }
        None => {
            let outcome = watch(arguments);
            if let Some(folder) = &arguments.folder {
                remove(folder);
            }
            outcome.map(|()| ExitCode::SUCCESS)
        }
    }
}

/// Returns only when it fails.
fn become_program(arguments: &Guard, guardian: u32) -> io::Error {
    let prepare = || -> io::Result<()> {
        let at_death = if arguments.has_children { Signal::TERM } else { Signal::KILL };
        process::set_parent_process_death_signal(Some(at_death))?;
        // it may have died before that: then somebody else is our parent, and no signal comes
        if std::os::unix::process::parent_id() != guardian {
            return Err(io::Error::other("its guardian is no more"));
        }
        if !arguments.cores.is_empty() {
            pin(&arguments.cores)?;
        }
        if let Some(nice) = arguments.nice {
            process::setpriority_process(None, nice).map_err(|e| io::Error::other(format!("niceness {nice}: {e}")))?;
        }
        // as many descriptors as there may be: whoever needs fewer does not mind
        let most = process::getrlimit(Resource::Nofile).maximum;
        Ok(process::setrlimit(Resource::Nofile, Rlimit { current: most, maximum: most })?)
    };
    match prepare() {
        Err(error) => error,
        Ok(()) => Command::new(&arguments.command[0]).args(&arguments.command[1..]).exec(),
    }
}

fn pin(cores: &[usize]) -> io::Result<()> {
    let mut set = CpuSet::new();
    for core in cores {
        if *core >= CORES_MAX {
            return Err(io::Error::other(format!("there is no core {core}")));
        }
        set.set(*core);
    }
    rustix::thread::sched_setaffinity(None, &set).map_err(|error| {
        let cores: Vec<_> = cores.iter().map(ToString::to_string).collect();
        io::Error::other(format!("it may not run on cores {}: {error}", cores.join(",")))
    })
}

fn watch(arguments: &Guard) -> io::Result<()> {
    // orphans below us become our children: nobody is lost
    process::set_child_subreaper(Some(process::getpid()))?;
    let (told, signals) = UnixStream::pair()?;
    for signal in [SIGTERM, SIGINT, SIGHUP, SIGQUIT] {
        signal_hook::low_level::pipe::register(signal, signals.try_clone()?)?;
    }
    let program = start(arguments)?;
    let pid = Pid::from_child(&program);
    let pidfd = process::pidfd_open(pid, PidfdFlags::empty())?;
    report(&format!("pid {}", program.id()));
    let stdin = io::stdin();
    let mut is_over = false;
    loop {
        // no event is asked for: the end of the other side is always told, and bytes are the program's
        let mut events = vec![PollFd::new(&stdin, PollFlags::empty()), PollFd::new(&told, PollFlags::IN)];
        if !is_over {
            events.push(PollFd::new(&pidfd, PollFlags::IN));
        }
        match poll(&mut events, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        if !is_over && events[2].revents().contains(PollFlags::IN) {
            is_over = true;
            let how = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
            let status = process::waitid(WaitId::PidFd(pidfd.as_fd()), how)?;
            // what it has left behind is of no use to anybody
            kill_all(pid);
            report(&ending(status.as_ref()));
            continue;
        }
        if events[..2].iter().any(|event| !event.revents().is_empty()) {
            break;
        }
    }
    end(pid);
    // whoever inherits us may not ask how they have ended
    while let Ok(Some(_)) = process::waitpid(None, WaitOptions::NOHANG) {}
    Ok(())
}

fn start(arguments: &Guard) -> io::Result<std::process::Child> {
    let mut command = Command::new("/proc/self/exe");
    command.arg0("ringgate-load").arg("guard").arg("--inside").arg(std::process::id().to_string());
    if !arguments.cores.is_empty() {
        let cores: Vec<_> = arguments.cores.iter().map(ToString::to_string).collect();
        command.arg("--cores").arg(cores.join(","));
    }
    if let Some(nice) = arguments.nice {
        command.arg("--nice").arg(nice.to_string());
    }
    if arguments.has_children {
        command.arg("--has-children");
    }
    command.arg("--").args(&arguments.command).process_group(0);
    let copy_of_stdin = || io::stdin().as_fd().try_clone_to_owned().map(Stdio::from);
    if arguments.talks {
        command.stdin(copy_of_stdin()?).stdout(copy_of_stdin()?);
    } else {
        command.stdin(Stdio::null()).stdout(Stdio::from(io::stderr().as_fd().try_clone_to_owned()?));
    }
    command.spawn()
}

/// One line to who has started us; they may be gone.
fn report(line: &str) {
    let mut out = io::stdout();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

fn ending(status: Option<&process::WaitIdStatus>) -> String {
    match status.map(|status| (status.exit_status(), status.terminating_signal())) {
        Some((Some(code), _)) => format!("ended exit {code}"),
        Some((None, Some(signal))) => format!("ended signal {signal}"),
        _ => "ended".to_owned(),
    }
}

/// Asks all of them to end, and kills those who have not done so a second later.
fn end(pid: Pid) {
    let me = std::process::id();
    let nobody_is_left = || family::living_descendants(me).is_empty().then_some(());
    if nobody_is_left().is_some() {
        return;
    }
    // errors: they have gone already. Who is stopped hears nothing before it goes on
    let _ = process::kill_process_group(pid, Signal::TERM);
    let _ = process::kill_process_group(pid, Signal::CONT);
    if clock::wait_for(FAREWELL, nobody_is_left).is_none() {
        kill_all(pid);
    }
}

/// Kills the group, and all of our descendants that are not in it. The leader has not been waited for: the group is still its own.
fn kill_all(pid: Pid) {
    let me = std::process::id();
    let _ = process::kill_process_group(pid, Signal::KILL);
    clock::wait_for(DEATH, || {
        let left = family::living_descendants(me);
        for pid in &left {
            if let Some(pid) = Pid::from_raw(pid.cast_signed()) {
                let _ = process::kill_process(pid, Signal::KILL);
            }
        }
        left.is_empty().then_some(())
    });
}

/// Removes a folder of ours, if it is still there.
fn remove(folder: &Path) {
    let is_ours = folder.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(FOLDER_PREFIX.as_bytes()));
    if is_ours {
        let _ = std::fs::remove_dir_all(folder);
    }
}
