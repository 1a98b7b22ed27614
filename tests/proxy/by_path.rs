//! Limits and hashes that tell requests apart by their path: which of a route's paths one has met, and what that has found.

use crate::support::{Driver, Gateway, Upstream, behind, on_both_drivers};

fn statuses<const N: usize>(gateway: &Gateway, paths: [&str; N]) -> [u16; N] {
    paths.map(|path| gateway.get(path).status)
}

on_both_drivers! {
    fn limits_count_by_the_path_that_was_met(driver: Driver) {
        let limit = "limit = [{ rate = \"1/h\", burst = 2, per = \"template\" }]";
        let paths = "[\"/u/{id}\", \"/u/{id}/posts\", \"/static/*\"]";
        let gateway = Gateway::start(driver, &format!("[[route]]\nmatch = {{ path = {paths} }}\nrespond = {{}}\n{limit}\n"));
        assert_eq!(statuses(&gateway, ["/u/1", "/u/2", "/u/3", "/u/1"]), [200, 200, 429, 429]);
        assert_eq!(statuses(&gateway, ["/u/1/posts", "/u/2/posts", "/u/2/posts"]), [200, 200, 429]);
        assert_eq!(statuses(&gateway, ["/static/a", "/static/b/c", "/static"]), [200, 200, 429]);
        // one that routes share counts what is written the same together, wherever that stands
        let config = "[limit.each]\nrate = \"1/h\"\nburst = 1\nper = [\"template\", \"header:x-who\"]\n\
             [[route]]\nname = \"get\"\nmatch = { path = \"/a/{id}\", method = [\"GET\"] }\nrespond = {}\nlimit = [\"each\"]\n\
             [[route]]\nname = \"put\"\nmatch = { path = \"/a/{id}\", method = [\"PUT\"] }\nrespond = {}\nlimit = [\"each\"]\n\
             [[route]]\nmatch = { path = \"/b/{id}\" }\nrespond = {}\nlimit = [\"each\"]\n";
        let gateway = Gateway::start(driver, config);
        let ask = |method: &str, path: &str, who: &str| gateway.request(method, path, &[("X-Who", who)], b"").status;
        assert_eq!([ask("GET", "/a/1", "x"), ask("PUT", "/a/2", "x"), ask("GET", "/b/1", "x"), ask("GET", "/a/1", "y")], [200, 429, 200, 200]);
    }

    fn limits_count_by_what_the_path_has_found(driver: Driver) {
        let route = |path: &str, capture: &str| {
            format!("[[route]]\nmatch = {{ path = {path} }}\nrespond = {{}}\nlimit = [{{ rate = \"1/h\", burst = 2, per = \"capture:{capture}\" }}]\n")
        };
        let gateway = Gateway::start(driver, &(route("[\"/t/{tenant}\", \"/t/{tenant}/*\"]", "tenant") + &route("\"~^/r-([a-z]+)\"", "1")));
        assert_eq!(statuses(&gateway, ["/t/a", "/t/a/x", "/t/a/y", "/t/b", "/t/b/z", "/t/b"]), [200, 200, 429, 200, 200, 429]);
        // a path has one spelling, by which it is routed
        assert_eq!(statuses(&gateway, ["/t/c", "/t/%63", "/t/./c"]), [200, 200, 429]);
        assert_eq!(statuses(&gateway, ["/r-a", "/r-a/1", "/r-a", "/r-b"]), [200, 200, 429, 200]);
    }

    fn endpoints_are_hashed_by_what_the_path_has_found(driver: Driver) {
        let (a, b) = (Upstream::always("a"), Upstream::always("b"));
        let hash = "balance = \"maglev\"\nhash = \"capture:tenant\"";
        let route = "[[route]]\nmatch = { path = \"/t/{tenant}/*\" }\nupstream = \"svc\"\n";
        let gateway = Gateway::start(driver, &(behind(&[&a, &b], "", hash) + route));
        let mut answers = [0; 2];
        for tenant in 0..24 {
            let asked: Vec<String> = (0..4).map(|row| gateway.get(&format!("/t/tenant-{tenant}/{row}")).text()).collect();
            assert!(asked.iter().all(|answer| *answer == asked[0]), "{tenant}: {asked:?}");
            answers[usize::from(asked[0] == "b")] += 1;
        }
        assert!(answers.iter().all(|count| *count > 2), "{answers:?}");
    }
}
