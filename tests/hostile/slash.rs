//! The same against `/`: the program runs as root in a chroot of its own, with nothing of this machine in it but
//! the libraries that it is linked with, and restores onto what is its real root there.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use serde_json::Value;
use tar::EntryType;

use super::common::tree::{Tree, assert_same, picture};
use super::common::{TestHost, program};
use super::{Forge, LIMIT, MEMORY_KIB, NAME, Part, file, folder, hard_link, member, symlink as link};

/// Where the snapshot lies, and what systemctl was asked, in the chroot.
const PLACE: &str = "srv/in";
const ASKED: &str = "var/log/asked";
/// What a restore keeps for itself.
const OWN: [&str; 3] = ["var/lib/proxmox-backup-extra", "run", ASKED];
/// What the tools of the chroot are made of.
const TOOLS: [&str; 3] = ["/bin/sh", "/bin/mv", "/bin/ln"];

/// A host whose root is `/` for the program, and nobody else's.
pub struct Slash {
    host: TestHost,
    /// Of this machine, and where it is in the chroot.
    bound: Vec<(PathBuf, PathBuf)>,
}

impl Slash {
    pub fn new() -> Self {
        let host = TestHost::empty();
        let mut bound = vec![(program(), PathBuf::from("usr/bin/pbx-config"))];
        bound.extend(TOOLS.map(|tool| (PathBuf::from(tool), PathBuf::from(tool.trim_start_matches('/')))));
        bound.push((PathBuf::from("/dev/null"), PathBuf::from("dev/null")));
        bound.extend(libraries().map(|path| (path.clone(), path.strip_prefix("/").unwrap().to_owned())));
        let slash = Self { host, bound };
        slash.bound.iter().for_each(|(_, to)| slash.write(to.to_str().unwrap(), ""));
        for path in ["proc", "tmp", "root", "run", "var/lib", "var/log", PLACE] {
            fs::create_dir_all(slash.root().join(path)).unwrap();
        }
        slash.tool("systemctl", "");
        slash.write("srv/victim", "untouched\n");
        slash
    }

    fn root(&self) -> &Path {
        &self.host.root
    }

    fn write(&self, path: &str, text: &str) {
        self.host.write(path, text);
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.root().join(path)).unwrap()
    }

    /// A tool of the chroot: notes what it was asked, and does `more`.
    fn tool(&self, name: &str, more: &str) {
        let path = format!("usr/sbin/{name}");
        self.write(&path, &format!("#!/bin/sh\necho \"{name} $*\" >> /{ASKED}\n{more}\n"));
        fs::set_permissions(self.root().join(path), fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// The path, in the chroot, of a snapshot that holds these bytes.
    pub fn snapshot(&self, bytes: &[u8]) -> String {
        let path = format!("{PLACE}/{NAME}");
        fs::write(self.root().join(&path), bytes).unwrap();
        format!("/{path}")
    }

    /// In namespaces of its own for mounts, network and the name of the host, with little memory and little time.
    pub fn run(&self, args: &[&str]) -> Output {
        let root = self.root().display();
        let mut script = format!("set -e\nulimit -v {MEMORY_KIB}\necho tiny > /proc/sys/kernel/hostname\n");
        for (from, to) in &self.bound {
            script.push_str(&format!("mount --bind '{}' '{root}/{}'\n", from.display(), to.display()));
        }
        script.push_str(&format!("mount --rbind /proc '{root}/proc'\n"));
        script.push_str(&format!(
            "exec timeout {} chroot '{root}' /usr/bin/pbx-config \"$@\"\n",
            LIMIT.as_secs()
        ));
        let mut command = crate::common::tool("unshare");
        command.args(["--mount", "--net", "--uts", "sh", "-c", &script, "sh"]).args(args);
        command.stdin(Stdio::null()).env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        command.output().unwrap()
    }

    #[track_caller]
    fn exits(&self, code: i32, args: &[&str]) -> (String, String) {
        let done = self.run(args);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (out, err) = (text(&done.stdout), text(&done.stderr));
        assert_eq!(done.status.code(), Some(code), "{args:?}\n{out}\n{err}");
        (out, err)
    }

    /// What can be undone, the oldest first.
    fn undos(&self) -> Vec<String> {
        let folders = fs::read_dir(self.root().join("var/lib/proxmox-backup-extra/undo")).unwrap();
        let mut names: Vec<String> =
            folders.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn whole(&self) -> Tree {
        picture(self.root(), "")
    }

    fn picture(&self) -> Tree {
        let mut tree = self.whole();
        tree.retain(|path, seen| {
            // A folder that something was put into has another time.
            if seen.kind == "folder" {
                seen.mtime = (0, 0);
            }
            !OWN.iter().any(|own| path.starts_with(own))
        });
        tree
    }

    /// The plan, and what the restore changed.
    #[track_caller]
    fn restore(&self, snapshot: &str, code: i32) -> (Value, BTreeSet<String>) {
        let before = self.whole();
        let (plan, _) = self.exits(0, &["restore", snapshot, "--dry-run", "--json"]);
        assert_same(&self.whole(), &before);
        let before = self.picture();
        self.exits(code, &["restore", snapshot, "--yes"]);
        let after = self.picture();
        let all: BTreeSet<&PathBuf> = before.keys().chain(after.keys()).collect();
        let changed = all.into_iter().filter(|path| before.get(*path) != after.get(*path));
        let changed = changed.map(|path| path.to_str().unwrap().to_owned()).collect();
        (serde_json::from_str(&plan).unwrap(), changed)
    }
}

/// What the loader finds for the program and the tools.
fn libraries() -> impl Iterator<Item = PathBuf> {
    static FOUND: std::sync::OnceLock<BTreeSet<PathBuf>> = std::sync::OnceLock::new();
    let find = || {
        let done = crate::common::tool("ldd").arg(program()).args(TOOLS).output().unwrap();
        let text = String::from_utf8(done.stdout).unwrap();
        let words = text.lines().filter(|line| line.starts_with('\t')).flat_map(str::split_whitespace);
        words.filter(|word| word.starts_with('/')).map(PathBuf::from).collect()
    };
    FOUND.get_or_init(find).iter().cloned()
}

/// Refused by a restore onto `/`: with that exit code and those words, and without a trace.
#[track_caller]
pub fn refused_on_slash(bytes: &[u8], code: i32, words: &str) {
    let slash = Slash::new();
    let snapshot = slash.snapshot(bytes);
    let before = slash.whole();
    let (out, err) = slash.exits(code, &["restore", &snapshot, "--yes"]);
    assert!(err.contains(&format!("error: {snapshot}: ")) && err.contains(words), "{words}: {err}");
    assert_eq!(out, "", "{words}");
    assert_same(&slash.whole(), &before);
    assert!(!slash.root().join(ASKED).exists());
}

fn steps(plan: &Value) -> BTreeSet<String> {
    let steps = plan["steps"].as_array().unwrap().iter();
    steps.map(|step| step["path"].as_str().unwrap().to_owned()).collect()
}

fn of(item: &'static str) -> impl Fn(Part) -> Part {
    move |part| part.entry(|entry| entry["item"] = item.into())
}

/// With the mode in the header and in the index.
fn with_mode(part: Part, mode: u32) -> Part {
    let mut part = part.entry(|entry| entry["mode"] = mode.into());
    let mut header = tar::Header::from_byte_slice(&part.blocks[..512]).clone();
    header.set_mode(mode);
    header.set_cksum();
    part.blocks[..512].copy_from_slice(header.as_bytes());
    part
}

#[test]
fn onto_slash_exactly_the_plan_is_done_and_undone() {
    let slash = Slash::new();
    slash.write("etc/motd", "here\n");
    let parts = [file("etc/motd", "there\n"), folder("etc/cron.d"), file("etc/cron.d/new", "# new\n")];
    let forge =
        Forge::new().with([of("banners")(parts[0].clone())]).with(parts[1..].iter().cloned().map(of("cron")));
    let snapshot = slash.snapshot(&forge.bytes());
    let before = slash.picture();
    let (plan, changed) = slash.restore(&snapshot, 0);
    assert_eq!(changed, steps(&plan));
    assert_eq!(slash.read("etc/motd"), "there\n");
    slash.exits(0, &["undo"]);
    assert_same(&slash.picture(), &before);
}

#[test]
fn paths_that_are_no_rows_of_the_catalogue_are_left_alone() {
    let slash = Slash::new();
    for path in ["etc/ld.so.preload", "boot/vmlinuz", "usr/bin/ls", "etc/shadow", "root/.bash_history", "x"] {
        for item in ["banners", "cron", "hosts", "pve-other", "pve-storage", "no-such-row"] {
            let forge = Forge { parts: vec![of(item)(file(path, "evil\n"))], ..Forge::new() };
            let snapshot = slash.snapshot(&forge.bytes());
            let before = slash.whole();
            let (plan, changed) = slash.restore(&snapshot, 3);
            assert_eq!((steps(&plan), changed), (BTreeSet::new(), BTreeSet::new()), "{item} {path}");
            assert_eq!(plan["refused"][0]["path"], path, "{item}: {plan}");
            assert_same(&slash.whole(), &before);
        }
    }
    // Whatever a snapshot says that its configuration named.
    for path in [
        "proc/sys/kernel/core_pattern",
        "sys/x",
        "dev/sda",
        "run/x",
        "var/run/x",
        "var/lib/proxmox-backup-extra/undo/x/record.json",
        "var/lib/proxmox-backup-extra/store/x",
        "etc/pve/storage.cfg",
        "etc/pve/corosync.conf",
    ] {
        for item in ["include", "snippets", "mount-secrets"] {
            let forge = Forge { parts: vec![of(item)(file(path, "evil\n"))], ..Forge::new() };
            let snapshot = slash.snapshot(&forge.bytes());
            let (plan, changed) = slash.restore(&snapshot, 3);
            assert_eq!((steps(&plan), changed), (BTreeSet::new(), BTreeSet::new()), "{item} {path}: {plan}");
        }
    }
}

#[test]
fn a_link_out_of_etc_leads_no_restore_out_of_it() {
    let slash = Slash::new();
    fs::create_dir(slash.root().join("srv/out")).unwrap();
    for target in ["/srv/out", "../srv/out", "/proc/self/root/srv/out", "cron.hourly"] {
        let _ = fs::remove_file(slash.root().join("etc/cron.d"));
        fs::create_dir_all(slash.root().join("etc/cron.hourly")).unwrap();
        symlink(target, slash.root().join("etc/cron.d")).unwrap();
        for parts in
            [vec![file("etc/cron.d/evil", "x")], vec![folder("etc/cron.d"), file("etc/cron.d/evil", "x")]]
        {
            let forge = Forge { parts: parts.into_iter().map(of("cron")).collect(), ..Forge::new() };
            let snapshot = slash.snapshot(&forge.bytes());
            let (plan, changed) = slash.restore(&snapshot, 3);
            assert_eq!((steps(&plan), changed), (BTreeSet::new(), BTreeSet::new()), "{target}: {plan}");
            assert!(plan["refused"].to_string().contains("is a link here"), "{target}: {plan}");
        }
    }
}

#[test]
fn links_are_put_back_as_links_and_never_written_through() {
    let slash = Slash::new();
    for target in ["/srv/victim", "../srv/victim", "../../../../../srv/victim", "/proc/self/fd/0"] {
        let there = Forge { parts: vec![of("banners")(link("etc/motd", target))], ..Forge::new() };
        let snapshot = slash.snapshot(&there.bytes());
        let (plan, changed) = slash.restore(&snapshot, 0);
        assert_eq!(changed, steps(&plan), "{target}");
        assert_eq!(fs::read_link(slash.root().join("etc/motd")).unwrap(), Path::new(target));
        // A file in the link's place, and not in that of what it names.
        let file = Forge { parts: vec![of("banners")(file("etc/motd", "new\n"))], ..Forge::new() };
        let snapshot = slash.snapshot(&file.bytes());
        let (plan, changed) = slash.restore(&snapshot, 0);
        assert_eq!(changed, steps(&plan), "{target}");
        assert_eq!(
            (slash.read("etc/motd"), slash.read("srv/victim")),
            ("new\n".into(), "untouched\n".into())
        );
        // Back to the link, then to nothing.
        let [.., of_link, of_file] = &slash.undos()[..] else { panic!("two restores") };
        slash.exits(0, &["undo", of_file]);
        assert_eq!(fs::read_link(slash.root().join("etc/motd")).unwrap(), Path::new(target));
        slash.exits(0, &["undo", of_link]);
        assert!(fs::symlink_metadata(slash.root().join("etc/motd")).is_err());
    }
}

#[test]
fn a_second_name_of_a_file_is_never_written_to() {
    let slash = Slash::new();
    fs::hard_link(slash.root().join("srv/victim"), slash.root().join("etc/motd")).unwrap();
    // And in the snapshot it is a second name of the host's own.
    let parts = vec![file("etc/hostname", "tiny\n"), of("banners")(hard_link("etc/motd", "etc/hostname"))];
    let snapshot = slash.snapshot(&Forge { parts, ..Forge::new() }.bytes());
    let (_, changed) = slash.restore(&snapshot, 0);
    // The host's own other name is told by what it lost.
    assert_eq!(changed, ["etc/motd", "srv/victim"].map(str::to_owned).into());
    assert_eq!((slash.read("etc/motd"), slash.read("srv/victim")), ("tiny\n".into(), "untouched\n".into()));
    slash.write("etc/motd", "changed\n");
    assert_eq!(slash.read("etc/hostname"), "tiny\n");
}

#[test]
fn a_name_with_a_newline_is_one_line_of_the_plan() {
    let slash = Slash::new();
    fs::create_dir(slash.root().join("etc/cron.d")).unwrap();
    let names =
        ["etc/cron.d/a\nb", "etc/cron.d/\x1b[2J", "etc/cron.d/ ", "etc/cron.d/-rf", "etc/cron.d/$(reboot)"];
    let parts = names.map(|name| of("cron")(file(name, "# evil\n"))).to_vec();
    let snapshot = slash.snapshot(&Forge { parts, ..Forge::new() }.bytes());
    let before = slash.picture();
    let (out, _) = slash.exits(0, &["restore", &snapshot, "--dry-run"]);
    assert_eq!(out.lines().filter(|line| line.contains("create")).count(), names.len() + 1, "{out}");
    assert!(!out.chars().any(|c| c.is_control() && c != '\n'), "{out:?}");
    let (_, changed) = slash.restore(&snapshot, 0);
    assert_eq!(changed, names.map(str::to_owned).into());
    slash.exits(0, &["undo"]);
    assert_same(&slash.picture(), &before);
}

#[test]
fn a_program_that_would_run_as_its_owner_is_told_in_the_plan() {
    let slash = Slash::new();
    fs::create_dir_all(slash.root().join("usr/local/bin")).unwrap();
    let part = with_mode(file("usr/local/bin/evil", "#!/bin/sh\n"), 0o4755);
    let part = part.entry(|entry| entry["item"] = "local".into());
    let forge = Forge { parts: vec![part], ..Forge::new() };
    let snapshot = slash.snapshot(&forge.bytes());
    let (out, _) = slash.exits(0, &["restore", &snapshot, "--dry-run"]);
    assert!(out.contains("/usr/local/bin/evil") && out.contains("[setuid: runs as user 0]"), "{out}");
}

#[test]
fn kinds_that_could_be_opened_instead_of_read_reach_no_disk() {
    for kind in [EntryType::Char, EntryType::Block, EntryType::Fifo] {
        let blocks = member(kind, b"etc/motd", b"", b"");
        let part = of("banners")(Part { blocks, ..file("etc/motd", "") });
        let forge = Forge { parts: vec![part], ..Forge::new() };
        refused_on_slash(&forge.bytes(), 4, "is of type");
    }
}

/// Swaps the folder for a link, at the moment when systemd is told of the first files. An undo tells it of them, too.
const SWAP: &str = "if [ \"$1\" = daemon-reload ] && [ ! -e /run/swapped ]; then : > /run/swapped; mv /etc/network /etc/old && ln -s /srv/out /etc/network; fi";

#[test]
fn a_folder_swapped_for_a_link_in_the_midst_of_a_restore_stops_it() {
    let slash = Slash::new();
    slash.tool("systemctl", SWAP);
    // Who would undo it when nobody confirms.
    slash.tool("setsid", "shift; \"$@\" &");
    slash.write("etc/network/interfaces", "auto lo\n");
    slash.write("srv/out/interfaces", "auto lo\n");
    slash.write("etc/systemd/system/a.service", "[Unit]\n");
    let parts = vec![
        of("systemd-units")(file("etc/systemd/system/a.service", "[Unit]\nDescription=a\n")),
        of("network")(file("etc/network/interfaces", "auto lo eth0\n")),
    ];
    let snapshot = slash.snapshot(&Forge { parts, ..Forge::new() }.bytes());
    let before = slash.picture();
    let (_, err) = slash.exits(1, &["restore", &snapshot, "--yes"]);
    assert!(
        err.contains("cannot put back /etc/network/interfaces: its directory is a link or a file now"),
        "{err}"
    );
    assert_eq!(slash.read("srv/out/interfaces"), "auto lo\n");
    assert_eq!(slash.read("etc/systemd/system/a.service"), "[Unit]\n");
    // What lies behind the link is not taken for the file; once the folder is back, nothing is left.
    fs::remove_file(slash.root().join("etc/network")).unwrap();
    fs::rename(slash.root().join("etc/old"), slash.root().join("etc/network")).unwrap();
    slash.exits(0, &["undo"]);
    assert_same(&slash.picture(), &before);
}

#[test]
fn a_folder_swapped_for_a_link_after_the_plan_was_saved_stops_it() {
    let slash = Slash::new();
    slash.write("etc/cron.d/job", "# old\n");
    slash.write("srv/out/job", "# old\n");
    let parts = vec![of("cron")(file("etc/cron.d/job", "# new\n"))];
    let snapshot = slash.snapshot(&Forge { parts, ..Forge::new() }.bytes());
    slash.exits(0, &["restore", &snapshot, "--plan", "/root/plan.json"]);
    fs::rename(slash.root().join("etc/cron.d"), slash.root().join("etc/old")).unwrap();
    symlink("/srv/out", slash.root().join("etc/cron.d")).unwrap();
    let before = slash.whole();
    let (out, err) = slash.exits(1, &["restore", "--apply", "/root/plan.json", "--yes"]);
    assert_eq!(out, "");
    assert!(err.contains("changed since the plan was made: /etc/cron.d/job"), "{err}");
    assert_same(&slash.whole(), &before);
}

#[test]
fn what_a_thread_says_is_not_waited_for() {
    let slash = Slash::new();
    // Nobody is there, and each attempt that fails is told by the thread that makes it.
    slash.write(
        "etc/proxmox-backup-extra/pbx-config.cfg",
        "ntfy: phone\n\turl http://127.0.0.1:1\n\ttopic a\n\tretries 0\n",
    );
    let (out, err) = slash.exits(1, &["-vv", "notify", "test"]);
    assert!(out.contains("FAILED  ntfy 'phone': http://127.0.0.1:1: "), "{out}");
    assert!(err.contains("debug: ntfy 'phone': "), "{err}");
}
