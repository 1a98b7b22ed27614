//! What `explain` says of sessions, splits and whatever else is done with traffic beyond passing it on.

use super::words::{duration, size};
use http::{HeaderName, header};
use ringgate::config::{Cluster, Config, Fault, Flow, QueryRules, Route, SplitKey, Sticky, Target};
use ringgate::policy::sticky::{Meaning, Sessions};
use ringgate::units::Ratio;

/// Where a request's session is, if its upstream keeps any.
pub(super) fn sticky(cluster: &Cluster, headers: &[(HeaderName, String)]) -> Option<String> {
    let sticky = cluster.sticky.as_ref()?;
    let life = match sticky.max_age.is_zero() {
        true => "until the browser closes".to_owned(),
        false => format!("for {}", duration(sticky.max_age)),
    };
    let rule = format!("a session stays with its endpoint by the cookie {} ({life})", sticky.cookie);
    Some(match named(cluster, sticky, headers) {
        None => rule,
        Some(found) => format!("{rule}; {found}"),
    })
}

/// What the cookie that comes along says.
fn named(cluster: &Cluster, sticky: &Sticky, headers: &[(HeaderName, String)]) -> Option<String> {
    let cookies = headers.iter().filter(|(name, _)| *name == header::COOKIE).flat_map(|(_, text)| text.split(';'));
    let value = cookies.filter_map(|pair| pair.trim().split_once('=')).find(|(name, _)| *name == sticky.cookie)?.1;
    let Some(key) = &sticky.key else {
        return Some("only the running gateway knows which this one names, since no key is given".to_owned());
    };
    Some(match Sessions::new(&key.0, cluster).meaning(value.as_bytes()) {
        Meaning::Endpoint(id) => {
            format!("this one names {}, while that is available", cluster.endpoints[id.index()].address)
        }
        Meaning::Stale => "this one names none that is there, and gets another".to_owned(),
        Meaning::Foreign => "this one is not the gateway's, and is passed on".to_owned(),
    })
}

/// What is done with a route's requests beyond passing them on, one a line.
pub(super) fn of_route(route: &Route, config: &Config) -> Vec<(&'static str, String)> {
    let faults = faults(route).into_iter().map(|line| ("fault", line));
    let query = query(route).into_iter().enumerate().map(|(row, line)| (if row == 0 { "query" } else { "" }, line));
    let faults = query.chain(faults);
    others(route, config).into_iter().chain(faults).chain(split(route).map(|line| ("split", line))).collect()
}

/// What decides about the side of a split, if there is one.
fn split(route: &Route) -> Option<String> {
    let Target::Upstream(split) = &route.target else { return None };
    if split.len() < 2 {
        return None;
    }
    let by = match &route.traffic.split_by {
        None => "drawn for each request".to_owned(),
        Some(SplitKey::Consumer) => "by the consumer (drawn for who is not recognised)".to_owned(),
        Some(SplitKey::ClientIp) => "by the client's address".to_owned(),
        Some(SplitKey::Header(name)) => format!("by the header {name} (drawn for requests without it)"),
        Some(SplitKey::Cookie(name)) => format!("by the cookie {name} (drawn for requests without it)"),
    };
    let else_ = match route.traffic.split_fallback {
        true => "another side where nobody is left on that one",
        false => "no other side",
    };
    Some(format!("{by}; {else_}"))
}

/// What becomes of the query, one a line, in the order in which it does.
fn query(route: &Route) -> Vec<String> {
    let QueryRules { set, remove, rename } = &route.query;
    let removed = remove.iter().map(|name| format!("{name} removed"));
    let renamed = rename.iter().map(|(from, to)| format!("{from} renamed to {to}"));
    removed.chain(renamed).chain(set.iter().map(|(name, text)| format!("{name} set to {text}, or removed"))).collect()
}

/// Which faults are made, one a line.
fn faults(route: &Route) -> Vec<String> {
    let Some(Fault { delay, abort, header }) = &route.traffic.fault else { return Vec::new() };
    let of = |share: &Ratio| format!("{} % of the requests", (share.get() * 1e8).round() / 1e6);
    let with = header.as_ref().map_or_else(String::new, |name| format!(" that have {name}"));
    let delay = delay.as_ref().map(|(share, time)| format!("{}{with} wait {}", of(share), duration(*time)));
    let abort = abort.as_ref().map(|(share, status)| format!("{}{with} get {}", of(share), status.as_u16()));
    delay.into_iter().chain(abort).collect()
}

/// What else happens to a request on its way, one a line.
fn others(route: &Route, config: &Config) -> Vec<(&'static str, String)> {
    let traffic = &route.traffic;
    let mirror = traffic.mirror.as_ref().map(|mirror| {
        let (of, name) = ((mirror.share.get() * 1e8).round() / 1e6, &config.clusters[mirror.cluster.index()].name);
        let text = format!(
            "a copy of {of} % of the requests to {name}, of bodies up to {}, within {}",
            size(mirror.body_bytes_max as u64),
            duration(mirror.timeout)
        );
        ("mirror", text)
    });
    let buffering = traffic.buffered_bytes_max.map(|max| {
        (
            "body",
            format!("awaited before an endpoint is taken, up to {}; larger ones go on as they come", size(max as u64)),
        )
    });
    let from = traffic.timeout_from_end.then(|| ("", "the timeout begins with the end of the request".to_owned()));
    let compression = traffic.compression.as_ref().map(|it| {
        let codings: Vec<_> = it.codings.iter().map(|coding| coding.as_str()).collect();
        let types: Vec<_> = it.types.iter().map(ToString::to_string).collect();
        let (min, max) = (size(it.bytes_min), size(it.bytes_max));
        ("coding", format!("{} for clients that take it, of {min} to {max}: {}", codings.join(", "), types.join(", ")))
    });
    let bandwidth = traffic.bandwidth.as_ref().map(|it| {
        let flow = |what: &str, flow: Flow| format!("{what} at {}/s, {} at once, ", size(flow.rate), size(flow.burst));
        let down = it.down.map_or_else(String::new, |down| flow("responses go", down));
        let up = it.up.map_or_else(String::new, |up| flow("requests come", up));
        ("bandwidth", format!("{down}{up}shared by {}", it.per))
    });
    from.into_iter().chain(buffering).chain(mirror).chain(compression).chain(bandwidth).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringgate::units::EndpointId;

    #[test]
    fn a_cookie_is_read_where_the_key_is_known() {
        let cluster = |keys: &str| {
            let text = format!(
                "[[listener]]\nlisten = \"127.0.0.1:0\"\n[[route]]\nupstream = \"a\"\n\
                 [upstream.a]\nendpoints = [{{ address = \"10.0.0.1:1\" }}, {{ address = \"10.0.0.2:1\" }}]\n{keys}\n"
            );
            let config = ringgate::config::parse(&text, "f").unwrap_or_else(|errors| panic!("{errors}"));
            (*config.clusters[0]).clone()
        };
        let said = |cluster: &Cluster, value: &str| {
            sticky(cluster, &[(header::COOKIE, format!("a=b; ringgate={value}"))]).unwrap_or_default()
        };
        assert_eq!(said(&cluster(""), "x"), "");
        assert!(said(&cluster("sticky = {}"), "x").contains("(until the browser closes); only the running gateway"));
        let keyed = cluster("sticky = { key = \"0123456789abcdef\", max_age = \"1d\" }");
        let value = |row| {
            let sessions = Sessions::new(&keyed.sticky.as_ref().unwrap().key.as_ref().unwrap().0, &keyed);
            String::from_utf8(sessions.value(EndpointId(row)).to_vec()).unwrap()
        };
        assert!(said(&keyed, &value(1)).ends_with("(for 1d); this one names 10.0.0.2:1, while that is available"));
        assert!(said(&keyed, "x").ends_with("this one is not the gateway's, and is passed on"));
        assert!(sticky(&keyed, &[]).unwrap().ends_with("(for 1d)"));
    }

    #[test]
    fn splits_and_faults_are_told() {
        let route = |keys: &str| {
            let text = format!(
                "[[listener]]\nlisten = \"127.0.0.1:0\"\n[[route]]\n{keys}\n\
                 [upstream.a]\nendpoints = [{{ address = \"10.0.0.1:1\" }}]\n[upstream.b]\nendpoints = [{{ address = \"10.0.0.2:1\" }}]\n"
            );
            let config = ringgate::config::parse(&text, "f").unwrap_or_else(|errors| panic!("{errors}"));
            config.routes[0].clone()
        };
        let both = "split = [{ upstream = \"a\", weight = 9 }, { upstream = \"b\", weight = 1 }]\n";
        let said = |keys: &str| split(&route(&format!("{both}{keys}"))).unwrap();
        assert_eq!(said(""), "drawn for each request; another side where nobody is left on that one");
        assert_eq!(
            said("split_by = \"cookie:id\"\nsplit_fallback = false"),
            "by the cookie id (drawn for requests without it); no other side"
        );
        assert_eq!(split(&route("upstream = \"a\"")), None);
        let edits = "upstream = \"a\"\nquery = { set = { t = \"{host}\" }, remove = [\"d\"], rename = { q = \"s\" } }";
        assert_eq!(query(&route(edits)), ["d removed", "q renamed to s", "t set to {host}, or removed"]);
        let fault =
            "fault = { delay = { percent = 0.5, time = \"2s\" }, abort = { status = 500 }, header = \"x-fault\" }";
        assert_eq!(
            faults(&route(&format!("{both}{fault}"))),
            ["0.5 % of the requests that have x-fault wait 2s", "100 % of the requests that have x-fault get 500"]
        );
    }
}
