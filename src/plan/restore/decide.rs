//! Decision on one entry of a snapshot: a step, nothing to do, or skipped; by the rules of its item and what
//! stands at its path. Not here: whether it may come back at all (`skip_rules`), the plan of them all (`restore`).

use std::collections::{HashMap, HashSet};

use super::owners::OwnerMapping;
use super::{
    Action, Content, FileState, HostState, LivePath, RestoreStep, SelectedEntry, TargetKind, text_diff,
};
use crate::catalog::{RestoreRule, Risk};
use crate::model::index::{EntryKind, Name};

/// The result for an entry, by the rules of its item.
pub(crate) enum Decision {
    Step(Box<RestoreStep>),
    Unchanged,
    Skipped { reason: String, hint: Option<String> },
}

fn skipped(reason: impl Into<String>, hint: &str) -> Decision {
    Decision::Skipped { reason: reason.into(), hint: Some(hint.to_owned()) }
}

/// A step on its way.
struct Draft {
    how: Action,
    after: FileState,
    content: Content,
}

pub(crate) fn decide(
    selected: &SelectedEntry,
    contents: &HashMap<Name, Vec<u8>>,
    here: &HostState,
    owners: &OwnerMapping,
) -> Decision {
    let SelectedEntry { entry, item, .. } = selected;
    let (before, live_content) = match live_side(selected, contents, here) {
        Ok(live) => live,
        Err(reason) => return skipped(reason, "move what is there away by hand"),
    };
    let mut draft = Draft::new(selected, before, here, owners);
    if item.restore == RestoreRule::AddLines && !selected.is_merged && before.is_some() {
        match merged(selected, before, live_content, contents) {
            Ok(None) => return Decision::Unchanged,
            Ok(Some(bytes)) => {
                draft.how = Action::Merge;
                draft.set_content(bytes, here);
            }
            Err(reason) => return skipped(reason, "compare them by hand"),
        }
    }

    let via = TargetKind::of(entry.path.as_path());
    if let Some(before) = before {
        draft.keep_attributes(before, via);
        if before.same(&draft.after) {
            return Decision::Unchanged;
        }
        if let Err(reason) = draft.match_kind(before) {
            return skipped(reason, "move it away first");
        }
    }

    let secret = entry.secret || item.secret;
    let is_text =
        entry.kind == EntryKind::File && before.is_some_and(|before| before.kind == EntryKind::File);
    let diff = match (live_content, draft.content.bytes(contents)) {
        (Some(old), Some(new)) if is_text => text_diff::between(old, new, secret, here.mask),
        _ => None,
    };
    let Draft { how, after, content } = draft;
    Decision::Step(Box::new(RestoreStep {
        item: item.id.to_owned(),
        path: entry.path.clone(),
        how,
        via,
        lock: item.lock.filter(|_| via == TargetKind::Pmxcfs).map(str::to_owned),
        before: before.cloned(),
        after,
        secret,
        may_disconnect: item.risk == Risk::Session,
        diff,
        content,
    }))
}

impl Draft {
    fn new(
        selected: &SelectedEntry,
        before: Option<&FileState>,
        here: &HostState,
        owners: &OwnerMapping,
    ) -> Self {
        let how = if before.is_some() { Action::Replace } else { Action::Create };
        let mut draft =
            Self { how, after: owners.goal(&selected.entry, before), content: selected.content.clone() };
        if let (Content::Bytes(bytes), EntryKind::File) = (&selected.content, selected.entry.kind) {
            draft.how = if before.is_some() && selected.is_merged { Action::Merge } else { how };
            draft.measure(bytes, here);
        }
        draft
    }

    fn set_content(&mut self, bytes: Vec<u8>, here: &HostState) {
        self.measure(&bytes, here);
        self.content = Content::Bytes(bytes);
    }

    fn measure(&mut self, bytes: &[u8], here: &HostState) {
        (self.after.size, self.after.sha256) = (bytes.len() as u64, (here.sha256)(bytes));
    }

    /// Errors: a directory and a file have the same name.
    fn match_kind(&mut self, before: &FileState) -> Result<(), &'static str> {
        match (before.kind == EntryKind::Dir, self.after.kind == EntryKind::Dir) {
            (true, true) => self.how = Action::Attributes,
            (true, false) => return Err("there is a directory of this name here"),
            (false, true) => return Err("it is a directory in the snapshot and a file here"),
            (false, false) => {}
        }
        Ok(())
    }

    /// Keeps the owner of a file that is only added to; pmxcfs sets owner and mode itself.
    fn keep_attributes(&mut self, before: &FileState, via: TargetKind) {
        let is_merge = self.how == Action::Merge;
        if is_merge || via == TargetKind::Pmxcfs {
            (self.after.mode, self.after.uid, self.after.gid) = (before.mode, before.uid, before.gid);
        }
        match via {
            TargetKind::Pmxcfs => self.after.xattrs.clear(),
            TargetKind::Disk if is_merge => self.after.xattrs.clone_from(&before.xattrs),
            TargetKind::Disk => {}
        }
    }
}

/// Returns the state at the path of an entry and its content, when that is known. Errors: what is in the way.
fn live_side<'a>(
    selected: &SelectedEntry,
    contents: &'a HashMap<Name, Vec<u8>>,
    here: &'a HostState,
) -> Result<(Option<&'a FileState>, Option<&'a [u8]>), String> {
    let entry = &selected.entry;
    match here.live.get(&entry.path) {
        Some(LivePath::Blocked(reason)) => Err(reason.clone()),
        None | Some(LivePath::Absent) => Ok((None, None)),
        Some(LivePath::There { print, content, .. }) => {
            // What is the same as in the snapshot is not kept twice.
            let is_same = print.kind == EntryKind::File && print.sha256 == entry.sha256;
            let same = contents.get(&entry.path).filter(|_| is_same);
            Ok((Some(print), content.as_ref().or(same).map(Vec::as_slice)))
        }
    }
}

/// Merges the live file with what it lacks. None: it lacks nothing.
fn merged(
    selected: &SelectedEntry,
    before: Option<&FileState>,
    live: Option<&[u8]>,
    contents: &HashMap<Name, Vec<u8>>,
) -> Result<Option<Vec<u8>>, String> {
    let entry = &selected.entry;
    let is_file = |kind| kind == EntryKind::File;
    if !before.is_some_and(|before| is_file(before.kind)) || !is_file(entry.kind) {
        let same = before.is_some_and(|before| (before.kind, &before.link) == (entry.kind, &entry.link));
        // Folders and the very same link need no lines.
        return if same { Ok(None) } else { Err("it is a link here or in the snapshot".to_owned()) };
    }

    let (Some(live), Some(new)) = (live, selected.content.bytes(contents)) else {
        return Err("it is too large to be merged".to_owned());
    };
    let bytes = add_lines(live, new);
    Ok((bytes != live).then_some(bytes))
}

/// Returns the live lines, then those of the snapshot that are not among them. Comments and blank lines are not taken.
pub fn add_lines(live: &[u8], new: &[u8]) -> Vec<u8> {
    let lines = |text: &[u8]| -> HashSet<Vec<u8>> {
        text.split(|b| *b == b'\n').map(|line| line.trim_ascii().to_vec()).collect()
    };
    let mut have = lines(live);
    let mut merged = live.to_vec();

    for line in new.split(|b| *b == b'\n') {
        let bare = line.trim_ascii();
        if bare.is_empty() || bare.starts_with(b"#") || !have.insert(bare.to_vec()) {
            continue;
        }
        if merged.last().is_some_and(|last| *last != b'\n') {
            merged.push(b'\n');
        }
        merged.extend_from_slice(line);
        merged.push(b'\n');
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_lines_that_are_missing_are_added() {
        let merged = add_lines(b"a\n# c\nb", b"# other\nb\n\nc\na\nc\n");
        assert_eq!(merged, b"a\n# c\nb\nc\n");
        assert_eq!(add_lines(b"a\n", b"a"), b"a\n");
    }
}
