//! Which gateways there are on this machine, and what they call themselves.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::str::FromStr;

use super::Kind;
use crate::processes::this_program;

/// Where servers are that an operator's `PATH` may not have.
const ALSO: [&str; 2] = ["/usr/sbin", "/usr/local/sbin"];

/// A gateway that can be started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// Which.
    pub kind: Kind,
    /// Its file; `None`: ringgate as it is built into this program.
    pub path: Option<PathBuf>,
    /// As it says itself: "nginx/1.22.1".
    pub version: String,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Ringgate, Self::Nginx, Self::Haproxy, Self::Envoy];

    /// What it is called, and looked for as.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ringgate => "ringgate",
            Self::Nginx => "nginx",
            Self::Haproxy => "haproxy",
            Self::Envoy => "envoy",
        }
    }

    /// Of its configuration: Envoy looks at how it ends.
    pub(super) fn file_name(self) -> &'static str {
        match self {
            Self::Ringgate => "ringgate.toml",
            Self::Nginx => "nginx.conf",
            Self::Haproxy => "haproxy.cfg",
            Self::Envoy => "envoy.yaml",
        }
    }

    /// Looks for it: the file that the environment names (`RINGGATE`, `NGINX`, `HAPROXY`, `ENVOY`), else on `PATH` and where servers are.
    /// ringgate is not looked for: unless named it is the one of this program.
    ///
    /// # Errors
    /// Says that it is not there and how to name it, or that it does not run.
    pub fn find(self) -> Result<Program, String> {
        let variable = self.name().to_ascii_uppercase();
        match std::env::var_os(&variable).filter(|path| !path.is_empty()) {
            Some(path) => self.at(Path::new(&path)),
            None if self == Self::Ringgate => Ok(built_in()),
            None => match on_path(self.name()) {
                Some(path) => self.at(&path),
                None => Err(format!("{} is not on PATH; {variable}=/path/to/{} names one", self.name(), self.name())),
            },
        }
    }

    /// The one of this file.
    ///
    /// # Errors
    /// It cannot be run.
    pub fn at(self, path: &Path) -> Result<Program, String> {
        let argument = match self {
            Self::Ringgate | Self::Envoy => "--version",
            Self::Nginx | Self::Haproxy => "-v",
        };
        let shown = path.display();
        let output = Command::new(path).arg(argument).stdin(Stdio::null()).output();
        let output = output.map_err(|error| format!("{shown} cannot be run: {error}"))?;
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        let said = out.lines().chain(err.lines()).find(|line| !line.trim().is_empty());
        let said = said.filter(|_| output.status.success());
        let said = said.ok_or_else(|| format!("{shown} {argument} does not tell its version ({})", output.status))?;
        Ok(Program { kind: self, path: Some(path.to_owned()), version: self.version_in(said.trim()) })
    }

    /// Without what is around it.
    fn version_in(self, said: &str) -> String {
        let version = match self {
            Self::Nginx => said.strip_prefix("nginx version: "),
            // "HAProxy version 2.6.12-1 2023/12/16 - https://haproxy.org/"
            Self::Haproxy => said.split_once(" - ").and_then(|(version, _)| version.rsplit_once(' ')).map(|(v, _)| v),
            // "envoy  version: 8b3d…/1.30.1/Clean/RELEASE/BoringSSL"
            Self::Envoy => {
                let number = said.split_once("version: ").and_then(|(_, rest)| rest.split('/').nth(1));
                return number.map_or_else(|| said.to_owned(), |number| format!("envoy {number}"));
            }
            Self::Ringgate => None,
        };
        version.unwrap_or(said).to_owned()
    }
}

impl Program {
    /// The program to start, and its arguments.
    pub(super) fn command(&self, configuration: &Path, workers: usize) -> (PathBuf, Vec<OsString>) {
        let file = configuration.as_os_str().to_owned();
        let Some(path) = &self.path else {
            return (this_program().to_owned(), vec!["gateway".into(), "--config".into(), file]);
        };
        let arguments = match self.kind {
            Kind::Ringgate => vec!["run".into(), "-c".into(), file],
            // -e: what goes wrong before the configuration is read
            Kind::Nginx => vec!["-e".into(), "stderr".into(), "-c".into(), file],
            Kind::Haproxy => vec!["-W".into(), "-f".into(), file],
            Kind::Envoy => {
                let concurrency = workers.to_string().into();
                let fixed = ["--disable-hot-restart", "-l", "error", "--concurrency"].map(OsString::from);
                fixed.into_iter().chain([concurrency, "-c".into(), file]).collect()
            }
        };
        (path.clone(), arguments)
    }
}

fn built_in() -> Program {
    let version = concat!("ringgate, built into ringgate-load ", env!("CARGO_PKG_VERSION")).to_owned();
    Program { kind: Kind::Ringgate, path: None, version }
}

fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(ALSO.map(PathBuf::from));
    folders.map(|folder| folder.join(name)).find(|file| file.is_file())
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Kind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = Self::ALL.into_iter().find(|kind| kind.name() == text);
        known.ok_or_else(|| format!("{text:?} is no gateway: ringgate, nginx, haproxy or envoy"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_taken_out_of_what_is_said() {
        for (kind, said, version) in [
            (Kind::Nginx, "nginx version: nginx/1.22.1", "nginx/1.22.1"),
            (Kind::Haproxy, "HAProxy version 2.6.12-1 2023/12/16 - https://haproxy.org/", "HAProxy version 2.6.12-1"),
            (Kind::Envoy, "envoy  version: 8b3d/1.30.1/Clean/RELEASE/BoringSSL", "envoy 1.30.1"),
            (Kind::Ringgate, "ringgate 0.1.0", "ringgate 0.1.0"),
            (Kind::Nginx, "something else", "something else"),
        ] {
            assert_eq!(kind.version_in(said), version);
        }
    }

    #[test]
    fn what_is_not_there_is_said() {
        let missing = Kind::Nginx.at(Path::new("/nowhere/nginx")).expect_err("it is not there");
        assert!(missing.starts_with("/nowhere/nginx cannot be run: "), "{missing}");
        let other = Kind::Nginx.at(Path::new("/bin/false")).expect_err("it says nothing");
        assert!(other.starts_with("/bin/false -v does not tell its version"), "{other}");
        assert_eq!(
            "nginy".parse::<Kind>(),
            Err("\"nginy\" is no gateway: ringgate, nginx, haproxy or envoy".to_owned())
        );
    }
}
