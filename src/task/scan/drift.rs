//! Differences from the last snapshot right now: the host is read as for a backup, against the change memory. No
//! snapshot is opened, so that it works without a key too; commands are not asked again.

use std::io::Read;

use anyhow::Result;

use super::archiver::Archiver;
use super::baseline::Baseline;
use super::sources::Sources;
use super::walk;
use crate::archive::writer::{Fit, Members};
use crate::config::Config;
use crate::model::index::{Entry, EntryKind};
use crate::model::report::Changes;
use crate::model::snapshot::SnapshotId;
use crate::plan::select::Selection;
use crate::store::Store;
use crate::sys::fs::hash::Hasher;
use crate::sys::host::Host;

/// None when there is no memory of a snapshot.
pub fn drift(host: &Host, config: &Config, stores: &[Box<dyn Store>]) -> Result<Option<Changes>> {
    let sources = Sources::new(host, config, stores, &Selection::default())?;
    let mut archiver = Archiver::new(host, Digests::default(), Vec::new())?;
    walk::walk(&sources.scan(host), &sources.items, &mut |item, found| archiver.take(item, found))?;
    let Some(now) = SnapshotId::new(&host.facts.node, host.now) else { return Ok(None) };
    let baseline = Baseline::of(host, &now, 0, &archiver.writer.entries)?;
    Ok(baseline.before().map(|before| baseline.since(&before)))
}

/// Entries of which only the digest is kept.
#[derive(Default)]
struct Digests {
    entries: Vec<Entry>,
}

impl Members for Digests {
    fn append(&mut self, mut entry: Entry, content: &mut dyn Read) -> Result<Fit> {
        let mut fit = Fit::Whole;
        if entry.kind == EntryKind::File {
            let mut hasher = Hasher::default();
            let read = std::io::copy(&mut content.take(entry.size), &mut hasher).unwrap_or(0);
            if read < entry.size {
                fit = Fit::Short;
            }
            entry.sha256 = hasher.hex();
        }
        self.entries.push(entry);
        Ok(fit)
    }
}
