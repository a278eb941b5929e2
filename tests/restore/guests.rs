//! Guests: the lock that Proxmox's own tools take on this node, guests that are locked, guests that run.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Child;

use pbx_config::model::problem::Exit;
use serde_json::Value;

use super::common::TestHost;
use super::{picture, saved, tree};

const VM: &str = "etc/pve/nodes/pve1/qemu-server/101.conf";
const CT: &str = "etc/pve/nodes/pve1/lxc/102.conf";
const VM_LOCK: &str = "run/lock/qemu-server/lock-101.conf";
const CT_LOCK: &str = "run/lock/lxc/pve-config-102.lock";
const GUESTS: [&str; 4] = ["restore", "latest", "--only", "pve-guests"];

/// Another process that has the lock for so many seconds, as Proxmox takes it.
struct Task(Child);

impl Task {
    fn holds(path: &PathBuf, seconds: &str) -> Self {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let child = crate::common::tool("flock")
            .args(["-x", "--no-fork"])
            .arg(path)
            .args(["sleep", seconds])
            .spawn()
            .unwrap();
        super::armed::wait_for("it holds the lock", || is_held(path));
        Self(child)
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn is_held(path: &PathBuf) -> bool {
    fs::File::open(path).is_ok_and(|file| file.try_lock_shared().is_err())
}

/// A node on which a VM and a container are others than in the snapshot.
fn changed() -> TestHost {
    let host = saved("pve-single");
    for path in [VM, CT] {
        fs::write(host.root.join(path), "memory: 512\n").unwrap();
    }
    host
}

/// What is told of single guests: text and command.
fn advice(plan: &Value) -> Vec<(String, String)> {
    let all = plan["advice"].as_array().unwrap().iter().filter(|one| one["commands"].is_array());
    let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    all.map(|one| (word(&one["text"]), word(&one["commands"][0]))).collect()
}

#[test]
fn while_a_task_of_a_guest_holds_its_lock_nothing_is_put_there() {
    let host = changed();
    let before = picture(&host);
    let task = Task::holds(&host.root.join(CT_LOCK), "60");
    let done = host.run(&[&GUESTS[..], &["--yes"]].concat()).exits(Exit::Locked);
    assert!(
        done.err.contains("something else holds the lock /run/lock/lxc/pve-config-102.lock"),
        "{}",
        done.err
    );
    assert!(done.err.contains("the steps that were done are undone again"), "{}", done.err);
    assert!(done.err.contains("hint: a task of this guest is changing it"), "{}", done.err);
    tree::assert_same(&picture(&host), &before);
    drop(task);
    host.run(&[&GUESTS[..], &["--yes"]].concat()).ok();
}

#[test]
fn an_undo_does_not_write_under_the_hands_of_a_task_either() {
    let host = changed();
    let before = picture(&host);
    host.run(&[&GUESTS[..], &["--yes"]].concat()).ok();
    let task = Task::holds(&host.root.join(VM_LOCK), "60");
    let done = host.run(&["undo"]).exits(Exit::Problems);
    assert!(
        done.out.contains("/etc/pve/nodes/pve1/qemu-server/101.conf: cannot be put back"),
        "{}",
        done.out
    );
    assert!(
        done.out.contains("something else holds the lock /run/lock/qemu-server/lock-101.conf"),
        "{}",
        done.out
    );
    assert_eq!(fs::read(host.root.join(CT)).unwrap(), b"memory: 512\n");
    drop(task);
    host.run(&["undo"]).ok();
    tree::assert_same(&picture(&host), &before);
}

#[test]
fn a_lock_that_is_free_soon_is_waited_for_and_left_as_proxmox_leaves_it() {
    let host = changed();
    fs::create_dir_all(host.root.join("run/lock/lxc")).unwrap();
    let _task = Task::holds(&host.root.join(VM_LOCK), "2");
    host.run(&[&GUESTS[..], &["--yes"]].concat()).ok();
    for lock in [VM_LOCK, CT_LOCK] {
        let path = host.root.join(lock);
        assert!(!is_held(&path), "{lock}");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o644, "{lock}");
        assert_eq!(fs::read(&path).unwrap(), b"");
    }
    // Of what was as it is nothing was locked.
    assert!(!host.root.join("run/lock/qemu-server/lock-100.conf").exists());
}

#[test]
fn where_nothing_takes_such_a_lock_none_is_made() {
    let host = changed();
    host.run(&[&GUESTS[..], &["--yes"]].concat()).ok();
    assert!(!host.root.join("run/lock").exists());
    // Nor is a link followed that somebody put there.
    fs::write(host.root.join(VM), "memory: 512\n").unwrap();
    fs::create_dir_all(host.root.join("run/lock/qemu-server")).unwrap();
    std::os::unix::fs::symlink("/etc/elsewhere", host.root.join(VM_LOCK)).unwrap();
    let done = host.run(&[&GUESTS[..], &["--yes"]].concat()).exits(Exit::Failed);
    assert!(done.err.contains("cannot open /run/lock/qemu-server/lock-101.conf"), "{}", done.err);
    assert_eq!(fs::read(host.root.join(VM)).unwrap(), b"memory: 512\n");
}

#[test]
fn a_guest_that_is_locked_is_left_alone_with_the_reason() {
    let host = changed();
    fs::write(host.root.join(VM), "lock: backup\nmemory: 512\n").unwrap();
    // A key of a snapshot in it is none of the guest's.
    fs::write(host.root.join(CT), "memory: 512\n\n[before]\nlock: backup\n").unwrap();
    let plan = host.run(&[&GUESTS[..], &["--dry-run", "--json"]].concat()).json();
    let refused = &plan["refused"][0];
    assert_eq!(
        (&refused["path"], &refused["reason"]),
        (&VM.into(), &"VM 101 is locked: backup".into()),
        "{plan}"
    );
    assert!(refused["hint"].as_str().unwrap().contains("`qm unlock 101`"), "{plan}");
    assert_eq!(plan["refused"].as_array().unwrap().len(), 1, "{plan}");
    assert_eq!(plan["steps"].as_array().unwrap().len(), 1, "{plan}");
    let named = host.run(&["restore", "latest", "vm/101", "--dry-run"]);
    assert!(named.out.contains("VM 101 is locked: backup"), "{}", named.out);
}

#[test]
fn a_guest_that_was_saved_locked_is_told_with_what_to_do() {
    let host = TestHost::golden("pve-single");
    host.mount(&[]);
    let conf = host.root.join(CT);
    let text = fs::read_to_string(&conf).unwrap();
    fs::write(&conf, format!("lock: migrate\n{text}")).unwrap();
    host.run(&["backup"]);
    // As it is it is no matter.
    let plan = host.run(&[&GUESTS[..], &["--dry-run", "--json"]].concat()).ok().json();
    assert_eq!(
        (&plan["steps"], &plan["refused"]),
        (&serde_json::json!([]), &serde_json::json!([])),
        "{plan}"
    );
    fs::write(&conf, text).unwrap();
    let plan = host.run(&[&GUESTS[..], &["--dry-run", "--json"]].concat()).ok().json();
    let told = advice(&plan);
    assert_eq!(told.len(), 1, "{plan}");
    assert!(told[0].0.starts_with("CT 102 was locked (migrate) when it was saved"), "{plan}");
    assert_eq!(told[0].1, "pct unlock 102");
}

#[test]
fn a_guest_that_runs_is_named_and_its_plan_is_the_same_when_it_stopped() {
    let host = changed();
    host.write("run/qemu-server/101.pid", "4242\n");
    // The number of a guest that ended may be another's.
    host.write("run/qemu-server/100.pid", "4242\n");
    host.write("proc/4242/cmdline", "/usr/bin/kvm\0-id\x00101\0-pidfile\0/var/run/qemu-server/101.pid\0");
    host.write(
        "proc/net/unix",
        "Num       RefCount Protocol Flags    Type St Inode Path\n\
         0000000000000000: 00000002 00000000 00010000 0001 01 34567 @/var/lib/lxc/102/command\n",
    );
    fs::write(host.root.join("etc/pve/nodes/pve1/qemu-server/100.conf"), "memory: 512\n").unwrap();
    let file = host.beside("plan.json");
    let plan = host.run(&[&GUESTS[..], &["--json", "--plan", file.to_str().unwrap()]].concat()).ok().json();
    let told: Vec<String> =
        advice(&plan).into_iter().map(|(text, command)| format!("{command}: {text}")).collect();
    assert_eq!(told.len(), 2, "{plan}");
    assert!(
        told.iter().any(|one| one.starts_with("qm reboot 101: VM 101 is running, and uses its old")),
        "{told:?}"
    );
    assert!(told.iter().any(|one| one.starts_with("pct reboot 102: CT 102 is running")), "{told:?}");
    fs::remove_dir_all(host.root.join("proc/4242")).unwrap();
    let shown = host.run(&[&GUESTS[..], &["--dry-run"]].concat()).ok().out;
    assert!(shown.contains("CT 102 is running") && !shown.contains("VM 101 is running"), "{shown}");
    host.run(&["restore", "--apply", file.to_str().unwrap(), "--yes"]).ok();
    assert_ne!(fs::read(host.root.join(VM)).unwrap(), b"memory: 512\n");
}

#[test]
fn of_a_guest_of_another_node_it_is_told_that_nothing_locks_it() {
    let host = saved("pve-cluster");
    fs::write(host.root.join("etc/pve/nodes/pve2/qemu-server/201.conf"), "memory: 512\n").unwrap();
    let plan = host.run(&["restore", "latest", "vm/201", "--dry-run", "--json"]).ok().json();
    let told = advice(&plan);
    let (text, command) = told.iter().find(|(text, _)| text.contains("is on pve2")).expect("told");
    assert!(text.contains("a task there may change it"), "{text}");
    assert_eq!(command, "pvesh get /nodes/pve2/tasks --source active --vmid 201");
    // What is not there at all nobody can change.
    fs::remove_file(host.root.join("etc/pve/nodes/pve2/qemu-server/201.conf")).unwrap();
    let plan = host.run(&["restore", "latest", "vm/201", "--dry-run", "--json"]).ok().json();
    assert!(!plan.to_string().contains("is on pve2"), "{plan}");
}
