//! What `explain` says of sessions, splits and whatever else is done with traffic beyond passing it on.

use super::words::duration;
use http::{HeaderName, header};
use ringgate::config::{Cluster, Sticky};
use ringgate::policy::sticky::{Meaning, Sessions};

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
}
