//! Differences between what was saved and what is there: by path and item, never a value. Two memories in, the
//! difference out.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::model::index::{Entry, EntryKind, Name, STATE_DIR};
use crate::model::report::{ChangedPath, Changes, Difference};
use crate::model::snapshot::SnapshotId;

/// Lines of a difference that are shown; the others are counted.
pub const LISTED: usize = 10;

/// Memory of a snapshot without its contents: for each path a keyed digest of the contents, and its kind.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Memory {
    pub id: SnapshotId,
    /// Bytes of the snapshot file.
    pub size: u64,
    /// The digest of a fixed word: another key gives another memory.
    pub key: String,
    /// Marks by item, each sorted by path.
    pub marks: BTreeMap<String, Vec<Mark>>,
}

/// One path: kind, mode, owner, group, and the keyed digest of contents, target and attributes.
/// Stands as an array in JSON, a host has thousands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark(pub Name, pub EntryKind, pub u32, pub u32, pub u32, pub String);

impl Mark {
    pub fn of(entry: &Entry, digest: String) -> Self {
        Self(entry.path.clone(), entry.kind, entry.mode, entry.uid, entry.gid, digest)
    }

    fn is_answer(&self) -> bool {
        self.0.as_path().starts_with(STATE_DIR)
    }
}

/// Two sorted lists walked side by side. What a command did not answer this time is no change.
pub fn changes(before: &Memory, now: &BTreeMap<String, Vec<Mark>>) -> Changes {
    let mut changes =
        Changes { since: before.id.clone(), added: 0, changed: 0, removed: 0, listed: Vec::new(), more: 0 };
    let mut places: BTreeMap<&Name, (Option<Place>, Option<Place>)> = BTreeMap::new();
    for (item, mark) in each(&before.marks) {
        places.entry(&mark.0).or_default().0 = Some((item, mark));
    }
    for (item, mark) in each(now) {
        places.entry(&mark.0).or_default().1 = Some((item, mark));
    }
    let mut all: Vec<ChangedPath> =
        places.into_values().filter_map(|(old, new)| difference(old, new)).collect();

    // What belongs together stands together.
    all.sort_by(|a, b| a.item.cmp(&b.item).then(Ordering::Equal));
    for change in &all {
        *match change.how {
            Difference::Added => &mut changes.added,
            Difference::Changed | Difference::Rights => &mut changes.changed,
            Difference::Removed => &mut changes.removed,
        } += 1;
    }

    changes.more = all.len().saturating_sub(LISTED);
    all.truncate(LISTED);
    changes.listed = all;
    changes
}

type Place<'a> = (&'a str, &'a Mark);

fn each(marks: &BTreeMap<String, Vec<Mark>>) -> impl Iterator<Item = Place<'_>> {
    marks.iter().flat_map(|(item, marks)| marks.iter().map(move |mark| (item.as_str(), mark)))
}

fn difference(old: Option<Place>, new: Option<Place>) -> Option<ChangedPath> {
    let (how, (item, mark)) = match (old, new) {
        (Some(old), None) => (Difference::Removed, old),
        (None, Some(new)) => (Difference::Added, new),
        (Some((_, before)), Some(new)) if (before.1, &before.5) != (new.1.1, &new.1.5) => {
            (Difference::Changed, new)
        }
        (Some((_, before)), Some(new)) if before != new.1 => (Difference::Rights, new),
        _ => return None,
    };
    let silent = mark.is_answer() && how != Difference::Changed;
    (!silent).then(|| ChangedPath { how, item: item.to_owned(), path: mark.0.to_string() })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn marks(all: &[(&str, &str, u32, &str)]) -> BTreeMap<String, Vec<Mark>> {
        let mut marks: BTreeMap<String, Vec<Mark>> = BTreeMap::new();
        for (item, path, mode, digest) in all {
            let mark = Mark(Name::new(*path), EntryKind::File, *mode, 0, 0, (*digest).to_owned());
            marks.entry((*item).to_owned()).or_default().push(mark);
        }
        marks
    }

    fn memory(all: &[(&str, &str, u32, &str)]) -> Memory {
        let id = "pve1/2026-11-22T15:17:40Z".parse().unwrap();
        Memory { id, size: 1, key: String::new(), marks: marks(all) }
    }

    fn lines(changes: &Changes) -> Vec<String> {
        changes.listed.iter().map(|one| format!("{} {} {}", one.how, one.item, one.path)).collect()
    }

    #[test]
    fn what_came_went_and_changed_is_told_by_item() {
        let before = memory(&[
            ("ssh", "etc/b", 0o600, "1"),
            ("fstab", "etc/fstab", 0o644, "1"),
            ("ssh", "etc/a", 0o600, "1"),
        ]);
        let now = marks(&[
            ("ssh", "etc/b", 0o644, "1"),
            ("fstab", "etc/fstab", 0o644, "2"),
            ("ssh", "etc/c", 0o600, "1"),
        ]);
        let changes = changes(&before, &now);
        assert_eq!(
            lines(&changes),
            ["changed fstab etc/fstab", "removed ssh etc/a", "rights ssh etc/b", "added ssh etc/c"]
        );
        assert_eq!((changes.added, changes.changed, changes.removed, changes.more), (1, 2, 1, 0));
        assert!(super::changes(&before, &before.marks).is_none());
    }

    #[test]
    fn ten_are_shown_and_the_others_counted() {
        let paths: Vec<String> = (0..25).map(|n| format!("etc/{n:02}")).collect();
        let all: Vec<_> = paths.iter().map(|path| ("a", path.as_str(), 0o644, "1")).collect();
        let changes = changes(&memory(&[]), &marks(&all));
        assert_eq!((changes.listed.len(), changes.more, changes.added), (10, 15, 25));
    }

    #[test]
    fn a_command_that_did_not_answer_is_no_change_and_another_answer_is_one() {
        let before = memory(&[("state-held", ".pbx/state/held.txt", 0o600, "1")]);
        assert!(changes(&before, &marks(&[])).is_none());
        assert!(changes(&memory(&[]), &before.marks).is_none());
        let now = marks(&[("state-held", ".pbx/state/held.txt", 0o600, "2")]);
        assert_eq!(lines(&changes(&before, &now)), ["changed state-held .pbx/state/held.txt"]);
    }

    #[test]
    fn a_row_that_takes_over_a_path_changes_nothing() {
        let before = memory(&[("etc-rest", "etc/x", 0o644, "1")]);
        assert!(changes(&before, &marks(&[("x", "etc/x", 0o644, "1")])).is_none());
    }
}
