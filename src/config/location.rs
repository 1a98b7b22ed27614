//! `rewrite_location` of a route: where the endpoint's own paths are found by clients.
//!
//! A response comes when its request is gone, so what the route cuts from paths must be the same for all of them: one prefix, written out.

use super::file;
use super::problem::Sink;
use super::{HeaderRules, Match, PathMatch, Rewrite};
use http::{HeaderName, header};

/// Headers of a response that name a place (RFC 9110 §10.2.2, §8.7).
pub(crate) const PLACES: [HeaderName; 2] = [header::LOCATION, header::CONTENT_LOCATION];

/// What becomes of an endpoint's `Location` on a route.
#[derive(Clone, Debug, Default)]
pub struct Relocation {
    /// What paths of the endpoint begin with that clients can ask for; empty: anything. Without a slash at its end.
    pub inner: String,
    /// What these paths begin with here, in its place. Without a slash at its end.
    pub outer: String,
    /// The route's rules for responses; what the endpoint has sent of these headers is not copied, but written anew.
    pub rules: HeaderRules,
    /// The same of a response in another coding.
    pub coded_rules: HeaderRules,
}

/// For a route that rewrites paths so, if it wants it.
pub(super) fn relocation(
    table: &file::Route,
    (matcher, rewrite): (&Match, &Rewrite),
    (rules, coded_rules): (&HeaderRules, Option<&HeaderRules>),
    sink: &mut Sink<'_>,
) -> Option<Box<Relocation>> {
    let wanted = table.rewrite_location.as_ref().filter(|wanted| wanted.value)?;
    let Some((inner, outer)) = prefixes(matcher, rewrite) else {
        let message = "the path is rewritten so that a place at the endpoint cannot be told from it".to_owned();
        let help = "it works with strip_prefix, and with rewrite = \"/prefix{rest}\" or \"/prefix{path}\" where match.path is \
                    one \"/prefix/*\"";
        sink.value(table.at.key("rewrite_location"), wanted.span.clone(), message, Some(help.to_owned()));
        return None;
    };
    let without = |rules: &HeaderRules| {
        let is_ruled = |name: &HeaderName| {
            let templates = rules.templates.iter().map(|(name, _)| name);
            rules.remove.iter().chain(rules.set.iter().map(|(name, _)| name)).chain(templates).any(|it| it == name)
        };
        let places = PLACES.into_iter().filter(|name| !is_ruled(name));
        HeaderRules { strip: rules.strip.iter().cloned().chain(places).collect(), ..rules.clone() }
    };
    Some(Box::new(Relocation {
        inner,
        outer,
        rules: without(rules),
        coded_rules: without(coded_rules.unwrap_or(rules)),
    }))
}

/// What paths begin with there and here; `None`: that differs from request to request.
fn prefixes(matcher: &Match, rewrite: &Rewrite) -> Option<(String, String)> {
    let bare = |path: &str| path.trim_end_matches('/').to_owned();
    match rewrite {
        Rewrite::None => Some((String::new(), String::new())),
        Rewrite::StripPrefix(prefix) => Some((String::new(), bare(prefix))),
        Rewrite::Template(template) => {
            let (inner, outer) = match template.strip_suffix("{path}") {
                Some(inner) => (inner, String::new()),
                None => match (&matcher.path, &matcher.other_paths[..]) {
                    (PathMatch::Prefix(prefix), []) => (template.strip_suffix("{rest}")?, bare(prefix)),
                    _ => return None,
                },
            };
            (!inner.contains('{')).then(|| (bare(inner), outer))
        }
        Rewrite::Made { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use crate::config::parse;

    fn relocation(route: &str) -> Result<(String, String), String> {
        let text = format!(
            "[[listener]]\nlisten = \"127.0.0.1:0\"\n[[route]]\nrewrite_location = true\n{route}\n\
             [upstream.a]\nendpoints = [{{ address = \"127.0.0.1:1\" }}]\n"
        );
        let config = parse(&text, "f").map_err(|errors| errors.to_string())?;
        let made = config.routes[0].traffic.relocation.as_ref().expect("it is wanted");
        Ok((made.inner.clone(), made.outer.clone()))
    }

    #[test]
    fn prefixes_follow_from_what_is_done_to_the_path() {
        for (route, inner, outer) in [
            ("upstream = \"a\"", "", ""),
            ("upstream = \"a\"\nmatch = { path = \"/o/*\" }\nstrip_prefix = \"/o\"", "", "/o"),
            ("upstream = \"a\"\nmatch = { path = \"/o/p/*\" }\nstrip_prefix = \"/o\"", "", "/o"),
            ("upstream = \"a\"\nmatch = { path = \"/o/*\" }\nrewrite = \"/v2{rest}\"", "/v2", "/o"),
            ("upstream = \"a\"\nmatch = { path = \"/*\" }\nrewrite = \"/v2{rest}\"", "/v2", ""),
            ("upstream = \"a\"\nmatch = { path = \"/a\" }\nrewrite = \"/v2{path}\"", "/v2", ""),
        ] {
            assert_eq!(relocation(route), Ok((inner.to_owned(), outer.to_owned())), "{route}");
        }
        for route in [
            "match = { path = \"/t/{id}\" }\nrewrite = \"/{id}\"",
            "match = { path = [\"/a/*\", \"/b/*\"] }\nrewrite = \"/c{rest}\"",
            "match = { path = \"/a/*\" }\nrewrite = \"/c{rest}/d\"",
            "match = { path = \"/a/*\" }\nrewrite = \"/c\"",
        ] {
            let errors = relocation(&format!("upstream = \"a\"\n{route}")).unwrap_err();
            assert!(errors.contains("route[0].rewrite_location = true"), "{route}: {errors}");
        }
        let errors = relocation("respond = {}").unwrap_err();
        assert!(errors.contains("rewrite_location") && errors.contains("no effect"), "{errors}");
    }
}
