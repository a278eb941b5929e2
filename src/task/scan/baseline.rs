//! The change memory: the content of this host's last snapshot as keyed digests in a private file, so that changes
//! since then are known without opening a snapshot, even an encrypted one.

use anyhow::Result;

use crate::catalog::changing::{RESTLESS, STEADY};
use crate::model::index::{Entry, Name, STATE_DIR};
use crate::model::report::Changes;
use crate::model::snapshot::SnapshotId;
use crate::plan::baseline::{self, Mark, Memory};
use crate::sys::fs::glob::{Pattern, PatternIndex};
use crate::sys::hmac::HmacKey;
use crate::sys::host::Host;
use crate::sys::json_file::JsonFile;

const FILE: &str = "memory.json";
const KEY: &str = "memory.key";
/// The size limit of the file: as many entries as a snapshot can have.
const FILE_MAX_BYTES: u64 = 128 << 20;
/// Digested into the memory, so that a lost key is noticed.
const WORD: &[u8] = b"proxmox-backup-extra";

/// The content of a snapshot's index, as the memory keeps it.
pub struct Baseline<'a> {
    memory: Memory,
    host: &'a Host,
}

impl<'a> Baseline<'a> {
    /// Errors: the key cannot be read or made.
    pub fn of(host: &'a Host, id: &SnapshotId, size: u64, entries: &[Entry]) -> Result<Self> {
        let key = HmacKey::of(&host.make_state()?, KEY)?;
        let restless = Pattern::all(RESTLESS)?.iter().collect();

        let mut memory = Memory {
            id: id.clone(),
            size,
            key: key.digest([WORD]),
            marks: std::collections::BTreeMap::new(),
        };
        for entry in entries.iter().filter(|entry| counts(entry, &restless)) {
            let marks = match memory.marks.get_mut(&entry.item) {
                Some(marks) => marks,
                None => memory.marks.entry(entry.item.clone()).or_default(),
            };
            marks.push(Mark::of(entry, digest(&key, entry)));
        }
        Ok(Self { memory, host })
    }

    /// Returns the memory of the last snapshot. None: nothing is known, or it was written with another key.
    pub fn before(&self) -> Option<Memory> {
        load(self.host).filter(|before| before.key == self.memory.key)
    }

    pub fn since(&self, before: &Memory) -> Changes {
        baseline::changes(before, &self.memory.marks)
    }

    pub fn keep(&self) -> Result<()> {
        file(self.host).write(&self.memory)
    }
}

fn file(host: &Host) -> JsonFile<'_, Memory> {
    JsonFile::new(host, FILE, FILE_MAX_BYTES)
}

fn load(host: &Host) -> Option<Memory> {
    // It is written again by the next run; until then nothing is known.
    file(host).read().inspect_err(|error| log::info!("{error:#}")).ok()?
}

/// False for what changes by itself.
fn counts(entry: &Entry, restless: &PatternIndex<()>) -> bool {
    let path = entry.path.as_path();
    if path.starts_with(STATE_DIR) {
        return STEADY.contains(&entry.item.as_str());
    }
    !restless.covers(path)
}

fn digest(key: &HmacKey, entry: &Entry) -> String {
    let link = entry.link.as_ref().map(Name::as_bytes).unwrap_or_default();
    let mut parts = vec![entry.sha256.as_bytes(), link];
    parts.extend(entry.xattrs.iter().flat_map(|xattr| [xattr.name.as_bytes(), &xattr.value[..]]));
    key.digest(parts)
}
