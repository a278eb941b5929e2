//! The plan of a restore: what a snapshot holds against what is here, step by step, with what is skipped and why.
//! A pure function. Not here: what becomes of one entry (`decide`), observing the live side (`task::restore::observe`),
//! doing it (`task::restore::apply`).

pub mod adapt;
pub mod advice;
pub mod datastores;
mod decide;
mod directories;
pub mod guest_advice;
pub mod guest_conf;
pub mod host_diff;
pub mod merge;
pub mod objects;
pub mod owners;
pub mod rejoin;
pub mod skip_rules;
pub mod stage;
pub mod text_diff;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::Path;

use serde::{Deserialize, Serialize};

use self::decide::{Decision, decide};
use self::directories::with_folders;
use self::host_diff::HostDifference;
use self::owners::OwnerMapping;
use self::skip_rules::SkipReason;
use self::stage::{Services, Stage};
use self::text_diff::Excerpt;
use super::select::{self, Selection};
use crate::catalog::{self, Item, RestoreRule, Risk};
use crate::model::facts::{Facts, PmxcfsState};
use crate::model::index::{Entry, EntryKind, Mtime, Name, Xattr};
use crate::model::problem::Problem;
use crate::model::snapshot::SnapshotId;

pub use crate::catalog::PVE_TREE as PVE;
const DATASTORES: &str = "pbs-datastores";

/// The request of the admin. Saved with a plan, so that the same plan can be made again.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct RestoreRequest {
    pub selection: Selection,
    /// Globs of `--path`.
    pub paths: Vec<String>,
    /// `vm/101`, `storage/nas` ...
    pub objects: Vec<String>,
    pub cluster_wide: bool,
    /// A whole node on a fresh installation.
    pub recover: bool,
    /// Jobs come back with the rest.
    pub start_jobs: bool,
    /// All of /etc/pve as its database, while pmxcfs is stopped.
    pub database: Option<Database>,
    /// OLD=NEW.
    pub node: Option<(String, String)>,
    /// The new id of a guest.
    pub as_id: Option<u32>,
    /// OLD=NEW.
    pub storage: Vec<(String, String)>,
    /// OLD=NEW.
    pub bridge: Vec<(String, String)>,
    /// OLD=NEW: network cards that no address matches.
    pub nic: Vec<(String, String)>,
}

/// The way in which the database of /etc/pve comes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Database {
    Whole,
    /// The database of a single node.
    WithoutCluster,
}

/// The state of a path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct FileState {
    pub kind: EntryKind,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub mtime: Mtime,
    /// The size of a file.
    #[serde(default)]
    pub size: u64,
    /// The hash of a file, lower-case hex.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub sha256: String,
    /// Target of a symbolic link, or the first name of a hard link.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<Name>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub xattrs: Vec<Xattr>,
}

impl FileState {
    /// Compares contents; owner, mode and times aside.
    pub fn same_content(&self, other: &Self) -> bool {
        (self.kind, &self.sha256, &self.link) == (other.kind, &other.sha256, &other.link)
    }

    /// Compares all that a restore sets, but the time: that alone is no reason to write.
    pub fn same(&self, other: &Self) -> bool {
        // A link has no mode of its own, and only the kernel's attributes.
        let of_link = self.kind == EntryKind::Symlink;
        self.same_content(other)
            && (self.uid, self.gid) == (other.uid, other.gid)
            && (of_link || (self.mode == other.mode && self.xattrs == other.xattrs))
    }
}

/// The state of a path on the live side.
#[derive(Debug, Clone)]
pub enum LivePath {
    Absent,
    There {
        print: FileState,
        /// The content of a file small enough to compare or to merge.
        content: Option<Vec<u8>>,
        /// It has names besides this one.
        is_linked: bool,
    },
    /// Nothing can be put there: "etc/x is a link", "is a device".
    Blocked(String),
}

/// The live side as it was observed.
pub struct HostState<'a> {
    pub facts: &'a Facts,
    /// State of the cluster file system. None: no Proxmox VE.
    pub tree: Option<PmxcfsState>,
    /// Paths below etc/pve by guest id, of the whole cluster.
    pub guests: &'a BTreeMap<u32, Name>,
    pub live: &'a HashMap<Name, LivePath>,
    /// Numbers of this host's users and groups.
    pub users: &'a HashMap<String, u32>,
    pub groups: &'a HashMap<String, u32>,
    /// Folders of datastores that are mounted or hold chunks.
    pub datastores: &'a BTreeSet<String>,
    /// Paths that cannot be changed whoever asks.
    pub fixed: &'a HashMap<Name, SkipReason>,
    /// Lower-case hex.
    pub sha256: fn(&[u8]) -> String,
    /// Replaces what looks like a secret.
    pub mask: fn(&str) -> String,
}

/// The source of the bytes of a step.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Content {
    /// A directory or a link.
    #[default]
    None,
    /// This entry of the snapshot.
    Entry(Name),
    /// Made here: a merge, a rewritten name.
    Bytes(Vec<u8>),
}

impl Content {
    /// Returns the bytes, when they are known; `contents` are those of the snapshot.
    pub fn bytes<'a>(&'a self, contents: &'a HashMap<Name, Vec<u8>>) -> Option<&'a [u8]> {
        match self {
            Self::Bytes(bytes) => Some(bytes),
            Self::Entry(name) => contents.get(name).map(Vec::as_slice),
            Self::None => None,
        }
    }
}

/// An entry that was asked for, on its way to become a step.
#[derive(Debug, Clone)]
pub struct SelectedEntry {
    pub entry: Entry,
    pub item: &'static Item,
    pub content: Content,
    /// Asked for by name: an object, a literal path, `--only ITEM`.
    pub is_named: bool,
    /// Asked for by a name that is its alone: an object, or its own path.
    pub is_exact: bool,
    /// `content` is the whole new file, made from the live one: it is not merged again.
    pub is_merged: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    Create,
    Replace,
    /// Keeps what is there, and adds what it lacks.
    Merge,
    /// Owner, mode and attributes of a directory that is there.
    Attributes,
    /// Nothing is to be there. `after` says so as an empty file.
    Remove,
}

impl std::fmt::Display for Action {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Create => "create",
            Self::Replace => "replace",
            Self::Merge => "merge",
            Self::Attributes => "attributes",
            Self::Remove => "remove",
        })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TargetKind {
    Disk,
    /// Content only, through the mount.
    Pmxcfs,
}

impl TargetKind {
    /// Returns the place of a path, relative to the root.
    pub fn of(path: &Path) -> Self {
        if path.starts_with(PVE) { Self::Pmxcfs } else { Self::Disk }
    }

    /// Compares all that a restore sets in this place, but the time.
    pub fn same(self, this: &FileState, other: &FileState) -> bool {
        match self {
            Self::Disk => this.same(other),
            Self::Pmxcfs => this.same_content(other),
        }
    }

    /// Compares all that this place keeps of a file by itself; pmxcfs takes times from its writers.
    pub fn same_with_time(self, this: &FileState, other: &FileState) -> bool {
        match self {
            Self::Disk => this == other,
            Self::Pmxcfs => this.same_content(other),
        }
    }
}

/// One path that changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct RestoreStep {
    pub item: String,
    pub path: Name,
    pub how: Action,
    pub via: TargetKind,
    /// The cluster lock it is done under.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lock: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<FileState>,
    pub after: FileState,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub secret: bool,
    /// May cut the admin's own connection.
    #[serde(rename = "session", default, skip_serializing_if = "std::ops::Not::not")]
    pub may_disconnect: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub diff: Option<Excerpt>,
    #[serde(skip)]
    pub content: Content,
}

/// Entries that are skipped, with the reason. `count` entries share it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Skipped {
    pub item: String,
    /// The first of them.
    pub path: Name,
    pub count: usize,
    /// One of them was asked for by name.
    #[serde(default)]
    pub named: bool,
    pub reason: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

/// Manual steps for an admin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Advice {
    pub item: String,
    pub text: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub commands: Vec<String>,
}

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct RestorePlan {
    pub snapshot: SnapshotId,
    /// The snapshot's host, in a line.
    pub from: String,
    /// This host, in a line.
    pub here: String,
    pub differences: Vec<HostDifference>,
    /// Steps of all stages; within each in the order they are done.
    pub steps: Vec<RestoreStep>,
    /// Number of entries that are here already, as they are.
    pub unchanged: usize,
    #[serde(rename = "refused")]
    pub skipped: Vec<Skipped>,
    pub advice: Vec<Advice>,
    /// Doubts about the snapshot. The plan is the same without them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<Problem>,
    /// Stages in the order they are done.
    #[serde(flatten, with = "stage::by_name")]
    pub stages: Vec<Stage>,
}

impl RestorePlan {
    pub fn is_armed(&self) -> bool {
        self.steps.iter().any(|step| step.may_disconnect)
    }

    /// Returns the plan as it is shown, without the hashes of secrets: of a short secret its hash is the secret.
    #[must_use]
    pub fn told(&self) -> Self {
        let mut told = self.clone();
        for step in told.steps.iter_mut().filter(|step| step.secret) {
            step.before.iter_mut().chain([&mut step.after]).for_each(|print| print.sha256.clear());
        }
        told
    }

    /// Reports whether something that was asked for by name does not come back, or nothing of all that was asked for.
    pub fn falls_short(&self) -> bool {
        let is_nothing = self.steps.is_empty() && self.unchanged == 0;
        self.skipped.iter().any(|skipped| skipped.named || is_nothing)
    }
}

/// Entries of a snapshot that were asked for.
pub struct SelectedEntries {
    pub id: SnapshotId,
    pub facts: Facts,
    pub wanted: Vec<SelectedEntry>,
    /// Entries that belong to no item of this version.
    pub skipped: Vec<Skipped>,
    /// The snapshot's directories by path, whether asked for or not.
    pub folders: HashMap<Name, Entry>,
    /// Entries that objects may stand in, when objects were asked for.
    pub parts: Vec<SelectedEntry>,
    /// Contents of entries that are small enough to look into.
    pub contents: HashMap<Name, Vec<u8>>,
}

/// Plans a restore: decides on every entry, and orders the steps.
pub fn plan(picked: &SelectedEntries, here: &HostState, request: &RestoreRequest) -> RestorePlan {
    let SelectedEntries { id, facts: from, wanted, skipped, folders, contents, .. } = picked;
    let mut plan = RestorePlan {
        snapshot: id.clone(),
        from: from.summary(),
        here: here.facts.summary(),
        differences: host_diff::between(
            from,
            here.facts,
            skip_rules::node_now(from, request) == here.facts.node,
        ),
        steps: Vec::new(),
        unchanged: 0,
        skipped: skipped.clone(),
        problems: Vec::new(),
        advice: Vec::new(),
        stages: Vec::new(),
    };
    let owners = OwnerMapping::new(here, wanted);
    let mut steps = Vec::new();

    for selected in wanted {
        let selected = only_mounted(selected, contents, here, &mut plan.skipped);
        let decision = match decide(&selected, contents, here, &owners) {
            // What is as it was needs nobody's leave.
            Decision::Unchanged => Decision::Unchanged,
            decision => match skip_rules::skip_reason(&selected, from, here, request) {
                Some(skip) => Decision::Skipped { reason: skip.reason, hint: skip.hint },
                None => decision,
            },
        };
        match decision {
            Decision::Step(step) => steps.push((selected.item, *step)),
            Decision::Unchanged => plan.unchanged += 1,
            Decision::Skipped { reason, hint } => {
                skip_entry(&mut plan.skipped, &selected.entry, selected.is_named, reason, hint);
            }
        }
    }

    let order: HashMap<&str, usize> = catalog::items().enumerate().map(|(n, item)| (item.id, n)).collect();
    steps.sort_by_key(|(item, step)| (step.may_disconnect, order.get(item.id).copied()));
    let items: Vec<&'static Item> = steps.iter().map(|(item, _)| *item).collect();
    plan.steps = with_folders(steps.into_iter().map(|(_, step)| step).collect(), folders, here, &owners);
    let of_risk = |risk| services(items.iter().copied().filter(|item| item.risk == risk));
    plan.stages = Stage::both(of_risk(Risk::None), of_risk(Risk::Session));
    plan.advice = rejoin::advice(from, here.facts, request).into_iter().chain(notes(&items, here)).collect();

    let mut entries: HashMap<&Name, &Entry> = folders.iter().collect();
    entries.extend(wanted.iter().map(|selected| (&selected.entry.path, &selected.entry)));
    plan.advice.extend(owners.advice(&plan.steps, &entries).into_iter().chain(linked(&plan.steps, here)));
    plan
}

/// Leaves out of the datastores those whose directory is not mounted, unless they were asked for by name.
fn only_mounted<'a>(
    selected: &'a SelectedEntry,
    contents: &HashMap<Name, Vec<u8>>,
    here: &HostState,
    skipped: &mut Vec<Skipped>,
) -> Cow<'a, SelectedEntry> {
    if selected.item.id != DATASTORES || selected.is_named {
        return Cow::Borrowed(selected);
    }
    let new = selected.content.bytes(contents);
    let live = match here.live.get(&selected.entry.path) {
        // Its content is kept only when it is another; the same needs no choice.
        Some(LivePath::There { print, content: None, .. }) if print.sha256 == selected.entry.sha256 => new,
        Some(LivePath::There { content, .. }) => content.as_deref(),
        _ => None,
    };
    let [new, live] = [new, live].map(|bytes| String::from_utf8_lossy(bytes.unwrap_or_default()));
    let mounted = datastores::mounted(&new, &live, here.datastores);
    if mounted.missing.is_empty() {
        return Cow::Borrowed(selected);
    }
    for name in &mounted.missing {
        let reason = format!("the directory of the datastore {name} is not mounted");
        let hint = "mount it at its path, then restore again".to_owned();
        skip_entry(skipped, &selected.entry, selected.is_named, reason, Some(hint));
    }
    Cow::Owned(SelectedEntry { content: Content::Bytes(mounted.text.into_bytes()), ..selected.clone() })
}

/// Adds a skipped entry. Entries of one item with the same reason are counted together.
pub fn skip_entry(
    skipped: &mut Vec<Skipped>,
    entry: &Entry,
    named: bool,
    reason: String,
    hint: Option<String>,
) {
    let same = |known: &&mut Skipped| known.item == entry.item && known.reason == reason;
    match skipped.iter_mut().find(same) {
        Some(known) => {
            known.count += 1;
            known.named |= named;
        }
        None => skipped.push(Skipped {
            item: entry.item.clone(),
            path: entry.path.clone(),
            count: 1,
            named,
            reason,
            hint,
        }),
    }
}

/// Collects the services in the order of the items, each once.
fn services(items: impl Iterator<Item = &'static Item>) -> Services {
    let mut all = Services::default();
    let add = |to: &mut Vec<String>, units: &[&str]| {
        for unit in units {
            if !to.iter().any(|known| known == unit) {
                to.push((*unit).to_owned());
            }
        }
    };
    for item in items {
        if let RestoreRule::Stopped(units) = item.restore {
            add(&mut all.stop, units);
        }
        let command: Vec<String> = item.apply.iter().map(|word| (*word).to_owned()).collect();
        if !command.is_empty() && !all.run.contains(&command) {
            all.run.push(command);
        }
        add(&mut all.restart, item.restart);
    }

    all.restart.retain(|unit| !all.stop.contains(unit));
    all
}

/// Advises on files with other names here: only one name gets the new file.
fn linked(steps: &[RestoreStep], here: &HostState) -> Vec<Advice> {
    let is_linked = |step: &&RestoreStep| {
        let live = here.live.get(&step.path);
        step.via == TargetKind::Disk && matches!(live, Some(LivePath::There { is_linked: true, .. }))
    };
    let tell = |step: &RestoreStep| Advice {
        item: step.item.clone(),
        text: format!(
            "/{}: has other names here (hard links); they keep the old file, and undo does not link them again",
            step.path
        ),
        commands: vec![format!("find / -xdev -samefile /{}", step.path)],
    };
    steps.iter().filter(is_linked).map(tell).collect()
}

fn notes(items: &[&'static Item], here: &HostState) -> Vec<Advice> {
    let mut seen = HashSet::new();
    let is_told = |item: &Item| !item.note.is_empty() && select::is_on(item.note_on, here.facts);
    let noted = items.iter().filter(|item| is_told(item) && seen.insert(item.id));
    noted
        .map(|item| Advice { item: item.id.to_owned(), text: item.note.to_owned(), commands: Vec::new() })
        .collect()
}
