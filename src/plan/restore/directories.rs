//! Directories that steps need on their way, each before what is put into it.

use std::collections::{HashMap, HashSet};

use super::owners::OwnerMapping;
use super::{Action, Content, FileState, HostState, LivePath, RestoreStep};
use crate::model::index::{Entry, EntryKind, Name};

/// Mode of a directory that no snapshot describes and a file needs.
const PLAIN_DIR_MODE: u32 = 0o755;

/// Adds every directory before what is in it; those that nobody asked for and that are not here are steps, too.
pub(crate) fn with_folders(
    steps: Vec<RestoreStep>,
    folders: &HashMap<Name, Entry>,
    here: &HostState,
    owners: &OwnerMapping,
) -> Vec<RestoreStep> {
    let mut asked: HashMap<Name, RestoreStep> = HashMap::new();
    for step in steps.iter().filter(|step| step.how == Action::Create && step.after.kind == EntryKind::Dir) {
        asked.insert(step.path.clone(), step.clone());
    }

    let mut made: HashSet<Name> = HashSet::new();
    let mut ordered = Vec::with_capacity(steps.len());
    for step in steps {
        let mut above: Vec<Name> = step.path.as_path().ancestors().skip(1).map(Name::from).collect();
        above.reverse();
        for path in above.into_iter().filter(|path| !path.as_bytes().is_empty()) {
            let is_here = !matches!(here.live.get(&path), None | Some(LivePath::Absent));
            if is_here || !made.insert(path.clone()) {
                continue;
            }
            ordered.push(match asked.get(&path) {
                Some(folder) => folder.clone(),
                None => folder_step(&path, &step, folders, owners),
            });
        }
        let is_new_folder = step.how == Action::Create && step.after.kind == EntryKind::Dir;
        if !is_new_folder || made.insert(step.path.clone()) {
            ordered.push(step);
        }
    }
    ordered
}

fn folder_step(
    path: &Name,
    of: &RestoreStep,
    folders: &HashMap<Name, Entry>,
    owners: &OwnerMapping,
) -> RestoreStep {
    let plain = FileState {
        kind: EntryKind::Dir,
        mode: PLAIN_DIR_MODE,
        uid: 0,
        gid: 0,
        mtime: of.after.mtime,
        size: 0,
        sha256: String::new(),
        link: None,
        xattrs: Vec::new(),
    };
    let known = folders.get(path).filter(|entry| entry.kind == EntryKind::Dir);

    RestoreStep {
        path: path.clone(),
        how: Action::Create,
        lock: None,
        before: None,
        after: known.map_or(plain, |entry| owners.goal(entry, None)),
        secret: false,
        diff: None,
        content: Content::None,
        ..of.clone()
    }
}
