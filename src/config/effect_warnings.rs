//! Conditions that never hold, and variables that nothing stands for: legal, and most likely not what was meant.

use super::by_path;
use super::{
    Cluster, Condition, Config, Limit, Listener, PathPiece, Piece, Rewrite, Route, Scheme, Target, Template, Variable,
};
use rustc_hash::FxHashSet;

/// Warnings that are written out.
const LINES_MAX: usize = 50;

/// One sentence each, in the order of the file's tables.
pub(super) fn of(config: &Config) -> Vec<String> {
    let mut warnings: Vec<String> =
        config.routes.iter().flat_map(|route| of_route(route, config)).take(LINES_MAX).collect();
    let of_routes = config.routes.iter().flat_map(|route| &route.limits);
    let used = of_routes.chain(config.listeners.iter().flat_map(|listener| &listener.limits));
    let used: FxHashSet<&str> = used.filter_map(|limit| limit.name.as_deref()).collect();
    let unused = |limit: &&Limit| limit.name.as_deref().is_some_and(|name| !used.contains(name));
    let unused = config.limits.iter().filter(unused).filter_map(|limit| limit.name.as_deref());
    warnings.extend(unhashed(config).take(LINES_MAX));
    warnings
        .extend(ungiven(config).map(|name| format!("listener {name:?}: no route takes anything from its defaults")));
    warnings.extend(unused.take(LINES_MAX).map(|name| format!("limit.{name}: no route and no listener names it")));
    warnings
}

/// Upstreams that are hashed by what no path finds: whoever comes goes anywhere.
fn unhashed(config: &Config) -> impl Iterator<Item = String> {
    config.clusters.iter().filter_map(|cluster| {
        let name = by_path::hashed(cluster)?;
        let is_it = |other: &Cluster| other.name == cluster.name;
        let finds = |route: &Route| {
            by_path::leads_to(route, &config.clusters, is_it)
                && route.captures.as_ref().is_some_and(|captures| captures.has(name))
        };
        let finds = config.routes.iter().any(finds);
        (!finds).then(|| {
            format!(
                "upstream.{}: hash = \"capture:{name}\": no route that leads there has {{{name}}} in each of its paths",
                cluster.name
            )
        })
    })
}

/// Listeners whose defaults are nobody's.
fn ungiven(config: &Config) -> impl Iterator<Item = &str> {
    let giving: FxHashSet<&str> = config
        .routes
        .iter()
        .filter(|route| !route.defaulted.by_listener.is_empty())
        .filter_map(|route| listeners_of(route, config).first().map(|listener| listener.name.as_str()))
        .collect();
    let all = config.listeners.iter().filter(|listener| listener.has_defaults).map(|listener| listener.name.as_str());
    all.filter(move |name| !giving.contains(name))
}

fn of_route(route: &Route, config: &Config) -> Vec<String> {
    let kind = if route.is_guard { "guard" } else { "route" };
    let mut warnings = Vec::new();
    let listeners = listeners_of(route, config);
    for condition in &route.matcher.more {
        match condition {
            Condition::Scheme(scheme) if !listeners.iter().any(|it| it.tls.is_some() == (*scheme == Scheme::Https)) => {
                let why = match scheme {
                    Scheme::Https => "no listener that it comes in at has tls",
                    Scheme::Http => "every listener that it comes in at has tls",
                };
                let scheme = scheme.as_str();
                warnings.push(format!("{kind} {:?}: match.scheme = {scheme:?} never holds: {why}", route.name));
            }
            Condition::Cookie(name, _) if !is_token(name) => {
                warnings.push(format!(
                    "{kind} {:?}: match.cookie: no cookie is called {name:?} (RFC 6265 §4.1.1)",
                    route.name
                ));
            }
            _ => {}
        }
    }
    warnings.extend(unknown(route, &listeners, config).map(|why| format!("{kind} {:?}: {why}", route.name)));
    warnings
}

/// The listeners that its requests may come in at.
fn listeners_of<'c>(route: &Route, config: &'c Config) -> Vec<&'c Listener> {
    let named = route.matcher.more.iter().find_map(|condition| match condition {
        Condition::Listener(names) => Some(names),
        _ => None,
    });
    config.listeners.iter().filter(|listener| named.is_none_or(|names| names.contains(&listener.name))).collect()
}

/// A variable of the route's that nothing ever stands for, and why.
fn unknown(route: &Route, listeners: &[&Listener], config: &Config) -> Option<String> {
    let ways = || listeners.iter().flat_map(|listener| super::identity::ways(route, listener));
    let ways = || ways().map(|way| &config.auth[way.index()]);
    let (recognises, decides) = (ways().next().is_some(), ways().any(|way| way.forward().is_some()));
    let has_tokens = ways().any(|way| way.tokens().is_some());
    let asks_clients = listeners.iter().any(|it| it.tls.as_ref().is_some_and(|tls| tls.clients.is_some()));
    let why = |variable: &Variable| match variable {
        Variable::Consumer if !recognises => Some("nobody is recognised here, for there is no auth"),
        Variable::Claim(_) if !has_tokens && !decides => Some("no token is shown here, for no auth of it is jwt"),
        Variable::Certificate(_) if !asks_clients => Some("no listener that it comes in at has client_auth"),
        _ => None,
    };
    let headers = [&route.request_headers, &route.response_headers].into_iter().flat_map(|rules| &rules.templates);
    let query = route.query.set.iter().map(|(_, template)| template);
    let of_pieces = headers.map(|(_, template)| template).chain(query).flat_map(|Template(pieces)| pieces);
    let of_pieces = of_pieces.filter_map(|piece| match piece {
        Piece::Variable(variable) => Some(variable),
        Piece::Text(_) => None,
    });
    let path = match (&route.rewrite, &route.target) {
        (Rewrite::Made { pieces, .. }, Target::Upstream(_)) => &pieces[..],
        _ => &[],
    };
    let of_path = path.iter().filter_map(|piece| match piece {
        PathPiece::Variable(variable) => Some(variable),
        _ => None,
    });
    let mut found = of_pieces.chain(of_path).filter_map(|variable| Some((variable, why(variable)?)));
    found.next().map(|(variable, why)| format!("{{{}}} never stands for anything: {why}", variable.name()))
}

/// RFC 9110 §5.6.2
fn is_token(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::super::check::parse_for;

    fn of(routes: &str) -> Vec<String> {
        let text = format!(
            "[[listener]]\nname = \"l\"\nlisten = \"127.0.0.1:0\"\n[upstream.a]\nendpoints = [{{ address = \"10.0.0.1:1\" }}]\n\
             [auth.key]\nheader = \"x-key\"\n[consumer.acme]\n[limit.used]\nrate = \"1/s\"\n[limit.forgotten]\nrate = \"1/s\"\n\
             [[route]]\nname = \"r\"\nupstream = \"a\"\nlimit = [\"used\"]\n{routes}"
        );
        super::of(&parse_for(&text, "f", &[0]).unwrap_or_else(|errors| panic!("{errors}")))
    }

    #[test]
    fn defaults_of_a_listener_that_no_route_takes_are_told() {
        let of = |timeout: &str| {
            let text = format!(
                "[[listener]]\nname = \"l\"\nlisten = \"127.0.0.1:0\"\n[listener.defaults]\ntimeout = \"1s\"\n\
                 [upstream.a]\nendpoints = [{{ address = \"10.0.0.1:1\" }}]\n[[route]]\nupstream = \"a\"\n{timeout}"
            );
            super::of(&parse_for(&text, "f", &[0]).unwrap_or_else(|errors| panic!("{errors}")))
        };
        assert_eq!(of(""), [""; 0]);
        assert_eq!(of("timeout = \"2s\""), ["listener \"l\": no route takes anything from its defaults"]);
    }

    #[test]
    fn what_has_no_effect_is_told() {
        let forgotten = "limit.forgotten: no route and no listener names it";
        for (route, told) in [
            (
                "match = { scheme = 'https' }",
                "match.scheme = \"https\" never holds: no listener that it comes in at has tls",
            ),
            ("match = { cookie = { 'a b' = '1' } }", "match.cookie: no cookie is called \"a b\" (RFC 6265 §4.1.1)"),
            (
                "request_headers = { set = { x-a = '{consumer}' } }",
                "{consumer} never stands for anything: nobody is recognised here, for there is no auth",
            ),
            (
                "auth = ['key']\nrewrite = '/{claim.sub}{path}'",
                "{claim.sub} never stands for anything: no token is shown here, for no auth of it is jwt",
            ),
            (
                "query = { set = { a = '{tls.client.san}' } }",
                "{tls.client.san} never stands for anything: no listener that it comes in at has client_auth",
            ),
        ] {
            assert_eq!(of(route), [format!("route \"r\": {told}"), forgotten.to_owned()], "{route}");
        }
        let hashed =
            of("[upstream.h]\nbalance = \"maglev\"\nhash = \"capture:id\"\nendpoints = [{ address = \"10.0.0.2:1\" }]");
        assert!(
            hashed[0].starts_with("upstream.h: hash = \"capture:id\": no route that leads there has {id}"),
            "{hashed:?}"
        );
        for fine in [
            "match = { scheme = 'http' }",
            "match = { path = '/{id}' }\n[[route]]\nupstream = \"h\"\nmatch = { path = '/h/{id}' }\n[upstream.h]\nbalance = \"maglev\"\nhash = \"capture:id\"\nendpoints = [{ address = \"10.0.0.2:1\" }]",
            "match = { cookie = { a-b = '1' } }",
            "auth = ['key']\nrequest_headers = { set = { x-a = '{consumer}' } }",
        ] {
            assert_eq!(of(fine), [forgotten], "{fine}");
        }
    }
}
