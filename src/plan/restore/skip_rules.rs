//! Entries that a restore skips, and why: items that never come back as they are, what belongs to another product,
//! host or machine, and the rules of the cluster file system and of living clusters.

use std::path::Path;

use super::host_diff::release;
use super::rejoin::is_before_join;
use super::{Content, HostState, LivePath, PVE, RestoreRequest, SelectedEntry, guest_conf};
use crate::catalog::guests::GuestPath;
use crate::catalog::{Category, Item, On, PVE_LOCKS, PVE_VIRTUAL, RUN_TIME, RestoreRule, Source, Tied};
use crate::model::facts::{Facts, PmxcfsState, Product};
use crate::model::index::EntryKind;

/// The largest file pmxcfs takes.
const PMXCFS_MAX_BYTES: u64 = 1 << 20;
/// Items that hold only for a cluster that is built again, whatever is asked for.
const OF_A_NEW_CLUSTER: [&str; 2] = ["pve-ca", "pve-www-key"];
/// Only for the same Debian release.
const APT_SOURCES: &str = "apt-sources";
const DATASTORES: &str = "pbs-datastores";

/// The reason why an entry is skipped, and what to do instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SkipReason {
    pub reason: String,
    pub hint: Option<String>,
}

impl SkipReason {
    pub fn new(reason: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { reason: reason.into(), hint: Some(hint.into()) }
    }
}

/// Returns the reason to skip an entry. None: nothing speaks against it.
pub fn skip_reason(
    selected: &SelectedEntry,
    from: &Facts,
    here: &HostState,
    request: &RestoreRequest,
) -> Option<SkipReason> {
    let (item, path) = (selected.item, selected.entry.path.as_path());
    of_row(item, here.facts, request)
        .or_else(|| of_place(path))
        .or_else(|| of_other_host(selected, from, here, request))
        .or_else(|| path.starts_with(PVE).then(|| of_tree(selected, from, here, request)).flatten())
        .or_else(|| held_back(item, request))
        .or_else(|| (item.id == DATASTORES).then(|| of_datastores(selected)).flatten())
        .or_else(|| here.fixed.get(&selected.entry.path).cloned())
}

fn of_row(item: &Item, here: &Facts, request: &RestoreRequest) -> Option<SkipReason> {
    let needs = match item.on {
        On::Any => None,
        On::Pve => Some(Product::Pve),
        On::Pbs => Some(Product::Pbs),
    };
    if let Some(product) = needs.filter(|product| !here.has(*product)) {
        return Some(SkipReason::new(
            format!("{product} is not installed here"),
            "install it, then restore again",
        ));
    }

    match (item.restore, item.source) {
        (RestoreRule::Never(why), _) => Some(SkipReason::new("is never restored as a file", why)),
        (_, Source::Database) if request.database.is_none() => Some(SkipReason::new(
            "the database is never replaced under a running pmxcfs",
            "its files are restored one by one; for a dead single node, --database restores it as a whole",
        )),
        _ => None,
    }
}

fn of_place(path: &Path) -> Option<SkipReason> {
    let absolute = Path::new("/").join(path);
    let run_time = RUN_TIME.iter().any(|dir| absolute.starts_with(dir));
    run_time.then(|| SkipReason::new("nothing is kept there", "it is created at run time"))
}

/// Skips names of the old host and its hardware, which must not come to another host unnoticed.
fn of_other_host(
    selected: &SelectedEntry,
    from: &Facts,
    here: &HostState,
    request: &RestoreRequest,
) -> Option<SkipReason> {
    let item = selected.item;
    if selected.entry.path.as_path().starts_with(PVE) || item.restore == RestoreRule::AddLines {
        return None;
    }

    let node = node_now(from, request);
    if item.tied == Tied::Node && node != from.node && node != here.facts.node {
        let hint = format!("restore it on {node}");
        return Some(SkipReason::new(format!("would name this host {node}"), hint));
    }

    if selected.is_named {
        return None;
    }
    let only = format!("`--only {}` restores it anyway", item.id);
    if item.id == APT_SOURCES && release(from) != release(here.facts) {
        return Some(SkipReason::new("of another Debian release", only));
    }

    let is_other_machine = !from.is_same_machine(here.facts);
    match item.tied {
        Tied::Node if node != here.facts.node && !request.recover => {
            Some(SkipReason::new(format!("contains the host name {}", from.node), only))
        }
        Tied::Hardware if is_other_machine && item.id != DATASTORES => {
            Some(SkipReason::new("belongs to the hardware of another machine", only))
        }
        _ => None,
    }
}

/// Returns the name that the snapshot's host has from now on.
pub(crate) fn node_now<'a>(from: &'a Facts, request: &'a RestoreRequest) -> &'a str {
    let renamed = request.node.as_ref().filter(|(old, _)| *old == from.node);
    renamed.map_or(&from.node, |(_, new)| new)
}

fn held_back(item: &Item, request: &RestoreRequest) -> Option<SkipReason> {
    let waits = request.recover && !request.start_jobs && item.category == Category::Jobs;
    waits.then(|| SkipReason::new("jobs begin to run at once", "check them, then restore with --start-jobs"))
}

// ---- /etc/pve

fn of_tree(
    selected: &SelectedEntry,
    from: &Facts,
    here: &HostState,
    request: &RestoreRequest,
) -> Option<SkipReason> {
    let (entry, item) = (&selected.entry, selected.item);
    let below = entry.path.as_path().strip_prefix(PVE).ok()?;
    let is_virtual = PVE_VIRTUAL.iter().chain([&PVE_LOCKS]).any(|name| below.starts_with(name));
    if is_virtual || below.file_name().is_none() {
        return Some(SkipReason::new("pmxcfs creates it", "there is nothing to restore"));
    }
    if !matches!(entry.kind, EntryKind::File | EntryKind::Dir) {
        return Some(SkipReason::new("pmxcfs has no links", "create a file by hand"));
    }

    let size = match &selected.content {
        Content::Bytes(bytes) => bytes.len() as u64,
        _ => entry.size,
    };
    if size > PMXCFS_MAX_BYTES {
        return Some(SkipReason::new("larger than the 1 MiB that pmxcfs allows", "keep it outside /etc/pve"));
    }
    of_cluster(selected, below, from, here, request)
        .or_else(|| of_guest(selected, here))
        .or_else(|| of_state(here.tree, item))
}

fn of_state(tree: Option<PmxcfsState>, item: &Item) -> Option<SkipReason> {
    let Some(state) = tree else {
        return Some(SkipReason::new(
            format!("there is no /etc/pve for {}", item.title),
            "install Proxmox VE",
        ));
    };
    let hint = match state {
        PmxcfsState::Live { quorate: true } => return None,
        PmxcfsState::Live { quorate: false } => {
            "`pvecm status` shows why; `pvecm expected 1` only when the other nodes are off for good"
        }
        PmxcfsState::NotMounted => {
            "see `systemctl status pve-cluster`, then restore again; files put there now would keep it from starting"
        }
        PmxcfsState::Dead => "`systemctl restart pve-cluster`, then restore again",
        PmxcfsState::Frozen => "see `systemctl status pve-cluster`, then restore again",
    };
    Some(SkipReason::new(state.to_string(), hint))
}

/// Skips on a member of a cluster all but its own and what was named; of other nodes everything everywhere.
fn of_cluster(
    selected: &SelectedEntry,
    below: &Path,
    from: &Facts,
    here: &HostState,
    request: &RestoreRequest,
) -> Option<SkipReason> {
    if is_before_join(from, here.facts, request) {
        return Some(SkipReason::new(
            "a join overwrites all of the cluster file system",
            "`pvecm add` first, then restore again; --recover restores it as a single node instead",
        ));
    }

    let node = node_of(below);
    if let Some(node) = node.as_deref().filter(|node| *node != here.facts.node)
        && !selected.is_exact
    {
        let hint = if node == from.node {
            format!("`--node {node}={}` restores it as this node", here.facts.node)
        } else {
            "restore it on that node, or name it: an object, or --path with its own path".to_owned()
        };
        return Some(SkipReason::new(format!("belongs to the node {node}"), hint));
    }

    here.facts.cluster.as_ref()?;
    if OF_A_NEW_CLUSTER.contains(&selected.item.id) {
        return Some(SkipReason::new(
            "belongs to a cluster that is built again, never to a running one",
            "`pvecm updatecerts` keeps it",
        ));
    }

    if node.is_none() && !selected.is_exact && !request.cluster_wide {
        return Some(SkipReason::new(
            "all nodes of the cluster share it",
            "name the object or its own path, or take all of it with --cluster-wide",
        ));
    }
    None
}

fn node_of(below: &Path) -> Option<String> {
    let mut parts = below.iter();
    (parts.next()? == "nodes").then(|| parts.next().map(|name| name.to_string_lossy().into_owned()))?
}

fn of_guest(selected: &SelectedEntry, here: &HostState) -> Option<SkipReason> {
    let guest = GuestPath::of(selected.entry.path.as_path())?;
    let GuestPath { kind, id, .. } = guest;
    if let Some(other) = here.guests.get(&id).filter(|path| **path != selected.entry.path) {
        return Some(SkipReason::new(
            format!("guest {id} is here already as /{other}"),
            format!("remove that one, or restore this one with another id: --as NEWID vm/{id}"),
        ));
    }

    let Some(LivePath::There { print, content: Some(text), .. }) = here.live.get(&selected.entry.path) else {
        return None;
    };
    let is_as_it_is = match &selected.content {
        Content::Bytes(bytes) => bytes == text,
        _ => print.sha256 == selected.entry.sha256,
    };
    let lock = guest_conf::lock(std::str::from_utf8(text).ok()?).filter(|_| !is_as_it_is)?;

    Some(SkipReason::new(
        format!("{guest} is locked: {lock}"),
        format!("wait until its task ends; if no task is running, use `{} unlock {id}`", kind.tool),
    ))
}

// ---- PBS

/// Skips a file of which no datastore is left.
fn of_datastores(selected: &SelectedEntry) -> Option<SkipReason> {
    let Content::Bytes(bytes) = &selected.content else { return None };
    let is_empty = bytes.iter().all(u8::is_ascii_whitespace);
    is_empty.then(|| SkipReason::new("none of its datastores is mounted", "mount them, then restore again"))
}
