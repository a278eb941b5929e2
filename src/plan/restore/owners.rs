//! Owners of restored files. They go by name, for a service's number is another one on another installation; and a
//! name that is not here must not leave its files to whoever has its number now.

use std::collections::{BTreeMap, HashMap};

use super::{Action, Advice, Content, FileState, HostState, RestoreStep, SelectedEntry, TargetKind};
use crate::catalog::restore::merges::{GROUP, PASSWD};
use crate::model::index::{Entry, Name};

const SETUID: u32 = 0o4000;
const SETGID: u32 = 0o2000;

/// The users or the groups of this host, as they will be.
struct Ids {
    by_name: HashMap<String, u32>,
    taken: HashMap<u32, String>,
}

impl Ids {
    fn new(live: &HashMap<String, u32>, coming: &[u8]) -> Self {
        let mut by_name = live.clone();
        for line in String::from_utf8_lossy(coming).lines() {
            let mut fields = line.split(':');
            let (name, number) = (fields.next(), fields.nth(1).and_then(|number| number.parse().ok()));
            if let (Some(name), Some(number)) = (name, number) {
                by_name.entry(name.to_owned()).or_insert(number);
            }
        }
        let taken = by_name.iter().map(|(name, number)| (*number, name.clone())).collect();
        Self { by_name, taken }
    }

    /// Returns the number to set. None: nobody here has this name, and somebody else this number. `before` is the
    /// present owner.
    fn of(&self, name: &str, number: u32, before: Option<u32>) -> Option<u32> {
        let known = self.by_name.get(name).copied();
        // An archive without names says nothing against a number.
        let is_free = name.is_empty() || !self.taken.contains_key(&number) || before == Some(number);
        known.or_else(|| is_free.then_some(number))
    }
}

pub struct OwnerMapping {
    users: Ids,
    groups: Ids,
}

impl OwnerMapping {
    /// Builds it from the accounts of this host, and those whose lines come along.
    pub fn new(here: &HostState, wanted: &[SelectedEntry]) -> Self {
        let coming = |path: &str| {
            let lines = wanted.iter().find(|selected| selected.entry.path.as_bytes() == path.as_bytes());
            match lines.map(|selected| &selected.content) {
                Some(Content::Bytes(bytes)) => &bytes[..],
                _ => &[],
            }
        };
        Self { users: Ids::new(here.users, coming(PASSWD)), groups: Ids::new(here.groups, coming(GROUP)) }
    }

    /// Returns the state that an entry should have. What has lost its owner is root's, and nobody runs it as root.
    pub fn goal(&self, entry: &Entry, before: Option<&FileState>) -> FileState {
        let uid = self.users.of(&entry.owner, entry.uid, before.map(|before| before.uid));
        let gid = self.groups.of(&entry.group, entry.gid, before.map(|before| before.gid));
        let mut mode = entry.mode & 0o7777;
        mode &= if uid.is_none() { !SETUID } else { !0 };
        mode &= if gid.is_none() { !SETGID } else { !0 };

        FileState {
            kind: entry.kind,
            mode,
            uid: uid.unwrap_or_default(),
            gid: gid.unwrap_or_default(),
            mtime: entry.mtime,
            size: entry.size,
            sha256: entry.sha256.clone(),
            link: entry.link.clone(),
            xattrs: entry.xattrs.clone(),
        }
    }

    /// Returns advice on the files that lost their owner on the way, by owner.
    pub fn advice(&self, steps: &[RestoreStep], entries: &HashMap<&Name, &Entry>) -> Vec<Advice> {
        let mut lost: BTreeMap<(Lost, &str, u32), Vec<&RestoreStep>> = BTreeMap::new();
        let own = |step: &&RestoreStep| {
            step.via == TargetKind::Disk && !matches!(step.how, Action::Merge | Action::Remove)
        };

        for step in steps.iter().filter(own) {
            let Some(entry) = entries.get(&step.path) else { continue };
            let before = step.before.as_ref();
            if self.users.of(&entry.owner, entry.uid, before.map(|before| before.uid)).is_none() {
                lost.entry((Lost::User, &entry.owner, entry.uid)).or_default().push(step);
            }
            if self.groups.of(&entry.group, entry.gid, before.map(|before| before.gid)).is_none() {
                lost.entry((Lost::Group, &entry.group, entry.gid)).or_default().push(step);
            }
        }

        let told = lost.into_iter().filter_map(|((what, name, number), steps)| {
            let first = steps.first()?;
            let more = match steps.len() {
                1 => String::new(),
                number => format!(" and {} more", number - 1),
            };
            let (kind, command, ids) = match what {
                Lost::User => ("user", "chown", &self.users),
                Lost::Group => ("group", "chgrp", &self.groups),
            };
            let other = ids.taken.get(&number)?;
            let text = format!(
                "/{}{more}: there is no {kind} {name} here, and its number {number} is {other}'s: it belongs to root now",
                first.path
            );
            let commands = vec![format!("{command} {name} /{}", first.path)];
            Some(Advice { item: first.item.clone(), text, commands })
        });
        told.collect()
    }
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Lost {
    User,
    Group,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids() -> Ids {
        let live = [("root", 0), ("alice", 1005)].map(|(name, number)| (name.to_owned(), number));
        Ids::new(&HashMap::from(live), b"root:x:0:0::/:/bin/sh\nbob:x:1007:1007::/:/bin/sh\nodd\n")
    }

    #[test]
    fn a_file_goes_by_the_name_of_its_owner_and_never_to_who_has_the_number_now() {
        let ids = ids();
        assert_eq!(ids.of("alice", 600, None), Some(1005), "another number here");
        assert_eq!(ids.of("bob", 1005, None), Some(1007), "comes along");
        assert_eq!(ids.of("eve", 1005, None), None);
        assert_eq!(ids.of("eve", 1006, None), Some(1006), "nobody's here");
        assert_eq!(ids.of("eve", 1005, Some(1005)), Some(1005), "alice's already");
        assert_eq!(ids.of("", 1005, None), Some(1005), "an archive without names");
    }
}
