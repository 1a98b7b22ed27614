//! Commands that ask the running gateway for something, at the admin address that the file has. The exit code is 0 if it has been done, else
//! 1, whyever.

use super::{EXIT_CONFIG, fail, print};
use ringgate::config::{self, Bind};
use ringgate::control::client::{self, Answer};
use serde_json::Value;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

/// `ringgate reload`: ten thousand routes take a second; what takes longer than this has hung.
const RELOAD: Duration = Duration::from_secs(60);
/// `ringgate upgrade`: the gateway waits twice for the next process, a minute each.
const UPGRADE: Duration = Duration::from_secs(150);

/// Has the running gateway read its file anew, and tells what comes of it.
pub(super) fn reload(path: &Path) -> ExitCode {
    ask(path, "/reload", RELOAD, |said| {
        let mut text: String = lines(said, "changes").map(|change| format!("{change}\n")).collect();
        lines(said, "warnings").for_each(|warning| text.push_str(&format!("warning: {warning}\n")));
        text + &format!("reloaded: generation {}\n", said["generation"])
    })
}

/// Has the running gateway start the next process, and tells what comes of it.
pub(super) fn upgrade(path: &Path) -> ExitCode {
    ask(path, "/upgrade", UPGRADE, |said| {
        format!("upgraded: process {} serves, version {}\n", said["pid"], said["version"].as_str().unwrap_or("unknown"))
    })
}

fn ask(path: &Path, page: &str, patience: Duration, tell: impl FnOnce(&Value) -> String) -> ExitCode {
    let admin = match config::admin_address(path) {
        Ok(admin) => admin,
        Err(errors) => return fail(EXIT_CONFIG, errors),
    };
    match client::post(&admin, page, patience) {
        Ok(answer) => told(&answer, &admin, tell),
        Err(error) => fail(EXIT_CONFIG, format!("no gateway answers at its admin address {admin}: {error}")),
    }
}

fn told(Answer { status, body }: &Answer, admin: &Bind, tell: impl FnOnce(&Value) -> String) -> ExitCode {
    let said: Value = serde_json::from_str(body).unwrap_or_default();
    if *status == 200 {
        return print(&config::printable(&tell(&said)));
    }
    let mut errors: Vec<_> = lines(&said, "errors").collect();
    let message = said["message"].as_str().map_or_else(|| format!("{admin} answers with {status}"), str::to_owned);
    errors.push(&message);
    fail(EXIT_CONFIG, errors.join("\n"))
}

fn lines<'s>(said: &'s Value, key: &str) -> impl Iterator<Item = &'s str> {
    said[key].as_array().into_iter().flatten().filter_map(Value::as_str)
}
