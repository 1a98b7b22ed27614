//! What a listener lets through that peers read in different ways, and what responses say of the server.

use crate::support::{Driver, Gateway, Setup, Upstream, behind, on_both_drivers};

fn start(driver: Driver, listener: &str, upstream: &Upstream) -> Gateway {
    let config = behind(&[upstream], "", "").replace("\"/*\"", "\"/app/*\"");
    Gateway::start_with(driver, &Setup { listener, config: &config, ..Setup::default() })
}

on_both_drivers! {
    fn headers_with_underscores_are_dropped_kept_or_refused(driver: Driver) {
        let upstream = Upstream::answering(|request, conn| {
            conn.reply(200, request.header("x_user").unwrap_or("none"));
        });
        for (listener, status, seen) in [
            ("", 200, "none"),
            ("header_underscores = \"drop\"", 200, "none"),
            ("header_underscores = \"keep\"", 200, "eve"),
            ("header_underscores = \"reject\"", 400, ""),
        ] {
            let gateway = start(driver, listener, &upstream);
            let response = gateway.request("GET", "/app/", &[("X_User", "eve")], b"");
            if status == 200 {
                assert_eq!((response.status, response.text().as_str()), (status, seen), "{listener}");
            } else {
                response.assert_rejected(400, "bad_request");
            }
        }
    }

    fn encoded_separators_are_refused_or_kept(driver: Driver) {
        let upstream = Upstream::answering(|request, conn| conn.reply(200, &request.target));
        let strict = start(driver, "", &upstream);
        for path in ["/app/a%2Fb", "/app/a%5cb"] {
            strict.get(path).assert_rejected(400, "bad_request");
        }
        let lenient = start(driver, "encoded_separators = \"keep\"", &upstream);
        assert_eq!(lenient.get("/app/a%2fb/../c%5Cd").text(), "/app/c%5Cd");
        assert_eq!(lenient.get("/app/..%2F..%2fetc").text(), "/app/..%2F..%2Fetc");
        lenient.get("/app%2Fa").assert_rejected(404, "no_route");
        lenient.get("/app/%00").assert_rejected(400, "bad_request");
    }

    fn the_server_header_is_passed_on_removed_or_replaced(driver: Driver) {
        let upstream = Upstream::answering(|_, conn| {
            conn.send("HTTP/1.1 200 OK\r\nServer: app/1\r\nContent-Length: 2\r\n\r\nok");
        });
        for (listener, of_service, of_gateway) in [
            ("", Some("app/1"), None),
            ("server = \"pass\"", Some("app/1"), None),
            ("server = \"remove\"", None, None),
            ("server = \"edge\"", Some("edge"), Some("edge")),
        ] {
            let gateway = start(driver, listener, &upstream);
            let mut client = gateway.client();
            let response = client.get("/app/");
            assert_eq!((response.text().as_str(), response.header("server")), ("ok", of_service), "{listener}");
            assert_eq!(client.get("/nowhere").header("server"), of_gateway, "{listener}");
            client.send("garbage\r\n\r\n");
            let refused = client.read("GET");
            assert_eq!((refused.status, refused.header("server")), (400, of_gateway), "{listener}");
        }
    }
}
