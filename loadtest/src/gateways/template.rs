//! Configurations of a gateway that the user brings: its own text, with marks for what is known only when everything is started.
//!
//! `@listen@` and `@admin@` stand for addresses to listen on, `@folder@` for a folder of its own, which goes with it (with TLS `chain.pem`, `key.pem` and `both.pem` are in it), `@NAME.1@` for the first instance of the upstream `NAME`. Any other `@` is
//! left as it is.

use std::net::SocketAddr;
use std::path::Path;

/// A text with marks, all of which are known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Listen,
    Admin,
    Folder,
    /// Row of the upstream, row of the instance.
    Instance(usize, usize),
}

impl Template {
    /// Finds the marks; `upstreams` are names with their numbers of instances.
    ///
    /// # Errors
    /// An instance that there is not, or no `@listen@`: in words.
    pub fn try_new(text: &str, upstreams: &[(&str, usize)]) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut rest = text;
        let mut plain = String::new();
        while let Some(at) = rest.find('@') {
            plain.push_str(&rest[..at]);
            rest = &rest[at + 1..];
            let end = rest.find(|c: char| c == '@' || c.is_whitespace()).filter(|end| rest[*end..].starts_with('@'));
            match end.map(|end| mark(&rest[..end], upstreams).map(|part| (end, part))).transpose()? {
                Some((end, Some(part))) => {
                    parts.extend([Part::Text(std::mem::take(&mut plain)), part]);
                    rest = &rest[end + 1..];
                }
                _ => plain.push('@'),
            }
        }
        plain.push_str(rest);
        parts.push(Part::Text(plain));
        if !parts.contains(&Part::Listen) {
            return Err("nothing listens on @listen@, where the load goes to".to_owned());
        }
        Ok(Self { parts })
    }

    /// The text with addresses; `instances` by row of the upstream and of the instance.
    #[must_use]
    pub fn fill(
        &self,
        listen: SocketAddr,
        admin: SocketAddr,
        folder: &Path,
        instances: impl Fn(usize, usize) -> SocketAddr,
    ) -> String {
        let text = |part: &Part| match part {
            Part::Text(text) => text.clone(),
            Part::Listen => listen.to_string(),
            Part::Admin => admin.to_string(),
            Part::Folder => folder.display().to_string(),
            Part::Instance(upstream, instance) => instances(*upstream, *instance).to_string(),
        };
        self.parts.iter().map(text).collect()
    }
}

/// What stands between two `@`; `None` when it is no mark.
fn mark(word: &str, upstreams: &[(&str, usize)]) -> Result<Option<Part>, String> {
    match word {
        "listen" => return Ok(Some(Part::Listen)),
        "admin" => return Ok(Some(Part::Admin)),
        "folder" => return Ok(Some(Part::Folder)),
        _ => {}
    }
    let Some((name, number)) = word.rsplit_once('.') else { return Ok(None) };
    let Ok(number) = number.parse::<usize>() else { return Ok(None) };
    let Some(row) = upstreams.iter().position(|(known, _)| *known == name) else { return Ok(None) };
    let count = upstreams[row].1;
    if !(1..=count).contains(&number) {
        return Err(format!("@{word}@: {name} has {count} instances, counted from 1"));
    }
    Ok(Some(Part::Instance(row, number - 1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    #[test]
    fn marks_become_addresses_and_other_signs_stay() {
        let text = "listen @listen@; # me@example.org @ @x@\nserver @svc.1@; server @svc.2@;\nadmin @admin@ @folder@";
        let template = Template::try_new(text, &[("other", 1), ("svc", 2)]).expect("it is one");
        let filled = template.fill(address(1), address(2), Path::new("/a"), |upstream, instance| {
            address(u16::try_from(upstream * 100 + instance).expect("small"))
        });
        assert_eq!(
            filled,
            "listen 127.0.0.1:1; # me@example.org @ @x@\nserver 127.0.0.1:100; server 127.0.0.1:101;\nadmin 127.0.0.1:2 /a"
        );
    }

    #[test]
    fn what_would_not_work_is_refused() {
        let upstreams = [("svc", 2)];
        assert!(Template::try_new("@svc.1@", &upstreams).unwrap_err().contains("@listen@"));
        for wrong in ["@listen@ @svc.3@", "@listen@ @svc.0@"] {
            assert!(Template::try_new(wrong, &upstreams).unwrap_err().contains("2 instances"), "{wrong}");
        }
        assert!(Template::try_new("@listen@ @@ @svc@ é@", &upstreams).is_ok());
    }
}
