//! The tar in a payload: streamed entry by entry, then compared with its own index and the manifest.
//! Not here: where the payload lies, and its seal.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::io::Read;

use anyhow::{Context, Result, ensure};

use super::codec::Codec;
use super::guard::{Bounded, Hashing};
use super::index_text;
use super::tar::{self, BLOCK, TarMember};
use crate::model::index::{ENTRIES_MAX, Entry, EntryKind, INDEX_PATH, Index, Name};
use crate::model::snapshot::{Counts, Snapshot};
use crate::sys::hex;

const OVER: &str = "its payload unpacks to more than its manifest says";
const INDEX_MAX_BYTES: u64 = 256 << 20;

/// An entry as it was seen while it streamed by: what must be the same in the index.
struct Seen {
    /// Keyed hash of the header's fields.
    fields: u64,
    sha256: [u8; 32],
    kind: EntryKind,
    is_listed: bool,
}

/// The entries seen, by keyed hashes of their names: nobody outside can make two names of one hash.
#[derive(Default)]
struct SeenEntries {
    keys: RandomState,
    by_name: HashMap<u64, Seen>,
}

/// The contents of a stream, before they are compared with the manifest.
pub struct Stream {
    index: Index,
    bytes: u64,
}

/// The limits of a stream.
#[derive(Clone, Copy)]
pub struct Limits {
    pub entries: u64,
    pub bytes: u64,
}

impl Limits {
    /// The limits of a stream that we write ourselves.
    pub const NONE: Self = Self { entries: u64::MAX, bytes: u64::MAX };
}

/// Reads what a codec wrote, to its end.
pub fn read_stream(
    input: impl Read,
    codec: &Codec,
    limits: Limits,
    visit: &mut dyn FnMut(&TarMember, &mut dyn Read) -> Result<()>,
) -> Result<Stream> {
    let mut seen = SeenEntries::default();
    let mut index: Option<Index> = None;
    let decoded = (codec.decode)(Box::new(input))?;
    let mut bounded = Bounded { inner: decoded, left: limits.bytes, over: OVER };

    let result = tar::read(&mut bounded, &mut |entry, content| {
        ensure!(index.is_none(), "{}: is after the index", entry.path);
        if entry.path.as_bytes() == INDEX_PATH.as_bytes() {
            index = Some(read_index(entry, content, &mut seen)?);
            return Ok(());
        }
        let count = seen.by_name.len();
        ensure!((count as u64) < limits.entries, "has more entries than its manifest says");
        ensure!(count < ENTRIES_MAX, "has more entries than any host");
        seen.check_hard_link(entry)?;
        let mut hashing = Hashing::new(content);
        visit(entry, &mut hashing)?;
        let (size, sha256) = hashing.finish().with_context(|| format!("{}: cut short", entry.path))?;
        ensure!(size == entry.size, "{}: cut short", entry.path);
        seen.add(entry, sha256)
    });
    result?;

    // The archive ends with two blocks of zeros, and reading it stops at the first.
    let mut rest = Vec::new();
    bounded.by_ref().take(BLOCK as u64 + 1).read_to_end(&mut rest).context("damaged payload")?;
    ensure!(rest.len() <= BLOCK && rest.iter().all(|byte| *byte == 0), "its payload has data after its end");
    Ok(Stream { index: index.context("has no index")?, bytes: limits.bytes - bounded.left })
}

impl Stream {
    /// Errors: what is not as the manifest or the index says.
    pub fn compare(self, snapshot: &Snapshot) -> Result<Index> {
        ensure!(self.bytes == snapshot.counts.bytes, "its payload unpacks to less than its manifest says");
        compare(&self.index, snapshot)?;
        Ok(self.index)
    }
}

/// Reads the index, whose entries must be those that were seen.
fn read_index(entry: &TarMember, content: &mut dyn Read, seen: &mut SeenEntries) -> Result<Index> {
    ensure!(
        entry.kind == EntryKind::File && entry.size <= INDEX_MAX_BYTES,
        "its index is not a file of a plausible size"
    );
    let mut differs = None;
    let index = index_text::read(content, &mut |entry| {
        seen.compare(entry).map_err(|error| {
            differs = Some(error);
            anyhow::anyhow!("stopped")
        })
    });
    if let Some(error) = differs {
        return Err(error);
    }
    let index = index.context("its index is damaged")?;
    ensure!(
        index.entries.len() == seen.by_name.len(),
        "has {} entries, but its index lists {}",
        seen.by_name.len(),
        index.entries.len()
    );
    seen.check_above(&Name::new(INDEX_PATH))?;
    Ok(index)
}

fn compare(index: &Index, snapshot: &Snapshot) -> Result<()> {
    ensure!(index.id == snapshot.id, "its index is of {}, its manifest of {}", index.id, snapshot.id);
    ensure!(
        index.entries.len() as u64 == snapshot.counts.entries,
        "has {} entries, but its manifest says {}",
        index.entries.len(),
        snapshot.counts.entries
    );
    check_manifest(index, snapshot)
}

/// The manifest is in the clear and no hash is over it; what the index tells too must be the same.
fn check_manifest(index: &Index, snapshot: &Snapshot) -> Result<()> {
    let facts = &index.facts;
    ensure!(
        (&snapshot.node, &snapshot.machine_id, &snapshot.products, &snapshot.cluster)
            == (&facts.node, &facts.machine_id, &facts.products, &facts.cluster),
        "its manifest and its index are not of the same host"
    );
    ensure!(
        counted(index, snapshot.counts) == snapshot.counts,
        "its manifest does not count what its index lists"
    );
    Ok(())
}

/// Counts what the index tells by itself; the rest is taken from `others`.
pub(super) fn counted(index: &Index, others: Counts) -> Counts {
    Counts {
        entries: index.entries.len() as u64,
        files: index.entries.iter().filter(|entry| entry.kind == EntryKind::File).count() as u64,
        absent: index.absent.len() as u64,
        problems: index.problems.len() as u64,
        ..others
    }
}

impl SeenEntries {
    fn get(&self, name: &Name) -> Option<&Seen> {
        self.by_name.get(&self.keys.hash_one(name))
    }

    fn add(&mut self, entry: &TarMember, sha256: [u8; 32]) -> Result<()> {
        let fields = self.keys.hash_one(entry.fields());
        let fresh = Seen { fields, sha256, kind: entry.kind, is_listed: false };
        let before = self.by_name.insert(self.keys.hash_one(&entry.path), fresh);
        ensure!(before.is_none(), "{}: is in it twice", entry.path);
        Ok(())
    }

    fn check_hard_link(&self, entry: &TarMember) -> Result<()> {
        let (EntryKind::Hardlink, Some(first)) = (entry.kind, &entry.link) else { return Ok(()) };
        ensure!(
            self.get(first).is_some_and(|found| found.kind == EntryKind::File),
            "{}: is a hard link to {first}, which is not a file before it",
            entry.path
        );
        Ok(())
    }

    /// Compares an entry of the index with what was seen of it.
    fn compare(&mut self, entry: &Entry) -> Result<()> {
        let path = &entry.path;
        let fields = self.keys.hash_one(tar::fields(entry));
        let found = self.by_name.get_mut(&self.keys.hash_one(path));
        let found = found.with_context(|| format!("{path}: is only in the index"))?;
        ensure!(!std::mem::replace(&mut found.is_listed, true), "{path}: is in its index twice");
        ensure!(found.fields == fields, "{path}: its header and the index differ");
        ensure!(
            entry.kind != EntryKind::File || entry.sha256 == hex(&found.sha256),
            "{path}: its contents are not what the index says"
        );
        self.check_above(path)
    }

    /// Checks that everything above an entry, or above the index, is a directory: nothing is reached through a link.
    /// What is above a directory is checked with that.
    fn check_above(&self, path: &Name) -> Result<()> {
        for above in path.as_path().ancestors().skip(1).map(Name::from) {
            let kind = self.get(&above).map(|found| found.kind);
            ensure!(
                above.as_bytes() != INDEX_PATH.as_bytes() && kind.is_none_or(|kind| kind == EntryKind::Dir),
                "{path}: is below {above}, which is not a directory"
            );
            if kind.is_some() {
                break;
            }
        }
        Ok(())
    }
}
