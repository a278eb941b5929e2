//! What a restore reads and rewrites of Proxmox's own files.

use std::ops::Range;

use pbx_config::catalog::objects::Grammar;
use pbx_config::plan::restore::adapt::nics::{self, Card, Cards};
use pbx_config::plan::restore::adapt::references::{self, Moves};
use pbx_config::plan::restore::guest_conf;
use pbx_config::plan::restore::merge::{self, Accounts};
use pbx_config::plan::restore::objects::object_names::{self, FileTree, Selector};
use pbx_config::plan::restore::objects::{self, ObjectHost, config_edit};

const GRAMMARS: [Grammar; 9] = [
    Grammar::Whole,
    Grammar::Sections(&[]),
    Grammar::Sections(&["dir", "vm"]),
    Grammar::Bare,
    Grammar::Lines("user"),
    Grammar::Keyed(b':'),
    Grammar::Json(&["users"]),
    Grammar::AclOf,
    Grammar::Member { word: "group", field: 2 },
];

/// One text: as every file that a restore takes apart.
pub fn objects(data: &[u8]) {
    for grammar in GRAMMARS {
        let Ok(found) = config_edit::entries(grammar, data) else { continue };
        in_order(found.iter().map(|entry| &entry.at), data.len());
        for entry in found.iter().take(50) {
            let content = &data[entry.at.clone()];
            assert_eq!(config_edit::replace(data, &entry.at, content), data);
            if let Ok(more) = config_edit::add(grammar, data, &entry.kind, "new", content) {
                assert!(more.len() >= content.len());
            }
        }
    }
    if let Ok(text) = std::str::from_utf8(data) {
        let entries = guest_conf::entries(text);
        in_order(entries.iter().map(|entry| &entry.at), text.len());
        for entry in entries {
            assert_eq!(&text[entry.at.clone()], entry.value);
            entry.names().iter().for_each(|named| assert!(!format!("{named:?}").is_empty()));
        }
    }
    let nothing = Moves::default();
    assert_eq!(references::guest(data, "100", &nothing).content, data, "nothing was renamed");
    let pair = |old: &str, new: &str| vec![(old.to_owned(), new.to_owned())];
    let moves = Moves {
        as_id: Some("4711".to_owned()),
        nodes: pair("pve1", "node-nine"),
        storages: pair("local-zfs", "s9"),
        bridges: pair("vmbr0", "vmbr9"),
    };
    let guest = references::guest(data, "100", &moves).content;
    assert_eq!(references::guest(&guest, "100", &moves).content, guest, "twice is once");
    for path in ["etc/pve/storage.cfg", "etc/pve/user.cfg", "etc/hosts", "etc/pve/mapping/pci.cfg"] {
        let there = references::file(path, data, &moves);
        assert_eq!(references::file(path, &there.content, &moves).content, there.content, "twice is once");
    }
    back(data);
    onto_a_host(data);
}

/// As a file of the host that is merged, and as one of its network.
fn onto_a_host(data: &[u8]) {
    let world = merge::MergeContext {
        accounts: Accounts::of([data, data], [b"root:x:0:0::/:/bin/sh\nmara:x:1000:1000::/:/bin/sh", b""]),
        devices: merge::devices("etc/fstab", data).into_iter().take(1).collect(),
    };
    for path in [
        "etc/passwd",
        "etc/group",
        "etc/shadow",
        "etc/subuid",
        "etc/fstab",
        "etc/crypttab",
        "root/.ssh/known_hosts",
    ] {
        let live = b"root:x:0:0:mara\n/dev/a /b ext4 defaults 0 0";
        let once = merge::merge(path, live, data, &world);
        assert!(path == "etc/group" || once.content.starts_with(live), "{path}");
        once.notes.iter().for_each(|note| assert!(!note.contains('\n'), "{note:?}"));
    }
    let mac = |last: u8| format!("02:00:00:00:00:{last:02x}");
    let card = |name: &str, last: u8| Card { name: name.to_owned(), mac: mac(last) };
    let cards = Cards::compare(&[card("nic0", 1), card("nic1", 2)], &[card("enp9", 1), card("enp8", 3)]);
    for path in ["etc/network/interfaces", "etc/systemd/network/10-a.link", "etc/pve/nodes/pve1/host.fw"] {
        let once = cards.adapt(path, data);
        assert_eq!(cards.adapt(path, &once.content).content, once.content, "twice is once");
    }
    nics::cards(data);
    nics::linked(data);
}

/// As a file of a snapshot, onto a host that has none and then onto one that has all of it.
fn back(data: &[u8]) {
    let paths = ["etc/pve/storage.cfg", "etc/pve/user.cfg", "etc/pve/priv/tfa.cfg", "etc/pve/priv/token.cfg"];
    let snapshot: FileTree = paths.iter().map(|path| ((*path).to_owned(), data.to_vec())).collect();
    let here = ObjectHost { node: "pve1", nodes: &[] };
    for word in object_names::all(&snapshot).iter().take(20) {
        let Ok(selector) = Selector::parse(word) else { continue };
        let mut live = FileTree::new();
        for _ in 0..2 {
            let Ok(chosen) =
                objects::choose(std::slice::from_ref(&selector), &Moves::default(), &snapshot, &live, here)
            else {
                break;
            };
            for change in chosen.iter().flat_map(|chosen| &chosen.changes) {
                let before = live.insert(change.path.clone(), change.content.clone());
                assert_eq!(before, None, "{word}: {} changes again", change.path);
            }
        }
    }
}

#[track_caller]
fn in_order<'a>(places: impl Iterator<Item = &'a Range<usize>>, len: usize) {
    let mut done = 0;
    for at in places {
        assert!(done <= at.start && at.start <= at.end && at.end <= len, "{at:?} after {done} of {len}");
        done = at.end;
    }
}
