//! A configuration of several files, with secrets that stand in none of them: how it is read, followed, and not shown.

use crate::support::gateway::run_to_end;
use crate::support::{Driver, Gateway, Setup, Upstream, eventually, on_both_drivers};
use std::path::Path;

const SECRET: &str = "s3cr3t-of-the-file";

fn main_file(driver: Driver, more: &str) -> String {
    let file = Setup { config: more, ..Setup::default() }.file(driver);
    file.replacen("[gateway]", "include = [\"conf.d/*.toml\"]\n[gateway]\nwatch = true", 1)
}

fn answering(path: &str, body: &str) -> String {
    format!("[[route]]\nmatch = {{ path = \"{path}\" }}\nrespond = {{ body = \"{body}\" }}\n")
}

fn write(folder: &Path, name: &str, text: &str) {
    std::fs::create_dir_all(folder.join("conf.d")).unwrap();
    std::fs::write(folder.join("conf.d").join(name), text).unwrap();
}

on_both_drivers! {
    fn included_files_are_used_followed_and_named_in_errors(driver: Driver) {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), "a.toml", &answering("/a", "one"));
        let mut gateway = Gateway::start_file(dir, &main_file(driver, &answering("/main", "main")));
        let folder = Path::new(&gateway.file()).parent().unwrap().to_owned();
        let mut client = gateway.client();
        assert_eq!((client.get("/a").text().as_str(), client.get("/main").text().as_str()), ("one", "main"));
        write(&folder, "a.toml", &answering("/a", "two"));
        eventually("what has changed is read", || (client.get("/a").text() == "two").then_some(()));
        write(&folder, "b.toml", &answering("/b", "new"));
        eventually("what has come is read", || (client.get("/b").status == 200).then_some(()));
        std::fs::remove_file(folder.join("conf.d/b.toml")).unwrap();
        eventually("what is gone is forgotten", || (client.get("/b").status == 404).then_some(()));

        write(&folder, "c.toml", "[[route]]\nmatch = { path = \"/a\" }\nrespond = {}\n[upstream.x]\nendpoints = []\n");
        let response = gateway.reload(&main_file(driver, &answering("/main", "main")));
        assert_eq!(response.status, 422);
        let text = response.text();
        assert!(text.contains("conf.d/c.toml:2:9: route[2].match") && text.contains("line 1 of "), "{text}");
        assert!(text.contains("conf.d/a.toml") && text.contains("conf.d/c.toml:5:13: upstream.x.endpoints"), "{text}");
        assert_eq!(client.get("/a").text(), "two");
    }

    fn a_secret_reaches_the_service_and_is_shown_nowhere(driver: Driver) {
        let upstream = Upstream::always("ok");
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), "none", "");
        let secret = dir.path().join("secret");
        std::fs::write(&secret, format!("{SECRET}-1\n")).unwrap();
        // a variable that every environment has
        let variable = std::env::var("PATH").unwrap();
        let route = format!(
            "[[route]]\nname = \"all\"\nupstream = \"svc\"\n[route.request_headers]\nset = {{ authorization = {{ file = {:?} }}, \
             x-of-env = \"<${{PATH}}>\" }}\n[upstream.svc]\nendpoints = [{{ address = \"{}\" }}]\n",
            secret.display().to_string(),
            upstream.address()
        );
        let mut gateway = Gateway::start_file(dir, &main_file(driver, &route));
        assert_eq!(gateway.get("/").status, 200);
        let sent = |name: &str| {
            let requests = upstream.requests();
            requests.last().and_then(|request| request.header(name).map(str::to_owned)).unwrap_or_default()
        };
        assert_eq!(sent("authorization"), format!("{SECRET}-1"));
        assert_eq!(sent("x-of-env"), format!("<{variable}>"));
        std::fs::write(&secret, format!("{SECRET}-2\n")).unwrap();
        eventually("the file of a secret is followed", || {
            gateway.get("/");
            (sent("authorization") == format!("{SECRET}-2")).then_some(())
        });
        eventually("the log says what has changed", || {
            gateway.running().stderr().join("\n").contains("reloaded route all: changed").then_some(())
        });
        std::fs::write(&secret, format!("{SECRET}\u{e9}")).unwrap();
        eventually("what is wrong is told", || {
            (gateway.metric("ringgate_config_last_reload_success", &[]) == 0.0).then_some(())
        });
        let wrong = run_to_end(&["explain", "-c", &gateway.file(), "GET", "/"]);
        std::fs::write(&secret, format!("{SECRET}-3\n")).unwrap();
        let explained = run_to_end(&["explain", "-c", &gateway.file(), "GET", "/"]);
        assert!(explained.stdout.contains("authorization set to (hidden)"), "{explained:?}");
        let shown = [
            gateway.admin("/config").text(),
            gateway.running().stderr().join("\n"),
            format!("{wrong:?} {explained:?}"),
        ];
        assert!(shown[0].contains("\"authorization\":\"(hidden)\""), "{}", shown[0]);
        for text in shown {
            assert!(!text.contains(SECRET), "{text}");
        }
    }
}
