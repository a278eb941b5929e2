//! The hooks as their callers call them: vzdump with an empty environment and a closed standard input, apt with
//! its list; with scripts from before that fail, hang on, print much, or are gone.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};

use common::{TestHost, program};
use pbx_config::model::problem::Exit;
use pbx_config::sys::process::exec::{self, Cmd, Exec};

const CONF: &str = "etc/vzdump.conf";
const HOOK: &str = "/usr/share/proxmox-backup-extra/hooks/vzdump-hook";
const SHIPPED: &str = "# vzdump default settings\n\n#tmpdir: DIR\n#script: FILENAME\nstorage: nas\n";

/// Where the program under test is, for a vzdump whose root is that of the test.
const OWN: &str = "/srv/pbx-config";

/// A node with the package's hook in place, which calls the program under test.
fn node() -> TestHost {
    let host = TestHost::golden("pve-single");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/hooks/vzdump-hook");
    let text = fs::read_to_string(source).unwrap();
    let text = text.replace("/usr/bin/pbx-config", OWN);
    assert!(text.contains(&format!("exec {OWN} ")), "{text}");
    script(&host, HOOK.trim_start_matches('/'), &text);
    host.write(CONF, SHIPPED);
    host
}

fn script(host: &TestHost, path: &str, text: &str) -> PathBuf {
    host.write(path, text);
    let full = host.root.join(path);
    fs::set_permissions(&full, fs::Permissions::from_mode(0o755)).unwrap();
    full
}

fn conf(host: &TestHost) -> String {
    fs::read_to_string(host.root.join(CONF)).unwrap()
}

/// What vzdump would run, run as vzdump runs it.
fn vzdump(host: &TestHost, words: &[&str]) -> Output {
    let text = conf(host);
    let script =
        text.lines().filter_map(|line| line.trim().strip_prefix("script:")).next_back().unwrap().trim();
    let mut command = on_slash(host, script);
    command.args(words).env("LC_ALL", "C").env("LVM_SUPPRESS_FD_WARNINGS", "1");
    if words.len() > 1 {
        command.env("VMTYPE", "qemu").env("HOSTNAME", "guest").env("STOREID", "nas");
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).output().unwrap()
}

/// A script of the host, run where the host's root is `/`, with the tools of this machine.
fn on_slash(host: &TestHost, script: &str) -> Command {
    let root = host.root.display();
    let mut lines = "set -e\n".to_owned();
    for folder in ["bin", "lib", "lib64", "usr/bin", "usr/lib", "proc"] {
        lines += &format!(
            "[ ! -d /{folder} ] || {{ mkdir -p {root}/{folder}; mount --rbind /{folder} {root}/{folder}; }}\n"
        );
    }
    for (from, to) in [
        (program().display().to_string(), OWN),
        ("/dev/null".into(), "/dev/null"),
        ("/dev/zero".into(), "/dev/zero"),
    ] {
        lines += &format!("mkdir -p $(dirname {root}{to}); : > {root}{to}; mount --bind {from} {root}{to}\n");
    }
    lines += &format!("exec chroot {root} {script} \"$@\"\n");
    common::require(&["unshare", "chroot"]);
    let mut command = Command::new("/usr/bin/unshare");
    command.args(["--mount", "/bin/sh", "-c", &lines, "sh"]).env_clear();
    command
}

/// Notes what systemctl is asked.
struct Systemctl(Arc<Mutex<Vec<String>>>, i32);

impl Exec for Systemctl {
    fn run(&self, cmd: &Cmd) -> anyhow::Result<Option<exec::ProcessOutput>> {
        self.0.lock().unwrap().push(cmd.argv.join(" "));
        let stderr = b"Unit not found.\n".to_vec();
        Ok(Some(exec::ProcessOutput {
            status: exec::ToolStatus::Exit(self.1),
            stderr,
            ..exec::ProcessOutput::default()
        }))
    }
}

fn job_end(host: &TestHost, code: i32) -> (String, Vec<String>) {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let done = host.run_with(&["hook", "run", "job-end"], Box::new(Systemctl(Arc::clone(&asked), code)));
    let asked = asked.lock().unwrap().clone();
    (done.ok().out, asked)
}

#[test]
fn enabling_and_disabling_gives_back_every_byte() {
    for text in [
        SHIPPED,
        "",
        "storage: nas",
        "script: /root/a\r\nmode: stop\r\n",
        "script: /root/a\nscript: /root/b\n# end",
    ] {
        let host = node();
        host.write(CONF, text);
        fs::set_permissions(host.root.join(CONF), fs::Permissions::from_mode(0o640)).unwrap();
        host.run(&["hook", "enable", "vzdump"]).exits(if text.contains("/root/") {
            Exit::Problems
        } else {
            Exit::Ok
        });
        assert!(conf(&host).contains(&format!("\nscript: {HOOK}\n")), "{}", conf(&host));
        let once = conf(&host);
        host.run(&["hook", "enable", "vzdump"]);
        assert_eq!(conf(&host), once);
        host.run(&["hook", "disable", "vzdump"]).ok();
        assert_eq!(conf(&host), text);
        let mode = fs::metadata(host.root.join(CONF)).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o640);
    }
}

#[test]
fn a_configuration_that_was_not_there_is_gone_again() {
    let host = node();
    fs::remove_file(host.root.join(CONF)).unwrap();
    host.run(&["hook", "enable", "vzdump"]).ok();
    assert!(conf(&host).contains(HOOK));
    host.run(&["hook", "disable", "vzdump"]).ok();
    assert!(!host.root.join(CONF).exists());
}

#[test]
fn a_link_to_the_configuration_stays_a_link() {
    let host = node();
    fs::rename(host.root.join(CONF), host.root.join("etc/managed.conf")).unwrap();
    symlink("managed.conf", host.root.join(CONF)).unwrap();
    host.run(&["hook", "enable", "vzdump"]).ok();
    assert!(fs::symlink_metadata(host.root.join(CONF)).unwrap().is_symlink());
    assert!(conf(&host).contains(HOOK));
}

#[test]
fn no_phase_fails_a_job() {
    let host = node();
    host.run(&["hook", "enable", "vzdump"]).ok();
    for words in [
        &["job-init"][..],
        &["job-start"],
        &["backup-start", "snapshot", "100"],
        &["pre-stop", "snapshot", "100"],
        &["pre-restart", "snapshot", "100"],
        &["post-restart", "snapshot", "100"],
        &["backup-end", "snapshot", "100"],
        &["backup-abort", "stop", "100"],
        &["log-end", "snapshot", "100"],
        &["job-abort"],
        &["some-later-phase", "--with", "-x"],
        &[],
    ] {
        let done = vzdump(&host, words);
        assert_eq!(done.status.code(), Some(if words.is_empty() { 2 } else { 0 }), "{words:?}: {done:?}");
        assert_eq!(String::from_utf8_lossy(&done.stdout), "", "{words:?}");
    }
    // There is no systemd: the job is told, and stays green.
    let done = vzdump(&host, &["job-end"]);
    assert!(done.status.success());
    let told = String::from_utf8_lossy(&done.stdout).into_owned();
    assert!(told.starts_with("pbx-config: no backup of this node's configuration: "), "{told}");
}

#[test]
fn the_end_of_a_job_starts_the_service_without_waiting_and_once_for_several() {
    let host = node();
    host.run(&["hook", "enable", "vzdump"]).ok();
    let (said, asked) = job_end(&host, 0);
    assert_eq!(asked, ["systemctl start --no-block proxmox-backup-extra-vzdump.service"]);
    assert!(said.contains("started"), "{said}");
    assert_eq!(job_end(&host, 0), (String::new(), Vec::new()));
    host.configure("hook: vzdump\n\tdebounce 0\n");
    assert_eq!(job_end(&host, 0).1.len(), 1);
    // A configuration that does not stand is the backup's to tell, not the job's.
    host.configure("nonsense\n");
    assert_eq!(job_end(&host, 0).1.len(), 0);
}

#[test]
fn a_service_that_does_not_start_is_told_and_tried_again_by_the_next_job() {
    let host = node();
    host.run(&["hook", "enable", "vzdump"]).ok();
    let (said, _) = job_end(&host, 5);
    assert!(said.contains("exit 5 Unit not found."), "{said}");
    assert_eq!(job_end(&host, 0).1.len(), 1);
}

#[test]
fn a_script_from_before_gets_the_same_words_environment_and_output_and_its_exit_code_counts() {
    let host = node();
    let old = "#!/bin/sh\necho \"old $*\"; echo err >&2; /usr/bin/env | /usr/bin/sort; cat; exit 7\n";
    script(&host, "root/old-hook", old);
    host.write(CONF, format!("{SHIPPED}script: /root/old-hook\n"));
    let direct = vzdump(&host, &["backup-end", "snapshot", "100"]);
    assert_eq!(direct.status.code(), Some(7));
    let shown = host.run(&["hook", "enable", "vzdump"]).ok().out;
    assert!(shown.contains("hands on to /root/old-hook"), "{shown}");
    assert!(conf(&host).contains("#pbx-config# script: /root/old-hook\n"));
    let through = vzdump(&host, &["backup-end", "snapshot", "100"]);
    let environment = |output: &Output| {
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        // dash sets these for itself and its children.
        text.lines()
            .filter(|line| !line.starts_with("PWD=") && !line.starts_with("_="))
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    assert_eq!(environment(&through), environment(&direct));
    assert_eq!((through.status.code(), &through.stderr), (Some(7), &direct.stderr));
    // At the end of a job too, where ours has its own line.
    let end = vzdump(&host, &["job-end"]);
    assert_eq!(end.status.code(), Some(7));
    assert!(String::from_utf8_lossy(&end.stdout).contains("old job-end\n"), "{end:?}");
}

#[test]
fn a_script_from_before_that_prints_much_or_dies_is_passed_on_as_it_is() {
    let host = node();
    script(&host, "root/old-hook", "#!/bin/sh\n/usr/bin/head -c 50000000 /dev/zero; kill -9 $$\n");
    host.write(CONF, "script: /root/old-hook\n");
    host.run(&["hook", "enable", "vzdump"]).ok();
    let done = vzdump(&host, &["job-start"]);
    assert_eq!(done.stdout.len(), 50_000_000);
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&done.status), Some(9));
}

#[test]
fn a_script_from_before_that_hangs_is_the_very_process_that_vzdump_started() {
    let host = node();
    script(&host, "root/old-hook", "#!/bin/sh\necho $$\nexec /bin/sleep 60\n");
    host.write(CONF, "script: /root/old-hook\n");
    host.run(&["hook", "enable", "vzdump"]).ok();
    let mut child =
        on_slash(&host, HOOK).arg("job-start").stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(child.stdout.take().unwrap()), &mut line)
        .unwrap();
    // So a signal from vzdump reaches it, and nothing of ours waits.
    assert_eq!(line.trim(), child.id().to_string());
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_script_from_before_that_vanished_fails_no_job_and_is_told() {
    let host = node();
    let old = script(&host, "root/old-hook", "#!/bin/sh\nexit 0\n");
    host.write(CONF, "script: /root/old-hook\n");
    host.run(&["hook", "enable", "vzdump"]).ok();
    fs::set_permissions(&old, fs::Permissions::from_mode(0o644)).unwrap();
    let done = vzdump(&host, &["job-start"]);
    assert!(done.status.success());
    assert_eq!(
        String::from_utf8_lossy(&done.stdout),
        "pbx-config: /root/old-hook is not executable; it is skipped\n"
    );
    fs::remove_file(old).unwrap();
    assert!(vzdump(&host, &["job-start"]).status.success());
    let status = host.run(&["hook", "status"]).exits(Exit::Problems).out;
    assert!(status.contains("/root/old-hook is not there: it was the script of vzdump before"), "{status}");
}

#[test]
fn jobs_with_a_script_of_their_own_are_shown() {
    let host = node();
    let jobs = "vzdump: backup-nightly\n\tschedule 21:00\n\tscript /usr/local/bin/job-hook\n\nvzdump: backup-b\n\tschedule 22:00\n";
    let db = rusqlite::Connection::open(host.database()).unwrap();
    assert_eq!(
        db.execute("UPDATE tree SET data = ?1 WHERE name = 'jobs.cfg'", [jobs.as_bytes()]).unwrap(),
        1
    );
    drop(db);
    host.run(&["hook", "enable", "vzdump"]).ok();
    let status = host.run(&["hook", "status"]).ok().out;
    assert!(status.contains("    job backup-nightly runs /usr/local/bin/job-hook instead\n"), "{status}");
    let json = host.run(&["hook", "status", "--json"]).ok().json();
    assert_eq!(json[0]["bypassed-by"].as_array().unwrap().len(), 1);
    assert_eq!((&json[0]["enabled"], &json[1]["enabled"]), (&true.into(), &false.into()));
}

#[test]
fn what_cannot_be_hooked_is_refused_and_left_as_it_is() {
    let host = node();
    fs::remove_file(host.root.join(HOOK.trim_start_matches('/'))).unwrap();
    let done = host.run(&["hook", "enable", "vzdump"]).exits(Exit::Failed);
    assert!(done.err.contains("vzdump-hook is not there; every job would fail"), "{}", done.err);
    assert_eq!(conf(&host), SHIPPED);

    let host = TestHost::golden("bare");
    let done = host.run(&["hook", "enable", "vzdump"]).exits(Exit::Usage);
    assert!(done.err.contains("vzdump is not on this host"), "{}", done.err);

    let host = node();
    common::tool("chattr").arg("+i").arg(host.root.join(CONF)).status().unwrap();
    let done = host.run(&["hook", "enable", "vzdump"]).exits(Exit::Failed);
    common::tool("chattr").arg("-i").arg(host.root.join(CONF)).status().unwrap();
    assert!(done.err.starts_with("error: cannot write ") && done.err.contains(CONF), "{}", done.err);
    assert_eq!(conf(&host), SHIPPED);
    let rest = fs::read_dir(host.root.join("etc")).unwrap().map(|entry| entry.unwrap().file_name());
    assert!(rest.into_iter().all(|name| !name.to_string_lossy().contains("partial")));
}

/// Runs the line of apt's configuration as apt runs it.
fn apt(host: &TestHost, list: &str) -> Output {
    let text = fs::read_to_string(host.root.join("etc/apt/apt.conf.d/80proxmox-backup-extra")).unwrap();
    let line = text.lines().find(|line| line.starts_with("DPkg::Pre-Install-Pkgs")).unwrap();
    let line = line.split('"').nth(1).unwrap();
    let call = format!("{} --root {}", program().display(), host.root.display());
    let mut child = Command::new("sh")
        .args(["-c", &line.replace("/usr/bin/pbx-config", &call)])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(list.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

#[test]
fn apt_gets_a_labelled_snapshot_before_packages_change() {
    let host = node();
    host.run(&["hook", "enable", "apt"]).ok();
    let list = format!(
        "VERSION 3\n{}\n\npve-manager 9.1.1 all none < 9.1.2 all none /x.deb\n",
        "APT::Key=value\n".repeat(20_000)
    );
    let done = apt(&host, &list);
    assert!(done.status.success() && done.stdout.is_empty() && done.stderr.is_empty(), "{done:?}");
    let snapshot = host.run(&["show", "latest", "--json"]).ok().json()["snapshot"].clone();
    assert_eq!(snapshot["note"], "before apt: pve-manager 9.1.1 -> 9.1.2");
    assert_eq!(snapshot["trigger"], "apt");
    host.run(&["hook", "disable", "apt"]).ok();
    assert!(!host.root.join("etc/apt/apt.conf.d/80proxmox-backup-extra").exists());
}

#[test]
fn apt_goes_on_when_there_can_be_no_snapshot() {
    let host = node();
    host.run(&["hook", "enable", "apt"]).ok();
    host.configure("dir: nas\n\tpath /mnt/nas\n\tmountpoint yes\n");
    let done = apt(&host, "VERSION 3\n\n");
    assert!(done.status.success());
    let told = String::from_utf8_lossy(&done.stdout).into_owned();
    assert!(told.starts_with("pbx-config: no backup of the configuration before this change: "), "{told}");
    assert!(told.contains("/mnt/nas"), "{told}");
    host.configure("nonsense\n");
    assert!(apt(&host, &"x\n".repeat(200_000)).status.success());
}

#[test]
fn a_file_of_somebody_else_in_our_place_is_not_overwritten() {
    let host = node();
    host.write("etc/apt/apt.conf.d/80proxmox-backup-extra", "// mine\n");
    let done = host.run(&["hook", "enable", "apt"]).exits(Exit::Usage);
    assert!(
        done.err.contains("80proxmox-backup-extra: exists, and is not as this version writes it"),
        "{}",
        done.err
    );
    let status = host.run(&["hook", "status"]).exits(Exit::Problems).out;
    assert!(status.contains("warning: /etc/apt/apt.conf.d/80proxmox-backup-extra"), "{status}");
}
