//! The two places that a step writes to, the disk and /etc/pve: their present state and their locks.
//! Not here: the order of steps (`apply`, `undo`).

use std::collections::HashMap;
use std::io;
use std::path::Path;

use anyhow::Result;

use super::journal::{Journal, RestoreRecord};
use crate::catalog::guests::GuestPath;
use crate::model::index::{EntryKind, Name};
use crate::plan::restore::{FileState, PVE, RestoreStep, TargetKind};
use crate::sys::fs::contained_dir::ContainedDir;
use crate::sys::fs::replace::Meta;
use crate::sys::guests;
use crate::sys::host::Host;
use crate::sys::pmxcfs::{self, write};

pub fn meta(print: &FileState) -> Meta<'_> {
    Meta { owner: (print.uid, print.gid), mode: print.mode, xattrs: &print.xattrs, mtime: print.mtime }
}

/// While the configuration of a guest of this node is changed, nothing else of this node changes it. None: the step
/// is no guest's, or nobody here takes such a lock. Errors: `Locked`.
pub fn hold_guest(host: &Host, step: &RestoreStep) -> Result<Option<guests::GuestLock>> {
    let guest = GuestPath::of(step.path.as_path()).filter(|guest| guest.node == host.facts.node);
    let held = guest.map(|guest| guests::lock(host.root(), &guest.lock(), write::LOCK_WAIT));
    Ok(held.transpose()?.flatten())
}

/// Relative to /etc/pve.
pub fn below(step: &RestoreStep) -> &Path {
    step.path.as_path().strip_prefix(PVE).unwrap_or(step.path.as_path())
}

/// All that steps did on disks survives a power cut; pmxcfs sees to its own.
pub fn sync(root: &ContainedDir, record: &RestoreRecord) -> io::Result<()> {
    root.sync_around(
        record.steps.iter().filter(|step| step.via == TargetKind::Disk).map(|step| step.path.as_path()),
    )
}

pub type PmxcfsTree = HashMap<Name, pmxcfs::PmxcfsNode>;

/// Reads the present content of /etc/pve; only when one of these steps lies in it.
pub fn tree(
    host: &Host,
    journal: &Journal,
    mut steps: impl Iterator<Item = usize>,
) -> Result<PmxcfsTree, String> {
    if !steps.any(|n| journal.record.steps[n].via == TargetKind::Pmxcfs) {
        return Ok(PmxcfsTree::new());
    }
    match pmxcfs::state(host) {
        pmxcfs::PmxcfsState::Live { quorate: true } => {}
        pmxcfs::PmxcfsState::Live { quorate: false } => return Err("the cluster has no quorum".to_owned()),
        pmxcfs::PmxcfsState::NotMounted => return Err("the cluster file system is not mounted".to_owned()),
        pmxcfs::PmxcfsState::Dead => return Err("pmxcfs is dead".to_owned()),
        pmxcfs::PmxcfsState::Frozen => return Err("the cluster file system does not answer".to_owned()),
    }
    let nodes = pmxcfs::read(host).map_err(|error| format!("{error:#}"))?.nodes;
    Ok(nodes.into_iter().map(|node| (Name::from(&*Path::new(PVE).join(&node.path)), node)).collect())
}

/// The state of a node in /etc/pve: whether it is a directory, and the hash of its contents.
pub type NodeState = (bool, String);

pub fn sum_of(print: &FileState) -> NodeState {
    (print.kind == EntryKind::Dir, print.sha256.clone())
}

pub fn sum_now(node: &pmxcfs::PmxcfsNode) -> NodeState {
    (node.data.is_none(), node.data.as_deref().map(crate::sys::fs::hash::sha256).unwrap_or_default())
}
