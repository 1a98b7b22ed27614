//! Tests of hosts and paths: what of a name or a path comes before what, and lists of them.

use super::*;

#[test]
fn behind_names_that_end_with_a_wildcard_come_regexes_of_the_whole_host_in_file_order() {
    let router = router(&[
        rule("*", "/*"),
        rule("~[a-z]+\\.shop\\.de", "/*"),
        rule("~.*\\.shop\\..*", "/*"),
        rule("shop.*", "/*"),
        rule("shop.co.*", "/*"),
        rule("*.de", "/only"),
    ]);
    for (name, row) in [
        ("www.SHOP.de", 1),
        ("w3.shop.de", 2),
        ("www.shop.de.", 1),
        ("xwww.shop.dee", 2),
        ("shop.fr", 3),
        ("shop.co.uk", 4),
        ("shop.co", 3),
        ("shop", 0),
        ("shops.fr", 0),
        ("shop..fr", 0),
    ] {
        assert_eq!(Ask::get(name, "/x").routed(&router), Some(row), "{name}");
    }
    assert_eq!(Ask::get("shop.de", "/only").routed(&router), Some(5));
    assert_eq!(Ask::get("shop.de", "/other").routed(&router), Some(3), "another path of another host");
}

#[test]
fn a_segment_that_is_written_out_comes_before_a_placeholder_and_that_before_a_prefix() {
    let router = router(&[
        rule("*", "/*"),
        rule("*", "/users/*"),
        rule("*", "/users/{id}"),
        rule("*", "/users/{id}/*"),
        rule("*", "/users/me"),
        rule("*", "/users/me/*"),
        rule("*", "/users/{id}/orders/{order}"),
        rule("*", "/{any}/me/x"),
        rule("*", "~^/users"),
    ]);
    for (path, row) in [
        ("/users", 1),
        ("/users/", 1),
        ("/users/7", 2),
        ("/users/7/", 3),
        ("/users/7/a/b", 3),
        ("/users/me", 4),
        ("/users/me/x", 5),
        ("/users/7/orders/8", 6),
        ("/users/me/orders/8", 5),
        ("/users/{}", 2),
        ("/teams/me/x", 7),
        ("/teams//x", 0),
        ("/usersx", 8),
    ] {
        assert_eq!(Ask::get("h", path).routed(&router), Some(row), "{path}");
    }
}

#[test]
fn one_route_takes_several_hosts_and_paths() {
    let mut many = rule("a.example", "/a");
    many.other_hosts = vec![host("*.b.example"), host("~c[0-9]\\.example")];
    many.other_paths = vec![path("/b/*"), path("~^/c+$"), path("/d/{x}")];
    let router = router(&[many, rule("*", "/*")]);
    for name in ["a.example", "x.b.example", "c7.example"] {
        for (path, row) in [("/a", 0), ("/b/x", 0), ("/cc", 0), ("/d/1", 0), ("/a/x", 1), ("/d", 1), ("/cx", 1)] {
            assert_eq!(Ask::get(name, path).routed(&router), Some(row), "{name} {path}");
        }
    }
    assert_eq!(Ask::get("b.example", "/a").routed(&router), Some(1));
}
