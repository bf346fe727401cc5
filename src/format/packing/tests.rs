//! Payloads packed by Python's gzip and zlib, and by the zstd of the command line.

use proptest::prelude::*;

use crate::component::Kind;
use crate::format::testing::{Parse, all_or_none, decoder, faults, rows};
use crate::format::{json, scalar};

const PARSE: Parse = json::KIND.parse;

/// `{"a":1.5}`.
const BARE: &[u8] = br#"{"a":1.5}"#;
const GZIP: &str = "1f8b0800000000000203ab564a54b232d433ad0500df54595509000000";
/// Two members: `{"a":` and `1.5}`.
const MEMBERS: &str =
    "1f8b0800000000000203ab564a54b20200f37fb06a050000001f8b080000000000020333d433ad050005e485d704000000";
const ZLIB: &str = "789cab564a54b232d433ad05000c36026c";
const ZLIB_FASTEST: &str = "7801ab564a54b232d433ad05000c36026c";
const DEFLATE: &str = "ab564a54b232d433ad0500";
const ZSTD: &str = "28b52ffd04584900007b2261223a312e357d721491ac";

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

fn read(settings: &str, body: &[u8]) -> Result<String, String> {
    rows(PARSE, settings, "a = 'float64'", body).map_err(|why| why.why)
}

#[test]
fn every_compression_is_undone() {
    let cases = [
        ("gzip", GZIP),
        ("gzip", MEMBERS),
        ("zlib", ZLIB),
        ("zlib", ZLIB_FASTEST),
        ("deflate", DEFLATE),
        ("zstd", ZSTD),
        ("auto", GZIP),
        ("auto", ZLIB),
        ("auto", ZLIB_FASTEST),
        ("auto", ZSTD),
    ];
    for (name, packed) in cases {
        let settings = format!("compression = '{name}'");
        assert_eq!(read(&settings, &bytes(packed)).as_deref(), Ok("1.5"), "{name} {packed}");
    }
    for name in ["auto", "none"] {
        assert_eq!(read(&format!("compression = '{name}'"), BARE).as_deref(), Ok("1.5"), "{name}");
    }
    assert_eq!(rows(scalar::KIND.parse, "compression = 'auto'", "a = 'utf8'", BARE).as_deref(), Ok(r#"{"a":1.5}"#));
}

#[test]
fn text_that_stands_for_bytes_is_decoded() {
    let cases = [
        ("hex", "7b2261223a312e357d"),
        ("hex", " 7B2261223A312E357D\r\n"),
        ("hex", "0x7b2261223a312e357d\n"),
        ("base64", "eyJhIjoxLjV9"),
        ("base64", "eyJhIjoxLjV9Cg==\n"),
        ("base64", "eyJhIjoxLjV9Cg"),
    ];
    for (name, packed) in cases {
        assert_eq!(read(&format!("encoding = '{name}'"), packed.as_bytes()).as_deref(), Ok("1.5"), "{name} {packed}");
    }
    // Python: base64.b64encode and urlsafe_b64encode of "\xfb\xff?".
    for packed in ["+/8/", "-_8_"] {
        let text = rows(scalar::KIND.parse, "encoding = 'base64'", "a = 'binary'", packed.as_bytes());
        assert_eq!(text.as_deref(), Ok("fbff3f"), "{packed}");
    }
    for (name, packed) in [("gzip", GZIP), ("zstd", ZSTD), ("auto", ZLIB)] {
        let settings = format!("encoding = 'hex'\ncompression = '{name}'");
        assert_eq!(read(&settings, packed.as_bytes()).as_deref(), Ok("1.5"), "{name}");
    }
}

#[test]
fn what_is_not_packed_as_said_is_malformed() {
    for name in ["gzip", "zlib", "deflate", "zstd"] {
        let settings = format!("compression = '{name}'");
        let why = read(&settings, BARE).unwrap_err();
        assert!(why.starts_with(&format!("the payload cannot be inflated as {name}: ")), "{why}");
        assert_eq!(read(&settings, b"").unwrap_err(), "the payload is empty, but should be compressed");
    }
    for (name, packed) in [("gzip", GZIP), ("zlib", ZLIB), ("deflate", DEFLATE), ("zstd", ZSTD)] {
        let settings = format!("compression = '{name}'");
        let (whole, cut) = (bytes(&format!("{packed}00")), bytes(&packed[..packed.len() - 2]));
        assert!(read(&settings, &whole).is_err(), "{name}: a byte behind its end");
        assert!(read(&settings, &cut).is_err(), "{name}: without its last byte");
    }
    for (name, text, expected) in [
        ("hex", "7b2", "the payload is not hex: 3 digits are no whole bytes"),
        ("hex", "7bx2", "the payload is not hex: expected 0-9 or a-f, got `x`"),
        ("base64", "ey Jh", "the payload is not base64: Invalid symbol 32, offset 2."),
    ] {
        assert_eq!(read(&format!("encoding = '{name}'"), text.as_bytes()).unwrap_err(), expected, "{text}");
    }
}

/// 300,000 zeros in 314 bytes: nearly a thousand times as many.
#[test]
fn bombs_are_stopped_at_the_limit() {
    use std::io::Write;
    let mut packer = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
    packer.write_all(&[b'0'; 300_000]).unwrap();
    let zlib = packer.finish().unwrap();
    let zstd = zstd::bulk::compress(&[b'0'; 300_000], 3).unwrap();
    for (name, bomb) in [("zlib", zlib), ("zstd", zstd)] {
        let len = bomb.len();
        for (settings, expected) in [
            ("", format!("payload of {len} bytes inflates to more than max_ratio = 100 times as many")),
            ("max_ratio = 100000", format!("payload of {len} bytes inflates to more than max_bytes = 262144")),
            ("max_bytes = '1KiB'", format!("payload of {len} bytes inflates to more than max_bytes = 1024")),
        ] {
            let why = read(&format!("compression = '{name}'\n{settings}"), &bomb).unwrap_err();
            assert_eq!(why, expected, "{name} {settings}");
        }
    }
    // Exactly at the limit, and a byte over it.
    assert_eq!(read("compression = 'zlib'\nmax_bytes = '9B'", &bytes(ZLIB)).as_deref(), Ok("1.5"));
    assert!(read("compression = 'zlib'\nmax_bytes = '8B'", &bytes(ZLIB)).is_err());
}

#[test]
fn a_window_of_gigabytes_is_refused() {
    // The head of a frame of RFC 8878 whose window is of 2^31 bytes (exponent 21), and an empty last block.
    let why = read("compression = 'zstd'", &bytes("28b52ffd00a8010000")).unwrap_err();
    assert!(why.contains("too much memory"), "{why}");
}

#[test]
fn settings_that_do_not_go_together_are_faults() {
    for kind in [json::KIND, scalar::KIND] {
        let Kind { parse, .. } = kind;
        let found = |settings| faults(parse, settings, "a = 'utf8'");
        assert_eq!(found("compression = 'zstd'\nmax_ratio = 5\nencoding = 'hex'"), Vec::<String>::new());
        assert_eq!(
            found("max_ratio = 5"),
            ["`max_ratio` bounds what is inflated, but payloads are not compressed here"]
        );
        assert_eq!(
            found("compression = 'lz4'\nmax_ratio = 5\nencoding = 'base32'"),
            [
                "`encoding`: expected \"none\" or \"base64\" or \"hex\", got \"base32\"",
                "`compression`: expected \"none\" or \"gzip\" or \"zlib\" or \"deflate\" or \"zstd\" or \"auto\", got \"lz4\"",
            ]
        );
    }
}

proptest! {
    #[test]
    fn damage_never_leaves_a_part(
        which in 0..4usize, at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<prop::sample::Index>(),
    ) {
        let (name, packed) = [("gzip", GZIP), ("zlib", ZLIB), ("deflate", DEFLATE), ("zstd", ZSTD)][which];
        let good = bytes(packed);
        let mut other = good.clone();
        let at = at.index(other.len());
        other[at] = byte;
        other.truncate(cut.index(other.len() + 1));
        let mut decoder = decoder(PARSE, &format!("compression = '{name}'"), "a = 'float64'");
        all_or_none(&mut *decoder, &good, &other);
    }
}
