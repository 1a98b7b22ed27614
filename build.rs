//! Tells the binary which revision it was built from, for `--version`.
//!
//! Outside a repository, or without git, there is no revision and the build goes on: source archives must build too.

use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if let Some(revision) = git(&["rev-parse", "--short=12", "HEAD"]) {
        println!("cargo::rustc-env=RINGGATE_REVISION={revision}");
    }
    // a commit moves the branch that HEAD names, and a checkout moves HEAD
    let branch = git(&["symbolic-ref", "--quiet", "HEAD"]).unwrap_or_default();
    for name in ["HEAD", branch.as_str()].into_iter().filter(|name| !name.is_empty()) {
        if let Some(path) = git(&["rev-parse", "--git-path", name]).filter(|path| std::path::Path::new(path).exists()) {
            println!("cargo::rerun-if-changed={path}");
        }
    }
}

/// The first line that git prints; `None` when it fails or this is not its repository.
fn git(args: &[&str]) -> Option<String> {
    let output = Command::new("git").args(args).output().ok().filter(|output| output.status.success())?;
    let line = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (!line.is_empty()).then_some(line)
}
