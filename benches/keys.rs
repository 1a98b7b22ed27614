//! Whether the time that a key takes says how much of it is right: keys that are nobody's and share nothing, half, or all but the last byte with one that
//! is somebody's, and that one.
//!
//! A bench and no test: what is looked for is a few nanoseconds of some hundred, and a machine that does something else hides them, or makes some
//! up. The first three have to take the same; the one that is right costs what it finds.

use criterion::{Criterion, criterion_group, criterion_main};
use ringgate::config::parse;
use ringgate::policy::identity::Identities;
use std::hash::RandomState;
use std::hint::black_box;

const KEY: &str = "3f8a1c5e7b2d4f609182a3b4c5d6e7f80123456789abcdef0123456789abcdef";
/// Of that.
const DIGEST: &str = "9dcdacd8ca6980158412f36780c4383893f5e0e404d31ed3a6d587e05b32f02e";

fn keys(c: &mut Criterion) {
    let text = format!(
        "[[listener]]\nlisten = \"127.0.0.1:0\"\n[[route]]\nrespond = {{}}\n[consumer.acme]\nkeys = [{{ sha256 = \"{DIGEST}\" }}]\n"
    );
    let config = parse(&text, "f").unwrap_or_else(|errors| panic!("{errors}"));
    let identities = Identities::new(&config.consumers, RandomState::new);
    let shares = |bytes: usize| {
        let mut key = KEY.as_bytes().to_vec();
        key[bytes..].iter_mut().for_each(|byte| *byte ^= 1);
        key
    };
    let mut group = c.benchmark_group("key");
    for (name, shown) in
        [("nothing of it", shares(0)), ("half of it", shares(32)), ("all but a byte", shares(63)), ("it", shares(64))]
    {
        assert_eq!(identities.by_key(&shown).is_some(), shown == KEY.as_bytes());
        group.bench_function(name, |b| b.iter(|| identities.by_key(black_box(&shown))));
    }
    group.finish();
}

criterion_group!(benches, keys);
criterion_main!(benches);
