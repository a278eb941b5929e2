//! `--root DIR` with a hostile tree: each of our own files and directories there, and those that lead to them, is a
//! link onto this machine or a FIFO. Every verb ends, and nothing of this machine is read, written or removed.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc;
use std::time::Duration;

use super::common::tree::{Tree, picture};
use pbx_config::model::problem::Exit;

use super::common::{TestHost, copy_tree};

/// What all verbs together may take for one hostile path, on the busiest machine.
const LIMIT: Duration = Duration::from_secs(240);
const SECRET: &str = "SECRET-OF-THIS-MACHINE";
const OWN: &str = "var/lib/proxmox-backup-extra";

/// `UNDO` is the directory of the restore that was made before.
const PATHS: &[&str] = &[
    "etc",
    "etc/apt",
    "etc/apt/apt.conf.d",
    "etc/corosync",
    "etc/cron.d",
    "etc/default",
    "etc/default/prometheus-node-exporter",
    "etc/hostname",
    "etc/hosts",
    "etc/machine-id",
    "etc/os-release",
    "etc/proxmox-backup",
    "etc/proxmox-backup-extra",
    "etc/proxmox-backup-extra/pbx-config.cfg",
    "etc/proxmox-backup-extra/secrets.cfg",
    "etc/pve",
    "etc/vzdump.conf",
    "opt",
    "opt/proxmox-config-backup",
    "prom",
    "prom/pbx_config.prom",
    "root",
    "root/.config",
    "root/.config/rclone",
    "root/.config/rclone/rclone.conf",
    "run",
    "run/lock",
    "run/proxmox-backup-extra",
    "run/pve-cluster.pid",
    "usr",
    "usr/bin/pmxcfs",
    "var",
    "var/lib",
    "var/lib/dpkg",
    "var/lib/dpkg/info",
    "var/lib/dpkg/status",
    "var/lib/prometheus/node-exporter",
    "var/lib/proxmox-backup-extra",
    "var/lib/proxmox-backup-extra/.probe",
    "var/lib/proxmox-backup-extra/confirmed.json",
    "var/lib/proxmox-backup-extra/download",
    "var/lib/proxmox-backup-extra/installation.json",
    "var/lib/proxmox-backup-extra/key-proof.json",
    "var/lib/proxmox-backup-extra/last-name.json",
    "var/lib/proxmox-backup-extra/memory.json",
    "var/lib/proxmox-backup-extra/memory.key",
    "var/lib/proxmox-backup-extra/reports",
    "var/lib/proxmox-backup-extra/restores.jsonl",
    "var/lib/proxmox-backup-extra/store",
    "var/lib/proxmox-backup-extra/undo",
    "var/lib/proxmox-backup-extra/undo/armed.json",
    "var/lib/proxmox-backup-extra/work",
    "var/lib/pve-cluster",
    "var/lib/pve-cluster/config.db",
    "var/lib/pve-cluster/config.db-shm",
    "var/lib/pve-cluster/config.db-wal",
    "var/log",
    "var/spool",
    "UNDO",
    "UNDO/after",
    "UNDO/after/0",
    "UNDO/before",
    "UNDO/before/0",
    "UNDO/found",
    "UNDO/journal",
    "UNDO/record.json",
];

const VERBS: &[&[&str]] = &[
    &["backup", "--store", "STICK"],
    &["status"],
    &["log"],
    &["list", "--store", "STICK"],
    &["check"],
    &["check", "--fix"],
    &["verify", "--all", "--store", "STICK"],
    &["prune", "--accept", "--store", "STICK"],
    &["undo", "--dry-run"],
    &["undo", "--force"],
    &["restore", "latest", "--store", "STICK", "--path", "/etc/hosts", "--yes"],
    &["undo", "--force"],
    &["confirm"],
    &["hook", "enable", "apt"],
    &["hook", "enable", "vzdump"],
    &["hook", "status"],
    &["hook", "disable", "vzdump"],
    &["config", "check"],
    &["migrate"],
    &["backup"],
    &["key", "add", "age1zvkyg2lqzraa2lnjvqej32nkuu0ues2s82hzrye869xeexvn73equnujwj"],
];

#[derive(Debug, Clone, Copy, PartialEq)]
enum Trap {
    Link,
    Fifo,
}

/// A host with a snapshot, records, and a restore that can be undone.
struct Disk {
    host: TestHost,
    stick: PathBuf,
    victim: PathBuf,
    undo: String,
    /// The directory of its configuration, to be put back.
    config: PathBuf,
}

impl Disk {
    fn new() -> Self {
        let host = TestHost::golden("pve-single");
        let (stick, victim) = (host.beside("stick"), host.beside("victim"));
        host.configure("backup: main\n\tcompression none\n\nprometheus: a\n\tpath /prom\n");
        for place in ["prom", "run/lock", "opt", "root/.config/rclone", "var/log", OWN] {
            fs::create_dir_all(host.root.join(place)).unwrap();
        }
        let config = host.beside("config");
        copy_tree(&host.root.join("etc/proxmox-backup-extra"), &config);
        let disk = Self { host, stick, victim, undo: String::new(), config };
        disk.run(&["backup", "--store", "STICK"]);
        disk.host.write("etc/hosts", "127.0.0.1 localhost\n");
        disk.run(&["restore", "latest", "--store", "STICK", "--path", "/etc/hosts", "--yes"]);
        let mut undo = fs::read_dir(disk.host.root.join(OWN).join("undo")).unwrap();
        let undo = undo.next().expect("there was a restore").unwrap().file_name().into_string().unwrap();
        Self { undo: format!("{OWN}/undo/{undo}"), ..disk }
    }

    fn run(&self, words: &[&str]) -> String {
        let stick = self.stick.to_str().unwrap();
        let words: Vec<&str> = words.iter().map(|word| if *word == "STICK" { stick } else { word }).collect();
        let done = self.host.run(&words);
        done.out + &done.err
    }

    /// Sets the trap at one path, runs all verbs, and puts back what was there.
    fn try_all(&self, path: &str, trap: Trap) -> Vec<String> {
        let full = self.host.root.join(path.replace("UNDO", &self.undo));
        let aside = self.host.beside("aside");
        let _ = fs::remove_dir_all(&self.victim);
        fs::create_dir(&self.victim).unwrap();
        bait(&full, &self.victim);
        let was_there = fs::rename(&full, &aside).is_ok();
        fs::create_dir_all(full.parent().unwrap()).unwrap();
        match trap {
            Trap::Link => symlink(self.victim.join("it"), &full).unwrap(),
            Trap::Fifo => nix::unistd::mkfifo(&full, nix::sys::stat::Mode::S_IRWXU).unwrap(),
        }

        let before = picture(&self.victim, "");
        let case = format!("/{path} is a {}", if trap == Trap::Link { "link" } else { "FIFO" });
        let mut wrong = Vec::new();
        for verb in VERBS {
            let said = self.run(verb);
            if said.contains(SECRET) || said.contains("/proc/self/fd") {
                wrong.push(format!("{case}: {verb:?} says {said}"));
            }
        }
        let after = picture(&self.victim, "");
        wrong.extend(changed(&before, &after).map(|path| format!("{case}: victim/{path} was changed")));
        for place in [&self.host.root, &self.stick] {
            let found = Command::new("grep").args(["-rlF", SECRET]).arg(place).output().unwrap().stdout;
            wrong.extend(String::from_utf8_lossy(&found).lines().map(|copy| format!("{case}: {copy}")));
        }

        // One of the verbs may have put its own file there.
        let _ = fs::remove_file(&full).or_else(|_| fs::remove_dir_all(&full));
        if was_there {
            fs::rename(&aside, &full).unwrap();
        }
        let config = self.host.root.join("etc/proxmox-backup-extra");
        let _ = fs::remove_dir_all(&config);
        copy_tree(&self.config, &config);
        wrong
    }
}

/// Lists the paths that only one of the pictures has, or that differ.
fn changed<'a>(before: &'a Tree, after: &'a Tree) -> impl Iterator<Item = String> + 'a {
    let all = before.keys().chain(after.keys().filter(|path| !before.contains_key(*path)));
    all.filter(|path| before.get(*path) != after.get(*path)).map(|path| path.display().to_string())
}

/// Fills the victim with `it`: what lies at the path, so that all that is looked for is found there, and more.
fn bait(path: &Path, victim: &Path) {
    let it = victim.join("it");
    if path.is_dir() {
        copy_tree(path, &it);
    } else if let Ok(content) = fs::read(path) {
        let is_text = path.extension().is_none_or(|ext| ext != "json") && content.is_ascii();
        fs::write(
            &it,
            if is_text { [&content, "\n# ".as_bytes(), SECRET.as_bytes()].concat() } else { content },
        )
        .unwrap();
        return;
    } else if path.extension().is_some() || path.ends_with("journal") {
        fs::write(&it, SECRET).unwrap();
        return;
    }
    for name in ["app.json", ".x.4999999.partial", "pve1_20260101T000000Z.pbx.tar", "20260101T000000Z/file"] {
        let file = it.join(name);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, SECRET).unwrap();
    }
}

/// Tries these paths; what is wrong comes back.
fn try_paths(paths: Vec<&'static str>) -> Vec<String> {
    let (tell, told) = mpsc::channel();
    let all: Vec<_> = paths.into_iter().flat_map(|path| [(path, Trap::Link), (path, Trap::Fifo)]).collect();
    let cases = all.clone();
    // Not a scope's: it may hang.
    std::thread::spawn(move || {
        let disk = Disk::new();
        for (path, trap) in cases {
            tell.send(disk.try_all(path, trap)).unwrap();
        }
    });
    let wait = |(path, trap)| {
        let wrong = told.recv_timeout(LIMIT);
        wrong.unwrap_or_else(|error| panic!("/{path} ({trap:?}): the verbs do not end, or panicked: {error}"))
    };
    all.into_iter().flat_map(wait).collect()
}

#[test]
fn no_path_of_ours_on_another_system_leads_onto_this_one() {
    let wrong = std::thread::scope(|scope| {
        let half = |n| PATHS.iter().copied().skip(n).step_by(2).collect();
        let halves = [0, 1].map(|n| scope.spawn(move || try_paths(half(n))));
        halves.map(|half| half.join().unwrap()).concat()
    });
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn where_nothing_can_be_kept_a_backup_goes_on_and_a_restore_is_refused() {
    let disk = Disk::new();
    fs::create_dir(&disk.victim).unwrap();
    let state = disk.host.root.join(OWN);
    fs::rename(&state, disk.host.beside("aside")).unwrap();
    symlink(&disk.victim, &state).unwrap();
    disk.host.write("etc/hosts", "changed\n");

    let stick = disk.stick.to_str().unwrap();
    let done = disk.host.run(&["backup", "--store", stick, "--json"]).exits(Exit::Problems);
    let problems = done.json()["problems"].as_array().unwrap().clone();
    let told = problems.iter().filter(|problem| problem.to_string().contains("not recorded"));
    assert_eq!(told.count(), 1, "{problems:?}");
    for verb in ["verify", "prune"] {
        let done = disk.host.run(&[verb, "--store", stick]);
        assert!([Exit::Ok, Exit::Problems].contains(&done.exit), "{verb}: {}{}", done.out, done.err);
    }

    let words = ["restore", "latest~1", "--store", stick, "--path", "/etc/hosts", "--yes"];
    let done = disk.host.run(&words).exits(Exit::Failed);
    assert!(
        done.err.contains("a link is in its way") && done.err.contains("nothing was changed"),
        "{}",
        done.err
    );
    assert_eq!(done.err.lines().filter(|line| line.starts_with("error")).count(), 1, "{}", done.err);
    assert_eq!(fs::read(disk.host.root.join("etc/hosts")).unwrap(), b"changed\n");
    assert!(fs::read_dir(&disk.victim).unwrap().next().is_none());
}

#[test]
fn metrics_stay_below_the_root_whatever_their_path_says() {
    let host = TestHost::empty();
    host.write("etc/hosts", "127.0.0.1 localhost\n");
    let (stick, victim) = (host.beside("stick"), host.beside("victim"));
    fs::create_dir(&victim).unwrap();
    symlink(&victim, host.root.join("prom")).unwrap();
    fs::create_dir_all(host.root.join("srv/prom")).unwrap();
    for path in ["/prom", "/../victim", "/srv/../../victim"] {
        host.configure(&format!("prometheus: a\n\tpath {path}\n"));
        let done = host.run(&["backup", "--store", stick.to_str().unwrap(), "--json"]).exits(Exit::Problems);
        assert!(done.out.contains("is not a directory"), "{path}: {}", done.out);
        assert!(fs::read_dir(&victim).unwrap().next().is_none(), "{path}");
    }
    host.configure("prometheus: a\n\tpath /srv/../srv/prom\n");
    host.run(&["backup", "--store", stick.to_str().unwrap()]);
    assert!(host.root.join("srv/prom/pbx_config.prom").is_file());
}
