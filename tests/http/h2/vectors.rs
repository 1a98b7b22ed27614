//! RFC 7541 appendix C: the examples of HPACK, block by block.

use ringgate::http::h2::decoder::Decoder;
use ringgate::http::h2::section::{Bounds, Role, Section};

const BOUNDS: Bounds = Bounds { bytes_max: 1 << 16, fields_max: 100 };

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

/// One line a field.
fn decode(decoder: &mut Decoder, block: &[u8], role: Role) -> String {
    let mut section = Section::default();
    section.clear(role);
    decoder.decode(block, &BOUNDS, &mut section).expect("a block of the RFC");
    String::from_utf8(section.lines().to_vec()).unwrap().replace("\r\n", "\n")
}

/// What the dynamic table holds, the newest first, by asking for it.
fn table(decoder: &mut Decoder, role: Role) -> Vec<String> {
    let mut rows = Vec::new();
    for index in 62..=127 {
        let mut section = Section::default();
        section.clear(role);
        if decoder.decode(&[0x80 | index], &BOUNDS, &mut section).is_err() {
            return rows;
        }
        rows.push(String::from_utf8(section.lines().to_vec()).unwrap().replace("\r\n", ""));
    }
    panic!("a table without end")
}

#[test]
fn single_fields_of_c_2() {
    for (hex, line, added) in [
        ("400a 6375 7374 6f6d 2d6b 6579 0d63 7573 746f 6d2d 6865 6164 6572", "custom-key: custom-header\n", true),
        ("040c 2f73 616d 706c 652f 7061 7468", ":path: /sample/path\n", false),
        ("1008 7061 7373 776f 7264 0673 6563 7265 74", "password: secret\n", false),
        ("82", ":method: GET\n", false),
    ] {
        let mut decoder = Decoder::default();
        assert_eq!(decode(&mut decoder, &bytes(hex), Role::Request), line);
        assert_eq!(table(&mut decoder, Role::Request).len(), usize::from(added), "{line}");
    }
}

#[test]
fn requests_of_c_3_and_c_4() {
    let plain = [
        "8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
        "8286 84be 5808 6e6f 2d63 6163 6865",
        "8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65",
    ];
    let huffman = [
        "8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff",
        "8286 84be 5886 a8eb 1064 9cbf",
        "8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf",
    ];
    for blocks in [plain, huffman] {
        let mut decoder = Decoder::default();
        let mut next = |hex| decode(&mut decoder, &bytes(hex), Role::Request);
        let start = ":method: GET\n:scheme: http\n:path: /\n:authority: www.example.com\n";
        assert_eq!(next(blocks[0]), start);
        assert_eq!(next(blocks[1]), format!("{start}cache-control: no-cache\n"));
        assert_eq!(
            next(blocks[2]),
            ":method: GET\n:scheme: https\n:path: /index.html\n:authority: www.example.com\ncustom-key: custom-value\n"
        );
        let rows = ["custom-key: custom-value", "cache-control: no-cache", ":authority: www.example.com"];
        assert_eq!(table(&mut decoder, Role::Request), rows);
    }
}

#[test]
fn responses_of_c_5_and_c_6_with_a_table_of_256_bytes() {
    let plain = [
        "4803 3330 3258 0770 7269 7661 7465 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 3120 \
         474d 546e 1768 7474 7073 3a2f 2f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
        "4803 3330 37c1 c0bf",
        "88c1 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 3220 474d 54c0 5a04 677a 6970 7738 \
         666f 6f3d 4153 444a 4b48 514b 425a 584f 5157 454f 5049 5541 5851 5745 4f49 553b 206d 6178 2d61 6765 3d33 \
         3630 303b 2076 6572 7369 6f6e 3d31",
    ];
    let huffman = [
        "4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6 2d1b ff6e 919d 29ad 1718 \
         63c7 8f0b 97c8 e9ae 82ae 43d3",
        "4883 640e ffc1 c0bf",
        "88c1 6196 d07a be94 1054 d444 a820 0595 040b 8166 e084 a62d 1bff c05a 839b d9ab 77ad 94e7 821d d7f2 e6c7 \
         b335 dfdf cd5b 3960 d5af 2708 7f36 72c1 ab27 0fb5 291f 9587 3160 65c0 03ed 4ee5 b106 3d50 07",
    ];
    for blocks in [plain, huffman] {
        let mut decoder = Decoder::default();
        let first = [bytes("3fe1 01"), bytes(blocks[0])].concat();
        let rest = "cache-control: private\ndate: Mon, 21 Oct 2013 20:13:21 GMT\nlocation: https://www.example.com\n";
        assert_eq!(decode(&mut decoder, &first, Role::Response), format!(":status: 302\n{rest}"));
        assert_eq!(decode(&mut decoder, &bytes(blocks[1]), Role::Response), format!(":status: 307\n{rest}"));
        let cookie = "foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1";
        let last = decode(&mut decoder, &bytes(blocks[2]), Role::Response);
        let wanted = format!(
            ":status: 200\ncache-control: private\ndate: Mon, 21 Oct 2013 20:13:22 GMT\n\
             location: https://www.example.com\ncontent-encoding: gzip\nset-cookie: {cookie}\n"
        );
        assert_eq!(last, wanted);
        let rows = [
            format!("set-cookie: {cookie}"),
            "content-encoding: gzip".to_owned(),
            "date: Mon, 21 Oct 2013 20:13:22 GMT".to_owned(),
        ];
        assert_eq!(table(&mut decoder, Role::Response), rows);
    }
}

/// §4.2, §4.3, §6.1, §6.3, §5.1, §5.2: what loses a connection.
#[test]
fn what_cannot_be_decoded() {
    for (hex, why) in [
        ("80", "index 0, §6.1"),
        ("be", "an index behind both tables, §2.3.3"),
        ("ff ff ff ff ff 0f", "an index without end, §5.1"),
        ("7f 00 01 61", "a name behind both tables, §6.2.1"),
        ("82 20", "a size behind a field, §4.2"),
        ("3f e2 1f", "a size above what was allowed, §6.3"),
        ("3f", "a size that is cut, §5.1"),
        ("40", "no name, §6.2.1"),
        ("00 01", "a name that is cut, §5.2"),
        ("00 01 61", "no value, §6.2.2"),
        ("00 01 61 05 62", "a value that is cut, §5.2"),
        ("00 01 61 82 ff ff", "padding of more than seven bits, §5.2"),
        ("00 01 61 81 1e", "padding that is not of ones, §5.2"),
        ("00 01 61 84 ff ff ff ff", "EOS, §5.2"),
        ("10 ff ff ff ff ff 0f", "a length without end, §5.1"),
    ] {
        let mut section = Section::default();
        section.clear(Role::Request);
        assert!(Decoder::default().decode(&bytes(hex), &BOUNDS, &mut section).is_err(), "{why}");
    }
    for (hex, why) in [("3f e1 1f", "4,096, §6.3"), ("20 3f e1 1f", "twice, §4.2"), ("", "nothing")] {
        let mut section = Section::default();
        section.clear(Role::Trailers);
        assert!(Decoder::default().decode(&bytes(hex), &BOUNDS, &mut section).is_ok(), "{why}");
    }
}
