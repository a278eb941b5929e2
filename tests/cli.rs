//! What a person meets: configuration and its mistakes, words for snapshots, exit codes, JSON, the lock.
#![allow(clippy::unwrap_used, clippy::panic, clippy::format_collect)]

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use common::{TestHost, program, snapshot_files};
use pbx_config::model::problem::Exit;

fn tiny() -> TestHost {
    let host = TestHost::empty();
    host.write("etc/fstab", "# nothing\n");
    host
}

#[track_caller]
fn refused(host: &TestHost, args: &[&str], exit: Exit, error: &str, hint: &str) {
    let done = host.run(args).exits(exit);
    let root = host.root.display().to_string();
    let err = done.err.replace(&root, "");
    assert_eq!(err, format!("error: {error}\nhint: {hint}\n"), "{}", done.out);
    assert_eq!(done.out, "");
}

// ---- the main job

#[test]
fn a_backup_is_listed_shown_verified_and_read() {
    let host = tiny();
    let done = host.run(&["backup", "--note", "first"]).ok();
    assert!(done.out.contains("snapshot  tiny/2026-11-22T15:17:40Z\n"), "{}", done.out);
    assert!(done.out.ends_with("result    ok\n"), "{}", done.out);
    let listing = host.run(&["list", "--json"]).ok().json();
    assert_eq!(listing["snapshots"][0]["id"], "tiny/2026-11-22T15:17:40Z");
    assert_eq!(listing["snapshots"][0]["snapshot"]["note"], "first");
    assert!(host.run(&["show", "latest"]).ok().out.contains("fstab"));
    assert_eq!(host.run(&["cat", "latest", "/etc/fstab"]).ok().out, "# nothing\n");
    assert!(host.run(&["verify"]).ok().out.starts_with("ok "));
}

#[test]
fn a_snapshot_is_readable_by_its_owner_only() {
    let host = tiny();
    host.run(&["backup"]).ok();
    let file = host.snapshot_file();
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::metadata(file.parent().unwrap()).unwrap().permissions().mode() & 0o777, 0o700);
}

#[test]
fn nothing_stays_in_the_work_folder() {
    let host = tiny();
    host.run(&["backup"]).ok();
    assert!(!host.root.join("var/lib/proxmox-backup-extra/work").exists());
}

#[test]
fn two_snapshots_of_one_second_get_two_names_and_are_chained() {
    let host = tiny();
    host.run(&["backup"]).ok();
    let report = host.run(&["backup", "--json"]).ok().json();
    assert_eq!(report["snapshot"]["id"], "tiny/2026-11-22T15:17:41Z");
    assert_eq!(report["snapshot"]["parent"]["id"], "tiny/2026-11-22T15:17:40Z");
    let first = &snapshot_files(&host.root.join("var/lib/proxmox-backup-extra/store"))[0];
    // MANIFEST.json as plain tar gives it
    let manifest = common::tool("tar").arg("-xOf").arg(first).arg("MANIFEST.json").output().unwrap().stdout;
    let sum = {
        let file = host.beside("manifest");
        fs::write(&file, manifest).unwrap();
        String::from_utf8(common::tool("sha256sum").arg(file).output().unwrap().stdout).unwrap()
    };
    assert_eq!(report["snapshot"]["parent"]["sha256"], sum.split(' ').next().unwrap());
}

#[test]
fn a_dry_run_writes_nothing() {
    let host = tiny();
    let plan = host.run(&["backup", "--dry-run", "--json"]).ok().json();
    assert!(plan["items"].as_array().unwrap().iter().any(|row| row["item"] == "fstab" && row["files"] == 1));
    assert!(!host.root.join("var").exists());
}

#[test]
fn only_and_skip_choose_rows() {
    let host = tiny();
    host.run(&["backup", "--only", "storage,hostname", "--skip", "hostname"]).ok();
    let shown = host.run(&["show", "latest", "--files"]).ok().out;
    assert!(shown.contains("etc/fstab") && !shown.contains("etc/hostname"), "{shown}");
}

#[test]
fn include_and_exclude_are_honoured() {
    let host = tiny();
    for file in ["srv/a/keep", "srv/a/drop.tmp", "home/bob/x"] {
        host.write(file, file);
    }
    host.configure("backup: main\n\tinclude /srv/a\n\tinclude /home/bob\n\texclude /srv/**/*.tmp\n");
    host.run(&["backup"]).ok();
    let shown = host.run(&["show", "latest", "--files"]).ok().out;
    assert!(
        shown.contains("srv/a/keep") && shown.contains("home/bob/x") && !shown.contains("drop.tmp"),
        "{shown}"
    );
}

#[test]
fn a_store_inside_an_included_folder_is_not_saved_into_itself() {
    let mut host = tiny();
    host.configure("backup: main\n\tinclude /srv\n\ndir: here\n\tpath /srv/store\n");
    host.write("srv/x", "x");
    host.run(&["backup"]).ok();
    host.now = "2026-11-23T00:00:00Z".into();
    host.run(&["backup"]).ok();
    let shown = host.run(&["show", "latest", "--files"]).ok().out;
    assert!(shown.contains("srv/x") && !shown.contains("srv/store"), "{shown}");
}

#[test]
fn special_files_are_named_and_not_read() {
    let host = tiny();
    host.write("etc/ssh/sshd_config", "x");
    nix::unistd::mkfifo(&host.root.join("etc/ssh/pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(host.root.join("etc/ssh/socket")).unwrap();
    let report = host.run(&["backup", "--json"]).ok().json();
    let problems: Vec<_> =
        report["problems"].as_array().unwrap().iter().map(|p| p["what"].as_str().unwrap()).collect();
    assert!(problems.contains(&"/etc/ssh/pipe: is a FIFO, not saved"), "{problems:?}");
    assert!(problems.contains(&"/etc/ssh/socket: is a socket, not saved"), "{problems:?}");
}

#[test]
fn a_link_where_a_row_expects_a_folder_is_no_silent_gap() {
    let host = tiny();
    host.write("data/ssh/sshd_config", "x");
    std::os::unix::fs::symlink("/data/ssh", host.root.join("etc/ssh")).unwrap();
    std::os::unix::fs::symlink("../usr/share/zoneinfo/UTC", host.root.join("etc/localtime")).unwrap();
    host.write("usr/share/zoneinfo/UTC", "x");
    let report = host.run(&["backup", "--json"]).exits(Exit::Problems).json();
    let problems = report["problems"].to_string();
    assert!(problems.contains("/etc/ssh: is a link; its target, /data/ssh, is not saved"), "{problems}");
    assert!(!problems.contains("localtime"), "{problems}");
    host.configure("backup: main\n\tinclude /data/ssh\n");
    host.run(&["backup"]).ok();
}

#[test]
fn a_huge_file_is_named_and_taken_only_when_it_is_asked_for() {
    let host = tiny();
    host.write("usr/local/bin/tool", "x");
    let huge = fs::File::create(host.root.join("usr/local/bin/huge")).unwrap();
    huge.set_len(50 << 30).unwrap();
    let report = host.run(&["backup", "--json"]).exits(Exit::Problems).json();
    assert!(
        report["problems"].to_string().contains("/usr/local/bin/huge: is larger than 512 MiB, not saved")
    );
    assert!(host.run(&["show", "latest", "--files"]).ok().out.contains("usr/local/bin/tool"));
    huge.set_len(600 << 20).unwrap();
    host.configure("backup: main\n\tinclude /usr/local/bin/huge\n");
    host.run(&["backup"]).ok();
    assert!(host.run(&["show", "latest", "--files"]).ok().out.contains("usr/local/bin/huge"));
}

#[test]
fn a_mount_that_may_hang_is_named_and_not_entered() {
    // No PVE node: for this host it is just a FUSE mount, and whoever looks into it hangs.
    let host = tiny();
    host.mount(&[]);
    host.write("srv/x", "x");
    host.configure("backup: main\n\tinclude /etc/pve\n\tinclude /srv\n");
    host.signal_daemon(nix::sys::signal::Signal::SIGSTOP);
    let report = host.run(&["backup", "--json"]).exits(Exit::Problems).json();
    assert!(report["problems"].to_string().contains("/etc/pve: is a mount of type fuse, not entered"));
    assert!(host.run(&["show", "latest", "--files"]).ok().out.contains("srv/x"));
}

#[test]
fn a_second_store_that_fails_leaves_the_first_one_alone() {
    let host = tiny();
    host.write("srv/file", "not a directory");
    host.configure("dir: one\n\tpath /srv/one\n\ndir: two\n\tpath /srv/file/two\n");
    let report = host.run(&["backup", "--json"]).exits(Exit::Problems).json();
    assert_eq!(report["stores"][0]["store"], "one");
    assert!(report["stores"][0]["place"].is_string());
    assert!(report["stores"][1]["place"].is_null());
    let problems = report["problems"].as_array().unwrap();
    assert_eq!(problems.iter().filter(|problem| problem["severity"] == "error").count(), 1);
}

#[test]
fn a_primary_store_that_fails_fails_the_run_and_leaves_nothing() {
    let host = tiny();
    host.write("srv/file", "not a directory");
    host.configure("dir: one\n\tpath /srv/file/one\n");
    let done = host.run(&["backup"]).exits(Exit::Failed);
    assert!(done.err.starts_with("error: store 'one': cannot "), "{}", done.err);
    assert!(!host.root.join("var/lib/proxmox-backup-extra/work").exists());
}

#[test]
fn a_folder_named_on_the_command_line_is_a_store() {
    let host = tiny();
    let folder = host.beside("stick");
    let folder = folder.to_str().unwrap();
    host.run(&["backup", "--store", folder]).ok();
    assert!(host.run(&["list", folder]).ok().out.contains("tiny/2026-11-22T15:17:40Z"));
    let file = &snapshot_files(folder.as_ref())[0];
    host.run(&["verify", file.to_str().unwrap()]).ok();
    let done = host.run(&["show", file.to_str().unwrap(), "--store", folder]).exits(Exit::Usage);
    assert!(done.err.contains("is a file and cannot be used with --store"), "{}", done.err);
    // A bare folder of files, as on a stick, too.
    host.run(&["list", file.parent().unwrap().to_str().unwrap()]).ok();
}

// ---- another system's root

#[test]
fn a_root_without_a_system_is_refused() {
    let host = TestHost::empty();
    fs::remove_file(host.root.join("etc/hostname")).unwrap();
    let done = host.run(&["backup"]).exits(Exit::Usage);
    assert!(
        done.err.ends_with("no product, no os-release, no host name\nhint: is it mounted?\n"),
        "{}",
        done.err
    );
}

#[test]
fn links_of_another_system_lead_nothing_of_ours_onto_this_one() {
    let host = tiny();
    let outside = host.beside("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("tiny_20260101T000000Z.pbx.tar"), "mine").unwrap();
    let own = host.root.join("var/lib/proxmox-backup-extra");
    fs::create_dir_all(&own).unwrap();
    fs::set_permissions(&own, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    std::os::unix::fs::symlink(&outside, host.root.join("var/lib/proxmox-backup-extra/work")).unwrap();
    host.run(&["backup", "--store", host.beside("stick").to_str().unwrap()]).ok();
    std::os::unix::fs::symlink(&outside, host.root.join("var/lib/proxmox-backup-extra/store")).unwrap();
    let done = host.run(&["backup"]).exits(Exit::Usage);
    assert!(done.err.contains("store 'local': ") && done.err.contains(" is outside of "), "{}", done.err);
    let rest: Vec<_> = fs::read_dir(&outside).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(rest, ["tiny_20260101T000000Z.pbx.tar"]);
}

#[test]
fn one_root_has_one_lock_however_it_is_spelt() {
    let host = tiny();
    let real = pbx_config::sys::host::Host::detect(
        fs::canonicalize(&host.root).unwrap(),
        jiff::Timestamp::now(),
        Box::new(pbx_config::sys::process::exec::NoTools),
    );
    let _lock = pbx_config::sys::process::lock::Lock::acquire(&real.run_dir()).unwrap();
    let spelt = format!("{}/../root/", host.root.display());
    let status = Command::new(program()).args(["--root", &spelt, "backup"]).output().unwrap();
    assert_eq!(status.status.code(), Some(11), "{}", String::from_utf8_lossy(&status.stderr));
}

#[test]
fn a_selection_that_finds_nothing_is_no_backup_and_a_part_says_so() {
    let host = tiny();
    refused(
        &host,
        &["backup", "--only", "tape"],
        Exit::Usage,
        "nothing on this host is selected; there is nothing to save",
        "`pbx-config catalog` shows what each item finds here",
    );
    host.run(&["backup", "--only", "storage"]).ok();
    assert!(host.run(&["list"]).ok().out.contains("[partial]"));
}

#[test]
fn a_clock_that_jumped_back_is_told() {
    let mut host = tiny();
    host.run(&["backup"]).ok();
    host.now = "1970-01-01T00:00:05Z".into();
    let report = host.run(&["backup", "--json"]).exits(Exit::Problems).json();
    // It is the latest all the same.
    assert_eq!(report["snapshot"]["id"], "tiny/2026-11-22T15:17:41Z");
    assert!(report["problems"].to_string().contains("the newest snapshot is tiny/2026-11-22T15:17:40Z"));
}

#[test]
fn credentials_and_snippets_are_found_where_they_are_named() {
    let host = TestHost::golden("pve-single");
    host.write("etc/fstab", b"# caf\xe9\n//nas/x /mnt/x cifs credentials=/root/../root/my\\040cred 0 0\n");
    host.write("root/my cred", "password=x");
    host.run(&["backup"]);
    let shown = host.run(&["show", "latest", "--files"]).ok().out;
    assert!(shown.contains("root/my cred"), "{shown}");
}

#[test]
fn a_live_database_is_never_copied_raw_by_an_include() {
    let host = TestHost::golden("pve-single");
    host.mount_fresh(&[]);
    host.configure("backup: main\n\tinclude /var/lib/pve-cluster\n");
    host.run(&["backup"]);
    let shown = host.run(&["show", "latest", "--files", "--json"]).ok().json();
    let entries = shown["entries"].as_array().unwrap();
    let items: Vec<_> = entries
        .iter()
        .filter(|e| e["path"].as_str().is_some_and(|p| p.contains("config.db")))
        .map(|e| e["item"].clone())
        .collect();
    assert_eq!(items, ["pve-database"]);
}

#[test]
fn a_link_onto_a_mount_that_hangs_is_not_followed() {
    let host = tiny();
    host.mount(&[]);
    std::os::unix::fs::symlink("/etc/pve/priv", host.root.join("etc/nginx")).unwrap();
    std::os::unix::fs::symlink("/etc/pve/priv", host.root.join("etc/ssh")).unwrap();
    host.signal_daemon(nix::sys::signal::Signal::SIGSTOP);
    let start = std::time::Instant::now();
    host.run(&["backup"]);
    assert!(start.elapsed() < std::time::Duration::from_secs(60));
}

#[test]
fn a_closed_pipe_does_not_hide_a_failure() {
    let host = tiny();
    host.write("bad.pbx.tar", "no snapshot");
    let script = format!(
        "{} verify {} | true; exit ${{PIPESTATUS[0]}}",
        program().display(),
        host.root.join("bad.pbx.tar").display()
    );
    let output = common::tool("bash").args(["-c", &script]).output().unwrap();
    assert_eq!(output.status.code(), Some(4));
}

// ---- two runs

#[test]
fn a_second_run_is_told_who_holds_the_lock() {
    let host = tiny();
    let host_of = pbx_config::sys::host::Host::detect(
        host.root.clone(),
        jiff::Timestamp::now(),
        Box::new(pbx_config::sys::process::exec::NoTools),
    );
    let lock = pbx_config::sys::process::lock::Lock::acquire(&host_of.run_dir()).unwrap();
    let error = format!("another run (pid {}) holds the lock", std::process::id());
    refused(&host, &["backup"], Exit::Locked, &error, "wait until it ends, then try again");
    // Reading needs no lock.
    host.run(&["list"]).ok();
    drop(lock);
    host.run(&["backup"]).ok();
}

#[test]
fn in_the_journal_lines_carry_their_priority() {
    use std::os::unix::fs::MetadataExt;
    let host = tiny();
    host.write("stick/tiny/tiny_20261122T151740Z.pbx.tar", "no snapshot");
    let journal = host.beside("journal");
    let file = fs::File::create(&journal).unwrap();
    let meta = file.metadata().unwrap();
    let status = Command::new(program())
        .args(["list"])
        .arg(host.root.join("stick"))
        .env("JOURNAL_STREAM", format!("{}:{}", meta.dev(), meta.ino()))
        .stdout(std::process::Stdio::null())
        .stderr(file)
        .status()
        .unwrap();
    assert_eq!(status.code(), Some(3));
    let text = fs::read_to_string(journal).unwrap();
    assert!(text.starts_with("<4>tiny/2026-11-22T15:17:40Z in store "), "{text}");
}

// ---- configuration

#[test]
fn the_shipped_configuration_is_valid_with_every_key_in_force() {
    let shipped = |name: &str| {
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("etc").join(name)).unwrap()
    };
    let text = shipped("pbx-config.cfg");
    let in_force = |text: &str| -> String {
        let lines = text.lines().filter_map(|line| line.strip_prefix('#')).filter(|line| {
            !line.trim_start().starts_with('#')
                && (line.starts_with('\t') || line.contains(": ") && !line.starts_with(' '))
        });
        lines.map(|line| format!("{line}\n")).collect()
    };
    let keys = in_force(&text);
    let host = tiny();
    host.configure(&text);
    host.run(&["config", "check"]).ok();
    host.tool("rclone", Path::new("/usr/bin/rclone"));
    // It lists nothing.
    host.write("client", "#!/bin/sh\necho '[]'\n");
    fs::set_permissions(host.root.join("client"), std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .unwrap();
    host.tool("proxmox-backup-client", &host.root.join("client"));
    let remote = host.beside("remote");
    host.write(
        "root/.config/rclone/rclone.conf",
        format!("[b2]\ntype = alias\nremote = {}\n", remote.display()),
    );
    // What is shown is nobody's: a recipient whose other half someone else has would be worse than none.
    let recipient = "age1c92l66gk6neh8nhxnjah0gf55rjas0pljknfszyqmdr75vfpwgjsl78n4g";
    host.write("etc/proxmox-backup-extra/recipients", format!("{recipient}\n"));
    let keys = keys.replace("recipient age1...", &format!("recipient {recipient}"));
    host.configure(&keys.replace("\tmountpoint yes\n", ""));
    host.write("etc/proxmox-backup-extra/secrets.cfg", in_force(&shipped("secrets.cfg.example")));
    let secrets = host.root.join("etc/proxmox-backup-extra/secrets.cfg");
    fs::set_permissions(secrets, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let done = host.run(&["config", "check"]).ok();
    assert!(done.out.contains("store nas: "), "{}\n{keys}", done.out);
    assert!(host.run(&["config", "show"]).ok().out.contains("\texclude /root/downloads/**"));
}

#[test]
fn mistakes_are_told_with_file_line_and_what_to_do() {
    let host = tiny();
    let file = "/etc/proxmox-backup-extra/pbx-config.cfg";
    for (text, error, hint) in [
        ("dir: a\n\tpaht /x\n", "2: dir 'a': unknown key 'paht'", "did you mean 'path'?"),
        ("dri: a\n\tpath /x\n", "1: unknown kind 'dri'", "did you mean 'dir'?"),
        (
            "backup: other\n\tcompression zstd\n",
            "1: backup 'other': there is only 'backup: main'",
            "move its keys to 'backup: main'",
        ),
    ] {
        host.configure(text);
        refused(&host, &["list"], Exit::Usage, &format!("{file}:{error}"), hint);
    }
    for (text, error) in [
        ("dir: a\n", ":1: dir 'a': 'path' is missing"),
        ("dir: a\n\tpath x\n", ":2: dir 'a': path: must be absolute"),
        (
            "backup: main\n\tcompression-level fast\n",
            ":2: backup 'main': compression-level: 'fast' is not a whole number",
        ),
        ("backup: main\n\tinclude srv\n", ":2: backup 'main': include: 'srv' is not an absolute path"),
        ("dir: a\n\tpath /x\n\tmountpoint perhaps\n", ":3: dir 'a': mountpoint: 'perhaps' is not yes or no"),
        ("dir: a\n\tpath /x\ndir: a\n\tpath /y\n", ":3: "),
    ] {
        host.configure(text);
        let done = host.run(&["backup"]).exits(Exit::Usage);
        let err = done.err.replace(&host.root.display().to_string(), "");
        assert!(err.starts_with(&format!("error: {file}{error}")), "{text}: {err}");
        assert!(!host.root.join("var/lib/proxmox-backup-extra/store").exists());
    }
    host.write("etc/proxmox-backup-extra/pbx-config.cfg", b"dir: a\n\tpath /\xff\n");
    let done = host.run(&["list"]).exits(Exit::Usage);
    assert!(done.err.contains("pbx-config.cfg:2: is not UTF-8"), "{}", done.err);
}

#[test]
fn a_bad_compression_is_told_before_anything_is_read() {
    let host = tiny();
    host.configure("backup: main\n\tcompression-level 40\n");
    refused(
        &host,
        &["backup"],
        Exit::Usage,
        "backup 'main': compression-level 40 is not between 1 and 22 for zstd",
        "remove it to use the default",
    );
}

#[test]
fn a_secrets_file_that_others_may_read_is_refused() {
    let host = tiny();
    host.write("etc/proxmox-backup-extra/secrets.cfg", "dir: a\n\tpassword x\n");
    let path = host.root.join("etc/proxmox-backup-extra/secrets.cfg");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    let done = host.run(&["list"]).exits(Exit::Usage);
    assert!(done.err.contains("secrets.cfg: users other than root can read it\nhint: "), "{}", done.err);
}

#[test]
fn secrets_belong_to_a_section_and_are_never_shown() {
    let host = tiny();
    host.configure("dir: a\n\tpath /x\n");
    host.write("etc/proxmox-backup-extra/secrets.cfg", "dir: b\n\tpassword S3CRET\n");
    let path = host.root.join("etc/proxmox-backup-extra/secrets.cfg");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    let done = host.run(&["list"]).exits(Exit::Usage);
    assert!(done.err.contains("secrets.cfg:1: dir 'b': this section does not exist"), "{}", done.err);
    host.write("etc/proxmox-backup-extra/secrets.cfg", "dir: a\n\tpassword S3CRET\n");
    let done = host.run(&["config", "show"]).ok();
    assert!(done.out.contains("password ***") && !done.out.contains("S3CRET"), "{}", done.out);
}

#[test]
fn a_store_that_must_be_mounted_and_is_not_is_refused() {
    let host = tiny();
    fs::create_dir_all(host.root.join("mnt/nas")).unwrap();
    host.configure("dir: nas\n\tpath /mnt/nas\n\tmountpoint yes\n");
    let done = host.run(&["backup"]).exits(Exit::Failed);
    assert!(done.err.contains("store 'nas': nothing is mounted on "), "{}", done.err);
    assert_eq!(fs::read_dir(host.root.join("mnt/nas")).unwrap().count(), 0);
}

// ---- words

#[test]
fn words_that_name_nothing_are_told_what_there_is() {
    let host = tiny();
    refused(
        &host,
        &["show", "latest"],
        Exit::NotFound,
        "there is no snapshot of tiny",
        "create one with `pbx-config backup`",
    );
    host.run(&["backup"]).ok();
    refused(
        &host,
        &["show", "2020"],
        Exit::NotFound,
        "2020: no such snapshot",
        "`pbx-config list` shows them",
    );
    refused(
        &host,
        &["cat", "latest", "etc/fstap"],
        Exit::NotFound,
        "etc/fstap: is not in tiny/2026-11-22T15:17:40Z",
        "did you mean 'etc/fstab'?",
    );
    refused(
        &host,
        &["backup", "--only", "netwrok"],
        Exit::Usage,
        "unknown item or category 'netwrok'",
        "did you mean 'network'?",
    );
    refused(
        &host,
        &["list", "--store", "nas"],
        Exit::NotFound,
        "store 'nas' does not exist",
        "the stores are: local; a path to a directory contains a /",
    );
    host.run(&["verify", "/no/such.pbx.tar"]).exits(Exit::NotFound);
    host.run(&["list", "/no/such/folder"]).exits(Exit::NotFound);
}

#[test]
fn errors_are_json_when_json_is_asked_for() {
    let host = tiny();
    let done = host.run(&["show", "latest", "--json"]).exits(Exit::NotFound);
    let error: serde_json::Value = serde_json::from_str(&done.err).unwrap();
    assert_eq!(error["exit"], 10);
    assert_eq!(error["error"], "there is no snapshot of tiny");
    let done = host.run(&["list", "--json", "--nonsense"]).exits(Exit::Usage);
    let error: serde_json::Value = serde_json::from_str(&done.err).unwrap();
    assert_eq!(error["exit"], 2);
}

#[test]
fn no_secret_of_a_host_is_in_what_is_printed() {
    for name in ["pve-single", "pve-cluster", "pbs", "both"] {
        let host = TestHost::golden(name);
        for args in [
            &["backup", "-v"][..],
            &["list", "--json"],
            &["show", "latest", "--json"],
            &["show", "latest", "--files"],
        ] {
            let done = host.run(args);
            let text = format!("{}{}", done.out, done.err);
            assert!(!text.contains("S3CRET"), "{name} {args:?}");
        }
    }
}

#[test]
fn a_reader_that_has_enough_is_no_error() {
    let host = TestHost::golden("bare");
    host.run(&["backup"]).ok();
    let script = format!(
        "{} --root {} show latest --files | head -n 1; exit ${{PIPESTATUS[0]}}",
        program().display(),
        host.root.display()
    );
    let output = common::tool("bash").args(["-c", &script]).output().unwrap();
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), &b""[..]));
}

#[test]
fn the_catalogue_shows_what_a_row_finds_here() {
    let host = TestHost::golden("pbs");
    let rows = host.run(&["catalog", "--json"]).ok().json();
    let row = |id: &str| rows["items"].as_array().unwrap().iter().find(|row| row["item"] == id).cloned();
    assert_eq!(row("pbs-datastores").or_else(|| row("pbs-datastore")).unwrap()["files"], 1);
    assert!(row("pve-storage").is_none());
    let all = host.run(&["catalog", "--all", "--json"]).ok().json();
    assert!(all["items"].as_array().unwrap().len() > rows["items"].as_array().unwrap().len());
}
