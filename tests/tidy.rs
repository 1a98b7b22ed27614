//! Style as a test: what the compiler and the linter do not check.
//!
//! The sources are read as text. Comments, strings and test code are blanked out first, so that a rule speaks about code and a
//! comment may name what it forbids. Each exception stands in a list with its reason; lists of lengths may only shrink.

use serde_json::Value;
use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Who may use whom (`main → control → worker → net → {policy, http} → {config, limits, units, error}`).
const ARROWS: &[(&str, &[&str])] = &[
    ("units", &["limits"]),
    ("limits", &["units"]),
    ("error", &["units", "limits"]),
    ("tls", &["limits", "units"]),
    ("config", GROUND),
    ("policy", GROUND),
    ("http", GROUND),
    ("observe", GROUND),
    ("net", &["policy", "http", "config", "tls", "limits", "units", "error"]),
    ("worker", &["net", "policy", "http", "observe", "config", "tls", "limits", "units", "error"]),
    ("control", &["worker", "net", "policy", "http", "observe", "config", "tls", "limits", "units", "error"]),
    ("demo", &[]),
    ("cli", &["control", "demo", "observe", "net", "policy", "http", "config", "tls", "limits", "units", "error"]),
];
/// What everybody stands on.
const GROUND: &[&str] = &["config", "tls", "limits", "units", "error"];

/// Words that policy/ and http/ do not need: clocks, sockets, files, threads, locks, async, a global generator, logging, unsafe.
const IMPURE: &[&str] = &[
    "Instant::now",
    "SystemTime",
    "std::time::Instant",
    "TcpStream",
    "TcpListener",
    "UdpSocket",
    "UnixStream",
    "UnixListener",
    "std::fs",
    "std::env",
    "std::thread",
    "Mutex",
    "RwLock",
    "async",
    "await",
    "rand::rng",
    "rand::random",
    "thread_rng",
    "tokio",
    "monoio",
    "libc",
    "tracing",
    "log::",
    "println!",
    "eprintln!",
    "unsafe",
];

/// Files outside net/ that may say `unsafe`, each with its reason.
const UNSAFE_OUTSIDE_NET: &[(&str, &str)] = &[];

/// Tools that have a timetable: they sleep until a moment, where a test waits for a condition.
const MAY_SLEEP: &[&str] = &["loadtest/", "tests/drills/"];

/// Lines of a function, signature and braces included.
const FUNCTION_LINES_MAX: usize = 70;
/// Longer functions: file, name, lines. The number may only shrink: when it is a tenth too high it has to be lowered.
const LONG_FUNCTIONS: &[(&str, &str, usize)] = &[];

/// Lines of a file up to its unit tests: "about 400".
const FILE_LINES_MAX: usize = 480;
/// Longer files: file, lines, reason. The same ratchet.
const LONG_FILES: &[(&str, usize, &str)] = &[];

/// A source file of the repository.
struct Source {
    /// Relative to the root.
    path: String,
    text: String,
    /// The text with comments and strings blanked out; the same length in lines.
    code: String,
}

impl Source {
    /// The code without `#[cfg(test)]` items; empty for files that only tests use.
    fn shipped(&self) -> String {
        let is_test = |part: &str| matches!(part, "tests" | "benches" | "tests.rs");
        if self.path.split('/').any(is_test) { String::new() } else { without_tests(&self.code) }
    }

    /// The room under src/ that the file belongs to.
    fn room(&self) -> Option<&str> {
        let first = self.path.strip_prefix("src/")?.split('/').next()?;
        Some(first.trim_end_matches(".rs"))
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every `.rs` file of the workspace's own folders.
fn sources() -> Vec<Source> {
    let mut files = Vec::new();
    for folder in ["src", "tests", "benches", "loadtest", "fuzz"] {
        collect(&root().join(folder), "rs", &mut files);
    }
    assert!(files.len() > 10, "the sources were not found");
    files
        .into_iter()
        .map(|file| {
            let text = std::fs::read_to_string(&file).expect("readable");
            let path = file.strip_prefix(root()).expect("below the root").to_str().expect("UTF-8").to_owned();
            Source { path, code: code_of(&text), text }
        })
        .collect()
}

fn collect(folder: &Path, extension: &str, files: &mut Vec<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries {
        let path = entry.expect("readable").path();
        if path.is_dir() {
            if path.file_name().is_some_and(|name| name != "target") {
                collect(&path, extension, files);
            }
        } else if path.extension().is_some_and(|e| e == extension) {
            files.push(path);
        }
    }
}

/// Blanks out comments, strings and character literals, and keeps the lines.
fn code_of(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut code = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let end = skip(bytes, at);
        if end == at {
            code.push(bytes[at]);
            at += 1;
        } else {
            code.extend(bytes[at..end].iter().map(|byte| if *byte == b'\n' { b'\n' } else { b' ' }));
            at = end;
        }
    }
    String::from_utf8(code).expect("only whole literals were blanked out")
}

/// Where the comment or literal that begins at `at` ends; `at` itself when none does.
fn skip(bytes: &[u8], at: usize) -> usize {
    let rest = &bytes[at..];
    let inside_word = at > 0 && (bytes[at - 1].is_ascii_alphanumeric() || bytes[at - 1] == b'_');
    let find = |needle: &[u8], from: usize| {
        let found = bytes[from..].windows(needle.len()).position(|window| window == needle);
        found.map_or(bytes.len(), |offset| from + offset + needle.len())
    };
    if rest.starts_with(b"//") {
        return find(b"\n", at) - usize::from(rest.contains(&b'\n'));
    }
    if rest.starts_with(b"/*") {
        return find(b"*/", at + 2);
    }
    let prefix = rest.iter().take_while(|byte| matches!(byte, b'b' | b'r' | b'c')).count();
    let hashes = rest[prefix..].iter().take_while(|byte| **byte == b'#').count();
    if prefix > 0 && !inside_word && rest[..prefix].contains(&b'r') && rest.get(prefix + hashes) == Some(&b'"') {
        let end = [b"\"".as_slice(), &b"#".repeat(hashes)].concat();
        return find(&end, at + prefix + hashes + 1);
    }
    match rest[0] {
        b'"' => quoted_end(bytes, at, b'"'),
        // 'a' and '\n' are characters, 'a without a second quote is a lifetime
        b'\'' if rest.get(1) == Some(&b'\\') => quoted_end(bytes, at, b'\''),
        b'\'' => {
            let character = String::from_utf8_lossy(&rest[1..rest.len().min(5)]);
            let length = character.chars().next().map_or(0, char::len_utf8);
            if length > 0 && rest.get(1 + length) == Some(&b'\'') { at + length + 2 } else { at }
        }
        _ => at,
    }
}

fn quoted_end(bytes: &[u8], start: usize, quote: u8) -> usize {
    let mut at = start + 1;
    while at < bytes.len() && bytes[at] != quote {
        at += if bytes[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(bytes.len())
}

/// Blanks out every item behind `#[cfg(test)]`.
fn without_tests(code: &str) -> String {
    let mut shipped = code.to_owned();
    while let Some(start) = shipped.find("#[cfg(test)]") {
        let end = item_end(&shipped, start);
        let blank: String = shipped[start..end].chars().map(|c| if c == '\n' { '\n' } else { ' ' }).collect();
        shipped.replace_range(start..end, &blank);
    }
    shipped
}

/// Where the item that begins at `start` ends: behind its braces, or behind a semicolon outside of all brackets (`[u8; 4]`).
fn item_end(code: &str, start: usize) -> usize {
    let (mut braces, mut brackets) = (0_usize, 0_usize);
    for (offset, byte) in code[start..].bytes().enumerate() {
        match byte {
            b'(' | b'[' => brackets += 1,
            b')' | b']' => brackets = brackets.saturating_sub(1),
            b'{' => braces += 1,
            b'}' if braces <= 1 => return start + offset + 1,
            b'}' => braces -= 1,
            b';' if braces == 0 && brackets == 0 => return start + offset + 1,
            _ => {}
        }
    }
    code.len()
}

/// Whether `word` stands in `code` on its own: not as a part of a longer name.
fn says(code: &str, word: &str) -> bool {
    let is_name = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(word).any(|(at, _)| {
        let before = code[..at].chars().next_back().is_some_and(is_name);
        let after = word.ends_with(is_name) && code[at + word.len()..].chars().next().is_some_and(is_name);
        !before && !after
    })
}

/// Modules of the crate that the code names with `crate::…`.
fn rooms_used(code: &str) -> BTreeSet<String> {
    let mut used = BTreeSet::new();
    for (at, start) in code.match_indices("crate::") {
        if code[..at].ends_with('$') {
            continue;
        }
        let rest = &code[at + start.len()..];
        let list = match rest.strip_prefix('{') {
            Some(_) => top_level(&rest[..item_end(rest, 0)]),
            None => vec![rest],
        };
        for path in list {
            let name: String = path.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            used.insert(name);
        }
    }
    used
}

/// The parts of `{a, b::{c, d}}` between the outermost commas.
fn top_level(braces: &str) -> Vec<&str> {
    let (mut depth, mut begin, mut parts) = (0_usize, 1, Vec::new());
    for (at, byte) in braces.bytes().enumerate() {
        match byte {
            b'{' => depth += 1,
            b'}' => depth -= 1,
            b',' if depth == 1 => {
                parts.push(&braces[begin..at]);
                begin = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&braces[begin..braces.len().max(begin + 1) - 1]);
    parts
}

/// Name, first line (from 1) and length of every function that has a body.
fn functions(code: &str) -> Vec<(String, usize, usize)> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("fn ") {
        if code[..at].chars().next_back().is_some_and(|c| c.is_alphanumeric() || c == '_') {
            continue;
        }
        let name: String = code[at + 3..].chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        let end = item_end(code, at);
        if name.is_empty() || !code[at..end].ends_with('}') {
            continue;
        }
        found.push((name, code[..at].matches('\n').count() + 1, code[at..end].matches('\n').count() + 1));
    }
    found
}

/// Fails with all complaints at once.
fn conclude(complaints: &str) {
    assert!(complaints.is_empty(), "\n{complaints}");
}

#[test]
fn modules_use_only_what_stands_below_them() {
    let mut complaints = String::new();
    for source in sources() {
        let Some(room) = source.room().filter(|room| !matches!(*room, "main" | "lib")) else { continue };
        let Some((_, below)) = ARROWS.iter().find(|(name, _)| *name == room) else {
            writeln!(complaints, "{}: the room `{room}` has no place in ARROWS", source.path).unwrap();
            continue;
        };
        for used in rooms_used(&source.shipped()) {
            if used != room && ARROWS.iter().any(|(name, _)| *name == used) && !below.contains(&used.as_str()) {
                writeln!(complaints, "{}: `{room}` must not use `{used}`", source.path).unwrap();
            }
        }
    }
    conclude(&complaints);
}

#[test]
fn policy_and_http_are_pure() {
    let mut complaints = String::new();
    for source in sources().iter().filter(|source| matches!(source.room(), Some("policy" | "http"))) {
        for word in IMPURE.iter().filter(|word| says(&source.shipped(), word)) {
            writeln!(complaints, "{}: `{word}` in a pure module", source.path).unwrap();
        }
    }
    conclude(&complaints);
}

#[test]
fn unsafe_is_in_net_or_has_its_reason() {
    let sources = sources();
    let mut complaints = String::new();
    for source in sources.iter().filter(|source| source.path.starts_with("src/") && source.room() != Some("net")) {
        let listed = UNSAFE_OUTSIDE_NET.iter().any(|(path, reason)| *path == source.path && !reason.is_empty());
        // `unsafe_code` in an attribute is the opposite of what is looked for
        if says(&source.code, "unsafe") != listed {
            writeln!(complaints, "{}: `unsafe` and UNSAFE_OUTSIDE_NET disagree", source.path).unwrap();
        }
    }
    for (path, _) in UNSAFE_OUTSIDE_NET.iter().filter(|(path, _)| !sources.iter().any(|source| source.path == *path)) {
        writeln!(complaints, "{path} in UNSAFE_OUTSIDE_NET does not exist").unwrap();
    }
    conclude(&complaints);
}

#[test]
fn every_file_begins_with_what_it_is() {
    let mut complaints = String::new();
    for source in sources().iter().filter(|source| !source.text.starts_with("//! ")) {
        writeln!(complaints, "{}: no `//!` in its first line", source.path).unwrap();
    }
    conclude(&complaints);
}

#[test]
fn functions_and_files_stay_short() {
    let (mut complaints, mut long) = (String::new(), BTreeSet::new());
    for source in sources() {
        for (name, line, lines) in functions(&source.code).into_iter().filter(|f| f.2 > FUNCTION_LINES_MAX) {
            let place = format!("{}:{line}: `{name}`", source.path);
            let allowed = LONG_FUNCTIONS.iter().find(|(path, n, _)| *path == source.path && *n == name).map(|f| f.2);
            ratchet(&mut complaints, &place, lines, allowed);
            long.insert((source.path.clone(), name));
        }
        let lines = lines_before_tests(&source.text);
        if source.path.starts_with("src/") && lines > FILE_LINES_MAX {
            let allowed = LONG_FILES.iter().find(|(path, ..)| *path == source.path).map(|f| f.1);
            ratchet(&mut complaints, &source.path, lines, allowed);
            long.insert((source.path.clone(), String::new()));
        }
    }
    let functions = LONG_FUNCTIONS.iter().map(|(path, name, _)| (*path, *name));
    for (path, name) in functions.chain(LONG_FILES.iter().map(|(path, ..)| (*path, ""))) {
        if !long.contains(&(path.to_owned(), name.to_owned())) {
            writeln!(complaints, "{path} {name}: short or gone, remove it from the list").unwrap();
        }
    }
    conclude(&complaints);
}

/// A long thing may be as long as its exception says, and the exception must not be a tenth too generous.
fn ratchet(complaints: &mut String, place: &str, lines: usize, allowed: Option<usize>) {
    match allowed {
        Some(allowed) if lines > allowed => writeln!(complaints, "{place} has grown to {lines} lines"),
        Some(allowed) if lines * 10 < allowed * 9 => {
            writeln!(complaints, "{place} has {lines} lines: lower its number")
        }
        Some(_) => Ok(()),
        None => writeln!(complaints, "{place} has {lines} lines"),
    }
    .expect("a string takes everything");
}

/// Lines up to the unit tests.
fn lines_before_tests(text: &str) -> usize {
    text.lines().take_while(|line| !line.starts_with("#[cfg(test)]")).count()
}

#[test]
fn tests_do_not_sleep_and_are_not_ignored() {
    let mut complaints = String::new();
    for source in sources().iter().filter(|source| !MAY_SLEEP.iter().any(|place| source.path.starts_with(place))) {
        let is_test = source.path.starts_with("tests/") || source.code.contains("#[cfg(test)]");
        for word in
            ["thread::sleep", "time::sleep", "#[ignore"].iter().filter(|word| is_test && source.code.contains(**word))
        {
            let shipped = source.shipped();
            if source.code.matches(word).count() > shipped.matches(word).count() {
                writeln!(complaints, "{}: `{word}` in a test", source.path).unwrap();
            }
        }
    }
    conclude(&complaints);
}

#[test]
fn nothing_is_left_to_do_and_names_say_something() {
    let mut complaints = String::new();
    for source in sources() {
        for word in ["todo!", "unimplemented!", "dbg!"].iter().filter(|word| says(&source.code, word)) {
            writeln!(complaints, "{}: `{word}`", source.path).unwrap();
        }
        for (name, line, _) in functions(&source.code) {
            if matches!(name.as_str(), "process" | "handle") || name.starts_with("do_") {
                writeln!(complaints, "{}:{line}: `{name}` does not say what it does", source.path).unwrap();
            }
        }
    }
    conclude(&complaints);
}

#[test]
fn every_configuration_file_loads() {
    let mut files = Vec::new();
    collect(&root().join("config"), "toml", &mut files);
    assert!(files.iter().any(|file| file.ends_with("config/ringgate.toml")), "config/ringgate.toml is missing");
    assert!(files.iter().any(|file| file.parent().is_some_and(|folder| folder.ends_with("examples"))), "no examples");
    // this one needs certificates, which its own test makes
    for file in files.into_iter().filter(|file| !file.ends_with("examples/tls.toml")) {
        let output =
            Command::new(env!("CARGO_BIN_EXE_ringgate")).arg("check").arg("-c").arg(&file).output().expect("it runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}: {said}", file.display());
    }
}

#[test]
fn every_configuration_key_is_documented() {
    let text = std::fs::read_to_string(root().join("config/ringgate.toml")).expect("config/ringgate.toml");
    let output = Command::new(env!("CARGO_BIN_EXE_ringgate")).arg("schema").output().expect("it runs");
    let schema: Value = serde_json::from_slice(&output.stdout).expect("the schema is JSON");
    let mut keys = BTreeSet::new();
    property_names(&schema, &mut keys);
    assert!(keys.len() > 40, "the schema has only {} keys", keys.len());
    let missing: Vec<_> = keys.iter().filter(|key| !says(&text, key)).collect();
    assert!(missing.is_empty(), "not in config/ringgate.toml: {missing:?}");
}

/// Every name below a `properties` of the schema.
fn property_names(schema: &Value, names: &mut BTreeSet<String>) {
    match schema {
        Value::Object(object) => {
            if let Some(Value::Object(properties)) = object.get("properties") {
                names.extend(properties.keys().cloned());
            }
            object.values().for_each(|value| property_names(value, names));
        }
        Value::Array(list) => list.iter().for_each(|value| property_names(value, names)),
        _ => {}
    }
}

#[test]
fn the_rules_see_through_comments_strings_and_test_code() {
    let text = "//! unsafe\nfn a<'a>(x: &'a str) { let _ = (\"unsafe \\\" {\", '{', '\\'', r#\"unsafe\"#); } /* unsafe\n */\n\
                #[cfg(test)]\nmod tests {\n fn b(x: [u8; 4]) { unsafe {} }\n}\nfn c() {\n}\n";
    let code = code_of(text);
    assert_eq!(code.lines().count(), text.lines().count());
    assert!(says(&code, "unsafe") && !says(&without_tests(&code), "unsafe"));
    let lengths: Vec<_> =
        functions(&code).into_iter().map(|(name, line, lines)| format!("{name}:{line}:{lines}")).collect();
    assert_eq!(lengths, ["a:2:1", "b:6:1", "c:8:2"]);
    assert!(!says("unsafe_code is not it, nor is not_unsafe", "unsafe"));
}

#[test]
fn the_rules_find_modules_in_nested_imports() {
    let used = rooms_used(
        "use crate::{units::{Rate, Ratio}, limits, policy::x}; fn f() -> crate::http::Head { $crate::net::x() }",
    );
    assert_eq!(used.into_iter().collect::<Vec<_>>(), ["http", "limits", "policy", "units"]);
}
