//! What is left alone, and what is refused before the first write.

use std::fs;

use pbx_config::model::problem::Exit;

use super::common::TestHost;
use super::{change, picture, saved, tree};

/// Of a refused row: its reason and its hint.
fn refused(plan: &serde_json::Value, item: &str) -> Vec<String> {
    let all = plan["refused"].as_array().unwrap().iter();
    all.filter(|one| one["item"] == item).map(|one| one["reason"].as_str().unwrap().to_owned()).collect()
}

fn steps(plan: &serde_json::Value) -> Vec<String> {
    plan["steps"].as_array().unwrap().iter().map(|step| step["path"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn without_quorum_the_tree_is_left_alone_and_the_rest_comes_back() {
    let host = saved("pve-single");
    change(&host);
    host.signal_daemon(nix::sys::signal::Signal::SIGUSR1);
    // The kernel remembers attributes for a while.
    let mode = || {
        std::os::unix::fs::PermissionsExt::mode(
            &fs::metadata(host.mount_point().join("local")).unwrap().permissions(),
        )
    };
    crate::common::wait_until("the write bits are gone", || mode() & 0o200 == 0);
    let plan = host.run(&["restore", "latest", "--dry-run", "--json"]).ok().json();
    assert!(refused(&plan, "pve-storage")[0].contains("no quorum"), "{plan}");
    assert!(steps(&plan).iter().all(|path| !path.starts_with("etc/pve/")));
    assert!(steps(&plan).contains(&"etc/hosts".to_owned()));
}

#[test]
fn without_the_mount_nothing_is_put_into_the_folder_below_it() {
    let host = TestHost::golden("pve-single");
    host.run(&["backup"]);
    let plan = host.run(&["restore", "latest", "--dry-run", "--json"]).ok().json();
    assert!(refused(&plan, "pve-storage")[0].contains("not mounted"), "{plan}");
    host.run(&["restore", "latest", "--yes"]);
    assert_eq!(fs::read_dir(host.root.join("etc/pve")).unwrap().count(), 0);
}

#[test]
fn on_a_member_only_what_is_its_own_or_named_comes_back() {
    let host = saved("pve-cluster");
    change(&host);
    let plan = host.run(&["restore", "latest", "--dry-run", "--json"]).ok().json();
    assert!(refused(&plan, "pve-storage")[0].contains("all nodes of the cluster share it"), "{plan}");
    assert!(
        refused(&plan, "pve-guests").iter().any(|reason| reason.contains("belongs to the node")),
        "{plan}"
    );
    for path in ["pve/corosync.conf", "corosync/authkey", "pve/pve-root-ca.pem", "pve/authkey.pub"] {
        fs::write(host.root.join("etc").join(path), "another one\n").unwrap();
    }
    let wide = host.run(&["restore", "latest", "--dry-run", "--json", "--cluster-wide"]).ok().json();
    assert!(steps(&wide).contains(&"etc/pve/storage.cfg".to_owned()), "{wide}");
    for item in ["pve-corosync", "pve-corosync-node", "pve-ca", "pve-auth-key"] {
        assert!(!refused(&wide, item).is_empty(), "{item}: {wide}");
    }
    assert!(steps(&wide).iter().all(|path| !path.contains("corosync")), "{wide}");
}

#[test]
fn a_guest_whose_id_is_taken_is_refused() {
    let host = saved("pve-single");
    let conf = host.root.join("etc/pve/nodes/pve1/qemu-server/101.conf");
    let text = fs::read(&conf).unwrap();
    fs::remove_file(&conf).unwrap();
    fs::create_dir_all(host.root.join("etc/pve/nodes/pve9/lxc")).unwrap();
    fs::write(host.root.join("etc/pve/nodes/pve9/lxc/101.conf"), text).unwrap();
    let plan = host.run(&["restore", "latest", "--dry-run", "--json"]).ok().json();
    assert_eq!(
        refused(&plan, "pve-guests"),
        ["guest 101 is here already as /etc/pve/nodes/pve9/lxc/101.conf"]
    );
}

#[test]
fn on_a_host_of_another_name_what_names_the_old_one_is_left_alone() {
    let host = saved("pbs");
    host.write("etc/hostname", "other\n");
    host.write("etc/motd", "changed\n");
    let snap = host.snapshot_file();
    let plan = host.run(&["restore", snap.to_str().unwrap(), "--dry-run", "--json"]).ok().json();
    assert_eq!(plan["differences"][0]["what"], "host name");
    assert_eq!(refused(&plan, "hostname"), ["contains the host name pbs1"]);
    let named = ["restore", snap.to_str().unwrap(), "--dry-run", "--json", "--only", "hostname"];
    assert_eq!(steps(&host.run(&named).ok().json()), ["etc/hostname"]);
}

#[test]
fn jobs_of_a_recovered_server_wait_until_they_are_asked_for() {
    let host = saved("pbs");
    fs::remove_file(host.root.join("etc/proxmox-backup/prune.cfg")).unwrap();
    let args = ["restore", "latest", "--recover", "--dry-run", "--json"];
    let plan = host.run(&args).ok().json();
    assert_eq!(refused(&plan, "pbs-prune-jobs"), ["jobs begin to run at once"]);
    let plan = host.run(&[&args[..], &["--start-jobs"]].concat()).ok().json();
    assert_eq!(steps(&plan), ["etc/proxmox-backup/prune.cfg"]);
}

#[test]
fn a_folder_that_is_a_link_here_leads_nothing_out_of_the_host() {
    let host = saved("pbs");
    let outside = host.beside("outside");
    fs::create_dir(&outside).unwrap();
    fs::remove_dir_all(host.root.join("etc/network")).unwrap();
    std::os::unix::fs::symlink(&outside, host.root.join("etc/network")).unwrap();
    let plan = host.run(&["restore", "latest", "--dry-run", "--json"]).ok().json();
    assert_eq!(refused(&plan, "network"), ["its directory /etc/network is a link here"]);
    host.run(&["restore", "latest", "--yes"]);
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
}

#[test]
fn a_lock_that_is_held_undoes_what_was_done_before_it() {
    let host = saved("pve-single");
    change(&host);
    let before = picture(&host);
    fs::create_dir_all(host.root.join("etc/pve/priv/lock/file-storage_cfg")).unwrap();
    let done = host.run(&["restore", "latest", "--yes", "--only", "cron,storage"]).exits(Exit::Locked);
    assert!(done.err.contains("something else holds the lock 'file-storage_cfg'"), "{}", done.err);
    assert!(done.err.contains("the steps that were done are undone again"), "{}", done.err);
    tree::assert_same(&picture(&host), &before);
}

#[test]
fn a_plan_in_a_file_is_done_as_it_is_or_not_at_all() {
    let host = saved("pbs");
    change(&host);
    let file = host.beside("plan.json");
    let path = file.to_str().unwrap();
    host.run(&["restore", "latest", "--only", "hosts,cron", "--plan", path]).ok();
    let text = fs::read_to_string(&file).unwrap();
    assert!(!text.contains("127.0.0.1"), "a plan holds no contents");

    fs::write(&file, text.replace("etc/hosts", "etc/shadow")).unwrap();
    let done = host.run(&["restore", "--apply", path, "--yes"]).exits(Exit::Usage);
    assert!(done.err.contains("was changed after it was written"), "{}", done.err);

    fs::write(&file, &text).unwrap();
    let hosts = fs::read(host.root.join("etc/hosts")).unwrap();
    host.write("etc/hosts", "changed since\n");
    let done = host.run(&["restore", "--apply", path, "--yes"]).exits(Exit::Failed);
    assert!(done.err.contains("changed since the plan was made: /etc/hosts"), "{}", done.err);
    assert_eq!(fs::read(host.root.join("etc/hosts")).unwrap(), b"changed since\n");

    host.write("etc/hosts", hosts);
    host.run(&["restore", "latest", "--only", "hosts,cron", "--plan", path]).ok();
    host.run(&["restore", "--apply", path, "--yes"]);
    assert!(fs::read_to_string(host.root.join("etc/hosts")).unwrap().contains("pbs1"));

    fs::write(&file, "{}").unwrap();
    host.run(&["restore", "--apply", path]).exits(Exit::Usage);
}

#[test]
fn what_was_changed_after_a_restore_is_left_unless_it_is_forced() {
    let host = saved("bare");
    change(&host);
    let before = picture(&host);
    host.run(&["restore", "latest", "--yes", "--only", "hosts,cron"]);
    host.write("etc/hosts", "mine\n");
    let done = host.run(&["undo"]).exits(Exit::Problems);
    assert!(done.out.contains("/etc/hosts: was changed after the restore"), "{}", done.out);
    assert_eq!(fs::read(host.root.join("etc/hosts")).unwrap(), b"mine\n");
    host.run(&["undo", "--force"]).ok();
    tree::assert_same(&picture(&host), &before);
}

#[test]
fn two_restores_at_once_are_one_and_a_refusal() {
    let host = saved("bare");
    change(&host);
    let lock = pbx_config::sys::process::lock::Lock::acquire(
        &pbx_config::sys::host::Host::detect(
            host.root.clone(),
            jiff::Timestamp::UNIX_EPOCH,
            Box::new(pbx_config::sys::process::exec::NoTools),
        )
        .run_dir(),
    )
    .unwrap();
    let before = picture(&host);
    host.run(&["restore", "latest", "--yes"]).exits(Exit::Locked);
    host.run(&["undo"]).exits(Exit::Locked);
    tree::assert_same(&picture(&host), &before);
    drop(lock);
}

#[test]
fn no_room_for_the_copies_is_told_before_the_first_write() {
    let host = saved("bare");
    change(&host);
    let before = picture(&host);
    let snap = host.beside("snap.pbx.tar");
    fs::copy(host.snapshot_file(), &snap).unwrap();
    let state = host.root.join("var/lib/proxmox-backup-extra");
    let mount = |words: &[&str]| crate::common::tool(words[0]).args(&words[1..]).arg(&state).status();
    assert!(mount(&["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs"]).unwrap().success());
    let done = host.run(&["restore", snap.to_str().unwrap(), "--yes"]);
    let _ = mount(&["umount"]);
    assert_eq!(done.exit, Exit::Failed, "{}", done.err);
    assert!(done.err.contains("bytes are needed there"), "{}", done.err);
    tree::assert_same(&picture(&host), &before);
}

#[test]
fn words_that_name_nothing_are_told_with_the_nearest() {
    let host = saved("bare");
    let done = host.run(&["restore", "latest", "--only", "netwrok"]).exits(Exit::Usage);
    assert!(done.err.contains("did you mean 'network'?"), "{}", done.err);
    for (word, meant) in [("ha", "'pve-ha'"), ("users", "'pve-users'"), ("tape-keys", "'pbs-tape-keys'")] {
        let done = host.run(&["restore", "latest", "--only", word]).exits(Exit::Usage);
        assert!(done.err.contains(&format!("did you mean {meant}")), "{word}: {}", done.err);
    }
    let done = host.run(&["restore", "latest", "--skip", "network", "tape"]).exits(Exit::Usage);
    assert!(done.err.contains("use --only tape"), "{}", done.err);
    let done = host.run(&["restore", "latest", "--storage", "a=a"]).exits(Exit::Usage);
    assert!(done.err.contains("both names are the same"), "{}", done.err);
    host.run(&["restore", "latest", "--probe", "pong:x"]).exits(Exit::Usage);
    host.run(&["restore", "latest", "--confirm-within", "3 minutes"]).exits(Exit::Usage);
    host.run(&["undo", "20200101T000000Z"]).exits(Exit::NotFound);
    host.run(&["confirm"]).exits(Exit::NotFound);
    host.write("etc/hosts", "x\n");
    let done = host.run(&["restore", "latest", "--only", "hosts"]).exits(Exit::Usage);
    assert!(done.err.contains("add --yes"), "{}", done.err);
}

#[test]
fn a_datastore_whose_disk_is_missing_waits_for_it() {
    let host = saved("pbs");
    let file = host.root.join("etc/proxmox-backup/datastore.cfg");
    let text = fs::read_to_string(&file).unwrap();
    let path = text.lines().find_map(|line| line.trim().strip_prefix("path /")).unwrap();
    fs::create_dir_all(host.root.join(path).join(".chunks")).unwrap();
    fs::remove_file(&file).unwrap();
    let plan = host.run(&["restore", "latest", "--dry-run", "--json", "--recover"]).ok().json();
    assert_eq!(steps(&plan), ["etc/proxmox-backup/datastore.cfg"], "{plan}");
    assert!(refused(&plan, "pbs-datastores").iter().all(|reason| reason.contains("is not mounted")));
    host.run(&["restore", "latest", "--yes", "--recover"]);
    assert!(fs::read_to_string(&file).unwrap().contains(&format!("path /{path}")));
}

#[test]
fn a_member_that_was_installed_anew_joins_first() {
    let host = saved("pve-cluster");
    let snap = host.beside("snap.pbx.tar");
    fs::copy(host.snapshot_file(), &snap).unwrap();
    fs::remove_dir_all(host.root.join("etc/corosync")).unwrap();
    host.write("etc/hosts", "new\n");
    fs::write(host.root.join("etc/pve/storage.cfg"), "dir: local\n\tpath /var/lib/vz\n").unwrap();
    let plan = host.run(&["restore", snap.to_str().unwrap(), "--dry-run", "--json"]).ok().json();
    assert!(plan["advice"][0]["text"].as_str().unwrap().contains("step 2 of 4"), "{plan}");
    assert!(steps(&plan).contains(&"etc/hosts".to_owned()));
    assert!(steps(&plan).iter().all(|path| !path.starts_with("etc/pve/")));
    assert_eq!(refused(&plan, "pve-storage"), ["a join overwrites all of the cluster file system"]);
}

/// Types into the program on a terminal of its own.
fn typed(host: &TestHost, args: &str, keys: &str) -> (Option<i32>, String) {
    use std::io::Write;
    use std::process::Stdio;
    let program = super::common::program();
    let line = format!("exec {} --root {} {args}", program.display(), host.root.display());
    let mut script = crate::common::tool("script")
        .args(["-qec", &line, "/dev/null"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    script.stdin.take().unwrap().write_all(keys.as_bytes()).unwrap();
    let done = script.wait_with_output().unwrap();
    (done.status.code(), String::from_utf8_lossy(&done.stdout).into_owned())
}

#[test]
fn without_words_it_asks_for_snapshot_and_choice_and_once_for_the_plan() {
    let host = saved("bare");
    change(&host);
    let before = picture(&host);
    let (_, said) = typed(&host, "restore", "1\n1\nno\n");
    assert!(said.contains("Which snapshot?") && said.contains("What do you want to restore?"), "{said}");
    assert!(said.contains("Do this? Type yes:") && said.contains("nothing was changed"), "{said}");
    tree::assert_same(&picture(&host), &before);
    let (_, said) = typed(&host, "restore", "1\n4\n1\nyes\n");
    assert!(said.contains("undo it with: pbx-config undo"), "{said}");
    assert!(fs::read_to_string(host.root.join("etc/hosts")).unwrap().contains("deb1"));
    // What is none of the choices is asked for again; the end of the input is no choice.
    let (code, said) = typed(&host, "restore", "77\n");
    assert!(code == Some(1) && said.contains("'77' is not a number"), "{code:?} {said}");
    let (_, said) = typed(&host, "restore", "1\ncustom\n77 identity\nidentity, scripts\n");
    assert!(said.contains("'77' is not a number") && said.contains("/etc/cron.d"), "{said}");
    let done = host.run(&["restore"]).exits(Exit::Usage);
    assert!(done.err.contains("name a snapshot"), "{}", done.err);
}
