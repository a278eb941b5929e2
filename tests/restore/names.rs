//! Words that name something: how far each goes, and that none is passed over in silence.

use std::fs;

use pbx_config::model::problem::Exit;
use serde_json::Value;

use super::common::TestHost;
use super::saved;

fn plan(host: &TestHost, snap: &str, args: &[&str]) -> Value {
    host.run(&[&["restore", snap, "--dry-run", "--json"], args].concat()).ok().json()
}

fn steps(plan: &Value) -> Vec<&str> {
    plan["steps"].as_array().unwrap().iter().map(|step| step["path"].as_str().unwrap()).collect()
}

fn advice(plan: &Value) -> String {
    let all = plan["advice"].as_array().unwrap().iter();
    all.map(|one| one["text"].as_str().unwrap()).collect::<Vec<_>>().join("\n")
}

/// A member of a cluster without one of its own files, one that all share and one of another node.
fn bare_member() -> TestHost {
    let host = saved("pve-cluster");
    for path in ["storage.cfg", "nodes/pve2/host.fw", "nodes/pve2/qemu-server/201.conf"] {
        fs::remove_file(host.root.join("etc/pve").join(path)).unwrap();
    }
    host
}

#[test]
fn a_path_that_is_named_opens_the_cluster_for_no_other() {
    let host = bare_member();
    for args in [
        &["--path", "/etc/hosts", "--path", "/etc/pve/**"][..],
        &["--path", "/etc/pve"],
        &["--only", "pve-storage,pve-guests"],
    ] {
        assert_eq!(steps(&plan(&host, "latest", args)), [""; 0], "{args:?}");
    }
    assert_eq!(steps(&plan(&host, "latest", &["--path", "/etc/pve/storage.cfg"])), ["etc/pve/storage.cfg"]);
    let guest = "/etc/pve/nodes/pve2/qemu-server/201.conf";
    assert_eq!(steps(&plan(&host, "latest", &["--path", guest])), [&guest[1..]]);
    assert_eq!(steps(&plan(&host, "latest", &["vm/201"])), [&guest[1..]]);
}

#[test]
fn a_node_that_is_not_there_is_told_and_opens_nothing() {
    let host = saved("pbs");
    host.write("etc/hostname", "other\n");
    let snap = host.snapshot_file();
    let snap = snap.to_str().unwrap();
    let restore = ["restore", snap, "--only", "identity", "--dry-run", "--node"];
    let done = host.run(&[&restore[..], &["pbsX=other"]].concat()).exits(Exit::Usage);
    assert!(done.err.contains("there is no node 'pbsX' in the snapshot"), "{}", done.err);
    assert!(done.err.contains("did you mean 'pbs1'?"), "{}", done.err);
    let done = host.run(&[&restore[..], &["pbs1=ghost"]].concat()).exits(Exit::Usage);
    assert!(done.err.contains("there is no node 'ghost' here"), "{}", done.err);
    let renamed = plan(&host, snap, &["--only", "identity", "--node", "pbs1=other"]);
    assert!(advice(&renamed).contains("pbs1 is other"), "{renamed}");
    assert!(!steps(&renamed).contains(&"etc/hostname"), "{renamed}");
}

#[test]
fn a_live_node_never_gets_the_name_of_another_one() {
    let host = saved("pve-cluster");
    let renamed = plan(&host, "latest", &["--only", "hostname,hosts", "--node", "pve1=pve2"]);
    assert_eq!(steps(&renamed), [""; 0], "{renamed}");
    assert_eq!(renamed["refused"][0]["reason"], "would name this host pve2");
}

#[test]
fn a_storage_or_bridge_that_no_guest_names_is_told() {
    let host = saved("pve-single");
    let guest = "etc/pve/nodes/pve1/qemu-server/100.conf";
    let text = fs::read_to_string(host.root.join(guest)).unwrap();
    assert!(text.contains("local-zfs:") && text.contains("bridge=vmbr0"), "{text}");
    let moves = ["--storage", "local-zsf=tank", "--bridge", "nope=vmbr1", "--storage", "local-zfs=tank"];
    let said = advice(&plan(&host, "latest", &[&["vm/100"], &moves[..]].concat()));
    assert!(said.contains("--storage local-zsf=tank changes nothing"), "{said}");
    assert!(
        said.contains("did you mean 'local-zfs'?") && said.contains("--bridge nope=vmbr1 changes nothing"),
        "{said}"
    );
    assert_eq!(said.matches("changes nothing").count(), 2, "{said}");
    let said = advice(&plan(&host, "latest", &["--only", "hosts", "--bridge", "vmbr0=vmbr1"]));
    assert!(said.contains("no restored guest uses 'vmbr0'"), "{said}");
}

#[test]
fn what_is_skipped_does_not_come_along_with_an_object() {
    let host = saved("pve-single");
    for path in ["storage.cfg", "priv/storage/nas.pw"] {
        fs::remove_file(host.root.join("etc/pve").join(path)).unwrap();
    }
    let whole = plan(&host, "latest", &["storage/nas"]);
    assert_eq!(steps(&whole), ["etc/pve/priv/storage/nas.pw", "etc/pve/storage.cfg"], "{whole}");
    let less = plan(&host, "latest", &["storage/nas", "--skip", "pve-storage-passwords"]);
    assert_eq!(steps(&less), ["etc/pve/storage.cfg"], "{less}");
    let done = host.run(&["restore", "latest", "storage/nas", "--skip", "storage"]).exits(Exit::Usage);
    assert!(done.err.contains("storage/nas is in 'pve-storage', which --skip excludes"), "{}", done.err);
}

#[test]
fn a_guest_replaces_its_file_and_a_storage_is_merged_into_its_own() {
    let host = saved("pve-single");
    let write = |path: &str, text: &str| fs::write(host.root.join("etc/pve").join(path), text).unwrap();
    write("nodes/pve1/qemu-server/100.conf", "memory: 1\n");
    write("storage.cfg", "dir: local\n\tpath /var/lib/vz\n");
    let plan = plan(&host, "latest", &["vm/100", "storage/nas"]);
    let how = |path: &str| {
        plan["steps"].as_array().unwrap().iter().find(|step| step["path"] == path).map(|step| &step["how"])
    };
    assert_eq!(how("etc/pve/nodes/pve1/qemu-server/100.conf").unwrap(), "replace");
    assert_eq!(how("etc/pve/storage.cfg").unwrap(), "merge");
}

#[test]
fn a_plan_tells_no_secret() {
    let host = saved("pve-single");
    fs::write(host.root.join("etc/pve/priv/storage/nas.pw"), "password=other\n").unwrap();
    host.write("etc/network/interfaces", "iface wlan0 inet dhcp\n    wpa-psk hunter2\n");
    host.write("etc/cron.d/own", "0 1 * * * root curl -u admin:hunter2 h; mysqldump -phunter2 -P 3306\n");
    host.run(&["backup"]);
    fs::write(host.root.join("etc/pve/priv/storage/nas.pw"), "password=hunter2\n").unwrap();
    host.write("etc/network/interfaces", "iface wlan0 inet dhcp\n    wpa-psk hunter3\n");
    host.write("etc/cron.d/own", "0 2 * * * root curl -u admin:hunter3 h; mysqldump -phunter3 -P 3306\n");
    let plan = plan(&host, "latest", &["--only", "network,cron,pve-storage-passwords"]);
    let step = |path: &str| {
        plan["steps"].as_array().unwrap().iter().find(|step| step["path"] == path).unwrap().clone()
    };
    let secret = step("etc/pve/priv/storage/nas.pw");
    assert!(secret["after"]["sha256"].is_null() && secret["before"]["sha256"].is_null(), "{secret}");
    assert!(step("etc/cron.d/own")["after"]["sha256"].is_string(), "{plan}");
    for mode in [&[][..], &["--json"]] {
        let args = ["restore", "latest", "--dry-run", "--only", "network,cron,pve-storage-passwords"];
        let said = host.run(&[&args[..], mode].concat()).ok().out;
        assert!(!said.contains("hunter"), "{said}");
        assert!(said.contains("wpa-psk ***") && said.contains("-P 3306"), "{said}");
    }
}

#[test]
fn a_choice_is_heard_when_files_are_only_taken_out() {
    let host = saved("pve-single");
    let to = host.beside("out");
    let path = to.to_str().unwrap();
    host.run(&["restore", "latest", "--to", path, "--mode", "storage"]).ok();
    assert!(to.join("etc/pve/storage.cfg").exists());
    assert!(!to.join("etc/hosts").exists() && !to.join("etc/pve/user.cfg").exists());
    for option in [&["--yes"][..], &["--confirm-within", "3m"], &["--probe", "quorum"]] {
        let done = host.run(&[&["restore", "latest", "--to", "/nowhere/x"], option].concat());
        assert!(done.exits(Exit::Usage).err.contains(option[0]), "{option:?}");
    }
    let done = host.run(&["restore", "--apply", "/nowhere", "--store", "nosuch"]).exits(Exit::Usage);
    assert!(done.err.contains("--store"), "{}", done.err);
}
