//! The configuration moves: out and in as YAML or JSON, and in from the predecessor.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;

use common::TestHost;
use pbx_config::model::problem::Exit;

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
            done.err.contains("api 'pve': the secret is masked, and this host has no such secret"),
            "{}",
            done.err
        );
    }
}

#[test]
fn several_secrets_of_one_key_are_each_kept_in_their_place() {
    let host = TestHost::empty();
    host.configure("webhook: w\n\tformat generic\n");
    let secrets = "webhook: w\n\turl https://h.example.org\n\tsecret-header X-A: 1\n\tsecret-header X-B: 2\n";
    host.write("etc/proxmox-backup-extra/secrets.cfg", secrets);
    private(&host, "secrets.cfg");
    let file = host.beside("in.yaml");
    let out = host.run(&["config", "export"]).ok();
    fs::write(&file, &out.out).unwrap();
    let file = file.to_str().unwrap();
    host.run(&["config", "import", file]).ok();
    assert_eq!(config_file(&host, "secrets.cfg"), secrets);
    // A new one among them keeps the others; which of two a single mask means is never guessed.
    fs::write(file, out.out.replacen("    - \"***\"\n", "    - \"***\"\n    - \"X-C: 3\"\n", 1)).unwrap();
    host.run(&["config", "import", file]).ok();
    assert!(
        config_file(&host, "secrets.cfg").contains("X-A: 1\n\tsecret-header X-C: 3\n\tsecret-header X-B: 2")
    );
    let done = host.run(&["config", "import", file]).exits(Exit::Usage);
    assert!(
        done.err.contains("webhook 'w': secret-header: 2 masked secrets, but this host has 3"),
        "{}",
        done.err
    );
}

#[test]
fn what_is_no_document_is_refused_with_the_reason_and_never_with_a_value() {
    let host = TestHost::empty();
    let file = host.beside("in.yaml");
    let head = "format: 1\nsections:\n";
    let bomb: String = (0..8).fold("    a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned(), |text, n| {
        let all = vec![format!("*a{n}"); 9].join(", ");
        format!("{text}    a{}: &a{} [{all}]\n", n + 1, n + 1)
    });
    for (text, expected) in [
        (
            format!("{head}- kind: dir\n  id: a\n  keys:\n    path: /a\n    path: /b\n"),
            "7: cannot be read as a configuration: 'path' is given twice",
        ),
        (
            format!("{head}- kind: dir\n  kind: dir\n"),
            "4: cannot be read as a configuration: 'kind' is given twice",
        ),
        (
            format!("{head}- kind: dir\n  id: a\n  key: {{}}\n"),
            "'key' is not allowed here, only kind, id, keys, secrets",
        ),
        (format!("{head}- id: a\n"), "'kind' is missing"),
        ("sections: []\n".to_owned(), "'format' is missing"),
        (format!("{head}- kind: dir\n\tid: a\n"), "neither YAML nor JSON"),
        (
            format!("{head}- kind: gotify\n  id: g\n  secrets:\n    token: s3cret: b\n"),
            "neither YAML nor JSON",
        ),
        (
            format!("{head}- {{kind: dir, id: a, keys: {{path: {{a: s3cret}}}}}}\n"),
            "this value has the wrong type",
        ),
        (format!("{head}- kind: dir\n  id: a\n  keys: [s3cret]\n"), "this value has the wrong type"),
        ("format: 1\nsections: []\n---\nformat: 1\n".to_owned(), "more than one document"),
        ("{\"format\": 1,\n\"sections\": [".to_owned(), "2: cannot be read as a configuration: "),
        (
            format!("{head}- kind: dir\n  id: a\n  keys:\n{bomb}"),
            "nested too deeply or has too many references",
        ),
        (
            format!("{head}- {{kind: dir, id: a, keys: {{path: {}}}}}\n", "[".repeat(5000)),
            "cannot be read as a configuration: ",
        ),
    ] {
        fs::write(&file, &text).unwrap();
        let done = host.run(&["config", "import", file.to_str().unwrap()]).exits(Exit::Usage);
        let told = done.err.chars().take(300).collect::<String>();
        assert!(
            done.err.contains(expected),
            "{expected}: {told}\n{}",
            text.chars().take(200).collect::<String>()
        );
        assert!(!done.err.contains("s3cret"), "{told}");
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
            "in.yaml:7: this key or value does not fit",
        ),
        (format!("{head}- kind: dir\n  id: a\n  keys:\n    path: [[/a]]\n"), "a list inside a list"),
        (
            format!("{head}- {{kind: dir, id: a, keys: {{path: /a}}}}\n- {{kind: dir, id: a}}\n"),
            "in.yaml:4: dir 'a': defined twice (first in line 3)",
        ),
        (
            format!("{head}- {{kind: api, id: pve, keys: {{token: a@b!c, secret: s3cr3t}}}}\n"),
            "must not be in a file that others can read",
        ),
        (
            format!("{head}- {{kind: backup, id: main, keys: {{compression: lz4}}}}\n"),
            "unknown compression 'lz4'",
        ),
        (
            format!("{head}- {{kind: backup, id: main, keys: {{skip: nothing}}}}\n"),
            "item or category 'nothing'",
        ),
        ("format: 2\nsections: []\n".to_owned(), "in.yaml:1: has format 2"),
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

// The predecessor's configuration

fn old_env(host: &TestHost, text: &str) {
    host.write("opt/proxsave/configs/backup.env", text);
}

/// What became of an option, as the report tells it.
fn fate(done: &common::Done, key: &str) -> String {
    let value = done.json();
    let options = value["options"].as_array().unwrap();
    let one = options.iter().find(|one| one["key"] == key).unwrap_or_else(|| panic!("{key}: {}", done.out));
    let text = ["becomes", "why", "instead", "what", "hint"].iter().find_map(|word| one[word].as_str());
    format!("{}: {}", one["fate"].as_str().unwrap(), text.unwrap_or_default())
}

fn configuration(done: &common::Done) -> String {
    done.json()["configuration"].as_str().unwrap().to_owned()
}

#[test]
fn every_option_of_the_old_tool_is_accounted_for_whatever_it_says() {
    let keys: Vec<&str> = pbx_config::config::legacy::keys().collect();
    assert!(keys.len() > 220, "{}", keys.len());
    let mut sorted = keys.clone();
    sorted.sort_unstable();
    sorted.dedup();
    assert_eq!(sorted.len(), keys.len(), "a name stands in two rows");
    for value in [
        "",
        "yes",
        "false",
        "7",
        "/srv/x",
        "x y z",
        "age1abc",
        "\u{1b}[2J",
        "'quoted'",
        "gfs",
        "daemon",
        "5m",
    ] {
        let host = TestHost::golden("pve-single");
        // Each alone is a table walk; all at once is a file that is accepted.
        let lines: Vec<String> = keys.iter().map(|key| format!("{key}={value}")).collect();
        let text = lines.join("\n") + "\n";
        old_env(&host, &text);
        let done = host.run(&["migrate", "--json"]);
        assert!(matches!(done.exit, Exit::Ok | Exit::Problems), "{value}: {}", done.err);
        let options = done.json()["options"].as_array().unwrap().clone();
        for key in &keys {
            let known = |one: &&serde_json::Value| {
                one["key"] == *key || one["written_as"] == *key || one["written-as"] == *key
            };
            let one = options.iter().find(known);
            // Of two names of one option the first that says something is told; the other stands for the same.
            if let Some(one) = one {
                assert_ne!(one["fate"], "unknown", "{key}={value}");
                assert!(
                    !value.is_empty() && one["fate"] != "not-set" || value.is_empty(),
                    "{key}={value} is not told"
                );
            }
        }
        accepted(&host);
    }
}

/// What is written is what every later run accepts.
fn accepted(host: &TestHost) {
    let done = host.run(&["migrate", "--write", "--force", "--json"]);
    assert!(matches!(done.exit, Exit::Ok | Exit::Problems), "{}", done.err);
    let done = host.run(&["config", "show"]);
    assert!(
        matches!(done.exit, Exit::Ok | Exit::Problems),
        "{}\n{}",
        done.err,
        config_file(host, "pbx-config.cfg")
    );
    let secrets = host.root.join("etc/proxmox-backup-extra/secrets.cfg");
    if secrets.exists() {
        assert_eq!(fs::metadata(secrets).unwrap().permissions().mode() & 0o777, 0o600);
    }
}

#[test]
fn each_option_alone_is_told_and_accepted() {
    let host = TestHost::empty();
    for key in pbx_config::config::legacy::keys() {
        for value in ["true", "3", "text"] {
            old_env(&host, &format!("{key}={value}\n"));
            let done = host.run(&["migrate", "--json"]);
            assert!(matches!(done.exit, Exit::Ok | Exit::Problems), "{key}: {}", done.err);
            let options = done.json()["options"].as_array().unwrap().clone();
            let told: Vec<_> = options.iter().filter(|one| one["line"] == 1).collect();
            assert_eq!(told.len(), 1, "{key}");
            let text = ["becomes", "why", "instead", "what"].iter().find_map(|word| told[0][word].as_str());
            assert!(text.is_some_and(|text| text.len() > 3), "{key}={value}: {}", told[0]);
        }
    }
}

#[test]
fn a_usual_installation_moves_in_one_step() {
    let host = TestHost::golden("pve-single");
    let age = "age1c92l66gk6neh8nhxnjah0gf55rjas0pljknfszyqmdr75vfpwgjsl78n4g";
    old_env(
        &host,
        "# ProxSave\r\nCOMPRESSION_TYPE=\"xz\" # best\r\nCOMPRESSION_LEVEL=9\r\nCOMPRESSION_MODE=standard\r\n\
        BACKUP_PATH=${BASE_DIR}/backup\r\nMAX_LOCAL_BACKUPS=15\r\nSECONDARY_ENABLED=true\r\nSECONDARY_PATH=/mnt/nas/proxsave\r\n\
        MAX_SECONDARY_BACKUPS=30\r\nBACKUP_EXCLUDE_PATTERNS=\"*/cache/**, /var/tmp/**, *.iso\"\r\n\
        CUSTOM_BACKUP_PATHS=\"\r\n# mine\r\n/srv/scripts\r\nopt/a[b]\r\n\"\r\nBACKUP_PVE_FIREWALL=false\r\n\
        ENCRYPT_ARCHIVE=true\r\nUSE_COLOR=true\r\nSCHEDULER_TIME=03:30\r\n",
    );
    host.write("opt/proxsave/identity/age/recipient.txt", format!("# who\n{age}\n"));
    host.write("etc/cron.d/proxsave", "# daily\n0 2 * * * root /opt/proxsave/build/proxsave\n");
    host.write(
        "etc/systemd/system/proxsave-daemon.service",
        "[Service]\nExecStart=/opt/proxsave/build/proxsave --daemon\n",
    );
    host.write("etc/proxmox-backup-extra/pbx-config.cfg", "# all of it comments, as shipped\n#dir: x\n");
    let before = common::tree::picture(&host.root, "opt");
    let done = host.run(&["migrate", "--write"]).ok();
    assert_eq!(common::tree::picture(&host.root, "opt"), before, "the old installation was touched");
    let text = config_file(&host, "pbx-config.cfg");
    let body = text.split_once("\n\n").unwrap().1;
    assert_eq!(
        body,
        format!(
            "backup: main
\tcompression xz
\tcompression-level 9
\texclude /*/cache/**
\texclude /var/tmp/**
\texclude /**/*.iso
\tinclude /srv/scripts
\tinclude /opt/a[[]b[]]
\tseal yes
\trecipient {age}
\tskip pve-firewall
\tskip pve-firewall-node
\tskip pve-firewall-vnet
\tskip pve-firewall-guest

dir: local
\tpath /var/lib/proxmox-backup-extra/store
\tkeep-last 15

dir: secondary
\tpath /mnt/nas/proxsave
\tkeep-last 30
"
        ),
        "{text}"
    );
    assert!(
        done.out.contains("sed -i '\\|/opt/proxsave/build/proxsave|s|^|#|' /etc/cron.d/proxsave"),
        "{}",
        done.out
    );
    assert!(done.out.contains("systemctl disable --now proxsave-daemon.service"), "{}", done.out);
    assert!(done.out.contains("OnCalendar=*-*-* 03:30:00"), "{}", done.out);
    assert_eq!(
        config_file(&host, "pbx-config.cfg.before-migrate"),
        "# all of it comments, as shipped\n#dir: x\n"
    );
    host.run(&["config", "check"]).ok();
    // A second time would be over a configuration.
    let refused = host.run(&["migrate", "--write"]).exits(Exit::Usage);
    assert!(refused.err.contains("this host is configured already"), "{}", refused.err);
    host.run(&["migrate", "--write", "--force"]).ok();
}

#[test]
fn counts_and_generations_become_keep_words_and_their_difference_is_told() {
    let host = TestHost::empty();
    let keeps = |env: &str| {
        old_env(&host, env);
        let done = host.run(&["migrate", "--json"]);
        let text = configuration(&done);
        text.lines().filter(|line| line.contains("keep-")).map(str::trim).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(keeps(""), "keep-last 7", "the default of its code");
    assert_eq!(keeps("MAX_LOCAL_BACKUPS=0\n"), "");
    assert_eq!(keeps("MAX_LOCAL_BACKUPS=many\n"), "keep-last 7");
    assert_eq!(keeps("LOCAL_RETENTION_DAYS=4\n"), "keep-last 4", "a count, whatever it is called");
    assert_eq!(keeps("LOCAL_RETENTION_DAYS=4\nMAX_LOCAL_BACKUPS=5\n"), "keep-last 5");
    assert_eq!(
        keeps("RETENTION_POLICY=gfs\nRETENTION_DAILY=7\nRETENTION_WEEKLY=4\nRETENTION_MONTHLY=12\n"),
        "keep-last 7 keep-weekly 4 keep-monthly 12 keep-yearly 1000"
    );
    assert_eq!(keeps("RETENTION_POLICY=gfs\nRETENTION_YEARLY=2\n"), "keep-last 1 keep-yearly 2");
    assert_eq!(keeps("RETENTION_WEEKLY=4\n"), "keep-last 7 keep-weekly 4", "as old versions would have kept");
    assert_eq!(keeps("RETENTION_POLICY=simple\nRETENTION_WEEKLY=4\n"), "keep-last 7");
    old_env(&host, "RETENTION_POLICY=gfs\nRETENTION_DAILY=7\n");
    let done = host.run(&["migrate"]).ok();
    assert!(done.out.contains("it counted backups, not days"), "{}", done.out);
}

#[test]
fn a_passphrase_keeps_opening_what_is_sealed_from_now_on() {
    let host = TestHost::empty();
    old_env(&host, "ENCRYPT_ARCHIVE=true\nAGE_RECIPIENT_FILE=${BASE_DIR}/identity/age/r.txt\n");
    let key = "age1c92l66gk6neh8nhxnjah0gf55rjas0pljknfszyqmdr75vfpwgjsl78n4g";
    let salt = "proxsave/age-passphrase/v2:00112233445566778899aabbccddeeff";
    host.write("opt/proxsave/identity/age/r.txt", format!("{key}\n"));
    host.write("opt/proxsave/identity/age/passphrase.salt", format!("{salt}\n"));
    let expected = format!(
        "recipient {key} $scrypt$ln=15,r=8,p=1$cHJveHNhdmUvYWdlLXBhc3NwaHJhc2UvdjI6MDAxMTIyMzM0NDU1NjY3Nzg4OTlhYWJiY2NkZGVlZmY"
    );
    assert!(configuration(&host.run(&["migrate", "--json"]).ok()).contains(&expected));
    // A secret key is never repeated, and no recipient.
    host.write("opt/proxsave/identity/age/r.txt", "AGE-SECRET-KEY-1QQQQ\n");
    let done = host.run(&["migrate", "--json"]).exits(Exit::Problems);
    assert!(!done.out.contains("QQQQ") && done.out.contains("no public key"), "{}", done.out);
}

#[test]
fn what_the_old_tool_did_not_understand_is_told_as_it_treated_it() {
    let host = TestHost::empty();
    old_env(
        &host,
        "BACKUP_ENABLED=maybe\nCOMPRESSION_LEVEL=high\nCOMPRESION_TYPE=xz\nWHATEVER=1\nno equals\n\
        RETENTION_POLICY=gsf\nSECONDARY_ENABLED=true\nSECONDARY_PATH=nas:/x\nMAX_PVE_BACKUP_SIZE=10X\nEMAIL_FROM=\"x\n\
        SCHEDULER_TIME=25:00\nBACKUP_BLACKLIST=${BASE_DIR}/log,/ok\nUSE_COLOR=1\nUSE_COLOR=0\nGOTIFY_TOKEN=a#b",
    );
    let done = host.run(&["migrate", "--json"]).exits(Exit::Problems);
    for (key, expected) in [
        (
            "BACKUP_ENABLED",
            "invalid: 'maybe' is not a valid boolean (yes or no); the legacy program treated it as no",
        ),
        (
            "COMPRESSION_LEVEL",
            "invalid: 'high' is not a valid whole number; the legacy program treated it as its default 6, so it is now backup: main / compression-level 6",
        ),
        (
            "COMPRESION_TYPE",
            "unknown: the legacy program did not have this option; did you mean COMPRESSION_TYPE?",
        ),
        ("WHATEVER", "unknown: the legacy program did not have this option and ignored it"),
        ("RETENTION_POLICY", "invalid: 'gsf' is not a valid value (one of simple, gfs)"),
        (
            "SECONDARY_ENABLED",
            "invalid: 'nas:/x' is not a directory of this host; the legacy program refused to run",
        ),
        (
            "MAX_PVE_BACKUP_SIZE",
            "invalid: '10X' is not a valid size; the legacy program treated it as an error and stopped",
        ),
        ("SCHEDULER_TIME", "invalid: '25:00' is not a valid time; the legacy program used 02:00"),
        (
            "BACKUP_BLACKLIST",
            "invalid: '/${BASE_DIR}/log' contains a variable, which the legacy program did not expand in lists",
        ),
    ] {
        assert!(fate(&done, key).starts_with(expected), "{key}: {}", fate(&done, key));
    }
    let remarks: Vec<String> = done.json()["remarks"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| format!("{} {}", one["line"], one["what"]))
        .collect();
    for expected in [
        "5 \"has no '='",
        "10 \"the closing quote is missing",
        "13 \"set again in line 14",
        "15 \"the legacy program cut the value",
        "15 \"the last line has no line break",
    ] {
        assert!(remarks.iter().any(|remark| remark.starts_with(expected)), "{expected}: {remarks:?}");
    }
    for (text, expected) in [
        (&b"A=1\nBACKUP_BLACKLIST=\"\n/a\n"[..], "backup.env:2: the block of BACKUP_BLACKLIST has no end"),
        (b"A=\xff\n", "backup.env:1: is not UTF-8"),
    ] {
        host.write("opt/proxsave/configs/backup.env", text);
        let done = host.run(&["migrate"]).exits(Exit::Usage);
        assert!(done.err.contains(expected), "{}", done.err);
    }
    let done = TestHost::empty().run(&["migrate"]).exits(Exit::NotFound);
    assert!(done.err.contains("looked for"), "{}", done.err);
    host.run(&["migrate", "/nonexistent/backup.env"]).exits(Exit::NotFound);
}

#[test]
fn words_of_the_users_own_and_words_that_hang_on_others_are_read_as_the_old_tool_did() {
    let host = TestHost::empty();
    old_env(
        &host,
        "STORE_ROOT=/mnt/usb\nBACKUP_PATH=${STORE_ROOT}/old\nBACKUP_DATASTORE_CONFIGS=false\n\
        BACKUP_PBS_ACME_ACCOUNTS=maybe\nBACKUP_PBS_ACME_PLUGINS=false\nSYSTEM_ROOT_PREFIX=\nCRON_HOUR=\n\
        METRICS_ENABLED=true\nMETRICS_PATH=${BASE_DIR}/metrics\nWEBHOOK_ENABLED=true\nWEBHOOK_ENDPOINTS=a,b\n\
        WEBHOOK_A_URL=https://a.example.org/x\nWEBHOOK_OLD_URL=https://s3cret.example.org/x\n\
        SAFE_PROCESSES=java,regex:^x+$\n",
    );
    let done = host.run(&["migrate", "--json"]).exits(Exit::Problems);
    for (key, expected) in [
        ("STORE_ROOT", "not-needed: a variable that other values in the file use"),
        ("BACKUP_PATH", "taken: dir: local / path /mnt/usb/old"),
        ("BACKUP_PBS_S3_ENDPOINTS", "taken: backup: main / skip pbs-s3"),
        (
            "BACKUP_PBS_ACME_ACCOUNTS",
            "invalid: 'maybe' is not a valid boolean (yes or no); the legacy program treated it as no, so it is now backup: main / skip pbs-acme",
        ),
        ("BACKUP_PBS_ACME_PLUGINS", "taken: backup: main / skip pbs-acme"),
        ("SYSTEM_ROOT_PREFIX", "not-needed: the value is empty"),
        ("CRON_HOUR", "not-needed: the value is empty"),
        ("METRICS_PATH", "taken: prometheus: textfile / path /opt/proxsave/metrics"),
        ("WEBHOOK_ENDPOINTS", "taken: webhook: a"),
        ("WEBHOOK_OLD_URL", "not-needed: WEBHOOK_ENDPOINTS does not contain this endpoint"),
    ] {
        assert!(fate(&done, key).starts_with(expected), "{key}: {}", fate(&done, key));
    }
    let text = host.run(&["migrate"]).exits(Exit::Problems).out;
    for note in [
        "note: skipped, without a URL: b",
        "note: it is in the old installation: set another directory",
        "note: not set; BACKUP_DATASTORE_CONFIGS",
        "note: if it is a mount point",
        "note: skipped: regex:^x+$; regular expressions are not supported",
    ] {
        assert!(text.contains(note), "{note}: {text}");
    }
    assert!(!text.contains("s3cret"), "{text}");
    // All of it is a file that the old tool took; nothing is left to look at.
    old_env(&host, "STORE_ROOT=/mnt/usb\nBACKUP_PATH=$STORE_ROOT/old\n");
    host.run(&["migrate"]).ok();
    host.write("opt/proxsave/configs/backup.env", b"# f\xfcr uns\nMAX_LOCAL_BACKUPS=3\n");
    assert!(configuration(&host.run(&["migrate", "--json"]).ok()).contains("keep-last 3"));
}

#[test]
fn one_line_that_cannot_stand_costs_no_store_and_no_channel() {
    let host = TestHost::empty();
    host.write("root/mine.conf", "[gdrive]\ntype = alias\nremote = /x\n");
    old_env(
        &host,
        "ENABLE_CLOUD_BACKUP=true\nRCLONE_REMOTE=gdrive:pbs\nRCLONE_FLAGS=\"--checkers=4 --config /root/mine.conf\"\n\
        EMAIL_ENABLED=true\nEMAIL_FROM=\"Backup <pve@example.org>\"\nEMAIL_DELIVERY_METHOD=sendmail\n\
        WEBHOOK_ENABLED=true\nWEBHOOK_ENDPOINTS=x\nWEBHOOK_X_URL=https://x.example.org/\nWEBHOOK_X_HEADERS=\"X-A:b,Host:c\"\n\
        ENCRYPT_ARCHIVE=true\nAGE_RECIPIENTS=age1xyz\nGREEN=1\nCUSTOM_BACKUP_PATHS=\"/etc/a /etc/b\"\n",
    );
    let done = host.run(&["migrate", "--write", "--json"]).exits(Exit::Problems);
    let text = config_file(&host, "pbx-config.cfg");
    for line in [
        "\tflags --checkers=4\n\tconfig /root/mine.conf\n",
        "sendmail: mail\n\tfrom pve@example.org\n",
        "webhook: x\n",
        "\tseal yes\n",
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }
    assert!(config_file(&host, "secrets.cfg").contains("secret-header X-A:b\n"));
    assert!(!text.contains("age1xyz"), "no run could seal to it: {text}");
    for (key, expected) in [
        ("RCLONE_FLAGS", "taken: rclone: cloud / flags --checkers=4, rclone: cloud / config /root/mine.conf"),
        ("WEBHOOK_X_HEADERS", "invalid: 'webhook: x / secret-header' is not valid: secret-header: Host"),
        ("AGE_RECIPIENT", "invalid: 'backup: main / recipient' is not valid"),
        ("GREEN", "not-needed: a terminal colour"),
    ] {
        assert!(fate(&done, key).starts_with(expected), "{key}: {}", fate(&done, key));
    }
    assert!(done.out.contains("blanks do not separate paths"), "{}", done.out);
    // A flag that no store takes costs itself and its neighbours, not the copy.
    old_env(
        &host,
        "CLOUD_ENABLED=true\nCLOUD_REMOTE=a:b\nRCLONE_FLAGS=\"--drive-client-secret=s3cret --max-age=1d\"\n",
    );
    let done = host.run(&["migrate", "--json"]).exits(Exit::Problems);
    assert!(configuration(&done).contains("rclone: cloud\n\tremote a:b\n"), "{}", done.out);
    assert!(fate(&done, "RCLONE_FLAGS").starts_with("invalid: 'rclone: cloud / flags'"), "{}", done.out);
    assert!(!done.out.contains("s3cret"), "{}", done.out);
}

#[test]
fn secrets_go_to_their_file_and_nowhere_else() {
    let host = TestHost::empty();
    old_env(
        &host,
        "GOTIFY_ENABLED=yes\nGOTIFY_SERVER_URL=https://g.example.org\nGOTIFY_TOKEN=s3cr3t\nPBS_PASSWORD=pw5ecret\n",
    );
    for args in [&["migrate"][..], &["migrate", "--json"], &["migrate", "--all"], &["migrate", "--write"]] {
        let done = host.run(args).ok();
        for secret in ["s3cr3t", "pw5ecret"] {
            assert!(!done.out.contains(secret) && !done.err.contains(secret), "{}", done.out);
        }
    }
    assert!(config_file(&host, "secrets.cfg").contains("gotify: gotify\n\ttoken s3cr3t\n"));
    assert!(!config_file(&host, "pbx-config.cfg").contains("s3cr3t"));
    let mode =
        fs::metadata(host.root.join("etc/proxmox-backup-extra/secrets.cfg")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn another_systems_disk_is_read_from_where_it_is_mounted() {
    let (old, new) = (TestHost::empty(), TestHost::empty());
    old.write("opt/proxmox-backup/env/backup.env", "MAX_LOCAL_BACKUPS=3\nLOCAL_BACKUP_PATH=${BASE_DIR}/x\n");
    old.write(
        "var/spool/cron/crontabs/root",
        "0 2 * * * /opt/proxmox-backup/build/proxmox-backup >/dev/null\n",
    );
    let done = new.run(&["migrate", "--from-root", old.root.to_str().unwrap(), "--write"]).ok();
    assert!(done.out.contains("(of /opt/proxmox-backup)"), "{}", done.out);
    assert!(
        done.out
            .contains("crontab -l | sed '\\|/opt/proxmox-backup/build/proxmox-backup|s|^|#|' | crontab -"),
        "{}",
        done.out
    );
    assert!(config_file(&new, "pbx-config.cfg").contains("keep-last 3"));
}

#[test]
fn channels_are_taken_over_with_all_that_they_had() {
    let host = TestHost::empty();
    old_env(
        &host,
        "TELEGRAM_ENABLED=yes\nBOT_TELEGRAM_TYPE=personal\nTELEGRAM_BOT_TOKEN=123456:abc-DEF\nTELEGRAM_CHAT_ID=42\n\
        EMAIL_ENABLED=true\nEMAIL_DELIVERY_METHOD=relay\nEMAIL_RECIPIENT=root@example.org\n\
        WEBHOOK_ENABLED=true\nWEBHOOK_ENDPOINTS=my-chat,ops,push,nowhere\nWEBHOOK_MY_CHAT_URL=https://discord.example/api/x\n\
        WEBHOOK_MY_CHAT_FORMAT=discord\nWEBHOOK_OPS_URL=http://ops.example/hook\nWEBHOOK_OPS_METHOD=PUT\n\
        WEBHOOK_OPS_AUTH_TYPE=hmac\nWEBHOOK_OPS_AUTH_SECRET=s3cr3t\nWEBHOOK_OPS_HEADERS=X-A:1,X-B:2\n\
        WEBHOOK_PUSH_URL=https://api.pushover.net/1/messages.json\nWEBHOOK_PUSH_FORMAT=pushover\nWEBHOOK_PUSH_AUTH_TOKEN=apptoken\n\
        WEBHOOK_PUSH_AUTH_USER=userkey\nWEBHOOK_NOWHERE_FORMAT=slack\n\
        METRICS_ENABLED=true\nMETRICS_PATH=/srv/metrics\nHEALTHCHECK_ENABLED=true\nHEALTHCHECK_MODE=self\nHEALTHCHECK_PING_KEY=pingkey\nHEALTHCHECK_BACKUP_ID=backup\n",
    );
    let done = host.run(&["migrate", "--write", "--json"]).exits(Exit::Problems);
    for line in [
        "telegram: telegram\n\tchat 42",
        "sendmail: mail\n\tto root@example.org",
        "webhook: my-chat\n\tformat discord",
        "webhook: ops\n\tallow-http yes\n\tmethod put\n\tauth hmac\n\tformat generic",
        "webhook: push\n\tformat pushover",
        "healthchecks: backup",
        "prometheus: textfile\n\tpath /srv/metrics",
    ] {
        assert!(
            config_file(&host, "pbx-config.cfg").contains(line),
            "{line}: {}",
            config_file(&host, "pbx-config.cfg")
        );
    }
    let secrets = config_file(&host, "secrets.cfg");
    for line in [
        "\ttoken 123456:abc-DEF",
        "\turl https://discord.example/api/x",
        "\tsecret s3cr3t",
        "\tsecret-header X-A:1",
        "\ttoken apptoken",
        "\tuser userkey",
        "\turl https://hc-ping.com/pingkey/backup",
    ] {
        assert!(secrets.contains(line), "{line}: {secrets}");
    }
    for secret in ["abc-DEF", "s3cr3t", "apptoken", "userkey", "pingkey", "api/x", "X-A:1"] {
        assert!(!done.out.contains(secret), "{secret}: {}", done.out);
    }
    assert!(
        fate(&done, "EMAIL_DELIVERY_METHOD").contains("the relay is a server of the legacy program's author")
    );
    assert!(fate(&done, "WEBHOOK_NOWHERE_FORMAT").contains("the endpoint has no URL"));
    host.run(&["config", "check"]).ok();
    // What a channel of ours refuses is told, and not written.
    old_env(
        &host,
        "TELEGRAM_ENABLED=yes\nBOT_TELEGRAM_TYPE=personal\nTELEGRAM_BOT_TOKEN=nonsense\nTELEGRAM_CHAT_ID=42\n",
    );
    let done = host.run(&["migrate", "--write", "--force", "--json"]).exits(Exit::Problems);
    assert!(fate(&done, "TELEGRAM_BOT_TOKEN").contains("not a bot token"), "{}", done.out);
    assert!(!config_file(&host, "pbx-config.cfg").contains("telegram"));
    host.run(&["config", "check"]).ok();
}

#[test]
fn the_security_look_becomes_the_preflight_where_there_is_one() {
    let host = TestHost::empty();
    for (env, word) in [
        ("SECURITY_CHECK_ENABLED=false\n", "off"),
        ("SECURITY_CHECK_ENABLED=true\n", "stop"),
        ("SECURITY_CHECK_ENABLED=true\nCONTINUE_ON_SECURITY_ISSUES=true\n", "warn"),
        ("ABORT_ON_SECURITY_ISSUES=false\n", "warn"),
    ] {
        old_env(&host, &format!("{env}COMPRESSION_TYPE=zst\n"));
        let done = host.run(&["migrate", "--json"]);
        let text = configuration(&done);
        assert!(text.contains("compression zstd"), "{text}");
        let told = done.json()["options"].as_array().unwrap().iter().any(|one| {
            one["line"] == 1
                && (one["becomes"] == format!("backup: main / preflight {word}")
                    || one["what"].as_str().is_some_and(|what| what.contains("preflight")))
        });
        assert!(told, "{env}: {}", done.out);
        assert_eq!(text.contains("preflight"), text.contains(&format!("preflight {word}")), "{text}");
    }
}
