//! What a live file of the host lacks of the snapshot's: accounts by name, keys by key, mounts by device. Nothing
//! that is here is changed or taken away; what cannot be added is told. Texts to texts, no I/O.
//! Not here: which file is which (`catalog::merges`), looking for devices.

use std::collections::{BTreeMap, BTreeSet};

use crate::catalog::merges::{self, BOOT_MOUNTS, DEVICE_TAGS, Merge, NO_DEVICE, PEOPLE, REMOTE, ROOT};

/// A live file with what it lacked, and what it did not get.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Merged {
    pub content: Vec<u8>,
    /// What was left out and why, in a line each; never a secret.
    pub notes: Vec<String>,
}

/// What a merge has to know of the host besides the file.
#[derive(Debug, Clone, Default)]
pub struct World {
    pub accounts: Accounts,
    /// The devices that are here, of those that `devices` names.
    pub devices: BTreeSet<String>,
}

/// Whose lines of the account files come along.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Accounts {
    /// People who are here or will be, under the same name and number.
    users: BTreeSet<String>,
    new_users: BTreeSet<String>,
    new_groups: BTreeSet<String>,
    /// Other groups here than in the snapshot: nobody joins them.
    other_groups: BTreeSet<String>,
    notes: Vec<(Merge, String)>,
}

impl Accounts {
    /// From passwd and group of the snapshot and of this host.
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

    fn notes(&self, merge: Merge) -> Vec<String> {
        self.notes.iter().filter(|(of, _)| *of == merge).map(|(_, note)| note.clone()).collect()
    }
}

/// The live text with what it lacks. `path` is relative to the root.
pub fn merge(path: &str, live: &[u8], saved: &[u8], world: &World) -> Merged {
    let accounts = &world.accounts;
    match merges::of(path) {
        Merge::Users => Merged {
            content: add(live, lines(saved).filter(|line| accounts.new_users.contains(name(line)))),
            notes: accounts.notes(Merge::Users),
        },
        Merge::Groups => {
            Merged { content: groups(live, saved, accounts, 3), notes: accounts.notes(Merge::Groups) }
        }
        Merge::GroupSecrets => Merged { content: groups(live, saved, accounts, 3), notes: Vec::new() },
        Merge::UserSecrets => Merged { content: passwords(live, saved, accounts), notes: Vec::new() },
        Merge::SubIds => sub_ids(live, saved, accounts),
        Merge::LoginKeys => {
            let here: BTreeSet<&[u8]> = lines(live).filter_map(login_key).collect();
            let lacking = |line: &&[u8]| login_key(line).is_some_and(|key| !here.contains(key));
            Merged { content: add(live, lines(saved).filter(lacking)), notes: Vec::new() }
        }
        Merge::HostKeys => host_keys(live, saved),
        Merge::Mounts => mounts(live, saved, world),
        Merge::EncryptedVolumes => volumes(live, saved, world),
        Merge::Lines => {
            let here: BTreeSet<&[u8]> = lines(live).map(<[u8]>::trim_ascii).collect();
            let lacking = |line: &&[u8]| !here.contains(line.trim_ascii());
            Merged { content: add(live, lines(saved).filter(lacking)), notes: Vec::new() }
        }
    }
}

/// Lines that say something, without their ends.
fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    let all = text.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    all.filter(|line| !line.trim_ascii().is_empty() && !line.trim_ascii().starts_with(b"#"))
}

/// Each once.
fn add<'a>(live: &[u8], new: impl Iterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut out = live.to_vec();
    let mut done = BTreeSet::new();
    for line in new.filter(|line| done.insert(*line)) {
        if out.last().is_some_and(|byte| *byte != b'\n') {
            out.push(b'\n');
        }
        out.extend_from_slice(line);
        out.push(b'\n');
    }
    out
}

// ---- accounts

fn field(line: &[u8], number: usize) -> &[u8] {
    line.split(|byte| *byte == b':').nth(number).unwrap_or_default()
}

fn name(line: &[u8]) -> &str {
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

/// New groups whole, but for members who are not here; known groups with the people who belong to them.
fn groups(live: &[u8], saved: &[u8], accounts: &Accounts, members: usize) -> Vec<u8> {
    let list = |line: &[u8]| -> Vec<String> {
        let text = String::from_utf8_lossy(field(line, members)).into_owned();
        text.split(',').filter(|member| accounts.users.contains(*member)).map(str::to_owned).collect()
    };
    let known = lines(saved).filter(|line| !accounts.other_groups.contains(name(line)));
    let mut wanted: BTreeMap<&str, Vec<String>> = known.map(|line| (name(line), list(line))).collect();
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
    let new = lines(saved)
        .filter(|line| accounts.new_groups.contains(name(line)) && wanted.contains_key(name(line)));
    let new: Vec<Vec<u8>> = new
        .map(|line| {
            let mut fields: Vec<Vec<u8>> = line.split(|byte| *byte == b':').map(<[u8]>::to_vec).collect();
            if let Some(last) = fields.get_mut(members) {
                *last = list(line).join(",").into_bytes();
            }
            fields.join(&b':')
        })
        .collect();
    add(&out, new.iter().map(Vec::as_slice))
}

/// A new user without a password line is locked, not open.
fn passwords(live: &[u8], saved: &[u8], accounts: &Accounts) -> Vec<u8> {
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

fn sub_ids(live: &[u8], saved: &[u8], accounts: &Accounts) -> Merged {
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

// ---- keys

/// What begins the name of a type of key.
const KEY_TYPES: [&[u8]; 3] = [b"ssh-", b"ecdsa-", b"sk-"];

fn words(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    line.split(|byte| *byte == b' ' || *byte == b'\t').filter(|word| !word.is_empty())
}

/// The key itself: options before it and the comment behind it say nothing of who may log in.
fn login_key(line: &[u8]) -> Option<&[u8]> {
    let mut words = words(line).skip_while(|word| !KEY_TYPES.iter().any(|kind| word.starts_with(kind)));
    words.next()?;
    words.next()
}

fn host_keys(live: &[u8], saved: &[u8]) -> Merged {
    // `@cert-authority` and `@revoked` stand before the names.
    let parse = |line: &[u8]| -> Option<[Vec<u8>; 4]> {
        let mut words = words(line).peekable();
        let mark = words.next_if(|word| word.starts_with(b"@")).unwrap_or_default().to_vec();
        let mut next = || words.next().map(<[u8]>::to_vec);
        Some([mark, next()?, next()?, next()?])
    };
    let here: Vec<[Vec<u8>; 4]> = lines(live).filter_map(parse).collect();
    let mut notes = Vec::new();
    let mut new = Vec::new();
    for line in lines(saved) {
        let Some(theirs) = parse(line) else { continue };
        if here.contains(&theirs) {
            continue;
        }
        if here.iter().any(|ours| ours[..3] == theirs[..3]) {
            let host = String::from_utf8_lossy(&theirs[1]).into_owned();
            notes.push(format!(
                "'{host}' has another {} key here; that one stays",
                String::from_utf8_lossy(&theirs[2])
            ));
        } else {
            new.push(line);
        }
    }
    Merged { content: add(live, new.into_iter()), notes }
}

// ---- mounts

/// The devices that the lines of fstab and crypttab need, to be looked for: as they stand there, without quotes.
pub fn devices(path: &str, saved: &[u8]) -> Vec<String> {
    let number = match merges::of(path) {
        Merge::Mounts => 0,
        Merge::EncryptedVolumes => 1,
        _ => return Vec::new(),
    };
    let device = |line: &[u8]| Some(String::from_utf8_lossy(words(line).nth(number)?).replace('"', ""));
    let mut found: Vec<String> =
        lines(saved).filter_map(device).filter(|device| device_path(device).is_some()).collect();
    found.sort();
    found.dedup();
    found
}

/// Where a device would be found: `UUID=…` and the like below /dev/disk. None for what is no device.
pub fn device_path(device: &str) -> Option<String> {
    let tagged = DEVICE_TAGS
        .iter()
        .find_map(|(tag, folder)| Some(format!("{folder}{}", device.strip_prefix(tag)?.strip_prefix('=')?)));
    tagged
        .or_else(|| device.starts_with('/').then(|| device.to_owned()))
        .filter(|path| !path.starts_with("//"))
}

fn mounts(live: &[u8], saved: &[u8], world: &World) -> Merged {
    let parse = |line: &[u8]| -> Option<[String; 4]> {
        let mut words = words(line).map(|word| String::from_utf8_lossy(word).replace('"', ""));
        Some([words.next()?, words.next()?, words.next()?, words.next().unwrap_or_default()])
    };
    let mut here: Vec<[String; 4]> = lines(live).filter_map(parse).collect();
    let mut notes = Vec::new();
    let mut new = Vec::new();
    for line in lines(saved) {
        let Some([device, point, kind, options]) = parse(line) else { continue };
        let is_swap = kind == "swap";
        let same_point = |other: &&[String; 4]| !is_swap && trimmed(&other[1]) == trimmed(&point);
        let same_device =
            |other: &[String; 4]| other[0] == device && (is_swap || trimmed(&other[1]) == trimmed(&point));
        if here.iter().any(same_device) {
            continue;
        }
        let needs_none = REMOTE.iter().any(|start| device.starts_with(start))
            || NO_DEVICE.contains(&kind.as_str())
            || options.split(',').any(|option| matches!(option, "bind" | "rbind"))
            || device_path(&device).is_none();
        let why = if BOOT_MOUNTS.contains(&trimmed(&point)) {
            Some("this host boots from its own".to_owned())
        } else if let Some([other, ..]) = here.iter().find(same_point) {
            Some(format!("{other} is mounted there here"))
        } else if !needs_none && !world.devices.contains(&device) {
            Some("no such device is here".to_owned())
        } else {
            None
        };
        if let Some(why) = why {
            notes.push(format!("{device} on {point} ({kind}) was left out: {why}"));
        } else {
            new.push(line);
            here.push([device, point, kind, options]);
        }
    }
    Merged { content: add(live, new.into_iter()), notes }
}

fn trimmed(point: &str) -> &str {
    if point.len() > 1 { point.trim_end_matches('/') } else { point }
}

fn volumes(live: &[u8], saved: &[u8], world: &World) -> Merged {
    let parse = |line: &[u8]| -> Option<[String; 2]> {
        let mut words = words(line).map(|word| String::from_utf8_lossy(word).replace('"', ""));
        Some([words.next()?, words.next()?])
    };
    let here: Vec<[String; 2]> = lines(live).filter_map(parse).collect();
    let mut notes = Vec::new();
    let mut new = Vec::new();
    for line in lines(saved) {
        let Some([target, device]) = parse(line) else { continue };
        if here.contains(&[target.clone(), device.clone()]) {
            continue;
        }
        let why = if here.iter().any(|[other, _]| *other == target) {
            Some("another device has this name here")
        } else if device_path(&device).is_some() && !world.devices.contains(&device) {
            Some("no such device is here")
        } else {
            None
        };
        match why {
            Some(why) => notes.push(format!("'{target}' of {device} was left out: {why}")),
            None => new.push(line),
        }
    }
    Merged { content: add(live, new.into_iter()), notes }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn text(bytes: &[u8]) -> &str {
        std::str::from_utf8(bytes).unwrap()
    }

    fn accounts(saved: [&str; 2], live: [&str; 2]) -> World {
        let accounts = Accounts::of(saved.map(str::as_bytes), live.map(str::as_bytes));
        World { accounts, ..World::default() }
    }

    const SAVED: [&str; 2] = [
        "root:x:0:0::/root:/bin/bash\nsvc:x:995:995::/:/bin/false\nmara:x:1000:1000:Mara:/home/mara:/bin/bash\n\
         bob:x:1001:1001::/home/bob:/bin/sh\neve:x:1002:1002::/:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n",
        "root:x:0:\nsudo:x:27:mara,bob,svc\nmara:x:1000:\nbob:x:1001:mara\neve:x:1002:\nlab:x:1500:bob,gone\n",
    ];
    const LIVE: [&str; 2] = [
        "root:x:0:0:new root:/root:/bin/zsh\nmara:x:1000:1000::/home/m:/bin/sh\nbob:x:1005:1005::/:/bin/sh\n\
         zoe:x:1002:1002::/:/bin/sh\n",
        "root:x:0:\nsudo:x:30:zoe\nmara:x:1000:\nbob:x:1005:\nzoe:x:1002:",
    ];

    #[test]
    fn people_are_added_by_name_and_nobody_is_renumbered() {
        let world = accounts(SAVED, LIVE);
        let users = merge("etc/passwd", LIVE[0].as_bytes(), SAVED[0].as_bytes(), &world);
        assert_eq!(text(&users.content), LIVE[0]);
        assert_eq!(
            users.notes,
            [
                "user 'bob' has the number 1005 here and 1001 in the snapshot; nothing was renumbered",
                "user 'eve' had the number 1002, which is 'zoe' here; nothing was renumbered",
            ]
        );
        let groups = merge("etc/group", LIVE[1].as_bytes(), SAVED[1].as_bytes(), &world);
        assert_eq!(
            text(&groups.content),
            "root:x:0:\nsudo:x:30:zoe,mara\nmara:x:1000:\nbob:x:1005:\nzoe:x:1002:\nlab:x:1500:\n"
        );
        // Without the lines of passwd and group nobody is new.
        let none = Accounts::of(SAVED.map(str::as_bytes), ["", ""].map(str::as_bytes)).only(false, false);
        let world = World { accounts: none, ..World::default() };
        assert_eq!(merge("etc/shadow", b"", b"mara:$y$m:1::::::\n", &world).content, b"");
        assert_eq!(merge("etc/subuid", b"", b"mara:1:1\nroot:9:1\n", &world).content, b"root:9:1\n");
        // A user who is new comes with the password, or locked.
        let live = ["root:x:0:0::/root:/bin/sh\n", "root:x:0:\nsudo:x:27:\n"];
        let world = accounts(SAVED, live);
        let users = merge("etc/passwd", live[0].as_bytes(), SAVED[0].as_bytes(), &world);
        assert_eq!(users.notes, [""; 0]);
        assert!(text(&users.content).ends_with(
            "/bin/sh\nmara:x:1000:1000:Mara:/home/mara:/bin/bash\nbob:x:1001:1001::/home/bob:/bin/sh\neve:x:1002:1002::/:/bin/sh\n"
        ));
        let shadow = merge(
            "etc/shadow",
            b"root:*:1::::::\n",
            b"root:$y$no:1::::::\nmara:$y$m:1::::::\nbob:$y$b:1::::::\n",
            &world,
        );
        assert_eq!(
            text(&shadow.content),
            "root:*:1::::::\nbob:$y$b:1::::::\neve:!:::::::\nmara:$y$m:1::::::\n"
        );
        let secret = merge(
            "etc/gshadow",
            b"root:*::\nsudo:*::\n",
            b"root:*::\nsudo:!:x:mara,bob\nmara:!::\nlab:!:bob:bob\n",
            &world,
        );
        assert_eq!(text(&secret.content), "root:*::\nsudo:*::mara,bob\nmara:!::\nlab:!:bob:bob\n");
    }

    #[test]
    fn ranges_of_subordinate_ids_do_not_overlap() {
        let world = accounts(SAVED, ["", ""]);
        let saved = "root:100000:65536\nmara:165536:65536\nbob:300000:65536\nsvc:900000:10\nroot:1000000:1\n";
        let merged = merge("etc/subuid", b"root:100000:65536\nzoe:165536:65536", saved.as_bytes(), &world);
        assert_eq!(
            text(&merged.content),
            "root:100000:65536\nzoe:165536:65536\nbob:300000:65536\nroot:1000000:1\n"
        );
        assert_eq!(
            merged.notes,
            ["'mara' had 165536 to 231071, which overlaps 165536 to 231071 of 'zoe' here"]
        );
    }

    #[test]
    fn a_login_key_is_added_once_whatever_stands_around_it() {
        let live = "from=\"10.0.0.1\" ssh-ed25519 AAAA mara\n# ssh-rsa OFF old\n";
        let saved = "ssh-ed25519 AAAA other\nssh-rsa BBBB x\nssh-rsa BBBB x\nssh-rsa OFF old\nnonsense\n";
        let merged = merge("root/.ssh/authorized_keys", live.as_bytes(), saved.as_bytes(), &World::default());
        assert_eq!(text(&merged.content), format!("{live}ssh-rsa BBBB x\nssh-rsa OFF old\n"));
    }

    #[test]
    fn a_host_that_has_a_new_key_keeps_it() {
        let live = "nas ssh-ed25519 NEW\n";
        let saved =
            "nas ssh-ed25519 OLD\nnas ssh-rsa RRRR\n@revoked nas ssh-ed25519 OLD\n|1|a=|b= ssh-rsa HHHH\n";
        let merged = merge("root/.ssh/known_hosts", live.as_bytes(), saved.as_bytes(), &World::default());
        assert_eq!(
            text(&merged.content),
            "nas ssh-ed25519 NEW\nnas ssh-rsa RRRR\n@revoked nas ssh-ed25519 OLD\n|1|a=|b= ssh-rsa HHHH\n"
        );
        assert_eq!(merged.notes, ["'nas' has another ssh-ed25519 key here; that one stays"]);
    }

    #[test]
    fn a_mount_is_added_only_where_its_device_is() {
        let live = "UUID=1 / ext4 defaults 0 1\nUUID=2 /mnt/a ext4 defaults 0 2";
        let saved = "# old\nUUID=9 / ext4 defaults 0 1\nUUID=3 /mnt/a/ ext4 defaults 0 2\nUUID=4 /mnt/b ext4 nofail 0 2\n\
            LABEL=gone /mnt/c xfs defaults 0 0\n//nas/x /mnt/d cifs credentials=/root/.c,password=S3CRET 0 0\n\
            nas:/x /mnt/e nfs4 defaults 0 0\n/srv/x /mnt/f none bind 0 0\n/dev/mapper/d /mnt/g ext4 defaults 0 0\n\
            UUID=5 none swap sw 0 0\nUUID=6 none swap sw 0 0\nUUID=9 /boot/efi vfat defaults 0 0\n\
            UUID=4 /mnt/b ext4 nofail 0 2\ntmpfs /tmp tmpfs defaults 0 0\n";
        let wanted = devices("etc/fstab", saved.as_bytes());
        assert_eq!(
            wanted,
            ["/dev/mapper/d", "/srv/x", "LABEL=gone", "UUID=3", "UUID=4", "UUID=5", "UUID=6", "UUID=9"]
        );
        assert_eq!(device_path("PARTLABEL=x").unwrap(), "/dev/disk/by-partlabel/x");
        assert_eq!(device_path("nas:/x"), None);
        let here = ["UUID=4", "UUID=5", "UUID=9", "/dev/mapper/d"];
        let world = World { devices: here.map(str::to_owned).into(), ..World::default() };
        let merged = merge("etc/fstab", live.as_bytes(), saved.as_bytes(), &world);
        assert_eq!(
            text(&merged.content),
            format!(
                "{live}\nUUID=4 /mnt/b ext4 nofail 0 2\n//nas/x /mnt/d cifs credentials=/root/.c,password=S3CRET 0 0\n\
                 nas:/x /mnt/e nfs4 defaults 0 0\n/srv/x /mnt/f none bind 0 0\n/dev/mapper/d /mnt/g ext4 defaults 0 0\n\
                 UUID=5 none swap sw 0 0\ntmpfs /tmp tmpfs defaults 0 0\n"
            )
        );
        assert_eq!(
            merged.notes,
            [
                "UUID=9 on / (ext4) was left out: this host boots from its own",
                "UUID=3 on /mnt/a/ (ext4) was left out: UUID=2 is mounted there here",
                "LABEL=gone on /mnt/c (xfs) was left out: no such device is here",
                "UUID=6 on none (swap) was left out: no such device is here",
                "UUID=9 on /boot/efi (vfat) was left out: this host boots from its own",
            ]
        );
        let again = merge("etc/fstab", &merged.content, saved.as_bytes(), &world);
        assert_eq!(again.content, merged.content);
    }

    #[test]
    fn an_encrypted_volume_is_added_only_where_its_device_is() {
        let saved =
            b"data UUID=3 /etc/luks-keys/d luks\nswap /dev/sdz /dev/urandom swap\nold UUID=1 none luks\n";
        assert_eq!(devices("etc/crypttab", saved), ["/dev/sdz", "UUID=1", "UUID=3"]);
        let world = World { devices: ["UUID=3".to_owned(), "UUID=1".to_owned()].into(), ..World::default() };
        let merged = merge("etc/crypttab", b"old UUID=8 none luks\n", saved, &world);
        assert_eq!(text(&merged.content), "old UUID=8 none luks\ndata UUID=3 /etc/luks-keys/d luks\n");
        assert_eq!(merged.notes.len(), 2);
    }

    const PATHS: [&str; 10] = [
        "etc/passwd",
        "etc/group",
        "etc/shadow",
        "etc/gshadow",
        "etc/subuid",
        "etc/fstab",
        "etc/crypttab",
        "root/.ssh/authorized_keys",
        "root/.ssh/known_hosts",
        "etc/other",
    ];

    proptest! {
        #[test]
        fn every_line_that_is_here_stays_and_twice_is_once(
            live in "([a-d]{1,2}[: ]([x0-9]{0,3}|1000|1001|ssh-rsa A)[: ](1000|1001|/[ab])[: ][a-d,]{0,3}\n?|#.{0,4}\n){0,6}",
            saved in "([a-d]{1,2}[: ]([x0-9]{0,3}|1000|1001|ssh-rsa A)[: ](1000|1001|/[ab])[: ][a-d,]{0,3}\n|\n){0,6}",
        ) {
            for path in PATHS {
                let world = accounts([&saved, &saved], [&live, &live]);
                let merged = merge(path, live.as_bytes(), saved.as_bytes(), &world);
                let is_group = path.ends_with("group") || path.ends_with("gshadow");
                prop_assert!(is_group || merged.content.starts_with(live.as_bytes()));
                let names = |text: &[u8]| lines(text).map(|line| name(line).to_owned()).collect::<Vec<_>>();
                prop_assert!(names(&merged.content).starts_with(&names(live.as_bytes())));
                // What was added is here now.
                let here = text(&merged.content).to_owned();
                let passwd = if path == "etc/passwd" { &here } else { &live };
                let group = if path == "etc/group" { &here } else { &live };
                if !matches!(path, "etc/shadow" | "etc/gshadow") {
                    let again = merge(path, &merged.content, saved.as_bytes(), &accounts([&saved, &saved], [passwd, group]));
                    prop_assert_eq!(text(&again.content), &here);
                }
            }
        }
    }
}
