//! The tar in a payload: streamed entry by entry, then compared with its own index and the manifest.
//! Not here: where the payload lies, and its seal.

use std::collections::{HashMap, HashSet};
use std::io::Read;

use anyhow::{Context, Result, ensure};

use super::codec::Codec;
use super::guard::{Bounded, Hashing};
use super::tar::{self, BLOCK, TarMember};
use crate::model::index::{Entry, EntryKind, INDEX_PATH, Index, Name};
use crate::model::snapshot::{Counts, Snapshot};
use crate::sys::hex;

const OVER: &str = "its payload unpacks to more than its manifest says";
const INDEX_MAX_BYTES: u64 = 256 << 20;
/// The memory for all entries until the index comes: far more than any host's configuration needs.
const KEPT_MAX_BYTES: usize = 256 << 20;

/// An entry as it was seen while it streamed by.
struct Seen {
    entry: TarMember,
    sha256: [u8; 32],
}

/// The contents of a stream, before they are compared with the manifest.
pub struct Stream {
    seen: HashMap<Name, Seen>,
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
    let mut seen: HashMap<Name, Seen> = HashMap::new();
    let mut kept = 0;
    let mut index: Option<Index> = None;
    let decoded = (codec.decode)(Box::new(input))?;
    let mut bounded = Bounded { inner: decoded, left: limits.bytes, over: OVER };

    let result = tar::read(&mut bounded, &mut |entry, content| {
        ensure!(index.is_none(), "{}: is after the index", entry.path);
        if entry.path.as_bytes() == INDEX_PATH.as_bytes() {
            index = Some(read_index(entry, content)?);
            return Ok(());
        }
        ensure!((seen.len() as u64) < limits.entries, "has more entries than its manifest says");
        kept += size_of::<Seen>() + entry.memory();
        ensure!(kept <= KEPT_MAX_BYTES, "has more names and attributes than fit into {KEPT_MAX_BYTES} bytes");
        check_hard_link(entry, &seen)?;
        let mut hashing = Hashing::new(content);
        visit(entry, &mut hashing)?;
        let (size, sha256) = hashing.finish().with_context(|| format!("{}: cut short", entry.path))?;
        ensure!(size == entry.size, "{}: cut short", entry.path);
        let fresh = Seen { entry: entry.clone(), sha256 };
        ensure!(seen.insert(entry.path.clone(), fresh).is_none(), "{}: is in it twice", entry.path);
        Ok(())
    });
    result?;

    // The archive ends with two blocks of zeros, and reading it stops at the first.
    let mut rest = Vec::new();
    bounded.by_ref().take(BLOCK as u64 + 1).read_to_end(&mut rest).context("damaged payload")?;
    ensure!(rest.len() <= BLOCK && rest.iter().all(|byte| *byte == 0), "its payload has data after its end");
    Ok(Stream { seen, index: index.context("has no index")?, bytes: limits.bytes - bounded.left })
}

impl Stream {
    /// Errors: what is not as the manifest or the index says.
    pub fn compare(self, snapshot: &Snapshot) -> Result<Index> {
        ensure!(self.bytes == snapshot.counts.bytes, "its payload unpacks to less than its manifest says");
        compare(&self.index, &self.seen, snapshot)?;
        Ok(self.index)
    }
}

fn read_index(entry: &TarMember, content: &mut dyn Read) -> Result<Index> {
    ensure!(
        entry.kind == EntryKind::File && entry.size <= INDEX_MAX_BYTES,
        "its index is not a file of a plausible size"
    );
    // From a slice, serde borrows and is several times faster than from a stream.
    let mut text = Vec::with_capacity(usize::try_from(entry.size)?.min(1 << 24));
    content.read_to_end(&mut text)?;
    serde_json::from_slice(&text).context("its index is damaged")
}

fn compare(index: &Index, seen: &HashMap<Name, Seen>, snapshot: &Snapshot) -> Result<()> {
    ensure!(index.id == snapshot.id, "its index is of {}, its manifest of {}", index.id, snapshot.id);
    ensure!(
        index.entries.len() == seen.len(),
        "has {} entries, but its index lists {}",
        seen.len(),
        index.entries.len()
    );
    ensure!(
        seen.len() as u64 == snapshot.counts.entries,
        "has {} entries, but its manifest says {}",
        seen.len(),
        snapshot.counts.entries
    );
    check_manifest(index, snapshot)?;

    let mut listed = HashSet::with_capacity(index.entries.len());
    for entry in &index.entries {
        ensure!(listed.insert(&entry.path), "{}: is in its index twice", entry.path);
        let found = seen.get(&entry.path).with_context(|| format!("{}: is only in the index", entry.path))?;
        check_entry(entry, found)?;
    }
    check_folders(seen)
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
        "the counts in its manifest differ from its index"
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

fn check_hard_link(entry: &TarMember, seen: &HashMap<Name, Seen>) -> Result<()> {
    let (EntryKind::Hardlink, Some(first)) = (entry.kind, &entry.link) else { return Ok(()) };
    ensure!(
        seen.get(first).is_some_and(|found| found.entry.kind == EntryKind::File),
        "{}: is a hard link to {first}, which is not a file before it",
        entry.path
    );
    Ok(())
}

/// Checks that everything above an entry, or above the index, is a directory: nothing is reached through a link.
fn check_folders(seen: &HashMap<Name, Seen>) -> Result<()> {
    let index = Name::new(INDEX_PATH);
    for path in seen.keys().chain([&index]) {
        for above in path.as_path().ancestors().skip(1).map(Name::from) {
            ensure!(
                above != index && seen.get(&above).is_none_or(|found| found.entry.kind == EntryKind::Dir),
                "{path}: is below {above}, which is not a directory"
            );
        }
    }
    Ok(())
}

fn check_entry(entry: &Entry, found: &Seen) -> Result<()> {
    ensure!(tar::same_fields(entry, &found.entry), "{}: its header and the index differ", entry.path);
    ensure!(
        entry.kind != EntryKind::File || entry.sha256 == hex(&found.sha256),
        "{}: its contents are not what the index says",
        entry.path
    );
    Ok(())
}
