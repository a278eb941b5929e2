//! HOWTO.txt, taken out of a real snapshot and followed to the letter by a shell: with tar, its codec's tool and
//! nothing of ours the host's files come back as they were.
//! Needs the Debian packages age, zstd, xz-utils, bzip2, attr, acl and libcap2-bin, and root.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, chown, lchown, symlink};
use std::path::{Path, PathBuf};

use common::TestHost;
use common::tree::{Tree, assert_same, picture};
use pbx_config::archive::codec::CODECS;
use pbx_config::model::problem::Exit;
use serde_json::Value;

/// Runs a command in a folder; what it printed. A warning is a failure: it would frighten an admin in trouble.
#[track_caller]
fn run(dir: &Path, argv: &[&str]) -> String {
    let mut command = common::tool(argv[0]);
    // A clean environment: TAR_OPTIONS of whoever runs the tests is not the admin's.
    command.args(&argv[1..]).current_dir(dir).env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    let done = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(done.status.success(), "{argv:?}: {}\n{}", text(&done.stdout), text(&done.stderr));
    // zstd says what it did, and tar finds a time before 1970 remarkable.
    let usual =
        ["payload.tar.zst", "Public key: ", "tar: srv/tree/secret: implausibly old time stamp 1969-12-30"];
    for line in text(&done.stderr).lines() {
        assert!(usual.iter().any(|usual| line.starts_with(usual)), "{argv:?}: {line}");
    }
    text(&done.stdout)
}

/// What is hard for a tar on the way out.
fn fill(tree: &Path) {
    let file = |name: &[u8], content: &str| -> PathBuf {
        let path = tree.join(OsStr::from_bytes(name));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        path
    };
    for (name, mode) in [("setuid", 0o4755), ("secret", 0o600), ("nothing", 0o000), ("closed/inside", 0o640)]
    {
        let path = file(name.as_bytes(), name);
        chown(&path, Some(1234), Some(3_000_000_000)).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    }
    fs::set_permissions(tree.join("closed"), fs::Permissions::from_mode(0o1700)).unwrap();
    file(b"new\nline and \xff", "bytes");
    file("d".repeat(150).as_bytes(), "long");
    file(format!("{0}/{0}/{0}", "e".repeat(120)).as_bytes(), "longer than ustar has room for");
    symlink("nowhere/".repeat(30), tree.join("dangling")).unwrap();
    lchown(tree.join("dangling"), Some(7), Some(8)).unwrap();
    fs::hard_link(file(b"first", "one file"), tree.join("second")).unwrap();
    let marked = file(b"marked", "attributes");
    xattr::set(&marked, "user.bytes", b"\0=\n\xff").unwrap();
    xattr::set(&marked, "user.a=b%c", b"value").unwrap();
    run(tree, &["setfacl", "-m", "u:1234:rw,g:4321:r", "marked"]);
    run(tree, &["setfacl", "-m", "d:u:1234:rwx", "closed"]);
    let program = file(b"program", "capable");
    fs::set_permissions(program, fs::Permissions::from_mode(0o755)).unwrap();
    run(tree, &["setcap", "cap_net_raw=ep", "program"]);
    run(tree, &["touch", "-d", "@-86400.5", "secret"]);
    run(tree, &["touch", "-h", "-d", "@1000000000.25", "dangling"]);
    run(tree, &["touch", "-d", "@1200000000.75", "closed"]);
}

/// A plain tar of this format keeps whole seconds.
fn in_seconds(mut tree: Tree) -> Tree {
    for seen in tree.values_mut() {
        seen.mtime.1 = 0;
    }
    tree
}

/// The lines that a person would type.
fn commands(howto: &str) -> Vec<&str> {
    howto.lines().filter_map(|line| line.strip_prefix("    ")).collect()
}

fn follow(compression: &str, tools: &[&str]) {
    let host = TestHost::golden("bare");
    let dir = host.beside("by-hand");
    fs::create_dir(&dir).unwrap();
    let mut seal = String::new();
    if tools.contains(&"age") {
        run(host.beside("").as_path(), &["age-keygen", "-o", "key.txt"]);
        fs::copy(host.beside("key.txt"), dir.join("key.txt")).unwrap();
        seal = format!("\trecipient {}", run(&dir, &["age-keygen", "-y", "key.txt"]));
    }
    host.configure(&format!("backup: main\n\tcompression {compression}\n\tinclude /srv/tree\n{seal}"));
    fs::create_dir_all(host.root.join("srv/tree")).unwrap();
    fill(&host.root.join("srv/tree"));
    // Folders as old as on a real host: one that is touched while it is unpacked shows.
    let old = ["find", ".", "-depth", "-type", "d", "-not", "-name", "closed"];
    run(&host.root, &[&old[..], &["-exec", "touch", "-d", "@1300000000", "{}", "+"]].concat());
    // Nobody has proven the key of a sealed one yet.
    host.run(&["backup"]).exits(if seal.is_empty() { Exit::Ok } else { Exit::Problems });
    let snap = host.snapshot_file();
    let name = snap.file_name().unwrap().to_str().unwrap();
    fs::copy(&snap, dir.join(name)).unwrap();

    let howto = run(&dir, &["tar", "-xOf", name, "HOWTO.txt"]);
    let lines = commands(&howto);
    let used: Vec<&str> = lines.iter().filter_map(|line| line.split(' ').next()).collect();
    assert_eq!(used, tools, "{howto}");
    let printed = run(&dir, &["sh", "-ec", &lines.join("\n")]);

    let manifest: Value = serde_json::from_slice(&fs::read(dir.join("MANIFEST.json")).unwrap()).unwrap();
    let sum = manifest["payload"]["sha256"].as_str().unwrap();
    assert!(printed.lines().any(|line| line.split(' ').next() == Some(sum)), "{printed}");

    // Each file of the snapshot is as on the host, and each file of the index is there.
    let mut out = in_seconds(picture(&dir.join("files"), ""));
    let index: Value = serde_json::from_slice(&fs::read(dir.join("files/.pbx/index.json")).unwrap()).unwrap();
    assert_eq!(out.keys().filter(|path| !path.starts_with(".pbx")).count() - 1, count(&index), "{howto}");
    out.retain(|path, _| !path.as_os_str().is_empty() && !path.starts_with(".pbx"));
    let mut on_host = in_seconds(picture(&host.root, ""));
    assert_same(&below(&out, "srv/tree"), &below(&on_host, "srv/tree"));
    on_host.retain(|path, _| out.contains_key(path));
    // A second name outside of the snapshot is none in it.
    assert_same(&out, &on_host);
    assert!(out.len() > 60, "{}", out.len());
}

/// Members of the snapshot beside what commands said.
fn count(index: &Value) -> usize {
    let paths = index["entries"].as_array().unwrap().iter().map(|entry| &entry["path"]);
    paths.filter(|path| path.as_str().is_none_or(|path| !path.starts_with(".pbx"))).count()
}

fn below(tree: &Tree, top: &str) -> Tree {
    tree.iter().filter(|(path, _)| path.starts_with(top)).map(|(p, seen)| (p.clone(), seen.clone())).collect()
}

#[test]
fn a_compressed_snapshot_opens_with_tar_and_one_more_tool() {
    for (compression, tool) in
        [("zstd", "zstd"), ("xz", "xz"), ("lzma", "lzma"), ("gzip", "gzip"), ("bzip2", "bzip2")]
    {
        follow(compression, &["tar", "sha256sum", tool, "mkdir", "tar"]);
    }
}

#[test]
fn an_uncompressed_snapshot_opens_with_tar_alone() {
    follow("none", &["tar", "sha256sum", "mkdir", "tar"]);
}

#[test]
fn a_sealed_snapshot_opens_with_age_and_the_key_too() {
    follow("zstd", &["tar", "sha256sum", "age", "zstd", "mkdir", "tar"]);
    follow("none", &["tar", "sha256sum", "age", "mkdir", "tar"]);
}

#[test]
fn every_codec_is_opened_by_hand_here() {
    let names: Vec<&str> = CODECS.iter().map(|codec| codec.name).collect();
    assert_eq!(names, ["zstd", "xz", "lzma", "gzip", "bzip2", "none"], "follow() the new one above");
}

#[test]
fn a_tool_that_is_missing_is_told_with_its_package() {
    common::require(&["sh", "/bin/sh", "tar"]);
    let missing = std::panic::catch_unwind(|| common::require(&["/nowhere/age-keygen"])).unwrap_err();
    let told = missing.downcast_ref::<String>().unwrap();
    assert_eq!(told, "/nowhere/age-keygen is not installed: apt install age (`make deps` installs all)");
}
