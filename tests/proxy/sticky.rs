//! Sessions that stay with one endpoint: the cookie is set once, followed while its endpoint is there, and seen by no service.

use crate::http2;
use crate::support::client::Response;
use crate::support::gateway::behind_endpoints;
use crate::support::{Driver, Gateway, Setup, Upstream, behind, eventually, on_both_drivers};

const KEY: &str = "key = \"a-key-of-this-test\"";

/// Services that answer with their name.
fn services() -> [Upstream; 3] {
    ["a", "b", "c"].map(Upstream::always)
}

fn behind_all(services: &[Upstream], sticky: &str, cluster: &str) -> String {
    behind(&services.iter().collect::<Vec<_>>(), "", &format!("sticky = {{ {sticky} }}\n{cluster}"))
}

/// `Set-Cookie` without its attributes, and these.
fn set(response: &Response) -> Option<(String, String)> {
    let (pair, attributes) = response.header("set-cookie")?.split_once("; ").expect("attributes");
    Some((pair.to_owned(), attributes.to_owned()))
}

fn with(gateway: &Gateway, cookie: &str) -> Response {
    gateway.request("GET", "/", &[("Cookie", cookie)], b"")
}

/// What services have been sent as `Cookie`.
fn seen(services: &[Upstream]) -> Vec<String> {
    let requests = services.iter().flat_map(Upstream::requests);
    requests.filter_map(|request| request.header("cookie").map(str::to_owned)).collect()
}

on_both_drivers! {
    fn a_session_stays_with_its_endpoint_and_no_service_sees_how(driver: Driver) {
        let services = services();
        let gateway = Gateway::start(driver, &behind_all(&services, "", "balance = \"round_robin\""));
        let first = gateway.get("/");
        let (cookie, attributes) = set(&first).expect("a cookie");
        assert!(cookie.starts_with("ringgate=") && !cookie.contains("127.0.0.1"), "{cookie}");
        assert_eq!(attributes, "Path=/; HttpOnly; SameSite=Lax");
        for _ in 0..12 {
            let next = with(&gateway, &format!("x=1; {cookie}; y=2"));
            assert_eq!((next.text(), set(&next)), (first.text(), None));
        }
        assert_eq!(seen(&services), vec!["x=1; y=2"; 12]);
        assert_eq!(with(&gateway, &cookie).text(), first.text());
        assert_eq!(seen(&services).len(), 12, "where it is alone there is no Cookie");
        // who has none is spread, and told one
        let others: Vec<_> = (0..6).map(|_| gateway.get("/")).collect();
        for service in ["a", "b", "c"] {
            assert_eq!(others.iter().filter(|other| other.text() == service).count(), 2, "{others:?}");
        }
        assert!(others.iter().all(|other| set(other).is_some()));
    }

    fn attributes_are_as_configured(driver: Driver) {
        let services = services();
        let keys = "cookie = \"s\", path = \"/shop\", max_age = \"2h\", secure = true, http_only = false, same_site = \"none\"";
        let gateway = Gateway::start(driver, &behind_all(&services, keys, ""));
        let (cookie, attributes) = set(&gateway.get("/")).expect("a cookie");
        assert!(cookie.starts_with("s="), "{cookie}");
        assert_eq!(attributes, "Path=/shop; Max-Age=7200; Secure; SameSite=None");
    }

    fn a_cookie_that_is_not_the_gateway_s_means_nothing_and_is_passed_on(driver: Driver) {
        let services = services();
        let gateway = Gateway::start(driver, &behind_all(&services, KEY, ""));
        let (cookie, _) = set(&gateway.get("/")).expect("a cookie");
        let end = if cookie.ends_with('A') { "B" } else { "A" };
        let forged = format!("{}{end}", &cookie[..cookie.len() - 1]);
        for foreign in [&forged, "ringgate=", "ringgate=10.0.0.1:80", "ringgate", "ringgate=a=b"] {
            let response = with(&gateway, foreign);
            assert_eq!(response.status, 200);
            assert!(set(&response).is_some(), "{foreign}");
            assert!(seen(&services).contains(&(*foreign).to_owned()));
        }
        // behind it the true one counts
        let both = with(&gateway, &format!("{forged}; {cookie}"));
        assert_eq!(set(&both), None);
    }

    fn a_session_whose_endpoint_is_away_gets_another_one(driver: Driver) {
        let mut services = services();
        let gateway = Gateway::start(driver, &behind_all(&services, KEY, "outlier = { consecutive = 1, eject = \"1h\", eject_max = \"1h\" }"));
        let first = gateway.get("/");
        let (cookie, _) = set(&first).expect("a cookie");
        let row = ["a", "b", "c"].iter().position(|name| *name == first.text()).expect("one of them");
        services[row].stop();
        let next = with(&gateway, &cookie);
        assert_eq!(next.status, 200);
        assert_ne!(next.text(), first.text());
        let (moved, _) = set(&next).expect("another cookie");
        assert_ne!(moved, cookie);
        for _ in 0..6 {
            let again = with(&gateway, &moved);
            assert_eq!((again.text(), set(&again)), (next.text(), None));
        }
        // the ejected one is not waited for
        let late = with(&gateway, &cookie);
        assert!(late.text() != first.text() && set(&late).is_some());
    }

    fn a_session_outlives_a_reload_and_ends_with_its_endpoint(driver: Driver) {
        let services = services();
        let address = |row: usize, weight: u32| format!("{{ address = \"{}\", weight = {weight} }}", services[row].address());
        let file = |endpoints: &[String], sticky: &str| {
            let config = behind_endpoints(&endpoints.join(", "), "", &format!("sticky = {{ {sticky} }}\n"));
            Setup { config: &config, ..Setup::default() }.file(driver)
        };
        let all = |weight| [address(0, 1), address(1, 1), address(2, weight)];
        let mut gateway = Gateway::start_file(tempfile::tempdir().unwrap(), &file(&all(1), ""));
        let (cookie, _) = eventually("it goes to c", || {
            let response = gateway.get("/");
            set(&response).filter(|_| response.text() == "c")
        });
        // other rows, and no key in the file
        gateway.reload_well(&file(&[address(2, 1), address(0, 1)], ""));
        let kept = with(&gateway, &cookie);
        assert_eq!((kept.text().as_str(), set(&kept)), ("c", None));
        // drained
        gateway.reload_well(&file(&all(0), ""));
        let moved = with(&gateway, &cookie);
        assert!(moved.text() != "c" && set(&moved).is_some(), "{moved:?}");
        // gone: the cookie is stale, but ours
        gateway.reload_well(&file(&[address(0, 1)], ""));
        assert_eq!(with(&gateway, &format!("{cookie}; z=1")).text(), "a");
        assert_eq!(services[0].requests().last().unwrap().header("cookie"), Some("z=1"));
        // another key makes others
        gateway.reload_well(&file(&all(1), KEY));
        assert!(set(&with(&gateway, &cookie)).is_some());
    }

    fn gateways_that_share_a_key_know_each_other_s_sessions(driver: Driver) {
        let services = services();
        let config = behind_all(&services, KEY, "balance = \"round_robin\"");
        let one = Gateway::start(driver, &config);
        let first = one.get("/");
        let (cookie, _) = set(&first).expect("a cookie");
        let two = Gateway::start(driver, &config);
        for _ in 0..6 {
            let response = with(&two, &cookie);
            assert_eq!((response.text(), set(&response)), (first.text(), None));
        }
    }

    fn a_stream_has_a_session_too(driver: Driver) {
        let services = services();
        let gateway = http2::gateway_with(driver, http2::CLEAR, &behind_all(&services, KEY, "balance = \"round_robin\""));
        http2::run(async {
            let sender = http2::connect(&gateway).await;
            let first = http2::ask(&sender, http2::get("/")).await.unwrap();
            let cookie = first.headers()["set-cookie"].to_str().unwrap().split(';').next().unwrap().to_owned();
            let (name, _) = http2::read(&mut first.into_body()).await.unwrap();
            for _ in 0..6 {
                let mut request = http2::get("/");
                // as browsers send them there: one line each (RFC 9113 §8.2.3)
                request.headers_mut().append("cookie", "x=1".parse().unwrap());
                request.headers_mut().append("cookie", cookie.parse().unwrap());
                let next = http2::ask(&sender, request).await.unwrap();
                assert!(!next.headers().contains_key("set-cookie"));
                assert_eq!(http2::read(&mut next.into_body()).await.unwrap().0, name);
            }
        });
        assert_eq!(seen(&services), vec!["x=1"; 6]);
    }
}
