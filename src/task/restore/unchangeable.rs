//! What of a restore's paths cannot be changed here, so that the plan says it and not the first write.

use std::collections::HashMap;
use std::path::Path;

use super::observe::Observed;
use crate::model::index::Name;
use crate::plan::restore::skip_rules::Refusal;
use crate::plan::restore::{Live, PVE, Picked};
use crate::sys::fs::flags::{self, Flag};
use crate::sys::host::Host;

/// By path: why, and what to do. Only of paths that were looked at, and not of what no one can answer for.
pub fn look(host: &Host, picked: &Picked, observed: &Observed) -> HashMap<Name, Refusal> {
    let live = &observed.live;
    let mut folders: HashMap<Name, Option<Refusal>> = HashMap::new();
    let mut fixed = HashMap::new();
    for one in picked.wanted.iter().chain(&picked.parts) {
        let path = one.entry.path.as_path();
        let is_there = match live.get(&one.entry.path) {
            _ if path.starts_with(PVE) => continue,
            None | Some(Live::Blocked(_)) => continue,
            Some(Live::There { .. }) => true,
            Some(Live::Absent) => false,
        };
        let own = is_there.then(|| flagged(host, path, "it")).flatten();
        let is_folder = |folder: &&Path| matches!(live.get(&Name::from(*folder)), Some(Live::There { .. }));
        let above = path.ancestors().skip(1).find(is_folder).unwrap_or(Path::new(""));
        let above = || folders.entry(above.into()).or_insert_with(|| of_folder(host, above)).clone();
        if let Some(refusal) = own.or_else(above) {
            fixed.insert(one.entry.path.clone(), refusal);
        }
    }
    fixed
}

/// `what` is what the path is of the one that is wanted.
fn flagged(host: &Host, path: &Path, what: &str) -> Option<Refusal> {
    let shown = Path::new("/").join(path);
    let (how, letter) = match flags::flag(&host.path(&shown)).ok()?? {
        Flag::Immutable => ("immutable", 'i'),
        Flag::AppendOnly => ("append-only", 'a'),
    };
    let shown = Name::from(shown.as_path());
    Some(Refusal::new(
        format!("{what} is {how}"),
        format!("somebody meant it: `chattr -{letter} {shown}`, then restore again"),
    ))
}

fn of_folder(host: &Host, path: &Path) -> Option<Refusal> {
    let shown = Path::new("/").join(path);
    let is_read_only = flags::is_read_only(&host.path(&shown)).unwrap_or(false);
    let shown = Name::from(shown.as_path());
    let read_only = || {
        Refusal::new(
            format!("the file system of {shown} is mounted read-only"),
            format!("`findmnt -T {shown}` shows it; `mount -o remount,rw` and its mount point"),
        )
    };
    flagged(host, path, &format!("its folder {shown}")).or_else(|| is_read_only.then(read_only))
}
