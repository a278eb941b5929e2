//! Index of a payload: the nouns of `.pbx/index.json`.

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Serialize};

use super::facts::Facts;
use super::problem::Problem;
use super::snapshot::SnapshotId;

/// Path of the index in the payload; always its last entry.
pub const INDEX_PATH: &str = ".pbx/index.json";
/// The entries of a snapshot at most. A host has a few ten thousand files of configuration, homes included.
pub const ENTRIES_MAX: usize = 110_000;
/// The memory of all entries of a snapshot at most, by [`Entry::memory`].
pub const ENTRIES_MAX_BYTES: usize = 48 << 20;
/// Directory of the outputs of commands.
pub const STATE_DIR: &str = ".pbx/state";

/// A path in a payload: relative, without `.` or `..`, any bytes but NUL.
/// In JSON a string, or an array of bytes when it is not UTF-8.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Vec<u8>);

impl Name {
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self(bytes.into())
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    pub fn as_path(&self) -> &Path {
        Path::new(OsStr::from_bytes(&self.0))
    }

    /// Safe to extract below a directory: relative, no empty, `.` or `..` component.
    pub fn is_safe(&self) -> bool {
        !self.0.is_empty()
            && !self.0.contains(&0)
            && self.0.split(|b| *b == b'/').all(|part| !matches!(part, b"" | b"." | b".."))
    }
}

impl From<&Path> for Name {
    fn from(path: &Path) -> Self {
        Self(path.as_os_str().as_bytes().to_vec())
    }
}

/// Reports whether a character acts on a terminal, or hides or reverses the text beside it: control characters,
/// Unicode's separators of lines, its invisible marks and its overrides of direction.
pub fn is_harmful(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}')
        || matches!(c, '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// Replaces every harmful character by a blank: what is left is one line.
pub fn one_line(text: &str) -> String {
    text.chars().map(|c| if is_harmful(c) { ' ' } else { c }).collect()
}

/// Readable and harmless on a terminal: what is harmful, and bad bytes, are escaped.
impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::with_capacity(self.0.len());
        for chunk in self.0.utf8_chunks() {
            for c in chunk.valid().chars() {
                if is_harmful(c) {
                    text.extend(c.escape_default());
                } else {
                    text.push(c);
                }
            }
            for byte in chunk.invalid() {
                text.push_str(&format!("\\x{byte:02x}"));
            }
        }
        f.pad(&text)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

impl Serialize for Name {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match std::str::from_utf8(&self.0) {
            Ok(text) => serializer.serialize_str(text),
            Err(_) => serializer.collect_seq(&self.0),
        }
    }
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextOrBytes;

        impl<'de> Visitor<'de> for TextOrBytes {
            type Value = Vec<u8>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or an array of bytes")
            }

            fn visit_str<E>(self, text: &str) -> Result<Vec<u8>, E> {
                Ok(text.as_bytes().to_vec())
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut bytes: A) -> Result<Vec<u8>, A::Error> {
                let mut all = Vec::new();
                while let Some(byte) = bytes.next_element()? {
                    all.push(byte);
                }
                all.shrink_to_fit();
                Ok(all)
            }
        }

        deserializer.deserialize_any(TextOrBytes).map(Self)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EntryKind {
    File,
    Dir,
    Symlink,
    /// Another name of a file that stands earlier in the payload.
    Hardlink,
}

/// Seconds and nanoseconds since 1970.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mtime(pub i64, pub u32);

/// One entry of the payload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The catalogue item it belongs to.
    pub item: String,
    pub path: Name,
    pub kind: EntryKind,
    /// Permission bits with setuid, setgid and sticky.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub owner: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub group: String,
    pub mtime: Mtime,
    /// Bytes of a file, 0 for others.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub size: u64,
    /// Hash of a file, lower-case hex.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub sha256: String,
    /// Target of a symbolic link, or the earlier path of a hard link.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<Name>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub secret: bool,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub xattrs: Vec<Xattr>,
}

impl Entry {
    /// Returns the bytes that it takes in memory, as the allocator rounds them.
    pub fn memory(&self) -> usize {
        const HEX_SHA256: usize = 64;
        let link = self.link.as_ref().map_or(0, |link| link.as_bytes().len());
        let texts = [self.item.len(), self.path.as_bytes().len(), self.owner.len(), self.group.len(), link];
        // It is there only after a file was read.
        let hash = self.sha256.len().max(if self.kind == EntryKind::File { HEX_SHA256 } else { 0 });
        size_of::<Self>()
            + texts.into_iter().map(chunk).sum::<usize>()
            + chunk(hash)
            + self.xattrs.iter().map(Xattr::memory).sum::<usize>()
    }
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde's signature
fn is_zero(n: &u64) -> bool {
    *n == 0
}

/// An extended attribute (ACLs and capabilities are such), raw as the kernel gives it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Xattr {
    pub name: String,
    pub value: Vec<u8>,
}

impl Xattr {
    /// Returns the bytes that it takes in memory.
    pub fn memory(&self) -> usize {
        size_of::<Self>() + chunk(self.name.len()) + chunk(self.value.len())
    }
}

/// Returns the bytes that the allocator takes for so many.
fn chunk(len: usize) -> usize {
    if len == 0 { 0 } else { (len + 8).next_multiple_of(16).max(32) }
}

/// Output of a command. Its standard output is the entry `.pbx/state/<name>`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandOutput {
    pub item: String,
    pub name: String,
    pub argv: Vec<String>,
    /// "exit 0", "signal 9", "timed out after 20 s".
    pub status: String,
    /// The end of standard error, secrets masked.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub stderr: String,
}

/// A catalogue item that this host has nothing for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Absence {
    pub item: String,
}

/// `.pbx/index.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Index {
    pub format: u32,
    pub id: SnapshotId,
    pub facts: Facts,
    pub entries: Vec<Entry>,
    pub outputs: Vec<CommandOutput>,
    pub absent: Vec<Absence>,
    pub problems: Vec<Problem>,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_name_that_is_not_utf8_survives_json() {
        let name = Name::new(&b"etc/caf\xe9\n"[..]);
        let json = serde_json::to_string(&name).unwrap();
        assert_eq!(serde_json::from_str::<Name>(&json).unwrap(), name);
        assert_eq!(name.to_string(), "etc/caf\\xe9\\n");
    }

    #[test]
    fn a_name_does_nothing_to_what_stands_beside_it() {
        let name = Name::new("cod.\u{202e}gpj\u{2028}exe\u{1b}[2J");
        assert_eq!(name.to_string(), "cod.\\u{202e}gpj\\u{2028}exe\\u{1b}[2J");
        assert_eq!(Name::new("ünï→ á 漢").to_string(), "ünï→ á 漢");
    }

    #[test]
    fn names_that_leave_the_target_are_not_safe() {
        for bad in ["", "/etc", "..", "a/../b", "a//b", "./a", "a/", "a/.", "a\0b"] {
            assert!(!Name::new(bad).is_safe(), "{bad:?}");
        }
        assert!(Name::new("etc/..hidden/a").is_safe());
    }
}
