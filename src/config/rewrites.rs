//! `rewrite` and `query` of a route: what goes up in place of the path that came, and of the query behind it.
//!
//! What a client has a say in cannot turn one path into another: what stands for a variable is percent-encoded when it is put in, and a path that
//! does not come out in its one spelling (`http::path`) is refused with 400 and not sent.

use super::captures::Captures;
use super::paths::{QueryText, RewriteTo};
use super::problem::Refusal;
use super::read::{List, Map};
use super::tables::table;
use super::variables::{Piece, Template, Variable};
use crate::limits::ENTRIES_MAX;

/// `strip_prefix` or `rewrite`
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rewrite {
    /// The path goes up as it was routed.
    None,
    /// The prefix is cut; what is left begins with `/`.
    StripPrefix(String),
    /// A template: `{rest}` is what the route's `/prefix/*` left over (with its leading `/`), `{path}` the whole path.
    Template(String),
    /// The same with captures or variables in it.
    Made {
        /// As the file has it.
        written: String,
        /// What is put together.
        pieces: Vec<PathPiece>,
    },
}

/// A piece of a path that is made for each request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathPiece {
    /// As it stands in the file.
    Text(String),
    /// What the route's prefix left over.
    Rest,
    /// The whole path.
    Path,
    /// A capture as it stands in the path, or anything else percent-encoded.
    Variable(Variable),
}

table! {
    /// Changes to the query on its way up: removed first, then renamed, then set. Names are compared after percent-decoding.
    QueryEdits {
        /// Parameters with the value that they get, whatever they had: {client_ip}, {id} and others stand for what the request is, percent-encoded;
        /// where that is not there, the parameter is not either.
        default set: Map<QueryText, QueryText, ENTRIES_MAX> = {};
        /// Parameters that are removed.
        default remove: List<QueryText, 0, ENTRIES_MAX> = [];
        /// Parameters by the names that they get instead of theirs.
        default rename: Map<QueryText, QueryText, ENTRIES_MAX> = {};
    }
}

/// `query` of a route.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QueryRules {
    /// Set, in file order.
    pub set: Vec<(String, Template)>,
    /// Removed.
    pub remove: Vec<String>,
    /// From, to.
    pub rename: Vec<(String, String)>,
}

impl QueryRules {
    /// Whether nothing is changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.set.is_empty() && self.remove.is_empty() && self.rename.is_empty()
    }
}

/// What `rewrite` asks for, where these captures are.
///
/// # Errors
/// Something in braces stands for nothing.
pub(super) fn rewrite(to: &RewriteTo, captures: Option<&Captures>) -> Result<Rewrite, Refusal> {
    let (mut pieces, mut rest, mut is_plain) = (Vec::new(), to.0.as_str(), true);
    while let Some((text, behind)) = rest.split_once('{') {
        // every brace is closed, or `RewriteTo` had refused it
        let (word, behind) = behind.split_once('}').unwrap_or((behind, ""));
        pieces.extend((!text.is_empty()).then(|| PathPiece::Text(text.to_owned())));
        pieces.push(match word {
            "rest" => PathPiece::Rest,
            "path" => PathPiece::Path,
            word => {
                is_plain = false;
                PathPiece::Variable(Variable::of(word, captures)?)
            }
        });
        rest = behind;
    }
    pieces.extend((!rest.is_empty()).then(|| PathPiece::Text(rest.to_owned())));
    Ok(if is_plain { Rewrite::Template(to.0.clone()) } else { Rewrite::Made { written: to.0.clone(), pieces } })
}

/// What `query` asks for, or the key whose value is wrong and why.
///
/// # Errors
/// Something in a value stands for nothing.
pub(super) fn query(edits: &QueryEdits, captures: Option<&Captures>) -> Result<QueryRules, (String, usize, Refusal)> {
    let mut rules = QueryRules::default();
    for (name, value) in edits.set.iter().flat_map(|map| &map.value.0) {
        let template = Template::parse(&value.value.0, captures)
            .map_err(|refusal| (format!("set.{}", name.value.0), value.span.start, refusal))?;
        let text = || Template(vec![Piece::Text(value.value.0.clone())]);
        rules.set.push((name.value.0.clone(), template.unwrap_or_else(text)));
    }
    rules.remove.extend(edits.remove.iter().flat_map(|list| &list.value.0).map(|name| name.value.0.clone()));
    let renamed = edits.rename.iter().flat_map(|map| &map.value.0);
    rules.rename.extend(renamed.map(|(from, to)| (from.value.0.clone(), to.value.0.clone())));
    Ok(rules)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Match, PathMatch};

    #[test]
    fn names_in_a_rewrite_are_captures_variables_or_errors() {
        let path = PathMatch::Template { path: "/users/{id}".to_owned(), is_prefix: true };
        let captures = Captures::of(&Match { path, ..Match::default() });
        let of = |written: &str| rewrite(&RewriteTo(written.to_owned()), captures.as_ref());
        assert_eq!(of("/v2{rest}").unwrap(), Rewrite::Template("/v2{rest}".to_owned()));
        let text = |text: &str| PathPiece::Text(text.to_owned());
        let pieces = vec![
            text("/u/"),
            PathPiece::Variable(Variable::Capture("id".to_owned())),
            text("-"),
            PathPiece::Variable(Variable::ClientIp),
            PathPiece::Rest,
        ];
        let written = "/u/{id}-{client_ip}{rest}".to_owned();
        assert_eq!(of(&written).unwrap(), Rewrite::Made { written, pieces });
        for (written, help) in [("/u/{uri}", "{path}"), ("/{idd}", "id"), ("/{remote_addr}", "{client_ip}")] {
            let refused = of(written).unwrap_err();
            assert!(refused.why.as_ref().unwrap().contains("{id}"), "{written}: {refused:?}");
            assert!(refused.help.as_ref().unwrap().contains(help), "{written}: {refused:?}");
        }
    }
}
