//! What the predecessor made stays readable: listed, proven, taken out, and never removed but on request.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use common::TestHost;
use common::relics::{CODECS, Form, PASSPHRASE, Piece, Relic, SALT_V2, VECTORS, bundle};
use pbx_config::model::problem::Exit;

fn host() -> TestHost {
    TestHost::empty()
}

fn store(host: &TestHost) -> PathBuf {
    host.root.join("var/lib/proxmox-backup-extra/store")
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Read, shown, taken out: all that the verbs do with one.
fn whole(host: &TestHost, file: &Path, more: &[&str]) {
    let with =
        |words: &[&str]| -> Vec<String> { words.iter().chain(more).map(|word| (*word).to_owned()).collect() };
    let run = |words: &[&str]| {
        let words = with(words);
        host.run(&words.iter().map(String::as_str).collect::<Vec<_>>())
    };
    let name = text(file);
    run(&["verify", name]).ok();
    assert_eq!(run(&["cat", name, "etc/hostname"]).ok().out, "n1\n");
    assert_eq!(run(&["cat", name, ".pbx/state/pve/jobs/backup_jobs.json"]).ok().out, "[]");
    let shown = run(&["show", name, "--files", "--json"]).ok().json();
    let of = |path: &str| {
        shown["entries"].as_array().unwrap().iter().find(|entry| entry["path"] == path).unwrap().clone()
    };
    assert_eq!(of("etc/network/interfaces")["item"], "network");
    assert_eq!(of("etc/pve/storage.cfg")["item"], "pve-storage");
    assert_eq!(of("etc/shadow")["secret"], true);
    let to = host.beside(&format!("out-{}", file.file_name().unwrap().to_str().unwrap()));
    run(&["restore", name, "--to", text(&to)]).ok();
    assert_eq!(fs::read_to_string(to.join("etc/hosts")).unwrap(), "127.0.0.1 localhost\n");
    assert_eq!(fs::metadata(to.join("etc/shadow")).unwrap().permissions().mode() & 0o7777, 0o600);
    assert_eq!(fs::metadata(to.join("etc/hostname")).unwrap().mtime(), 1_780_000_000);
    assert_eq!(fs::read_link(to.join("etc/own-link")).unwrap(), Path::new("/usr/share/zoneinfo/UTC"));
}

#[test]
fn every_packing_in_every_form_is_read_to_the_last_byte() {
    let host = host();
    for (n, (codec, _)) in CODECS.iter().enumerate() {
        for (m, form) in [Form::Bundle, Form::Loose(".metadata"), Form::Loose(".manifest.json"), Form::Bash]
            .into_iter()
            .enumerate()
        {
            let file = Relic { codec, form, ..Relic::default() }.make(&host.beside(&format!("{n}-{m}")));
            whole(&host, &file, &[]);
            let _ = fs::remove_dir_all(
                host.beside(&format!("out-{}", file.file_name().unwrap().to_str().unwrap())),
            );
        }
    }
}

#[test]
fn replaced_files_are_files_again_with_their_own_modes_and_owners() {
    let host = host();
    let file = Relic::default().make(&host.beside("old"));
    let to = host.beside("out");
    host.run(&["restore", text(&file), "--to", text(&to)]).ok();
    for (path, mode, owner) in [("etc/second", 0o600, (12, 34)), ("usr/local/bin/copy", 0o755, (0, 0))] {
        let meta = fs::symlink_metadata(to.join(path)).unwrap();
        assert!(meta.is_file(), "{path}");
        assert_eq!(
            (meta.permissions().mode() & 0o7777, (meta.uid(), meta.gid()), meta.nlink()),
            (mode, owner, 1),
            "{path}"
        );
        assert_eq!(fs::read_to_string(to.join(path)).unwrap(), "auto lo\n");
    }
    // One alone, without the file that it equals.
    let one = host.beside("one");
    host.run(&["restore", text(&file), "--to", text(&one), "--path", "/etc/second"]).ok();
    assert_eq!(fs::read_to_string(one.join("etc/second")).unwrap(), "auto lo\n");
    assert!(!one.join("etc/network").exists());
    assert_eq!(host.run(&["cat", text(&file), "etc/second"]).ok().out, "auto lo\n");
    // Versions that did not list them leave links, and that is said.
    let file =
        Relic { listed: false, stamp: "20251101-020000", ..Relic::default() }.make(&host.beside("old"));
    let shown = host.run(&["show", text(&file)]).ok();
    assert!(shown.out.contains("2 links point to files of the same archive"), "{}", shown.out);
}

#[test]
fn large_replaced_files_are_whole_in_each_copy() {
    let host = host();
    let big: Vec<u8> = (0..9_u32 << 18).flat_map(u32::to_le_bytes).collect();
    let list = serde_json::json!([{ "path": "srv/b", "mode": 0o600 }, { "path": "srv/c", "mode": 0o640 }]);
    let more = vec![
        Piece::File("srv/a", big.clone(), 0o644),
        Piece::Link("srv/b", "a"),
        Piece::Link("srv/c", "a"),
        Piece::File("var/lib/proxsave-info/dedup_manifest.json", serde_json::to_vec(&list).unwrap(), 0o640),
    ];
    let file = Relic { codec: "zst", listed: false, more, ..Relic::default() }.make(&host.beside("old"));
    let to = host.beside("out");
    host.run(&["restore", text(&file), "--to", text(&to)]).ok();
    for name in ["a", "b", "c"] {
        assert!(fs::read(to.join("srv").join(name)).unwrap() == big, "{name}");
    }
}

#[test]
fn outputs_of_both_layouts_come_to_one_place_and_never_onto_a_host() {
    let host = host();
    for (seed, path) in
        [(false, ".pbx/state/commands/pve/pveversion.txt"), (true, ".pbx/state/commands/pveversion.txt")]
    {
        let file = Relic { seed, ..Relic::default() }.make(&host.beside(&format!("{seed}")));
        assert_eq!(host.run(&["cat", text(&file), path]).ok().out, "pve-manager/9.0.5\n");
        let shown = host.run(&["show", text(&file), "--json"]).ok().json();
        assert!(
            shown["outputs"]
                .as_array()
                .unwrap()
                .iter()
                .any(|output| path.ends_with(output["name"].as_str().unwrap()))
        );
    }
}

#[test]
fn old_archives_stand_beside_snapshots_in_every_list() {
    let host = TestHost::golden("bare");
    host.run(&["backup"]).ok();
    Relic::default().make(&store(&host));
    Relic {
        form: Form::Loose(".metadata"),
        stamp: "20260802-020000",
        created_at: "2026-08-02T02:00:00+02:00",
        ..Relic::default()
    }
    .make(&store(&host));
    Relic { form: Form::Bash, host: "n2", stamp: "20250101-020000", ..Relic::default() }
        .make(&store(&host).join("sub"));
    let out = host.run(&["list"]).ok().out;
    assert_eq!(out.lines().count(), 5, "{out}");
    assert!(
        out.contains("n1.lan/2026-08-01T00:00:00Z")
            && out.contains("[legacy] n1.lan-backup-20260801-020000.tar.xz.bundle.tar"),
        "{out}"
    );
    let listed = host.run(&["list", "--json"]).ok().json();
    let of = |id: &str| {
        listed["snapshots"].as_array().unwrap().iter().find(|one| one["id"] == id).unwrap().clone()
    };
    let one = of("n1.lan/2026-08-02T00:00:00Z");
    assert_eq!(one["legacy"], "n1.lan-backup-20260802-020000.tar.xz");
    assert_eq!(one["snapshot"]["legacy"]["bundle"], false);
    assert_eq!(one["snapshot"]["products"]["pve"], "9.0.5");
    assert_eq!(
        host.run(&["list", "--host", "n1"]).ok().out.lines().count(),
        3,
        "the short name means it too"
    );
    assert_eq!(host.run(&["list", text(&store(&host))]).ok().out.lines().count(), 5);
    // Named by the same words.
    for word in [
        "n1.lan/2026-08-01",
        "n1/2026-08-01",
        "n1/latest~1",
        "n1.lan-backup-20260801",
        "n1.lan-backup-20260801-020000.tar.xz.bundle.tar",
    ] {
        assert_eq!(host.run(&["cat", word, "etc/hostname"]).ok().out, "n1\n", "{word}");
    }
    let done = host.run(&["cat", "n1/2026", "etc/hostname"]).exits(Exit::NotFound);
    assert!(done.err.contains("matches 2 snapshots"), "{}", done.err);
    assert_ne!(host.run(&["cat", "latest", "etc/hostname"]).ok().out, "n1\n", "latest is this host's own");
}

#[test]
fn old_archives_in_a_cloud_are_listed_read_and_let_go_as_in_a_folder() {
    let host = host();
    let cloud = host.beside("cloud");
    host.tool("rclone", Path::new("/usr/bin/rclone"));
    host.write("rclone.conf", format!("[away]\ntype = alias\nremote = {}\n", text(&cloud)));
    host.configure("rclone: cloud\n\tremote away:\n\tconfig /rclone.conf\n");
    let bundle = Relic::default().make(&cloud);
    let form = Form::Loose(".metadata");
    let loose =
        Relic { form, stamp: "20260802-020000", created_at: "2026-08-02T02:00:00+02:00", ..Relic::default() }
            .make(&cloud.join("sub"));
    fs::write(cloud.join("holiday.tar.xz"), "is no backup").unwrap();
    let out = host.run(&["list"]).ok().out;
    assert_eq!(out.lines().count(), 3, "{out}");
    assert!(out.contains("[legacy] n1.lan-backup-20260801-020000.tar.xz.bundle.tar"), "{out}");
    for word in ["n1.lan/2026-08-01", "n1/latest"] {
        host.run(&["verify", word]).ok();
        assert_eq!(host.run(&["cat", word, "etc/hostname"]).ok().out, "n1\n", "{word}");
    }
    // A byte changed on the other side.
    let mut bytes = fs::read(&loose).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&loose, bytes).unwrap();
    host.run(&["verify", "n1/latest"]).exits(Exit::Verification);
    let plan = host.run(&["prune", "--legacy", "keep-last=1", "--dry-run"]).ok().out;
    assert!(plan.contains("other hosts are kept") && bundle.exists(), "{plan}");
}

#[test]
fn the_verification_of_all_says_which_archives_it_leaves_out() {
    let host = TestHost::golden("bare");
    host.run(&["backup"]).ok();
    let out = host.run(&["verify", "--all"]).ok();
    assert!(!out.err.contains("legacy archives"), "{}", out.err);
    Relic::default().make(&store(&host));
    let mut real = std::process::Command::new(common::program());
    let done = real.arg("--root").arg(&host.root).args(["verify", "--all"]).output().unwrap();
    let said = String::from_utf8(done.stderr).unwrap();
    assert!(
        done.status.success() && said.contains("store 'local': 1 legacy archives are not verified by --all"),
        "{said}"
    );
}

#[test]
fn the_proof_of_an_old_archive_is_no_proof_of_a_snapshot() {
    let host = TestHost::golden("bare");
    host.run(&["backup"]).ok();
    Relic::default().make(&store(&host));
    let verified = || {
        let status = host.run(&["status", "--json"]).json();
        status["stores"][0]["verified-at"].clone()
    };
    let before = verified();
    host.run(&["verify", "n1/latest"]).ok();
    assert_eq!(verified(), before);
    host.run(&["verify"]).ok();
    assert_ne!(verified(), serde_json::Value::Null);
}

#[test]
fn what_opens_an_encrypted_one_is_an_identity_or_the_old_passphrase() {
    let host = host();
    for (n, (salt, recipient, identity)) in VECTORS.into_iter().enumerate() {
        let other = age::x25519::Identity::generate();
        let recipients = vec![other.to_public().to_string(), recipient.to_owned()];
        let relic = Relic { recipients, salt: (n == 0).then_some(SALT_V2), codec: "zst", ..Relic::default() };
        let file = relic.make(&host.beside(&format!("{n}")));
        let key = host.beside("key.txt");
        fs::write(&key, format!("{identity}\n")).unwrap();
        whole(&host, &file, &["--identity", text(&key)]);
        let _ =
            fs::remove_dir_all(host.beside(&format!("out-{}", file.file_name().unwrap().to_str().unwrap())));
        // A key that is none of its recipients'.
        fs::write(&key, "AGE-SECRET-KEY-1GFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPQ4EGAEX\n")
            .unwrap();
        let done = host.run(&["cat", text(&file), "etc/hostname", "--identity", text(&key)]);
        assert_eq!(done.exit, Exit::Unseal, "{}", done.err);
        // Without any key the stored bytes are proven all the same.
        host.run(&["verify", text(&file)]).ok();
        let sealed = host.run(&["show", text(&file), "--json"]).ok().json();
        let told = sealed["snapshot"]["sealed"]["passphrases"].as_array().unwrap().len();
        assert_eq!(told, if n == 0 { 3 } else { 2 }, "{salt}");
    }
}

#[test]
fn the_old_passphrase_is_the_key_with_each_salt_that_there_was() {
    use pbx_config::archive::keys::{Keys, Question};
    use pbx_config::task::snapshots::ChosenSnapshot;
    use pbx_config::task::snapshots::verify;
    let host = host();
    for (n, (_, recipient, _)) in VECTORS.into_iter().enumerate() {
        let relic = Relic {
            recipients: vec![recipient.to_owned()],
            salt: (n == 0).then_some(SALT_V2),
            ..Relic::default()
        };
        let file = relic.make(&host.beside(&format!("p{n}")));
        let answers = std::sync::Mutex::new(vec![PASSPHRASE, "wrong"]);
        let ask = move |question: Question, _: Option<&str>| {
            assert!(matches!(question, Question::Key { passphrase: true, .. }));
            Ok(answers.lock().unwrap().pop().map(|text| text.to_owned().into()))
        };
        let keys = Keys::new(&[], None, None, Some(Box::new(ask))).unwrap();
        let proven = verify::verify(&ChosenSnapshot::file(&file).with_keys(&keys)).unwrap();
        assert!(proven.index.entries.iter().any(|entry| entry.path.to_string() == "etc/hostname"));
    }
}

#[test]
fn decrypt_leaves_the_three_files_that_the_old_tool_leaves() {
    let host = host();
    let (_, recipient, identity) = VECTORS[1];
    let file = Relic { recipients: vec![recipient.to_owned()], ..Relic::default() }.make(&host.beside("old"));
    let key = host.beside("key.txt");
    fs::write(&key, format!("{identity}\n")).unwrap();
    let to = host.beside("clear");
    host.run(&["decrypt", text(&file), "--to", text(&to), "--identity", text(&key)]).ok();
    let mut names: Vec<String> =
        fs::read_dir(&to).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    let name = "n1.lan-backup-20260801-020000.tar.xz";
    assert_eq!(names, [name.to_owned(), format!("{name}.metadata"), format!("{name}.sha256")]);
    let manifest: serde_json::Value =
        serde_json::from_slice(&fs::read(to.join(format!("{name}.metadata"))).unwrap()).unwrap();
    assert_eq!((&manifest["encryption_mode"], &manifest["hostname"]), (&"none".into(), &"n1.lan".into()));
    // What was written is an archive of its own.
    whole(&host, &to.join(name), &[]);
    // What it says of itself is true: there is no HOWTO.txt, and the files were counted.
    let again = host.beside("again");
    let said = host.run(&["decrypt", text(&file), "--to", text(&again), "--identity", text(&key)]).ok().out;
    assert!(!said.contains("HOWTO") && !said.contains("contents  0 files"), "{said}");
    // Who can open it stands nowhere, and what is in it neither.
    let closed = host.run(&["show", text(&file)]).ok().out;
    assert!(closed.contains("encrypted  to recipients that its manifest does not name\n"), "{closed}");
    assert!(!closed.contains("0 entries") && closed.contains("or --files with its passphrase"), "{closed}");
}

#[test]
fn a_damaged_or_contradicting_one_is_refused_with_what_is_wrong() {
    let host = host();
    let made = |form: Form| Relic { form, codec: "gz", ..Relic::default() }.make(&host.beside("bad"));
    let refused = |file: &Path, expected: &str| {
        for verb in ["verify", "show"] {
            let done = host.run(&[verb, text(file)]);
            let told = format!("{}{}", done.out, done.err);
            assert_eq!(done.exit, Exit::Verification, "{expected}: {told}");
            assert!(told.contains(expected), "{expected}: {told}");
        }
    };
    let loose = made(Form::Loose(".metadata"));
    let beside = |ending: &str| PathBuf::from(format!("{}{ending}", text(&loose)));
    let (manifest, sum) =
        (fs::read_to_string(beside(".metadata")).unwrap(), fs::read_to_string(beside(".sha256")).unwrap());
    let with_manifest = |text: String, expected: &str| {
        fs::write(beside(".metadata"), text).unwrap();
        refused(&loose, expected);
        fs::write(beside(".metadata"), &manifest).unwrap();
    };
    with_manifest(manifest.replace("\"gz\"", "\"zst\""), "its name says gzip, its manifest zstd");
    with_manifest(manifest.replace("\"gz\"", "\"lz4\""), "an unknown compression");
    with_manifest(manifest.replace("\"none\"", "\"age\""), "do not agree on whether it is encrypted");
    with_manifest(
        manifest.replace("n1.lan-backup", "n9.lan-backup"),
        "its manifest belongs to n9.lan-backup",
    );
    with_manifest(manifest.replace("\"archive_size\": ", "\"archive_size\": 1"), "its manifest says 1");
    with_manifest(manifest.replace("\"sha256\": \"", "\"sha256\": \"0"), "do not agree");
    with_manifest(
        manifest.replace("\"n1.lan\"", "\"n9.lan\""),
        "its name is of host n1.lan, its manifest of 'n9.lan'",
    );
    // A time that does not fit costs nothing but trust in it.
    fs::write(beside(".metadata"), manifest.replace("\"2026-08-01T", "\"2020-08-01T")).unwrap();
    let shown = host.run(&["show", text(&loose)]).ok().out;
    assert!(
        shown.contains("says that it is of 2020-08-01T02:00:00") && shown.contains("says 2026-08-01"),
        "{shown}"
    );
    with_manifest("{".into(), "its manifest is damaged");
    with_manifest(String::new(), "its manifest is damaged");
    with_manifest(" ".repeat(70_000), "is larger than");
    fs::write(beside(".sha256"), sum.replace("n1", "n2")).unwrap();
    refused(&loose, "its checksum belongs to n2.lan");
    fs::write(beside(".sha256"), "nonsense\n").unwrap();
    refused(&loose, "holds no SHA-256");
    fs::write(beside(".sha256"), &sum).unwrap();
    fs::remove_file(beside(".metadata")).unwrap();
    refused(&loose, "its .metadata is missing");
    fs::write(beside(".metadata"), &manifest).unwrap();
    let mut data = fs::read(&loose).unwrap();
    let middle = data.len() / 2;
    data[middle] ^= 1;
    fs::write(&loose, &data).unwrap();
    refused(&loose, "its SHA-256 is not what its checksum says");
    fs::write(&loose, &data[..middle]).unwrap();
    refused(&loose, &format!("the archive has {middle} bytes"));

    let file = made(Form::Bundle);
    let whole = fs::read(&file).unwrap();
    fs::write(&file, &whole[..whole.len() - 1300]).unwrap();
    refused(&file, "it ends within");
    let name = "n1.lan-backup-20260801-020000.tar.gz";
    let part = |ending: &str, data: &[u8]| (format!("{name}{ending}"), data.to_vec());
    for (parts, expected) in [
        (vec![part(".metadata", b"{}"), part(".sha256", sum.as_bytes())], "contains no archive"),
        (vec![part(".metadata", manifest.as_bytes()), part("", b"x")], "the archive has 1 bytes"),
        (vec![part(".sha256", sum.as_bytes()), part("", b"x")], "its .metadata is missing"),
        (vec![part(".metadata", b"{}"), part(".metadata", b"{}"), part("", b"x")], "has two manifests"),
        (
            vec![
                part(".metadata", b"{}"),
                part("", b"x"),
                ("m-backup-20260801-020000.tar".into(), b"y".to_vec()),
            ],
            "has two archives",
        ),
        (vec![part(".metadata", b"{}"), part("", b"x")], "it has no checksum file"),
        (vec![part(".metadata", b"{}"), ("evil.sh".into(), b"x".to_vec())], "is not a legacy archive"),
    ] {
        fs::write(&file, bundle(&parts)).unwrap();
        refused(&file, expected);
    }
}

#[test]
fn hostile_contents_never_leave_the_target() {
    let host = host();
    let list = |json: &str| {
        Piece::File("var/lib/proxsave-info/dedup_manifest.json", json.as_bytes().to_vec(), 0o640)
    };
    for (n, (more, expected)) in [
        (vec![Piece::File("../x", b"x".to_vec(), 0o644)], "not allowed in an archive"),
        (
            vec![Piece::Link("srv/l", "/tmp"), Piece::File("srv/l/x", b"x".to_vec(), 0o644)],
            "is below srv/l, which is not a directory",
        ),
        (vec![Piece::File("etc/hosts", b"again".to_vec(), 0o644)], "is in it twice"),
        (
            vec![list("[{\"path\":\"etc/hosts\",\"mode\":420}]")],
            "is listed as a replaced file, but is not one",
        ),
        (
            vec![Piece::Link("srv/l", "../../../etc/hosts"), list("[{\"path\":\"srv/l\",\"mode\":420}]")],
            "replaces a file that is not in the archive",
        ),
        (vec![list("{")], "is damaged"),
        (vec![Piece::Odd("srv/x", tar::EntryType::new(b'V'))], "is of type 'V'"),
    ]
    .into_iter()
    .enumerate()
    {
        let file = Relic { listed: false, more, ..Relic::default() }.make(&host.beside(&format!("{n}")));
        let to = host.beside(&format!("out{n}"));
        let done = host.run(&["restore", text(&file), "--to", text(&to)]).exits(Exit::Verification);
        assert!(done.err.contains(expected), "{expected}: {}", done.err);
        assert!(!to.exists());
    }
    // A device is left out, and said to be.
    let more = vec![Piece::Odd("dev/null", tar::EntryType::Char)];
    let file = Relic { more, ..Relic::default() }.make(&host.beside("dev"));
    let to = host.beside("dev-out");
    host.run(&["restore", text(&file), "--to", text(&to)]).ok();
    assert!(!to.join("dev").exists());
    assert!(host.run(&["show", text(&file)]).ok().out.contains("dev/null: is a device or pipe"));
}

#[test]
fn retention_of_ours_never_touches_them_and_theirs_only_when_it_is_said() {
    let mut host = TestHost::golden("bare");
    host.configure("dir: local\n\tpath /var/lib/proxmox-backup-extra/store\n\tkeep-last 1\n");
    let node = fs::read_to_string(host.root.join("etc/hostname")).unwrap().trim().to_owned();
    let own: &'static str = Box::leak(format!("{node}.lan").into_boxed_str());
    let days = ["20260801-020000", "20260802-020000", "20260803-020000"];
    for (n, stamp) in days.into_iter().enumerate() {
        let created_at = ["2026-08-01T00:00:00Z", "2026-08-02T00:00:00Z", "2026-08-03T00:00:00Z"][n];
        let form = if n == 1 { Form::Loose(".metadata") } else { Form::Bundle };
        Relic { host: own, stamp, created_at, form, ..Relic::default() }.make(&store(&host));
        Relic { stamp, created_at, ..Relic::default() }.make(&store(&host));
    }
    // As every run of ours makes it.
    let own_dir = host.root.join("var/lib/proxmox-backup-extra");
    fs::set_permissions(own_dir, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    let place = store(&host);
    let files = || {
        let mut names: Vec<String> =
            fs::read_dir(&place).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.retain(|name| name.contains("-backup-"));
        names.sort();
        names
    };
    let before = files();
    assert_eq!(before.len(), 8);
    host.run(&["backup"]).ok();
    host.now = "2026-11-23T15:17:40Z".into();
    host.run(&["backup"]).ok();
    host.run(&["prune"]).ok();
    assert_eq!(files(), before);
    let dry = host.run(&["prune", "--legacy", "keep-last=1", "--dry-run"]).ok();
    assert_eq!(dry.out.matches("remove ").count(), 2, "{}", dry.out);
    assert!(dry.out.contains("3 archives of other hosts are kept"), "{}", dry.out);
    assert_eq!(files(), before);
    for (bad, why) in [
        ("", "keeps nothing"),
        ("keep-lst=3", "unknown key 'keep-lst'"),
        ("keep-last=0", "keeps nothing"),
        ("3", "unknown key"),
        ("keep-last=x", "'x' is not a whole number"),
        ("keep-last=2,foo=1", "unknown key 'foo'"),
    ] {
        let done = host.run(&["prune", "--legacy", bad]).exits(Exit::Usage);
        assert!(done.err.contains(why) && done.err.contains("keep-last"), "{bad}: {}", done.err);
    }
    assert_eq!(files(), before);
    // Two files of one backup are one, and stay or go together.
    let bundled = place.join(format!("{own}-backup-20260803-020000.tar.xz.bundle.tar"));
    let decrypted = place.join(format!("{own}-backup-20260803-020000.tar.xz.decrypted.bundle.tar"));
    fs::copy(&bundled, &decrypted).unwrap();
    let twice = host.run(&["prune", "--legacy", "keep-last=2", "--dry-run"]).ok();
    assert_eq!(twice.out.matches("remove ").count(), 1, "{}", twice.out);
    fs::remove_file(&decrypted).unwrap();
    // A store that is away hides nothing of what is done on the others.
    host.configure(
        "dir: away\n\tpath /mnt/away\n\tmountpoint yes\n\ndir: local\n\tpath /var/lib/proxmox-backup-extra/store\n",
    );
    let done = host.run(&["prune", "--legacy", "keep-last=1"]).exits(Exit::Problems);
    assert!(
        done.out.contains("store 'away'") && done.out.matches("  removed  ").count() == 2,
        "{}",
        done.out
    );
    // What is gone is written down.
    let log = host.run(&["log", "--json"]).ok().out;
    assert!(log.contains("store 'local': 2 legacy archives removed (--legacy keep-last=1)"), "{log}");
    let left: Vec<String> = files().into_iter().filter(|name| name.starts_with(&node)).collect();
    assert_eq!(left, [format!("{own}-backup-20260803-020000.tar.xz.bundle.tar")]);
    assert_eq!(files().iter().filter(|name| name.starts_with("n1.lan")).count(), 3);
    assert_eq!(common::snapshot_files(&store(&host)).len(), 1, "ours stay as they are");
}

#[test]
fn archives_as_they_were_once_made_are_read_for_ever() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/format/legacy");
    let host = host();
    let key = host.beside("key.txt");
    fs::write(&key, format!("{}\n", VECTORS[1].2)).unwrap();
    let mut names: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    names.retain(|path| {
        pbx_config::model::legacy::LegacyName::parse(path.file_name().unwrap().to_str().unwrap()).is_some()
    });
    names.sort();
    assert_eq!(names.len(), 4, "a bundle, a loose one, an encrypted one, one of the Bash version");
    for file in names {
        whole(&host, &file, &["--identity", text(&key)]);
    }
}

/// Writes tests/format/legacy, once and never anew: what lies there is what was made then.
#[test]
#[ignore = "makes the kept archives"]
fn the_kept_archives_are_made() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/format/legacy");
    Relic::default().make(&folder);
    Relic {
        form: Form::Loose(".manifest.json"),
        codec: "gz",
        stamp: "20251101-020000",
        seed: true,
        ..Relic::default()
    }
    .make(&folder);
    Relic { form: Form::Bash, codec: "bz2", host: "n1", stamp: "20250101-020000", ..Relic::default() }
        .make(&folder);
    let recipients = vec![VECTORS[1].1.to_owned()];
    Relic { recipients, codec: "zst", stamp: "20260701-020000", ..Relic::default() }.make(&folder);
}

#[test]
fn a_live_restore_plans_with_an_old_archive_as_with_a_snapshot() {
    let host = TestHost::golden("bare");
    let file = Relic::default().make(&host.beside("old"));
    let done = host.run(&["restore", text(&file), "--dry-run"]);
    assert!(matches!(done.exit, Exit::Ok | Exit::Problems), "{}\n{}", done.out, done.err);
    assert!(done.out.contains("/etc/network/interfaces"), "{}", done.out);
    assert!(!done.out.contains("proxsave-info") && !done.out.contains(".pbx/state"), "{}", done.out);
}
