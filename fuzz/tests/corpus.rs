//! Replays the kept corpus of every target, so that what the fuzzers have found stays true with any toolchain.

use ringgate_fuzz::TARGETS;
use std::fs;
use std::path::Path;

#[test]
fn every_kept_input_still_holds() {
    for (name, check) in TARGETS {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name);
        let mut files: Vec<_> =
            fs::read_dir(&folder).expect("a corpus").map(|entry| entry.expect("readable").path()).collect();
        files.sort();
        assert!(files.len() >= 20, "{name} has lost its corpus: {} files", files.len());
        let mut bytes = 0;
        for file in files {
            let input = fs::read(&file).expect("readable");
            bytes += input.len();
            // the name of the file is what a failure must tell
            println!("{}", file.display());
            check(&input);
        }
        assert!(bytes < 1 << 20, "the corpus of {name} is for git, keep it small: {bytes} bytes");
    }
}

#[test]
fn short_inputs_of_every_kind_hold() {
    for (_, check) in TARGETS {
        check(b"");
        for knobs in 0..=255 {
            check(&[knobs]);
            check(&[knobs, b'\r']);
            check(&[knobs, b'\n', b'P']);
        }
    }
}
