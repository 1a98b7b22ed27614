//! One command from its start to its exit code.

use super::bench::Process;
use super::options::OutputOptions;
use super::progress::Progress;
use crate::clock;
use crate::engine::Watch;
use crate::machine;
use crate::plan::{self, About, Plan, Thresholds};
use crate::result::{Outcome, SCHEMA};
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::OnceLock;

/// Bytes of a result that is read; a day in slices of a tenth of a second has about a fifth of that.
const RESULT_BYTES_MAX: u64 = 1 << 30;

/// What a command was asked to do cannot be done: exit code 2, and this sentence.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Refusal(pub String);

impl From<String> for Refusal {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl From<crate::engine::Error> for Refusal {
    fn from(error: crate::engine::Error) -> Self {
        Self(error.to_string())
    }
}

/// A command under way.
#[derive(Debug)]
pub struct Session {
    /// Set by Ctrl-C; a second one ends the process at once.
    pub watch: Watch,
    /// What is said meanwhile.
    pub progress: Progress,
    /// What has been seen so far.
    pub outcome: Outcome,
    output: OutputOptions,
}

/// Listens to SIGINT and SIGTERM from the first call on: the first of them stops what this returns, a second one ends the process at once. To
/// be called before anything is started, because who runs in the background has SIGINT ignored otherwise.
///
/// # Errors
/// The system does not let it.
pub fn listen() -> Result<Watch, Refusal> {
    static WATCH: OnceLock<Watch> = OnceLock::new();
    if let Some(watch) = WATCH.get() {
        return Ok(watch.again());
    }
    machine::take_descriptors();
    let watch = WATCH.get_or_init(Watch::default);
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        // in this order, so that the first one only sets the flag
        let told = signal_hook::flag::register_conditional_shutdown(signal, 128 + signal, watch.stop_flag())
            .and_then(|_| signal_hook::flag::register(signal, watch.stop_flag()));
        told.map_err(|error| Refusal(format!("cannot listen to signals: {error}")))?;
    }
    Ok(watch.again())
}

impl Session {
    /// Begins; listens to signals if nobody did before.
    ///
    /// # Errors
    /// The system does not let it.
    pub fn begin(command: &str, title: String, output: &OutputOptions) -> Result<Self, Refusal> {
        let watch = listen()?;
        // what cannot be written is said before minutes have gone into it
        [&output.json, &output.html].into_iter().flatten().try_for_each(|file| can_write(file))?;
        let outcome = Outcome {
            schema: SCHEMA,
            tool: env!("CARGO_PKG_VERSION").to_owned(),
            command: command.to_owned(),
            title,
            started: clock::wall(),
            environment: machine::environment(),
            ..Outcome::default()
        };
        Ok(Self { watch, progress: Progress::new(output.quiet), outcome, output: output.clone() })
    }

    /// Keeps what has to hold, and what of it is not judged, with the result.
    pub fn holds_to(&mut self, thresholds: &Thresholds, remarks: Vec<String>) {
        self.outcome.thresholds = thresholds.clone();
        self.outcome.remarks.extend(remarks);
    }

    /// Whether a gateway lives; that it does not is left in the result.
    pub fn lives(&mut self, name: &str, process: &mut dyn Process) -> bool {
        let how = process.ended();
        if let Some(how) = &how {
            self.outcome.gateway_died(name, how);
        }
        how.is_none()
    }

    /// Writes what was asked for, says what came of it, and ends with its code.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn end(mut self) -> Result<ExitCode, Refusal> {
        self.outcome.finished = clock::wall();
        self.outcome.is_partial |= self.watch.is_stopped();
        let Self { outcome, output, .. } = self;
        let json =
            output.json.as_deref().map(|file| write(file, &serde_json::to_string(&outcome).expect("a result is data")));
        let html = output.html.as_deref().map(|file| write(file, &crate::report::html(std::slice::from_ref(&outcome))));
        // what was measured is said also when a file could not be written
        print(crate::report::text(&outcome).trim_end());
        [json, html].into_iter().flatten().collect::<Result<(), _>>()?;
        Ok(ExitCode::from(outcome.exit_code()))
    }
}

/// What has to hold: what a plan says, with what a file says instead. `judged` is what the command can judge; what the file says besides becomes a
/// remark of the result.
///
/// # Errors
/// The file cannot be read, has mistakes, or says nothing that is judged: a check that cannot fail is none.
pub fn thresholds(
    plan: Option<&Plan>,
    output: &OutputOptions,
    judged: &[About],
) -> Result<(Thresholds, Vec<String>), Refusal> {
    let of_plan = plan.map(|plan| plan.thresholds.clone()).unwrap_or_default();
    let Some(file) = &output.thresholds else { return Ok((of_plan, Vec::new())) };
    let name = file.display().to_string();
    let text = ringgate::config::reading::text_of(file, "thresholds are a TOML file: see docs/capacity.md");
    let text = text.map_err(|errors| Refusal(errors.to_string()))?;
    let of_file = plan::thresholds(&name, &text).map_err(|errors| Refusal(errors.to_string()))?;
    let (those, others) = of_file.keys(judged);
    if those.is_empty() {
        let said = if others.is_empty() { "no threshold".to_owned() } else { others.join(", ") };
        return Err(Refusal(format!("{name} says {said}: this command judges nothing of that")));
    }
    let unjudged = (!others.is_empty()).then(|| format!("{name}: this command does not judge {}", others.join(", ")));
    Ok((of_plan.overlaid(&of_file), unjudged.into_iter().collect()))
}

/// A line to standard output; whoever read it may have gone, which is no reason to end with a panic.
pub fn print(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

/// Where a file is written first, so that nobody sees half of it.
fn beside(file: &Path) -> PathBuf {
    let mut beside = file.as_os_str().to_owned();
    beside.push(".new");
    beside.into()
}

fn unwritable(file: &Path, error: &std::io::Error) -> Refusal {
    Refusal(format!("cannot write {}: {error}", file.display()))
}

/// Whether a file can be written later, as far as that can be known now.
fn can_write(file: &Path) -> Result<(), Refusal> {
    if file.is_dir() {
        return Err(unwritable(file, &std::io::ErrorKind::IsADirectory.into()));
    }
    if !is_replaced(file) {
        return Ok(());
    }
    let beside = beside(file);
    let tried = std::fs::File::create(&beside).and_then(|_| std::fs::remove_file(&beside));
    tried.map_err(|error| unwritable(file, &error))
}

/// Whether another file may take this one's place: a device, a pipe or a link stays what it is (`--json /dev/stdout`).
fn is_replaced(file: &Path) -> bool {
    std::fs::symlink_metadata(file).map_or(true, |kind| kind.is_file())
}

/// Writes a file as a whole, or leaves what was there.
///
/// # Errors
/// It cannot be written; says which and why.
pub fn write(file: &Path, text: &str) -> Result<(), Refusal> {
    if !is_replaced(file) {
        return std::fs::write(file, text).map_err(|error| unwritable(file, &error));
    }
    let beside = beside(file);
    let written = std::fs::write(&beside, text).and_then(|()| std::fs::rename(&beside, file));
    written.map_err(|error| {
        let _ = std::fs::remove_file(&beside);
        unwritable(file, &error)
    })
}

/// Reads a result.
///
/// # Errors
/// It cannot be read, or is no result of this version.
pub fn read(file: &Path) -> Result<Outcome, Refusal> {
    let refused = |why: String| Refusal(format!("{}: {why}", file.display()));
    let mut text = String::new();
    let taken = plan::regular(file).and_then(|file| file.take(RESULT_BYTES_MAX + 1).read_to_string(&mut text));
    taken.map_err(|error| refused(error.to_string()))?;
    if text.len() as u64 > RESULT_BYTES_MAX {
        return Err(refused(format!("larger than {} MiB, which no result is", RESULT_BYTES_MAX >> 20)));
    }
    let outcome: Outcome = serde_json::from_str(&text).map_err(|error| refused(format!("no result: {error}")))?;
    if outcome.schema != SCHEMA {
        return Err(refused(format!("a result of schema {}, and this version reads {SCHEMA}", outcome.schema)));
    }
    Ok(outcome)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_as_a_whole_and_what_is_no_file_stays_what_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let (file, link) = (folder.path().join("result.json"), folder.path().join("link"));
        std::fs::write(&file, "old and longer").unwrap();
        write(&file, "new").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        can_write(&link).unwrap();
        write(&link, "newer").unwrap();
        assert!(std::fs::symlink_metadata(&link).unwrap().is_symlink(), "as /dev/stdout is one");
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "newer");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2, "nothing is left beside them");
        assert!(read(Path::new("/dev/zero")).unwrap_err().0.contains("regular"), "it has no end");
        assert!(can_write(&folder.path().join("nowhere/x")).is_err() && can_write(folder.path()).is_err());
    }
}
