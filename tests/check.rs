//! What `check` sees: planted faults on golden hosts, and what of a host is in no backup.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::ffi::OsStr;
use std::fs;
use std::net::TcpListener;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use common::{TestHost, program};
use pbx_config::model::problem::Exit;
use pbx_config::sys::process::exec::{Cmd, Exec, ProcessOutput, ToolStatus};
use serde_json::Value;

const ALL_HOSTS: [&str; 5] = ["pve-single", "pve-cluster", "pbs", "both", "bare"];

/// `WHY FILES PATH` of every place.
fn places(host: &TestHost) -> Vec<String> {
    let done = host.run(&["check", "--complete", "--json"]);
    let coverage = done.json();
    let place = |place: &Value| {
        let path = String::from_utf8_lossy(place["path"].as_str().unwrap().as_bytes()).into_owned();
        let by = place["by"].as_str().map(|by| format!(" by {by}")).unwrap_or_default();
        format!("{} {} {path}{by}", place["why"].as_str().unwrap(), place["files"])
    };
    let places: Vec<String> = coverage["places"].as_array().unwrap().iter().map(place).collect();
    done.exits(if places.is_empty() { Exit::Ok } else { Exit::Problems });
    places
}

#[test]
fn nothing_of_a_golden_host_is_unexplained() {
    for name in ALL_HOSTS {
        let host = TestHost::golden(name);
        assert_eq!(places(&host), Vec::<String>::new(), "{name}");
        let report = host.run(&["backup", "--json"]).json();
        assert_eq!(report["snapshot"]["counts"]["unexplained"], 0, "{name}");
    }
}

#[test]
fn what_is_in_no_backup_is_listed_with_its_reason() {
    let host = TestHost::golden("pve-single");
    // A package with a file as it came, one that was changed, one of an older version, and a link.
    host.write(
        "var/lib/dpkg/info/tool.list",
        "/.\n/etc\n/etc/tool.conf\n/etc/tool-link\n/lib/systemd/system/tool.service\n",
    );
    let status = fs::read_to_string(host.root.join("var/lib/dpkg/status")).unwrap();
    let conffiles = "Conffiles:\n /etc/same.conf b1946ac92492d2347c6235b4d2611184\n \
                     /etc/changed.conf b1946ac92492d2347c6235b4d2611184\n";
    host.write("var/lib/dpkg/status", status + "\nPackage: tool\nStatus: install ok installed\n" + conffiles);
    host.write("etc/tool.conf", "x");
    symlink("/usr/share/tool", host.root.join("etc/tool-link")).unwrap();
    host.write("etc/same.conf", "hello\n");
    host.write("etc/changed.conf", "hello, world\n");
    host.write("etc/changed.conf.dpkg-dist", "hello\n");
    // Nobody's.
    host.write("etc/app/app.conf", "x");
    host.write("etc/app/sub/more.conf", "x");
    host.write("usr/local/share/app/data", "x");
    host.write("usr/local/bin/tool", "x");
    // Named by a unit that is saved, by one that is enabled from elsewhere, and by cron.
    host.write("srv/app/run", "x");
    host.write("srv/app/env", "x");
    host.write("srv/app/never-named", "x");
    host.write(
        "etc/systemd/system/app.service",
        "[Service]\nExecStart=/srv/app/run -v\nEnvironmentFile=-/srv/app/env\n",
    );
    host.write("lib/systemd/system/own.service", "x");
    host.write("lib/systemd/system/tool.service", "x");
    let wants = host.root.join("etc/systemd/system/multi-user.target.wants");
    fs::create_dir_all(&wants).unwrap();
    symlink("/lib/systemd/system/own.service", wants.join("own.service")).unwrap();
    symlink("/lib/systemd/system/tool.service", wants.join("tool.service")).unwrap();
    host.write("opt/scripts/nightly", "x");
    host.write("etc/cron.d/nightly", "1 2 * * * root /opt/scripts/nightly >/dev/null\n");
    assert_eq!(
        places(&host),
        [
            "unknown 2 etc/app",
            "changed 1 etc/changed.conf",
            "unknown 1 usr/local/share/app/data",
            "named 1 srv/app/run by /etc/systemd/system/app.service",
            "named 1 srv/app/env by /etc/systemd/system/app.service",
            "named 1 lib/systemd/system/own.service by \
             /etc/systemd/system/multi-user.target.wants/own.service",
            "named 1 opt/scripts/nightly by /etc/cron.d/nightly",
        ]
    );
    let text = host.run(&["check", "--complete"]).exits(Exit::Problems).out;
    assert!(text.contains("named        1  /srv/app/run  (by /etc/systemd/system/app.service)"), "{text}");
    let report = host.run(&["backup"]).out;
    assert!(report.contains("missing   8 files of this host"), "{report}");

    // Each is settled by its name.
    host.configure(
        "backup: main\n\tinclude /etc/app\n\tinclude /srv/app/run\n\texclude /etc/changed.conf\n\
         \texclude /usr/local/share/app\n\texclude /srv/app/env\n\texclude /opt/scripts\n\
         \tinclude /lib/systemd/system/own.service\n",
    );
    assert_eq!(places(&host), Vec::<String>::new());
}

#[test]
fn a_hook_script_that_a_guest_names_is_asked_for_where_its_storage_is_this_hosts_own() {
    let host = TestHost::golden("pve-single");
    let pve = host.beside("pve");
    common::copy_tree(&common::golden("pve-single").join("pve"), &pve);
    let guests = pve.join("nodes/pve1/qemu-server");
    fs::create_dir_all(&guests).unwrap();
    let storages = fs::read_to_string(pve.join("storage.cfg")).unwrap();
    // The storage does not say that it holds snippets, so that no row takes its folder.
    let more = "\ndir: plain\n\tpath /srv/plain\n\tcontent images\n\nnfs: far\n\tpath /mnt/pve/far\n\tserver x\n\texport /x\n";
    fs::write(pve.join("storage.cfg"), storages + more).unwrap();
    fs::write(
        guests.join("999.conf"),
        "hookscript: plain:snippets/a.pl\ncicustom: user=far:snippets/u.yml,meta=plain:snippets/m.yml\n[old]\n\
         hookscript: plain:snippets/old.pl\n",
    )
    .unwrap();
    for name in ["a.pl", "m.yml", "old.pl"] {
        host.write(&format!("srv/plain/snippets/{name}"), "x");
    }
    host.write("mnt/pve/far/snippets/u.yml", "x");
    fs::remove_file(host.database()).unwrap();
    common::make_database(&host.database(), &pve);
    let by = "by /etc/pve/nodes/pve1/qemu-server/999.conf";
    assert_eq!(
        places(&host),
        [format!("named 1 srv/plain/snippets/a.pl {by}"), format!("named 1 srv/plain/snippets/m.yml {by}")]
    );
}

#[test]
fn a_run_for_a_part_says_nothing_of_the_rest_and_a_row_that_is_skipped_is_left_out_by_name() {
    let host = TestHost::golden("pve-single");
    let part = host.run(&["backup", "--only", "network", "--json"]).json();
    assert_eq!(part["snapshot"]["counts"].get("unexplained"), None);
    host.configure("backup: main\n\tskip network\n\tskip pve-other\n\tskip mount-secrets\n");
    assert_eq!(places(&host), Vec::<String>::new());
}

#[test]
fn a_host_without_dpkg_is_told_nothing_about_packages() {
    let host = TestHost::golden("bare");
    fs::remove_file(host.root.join("var/lib/dpkg/status")).unwrap();
    let said = host.run(&["check", "--complete"]).ok().out;
    assert!(said.contains("cannot be found"), "{said}");
    let report = host.run(&["backup", "--json"]).json();
    assert_eq!(report["snapshot"]["counts"].get("unexplained"), None);
}

const PASSWORDS: &str = "etc/proxmox-backup-extra/secrets.cfg";
const CONFIG: &str = "etc/proxmox-backup-extra/pbx-config.cfg";

/// systemd of a host whose timer runs and whose last run ended well, unless a word of its answer is replaced.
struct Systemd(&'static str, &'static str);

impl Exec for Systemd {
    fn run(&self, cmd: &Cmd) -> anyhow::Result<Option<ProcessOutput>> {
        // What no check asks for is not there.
        if cmd.argv[0] != "systemctl" {
            return Ok(None);
        }
        let asked = "systemctl show --property=Id,LoadState,ActiveState,UnitFileState,Result,ExecMainStatus,\
                     NextElapseUSecRealtime proxmox-backup-extra.timer proxmox-backup-extra.service";
        assert_eq!(cmd.argv.join(" "), asked);
        let answer = "Result=success\nId=proxmox-backup-extra.timer\nLoadState=loaded\nActiveState=active\n\
                      UnitFileState=enabled\nNextElapseUSecRealtime=Mon 2026-11-23 01:22:07 UTC\n\n\
                      Result=success\nExecMainStatus=0\nId=proxmox-backup-extra.service\nLoadState=loaded\n\
                      ActiveState=inactive\nUnitFileState=static\n";
        let stdout = answer.replace(self.0, self.1).into_bytes();
        Ok(Some(ProcessOutput { status: ToolStatus::Exit(0), stdout, ..ProcessOutput::default() }))
    }
}

fn check(host: &TestHost, args: &[&str]) -> common::Done {
    let words: Vec<&str> = ["check"].iter().chain(args).copied().collect();
    host.run_with(&words, Box::new(Systemd("", "")))
}

/// `STATE AREA WHAT` of everything to be acted on.
fn faults(done: &common::Done) -> Vec<String> {
    let value = done.json();
    let all = value["findings"].as_array().unwrap();
    let word = |finding: &Value, key: &str| finding[key].as_str().unwrap().to_owned();
    let bad = all.iter().filter(|finding| !["ok", "notice"].contains(&word(finding, "state").as_str()));
    bad.map(|finding| {
        format!("{} {} {}", word(finding, "state"), word(finding, "area"), word(finding, "what"))
    })
    .collect()
}

fn mode(host: &TestHost, path: &str) -> u32 {
    fs::metadata(host.root.join(path)).unwrap().permissions().mode() & 0o7777
}

fn set_mode(host: &TestHost, path: &str, mode: u32) {
    fs::set_permissions(host.root.join(path), fs::Permissions::from_mode(mode)).unwrap();
}

/// A node that runs, with the package's files, a configuration with a secret, and a snapshot.
fn node() -> TestHost {
    let host = TestHost::golden("pve-single");
    host.mount_fresh(&[]);
    host.write("usr/bin/pbx-config", "program");
    set_mode(&host, "usr/bin/pbx-config", 0o755);
    let sum = common::tool("md5sum").arg(host.root.join("usr/bin/pbx-config")).output().unwrap();
    let sum = String::from_utf8(sum.stdout).unwrap();
    host.write(
        "var/lib/dpkg/info/proxmox-backup-extra.md5sums",
        format!("{}  usr/bin/pbx-config\n", &sum[..32]),
    );
    host.configure("api: pve\n\ttoken pbx@pve!state\n");
    host.write(PASSWORDS, "api: pve\n\tsecret S3CRET\n");
    set_mode(&host, PASSWORDS, 0o600);
    host
}

#[test]
fn a_host_that_is_well_has_nothing_to_be_acted_on() {
    let host = node();
    let done = check(&host, &["--json"]).ok();
    assert_eq!(faults(&done), Vec::<String>::new());
    for area in
        ["configuration", "rights", "keys", "package", "timer", "stores", "space", "cluster", "coverage"]
    {
        let found = done.json()["findings"]
            .as_array()
            .unwrap()
            .iter()
            .any(|f| f["area"] == area && f["state"] == "ok");
        assert!(found, "{area}: {}", done.out);
    }
    let text = check(&host, &[]).ok().out;
    assert!(text.contains("ok       timer          proxmox-backup-extra.timer: enabled, next Mon"), "{text}");
    assert!(text.contains("notice   hooks          vzdump: not enabled"), "{text}");
    assert_eq!(check(&host, &["--quiet"]).ok().out, "");
}

#[test]
fn rights_that_are_too_wide_are_found_told_and_mended_and_nothing_else_is_touched() {
    let host = node();
    set_mode(&host, PASSWORDS, 0o644);
    set_mode(&host, CONFIG, 0o666);
    set_mode(&host, "usr/bin/pbx-config", 0o755);
    chown(host.root.join("usr/bin/pbx-config"), Some(1000), Some(1000)).unwrap();
    let done = check(&host, &["--json"]).exits(Exit::Failed);
    let found = faults(&done);
    assert_eq!(found.len(), 4, "{found:?}");
    assert!(
        found[0].starts_with("problem configuration ")
            && found[0].contains("users other than root can read it"),
        "{found:?}"
    );
    assert_eq!(found[1], "problem rights /usr/bin/pbx-config: 0755 1000:1000: belongs to user 1000");
    assert_eq!(
        found[2],
        "problem rights /etc/proxmox-backup-extra/pbx-config.cfg: 0666 0:0: users other than root can change it"
    );
    assert_eq!(
        found[3],
        "problem rights /etc/proxmox-backup-extra/secrets.cfg: 0644 0:0: users other than root can read it"
    );
    assert_eq!((mode(&host, PASSWORDS), mode(&host, CONFIG)), (0o644, 0o666), "a look changes nothing");
    // What was done is told to a quiet one, too.
    let text = check(&host, &["--fix", "--quiet"]).exits(Exit::Failed).out;
    assert!(text.contains("/etc/proxmox-backup-extra/secrets.cfg: was 0644 0:0, is 0600 0:0 now"), "{text}");
    assert_eq!(text.matches("now\n").count(), 2, "{text}");
    assert_eq!(text.matches("hint: others could read it until now").count(), 1, "{text}");
    assert_eq!((mode(&host, PASSWORDS), mode(&host, CONFIG)), (0o600, 0o644));
    // What another user made is never handed to root.
    assert!(
        text.contains("hint: check what its owner put there; then `chown root: /usr/bin/pbx-config`"),
        "{text}"
    );
    let owner = fs::metadata(host.root.join("usr/bin/pbx-config")).unwrap();
    assert_eq!((owner.uid(), owner.gid(), owner.permissions().mode() & 0o7777), (1000, 1000, 0o755));
    chown(host.root.join("usr/bin/pbx-config"), Some(0), Some(0)).unwrap();
    check(&host, &[]).ok();
}

/// A fault of a store: what is done to its folder `srv/a/store`, and what is said of it.
type StoreFault = (&'static str, fn(&Path), &'static str);

#[test]
fn a_store_that_another_user_can_write_is_a_problem_and_mending_gives_him_nothing() {
    fn with_mode(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }
    let host = node();
    host.configure("dir: a\n\tpath /srv/a/store\n");
    fs::remove_file(host.root.join(PASSWORDS)).unwrap();
    host.run(&["backup", "--quiet"]);
    let store = host.root.join("srv/a/store");
    let faults_of: [StoreFault; 8] = [
        ("/srv/a/store", |store| with_mode(store, 0o757), "users other than root can change it"),
        ("/srv/a/store", |store| with_mode(store, 0o1777), "users other than root can change it"),
        (
            "/srv/a/store/pve1",
            |store| with_mode(&store.join("pve1"), 0o777),
            "users other than root can change it",
        ),
        ("/srv/a/store", |store| chown(store, Some(1000), None).unwrap(), "belongs to user 1000"),
        (
            "/srv/a/store/pve1",
            |store| chown(store.join("pve1"), Some(1000), None).unwrap(),
            "belongs to user 1000",
        ),
        (
            ".pbx.tar",
            |store| chown(&common::snapshot_files(store)[0], Some(1000), None).unwrap(),
            "belongs to user 1000",
        ),
        ("/srv/a", |store| with_mode(store.parent().unwrap(), 0o777), "in the place of /srv/a/store"),
        ("/srv/a", |store| chown(store.parent().unwrap(), Some(1000), None).unwrap(), "in the place of"),
    ];
    for (path, spoil, what) in faults_of {
        let all = [store.parent().unwrap().to_owned(), store.clone(), store.join("pve1")];
        all.iter().for_each(|path| chown(path, Some(0), Some(0)).unwrap());
        let file = &common::snapshot_files(&store)[0];
        chown(file, Some(0), Some(0)).unwrap();
        all.iter().for_each(|path| with_mode(path, 0o755));
        check(&host, &[]).ok();
        spoil(&store);
        let done = check(&host, &["--json"]).exits(Exit::Failed);
        let found = faults(&done);
        assert!(found.len() == 1 && found[0].contains(path) && found[0].contains(what), "{path}: {found:?}");
        assert!(done.out.contains("chown root:") || done.out.contains("check --fix"), "{}", done.out);
        let owners = || {
            let of = |path: &Path| fs::metadata(path).unwrap().uid();
            all.iter().map(|path| of(path)).chain([of(file)]).collect::<Vec<_>>()
        };
        let before = owners();
        check(&host, &["--fix"]);
        assert_eq!(owners(), before, "{path}");
    }
}

#[test]
fn mending_follows_no_link_and_changes_no_second_name() {
    let host = node();
    let outside = host.beside("outside");
    fs::write(&outside, "").unwrap();
    fs::set_permissions(&outside, fs::Permissions::from_mode(0o666)).unwrap();
    symlink(&outside, host.root.join("etc/proxmox-backup-extra/link.key")).unwrap();
    let no_text = host.root.join("etc/proxmox-backup-extra").join(OsStr::from_bytes(b"x\xff.cfg"));
    fs::write(&no_text, "").unwrap();
    fs::set_permissions(&no_text, fs::Permissions::from_mode(0o666)).unwrap();
    assert!(check(&host, &["--json"]).exits(Exit::Failed).json()["findings"].is_array());
    host.write("etc/other", "");
    set_mode(&host, "etc/other", 0o644);
    fs::hard_link(host.root.join("etc/other"), host.root.join("etc/proxmox-backup-extra/second.key"))
        .unwrap();
    let text = check(&host, &["--fix"]).exits(Exit::Failed).out;
    assert!(text.contains("second.key could not be repaired: has other names (hard links)"), "{text}");
    assert!(text.contains("link.key: its path contains a link"), "{text}");
    assert_eq!(mode(&host, "etc/other"), 0o644);
    assert_eq!(fs::metadata(&no_text).unwrap().permissions().mode() & 0o7777, 0o644);
    assert_eq!(fs::metadata(&outside).unwrap().permissions().mode() & 0o7777, 0o666);
}

#[test]
fn snapshots_that_others_may_read_are_found_where_their_folder_is_open() {
    let host = node();
    host.configure("dir: open\n\tpath /srv/open\n");
    fs::remove_file(host.root.join(PASSWORDS)).unwrap();
    host.run(&["backup", "--quiet"]);
    set_mode(&host, "srv/open", 0o755);
    set_mode(&host, "srv/open/pve1", 0o755);
    check(&host, &[]).ok();
    let file = common::snapshot_files(&host.root.join("srv/open")).remove(0);
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    let found = faults(&check(&host, &["--json"]).exits(Exit::Failed));
    assert!(
        found.len() == 1 && found[0].contains(".pbx.tar: 0644 0:0: users other than root can read it"),
        "{found:?}"
    );
    check(&host, &["--fix"]).ok();
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o7777, 0o600);
}

#[test]
fn a_private_identity_on_the_host_is_a_problem_and_a_word_about_one_is_not() {
    let host = node();
    let letters = "QQPZRY9X8GF2TVDW0S3JN54KHCE6MUA7LQQPZRY9X8GF2TVDW0S3JN54KHCE";
    host.write("root/notes.txt", "an identity begins with AGE-SECRET-KEY-1 and is kept elsewhere\n");
    check(&host, &[]).ok();
    host.write("root/.config/sops/age/keys.txt", format!("# created\nAGE-SECRET-KEY-1{letters}\n"));
    host.write("etc/proxmox-backup-extra/identity.txt", format!("AGE-SECRET-KEY-PQ-1{letters}\n"));
    let done = check(&host, &["--json"]).exits(Exit::Failed);
    let found = faults(&done);
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(
        found[0].contains("/etc/proxmox-backup-extra/identity.txt: contains a private age identity"),
        "{found:?}"
    );
    assert!(found[1].contains("/root/.config/sops/age/keys.txt: contains"), "{found:?}");
    assert!(!done.out.contains(letters));
}

#[test]
fn a_file_that_is_not_as_the_package_brought_it_is_a_problem() {
    let host = node();
    host.write("usr/bin/pbx-config", "another program");
    set_mode(&host, "usr/bin/pbx-config", 0o755);
    let found = faults(&check(&host, &["--json"]).exits(Exit::Failed));
    assert_eq!(found, ["problem package /usr/bin/pbx-config: is not as it was installed by the package"]);
}

#[test]
fn a_timer_that_is_off_and_a_run_that_failed_are_problems() {
    let host = node();
    for (from, to, what) in [
        ("UnitFileState=enabled", "UnitFileState=disabled", "is disabled and active"),
        ("ActiveState=active", "ActiveState=inactive", "is enabled and inactive"),
        (
            "LoadState=loaded\nActiveState=active",
            "LoadState=not-found\nActiveState=inactive",
            "not known to systemd",
        ),
        (
            "Result=success\nExecMainStatus=0",
            "Result=timeout\nExecMainStatus=15",
            "last run failed: timeout, status 15",
        ),
    ] {
        let done = host.run_with(&["check", "--json"], Box::new(Systemd(from, to))).exits(Exit::Failed);
        let found = faults(&done);
        assert!(found.len() == 1 && found[0].contains(what), "{found:?}");
    }
}

#[test]
fn a_hook_that_is_gone_or_bypassed_is_told() {
    let host = node();
    host.write("etc/vzdump.conf", "script: /usr/share/proxmox-backup-extra/hooks/vzdump-hook\n");
    let found = faults(&check(&host, &["--json"]).exits(Exit::Failed));
    assert!(
        found.len() == 1 && found[0].contains("vzdump-hook is not there: vzdump fails every job"),
        "{found:?}"
    );
    host.write("usr/share/proxmox-backup-extra/hooks/vzdump-hook", "#!/bin/sh\n");
    set_mode(&host, "usr/share/proxmox-backup-extra/hooks/vzdump-hook", 0o755);
    check(&host, &[]).ok();
    fs::write(host.root.join("etc/pve/jobs.cfg"), "vzdump: night\n\tschedule daily\n\tscript /root/own\n")
        .unwrap();
    let found = faults(&check(&host, &["--json"]).exits(Exit::Problems));
    assert_eq!(found, ["warning hooks vzdump: job night runs /root/own instead of the hook"]);
}

#[test]
fn a_cluster_file_system_that_does_not_live_is_a_problem() {
    let host = node();
    host.signal_daemon(nix::sys::signal::Signal::SIGUSR1);
    let found = faults(&check(&host, &["--json"]).exits(Exit::Problems));
    assert_eq!(found, ["warning cluster the cluster has no quorum: /etc/pve is read-only"]);
    host.signal_daemon(nix::sys::signal::Signal::SIGSTOP);
    let found = faults(&check(&host, &["--json"]).exits(Exit::Failed));
    assert!(
        found.contains(&"problem cluster the cluster file system /etc/pve does not answer".to_owned()),
        "{found:?}"
    );
    host.signal_daemon(nix::sys::signal::Signal::SIGKILL);
    let found = faults(&check(&host, &["--json"]).exits(Exit::Failed));
    assert!(
        found.contains(
            &"problem cluster the cluster file system /etc/pve is mounted, but pmxcfs is dead".to_owned()
        ),
        "{found:?}"
    );
}

#[test]
fn a_store_without_room_or_without_its_disk_is_a_problem() {
    let host = node();
    fs::remove_file(host.root.join(PASSWORDS)).unwrap();
    host.configure("dir: local\n\tpath /srv/local\ndir: small\n\tpath /srv/small\ndir: stick\n\tpath /srv/stick\n\tmountpoint yes\n");
    let small = host.root.join("srv/small");
    fs::create_dir_all(&small).unwrap();
    let mount = |options: &str| {
        let done =
            common::tool("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(&small).status().unwrap();
        assert!(done.success());
    };
    mount("size=4m,mode=700");
    let bytes = faults(&check(&host, &["--json"]).exits(Exit::Failed));
    common::tool("umount").arg(&small).status().unwrap();
    mount("size=64m,mode=700,nr_inodes=20");
    let inodes = faults(&check(&host, &["--json"]).exits(Exit::Failed));
    common::tool("umount").arg(&small).status().unwrap();
    assert_eq!(bytes.len(), 2, "{bytes:?}");
    assert!(bytes[0].starts_with("problem stores store 'stick': nothing is mounted on "), "{bytes:?}");
    assert!(bytes[1].contains("/srv/small: 4 MiB are free, the next snapshot may need 16"), "{bytes:?}");
    assert!(inodes[1].contains("more files can be created there"), "{inodes:?}");
}

#[test]
fn what_a_preflight_finds_stands_in_the_report_stops_the_run_or_is_not_looked_for() {
    let host = TestHost::golden("pbs");
    host.configure("backup: main\n");
    set_mode(&host, CONFIG, 0o646);
    let report = host.run(&["backup", "--json"]).exits(Exit::Problems).json();
    let problems = report["problems"].to_string();
    assert!(problems.contains("pbx-config.cfg: 0646 0:0: users other than root can change it"), "{problems}");
    host.configure("backup: main\n\tpreflight off\n");
    set_mode(&host, CONFIG, 0o646);
    host.run(&["backup", "--json"]).ok();
    host.configure("backup: main\n\tpreflight stop\n");
    set_mode(&host, CONFIG, 0o646);
    let before = common::snapshot_files(&host.root.join("var/lib/proxmox-backup-extra/store")).len();
    let done = host.run(&["backup"]).exits(Exit::Failed);
    assert!(
        done.err.contains("no backup until this is fixed: /etc/proxmox-backup-extra/pbx-config.cfg"),
        "{}",
        done.err
    );
    assert!(
        done.err.contains("hint: `pbx-config check --fix` sets it to 0644 0:0; with `preflight warn`"),
        "{}",
        done.err
    );
    assert_eq!(common::snapshot_files(&host.root.join("var/lib/proxmox-backup-extra/store")).len(), before);
    check(&host, &["--fix"]);
    host.run(&["backup", "--json"]).ok();
    host.configure("backup: main\n\tpreflight later\n");
    let done = host.run(&["backup"]).exits(Exit::Usage);
    assert!(done.err.contains("pbx-config.cfg:2: ") && done.err.contains("preflight"), "{}", done.err);
}

/// A process that ends with the test.
struct Running(Child);

impl Running {
    /// `sleep` under another name and with other words of itself.
    fn start(program: &Path, title: &str, mode: u32) -> Self {
        fs::copy("/bin/sleep", program).unwrap();
        fs::set_permissions(program, fs::Permissions::from_mode(mode)).unwrap();
        Self(Command::new(program).arg0(title).arg("300").spawn().unwrap())
    }

    /// As a finding names it.
    fn shown(&self) -> String {
        format!("(pid {})", self.0.id())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The machine's /proc below the root of a test's host, as long as the test lasts.
struct Proc(PathBuf);

impl Proc {
    fn bind(host: &TestHost) -> Self {
        let place = host.root.join("proc");
        fs::create_dir_all(&place).unwrap();
        assert!(common::tool("mount").args(["--bind", "/proc"]).arg(&place).status().unwrap().success());
        Self(place)
    }
}

impl Drop for Proc {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn programs_that_should_not_run_and_open_ports_are_found_for_real_and_can_be_allowed() {
    let host = TestHost::golden("bare");
    let _proc = Proc::bind(&host);
    let bin = host.beside("bin");
    fs::create_dir(&bin).unwrap();
    let wide = Running::start(&bin.join("wide"), "wide", 0o757);
    // A name that is no text hides nothing.
    let name = bin.join(OsStr::from_bytes(b"gone\xff"));
    let gone = Running::start(&name, "gone", 0o755);
    fs::remove_file(&name).unwrap();
    let fake = Running::start(&bin.join("fake"), "[kworker/7:1]", 0o755);
    let miner = Running::start(&bin.join("xmrig"), "harmless", 0o755);
    let listener = TcpListener::bind("0.0.0.0:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let loopback = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    // In a process of its own: the one that looks is not looked at.
    let look = || {
        let words = ["--root", host.root.to_str().unwrap(), "check", "--network", "--json"];
        let done = Command::new(program()).args(words).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        faults(&common::Done { exit: Exit::Failed, out: text(done.stdout), err: text(done.stderr) })
    };
    let found = look();
    let says = |what: &str, of: &str| found.iter().any(|line| line.contains(of) && line.contains(what));
    assert!(says("which every user can change", &wide.shown()), "{found:#?}");
    assert!(says("which was deleted", &gone.shown()), "{found:#?}");
    assert!(says("calls itself [kworker/7:1]", &fake.shown()), "{found:#?}");
    assert!(says("a program that should not run here ('xmrig')", &miner.shown()), "{found:#?}");
    assert!(says("is open on 0.0.0.0 by check-", &format!("tcp/{port} ")), "{found:#?}");
    assert!(!found.iter().any(|line| line.contains(&format!("tcp/{loopback} "))), "{found:#?}");
    // A thread of the kernel that really is one.
    assert!(!found.iter().any(|line| line.contains("kthreadd")), "{found:#?}");

    host.configure(&format!(
        "check: main\n\tport-allow {port}\n\tprocess-allow wide\n\tprocess-allow go*\n\tprocess-allow [kworker/7:1]\n\
         \tprocess-allow xmrig\n\tprocess-suspicious sleepy\n"
    ));
    let sleepy = Running::start(&bin.join("sleepy"), "sleepy", 0o755);
    let found = look();
    for allowed in [&wide, &gone, &miner] {
        assert!(!found.iter().any(|line| line.contains(&allowed.shown())), "{found:#?}");
    }
    assert!(!found.iter().any(|line| line.contains(&format!("tcp/{port} "))), "{found:#?}");
    assert!(
        found.iter().any(|line| line.contains(&sleepy.shown()) && line.contains("('sleepy')")),
        "{found:#?}"
    );
}

/// `check --network` of the machine itself, in a network of its own that a script has made.
fn in_own_network(script: &str) -> Vec<Value> {
    let script = format!("{script}; exec {} check --network --json", program().display());
    let done = common::tool("unshare").args(["-n", "sh", "-c", &script]).output().unwrap();
    let value: Value = serde_json::from_slice(&done.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&done.stderr)));
    let area = |finding: &&Value| ["sockets", "firewall"].contains(&finding["area"].as_str().unwrap());
    value["findings"].as_array().unwrap().iter().filter(area).cloned().collect()
}

#[test]
fn a_packet_filter_is_seen_where_it_acts_and_missed_where_it_does_not() {
    let found = in_own_network("true");
    assert_eq!(found.len(), 2, "{found:#?}");
    assert_eq!((&found[0]["area"], &found[0]["state"]), (&"sockets".into(), &"ok".into()), "{found:#?}");
    assert_eq!(found[1]["what"], "incoming traffic is not filtered", "{found:#?}");
    // A chain without a rule that lets all through, and one of what is sent on, filter nothing that comes in.
    let idle = "nft add table inet t; nft add chain inet t in '{ type filter hook input priority 0; }'; \
                nft add chain inet t on '{ type filter hook forward priority 0; policy drop; }'";
    assert_eq!(in_own_network(idle)[1]["what"], "incoming traffic is not filtered");
    let found = in_own_network(&format!("{idle}; nft add rule inet t in tcp dport 22 accept"));
    assert_eq!(found[1]["what"], "incoming traffic is filtered: nftables inet t in (1 rules)", "{found:#?}");
}

#[test]
fn a_system_that_does_not_run_shows_nothing_to_the_network() {
    let host = TestHost::golden("bare");
    let done = check(&host, &["--network"]);
    assert!(done.out.contains("there is no /proc here"), "{}", done.out);
}

#[test]
fn what_a_check_allows_is_read_with_its_line() {
    let host = TestHost::golden("bare");
    for (text, what) in [
        ("check: other\n", "there is only 'check: main'"),
        ("check: main\n\tport-allow http\n", "pbx-config.cfg:2: check 'main': port-allow: "),
        ("check: main\n\tport-allow nginx:99999\n", "pbx-config.cfg:2: "),
        ("check: main\n\tports-allow 1\n", "did you mean 'port-allow'"),
    ] {
        host.configure(text);
        let done = check(&host, &[]).exits(Exit::Failed);
        assert!(done.out.contains(what), "{}", done.out);
    }
}

#[test]
fn what_seals_and_who_is_told_stands_among_the_findings() {
    let host = node();
    fs::remove_file(host.root.join(PASSWORDS)).unwrap();
    host.configure("backup: main\n\tseal yes\n");
    let found = faults(&check(&host, &["--json"]).exits(Exit::Failed));
    assert!(
        found.len() == 1
            && found[0].starts_with("problem keys encryption is on, but there is not a recipient"),
        "{found:?}"
    );
    let made = common::tool("age-keygen").output().unwrap();
    let made = String::from_utf8(made.stdout).unwrap();
    let recipient = made.lines().find_map(|line| line.strip_prefix("# public key: ")).unwrap();
    host.configure(&format!(
        "backup: main\n\trecipient {recipient}\nsendmail: root\n\tto root@example.org\n"
    ));
    let done = check(&host, &["--json"]).exits(Exit::Problems);
    let found = faults(&done);
    assert!(found.len() == 1 && found[0].contains("was never checked"), "{found:?}");
    assert!(
        done.out.contains("snapshots are encrypted to 1 recipient\"") && done.out.contains("sendmail 'root'"),
        "{}",
        done.out
    );
    host.configure("gotify: phone\n\tserver http://192.0.2.1\n");
    let found = faults(&check(&host, &["--json"]).exits(Exit::Failed));
    assert!(found.len() == 1 && found[0].contains("gotify 'phone'"), "{found:?}");
}

#[test]
fn one_mistake_in_the_configuration_does_not_hide_the_others_and_each_says_what_to_do() {
    let host = node();
    fs::remove_file(host.root.join(PASSWORDS)).unwrap();
    host.configure(
        "backup: main\n\tcompression lzma 3\ngotify: phone\n\turl https://example.org\nprometheus: node\n\tpath /srv/metrics\n\
         dir: nas\n\tpath /srv/nas\n\tmountpoint yes\nrclone: far\n\tremote /x\n",
    );
    let done = check(&host, &["--json", "--network"]).exits(Exit::Failed);
    let found = faults(&done);
    for part in [
        "problem configuration ",
        "pbx-config.cfg:3: gotify 'phone': 'token' is missing",
        "warning channels prometheus 'node': ",
        "problem stores store 'nas': nothing is mounted on ",
    ] {
        assert!(found.iter().any(|one| one.contains(part)), "{part}: {found:?}");
    }
    let value = done.json();
    for finding in value["findings"].as_array().unwrap() {
        let is_fault = ["warning", "problem"].contains(&finding["state"].as_str().unwrap());
        assert!(!is_fault || finding["hint"].is_string(), "{finding}");
    }
    assert!(!done.out.contains("valid: "), "{}", done.out);
    fs::create_dir_all(host.root.join("srv/metrics")).unwrap();
    host.configure("prometheus: node\n\tpath /srv/metrics\n");
    let done = check(&host, &["--json"]).ok();
    assert!(done.out.contains("prometheus 'node': "), "{}", done.out);
    assert!(done.out.contains("no notification is sent when a backup fails"), "{}", done.out);
}

#[test]
fn the_predecessor_that_still_runs_is_told_with_what_retires_it() {
    let host = TestHost::golden("pve-single");
    host.write(
        "etc/cron.d/old",
        "# /usr/local/bin/proxsave\n0 2 * * * root /usr/local/bin/proxsave --quiet\n",
    );
    let done = check(&host, &["--json"]);
    let value = done.json();
    let all = value["findings"].as_array().unwrap();
    let old: Vec<&Value> = all.iter().filter(|finding| finding["area"] == "predecessor").collect();
    assert_eq!(old.len(), 1, "{}", done.out);
    assert_eq!(old[0]["state"], "notice");
    assert!(old[0]["what"].as_str().unwrap().contains("/etc/cron.d/old:2: "), "{}", old[0]);
    assert!(old[0]["hint"].as_str().unwrap().contains("sed -i"), "{}", old[0]);
}
