//! `--node OLD=NEW`: a host of another name, and what the old name is left in, and why.

use std::fs;
use std::path::Path;

use pbx_config::model::problem::Exit;
use pbx_config::sys::process::exec::{Cmd, Exec, ProcessOutput};
use serde_json::Value;

use super::common::{Shims, TestHost, copy_tree, golden, tree};
use super::{change, picture, saved};

/// Its services are nobody's here, and nothing is armed.
struct Mounted;

impl Exec for Mounted {
    fn run(&self, cmd: &Cmd) -> anyhow::Result<Option<ProcessOutput>> {
        Shims { bin: golden("pve-single").join("bin") }.run(cmd)
    }

    fn is_of_host(&self) -> bool {
        false
    }
}

/// A node with names in every place that PVE knows, and a host of the name `newnode` that has its snapshot.
fn hosts() -> TestHost {
    let old = TestHost::golden("pve-single");
    old.mount(&[]);
    for (path, text) in [
        (
            "sdn/.running-config",
            r#"{"version":3,"zones":{"ids":{"z":{"type":"simple","nodes":{"pve1":1}}}},"fabrics":{"ids":{"f_pve1":{"node_id":"pve1"}}}}"#,
        ),
        ("sdn/zones.cfg", "simple: z\n\tnodes pve1\n"),
        (
            "ceph.conf",
            "[global]\n\tfsid = 00000000-0000-4000-8000-000000000900\n\tmon_host = 192.0.2.11\n\n[mon.pve1]\n\t\
             public_addr = 192.0.2.11\n\thost = pve1\n",
        ),
        ("mapping/directory.cfg", "share\n\tmap node=pve1,path=/srv/share\n"),
        ("replication.cfg", "local: 100-0\n\ttarget pve2\n\tsource pve1\n"),
        ("ha/rules.cfg", "node-affinity: r\n\tnodes pve1:1\n\tresources vm:100\n"),
    ] {
        old.write(&format!("etc/pve/{path}"), text);
    }
    old.run(&["backup"]);
    let host = TestHost::golden("pve-single");
    host.write("etc/hostname", "newnode\n");
    host.mount(&[]);
    for name in ["pve1", "priv/lock"]
        .map(|name| host.mount_point().join(if name == "pve1" { "nodes/pve1" } else { name }))
    {
        empty(&name);
    }
    let store = "var/lib/proxmox-backup-extra/store";
    copy_tree(&old.root.join(store), &host.root.join(store));
    host
}

fn empty(dir: &Path) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().unwrap().is_dir() {
            empty(&entry.path());
            let _ = fs::remove_dir(entry.path());
        } else {
            let _ = fs::remove_file(entry.path());
        }
    }
}

const RESTORE: [&str; 5] = ["restore", "pve1/2026-11-22T15:17:40Z", "--recover", "--node", "pve1=newnode"];

fn words(text: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(text).into_owned();
    let lines = text
        .lines()
        .filter(|line| line.split(|c: char| !c.is_ascii_alphanumeric()).any(|word| word == "pve1"));
    lines.map(str::to_owned).collect()
}

#[test]
fn the_old_name_of_a_node_stays_only_where_it_means_something_else() {
    let host = hosts();
    let before = picture(&host);
    let args = [&RESTORE[..], &["--start-jobs", "--yes", "--skip", "network"]].concat();
    let done = host.run_with(&args, Box::new(Mounted));
    assert!(matches!(done.exit, Exit::Ok | Exit::Problems), "{}\n{}", done.out, done.err);
    let read = |path: &str| fs::read_to_string(host.root.join(path)).unwrap();
    for (path, said) in [
        ("etc/pve/storage.cfg", "\tnodes newnode\n"),
        ("etc/pve/mapping/directory.cfg", "node=newnode,"),
        ("etc/pve/replication.cfg", "\ttarget pve2\n\tsource newnode\n"),
        ("etc/pve/ha/rules.cfg", "\tnodes newnode:1\n"),
        ("etc/hosts", "newnode.example.org newnode"),
        ("etc/hostname", "newnode"),
        ("etc/mailname", "newnode.example.org"),
        ("etc/postfix/main.cf", "myhostname = newnode.example.org"),
    ] {
        assert!(read(path).contains(said), "{path}: {}", read(path));
    }
    assert!(host.mount_point().join("nodes/newnode/qemu-server/100.conf").exists());
    let mut left = Vec::new();
    for path in tree::picture(&host.mount_point(), "").keys() {
        let file = host.mount_point().join(path);
        if file.is_file() && !path.starts_with("nodes/pve1") && !path.to_string_lossy().starts_with('.') {
            left.extend(
                words(&fs::read(&file).unwrap())
                    .into_iter()
                    .map(|line| format!("{}: {line}", path.display())),
            );
        }
    }
    // Accounts elsewhere, passwords, keys' comments, and a domain of its own: the admin's to decide.
    let known = [
        "datacenter.cfg: email_from",
        "datacenter.cfg: webauthn",
        "notifications.cfg: \tfrom-address",
        "notifications.cfg: \tusername",
        "storage.cfg: \tnamespace",
        "storage.cfg: \tusername",
        "priv/",
        "nodes/newnode/config: acmedomain0",
        "nodes/newnode/ssh_known_hosts",
    ];
    left.retain(|line| !known.iter().any(|known| line.starts_with(known)));
    assert_eq!(left, Vec::<String>::new());
    host.run_with(&["undo"], Box::new(Mounted)).ok();
    tree::assert_same(&picture(&host), &before);
}

fn told(plan: &Value, list: &str) -> String {
    plan[list].to_string()
}

#[test]
fn what_cannot_be_renamed_is_refused_and_what_is_made_anew_is_told() {
    let host = hosts();
    let plan = host.run(&[&RESTORE[..], &["--dry-run", "--json"]].concat()).ok().json();
    let refused = told(&plan, "refused");
    assert!(
        refused.contains("by the name of pve1 it names its Ceph daemons, and those cannot be renamed"),
        "{refused}"
    );
    assert!(
        refused.contains("`pveceph mon create` on newnode, then `pveceph mon destroy pve1`"),
        "{refused}"
    );
    assert!(plan["steps"].as_array().unwrap().iter().all(|step| step["path"] != "etc/pve/ceph.conf"));
    let advice = told(&plan, "advice");
    assert!(advice.contains("/etc/pve/sdn/.running-config: pve1 is newnode in 2 places"), "{advice}");
    assert!(advice.contains("/etc/pve/sdn/.running-config: still contains pve1 in other places"), "{advice}");
    // By its name it comes back as it is.
    let named = [&RESTORE[..], &["--dry-run", "--json", "--only", "pve-ceph"]].concat();
    let plan = host.run(&named).ok().json();
    assert!(told(&plan, "steps").contains("etc/pve/ceph.conf"), "{plan}");
    assert!(told(&plan, "advice").contains("those cannot be renamed"), "{plan}");
}

#[test]
fn a_database_of_another_name_says_what_it_could_not_rename() {
    let host = hosts();
    host.signal_daemon(nix::sys::signal::Signal::SIGTERM);
    let plan = host.run(&[&RESTORE[..], &["--database", "--dry-run", "--json"]].concat()).ok().json();
    let advice = told(&plan, "advice");
    assert!(advice.contains("/etc/pve/ceph.conf: by the name of pve1 it names its Ceph daemons"), "{advice}");
    assert!(advice.contains("/etc/pve/storage.cfg: pve1 is newnode in 1 place"), "{advice}");
}

#[test]
fn without_another_name_nothing_is_held_back() {
    let host = saved("pve-cluster");
    change(&host);
    fs::remove_file(host.mount_point().join("ceph.conf")).unwrap();
    let plan = host.run(&["restore", "latest", "--dry-run", "--json", "--cluster-wide"]).ok().json();
    assert!(told(&plan, "steps").contains("etc/pve/ceph.conf"), "{plan}");
}
