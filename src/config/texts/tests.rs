//! A configuration of several files: what is one, and where what is wrong is said to be.

use crate::config::{Config, load};
use std::path::Path;
use tempfile::TempDir;

const LISTENER: &str = "[[listener]]\nlisten = \"127.0.0.1:80\"\n";

fn route(path: &str) -> String {
    format!("[[route]]\nmatch = {{ path = \"{path}\" }}\nrespond = {{}}\n")
}

fn upstream(name: &str, port: u16) -> String {
    format!("[upstream.{name}]\nendpoints = [{{ address = \"10.0.0.1:{port}\" }}]\n")
}

/// A folder with these files.
fn folder(files: &[(&str, &str)]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = dir.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    dir
}

fn read(dir: &TempDir) -> Result<Config, String> {
    let folder = format!("{}/", dir.path().display());
    load(&dir.path().join("main.toml")).0.map_err(|errors| errors.to_string().replace(&folder, ""))
}

#[track_caller]
fn says(dir: &TempDir, expected: &[&str]) {
    let errors = read(dir).expect_err("it is wrong");
    let first_lines: Vec<_> = errors.lines().filter(|line| !line.starts_with("    ")).collect();
    assert_eq!(first_lines[..first_lines.len() - 1], *expected, "{errors}");
}

#[test]
fn tables_of_all_files_make_one_configuration() {
    let dir = folder(&[
        ("main.toml", &format!("include = [\"conf.d/*.toml\", \"more\"]\n{LISTENER}{}", route("/main"))),
        ("conf.d/b.toml", &format!("\u{feff}# first a remark\n\n{}{}", route("/b"), upstream("one", 1))),
        ("conf.d/a.toml", &format!("{}  [route.response_headers]\n  remove = [\"x-a\"]", route("/a"))),
        ("conf.d/.hidden.toml", "wrong"),
        ("conf.d/c.txt", "wrong"),
        ("more", &format!("[gateway]\nworkers = 1\n{}{}", upstream("two", 2), route("/c"))),
    ]);
    let config = read(&dir).unwrap_or_else(|errors| panic!("{errors}"));
    let names: Vec<_> = config.routes.iter().map(|route| route.name.as_str()).collect();
    assert_eq!(names, ["/main", "/a", "/b", "/c"]);
    let removed: Vec<_> = config.routes.iter().map(|route| route.response_headers.remove.len()).collect();
    assert_eq!(removed, [0, 1, 0, 0]);
    assert_eq!(config.clusters.iter().map(|cluster| cluster.name.as_str()).collect::<Vec<_>>(), ["one", "two"]);
    assert_eq!((config.gateway.cores.len(), config.include.len()), (1, 2));
}

#[test]
fn a_folder_without_a_file_that_is_meant_is_fine() {
    let dir = folder(&[("main.toml", &format!("include = [\"*.d\"]\n{LISTENER}{}", route("/")))]);
    assert_eq!(read(&dir).unwrap().routes.len(), 1);
}

#[test]
fn what_is_wrong_is_said_of_its_file_and_line() {
    let dir = folder(&[
        ("main.toml", &format!("include = [\"a\", \"b\"]\n{LISTENER}{}[admin]\nlistn = 1\n", route("/x"))),
        ("a", "# a\n\n[[route]]\nupstrem = \"x\"\n"),
        ("b", &format!("{}{}", route("/x"), "[upstream.u]\nendpoints = []\n")),
    ]);
    says(
        &dir,
        &[
            "main.toml:8:1: admin.listn",
            "a:3:1: route[1].upstream",
            "a:4:1: route[1].upstrem",
            "b:1:1: route[2].name",
            "b:2:9: route[2].match",
            "b:5:13: upstream.u.endpoints = []",
        ],
    );
    let errors = read(&dir).unwrap_err();
    assert!(errors.contains("route[0] (line 4 of main.toml) has this name too"), "{errors}");
    assert!(errors.ends_with("6 errors in 3 files"), "{errors}");
}

#[test]
fn names_that_stand_in_two_files_are_refused_with_both_places() {
    let dir = folder(&[
        ("main.toml", &format!("include = [\"a\", \"b\"]\n[gateway]\n{LISTENER}{}{}", route("/"), upstream("u", 1))),
        ("a", &format!("{}[upstream.u.retry_budget]\nratio = 0.1\n", upstream("v", 1))),
        ("b", &format!("[gateway]\nworkers = 1\n{}", upstream("v", 2))),
    ]);
    says(&dir, &["a:3:11: upstream.u", "b:1:2: gateway", "b:3:11: upstream.v"]);
    let errors = read(&dir).unwrap_err();
    for place in ["line 8 of main.toml has it too", "line 2 of main.toml has it too", "line 1 of a has it too"] {
        assert!(errors.contains(place), "{place}: {errors}");
    }
    let same_names = folder(&[
        (
            "main.toml",
            &format!("include = [\"a\"]\n[[listener]]\nname = \"l\"\nlisten = \"127.0.0.1:1\"\n{}", route("/")),
        ),
        ("a", "[[listener]]\nname = \"l\"\nlisten = \"127.0.0.1:1\"\n"),
    ]);
    says(&same_names, &["a:2:8: listener[1].name = \"l\"", "a:3:10: listener[1].listen = \"127.0.0.1:1\""]);
    let errors = read(&same_names).unwrap_err();
    assert!(errors.contains("listener[0] (line 2 of main.toml) has this name too"), "{errors}");
    assert!(errors.contains("127.0.0.1:1, line 4 of main.toml"), "{errors}");
}

#[test]
fn a_file_that_does_not_stand_for_itself_is_refused() {
    let dir = folder(&[
        ("main.toml", &format!("include = [\"a\", \"b\", \"c\", \"d\"]\n{LISTENER}{}", route("/"))),
        ("a", "\ntimeout = \"3s\"\n"),
        ("b", "[route.retry]\nattempts = 1\n"),
        ("c", "[admin]\nlisten = \"\"\"\n"),
        ("d", "[admin]\nlisten = 127\n[admin]\n"),
    ]);
    let errors = read(&dir).unwrap_err();
    for place in ["a:2:1: timeout\n", "b:1:2: route\n", "c:2:", "d:3:"] {
        assert!(errors.lines().any(|line| format!("{line}\n").starts_with(place)), "{place}: {errors}");
    }
    assert!(!errors.contains("main.toml:"), "{errors}");
    assert!(errors.contains("(first in line 1)"), "{errors}");
}

#[test]
fn what_is_not_there_or_goes_in_circles_is_said_where_it_is_included() {
    let dir = folder(&[
        ("main.toml", &format!("{LISTENER}{}[[route]]\nrespond = {{ status = 1 }}\n", route("/"))),
        ("a", "[[route]]\nrespond = {}\nmatch = { path = \"/a\" }\n"),
    ]);
    let main = dir.path().join("main.toml");
    let text = std::fs::read_to_string(&main).unwrap();
    let with = |include: &str| std::fs::write(&main, format!("include = [{include}]\n{text}")).unwrap();
    with("\"none\", \"none/*\", \"a\", \"a\", \"main.toml\", \"a*/b\", \"*\", 1");
    let errors = read(&dir).unwrap_err();
    assert!(
        errors.contains("main.toml:1:12: include[0] = \"none\"\n    none cannot be read: No such file"),
        "{errors}"
    );
    assert!(errors.contains("include[1] = \"none/*\"\n    its folder cannot be read"), "{errors}");
    assert!(errors.contains("include[3] = \"a\"\n    a is included twice"), "{errors}");
    assert!(errors.contains("include[4] = \"main.toml\"\n    main.toml is included twice"), "{errors}");
    with("\"a\", \"a*/b\", 1");
    let errors = read(&dir).unwrap_err();
    assert!(
        errors.contains("include[1] = \"a*/b\"\n    only the last part of a path may have * or ? in it"),
        "{errors}"
    );
    assert!(errors.contains("include[2] = 1") && errors.contains("respond.status = 1"), "{errors}");
}

#[test]
fn the_admin_address_may_stand_in_any_file() {
    let dir = folder(&[
        ("main.toml", &format!("include = [\"a\"]\n{LISTENER}")),
        ("a", "[admin]\nlisten = \"127.0.0.1:7\"\nwrong = 1\n"),
    ]);
    let address = crate::config::admin_address(&dir.path().join("main.toml")).unwrap();
    assert_eq!(address.to_string(), "127.0.0.1:7");
    assert!(crate::config::admin_address(Path::new("/nonexistent/ringgate.toml")).is_err());
}

#[test]
fn secrets_are_read_from_where_they_are_and_not_repeated() {
    let dir = tempfile::tempdir().unwrap();
    let secret = dir.path().join("secret");
    let with = |value: &str| {
        let text =
            format!("{LISTENER}[[route]]\nrespond = {{}}\n[route.response_headers]\nset = {{ x-a = {value} }}\n");
        std::fs::write(dir.path().join("main.toml"), text).unwrap();
        read(&dir)
    };
    let file = format!("{{ file = {:?} }}", secret.display().to_string());
    for (text, expected) in [
        ("s3cr3t\r\n", Ok("s3cr3t")),
        ("s3cr3t", Ok("s3cr3t")),
        ("s3cr3t\n\n", Err(())),
        ("", Err(())),
        ("s3cr3t\u{e9}", Err(())),
    ] {
        std::fs::write(&secret, text).unwrap();
        match (with(&file), expected) {
            (Ok(config), Ok(expected)) => {
                let (_, value) = &config.routes[0].response_headers.set[0];
                assert_eq!((value.as_bytes(), value.is_sensitive()), (expected.as_bytes(), true));
                assert!(!format!("{config:?}").contains("s3cr3t"), "not by accident either");
            }
            (Err(errors), Err(())) => {
                assert!(errors.contains("x-a = { file = ") && !errors.contains("s3cr3t"), "{errors}")
            }
            (read, _) => panic!("{text:?}: {read:?}"),
        }
    }
    for (value, why) in [
        ("{ file = \"secret\" }", "the path of a secret is absolute"),
        ("{ file = \"/nonexistent\" }", "cannot be read: No such file"),
        ("{ fil = \"/nonexistent\" }", "must be a header value"),
        ("{ file = \"/a\", b = 1 }", "must be a header value"),
        ("1", "must be a header value"),
        ("\"${RINGGATE_HAS_NO_SUCH_VARIABLE}\"", "the environment has no RINGGATE_HAS_NO_SUCH_VARIABLE"),
    ] {
        let errors = with(value).unwrap_err();
        assert!(errors.contains(why), "{value}: {errors}");
    }
    // every environment has it
    let config = with("\"<${PATH}>\"").unwrap();
    let expected = format!("<{}>", std::env::var("PATH").unwrap());
    assert_eq!(config.routes[0].response_headers.set[0].1.as_bytes(), expected.as_bytes());
}
