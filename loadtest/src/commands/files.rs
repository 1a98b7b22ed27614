//! `report`, `compare` and `merge`: what is made of results that are there.

use super::session::{Refusal, print, read, write};
use crate::merge;
use crate::report;
use clap::Args;
use std::path::PathBuf;
use std::process::ExitCode;

/// Results as one page.
#[derive(Clone, Debug, Args)]
pub struct ReportOptions {
    /// Results, as --json wrote them.
    #[arg(required = true)]
    results: Vec<PathBuf>,
    /// The page.
    #[arg(long, short, default_value = "report.html")]
    output: PathBuf,
}

/// Two results beside each other.
#[derive(Clone, Debug, Args)]
pub struct CompareOptions {
    /// What it was.
    before: PathBuf,
    /// What it is.
    after: PathBuf,
    /// A page of it.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

/// Results of several generator hosts, as one.
#[derive(Clone, Debug, Args)]
pub struct MergeOptions {
    /// One of each host, of the same command at the same time.
    #[arg(required = true, num_args = 2..)]
    results: Vec<PathBuf>,
    /// Of all.
    #[arg(long, short, default_value = "merged.json")]
    output: PathBuf,
}

/// Writes the page.
///
/// # Errors
/// A file cannot be read or written.
pub fn report(options: &ReportOptions) -> Result<ExitCode, Refusal> {
    let outcomes = options.results.iter().map(|file| read(file)).collect::<Result<Vec<_>, _>>()?;
    write(&options.output, &report::html(&outcomes))?;
    print(&options.output.display().to_string());
    Ok(ExitCode::SUCCESS)
}

/// Says what differs; a difference is no failure.
///
/// # Errors
/// A file cannot be read or written.
pub fn compare(options: &CompareOptions) -> Result<ExitCode, Refusal> {
    let comparison = report::compare(&read(&options.before)?, &read(&options.after)?);
    print(&comparison.to_string());
    if let Some(file) = &options.html {
        write(file, &comparison.html())?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Writes the sum.
///
/// # Errors
/// A file cannot be read or written, or they do not belong together.
pub fn merge(options: &MergeOptions) -> Result<ExitCode, Refusal> {
    let outcomes = options.results.iter().map(|file| read(file)).collect::<Result<Vec<_>, _>>()?;
    let merged = merge::merge(&outcomes)?;
    write(&options.output, &serde_json::to_string(&merged).expect("a result is data"))?;
    print(report::text(&merged).trim_end());
    Ok(ExitCode::from(merged.exit_code()))
}
