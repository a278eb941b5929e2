//! Objects taken out of a golden host's files and put into changed ones: what comes along, what stays as it was,
//! and how names change on the way. Texts only; applying a plan is tested with the restore itself.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use common::{Shims, TestHost};
use pbx_config::catalog::objects::Grammar;
use pbx_config::catalog::restore::references::NODE_NAMES;
use pbx_config::model::problem::{Exit, FaultKind};
use pbx_config::plan::restore::adapt::references::{self, Moves};
use pbx_config::plan::restore::objects::object_names::{self, FileTree, Selector};
use pbx_config::plan::restore::objects::{self, ChosenObject, ObjectHost, config_edit};
use pbx_config::sys::process::exec::{Cmd, Exec, ProcessOutput, ToolStatus};
use pbx_config::sys::process::lock::Lock;
use proptest::prelude::*;

/// The files of a golden host that objects stand in.
fn golden(name: &str) -> FileTree {
    let host = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/hosts").join(name);
    let mut tree = FileTree::new();
    collect(&host.join("pve"), "etc/pve", &mut tree);
    collect(&host.join("root/etc/proxmox-backup"), "etc/proxmox-backup", &mut tree);
    tree
}

fn collect(folder: &Path, at: &str, tree: &mut FileTree) {
    for entry in fs::read_dir(folder).into_iter().flatten() {
        let entry = entry.unwrap();
        let path = format!("{at}/{}", entry.file_name().into_string().unwrap());
        if entry.file_type().unwrap().is_dir() {
            collect(&entry.path(), &path, tree);
        } else if object_names::reads(&path) {
            tree.insert(path, fs::read(entry.path()).unwrap());
        }
    }
}

/// Brings objects back onto `live` as this host.
fn choose(
    words: &[&str],
    moves: &Moves,
    snapshot: &FileTree,
    live: &FileTree,
) -> Result<Vec<ChosenObject>, String> {
    let told = |fault: pbx_config::model::problem::Fault| {
        format!("{fault} [{:?}] hint: {}", fault.kind, fault.hint.clone().unwrap_or_default())
    };
    let selectors: Result<Vec<Selector>, _> = words.iter().map(|word| Selector::parse(word)).collect();
    let here = ObjectHost { node: "pve1", nodes: &["pve1".to_owned()] };
    let mut chosen = objects::choose(&selectors.map_err(told)?, moves, snapshot, live, here).map_err(told)?;
    match chosen.iter_mut().find_map(|one| one.skip_reason.take()) {
        Some(refused) => Err(told(refused)),
        None => Ok(chosen),
    }
}

#[track_caller]
fn chosen(words: &[&str], snapshot: &FileTree, live: &FileTree) -> Vec<ChosenObject> {
    choose(words, &Moves::default(), snapshot, live).unwrap()
}

fn applied(live: &FileTree, chosen: &[ChosenObject]) -> FileTree {
    let mut tree = live.clone();
    for change in chosen.iter().flat_map(|chosen| &chosen.changes) {
        tree.insert(change.path.clone(), change.content.clone());
    }
    tree
}

fn text(tree: &FileTree, path: &str) -> String {
    String::from_utf8(tree[path].clone()).unwrap()
}

fn edit(tree: &mut FileTree, path: &str, old: &str, new: &str) {
    let before = text(tree, path);
    assert!(before.contains(old), "{path} has no {old:?}");
    tree.insert(path.to_owned(), before.replace(old, new).into_bytes());
}

#[test]
fn every_object_of_every_golden_host_is_unchanged_on_its_own_host() {
    for name in ["pve-single", "pve-cluster", "pbs", "both"] {
        let tree = golden(name);
        let words = object_names::all(&tree);
        assert!(words.len() > 3, "{name}: {words:?}");
        let nodes: Vec<String> = ["pve1", "pve2", "pve3", "duo"].map(str::to_owned).to_vec();
        for word in &words {
            let here = ObjectHost { node: "pve1", nodes: &nodes };
            let selector = Selector::parse(word).unwrap();
            let chosen = objects::choose(&[selector], &Moves::default(), &tree, &tree, here).unwrap();
            assert_eq!(chosen.len(), 1, "{name} {word}");
            assert!(chosen[0].changes.is_empty(), "{name} {word}: {chosen:?}");
        }
    }
}

#[test]
fn every_object_comes_back_onto_a_host_that_has_nothing_and_is_then_unchanged() {
    let nodes: Vec<String> = ["pve1", "pve2", "pve3"].map(str::to_owned).to_vec();
    let here = ObjectHost { node: "pve1", nodes: &nodes };
    for name in ["pve-single", "pve-cluster", "pbs"] {
        let snapshot = golden(name);
        let words = object_names::all(&snapshot);
        let selectors: Vec<Selector> = words.iter().map(|word| Selector::parse(word).unwrap()).collect();
        let first =
            objects::choose(&selectors, &Moves::default(), &snapshot, &FileTree::new(), here).unwrap();
        let live = applied(&FileTree::new(), &first);
        // Members of lists come after the lists, so once more; then everything stands.
        let second = objects::choose(&selectors, &Moves::default(), &snapshot, &live, here).unwrap();
        let live = applied(&live, &second);
        assert_eq!(object_names::all(&live).len(), words.len(), "{name}");
        let again = objects::choose(&selectors, &Moves::default(), &snapshot, &live, here).unwrap();
        assert!(again.iter().all(|chosen| chosen.changes.is_empty()), "{name}: {again:?}");
    }
}

#[test]
fn a_storage_comes_back_with_its_password_and_leaves_the_others_as_they_are() {
    let snapshot = golden("pve-single");
    let mut live = snapshot.clone();
    edit(&mut live, "etc/pve/storage.cfg", "server nas.example.org", "server other.example.org");
    edit(
        &mut live,
        "etc/pve/storage.cfg",
        "zfspool: local-zfs\n",
        "# by hand\nzfspool: local-zfs\n\t# and this\n",
    );
    live.remove("etc/pve/priv/storage/nas.pw");
    let found = chosen(&["storage/nas"], &snapshot, &live);
    let paths: Vec<&str> = found[0].changes.iter().map(|change| change.path.as_str()).collect();
    assert_eq!(paths, ["etc/pve/priv/storage/nas.pw", "etc/pve/storage.cfg"]);
    assert_eq!(found[0].changes[1].what, ["section 'cifs: nas' replaced"]);
    let after = applied(&live, &found);
    edit(&mut live, "etc/pve/storage.cfg", "server other.example.org", "server nas.example.org");
    assert_eq!(text(&after, "etc/pve/storage.cfg"), text(&live, "etc/pve/storage.cfg"));
}

#[test]
fn a_section_that_is_gone_is_added_behind_the_others_as_the_product_writes_it() {
    let snapshot = golden("pve-single");
    let mut live = snapshot.clone();
    live.insert("etc/pve/storage.cfg".into(), b"dir: local\n\tpath /var/lib/vz\n\n".to_vec());
    let after = applied(&live, &chosen(&["storage/local-zfs"], &snapshot, &live));
    assert_eq!(
        text(&after, "etc/pve/storage.cfg"),
        "dir: local\n\tpath /var/lib/vz\n\nzfspool: local-zfs\n\tpool rpool/data\n\tcontent images,rootdir\n\tsparse 1\n\n"
    );
    // Without a blank line at the end, as the Backup Server writes.
    live.insert("etc/pve/storage.cfg".into(), b"dir: local\n\tpath /var/lib/vz".to_vec());
    let after = applied(&live, &chosen(&["storage/local-zfs"], &snapshot, &live));
    assert!(
        text(&after, "etc/pve/storage.cfg").ends_with(
            "/vz\n\nzfspool: local-zfs\n\tpool rpool/data\n\tcontent images,rootdir\n\tsparse 1\n"
        )
    );
}

#[test]
fn a_user_comes_back_with_tokens_password_second_factors_group_and_permissions() {
    let snapshot = golden("pve-single");
    let mut live = snapshot.clone();
    live.insert(
        "etc/pve/user.cfg".into(),
        b"user:root@pam:1:0:::::\nuser:new@pve:1:0::::::\n\ngroup:admins:new@pve::\n\n\n\n\nacl:1:/:@admins:Administrator:\n".to_vec(),
    );
    live.insert("etc/pve/priv/shadow.cfg".into(), b"new:$5$x:\n".to_vec());
    live.insert("etc/pve/priv/tfa.cfg".into(), br#"{"users":{"new@pve":{"totp":[]}}}"#.to_vec());
    live.insert("etc/pve/priv/token.cfg".into(), b"root@pam!pbx 1\n".to_vec());
    let after = applied(&live, &chosen(&["user/mara@pve", "user/api@pve"], &snapshot, &live));
    assert_eq!(
        text(&after, "etc/pve/user.cfg"),
        "user:root@pam:1:0:::::\nuser:new@pve:1:0::::::\n\
         user:mara@pve:1:0:Mara:Muster:mara@example.org:Admin%3A day shift:x:\n\
         user:api@pve:1:1798758000::::reads only::\n\
         token:api@pve!metrics:0:1:for grafana:\n\n\
         group:admins:new@pve,mara@pve::\n\n\n\n\n\
         acl:1:/:@admins:Administrator:\n\
         acl:0:/vms/100:mara@pve:PVEVMUser:\n\
         acl:1:/:api@pve,api@pve!metrics:PVEAuditor:\n"
    );
    let shadow = text(&after, "etc/pve/priv/shadow.cfg");
    assert!(shadow.starts_with("new:$5$x:\nmara:$5$") && shadow.contains("\napi:$5$"));
    let tfa: serde_json::Value = serde_json::from_slice(&after["etc/pve/priv/tfa.cfg"]).unwrap();
    assert_eq!(tfa["users"]["mara@pve"]["totp"][0]["info"]["description"], "phone");
    assert!(text(&after, "etc/pve/priv/tfa.cfg").starts_with(r#"{"users":{"new@pve":{"totp":[]},"#));
    let tokens = text(&after, "etc/pve/priv/token.cfg");
    assert_eq!(tokens, "root@pam!pbx 1\napi@pve!metrics S3CRET00-0000-4000-8000-000000000001\n");
}

#[test]
fn what_was_granted_since_stays_and_a_changed_propagation_is_said_again() {
    let snapshot = golden("pve-single");
    let mut live = snapshot.clone();
    edit(
        &mut live,
        "etc/pve/user.cfg",
        "acl:0:/vms/100:mara@pve:PVEVMUser:\n",
        "acl:1:/vms/100:mara@pve:PVEVMUser:\nacl:1:/pool/prod:mara@pve:PVEAdmin:\n",
    );
    let after = applied(&live, &chosen(&["user/mara@pve"], &snapshot, &live));
    let expected = format!("{}acl:0:/vms/100:mara@pve:PVEVMUser:\n", text(&live, "etc/pve/user.cfg"));
    assert_eq!(text(&after, "etc/pve/user.cfg"), expected);
}

#[test]
fn a_users_other_tokens_stay() {
    let snapshot = golden("pbs");
    let mut live = snapshot.clone();
    edit(&mut live, "etc/proxmox-backup/user.cfg", "comment the hypervisor", "comment edited");
    let more =
        format!("{}\ntoken: pve1@pbs!second\n\tenable true\n", text(&live, "etc/proxmox-backup/user.cfg"));
    live.insert("etc/proxmox-backup/user.cfg".into(), more.into_bytes());
    live.insert("etc/proxmox-backup/token.shadow".into(), br#"{"pve1@pbs!second":"x"}"#.to_vec());
    live.insert("etc/proxmox-backup/acl.cfg".into(), b"acl:1:/:root@pam:Admin\n".to_vec());
    let after = applied(&live, &chosen(&["user/pve1@pbs"], &snapshot, &live));
    let users = text(&after, "etc/proxmox-backup/user.cfg");
    assert!(
        users.contains("comment the hypervisor")
            && users.ends_with("token: pve1@pbs!second\n\tenable true\n")
    );
    let tokens: serde_json::Value =
        serde_json::from_slice(&after["etc/proxmox-backup/token.shadow"]).unwrap();
    assert_eq!(tokens.as_object().unwrap().len(), 2);
    assert_eq!(
        text(&after, "etc/proxmox-backup/acl.cfg"),
        "acl:1:/:root@pam:Admin\nacl:1:/datastore/main:pve1@pbs,pve1@pbs!backup:DatastoreBackup\n\
         acl:0:/remote:pve1@pbs:RemoteAudit\n"
    );
}

#[test]
fn a_guest_comes_back_with_its_firewall_permissions_and_pool_and_says_what_it_lacks() {
    let mut snapshot = golden("pve-single");
    snapshot.insert("etc/pve/replication.cfg".into(), b"local: 100-0\n\ttarget pve2\n".to_vec());
    let mut live = snapshot.clone();
    live.remove("etc/pve/nodes/pve1/qemu-server/100.conf");
    live.remove("etc/pve/firewall/100.fw");
    live.remove("etc/pve/replication.cfg");
    edit(&mut live, "etc/pve/user.cfg", "acl:0:/vms/100:mara@pve:PVEVMUser:\n", "");
    edit(&mut live, "etc/pve/user.cfg", "100,102", "102");
    for word in ["vm/100", "guest/100", "qemu/100"] {
        let found = chosen(&[word], &snapshot, &live);
        let after = applied(&live, &found);
        assert_eq!(
            after["etc/pve/nodes/pve1/qemu-server/100.conf"],
            snapshot["etc/pve/nodes/pve1/qemu-server/100.conf"]
        );
        assert_eq!(after["etc/pve/firewall/100.fw"], snapshot["etc/pve/firewall/100.fw"]);
        assert!(text(&after, "etc/pve/user.cfg").contains("pool:prod:production:102,100:local-zfs:\n"));
        assert!(text(&after, "etc/pve/user.cfg").ends_with("acl:0:/vms/100:mara@pve:PVEVMUser:\n"));
        let notes = found[0].notes.join("\n");
        assert!(notes.contains("expects local-zfs:vm-100-cloudinit, local-zfs:vm-100-disk-0"), "{notes}");
        assert!(notes.contains("replication/100-0"), "{notes}");
    }
}

#[test]
fn what_comes_back_with_it_is_not_told_as_missing() {
    let snapshot = golden("pve-single");
    let mut live = snapshot.clone();
    live.remove("etc/pve/user.cfg");
    live.remove("etc/pve/nodes/pve1/qemu-server/100.conf");
    let notes = |words: &[&str]| {
        let all = chosen(words, &snapshot, &live).into_iter().flat_map(|one| one.notes);
        all.filter(|note| note.contains("is not here")).collect::<Vec<_>>()
    };
    assert_eq!(
        notes(&["user/mara@pve", "vm/100"]),
        [
            "group 'admins' had it and is not here: group/admins",
            "pool 'prod' had it and is not here: pool/prod"
        ]
    );
    assert_eq!(notes(&["user/mara@pve", "group/admins", "vm/100", "pool/prod"]), Vec::<String>::new());
}

#[test]
fn a_guest_id_that_is_taken_is_refused_and_another_one_is_free() {
    let snapshot = golden("pve-single");
    let mut live = snapshot.clone();
    let conf = live.remove("etc/pve/nodes/pve1/qemu-server/100.conf").unwrap();
    live.insert("etc/pve/nodes/pve2/lxc/100.conf".into(), conf);
    let refused = choose(&["vm/100"], &Moves::default(), &snapshot, &live).unwrap_err();
    assert!(refused.contains("guest 100 is there already, as /etc/pve/nodes/pve2/lxc/100.conf"), "{refused}");
    assert!(refused.contains("--as"), "{refused}");
    let moves = Moves {
        as_id: Some("201".into()),
        storages: vec![("local-zfs".into(), "fast".into())],
        bridges: vec![("vmbr0".into(), "vmbr7".into())],
        ..Moves::default()
    };
    let found = choose(&["vm/100"], &moves, &snapshot, &live).unwrap();
    let after = applied(&live, &found);
    let conf = text(&after, "etc/pve/nodes/pve1/qemu-server/201.conf");
    assert!(conf.contains("ide2: fast:vm-201-cloudinit,media=cdrom\n"), "{conf}");
    assert_eq!(conf.matches("scsi0: fast:vm-201-disk-0,discard=on,iothread=1,size=32G,ssd=1\n").count(), 2);
    assert_eq!(conf.matches(",bridge=vmbr7,firewall=1\n").count(), 2);
    assert!(conf.contains("hookscript: local:snippets/hook.pl\n"));
    assert!(text(&after, "etc/pve/user.cfg").contains("acl:0:/vms/201:mara@pve:PVEVMUser:\n"));
    assert!(text(&after, "etc/pve/user.cfg").contains(":100,102,201:"));
    assert!(found[0].notes.iter().any(|note| note.contains("MAC")), "{:?}", found[0].notes);
    assert!(!after.contains_key("etc/pve/nodes/pve1/qemu-server/100.conf"));
}

#[test]
fn a_guest_of_a_node_that_is_not_here_needs_another_node() {
    let snapshot = golden("pve-cluster");
    let refused = choose(&["vm/301"], &Moves::default(), &snapshot, &FileTree::new()).unwrap_err();
    assert!(
        refused.contains("there is no node 'pve3' here") && refused.contains("--node pve3=pve1"),
        "{refused}"
    );
    let moves = Moves { nodes: vec![("pve3".into(), "pve1".into())], ..Moves::default() };
    let found = choose(&["vm/301"], &moves, &snapshot, &FileTree::new()).unwrap();
    assert_eq!(found[0].changes[0].path, "etc/pve/nodes/pve1/qemu-server/301.conf");
    assert_eq!(found[0].changes[0].from, "etc/pve/nodes/pve3/qemu-server/301.conf");
}

#[test]
fn a_mapping_an_ha_resource_and_a_zone_of_a_renamed_node_name_the_new_one() {
    let snapshot = golden("pve-cluster");
    let moves = Moves { nodes: vec![("pve1".into(), "alpha".into())], ..Moves::default() };
    let words = ["mapping/pci/gpu0", "ha/vm:100", "zone/prod", "ha-rule/prefer-pve1", "fabric/fab1_alpha"];
    // The fabric's node is named by the id itself, so only the others are asked for.
    let found = choose(&words[..4], &moves, &snapshot, &FileTree::new()).unwrap();
    let after = applied(&FileTree::new(), &found);
    assert_eq!(
        text(&after, "etc/pve/mapping/pci.cfg"),
        "gpu0\n\tcomment GPU%3A render\n\
         \tmap id=10de:2204,iommugroup=12,node=alpha,path=0000:01:00.0,subsystem-id=1043:87b3\n\
         \tmap id=10de:2204,iommugroup=9,node=pve2,path=0000:02:00.0\n"
    );
    assert!(text(&after, "etc/pve/sdn/zones.cfg").contains("\texitnodes alpha\n"));
    assert!(text(&after, "etc/pve/ha/rules.cfg").contains("\tnodes alpha:2,pve2\n"));
    assert_eq!(
        text(&after, "etc/pve/ha/resources.cfg"),
        "vm: 100\n\tcomment web\n\tmax_restart 2\n\tstate started\n"
    );
}

#[test]
fn a_word_that_names_nothing_is_refused_with_the_nearest_thing_that_is_there() {
    let snapshot = golden("pve-single");
    let refused = |word: &str| choose(&[word], &Moves::default(), &snapshot, &FileTree::new()).unwrap_err();
    for (word, said) in [
        ("storage/nsa", "did you mean 'storage/nas'?"),
        ("stroage/nas", "did you mean 'storage/…'?"),
        ("vm/102", "did you mean 'ct/102'?"),
        ("vm/999", "it has: vm/100, vm/101"),
        ("user/mara", "did you mean 'user/mara@pve'?"),
        ("datastore/main", "`pbx-config show"),
        ("mapping/pci/x", "`pbx-config show"),
        ("storage/", "is not an object"),
        ("nonsense/x", "the kinds are: "),
        ("/etc/pve/storage.cfg", "use --path '/etc/pve/storage.cfg'"),
        ("etc/pve/*", "use --path"),
    ] {
        let refused = refused(word);
        assert!(refused.contains(said), "{word}: {refused}");
        assert!(refused.contains(&format!("{:?}", FaultKind::Usage)), "{word}: {refused}");
    }
}

#[test]
fn what_both_products_have_is_asked_for_with_its_product() {
    let snapshot = golden("both");
    let refused = choose(&["user/root@pam"], &Moves::default(), &snapshot, &snapshot).unwrap_err();
    assert!(refused.contains("use pve/user/root@pam or pbs/user/root@pam"), "{refused}");
    assert_eq!(chosen(&["pbs/user/root@pam"], &snapshot, &snapshot)[0].name, "pbs/user/root@pam");
}

#[test]
fn a_file_that_is_broken_on_this_host_is_left_alone_and_said() {
    let snapshot = golden("pve-single");
    let mut live = snapshot.clone();
    live.insert("etc/pve/priv/tfa.cfg".into(), b"{broken".to_vec());
    let refused = choose(&["user/mara@pve"], &Moves::default(), &snapshot, &live).unwrap_err();
    assert!(refused.contains("/etc/pve/priv/tfa.cfg on this host: is not JSON"), "{refused}");
    live.insert("etc/pve/storage.cfg".into(), b"cifs: nas\n\tpath /a\n\ncifs: nas\n\tpath /b\n".to_vec());
    let refused = choose(&["storage/nas"], &Moves::default(), &snapshot, &live).unwrap_err();
    assert!(refused.contains("'nas' is in it twice"), "{refused}");
}

#[test]
fn a_renamed_node_is_renamed_wherever_files_name_it() {
    let swap = Moves {
        nodes: vec![("pve1".into(), "pve2".into()), ("pve2".into(), "pve1".into())],
        ..Moves::default()
    };
    let renamed = |path: &str, text: &str| {
        let file = references::file(path, text.as_bytes(), &swap);
        (file.path, String::from_utf8(file.content).unwrap())
    };
    let mut seen = BTreeSet::new();
    for (path, before, after) in [
        (
            "etc/pve/storage.cfg",
            "dir: pve1\n\tnodes pve1,pve3 ; pve2\n\tcomment pve1\n",
            "dir: pve1\n\tnodes pve2,pve3 ; pve1\n\tcomment pve1\n",
        ),
        (
            "etc/pve/jobs.cfg",
            "vzdump: a\n\tnode pve1\n\tnodes pve1\n",
            "vzdump: a\n\tnode pve2\n\tnodes pve1\n",
        ),
        (
            "etc/pve/replication.cfg",
            "local: 1-0\n\ttarget pve2\n\tsource pve1\n",
            "local: 1-0\n\ttarget pve1\n\tsource pve2\n",
        ),
        (
            "etc/pve/ha/groups.cfg",
            "group: g\n\tnodes pve1:2,pve10,pve2\n",
            "group: g\n\tnodes pve2:2,pve10,pve1\n",
        ),
        (
            "etc/pve/ha/rules.cfg",
            "node-affinity: r\n\tnodes pve1:2,pve2\n\tresources vm:100\n",
            "node-affinity: r\n\tnodes pve2:2,pve1\n\tresources vm:100\n",
        ),
        (
            "etc/pve/mapping/pci.cfg",
            "gpu\n\tmap id=10de:1,node=pve1,path=0000:01:00.0\n\tmap node=pve2,path=pve1\n",
            "gpu\n\tmap id=10de:1,node=pve2,path=0000:01:00.0\n\tmap node=pve1,path=pve1\n",
        ),
        (
            "etc/pve/sdn/zones.cfg",
            "evpn: z\n\tnodes pve1,pve2\n\texitnodes pve1\n\texitnodes-primary pve1\n\tmtu 1450\n",
            "evpn: z\n\tnodes pve2,pve1\n\texitnodes pve2\n\texitnodes-primary pve2\n\tmtu 1450\n",
        ),
        (
            "etc/pve/sdn/controllers.cfg",
            "bgp: bgppve1\n\tnode pve1\n\tasn 65000\n",
            "bgp: bgppve1\n\tnode pve2\n\tasn 65000\n",
        ),
        (
            "etc/pve/sdn/.running-config",
            r#"{"zones":{"ids":{"pve1":{"nodes":{"pve1":1,"pve3":1},"exitnodes":["pve1","pve2"],"exitnodes-primary":"pve1","type":"pve1"}}},"controllers":{"ids":{"bgppve1":{"node":"pve1","comment":"node pve1"}}},"more":{"nodes": "pve1:2,pve10"}}"#,
            r#"{"zones":{"ids":{"pve1":{"nodes":{"pve2":1,"pve3":1},"exitnodes":["pve2","pve1"],"exitnodes-primary":"pve2","type":"pve1"}}},"controllers":{"ids":{"bgppve1":{"node":"pve2","comment":"node pve1"}}},"more":{"nodes": "pve2:2,pve10"}}"#,
        ),
        ("etc/pve/sdn/.running-config", r#"{"nodes":"pve1""#, r#"{"nodes":"pve1""#),
        (
            "etc/proxmox-backup/notifications.cfg",
            "matcher: m\n\tmatch-field exact:hostname=pve1\n",
            "matcher: m\n\tmatch-field exact:hostname=pve2\n",
        ),
        ("etc/mailname", "pve1.example.org\n", "pve2.example.org\n"),
        (
            "etc/postfix/main.cf",
            "myhostname = pve1.example.org\nmydestination = $myhostname, pve1, localhost\n",
            "myhostname = pve2.example.org\nmydestination = $myhostname, pve2, localhost\n",
        ),
        (
            "etc/pve/sdn/fabrics.cfg",
            "openfabric_node: fab1_pve1\n\tip 1\nopenfabric_fabric: fab_pve1\n",
            "openfabric_node: fab1_pve2\n\tip 1\nopenfabric_fabric: fab_pve1\n",
        ),
        (
            "etc/pve/user.cfg",
            "acl:1:/nodes/pve1:@a:R:\nacl:1:/nodes/pve10/x:@a:R:\n#acl:1:/nodes/pve1:@a:R:\n",
            "acl:1:/nodes/pve2:@a:R:\nacl:1:/nodes/pve10/x:@a:R:\n#acl:1:/nodes/pve1:@a:R:\n",
        ),
        (
            "etc/pve/notifications.cfg",
            "matcher: m\n\tmatch-field exact:hostname=pve1\n\tmatch-field exact:type=pve1\n",
            "matcher: m\n\tmatch-field exact:hostname=pve2\n\tmatch-field exact:type=pve1\n",
        ),
        (
            "etc/hosts",
            "192.0.2.1 pve1.example.org pve1 my-pve1 x.pve1\n",
            "192.0.2.1 pve2.example.org pve2 my-pve1 x.pve1\n",
        ),
        ("etc/hostname", "pve1\n", "pve2\n"),
        ("etc/resolv.conf", "search pve1\n", "search pve1\n"),
    ] {
        assert_eq!(renamed(path, before), (path.to_owned(), after.to_owned()), "{path}");
        seen.insert(path);
    }
    // Every row of the table is seen here to work.
    for row in NODE_NAMES {
        assert!(seen.contains(row.path.replace("{file}", "pci").as_str()), "{}", row.path);
    }
    assert_eq!(renamed("etc/pve/nodes/pve1/host.fw", "x").0, "etc/pve/nodes/pve2/host.fw");
}

#[test]
fn a_guest_keeps_every_byte_that_names_no_other_place() {
    let moves = Moves {
        as_id: Some("900".into()),
        storages: vec![("a".into(), "b".into())],
        bridges: vec![("vmbr1".into(), "vmbr2".into())],
        ..Moves::default()
    };
    let before = "#a:vm-101-disk-0 vmbr1\r\nargs: -drive file=a:vm-101-disk-0\nscsi0: file=a:101/vm-101-disk-0.qcow2,size=1G\n\
        scsi1: a:base-9000-disk-0/vm-101-disk-1\nscsi2: /dev/disk/by-id/x,backup=0\nide2: none,media=cdrom\nide3: a:iso/x.iso,media=cdrom\n\
        unused0: other:vm-101-disk-2\nefidisk0: a:vm-1011-disk-0\nnet0: virtio=AA,bridge=vmbr1,tag=5\nnet1: virtio=AA,bridge=vmbr10\n\
        cicustom: user=a:snippets/u.yaml,network=c:snippets/n.yaml\nscsihw: a:b\nmp0: a:subvol-101-disk-0,mp=/x:/y\n\n[snap]\nvmstate: a:vm-101-state-snap\n";
    let guest = references::guest(before.as_bytes(), "101", &moves);
    let after = "#a:vm-101-disk-0 vmbr1\r\nargs: -drive file=a:vm-101-disk-0\nscsi0: file=b:900/vm-900-disk-0.qcow2,size=1G\n\
        scsi1: b:base-9000-disk-0/vm-900-disk-1\nscsi2: /dev/disk/by-id/x,backup=0\nide2: none,media=cdrom\nide3: b:iso/x.iso,media=cdrom\n\
        unused0: other:vm-900-disk-2\nefidisk0: b:vm-1011-disk-0\nnet0: virtio=AA,bridge=vmbr2,tag=5\nnet1: virtio=AA,bridge=vmbr10\n\
        cicustom: user=b:snippets/u.yaml,network=c:snippets/n.yaml\nscsihw: a:b\nmp0: b:subvol-900-disk-0,mp=/x:/y\n\n[snap]\nvmstate: b:vm-900-state-snap\n";
    assert_eq!(String::from_utf8(guest.content).unwrap(), after);
}

#[test]
fn pairs_and_ids_that_cannot_be_are_refused() {
    for word in ["", "=", "a", "a=", "=b", "a/b=c", "-a=b", "a=b=c"] {
        assert!(Moves::pair("--node", word).is_err(), "{word}");
    }
    for id in ["1", "99", "0100", "x", "-5", "1000000000"] {
        assert!(Moves { as_id: Some(id.to_owned()), ..Moves::default() }.check().is_err(), "{id}");
    }
    let pair = |old: &str, new: &str| (old.to_owned(), new.to_owned());
    assert!(Moves { nodes: vec![pair("a", "c"), pair("b", "c")], ..Moves::default() }.check().is_err());
    assert!(Moves { storages: vec![pair("a", "b"), pair("a", "c")], ..Moves::default() }.check().is_err());
    assert!(Moves { storages: vec![pair("a", "c"), pair("b", "c")], ..Moves::default() }.check().is_ok());
}

/// A golden host that was saved, mounted as it lives.
fn saved(name: &str) -> TestHost {
    let host = TestHost::golden(name);
    if name != "pbs" && name != "bare" {
        host.mount(&[]);
    }
    host.run(&["backup"]);
    host
}

/// `how path` of every step.
fn steps(plan: &serde_json::Value) -> Vec<String> {
    let word = |step: &serde_json::Value, key: &str| step[key].as_str().unwrap().to_owned();
    plan["steps"]
        .as_array()
        .unwrap()
        .iter()
        .map(|step| format!("{} {}", word(step, "how"), word(step, "path")))
        .collect()
}

fn told(plan: &serde_json::Value, list: &str, key: &str) -> String {
    let all = plan[list].as_array().unwrap().iter().map(|one| one[key].as_str().unwrap().to_owned());
    all.collect::<Vec<_>>().join("\n")
}

#[test]
fn the_plan_of_an_object_has_its_files_and_no_others() {
    let host = saved("pve-single");
    let pve = host.mount_point();
    let storages = fs::read_to_string(pve.join("storage.cfg")).unwrap();
    fs::write(pve.join("storage.cfg"), storages.replace("server nas.example.org", "server x.example.org"))
        .unwrap();
    fs::remove_file(pve.join("priv/storage/nas.pw")).unwrap();
    fs::remove_file(pve.join("nodes/pve1/lxc/102.conf")).unwrap();
    fs::write(pve.join("jobs.cfg"), "").unwrap();
    let plan = |words: &[&str]| {
        let all: Vec<&str> =
            ["restore", "latest", "--dry-run", "--json"].iter().chain(words).copied().collect();
        host.run(&all).exits(Exit::Ok).json()
    };
    let both = plan(&["storage/nas", "ct/102"]);
    assert_eq!(
        steps(&both),
        [
            "create etc/pve/priv/storage/nas.pw",
            "merge etc/pve/storage.cfg",
            "create etc/pve/nodes/pve1/lxc/102.conf"
        ]
    );
    assert!(told(&both, "advice", "text").contains("ct/102: its disks are not restored with it"));
    let other = plan(&["ct/102", "--as", "202", "--storage", "local-zfs=tank"]);
    assert_eq!(steps(&other), ["merge etc/pve/user.cfg", "create etc/pve/nodes/pve1/lxc/202.conf"]);
    assert!(told(&other, "advice", "text").contains("expects tank:subvol-202-disk-0"));
    let same = plan(&["role/BackupOps", "vm/100"]);
    assert_eq!((steps(&same).len(), same["unchanged"].as_u64()), (0, Some(2)));
    assert_eq!(told(&same, "advice", "text"), "");
    let taken = plan(&["vm/100", "--as", "101"]);
    assert_eq!(steps(&taken), [""; 0]);
    assert!(told(&taken, "refused", "reason").contains("guest 101 is there already"), "{taken}");
    let text = host.run(&["restore", "latest", "--dry-run", "storage/nas"]).exits(Exit::Ok).out;
    assert!(!text.contains("S3CRET"), "{text}");
}

#[test]
fn words_that_cannot_be_are_refused_before_anything_is_read() {
    let host = saved("pve-single");
    for (words, said) in [
        (&["stroage/nas"][..], "did you mean 'storage/…'?"),
        (&["storage/nsa"], "did you mean 'storage/nas'?"),
        (&["storage"], "'storage' is not an object"),
        (&["--as", "200"], "no guest is named"),
        (&["vm/100", "--as", "7"], "--as '7' is not a guest id"),
        (&["vm/100", "ct/102", "--as", "200"], "--as changes the id of one guest"),
        (&["storage/nas", "--as", "200"], "--as changes the id of one guest"),
        (&["--node", "pve1"], "--node 'pve1' is not OLD=NEW"),
        (&["--bridge", "a=b", "--bridge", "a=c"], "--bridge gives 'a' two names"),
    ] {
        let all: Vec<&str> = ["restore", "latest", "--dry-run"].iter().chain(words).copied().collect();
        let done = host.run(&all).exits(Exit::Usage);
        assert!(done.err.contains(said), "{words:?}: {}", done.err);
    }
}

#[test]
fn on_another_host_accounts_mounts_and_cards_are_told_by_what_they_are() {
    let host = saved("pve-single");
    host.write("etc/machine-id", "00000000000000000000000000000abc\n");
    host.write("etc/passwd", "root:x:0:0:root:/root:/bin/bash\nzoe:x:1000:1000::/home/zoe:/bin/sh\n");
    host.write("etc/group", "root:x:0:\nsudo:x:27:\nzoe:x:1000:\n");
    host.write("etc/fstab", "UUID=NEW / ext4 defaults 0 1\n");
    host.write("dev/mapper/data", "");
    let plan = host.run(&["restore", "latest", "--dry-run", "--recover", "--json"]).exits(Exit::Ok).json();
    let advice = told(&plan, "advice", "text");
    assert!(advice.contains("user 'mara' had the number 1000, which is 'zoe' here"), "{advice}");
    assert!(advice.contains("UUID=1A2B-3C4D on /boot/efi (vfat) was left out"), "{advice}");
    assert!(advice.contains("disks of the old machine: nvme0n1 465 GiB TEST SSD"), "{advice}");
    let commands: Vec<&str> = plan["advice"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|advice| {
            advice["commands"].as_array().into_iter().flatten().filter_map(|command| command.as_str())
        })
        .collect();
    assert!(commands.contains(&"zpool import rpool"), "{commands:?}");
    assert!(commands.iter().any(|command| command.ends_with("packages-held.txt | xargs -r apt-mark hold")));
    assert!(
        commands.contains(&"proxmox-boot-tool refresh") && commands.contains(&"update-grub"),
        "{commands:?}"
    );
    let steps = steps(&plan);
    assert!(steps.contains(&"merge etc/fstab".to_owned()), "{steps:?}");
    assert!(
        !steps.iter().any(|step| step.ends_with("etc/passwd") || step.ends_with("etc/shadow")),
        "{steps:?}"
    );
}

/// A host whose `ip` says another word.
struct OtherCards {
    shims: Shims,
    old: &'static str,
    new: &'static str,
}

impl Exec for OtherCards {
    fn run(&self, cmd: &Cmd) -> anyhow::Result<Option<ProcessOutput>> {
        let mut output = self.shims.run(cmd)?;
        if let Some(output) = output.as_mut().filter(|_| cmd.argv[0] == "ip") {
            output.stdout = String::from_utf8_lossy(&output.stdout).replace(self.old, self.new).into_bytes();
        }
        Ok(output)
    }
}

#[test]
fn cards_with_other_names_are_renamed_in_the_plan_and_cards_that_are_not_here_stop_the_network() {
    let host = saved("pve-single");
    let plan = |old: &'static str, new: &'static str| {
        let args = ["restore", "latest", "--dry-run", "--only", "network", "--json"];
        let shims = Shims { bin: common::golden("pve-single").join("bin") };
        host.run_with(&args, Box::new(OtherCards { shims, old, new })).exits(Exit::Ok).json()
    };
    let renamed = plan("\"nic0\"", "\"enp5s0\"");
    let all = steps(&renamed);
    assert!(all.contains(&"replace etc/network/interfaces".to_owned()), "{all:?}");
    assert!(all.contains(&"replace usr/local/lib/systemd/network/50-pmx-nic0.link".to_owned()), "{all:?}");
    assert!(told(&renamed, "advice", "text").contains("nic0 is enp5s0 here"), "{renamed}");
    let other = plan("02:00:00:00:00:10", "02:00:00:00:00:99");
    assert_eq!(steps(&other), [""; 0]);
    let refused = told(&other, "refused", "reason");
    assert!(
        refused.contains("it needs nic0 (02:00:00:00:00:10)") && refused.contains("02:00:00:00:00:99"),
        "{refused}"
    );
}

#[test]
fn a_renamed_node_gets_its_files_and_what_names_it() {
    let old = saved("pve-single");
    let host = TestHost::golden("pve-single");
    host.write("etc/hostname", "newnode\n");
    host.mount(&[]);
    for path in
        ["nodes/pve1/qemu-server/100.conf", "nodes/pve1/qemu-server/101.conf", "nodes/pve1/lxc/102.conf"]
    {
        fs::remove_file(host.mount_point().join(path)).unwrap();
    }
    let store = "var/lib/proxmox-backup-extra/store";
    common::copy_tree(&old.root.join(store), &host.root.join(store));
    let args = [
        "restore",
        "pve1/2026-11-22T15:17:40Z",
        "--dry-run",
        "--recover",
        "--node",
        "pve1=newnode",
        "--json",
    ];
    let plan = host.run(&args).exits(Exit::Ok).json();
    let steps = steps(&plan);
    assert!(steps.contains(&"create etc/pve/nodes/newnode/qemu-server/100.conf".to_owned()), "{steps:?}");
    assert!(!steps.iter().any(|step| step.contains("nodes/pve1/")), "{steps:?}");
    assert!(
        told(&plan, "advice", "text").contains("/etc/pve/storage.cfg: pve1 is newnode in 1 place"),
        "{plan}"
    );
}

/// systemd as far as /etc/pve needs it: starts and stops the double, and notes what it was asked.
struct Systemd {
    shims: Shims,
    start: Vec<String>,
    pidfile: PathBuf,
    root: PathBuf,
    asked: Arc<Mutex<Vec<String>>>,
    waits: Mutex<Option<Lock>>,
}

impl Systemd {
    fn of(host: &TestHost, name: &str) -> Self {
        let path = |path: &Path| path.display().to_string();
        let node = fs::read_to_string(host.root.join("etc/hostname")).unwrap();
        let start =
            ["--mount", &path(&host.mount_point()), "--db", &path(&host.database()), "--node", node.trim()];
        let mut start: Vec<String> = start.map(str::to_owned).to_vec();
        start.extend(["--pidfile".to_owned(), path(&host.beside("pmxcfs.pid"))]);
        let shims = Shims { bin: common::golden(name).join("bin") };
        let root = host.root.clone();
        Self {
            shims,
            start,
            pidfile: host.beside("pmxcfs.pid"),
            root,
            asked: Arc::default(),
            waits: Mutex::default(),
        }
    }
}

impl Exec for Systemd {
    fn run(&self, cmd: &Cmd) -> anyhow::Result<Option<ProcessOutput>> {
        let words: Vec<&str> = cmd.argv.iter().map(String::as_str).collect();
        let exit = |code| ProcessOutput { status: ToolStatus::Exit(code), ..ProcessOutput::default() };
        let done = match words[..] {
            ["systemctl", "is-active", "--quiet", unit] => {
                let pid = fs::read_to_string(&self.pidfile).unwrap_or_default();
                let lives = Path::new("/proc").join(pid.trim()).join("comm").exists() && !pid.is_empty();
                exit(if unit == "pve-cluster" && lives { 0 } else { 3 })
            }
            ["systemctl", "start", "pve-cluster"] => {
                let started = Command::new(common::double()).args(&self.start).output().unwrap();
                exit(i32::from(!started.status.success()))
            }
            ["systemctl", "stop", "pve-cluster"] => {
                let pid = fs::read_to_string(&self.pidfile).unwrap_or_default();
                common::tool("kill").arg(pid.trim()).output().unwrap();
                exit(0)
            }
            // Who waits for the confirmation: a new session gives it as soon as all is done.
            ["systemd-run", ..] => {
                *self.waits.lock().unwrap() = Some(common::pretend_to_wait(&self.root));
                let mut confirm = common::tool("setsid");
                confirm.arg("--wait").arg(common::program()).arg("--root").arg(&self.root).arg("confirm");
                std::thread::spawn(move || {
                    let deadline = Instant::now() + Duration::from_secs(120);
                    while !confirm.output().unwrap().status.success() && Instant::now() < deadline {
                        std::thread::sleep(Duration::from_millis(100));
                    }
                });
                exit(0)
            }
            ["systemctl" | "pvecm", ..] => panic!("{words:?}"),
            _ => return self.shims.run(cmd),
        };
        if words[1] != "is-active" {
            self.asked.lock().unwrap().push(words[..words.len().min(3)].join(" "));
        }
        Ok(Some(done))
    }
}

/// All that pmxcfs shows, and nothing that it makes up.
fn tree_of(host: &TestHost) -> FileTree {
    fn walk(root: &Path, below: &str, tree: &mut FileTree) {
        for entry in fs::read_dir(root.join(below)).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            let path = if below.is_empty() { name.clone() } else { format!("{below}/{name}") };
            let kind = entry.file_type().unwrap();
            if kind.is_dir() {
                walk(root, &path, tree);
            } else if kind.is_file() && !(below.is_empty() && name.starts_with('.')) {
                tree.insert(path, fs::read(entry.path()).unwrap());
            }
        }
    }
    let mut tree = FileTree::new();
    walk(&host.mount_point(), "", &mut tree);
    tree
}

#[test]
fn the_database_comes_back_while_pmxcfs_is_stopped_starts_and_is_undone() {
    let host = saved("pve-single");
    let saved = tree_of(&host);
    for path in ["storage.cfg", "nodes/pve1/qemu-server/100.conf"] {
        fs::remove_file(host.mount_point().join(path)).unwrap();
    }
    fs::write(host.mount_point().join("user.cfg"), "user:root@pam:1:0::::::\n").unwrap();
    let changed = tree_of(&host);
    let args = ["restore", "latest", "--recover", "--database", "--only", "pve-database"];
    // While it runs nothing is planned.
    let refused = host.run(&[&args[..], &["--dry-run"]].concat()).exits(Exit::Failed);
    assert!(refused.err.contains("is mounted"), "{}", refused.err);
    assert!(refused.err.contains("systemctl stop pve-cluster"), "{}", refused.err);
    // Killed, so that its log stays beside the database.
    host.signal_daemon(nix::sys::signal::Signal::SIGKILL);
    common::tool("umount").arg("-l").arg(host.mount_point()).output().unwrap();
    let log = host.root.join("var/lib/pve-cluster/config.db-wal");
    assert!(log.exists());
    let before = [fs::read(host.database()).unwrap(), fs::read(&log).unwrap()];
    let plan = host.run(&[&args[..], &["--dry-run", "--json"]].concat()).ok().json();
    let all = steps(&plan);
    assert_eq!(all.last().unwrap(), "replace var/lib/pve-cluster/config.db");
    assert!(all.iter().all(|step| step.contains("var/lib/pve-cluster/config.db")), "{all:?}");
    let systemd = Systemd::of(&host, "pve-single");
    let asked = Arc::clone(&systemd.asked);
    let done = host.run_with(&[&args[..], &["--yes"]].concat(), Box::new(systemd));
    assert!(matches!(done.exit, Exit::Ok | Exit::Problems | Exit::Unconfirmed), "{}\n{}", done.out, done.err);
    assert_eq!(tree_of(&host), saved);
    let order = asked.lock().unwrap().clone();
    let starts = order.iter().filter(|word| word.starts_with("systemctl"));
    assert_eq!(starts.collect::<Vec<_>>(), ["systemctl stop pve-cluster", "systemctl start pve-cluster"]);
    // It lives, and writes into its database; undo stops it first.
    fs::write(host.mount_point().join("datacenter.cfg"), "keyboard: fr\n").unwrap();
    let systemd = Systemd::of(&host, "pve-single");
    let undone = host.run_with(&["undo"], Box::new(systemd));
    assert!(
        undone.out.contains("pve-cluster: was stopped before the restore, and is stopped again"),
        "{undone:?}"
    );
    // As it was before: stopped, until the admin starts it.
    assert_eq!(tree_of(&host), FileTree::new());
    let systemd = Systemd::of(&host, "pve-single");
    systemd.run(&Cmd::new(["systemctl", "start", "pve-cluster"], Duration::from_secs(60))).unwrap();
    assert_eq!(tree_of(&host), changed);
    assert_eq!(before.iter().map(Vec::len).filter(|len| *len > 0).count(), 2);
}

#[test]
fn a_database_of_a_cluster_comes_back_only_without_it() {
    let host = saved("pve-cluster");
    host.signal_daemon(nix::sys::signal::Signal::SIGTERM);
    let run = |more: &[&str]| {
        let args =
            ["restore", "pve1/latest", "--recover", "--database", "--only", "pve-database", "--dry-run"];
        host.run(&[&args[..], more].concat())
    };
    let member = run(&[]).exits(Exit::Failed);
    assert!(member.err.contains("/etc/corosync/corosync.conf is here"), "{}", member.err);
    fs::remove_file(host.root.join("etc/corosync/corosync.conf")).unwrap();
    let refused = run(&[]).exits(Exit::Usage);
    assert!(
        refused.err.contains("a member of a cluster") && refused.err.contains("--leave-cluster"),
        "{}",
        refused.err
    );
    let done = host.run_with(
        &[
            "restore",
            "latest",
            "--recover",
            "--database",
            "--leave-cluster",
            "--only",
            "pve-database",
            "--yes",
        ],
        Box::new(Systemd::of(&host, "pve-cluster")),
    );
    assert!(matches!(done.exit, Exit::Ok | Exit::Problems | Exit::Unconfirmed), "{}\n{}", done.out, done.err);
    let tree = tree_of(&host);
    assert!(!tree.contains_key("corosync.conf") && tree.contains_key("nodes/pve2/qemu-server/201.conf"));
    // Quorate by itself.
    fs::write(host.mount_point().join("x"), "y").unwrap();
    host.signal_daemon(nix::sys::signal::Signal::SIGTERM);
    host.write("etc/hostname", "other\n");
    let foreign = run(&["--leave-cluster"]).exits(Exit::Usage);
    assert!(
        foreign.err.contains("the database is of pve1, pve2, pve3, this host is 'other'"),
        "{}",
        foreign.err
    );
    assert!(foreign.err.contains("--node pve1=other"), "{}", foreign.err);
    run(&["--leave-cluster", "--node", "pve1=other"]).ok();
}

/// A text of sections with comments, blank lines and bad lines in between.
fn sections() -> impl Strategy<Value = String> {
    let line = prop_oneof![
        "(dir|nfs): [a-e]{1,2}\n",
        "\t[a-c]{1,3} [a-z]{0,4}\n",
        Just("\n".to_owned()),
        "#[ a-z]{0,4}\n",
        "[a-z]{1,3}\n",
        "  \n",
    ];
    proptest::collection::vec(line, 0..24).prop_map(|lines| lines.concat())
}

proptest! {
    #[test]
    fn an_entry_that_is_put_in_changes_no_other_entry_and_twice_is_once(
        saved in sections(), live in sections(), tail in "(\t[a-z])?",
    ) {
        let live = format!("{live}{tail}");
        let grammar = Grammar::Sections(&[]);
        for entry in config_edit::entries(grammar, saved.as_bytes()).unwrap() {
            let content = &saved.as_bytes()[entry.at.clone()];
            let before = config_edit::entries(grammar, live.as_bytes()).unwrap();
            let places: Vec<_> = before.iter().filter(|other| other.id == entry.id).collect();
            if places.len() > 1 {
                continue;
            }
            let after = match places[..] {
                [old] => config_edit::replace(live.as_bytes(), &old.at, content),
                _ => config_edit::add(grammar, live.as_bytes(), &entry.kind, &entry.id, content).unwrap(),
            };
            let found = config_edit::entries(grammar, &after).unwrap();
            let contents = |text: &[u8], all: &[config_edit::ConfigPart]| -> Vec<(String, Vec<u8>)> {
                all.iter().map(|entry| (entry.id.clone(), text[entry.at.clone()].to_vec())).collect()
            };
            let mut expected = contents(live.as_bytes(), &before);
            match expected.iter_mut().find(|(id, _)| *id == entry.id) {
                Some(old) => old.1 = content.to_vec(),
                None => expected.push((entry.id.clone(), content.to_vec())),
            }
            prop_assert_eq!(contents(&after, &found), expected);
            let again = found.iter().find(|other| other.id == entry.id).unwrap();
            prop_assert_eq!(config_edit::replace(&after, &again.at, content), after);
        }
    }

    #[test]
    fn a_field_that_is_put_into_json_leaves_the_others(
        names in proptest::collection::btree_set("[a-z\"\\\\é]{1,3}", 0..5), new in "[a-z\"]{1,3}", space in "[ \n\t]{0,2}",
    ) {
        let inner: Vec<String> = names.iter().map(|name| {
            format!("{space}{}{space}:{space}{{\"x\":[1,\"}},\"]}}{space}", serde_json::to_string(name).unwrap())
        }).collect();
        let text = format!("{space}{{\"a\":0,\"users\":{{{}}}}}", inner.join(","));
        let grammar = Grammar::Json(&["users"]);
        let found = config_edit::entries(grammar, text.as_bytes()).unwrap();
        prop_assert_eq!(found.iter().map(|entry| entry.id.clone()).collect::<std::collections::BTreeSet<_>>(), names.clone());
        let entry = format!("{}:5", serde_json::to_string(&new).unwrap());
        let after = match found.iter().find(|entry| entry.id == new) {
            Some(old) => config_edit::replace(text.as_bytes(), &old.at, entry.as_bytes()),
            None => config_edit::add(grammar, text.as_bytes(), "", &new, entry.as_bytes()).unwrap(),
        };
        let value: serde_json::Value = serde_json::from_slice(&after).unwrap();
        prop_assert_eq!(&value["users"][&new], &serde_json::json!(5));
        prop_assert_eq!(value["users"].as_object().unwrap().len(), names.len() + usize::from(!names.contains(&new)));
    }

    #[test]
    fn a_node_that_is_renamed_and_renamed_back_is_as_before(text in "((\tnodes |\tnode |dir: |#)?[a-z0-9,:= ]{0,12}\n){0,8}") {
        let there = Moves { nodes: vec![("a".into(), "zz9".into())], ..Moves::default() };
        let back = Moves { nodes: vec![("zz9".into(), "a".into())], ..Moves::default() };
        prop_assume!(!text.contains("zz9"));
        for path in ["etc/pve/storage.cfg", "etc/pve/jobs.cfg", "etc/hosts", "etc/pve/user.cfg"] {
            let moved = references::file(path, text.as_bytes(), &there);
            prop_assert_eq!(references::file(path, &moved.content, &back).content, text.as_bytes());
        }
    }
}

#[test]
fn a_saved_plan_of_an_object_does_that_and_no_more() {
    let host = saved("pve-single");
    // The golden hosts show a lock that is held.
    for lock in fs::read_dir(host.mount_point().join("priv/lock")).unwrap() {
        fs::remove_dir_all(lock.unwrap().path()).unwrap();
    }
    let guest = host.mount_point().join("nodes/pve1/lxc/102.conf");
    let users = host.mount_point().join("user.cfg");
    fs::remove_file(&guest).unwrap();
    let all = fs::read_to_string(&users).unwrap();
    fs::write(&users, all.replace("user:api@pve:1:1798758000::::reads only::\n", "")).unwrap();
    let file = host.beside("plan.json").display().to_string();
    host.run(&["restore", "latest", "user/api@pve", "ct/102", "--plan", &file]).ok();
    let before = tree_of(&host);
    let apply = |host: &TestHost| host.run(&["restore", "--apply", &file, "--yes"]);
    fs::write(&users, "user:root@pam:1:0::::::\n").unwrap();
    let refused = apply(&host).exits(Exit::Failed);
    assert!(refused.err.contains("changed since the plan was made: /etc/pve/user.cfg"), "{}", refused.err);
    fs::write(&users, &before["user.cfg"]).unwrap();
    // The time is part of what was planned.
    host.run(&["restore", "latest", "user/api@pve", "ct/102", "--plan", &file]).ok();
    let done = apply(&host);
    assert!(matches!(done.exit, Exit::Ok | Exit::Problems), "{}\n{}", done.out, done.err);
    assert!(
        guest.exists()
            && fs::read_to_string(&users).unwrap().contains("\nuser:api@pve:1:1798758000::::reads only::\n")
    );
    let mut after = tree_of(&host);
    for path in ["user.cfg", "nodes/pve1/lxc/102.conf"] {
        after.remove(path);
    }
    let mut others = before.clone();
    others.remove("user.cfg");
    assert_eq!(after, others);
    host.run(&["undo"]).ok();
    assert_eq!(tree_of(&host), before);
}

#[test]
fn the_manual_knows_every_kind() {
    let manual =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("man/pbx-config.1.in")).unwrap();
    let section = manual.split(".SH OBJECTS").nth(1).unwrap().split(".SH").next().unwrap().replace('\\', "");
    let words: Vec<&str> = section.split([' ', '\n']).map(|word| word.trim_start_matches("fB")).collect();
    for kind in pbx_config::catalog::objects::KINDS {
        assert!(
            words.iter().any(|word| word.trim_end_matches("fR;").trim_end_matches("fR.") == kind.name),
            "{}",
            kind.name
        );
    }
}
