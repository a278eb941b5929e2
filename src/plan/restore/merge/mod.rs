//! Lines that a live file lacks of the snapshot's: `accounts` by name, keys by key, mounts by `devices`. Nothing
//! that is here is changed or taken away; what cannot be added is told. Texts to texts, no I/O.
//! Not here: which file is which (`catalog::restore::merges`), looking for devices.

mod accounts;
mod devices;

use std::collections::BTreeSet;

pub use self::accounts::Accounts;
use self::accounts::{groups, name, passwords, sub_ids};
pub use self::devices::{device_path, devices};
use self::devices::{mounts, volumes};
use crate::catalog::restore::merges::{self, Merge};

/// A live file with what it lacked, and what it did not get.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Merged {
    pub content: Vec<u8>,
    /// Reasons for what was left out, in a line each; never a secret.
    pub notes: Vec<String>,
}

/// Facts about the host that a merge needs besides the file.
#[derive(Debug, Clone, Default)]
pub struct MergeContext {
    pub accounts: Accounts,
    /// The devices that are here, of those that `devices` names.
    pub devices: BTreeSet<String>,
}

/// The live text with what it lacks. `path` is relative to the root.
pub fn merge(path: &str, live: &[u8], saved: &[u8], world: &MergeContext) -> Merged {
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

/// Beginnings of the names of key types.
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
                "'{host}' has another {} key here, which is kept",
                String::from_utf8_lossy(&theirs[2])
            ));
        } else {
            new.push(line);
        }
    }
    Merged { content: add(live, new.into_iter()), notes }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    pub(crate) fn text(bytes: &[u8]) -> &str {
        std::str::from_utf8(bytes).unwrap()
    }

    fn accounts(saved: [&str; 2], live: [&str; 2]) -> MergeContext {
        let accounts = Accounts::of(saved.map(str::as_bytes), live.map(str::as_bytes));
        MergeContext { accounts, ..MergeContext::default() }
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
        let world = MergeContext { accounts: none, ..MergeContext::default() };
        assert_eq!(merge("etc/shadow", b"", b"mara:$y$m:1::::::\n", &world).content, b"");
        assert_eq!(merge("etc/subuid", b"", b"mara:1:1\nroot:9:1\n", &world).content, b"root:9:1\n");
        let world = accounts(
            ["mara:x:1000:1000::/:/x\n", "lab:x:1500:\nlab:x:1500:mara\n"],
            ["mara:x:1000:1000::/:/x\n", ""],
        );
        let twice = merge("etc/group", b"", b"lab:x:1500:\nlab:x:1500:mara\n", &world);
        assert_eq!(text(&twice.content), "lab:x:1500:mara\n");
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
        let merged =
            merge("root/.ssh/authorized_keys", live.as_bytes(), saved.as_bytes(), &MergeContext::default());
        assert_eq!(text(&merged.content), format!("{live}ssh-rsa BBBB x\nssh-rsa OFF old\n"));
    }

    #[test]
    fn a_host_that_has_a_new_key_keeps_it() {
        let live = "nas ssh-ed25519 NEW\n";
        let saved =
            "nas ssh-ed25519 OLD\nnas ssh-rsa RRRR\n@revoked nas ssh-ed25519 OLD\n|1|a=|b= ssh-rsa HHHH\n";
        let merged =
            merge("root/.ssh/known_hosts", live.as_bytes(), saved.as_bytes(), &MergeContext::default());
        assert_eq!(
            text(&merged.content),
            "nas ssh-ed25519 NEW\nnas ssh-rsa RRRR\n@revoked nas ssh-ed25519 OLD\n|1|a=|b= ssh-rsa HHHH\n"
        );
        assert_eq!(merged.notes, ["'nas' has another ssh-ed25519 key here, which is kept"]);
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
