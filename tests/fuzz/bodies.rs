//! What must hold whatever the bytes are, one function for each reader of foreign bytes. `tests/fuzz.rs` runs
//! each some thousand times in every test run, `make fuzz` as long as it is told to.
#![allow(
    dead_code,
    unused_imports,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::duplicate_mod
)]

#[path = "../common/tree.rs"]
mod tree;

mod answers;
mod forge;
mod machine;
mod objects;

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use pbx_config::archive::codec::CODECS;
use pbx_config::archive::reader::Head;
use pbx_config::archive::tar;
use pbx_config::config::BackupConfig;
use pbx_config::model::index::{Entry, Index, Mtime, Name, is_harmful};
use pbx_config::model::section::{self, Section};
use pbx_config::model::snapshot::SnapshotId;
use pbx_config::sys::fs::glob::{GlobPart, Pattern};
use pbx_config::sys::fs::{files, mounts};
use pbx_config::task::scan::referenced_files;

pub use self::answers::{http, listings, plan, sidecars, smtp, undo};
pub use self::forge::snapshot;
pub use self::machine::{HOST_FILES, config, database, host, names};
pub use self::objects::objects;

pub type Body = fn(&[u8]);

/// Every body, and how many cases a test run spends on it: those that write files cost milliseconds each.
pub const BODIES: [(&str, Body, u32); 19] = [
    ("section", section, 6000),
    ("manifest", manifest, 4000),
    ("index", index, 3000),
    ("payload", payload, 4000),
    ("decode", decode, 3000),
    ("pattern", pattern, 8000),
    ("mounts", mounts, 8000),
    ("objects", objects, 3000),
    ("snapshot", snapshot, 500),
    ("config", config, 600),
    ("host", host, 2000),
    ("names", names, 2000),
    ("database", database, 1500),
    ("plan", plan, 3000),
    ("undo", undo, 3000),
    ("sidecars", sidecars, 4000),
    ("listings", listings, 3000),
    ("http", http, 600),
    ("smtp", smtp, 300),
];

/// Input that is several files stands between these, as in a seed.
pub const BETWEEN: &[u8] = b"\0\n";

pub fn parts(data: &[u8]) -> Vec<&[u8]> {
    let mut parts = Vec::new();
    let mut rest = data;
    while let Some(at) = rest.windows(BETWEEN.len()).position(|window| window == BETWEEN) {
        parts.push(&rest[..at]);
        rest = &rest[at + BETWEEN.len()..];
    }
    parts.push(rest);
    parts
}

/// What a person is told stands on one line; what else could do something to a terminal, `cli` takes out.
#[track_caller]
fn one_line(text: &str) {
    assert!(!text.is_empty() && !text.contains(char::is_control), "{text:?}");
}

/// The grammar of our configuration and of storage.cfg.
pub fn section(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    match referenced_files::snippet_folders(&text) {
        Ok(folders) => folders.iter().for_each(|folder| assert!(!folder.parts().is_empty())),
        Err(error) => one_line(&error.to_string()),
    }
    let sections = match section::parse("f", &text) {
        Ok(sections) => sections,
        Err(error) => {
            one_line(&error.to_string());
            one_line(error.hint().expect("what to do"));
            assert!((1..=text.split('\n').count()).contains(&error.line));
            return;
        }
    };
    for section in &sections {
        if let Err(error) = section.read::<BackupConfig>() {
            one_line(&error.to_string());
            assert!(error.line >= section.line, "{error}");
        }
        let _ = section.read::<HashMap<String, Vec<Option<i8>>>>();
    }
    let again = section::parse("f", &section::to_text(&sections)).expect("what we print we read");
    assert_eq!(told(&again), told(&sections));
}

/// Without the lines, which printing sets anew. No key, value or id has a NUL.
fn told(sections: &[Section]) -> Vec<String> {
    let entries = |section: &Section| {
        let entries = section.entries.iter().map(|entry| format!("\0{}\0{}", entry.key, entry.value));
        entries.collect::<Vec<_>>().concat()
    };
    sections.iter().map(|section| format!("{}\0{}{}", section.kind, section.id, entries(section))).collect()
}

/// The head of a snapshot file, the manifest in it, and the names of snapshots.
pub fn manifest(data: &[u8]) {
    let parse = |bytes: &[u8]| Head::parse(bytes).map_err(|error| format!("{error:#}"));
    let framed = |text: &[u8]| {
        let mut bytes = Vec::new();
        tar::plain("MANIFEST.json", text, 0, &mut bytes).unwrap();
        bytes
    };
    assert!(Head::needed(data).is_none_or(|needed| needed <= pbx_config::archive::reader::HEAD_BYTES));
    for bytes in [data, &framed(data)] {
        let Ok(head) = parse(bytes) else { continue };
        let id = &head.snapshot.id;
        assert_eq!(SnapshotId::from_file_name(&id.file_name()).as_ref(), Some(id));
        let text = serde_json::to_vec(&head.snapshot).unwrap();
        let again = parse(&framed(&text)).expect("what we print we read");
        assert_eq!(serde_json::to_vec(&again.snapshot).unwrap(), text);
    }
    let word = String::from_utf8_lossy(data);
    if let Some(id) = SnapshotId::from_file_name(&word) {
        assert_eq!(id.file_name(), word);
    }
    if let Ok(id) = word.parse::<SnapshotId>() {
        assert_eq!(id.to_string().parse::<SnapshotId>().unwrap(), id);
        assert_eq!(SnapshotId::from_file_name(&id.file_name()), Some(id));
    }
}

pub fn index(data: &[u8]) {
    for line in data.split(|byte| *byte == b'\n').filter(|line| line.len() < 1000) {
        let name = Name::new(line);
        stays_inside(&name);
        assert!(!name.to_string().contains(is_harmful));
        let text = serde_json::to_string(&name).unwrap();
        assert_eq!(serde_json::from_str::<Name>(&text).expect("what we print we read"), name);
    }
    let Ok(index) = serde_json::from_slice::<Index>(data) else { return };
    for entry in &index.entries {
        assert!(!entry.path.to_string().contains(is_harmful));
        stays_inside(&entry.path);
    }
    let text = serde_json::to_vec(&index).unwrap();
    let again: Index = serde_json::from_slice(&text).expect("what we print we read");
    assert_eq!(again.entries, index.entries);
    assert_eq!(serde_json::to_vec(&again).unwrap(), text);
}

/// A safe name is one that every reader of paths takes for a place below.
#[track_caller]
fn stays_inside(name: &Name) {
    if name.is_safe() {
        let path = name.as_path();
        assert!(path.components().all(|part| matches!(part, Component::Normal(_))), "{name}");
        assert_eq!(path.components().collect::<PathBuf>().as_os_str().as_bytes(), name.as_bytes());
    }
}

/// The tar inside of a snapshot, member by member.
pub fn payload(data: &[u8]) {
    members(data);
    members(&with_checksums(data));
}

/// With the sums of its headers set right, so that one byte of a header may be another.
fn with_checksums(data: &[u8]) -> Vec<u8> {
    let mut bytes = data.to_vec();
    let mut at = 0;
    while let Some(block) = bytes.get_mut(at..at + tar::BLOCK) {
        let mut header = ::tar::Header::new_old();
        header.as_mut_bytes().copy_from_slice(block);
        header.set_cksum();
        if block.iter().any(|byte| *byte != 0) {
            block.copy_from_slice(header.as_bytes());
        }
        let size = usize::try_from(header.entry_size().unwrap_or(0)).unwrap_or(0);
        at = at
            .saturating_add(tar::BLOCK)
            .saturating_add(size)
            .checked_next_multiple_of(tar::BLOCK)
            .unwrap_or(usize::MAX);
        if at > bytes.len() {
            break;
        }
    }
    bytes
}

fn members(data: &[u8]) {
    let mut contents = 0;
    let _ = tar::read(data, &mut |member, content| {
        assert!(member.path.is_safe(), "{}", member.path);
        stays_inside(&member.path);
        let mut bytes = Vec::new();
        // One may leave contents unread.
        content.take(member.size / 2).read_to_end(&mut bytes)?;
        contents += bytes.len();
        let entry = Entry {
            item: String::new(),
            path: member.path.clone(),
            kind: member.kind,
            mode: member.mode,
            uid: member.uid,
            gid: member.gid,
            owner: String::new(),
            group: String::new(),
            mtime: Mtime(member.mtime, 0),
            size: 0,
            sha256: String::new(),
            link: member.link.clone(),
            secret: false,
            xattrs: member.xattrs.clone(),
        };
        // Names may grow when they are escaped, and then not fit any more.
        let Ok(mut bytes) = tar::header(&entry) else { return Ok(()) };
        bytes.extend_from_slice(tar::end());
        let mut found = Vec::new();
        tar::read(bytes.as_slice(), &mut |member, _| {
            found.push(member.clone());
            Ok(())
        })
        .expect("what we write we read");
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].path, entry.path);
        assert_eq!(tar::fields(&entry), found[0].fields(), "{entry:?}\n{:?}", found[0]);
        Ok(())
    });
    assert!(contents <= data.len());
}

/// A stream of one of the codecs; its first byte says which.
pub fn decode(data: &[u8]) {
    /// A bomb may go on; what counts is that it takes no memory.
    const ENOUGH: u64 = 8 << 20;
    let Some((which, stream)) = data.split_first() else { return };
    let codec = &CODECS[usize::from(*which) % CODECS.len()];
    let Ok(decoded) = (codec.decode)(Box::new(stream)) else { return };
    let _ = std::io::copy(&mut decoded.take(ENOUGH), &mut std::io::sink());
}

/// A glob of the configuration, and paths for it.
pub fn pattern(data: &[u8]) {
    let mut lines = data.split(|byte| *byte == b'\n');
    let text = String::from_utf8_lossy(lines.next().unwrap_or_default());
    let pattern = Pattern::new(&text);
    if let Err(error) = &pattern {
        assert!(!error.to_string().is_empty());
    }
    for line in lines.take(8) {
        let path = Path::new(OsStr::from_bytes(line));
        let names: Vec<&OsStr> = path
            .components()
            .filter_map(|part| match part {
                Component::Normal(name) => Some(name),
                _ => None,
            })
            .collect();
        if let Ok(pattern) = &pattern {
            let covers = pattern.covers(path);
            assert_eq!(covers, covers_slowly(pattern.parts(), &names), "{text} {}", path.display());
            // A folder means all that is in it.
            assert!(!covers || pattern.covers(&path.join("below")), "{text} {}", path.display());
        }
        if let Some(literal) = Pattern::literal(&Path::new("/").join(path))
            && !path.components().any(|part| part == Component::ParentDir)
        {
            let below: PathBuf = names.iter().collect();
            assert!(literal.covers(&below), "{}", path.display());
            assert!(!literal.covers(below.parent().unwrap()), "{}", path.display());
        }
    }
}

/// The meaning of a pattern as a table: whether the parts from `n` on cover the names from `m` on.
fn covers_slowly(parts: &[GlobPart], names: &[&OsStr]) -> bool {
    let mut table = vec![vec![false; names.len() + 1]; parts.len() + 1];
    table[parts.len()].fill(true);
    for n in (0..parts.len()).rev() {
        for m in (0..names.len()).rev() {
            table[n][m] = match &parts[n] {
                // At the end it is at least one name, elsewhere none or any number.
                GlobPart::Any if n + 1 == parts.len() => true,
                GlobPart::Any => table[n + 1][m] || table[n][m + 1],
                part => part.matches(names[m]) && table[n + 1][m + 1],
            };
        }
    }
    table[0][0]
}

/// /proc/self/mountinfo, and the octal escapes that fstab has too.
pub fn mounts(data: &[u8]) {
    let escaped = data.windows(4).any(|digits| digits == b"\\012");
    for (point, kind) in mounts::mounts_of(data) {
        assert!(escaped || !point.as_os_str().as_bytes().contains(&b'\n'));
        assert!(!kind.contains([' ', '\n']));
    }
    let is = mounts::unescape(data);
    assert_eq!(is.as_os_str().as_bytes(), unescaped(data));
    // As the kernel writes it.
    let mut line = b"36 35 98:0 / ".to_vec();
    for byte in data {
        match byte {
            b' ' | b'\t' | b'\n' | b'\\' | b'#' => line.extend(format!("\\{byte:03o}").into_bytes()),
            _ => line.push(*byte),
        }
    }
    line.extend_from_slice(b" rw,noatime master:1 - fuse.x /dev/x rw");
    let point = PathBuf::from(OsStr::from_bytes(data));
    assert_eq!(mounts::mounts_of(&line), [(point, "fuse.x".to_owned())]);
}

/// A backslash and three octal digits of one byte are that byte; all else is itself.
fn unescaped(data: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut n = 0;
    while n < data.len() {
        let digits: String = data[n + 1..].iter().take(3).map(|byte| char::from(*byte)).collect();
        let octal = digits.len() == 3 && digits.chars().all(|digit| ('0'..='7').contains(&digit));
        let escaped = octal && data[n] == b'\\' && digits.as_str() <= "377";
        bytes.push(if escaped { u8::from_str_radix(&digits, 8).unwrap() } else { data[n] });
        n += if escaped { 4 } else { 1 };
    }
    bytes
}

/// Bytes as a script: what is missing at its end is zero.
struct Script<'a>(&'a [u8]);

impl<'a> Script<'a> {
    fn done(&self) -> bool {
        self.0.is_empty()
    }

    fn byte(&mut self) -> u8 {
        let (first, rest) = self.0.split_first().unwrap_or((&0, &[]));
        self.0 = rest;
        *first
    }

    fn number(&mut self) -> u16 {
        u16::from_le_bytes([self.byte(), self.byte()])
    }

    /// So many bytes as the next one says, or as are left.
    fn bytes(&mut self) -> &'a [u8] {
        let wanted = usize::from(self.byte());
        let (bytes, rest) = self.0.split_at(wanted.min(self.0.len()));
        self.0 = rest;
        bytes
    }
}
