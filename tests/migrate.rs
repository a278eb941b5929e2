//! The configuration moves: out and in as YAML or JSON, and in from the predecessor.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;

use common::TestHost;
use pbx_config::model::report::Exit;

const OURS: &str = "backup: main
	compression xz
	compression-level 3
	include /srv/a b
	include /srv/no
	skip state

dir: local
	path /var/lib/proxmox-backup-extra/store
	keep-last 7

dir: nas
	path /mnt/007
	mountpoint yes

api: pve
	token pbx@pve!state
";
const SECRET: &str = "1e3-no-yes: 'quote\" # not a comment";

fn configured() -> TestHost {
    let host = TestHost::empty();
    host.configure(OURS);
    host.write("etc/proxmox-backup-extra/secrets.cfg", format!("api: pve\n\tsecret {SECRET}\n"));
    private(&host, "secrets.cfg");
    host
}

fn private(host: &TestHost, name: &str) {
    let path = host.root.join("etc/proxmox-backup-extra").join(name);
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

fn config_file(host: &TestHost, name: &str) -> String {
    fs::read_to_string(host.root.join("etc/proxmox-backup-extra").join(name)).unwrap()
}

#[test]
fn what_is_exported_comes_back_letter_for_letter() {
    for form in ["yaml", "json"] {
        let from = configured();
        let out = from.run(&["config", "export", "--format", form, "--secrets"]).ok().out;
        let to = TestHost::empty();
        let file = to.beside("in");
        fs::write(&file, &out).unwrap();
        to.run(&["config", "import", file.to_str().unwrap()]).ok();
        assert_eq!(config_file(&to, "pbx-config.cfg"), OURS, "{form}: {out}");
        assert_eq!(config_file(&to, "secrets.cfg"), format!("api: pve\n\tsecret {SECRET}\n"));
        let mode =
            fs::metadata(to.root.join("etc/proxmox-backup-extra/secrets.cfg")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(to.run(&["config", "export", "--format", form, "--secrets"]).ok().out, out);
    }
}

#[test]
fn a_secret_leaves_only_when_it_is_asked_for_and_is_kept_at_home() {
    let host = configured();
    for form in ["yaml", "json"] {
        let out = host.run(&["config", "export", "--format", form]).ok().out;
        assert!(!out.contains("1e3") && out.contains("***"), "{out}");
        let file = host.beside("in");
        fs::write(&file, out.replace("keep-last: \"7\"", "keep-last: \"8\"")).unwrap();
        let file = file.to_str().unwrap();
        assert!(!host.run(&["config", "import", "--dry-run", file]).ok().out.contains("1e3"));
        host.run(&["config", "import", file]).ok();
        assert!(config_file(&host, "secrets.cfg").contains(SECRET));
        // Elsewhere a mask stands for nothing.
        let done = TestHost::empty().run(&["config", "import", file]).exits(Exit::Usage);
        assert!(
            done.err.contains("api 'pve': a secret is masked, and there is none to keep"),
            "{}",
            done.err
        );
    }
}

#[test]
fn what_was_there_stays_beside_the_new_files() {
    let host = configured();
    host.configure("# mine\n");
    let file = host.beside("in.yaml");
    fs::write(&file, "format: 1\nsections:\n- {kind: dir, id: a, keys: {path: /a}}\n").unwrap();
    host.run(&["config", "import", file.to_str().unwrap()]).ok();
    assert_eq!(config_file(&host, "pbx-config.cfg"), "dir: a\n\tpath /a\n");
    assert_eq!(config_file(&host, "pbx-config.cfg.before-import"), "# mine\n");
    assert!(config_file(&host, "secrets.cfg.before-import").contains(SECRET));
    assert!(!host.root.join("etc/proxmox-backup-extra/secrets.cfg").exists(), "its sections are gone");
}

#[test]
fn a_value_is_taken_as_it_is_spelled() {
    let host = TestHost::empty();
    let file = host.beside("in.yaml");
    fs::write(&file, "format: 1\nsections:\n- kind: dir\n  id: a\n  keys:\n    path: /a\n    mountpoint: no\n    keep-last: 07\n    keep-daily: 3 # three\n").unwrap();
    host.run(&["config", "import", file.to_str().unwrap()]).ok();
    assert_eq!(
        config_file(&host, "pbx-config.cfg"),
        "dir: a\n\tpath /a\n\tmountpoint no\n\tkeep-last 07\n\tkeep-daily 3\n"
    );
}

#[test]
fn what_the_check_would_refuse_is_refused_with_its_line_and_nothing_is_written() {
    let host = TestHost::empty();
    let file = host.beside("in.yaml");
    let head = "format: 1\nsections:\n";
    for (text, expected) in [
        (
            format!("{head}- kind: dir\n  id: a\n  keys:\n    path: /a\n    colour: red\n"),
            "in.yaml:7: dir 'a': unknown key 'colour'",
        ),
        (format!("{head}- kind: dri\n  id: a\n"), "in.yaml:3: unknown kind 'dri'"),
        (
            format!("{head}- kind: dir\n  id: a\n  keys: {{path: a}}\n"),
            "in.yaml:5: dir 'a': path: must be absolute",
        ),
        (format!("{head}- kind: dir\n  id: a b\n"), "in.yaml:3: this is not the kind and id of a section"),
        (
            format!("{head}- kind: dir\n  id: a\n  keys:\n    path: |\n      /a\n      /b\n"),
            "in.yaml:7: this key or value cannot",
        ),
        (format!("{head}- kind: dir\n  id: a\n  keys:\n    path: [[/a]]\n"), "a list in a list"),
        (
            format!("{head}- {{kind: dir, id: a, keys: {{path: /a}}}}\n- {{kind: dir, id: a}}\n"),
            "in.yaml:4: dir 'a': defined twice (first in line 3)",
        ),
        (
            format!("{head}- {{kind: api, id: pve, keys: {{token: a@b!c, secret: s3cr3t}}}}\n"),
            "a secret has no place",
        ),
        (
            format!("{head}- {{kind: backup, id: main, keys: {{compression: lz4}}}}\n"),
            "there is no compression 'lz4'",
        ),
        (format!("{head}- {{kind: backup, id: main, keys: {{skip: nothing}}}}\n"), "'nothing' is no item"),
        ("format: 2\nsections: []\n".to_owned(), "in.yaml:1: is of format 2"),
        ("sections: []\n".to_owned(), "cannot be read as a configuration"),
        ("format: 1\nsections: [\n".to_owned(), "cannot be read as a configuration"),
        ("format: 1\nformat: 1\n".to_owned(), "in.yaml:2: cannot be read"),
        ("\u{0}".to_owned(), "cannot be read as a configuration"),
        (String::new(), "cannot be read as a configuration"),
        (format!("format: 1\nsections: {}", "[".repeat(100_000)), "cannot be read as a configuration"),
    ] {
        fs::write(&file, &text).unwrap();
        let done = host.run(&["config", "import", file.to_str().unwrap()]).exits(Exit::Usage);
        assert!(done.err.contains(expected), "{text}\n{}", done.err);
        assert!(!done.err.contains("s3cr3t"), "{}", done.err);
        assert!(!host.root.join("etc/proxmox-backup-extra").exists());
    }
    fs::write(&file, b"format: 1\nsections: []\n# \xff\n").unwrap();
    let done = host.run(&["config", "import", file.to_str().unwrap()]).exits(Exit::Usage);
    assert!(done.err.contains("in.yaml:3: is not UTF-8"), "{}", done.err);
    host.run(&["config", "import", "/nonexistent"]).exits(Exit::NotFound);
}
