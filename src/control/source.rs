//! Where the configuration comes from: a file, read whole and checked whole, at a start and at each reload.

use crate::config::{self, Config};
use crate::policy::router::{Router, RouterError};
use std::path::{Path, PathBuf};

/// A configuration's file.
#[derive(Clone, Debug)]
pub struct Source {
    path: PathBuf,
}

/// Everything that is wrong with a configuration, each with its place; and how many there are in all where that is worth a line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct Wrong {
    text: String,
    /// One text an error.
    pub errors: Vec<String>,
}

impl Source {
    /// The file at `path`.
    #[must_use]
    pub fn file(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads and checks it. Its routes are compiled too, since all of them together can be more than the gateway takes.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn load(&self) -> Result<(Config, Router), Wrong> {
        let config = config::load(&self.path).map_err(|errors| Wrong {
            errors: errors.problems().iter().map(ToString::to_string).collect(),
            text: errors.to_string(),
        })?;
        match Router::try_new(&config) {
            Ok(router) => Ok((config, router)),
            Err(error) => {
                let line = match &error {
                    RouterError::Regex { route, .. } => config::line_of_route(&self.path, route.index()),
                    RouterError::TooManyMethods => None,
                };
                let line = line.map(|line| format!(":{line}")).unwrap_or_default();
                let text = format!("{}{line}: {error}", self.path.display());
                Err(Wrong { errors: vec![text.clone()], text })
            }
        }
    }
}
