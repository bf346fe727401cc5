//! Partition values as parts of a path.

use std::fmt::{self, Write as _};

use crate::sink::digest::sha256;

/// What stands for a value that is null, as Hive and every reader of its layout have it.
pub const NULL: &str = "__HIVE_DEFAULT_PARTITION__";
/// What stands for the empty string.
pub const EMPTY: &str = "__HIVE_EMPTY__";
/// Longer parts of a path are cut, and made distinct by a digest. File systems allow 255 bytes, the key's included.
pub const BYTES_MAX: usize = 120;
/// Bytes of the digest that are written, as twice as many digits: two values that meet would have to be searched for
/// with 2^64 tries.
const DIGEST_BYTES: usize = 16;

/// One part of a path, made of a value that nobody vouches for.
///
/// Letters, digits, `.`, `_` and `-` stay, every other byte is `%` and two upper-case hex digits, as Hive and Arrow
/// write it; so is a `.` or `_` at the beginning, where it would hide the folder or be one of the reserved names. A
/// part that would be longer than [`BYTES_MAX`] is its beginning, `~` and a digest; `~` stands in no other part. So the
/// part never is `.` or `..`, holds no separator, and no two values have the same.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PartitionValue(String);

impl PartitionValue {
    /// Of a value; `None` is null. Bytes need not be UTF-8.
    pub fn new(value: Option<&[u8]>) -> Self {
        match value {
            None => Self(NULL.to_owned()),
            Some([]) => Self(EMPTY.to_owned()),
            Some(bytes) => Self(escape(bytes)),
        }
    }

    /// As it stands in the path.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PartitionValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn escape(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().min(BYTES_MAX) + 8);
    let tail_len = 1 + 2 * DIGEST_BYTES;
    // Where the text is cut if it turns out too long: never within a `%XX`.
    let mut cut = 0;
    for (index, &byte) in bytes.iter().enumerate() {
        let plain = byte.is_ascii_alphanumeric() || byte == b'-' || (index > 0 && matches!(byte, b'.' | b'_'));
        if plain {
            text.push(char::from(byte));
        } else {
            text.push('%');
            push_hex(&mut text, byte);
        }
        if text.len() <= BYTES_MAX - tail_len {
            cut = text.len();
        }
        if text.len() > BYTES_MAX {
            text.truncate(cut);
            text.push('~');
            for byte in &sha256(bytes)[..DIGEST_BYTES] {
                push_hex(&mut text, *byte);
            }
            break;
        }
    }
    text
}

fn push_hex(text: &mut String, byte: u8) {
    write!(text, "{byte:02X}").expect("writing to a string never fails");
}

#[cfg(test)]
mod tests {
    use std::path::{Component, Path};

    use proptest::prelude::*;

    use super::*;

    fn value(text: &str) -> String {
        PartitionValue::new(Some(text.as_bytes())).0
    }

    #[test]
    fn hostile_values_stay_one_part_of_a_path() {
        for (given, expected) in [
            ("berlin", "berlin"),
            ("../../etc", "%2E.%2F..%2Fetc"),
            (".", "%2E"),
            ("..", "%2E."),
            ("", "__HIVE_EMPTY__"),
            ("__HIVE_EMPTY__", "%5F_HIVE_EMPTY__"),
            ("__HIVE_DEFAULT_PARTITION__", "%5F_HIVE_DEFAULT_PARTITION__"),
            ("a/b", "a%2Fb"),
            ("k=v", "k%3Dv"),
            (".hidden", "%2Ehidden"),
            ("100%", "100%25"),
            ("a~b", "a%7Eb"),
            ("ü", "%C3%BC"),
            ("\0", "%00"),
        ] {
            assert_eq!(value(given), expected);
        }
        assert_eq!(PartitionValue::new(None).as_str(), "__HIVE_DEFAULT_PARTITION__");
        assert_eq!(PartitionValue::new(Some(&[0xFF, b'a'])).as_str(), "%FFa");
    }

    #[test]
    fn long_values_are_cut_and_told_apart() {
        assert_eq!(value(&"x".repeat(120)), "x".repeat(120));
        let (a, b) = (value(&"x".repeat(121)), value(&"x".repeat(122)));
        assert_ne!(a, b);
        assert_eq!((a.len(), b.len()), (120, 120));
        assert!(a.starts_with(&"x".repeat(87)) && a.as_bytes()[87] == b'~', "{a}");
        // A cut within an escape would make another value of it.
        let escaped = value(&"ü".repeat(300));
        assert_eq!(escaped.split_once('~').unwrap().0, "%C3%BC".repeat(14) + "%C3");
    }

    fn any_value() -> impl Strategy<Value = Option<Vec<u8>>> {
        let tricky = prop::sample::select(vec![
            "",
            ".",
            "..",
            "_",
            "__HIVE_EMPTY__",
            "__HIVE_DEFAULT_PARTITION__",
            "%",
            "%2E",
            "~",
            "a~b",
            "/",
            "a/b",
        ]);
        prop_oneof![
            Just(None),
            tricky.prop_map(|text| Some(text.as_bytes().to_vec())),
            "[a.%_~/-]{0,5}".prop_map(|text| Some(text.into_bytes())),
            ("[ab]", 115usize..130).prop_map(|(letter, n)| Some(letter.repeat(n).into_bytes())),
            prop::collection::vec(any::<u8>(), 0..300).prop_map(Some),
        ]
    }

    proptest! {
        #[test]
        fn no_two_values_collide(a in any_value(), b in any_value()) {
            let (x, y) = (PartitionValue::new(a.as_deref()), PartitionValue::new(b.as_deref()));
            prop_assert_eq!(a == b, x == y);
        }

        #[test]
        fn no_value_leaves_the_base(a in any_value()) {
            let part = PartitionValue::new(a.as_deref());
            let path = Path::new("base").join(part.as_str());
            let parts: Vec<_> = path.components().collect();
            prop_assert_eq!(parts.len(), 2);
            prop_assert!(matches!(parts[1], Component::Normal(name) if name == part.as_str()));
            prop_assert!(part.as_str().len() <= BYTES_MAX);
        }
    }
}
