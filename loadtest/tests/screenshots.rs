//! The page as a browser shows it.

mod outcomes;

use outcomes::{NGINX, RINGGATE};
use ringgate_load::report;

#[test]
fn write_pages() {
    let folder = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("pages");
    std::fs::create_dir_all(&folder).expect("writable");
    for (name, outcomes) in [
        ("capacity", vec![outcomes::capacity(RINGGATE)]),
        ("capacity2", vec![outcomes::capacity(RINGGATE), outcomes::capacity(NGINX)]),
        ("invalid", vec![outcomes::invalid()]),
        ("size", vec![outcomes::size()]),
        ("curve", vec![outcomes::curve()]),
        ("run", vec![outcomes::single()]),
        ("drill", vec![outcomes::drill_of_two()]),
        ("drill2", vec![outcomes::drill(RINGGATE, false), outcomes::drill(NGINX, true)]),
        ("peers", vec![outcomes::peers()]),
    ] {
        let page = report::html(&outcomes);
        println!("{name} {}", page.len());
        std::fs::write(folder.join(format!("{name}.html")), page).expect("writable");
        println!("{}", report::text(&outcomes[0]));
    }
}
