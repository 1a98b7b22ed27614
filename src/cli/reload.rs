//! `ringgate reload`: has the running gateway read its file anew, and tells what comes of it. The exit code is 0 if it has been taken into use,
//! else 1, whyever.

use super::{EXIT_CONFIG, fail, print};
use ringgate::config::{self, Bind};
use ringgate::control::client::{self, Answer};
use serde_json::Value;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

/// Ten thousand routes take a second; what takes longer than this has hung.
const PATIENCE: Duration = Duration::from_secs(60);

pub(super) fn reload(path: &Path) -> ExitCode {
    let admin = match config::admin_address(path) {
        Ok(admin) => admin,
        Err(errors) => return fail(EXIT_CONFIG, errors),
    };
    match client::post(&admin, "/reload", PATIENCE) {
        Ok(answer) => tell(&answer, &admin),
        Err(error) => fail(EXIT_CONFIG, format!("no gateway answers at its admin address {admin}: {error}")),
    }
}

fn tell(Answer { status, body }: &Answer, admin: &Bind) -> ExitCode {
    let said: Value = serde_json::from_str(body).unwrap_or_default();
    let lines = |key: &str| said[key].as_array().into_iter().flatten().filter_map(Value::as_str).collect::<Vec<_>>();
    if *status == 200 {
        let mut text: String = lines("changes").iter().map(|change| format!("{change}\n")).collect();
        lines("warnings").iter().for_each(|warning| text.push_str(&format!("warning: {warning}\n")));
        text.push_str(&format!("reloaded: generation {}\n", said["generation"]));
        return print(&config::printable(&text));
    }
    let mut errors = lines("errors");
    let message = said["message"].as_str().map_or_else(|| format!("{admin} answers with {status}"), str::to_owned);
    errors.push(&message);
    fail(EXIT_CONFIG, errors.join("\n"))
}
