//! Decision on one entry of a snapshot: a step, nothing to do, or skipped; by the rules of its item and what
//! stands at its path. Not here: whether it may come back at all (`skip_rules`), the plan of them all (`restore`).

use std::collections::{HashMap, HashSet};

use super::owners::OwnerMapping;
use super::{
    Action, Content, FileState, HostState, LivePath, RestoreStep, SelectedEntry, TargetKind, datastores,
    text_diff,
};
use crate::catalog::{RestoreRule, Risk};
use crate::model::index::{EntryKind, Name};

/// The result for an entry, by the rules of its item.
pub(crate) enum Decision {
    Step(Box<RestoreStep>),
    Unchanged,
    Refused { reason: String, hint: Option<String> },
}

pub(crate) fn decide(
    one: &SelectedEntry,
    contents: &HashMap<Name, Vec<u8>>,
    here: &HostState,
    owners: &OwnerMapping,
) -> Decision {
    let SelectedEntry { entry, item, .. } = one;
    let absent = LivePath::Absent;
    let live = here.live.get(&entry.path).unwrap_or(&absent);

    let (before, live_content) = match live {
        LivePath::Blocked(reason) => {
            return Decision::Refused {
                reason: reason.clone(),
                hint: Some("make room for it by hand".into()),
            };
        }
        LivePath::Absent => (None, None),
        LivePath::There { print, content, .. } => {
            // What is the same as in the snapshot is not kept twice.
            let is_same = print.kind == EntryKind::File && print.sha256 == entry.sha256;
            let same = contents.get(&entry.path).filter(|_| is_same);
            (Some(print), content.as_ref().or(same).map(Vec::as_slice))
        }
    };
    let via = TargetKind::of(entry.path.as_path());
    let mut after = owners.goal(entry, before);
    let mut content = one.content.clone();
    let mut how = if before.is_some() { Action::Replace } else { Action::Create };

    if let (Content::Bytes(bytes), EntryKind::File) = (&content, entry.kind) {
        (after.size, after.sha256) = (bytes.len() as u64, (here.sha256)(bytes));
        how = if before.is_some() && one.is_merged { Action::Merge } else { how };
    }

    if item.restore == RestoreRule::AddLines && !one.is_merged && before.is_some() {
        match merged(one, before, live_content, contents) {
            Ok(None) => return Decision::Unchanged,
            Ok(Some(bytes)) => {
                (after.size, after.sha256) = (bytes.len() as u64, (here.sha256)(&bytes));
                content = Content::Bytes(bytes);
                how = Action::Merge;
            }
            Err(reason) => return Decision::Refused { reason, hint: Some("compare them by hand".into()) },
        }
    }

    if let Some(before) = before {
        // A file that is only added to stays whose it is.
        if how == Action::Merge {
            (after.mode, after.uid, after.gid) = (before.mode, before.uid, before.gid);
            after.xattrs.clone_from(&before.xattrs);
        }
        if via == TargetKind::Pmxcfs {
            (after.mode, after.uid, after.gid) = (before.mode, before.uid, before.gid);
            after.xattrs.clear();
        }
        if before.same(&after) {
            return Decision::Unchanged;
        }
        let dirs = (before.kind == EntryKind::Dir, after.kind == EntryKind::Dir);
        match dirs {
            (true, true) => how = Action::Attributes,
            (true, false) => {
                let reason = "there is a folder of this name here".to_owned();
                return Decision::Refused { reason, hint: Some("move it away first".into()) };
            }
            (false, true) => {
                let reason = "it is a folder in the snapshot and a file here".to_owned();
                return Decision::Refused { reason, hint: Some("move it away first".into()) };
            }
            (false, false) => {}
        }
    }

    let new = match &content {
        Content::Bytes(bytes) => Some(&bytes[..]),
        Content::Member(name) => contents.get(name).map(Vec::as_slice),
        Content::None => None,
    };
    let is_text =
        entry.kind == EntryKind::File && before.is_some_and(|before| before.kind == EntryKind::File);
    let diff = match (is_text, live_content, new) {
        (true, Some(old), Some(new)) => text_diff::between(old, new, entry.secret || item.secret, here.mask),
        _ => None,
    };

    Decision::Step(Box::new(RestoreStep {
        item: item.id.to_owned(),
        path: entry.path.clone(),
        how,
        via,
        lock: item.lock.filter(|_| via == TargetKind::Pmxcfs).map(str::to_owned),
        before: before.cloned(),
        after,
        secret: entry.secret || item.secret,
        may_disconnect: item.risk == Risk::Session,
        diff,
        content,
    }))
}

/// The live file with what it lacks. None: it lacks nothing.
fn merged(
    one: &SelectedEntry,
    before: Option<&FileState>,
    live: Option<&[u8]>,
    contents: &HashMap<Name, Vec<u8>>,
) -> Result<Option<Vec<u8>>, String> {
    let entry = &one.entry;
    let is_file = |kind| kind == EntryKind::File;
    if !before.is_some_and(|before| is_file(before.kind)) || !is_file(entry.kind) {
        let same = before.is_some_and(|before| (before.kind, &before.link) == (entry.kind, &entry.link));
        // Folders and the very same link need no lines.
        return if same { Ok(None) } else { Err("it is a link here or in the snapshot".to_owned()) };
    }

    let new = match &one.content {
        Content::Bytes(bytes) => Some(&bytes[..]),
        Content::Member(name) => contents.get(name).map(Vec::as_slice),
        Content::None => None,
    };
    let (Some(live), Some(new)) = (live, new) else {
        return Err("it is too large to be merged".to_owned());
    };
    let bytes = add_lines(live, new);
    Ok((bytes != live).then_some(bytes))
}

/// The live lines, then those of the snapshot that are not among them. Comments and blank lines are not taken.
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

/// The file with those datastores alone whose disk is here, and the names of the others.
pub(crate) fn only_mounted(
    one: &SelectedEntry,
    contents: &HashMap<Name, Vec<u8>>,
    here: &HostState,
) -> (SelectedEntry, Vec<String>) {
    let text = |bytes: Option<&[u8]>| String::from_utf8_lossy(bytes.unwrap_or_default()).into_owned();
    let new = match &one.content {
        Content::Bytes(bytes) => Some(&bytes[..]),
        Content::Member(name) => contents.get(name).map(Vec::as_slice),
        Content::None => None,
    };

    let live = match here.live.get(&one.entry.path) {
        // Its content is kept only when it is another; the same needs no choice.
        Some(LivePath::There { print, content: None, .. }) if print.sha256 == one.entry.sha256 => new,
        Some(LivePath::There { content, .. }) => content.as_deref(),
        _ => None,
    };
    let (new, live) = (text(new), text(live));
    let mounted = datastores::mounted(&new, &live, here.datastores);
    let mut kept = one.clone();
    if !mounted.missing.is_empty() {
        kept.content = Content::Bytes(mounted.text.into_bytes());
    }
    (kept, mounted.missing)
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
