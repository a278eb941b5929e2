//! Users and groups by name: who of the snapshot joins the accounts of this host, and with which lines.

use std::collections::{BTreeMap, BTreeSet};

use super::{Merged, add, lines};
use crate::catalog::restore::merges::{Merge, PEOPLE, ROOT};

/// Names of those whose lines of the account files come along.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Accounts {
    /// People who are here or will be, under the same name and number.
    pub(crate) users: BTreeSet<String>,
    pub(crate) new_users: BTreeSet<String>,
    pub(crate) new_groups: BTreeSet<String>,
    /// Other groups here than in the snapshot: nobody joins them.
    pub(crate) other_groups: BTreeSet<String>,
    notes: Vec<(Merge, String)>,
}

impl Accounts {
    /// Reads passwd and group of the snapshot and of this host.
    pub fn of(saved: [&[u8]; 2], live: [&[u8]; 2]) -> Self {
        let mut accounts = Self::default();
        for (number, merge, what) in [(0, Merge::Users, "user"), (1, Merge::Groups, "group")] {
            let here = numbers(live[number]);
            let by_number: BTreeMap<u32, &String> =
                here.iter().map(|(name, number)| (*number, name)).collect();
            for (name, id) in numbers(saved[number]) {
                if !PEOPLE.contains(&id) {
                    continue;
                }
                let reason = match (here.get(&name), by_number.get(&id)) {
                    (Some(same), _) if *same == id => {
                        if merge == Merge::Users {
                            accounts.users.insert(name);
                        }
                        continue;
                    }
                    (Some(other), _) => format!("has the number {other} here and {id} in the snapshot"),
                    (None, Some(other)) => format!("had the number {id}, which is '{other}' here"),
                    (None, None) => {
                        if merge == Merge::Users {
                            accounts.users.insert(name.clone());
                            accounts.new_users.insert(name);
                        } else {
                            accounts.new_groups.insert(name);
                        }
                        continue;
                    }
                };
                accounts.notes.push((merge, format!("{what} '{name}' {reason}; nothing was renumbered")));
                if merge == Merge::Groups {
                    accounts.other_groups.insert(name);
                }
            }
        }

        accounts.check_primary_groups(saved, live);
        accounts
    }

    /// Without those whose line in passwd or group does not come along.
    #[must_use]
    pub fn only(mut self, users: bool, groups: bool) -> Self {
        if !users {
            self.users.retain(|user| !self.new_users.contains(user));
            self.new_users.clear();
        }
        if !groups {
            self.new_groups.clear();
        }
        self
    }

    /// A number may be another group's here.
    fn check_primary_groups(&mut self, saved: [&[u8]; 2], live: [&[u8]; 2]) {
        let by_number = |text: &[u8]| -> BTreeMap<u32, String> {
            numbers(text).into_iter().map(|(name, number)| (number, name)).collect()
        };
        let (theirs, ours) = (by_number(saved[1]), by_number(live[1]));
        for line in lines(saved[0]).filter(|line| self.new_users.contains(name(line))) {
            let group = std::str::from_utf8(field(line, 3)).ok().and_then(|text| text.parse::<u32>().ok());
            let Some(group) = group else { continue };
            if let (Some(here), there) = (ours.get(&group), theirs.get(&group))
                && there != Some(here)
            {
                let note =
                    format!("user '{}' gets the primary group {group}, which is '{here}' here", name(line));
                self.notes.push((Merge::Users, note));
            }
        }
    }

    pub(crate) fn notes(&self, merge: Merge) -> Vec<String> {
        self.notes.iter().filter(|(of, _)| *of == merge).map(|(_, note)| note.clone()).collect()
    }
}

fn field(line: &[u8], number: usize) -> &[u8] {
    line.split(|byte| *byte == b':').nth(number).unwrap_or_default()
}

pub(crate) fn name(line: &[u8]) -> &str {
    std::str::from_utf8(field(line, 0)).unwrap_or_default()
}

/// Names and numbers of passwd or group; the first line of a name counts, as for the C library.
fn numbers(text: &[u8]) -> BTreeMap<String, u32> {
    let mut found = BTreeMap::new();
    for line in lines(text) {
        if let Some(number) = std::str::from_utf8(field(line, 2)).ok().and_then(|text| text.parse().ok()) {
            found.entry(name(line).to_owned()).or_insert(number);
        }
    }
    found.remove("");
    found
}

/// Merges groups: new groups whole, but for members who are not here; known groups with the people who belong to them.
pub(crate) fn groups(live: &[u8], saved: &[u8], accounts: &Accounts, members: usize) -> Vec<u8> {
    let list = |line: &[u8]| -> Vec<String> {
        let text = String::from_utf8_lossy(field(line, members)).into_owned();
        text.split(',').filter(|member| accounts.users.contains(*member)).map(str::to_owned).collect()
    };

    // Two lines of one name are one group.
    let mut wanted: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for line in lines(saved).filter(|line| !accounts.other_groups.contains(name(line))) {
        let all = wanted.entry(name(line)).or_default();
        let more: Vec<String> = list(line).into_iter().filter(|member| !all.contains(member)).collect();
        all.extend(more);
    }

    let mut out = Vec::with_capacity(live.len());
    for line in live.split_inclusive(|byte| *byte == b'\n') {
        let bare = line.trim_ascii_end();
        let here = String::from_utf8_lossy(field(bare, members)).into_owned();
        let here: Vec<&str> = here.split(',').filter(|member| !member.is_empty()).collect();
        let mut more = wanted.remove(name(bare)).unwrap_or_default();
        more.retain(|member| !here.contains(&member.as_str()));
        out.extend_from_slice(bare);
        // The members are the last field of both files.
        if !more.is_empty() && bare.split(|byte| *byte == b':').count() == members + 1 {
            if !here.is_empty() {
                out.push(b',');
            }
            out.extend_from_slice(more.join(",").as_bytes());
        }
        out.extend_from_slice(&line[bare.len()..]);
    }

    let new = lines(saved).filter(|line| accounts.new_groups.contains(name(line)));
    let new: Vec<Vec<u8>> = new
        .filter_map(|line| {
            let all = wanted.remove(name(line))?;
            let mut fields: Vec<Vec<u8>> = line.split(|byte| *byte == b':').map(<[u8]>::to_vec).collect();
            if let Some(last) = fields.get_mut(members) {
                *last = all.join(",").into_bytes();
            }
            Some(fields.join(&b':'))
        })
        .collect();
    add(&out, new.iter().map(Vec::as_slice))
}

/// A new user without a password line is locked, not open.
pub(crate) fn passwords(live: &[u8], saved: &[u8], accounts: &Accounts) -> Vec<u8> {
    let here: BTreeSet<&str> = lines(live).map(name).collect();
    let theirs: BTreeMap<&str, &[u8]> = lines(saved).map(|line| (name(line), line)).collect();
    let lacking = accounts.new_users.iter().filter(|user| !here.contains(user.as_str()));
    let lines: Vec<Vec<u8>> = lacking
        .map(|user| {
            theirs
                .get(user.as_str())
                .map_or_else(|| format!("{user}:!:::::::").into_bytes(), |line| line.to_vec())
        })
        .collect();
    add(live, lines.iter().map(Vec::as_slice))
}

pub(crate) fn sub_ids(live: &[u8], saved: &[u8], accounts: &Accounts) -> Merged {
    let parse = |line: &[u8]| -> Option<(u64, u64)> {
        let number = |at| std::str::from_utf8(field(line, at)).ok()?.trim().parse::<u64>().ok();
        let start = number(1)?;
        Some((start, start.checked_add(number(2)?)?))
    };
    let here: Vec<(&str, (u64, u64))> =
        lines(live).filter_map(|line| Some((name(line), parse(line)?))).collect();
    let mut notes = Vec::new();
    let mut new = Vec::new();

    for line in lines(saved) {
        let (user, Some((start, end))) = (name(line), parse(line)) else { continue };
        if here.contains(&(user, (start, end))) || !(user == ROOT || accounts.users.contains(user)) {
            continue;
        }
        match here.iter().find(|(_, (from, to))| start < *to && *from < end) {
            Some((other, (from, to))) => notes.push(format!(
                "'{user}' had {start} to {}, which overlaps {from} to {} of '{other}' here",
                end.saturating_sub(1),
                to.saturating_sub(1),
            )),
            None => new.push(line),
        }
    }
    Merged { content: add(live, new.into_iter()), notes }
}
