//! Changes since the last snapshot, and whether a new one is needed at all.

use jiff::SignedDuration;

use super::prepare::BackupRequest;
use crate::archive::reader::Head;
use crate::model::index::Index;
use crate::model::problem::Problem;
use crate::model::report::Changes;
use crate::model::snapshot::{Snapshot, UNCHANGED_MAX};
use crate::plan::baseline::Memory;
use crate::store::Store;
use crate::sys::host::Host;
use crate::task::runs::{records, status};
use crate::task::scan::baseline::Baseline;
use crate::task::snapshots;

/// Builds the baseline of this snapshot, to be remembered. None: only a part of the host was saved, or nothing can be
/// kept.
pub fn baseline<'a>(host: &'a Host, snapshot: &Snapshot, size: u64, index: &Index) -> Option<Baseline<'a>> {
    let made =
        snapshot.selection.is_empty().then(|| Baseline::of(host, &snapshot.id, size, &index.entries))?;
    made.inspect_err(|error| log::info!("changes are not reported: {error:#}")).ok()
}

/// True when the last snapshot says all that a new one would, and lies in every store that can be reached. The
/// primary store must have it, readable.
pub fn may_skip(
    host: &Host,
    stores: &[Box<dyn Store>],
    request: &BackupRequest,
    snapshot: &Snapshot,
    (before, changes): (&Memory, &Changes),
    problems: &mut Vec<Problem>,
) -> bool {
    let age = host.now.duration_since(before.id.at());
    let asked_for = request.protect || request.note.is_some() || !request.selection.words().is_empty();
    if !changes.is_none() || asked_for || age < SignedDuration::ZERO || age > UNCHANGED_MAX {
        return false;
    }

    let Ok(records) = records::all(host) else { return false };
    let mut away = Vec::new();
    for (n, store) in stores.iter().enumerate() {
        if status::damaged(store.name(), &records).contains(&before.id) {
            return false;
        }
        match store.list(Some(&host.facts.node)) {
            Ok(found) => {
                let newest = found.iter().max_by(|a, b| a.id.cmp(&b.id));
                if newest.is_none_or(|newest| newest.id != before.id || newest.size != before.size) {
                    return false;
                }
            }
            Err(_) if n == 0 => return false,
            Err(error) => {
                away.push(Problem::error(format!("{error:#}")).hint("the other stores have the last one"));
            }
        }
    }

    // Who can open it is as much of it as what is in it.
    let same = |head: Head| head.snapshot.sealed == snapshot.sealed;
    let readable =
        stores.first().is_some_and(|primary| snapshots::head(primary.as_ref(), &before.id).is_ok_and(same));
    if readable {
        problems.extend(away);
    }
    readable
}
