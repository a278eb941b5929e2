//! What a plan says of itself: what is no work is no noise, and what an admin must know is said before the first write.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};

use pbx_config::model::problem::Exit;
use serde_json::Value;

use super::common::TestHost;
use super::saved;

fn plan(host: &TestHost, args: &[&str]) -> Value {
    host.run(&[&["restore", "latest", "--dry-run", "--json"], args].concat()).ok().json()
}

fn told(plan: &Value, list: &str, key: &str) -> String {
    let all = plan[list].as_array().unwrap().iter();
    all.map(|one| one[key].as_str().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

#[test]
fn an_unchanged_member_has_nothing_to_do_and_nothing_to_read() {
    let host = saved("pve-cluster");
    let said = host.run(&["restore", "latest", "--yes"]).exits(Exit::Ok).out;
    assert!(said.contains("\nnothing to do; ") && !said.contains("0 to create"), "{said}");
    assert!(!said.contains("all nodes of the cluster share it"), "{said}");
    assert!(said.lines().count() < 20, "{said}");
}

#[test]
fn what_one_reason_keeps_back_is_said_once() {
    let host = saved("pve-cluster");
    for path in ["storage.cfg", "user.cfg", "nodes/pve2/host.fw"] {
        fs::remove_file(host.root.join("etc/pve").join(path)).unwrap();
    }
    let said = host.run(&["restore", "latest", "--dry-run"]).ok().out;
    assert_eq!(said.matches("all nodes of the cluster share it").count(), 1, "{said}");
    assert!(said.contains("\n    pve-storage: /etc/pve/storage.cfg\n"), "{said}");
    let plan = plan(&host, &[]);
    let shared = told(&plan, "refused", "reason").matches("share it").count();
    assert_eq!(shared, 2, "{plan}");
}

#[test]
fn rows_that_never_come_back_are_told_only_when_they_differ() {
    let host = saved("bare");
    assert!(!told(&plan(&host, &[]), "refused", "item").contains("machine-id"));
    host.write("etc/machine-id", "00000000000000000000000000000001\n");
    assert!(told(&plan(&host, &[]), "refused", "item").contains("machine-id"));
}

#[test]
fn a_file_that_is_rewritten_shows_how() {
    let host = saved("pbs");
    host.write("etc/hostname", "other\n");
    let file = host.snapshot_file();
    let args = ["restore", file.to_str().unwrap(), "--node", "pbs1=other", "--dry-run"];
    let said = host.run(&args).ok().out;
    assert!(said.contains("replace    /etc/mailname  (+1 -1 lines)\n"), "{said}");
    assert!(said.contains("replace    /etc/hosts  (+1 -1 lines)\n      "), "{said}");
    assert!(said.contains("the node's files are restored to this node"), "{said}");
    assert!(!said.contains("`--node OLD=NEW` is used"), "{said}");
}

#[test]
fn a_file_never_becomes_that_of_who_has_its_owners_number_now() {
    let host = saved("bare");
    let passwd = fs::read_to_string(host.root.join("etc/passwd")).unwrap();
    let with = |name: &str| format!("{passwd}{name}:x:1005:1005::/home/{name}:/bin/sh\n");
    host.write("etc/passwd", with("bob"));
    host.write("etc/cron.d/own", "# bob's\n");
    let file = host.root.join("etc/cron.d/own");
    chown(&file, Some(1005), Some(0)).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o4700)).unwrap();
    host.run(&["backup"]);
    fs::remove_file(&file).unwrap();

    host.write("etc/passwd", with("alice"));
    let plan = plan(&host, &["--only", "cron"]);
    let said = told(&plan, "advice", "text");
    assert!(
        said.contains("/etc/cron.d/own: there is no user bob here, and its number 1005 is alice's"),
        "{said}"
    );
    host.run(&["restore", "latest", "--only", "cron", "--yes"]).ok();
    let meta = fs::metadata(&file).unwrap();
    assert_eq!((meta.uid(), meta.mode() & 0o7777), (0, 0o700));

    host.run(&["undo"]).ok();
    host.write("etc/passwd", passwd);
    host.run(&["restore", "latest", "--only", "cron,accounts", "--yes"]);
    assert_eq!(fs::metadata(&file).unwrap().uid(), 1005, "bob comes along");
}

#[test]
fn other_names_of_a_file_are_told() {
    let host = saved("bare");
    host.write("etc/hosts", "127.0.0.1 localhost\n");
    fs::hard_link(host.root.join("etc/hosts"), host.root.join("etc/hosts.second")).unwrap();
    let plan = plan(&host, &["--only", "hosts"]);
    assert!(told(&plan, "advice", "text").contains("/etc/hosts: has other names here"), "{plan}");
}

#[test]
fn what_cannot_be_changed_is_refused_before_the_first_write() {
    let host = saved("bare");
    host.write("etc/cron.d/own", "# mine\n");
    host.write("etc/hosts", "127.0.0.1 localhost\n");
    host.run(&["backup"]);
    host.write("etc/cron.d/own", "# changed\n");
    host.write("etc/hosts", "127.0.0.1 changed\n");
    let folder = host.root.join("etc/cron.d");
    let run = |words: &[&str]| {
        crate::common::tool(words[0]).args(&words[1..]).arg(&folder).status().unwrap().success()
    };
    let source = folder.to_str().unwrap().to_owned();
    assert!(run(&["mount", "--bind", &source]) && run(&["mount", "-o", "remount,bind,ro"]));
    let read_only = plan(&host, &["--only", "hosts,cron"]);
    assert!(run(&["umount"]));
    assert_eq!(told(&read_only, "steps", "path"), "etc/hosts", "{read_only}");
    assert_eq!(told(&read_only, "refused", "reason"), "the file system of /etc/cron.d is mounted read-only");

    // Not every file system has such attributes.
    let hosts = host.root.join("etc/hosts");
    let chattr =
        |word: &str| crate::common::tool("chattr").arg(word).arg(&hosts).output().unwrap().status.success();
    if chattr("+i") {
        let kept = plan(&host, &["--only", "hosts,cron"]);
        assert!(chattr("-i"));
        assert_eq!(told(&kept, "steps", "path"), "etc/cron.d/own", "{kept}");
        assert_eq!(told(&kept, "refused", "reason"), "it is immutable");
        assert!(told(&kept, "refused", "hint").contains("chattr -i /etc/hosts"), "{kept}");
    }
}

#[test]
fn a_plan_in_a_file_says_how_it_is_done() {
    let host = saved("bare");
    host.write("etc/hosts", "127.0.0.1 changed\n");
    let file = host.beside("plan.json");
    let path = file.to_str().unwrap();
    let done = host.run(&["restore", "latest", "--only", "hosts", "--plan", path]).ok();
    assert!(done.err.contains(&format!("pbx-config restore --apply {path}")), "{}", done.err);
    assert!(!done.out.contains("PVE starts only if"), "{}", done.out);
    // A device, or what a link leads to, is not replaced by it.
    let link = host.beside("link");
    std::os::unix::fs::symlink("/dev/null", &link).unwrap();
    let done = host.run(&["restore", "latest", "--plan", link.to_str().unwrap()]).exits(Exit::Usage);
    assert!(done.err.contains("is not a file"), "{}", done.err);
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
}
