//! `backup`, then `restore --to`: what comes out is what went in, for every kind of name, mode, owner, time,
//! link and attribute; as root, and as nobody.
//! Needs the Debian packages attr, acl and libcap2-bin, and root.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, lchown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use common::TestHost;
use common::tree::{assert_same, picture};
use nix::sys::stat::{UtimensatFlags, utimensat};
use nix::sys::time::TimeSpec;
use pbx_config::archive::codec::CODECS;
use pbx_config::model::problem::Exit;

const TREE: &str = "srv/tree";

fn host_with(compression: &str) -> TestHost {
    let host = TestHost::empty();
    let lines = format!("\tcompression {compression}\n\tcompression-mode fast\n\tinclude /srv/tree\n");
    host.configure(&format!("backup: main\n{lines}"));
    host
}

/// A host whose /srv/tree is filled by `fill`.
fn host(fill: impl Fn(&Path)) -> TestHost {
    let host = host_with("zstd");
    let tree = host.root.join(TREE);
    fs::create_dir_all(&tree).unwrap();
    fill(&tree);
    host
}

fn file(path: &Path, content: impl AsRef<[u8]>) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn time(path: &Path, seconds: i64, nanos: i64) {
    let time = TimeSpec::new(seconds, nanos);
    utimensat(nix::fcntl::AT_FDCWD, path, &time, &time, UtimensatFlags::NoFollowSymlink).unwrap();
}

fn tool(name: &str, args: &[&str], path: &Path) {
    let done = common::tool(name).args(args).arg(path).output().unwrap();
    assert!(done.status.success(), "{name}: {}", String::from_utf8_lossy(&done.stderr));
}

fn name(bytes: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(bytes))
}

fn restored(host: &TestHost, args: &[&str]) -> PathBuf {
    let to = host.beside("out");
    host.run(&[&["restore", "latest", "--to", to.to_str().unwrap()], args].concat()).ok();
    to
}

/// Everything a file system can hold that a snapshot must keep.
fn fill(tree: &Path) {
    for (n, bits) in [0o644, 0o600, 0o400, 0o000, 0o4755, 0o2755, 0o6711, 0o1644].into_iter().enumerate() {
        let path = tree.join(format!("mode-{bits:04o}"));
        file(&path, format!("content {n}"));
        mode(&path, bits);
    }
    for (bits, folder) in [(0o700, "closed"), (0o1777, "sticky"), (0o2775, "group"), (0o000, "locked")] {
        file(&tree.join(folder).join("inside"), folder);
        mode(&tree.join(folder), bits);
    }
    fs::create_dir(tree.join("empty-folder")).unwrap();
    for (uid, gid) in [(12345, 54321), (65534, 65534), (3_000_000_000, 2_999_999_999)] {
        let path = tree.join(format!("owner-{uid}"));
        file(&path, "");
        chown(&path, Some(uid), Some(gid)).unwrap();
    }
    // chown takes setuid away, so the mode comes after it.
    chown(tree.join("mode-4755"), Some(1000), Some(1000)).unwrap();
    mode(&tree.join("mode-4755"), 0o4755);
    contents(tree);
    names(tree);
    links(tree);
    attributes(tree);
    times(tree);
}

fn contents(tree: &Path) {
    file(&tree.join("empty"), "");
    let mut state = 1_u32;
    let noise: Vec<u8> = std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    })
    .take(100_003)
    .collect();
    // Nothing to gain at first, and then repeated: incompressible megabytes would keep xz busy for seconds.
    let noise = noise.repeat(53);
    file(&tree.join("noise"), &noise);
    for size in [1, 511, 512, 513, (1 << 20) - 1, 1 << 20, (1 << 20) + 1] {
        file(&tree.join(format!("size-{size}")), &noise[..size]);
    }
    let sparse = fs::File::create(tree.join("sparse")).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&sparse, b"middle", 2 << 20).unwrap();
    sparse.set_len(3 << 20).unwrap();
}

fn names(tree: &Path) {
    let names: [&[u8]; 12] = [
        b"new\nline",
        b"escape\x1b[2J",
        b"latin-1 \xe9\xff",
        b" blanks at the ends ",
        b"-rf",
        b"*?[x]",
        b"back\\slash",
        b"quote'\"$HOME",
        b"..dots",
        b"\x01\x7f",
        "ünï→".as_bytes(),
        b"7 path=evil",
    ];
    for bytes in names {
        file(&tree.join("names").join(name(bytes)), bytes);
    }
    file(&tree.join("names").join("n".repeat(255)), "255");
    fs::create_dir(tree.join("names").join("d".repeat(255))).unwrap();
    // Around the lengths of ustar's fields: 100 for a name, 155 for a prefix, 256 with both.
    for length in [98, 99, 100, 101, 154, 155, 156] {
        file(&tree.join("l".repeat(length)).join("l".repeat(length)), length.to_string());
    }
    let mut deep = tree.join("deep");
    for n in 0..30 {
        deep.push(format!("{n}-{}", "x".repeat(40)));
    }
    file(&deep.join("bottom"), "deep");
}

fn links(tree: &Path) {
    let long = "t/".repeat(80) + "end";
    let longest = "y".repeat(3000);
    let targets: [&[u8]; 9] = [
        b"mode-0644",
        b"nowhere",
        b"/etc/hostname",
        b"../../..",
        b"latin-1 \xe9\n",
        b"folder/",
        b".",
        long.as_bytes(),
        longest.as_bytes(),
    ];
    fs::create_dir(tree.join("links")).unwrap();
    for (n, target) in targets.into_iter().enumerate() {
        symlink(OsStr::from_bytes(target), tree.join(format!("links/{n}"))).unwrap();
    }
    lchown(tree.join("links/1"), Some(777), Some(888)).unwrap();
    file(&tree.join("hard/a/first"), "one file");
    fs::create_dir(tree.join("hard/b")).unwrap();
    fs::hard_link(tree.join("hard/a/first"), tree.join("hard/b/second")).unwrap();
    fs::hard_link(tree.join("hard/a/first"), tree.join("hard/third")).unwrap();
    chown(tree.join("hard/third"), Some(5), Some(6)).unwrap();
    mode(&tree.join("hard/third"), 0o4750);
    // Both the name and the link of a member are too long for ustar.
    let long = tree.join("hard").join("h".repeat(200));
    file(&long, "long");
    fs::hard_link(&long, tree.join("hard").join("i".repeat(201))).unwrap();
}

fn attributes(tree: &Path) {
    let at = tree.join("attributes");
    fs::create_dir(&at).unwrap();
    for name in ["values", "acl", "read-only", "capable"] {
        file(&at.join(name), name);
    }
    for on in [at.join("values"), at.clone()] {
        xattr::set(&on, "user.text", b"value").unwrap();
        xattr::set(&on, "user.empty", b"").unwrap();
        xattr::set(&on, "user.bytes", b"\0=\n17 path=x\n\xff").unwrap();
        xattr::set(&on, "trusted.note", b"root only").unwrap();
    }
    tool("setfacl", &["-m", "u:1234:rw,g:4321:r,m:rw"], &at.join("acl"));
    tool("setfacl", &["-m", "u:1234:rwx", "-m", "d:u:1234:rwx,d:o:-"], &at);
    xattr::set(at.join("read-only"), "user.text", b"value").unwrap();
    mode(&at.join("read-only"), 0o444);
    mode(&at.join("capable"), 0o755);
    chown(at.join("capable"), Some(3), Some(4)).unwrap();
    tool("setcap", &["cap_net_raw,cap_net_admin=ep"], &at.join("capable"));
    file(&at.join("linked"), "attributes of a file with two names");
    xattr::set(at.join("linked"), "user.text", b"value").unwrap();
    fs::hard_link(at.join("linked"), at.join("linked-too")).unwrap();
}

/// A time of its own for every path, folders last, so that nothing rests on "now".
fn times(tree: &Path) {
    let paths: Vec<PathBuf> = picture(tree, "").into_keys().collect();
    for (n, path) in paths.iter().rev().enumerate() {
        let n = i64::try_from(n).unwrap();
        let full = if path.as_os_str().is_empty() { tree.to_owned() } else { tree.join(path) };
        time(&full, 1_500_000_000 + n * 1_000_003, (n * 123_456_789) % 1_000_000_000);
    }
    time(&tree.join("mode-0644"), -1, 999_999_999);
    time(&tree.join("mode-0600"), -1_000_000_000, 1);
    time(&tree.join("mode-0400"), 0, 0);
    time(&tree.join("empty"), 5_000_000_000, 5);
    time(&tree.join("links/1"), -86_400, 500_000_000);
}

#[test]
fn a_tree_comes_back_as_it_was_with_every_codec() {
    for codec in CODECS {
        let host = host_with(codec.name);
        fill(&host.root.join(TREE));
        host.run(&["backup"]).ok();
        let out = restored(&host, &[]);
        let is = picture(&out, "srv");
        assert!(is.len() > 80, "{}", is.len());
        assert_same(&is, &picture(&host.root, "srv"));
        let kept = ["security.capability", "system.posix_acl_access", "system.posix_acl_default"];
        for attribute in kept {
            assert!(is.values().any(|seen| seen.xattrs.contains_key(attribute.as_bytes())), "{attribute}");
        }
        assert_same(&picture(&out, "etc/hostname"), &picture(&host.root, "etc/hostname"));
    }
}

#[test]
fn the_names_of_one_file_are_one_file_again() {
    let host = host(links);
    host.run(&["backup"]).ok();
    let out = restored(&host, &[]).join(TREE).join("hard");
    let inode = |name: &str| fs::metadata(out.join(name)).unwrap().ino();
    assert_eq!(inode("a/first"), inode("b/second"));
    assert_eq!(inode("a/first"), inode("third"));
    assert_eq!(fs::metadata(out.join("third")).unwrap().nlink(), 3);
    let cat = host.run(&["cat", "latest", "srv/tree/hard/third"]).ok();
    assert_eq!(cat.out, "one file");
}

#[test]
fn attribute_names_with_an_equals_sign_come_back() {
    let host = host(|tree| {
        file(&tree.join("a"), "x");
        for key in ["user.a=b", "user.a%3Db", "user.100%", "user.new\nline", "user.bl ank"] {
            xattr::set(tree.join("a"), key, key.as_bytes()).unwrap();
        }
    });
    host.run(&["backup"]).ok();
    assert_same(&picture(&restored(&host, &[]), TREE), &picture(&host.root, TREE));
}

#[test]
fn pipes_sockets_and_devices_are_named_and_left_out() {
    let host = host(|tree| {
        tool("mkfifo", &[], &tree.join("pipe"));
        std::os::unix::net::UnixListener::bind(tree.join("socket")).unwrap();
        file(&tree.join("plain"), "x");
    });
    let said = host.run(&["backup"]).ok().out;
    assert!(said.contains("/srv/tree/pipe: is a FIFO, not saved"), "{said}");
    assert!(said.contains("/srv/tree/socket: is a socket, not saved"), "{said}");
    let out = restored(&host, &[]).join(TREE);
    assert_eq!(fs::read_dir(&out).unwrap().count(), 1);
    assert_eq!(fs::read(out.join("plain")).unwrap(), b"x");
}

#[test]
fn the_umask_of_who_restores_changes_nothing() {
    let host = host(|tree| {
        fill(tree);
        tool("chmod", &["-R", "a+rX"], &tree.join("names"));
    });
    host.run(&["backup"]).ok();
    let snap = host.snapshot_file();
    for mask in ["000", "022", "077", "777"] {
        let to = host.beside(mask);
        let line = format!("umask {mask}; exec \"$@\"");
        let mut shell = Command::new("sh");
        shell.args(["-c", &line, "sh"]).arg(common::program()).arg("restore").arg(&snap);
        let done = shell.arg("--to").arg(&to).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        assert_same(&picture(&to, "srv"), &picture(&host.root, "srv"));
        assert_eq!(fs::metadata(&to).unwrap().mode() & 0o077, 0, "the target itself is private");
    }
}

#[test]
fn the_outcome_in_the_manifest_is_that_of_the_run() {
    let host = host(|tree| file(&tree.join("a"), "x"));
    host.run(&["backup"]).ok();
    let outcome = |host: &TestHost| {
        let listed = host.run(&["list", "--json"]).ok().json();
        listed["snapshots"][0]["snapshot"]["outcome"].as_str().unwrap().to_owned()
    };
    assert_eq!(outcome(&host), "ok");
    // A product whose configuration is missing is a problem worth a look.
    host.write("usr/sbin/proxmox-backup-manager", "");
    host.run(&["backup"]).exits(Exit::Problems);
    assert_eq!(outcome(&host), "warned");
    host.run(&["verify"]).ok();
}

/// Runs the program as nobody, from a place that nobody can reach.
fn as_nobody(host: &TestHost, args: &[&OsStr]) -> Output {
    let place = host.beside("nobody");
    if !place.exists() {
        fs::create_dir(&place).unwrap();
        mode(place.parent().unwrap(), 0o755);
        chown(&place, Some(65534), Some(65534)).unwrap();
        // By cp: a descriptor of ours, open for writing while another thread forks, would make it "text busy".
        tool("cp", &[common::program().to_str().unwrap()], &place.join("pbx-config"));
        mode(&place.join("pbx-config"), 0o755);
    }
    let mut command = common::tool("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(place.join("pbx-config"));
    command.args(args).current_dir(&place).output().unwrap()
}

#[test]
fn without_root_contents_modes_and_times_come_back_and_setuid_does_not() {
    let host = host(fill);
    host.run(&["backup"]).ok();
    let snap = host.beside("snap.pbx.tar");
    fs::copy(host.snapshot_file(), &snap).unwrap();
    mode(&snap, 0o644);
    let args = ["restore", snap.to_str().unwrap(), "--to", "out", "--output-format", "json"];
    let done = as_nobody(&host, &args.map(OsStr::new));
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));

    let mut should = picture(&host.root, "srv");
    for seen in should.values_mut() {
        seen.owner = (65534, 65534);
        if seen.kind != "link" {
            seen.mode &= 0o777;
        }
        seen.xattrs.retain(|name, _| !name.starts_with(b"trusted.") && !name.starts_with(b"security."));
    }
    assert_same(&picture(&host.beside("nobody/out"), "srv"), &should);

    // What could not be kept is told, file by file.
    let said: serde_json::Value = serde_json::from_slice(&done.stdout).unwrap();
    let told: Vec<&str> =
        said["problems"].as_array().unwrap().iter().map(|one| one["what"].as_str().unwrap()).collect();
    assert!(told.iter().any(|what| what.contains("capable: security.capability")), "{told:?}");
    assert!(told.iter().any(|what| what.contains("values: trusted.note")), "{told:?}");
    assert!(!told.iter().any(|what| what.contains("user.")), "{told:?}");
}

/// A host with files of three items, and a file that is in two of them.
fn mixed() -> TestHost {
    let host = host(|tree| {
        file(&tree.join("a/one"), "1");
        file(&tree.join("b/two"), "2");
        file(&tree.join("b/three.conf"), "3");
        mode(&tree.join("b"), 0o711);
    });
    host.write("etc/hosts", "127.0.0.1 localhost\n");
    host.write("etc/fstab", "# none\n");
    fs::hard_link(host.root.join("etc/hosts"), host.root.join("srv/tree/b/zz-hosts")).unwrap();
    chown(host.root.join("etc/hosts"), Some(7), Some(8)).unwrap();
    mode(&host.root.join("etc/hosts"), 0o640);
    host.run(&["backup"]).ok();
    host
}

/// The files below a folder.
fn files(out: &Path) -> Vec<String> {
    let tree = picture(out, "");
    let files = tree.iter().filter(|(_, seen)| seen.kind != "folder");
    files.map(|(path, _)| path.to_str().unwrap().to_owned()).collect()
}

#[test]
fn only_skip_and_path_take_what_they_name() {
    let host = mixed();
    let cases: [(&[&str], &[&str]); 7] = [
        (&["--only", "hosts"], &["etc/hosts"]),
        (&["--only", "hosts,hostname"], &["etc/hostname", "etc/hosts"]),
        (&["--only", "include", "--path", "/srv/tree/a"], &["srv/tree/a/one"]),
        (&["--path", "srv/tree/b/*.conf"], &["srv/tree/b/three.conf"]),
        (&["--path", "/etc/fstab", "--path", "/srv/**/two"], &["etc/fstab", "srv/tree/b/two"]),
        (&["--skip", "include,pbx-config"], &["etc/fstab", "etc/hostname", "etc/hosts"]),
        (&["--path", "/etc/hosts", "--skip", "hostname"], &["etc/hosts"]),
    ];
    for (n, (args, should)) in cases.into_iter().enumerate() {
        let to = host.beside(&format!("out-{n}"));
        host.run(&[&["restore", "latest", "--to", to.to_str().unwrap()], args].concat()).ok();
        assert_eq!(files(&to), should, "{args:?}");
        for path in should.iter().filter(|path| !path.contains("zz")) {
            let (is, was) = (picture(&to, path), picture(&host.root, path));
            assert_same(&is, &was);
            for above in Path::new(path).ancestors().skip(1).filter(|above| !above.as_os_str().is_empty()) {
                let is = fs::metadata(to.join(above)).unwrap();
                let was = fs::metadata(host.root.join(above)).unwrap();
                assert_eq!((is.mode(), is.mtime_nsec()), (was.mode(), was.mtime_nsec()), "{above:?}");
            }
        }
    }
}

#[test]
fn a_second_name_arrives_whole_when_the_first_is_not_selected() {
    let host = mixed();
    for (n, args) in [["--only", "include"], ["--path", "/srv/tree/b/zz-hosts"]].into_iter().enumerate() {
        let to = host.beside(&format!("out-{n}"));
        host.run(&[&["restore", "latest", "--to", to.to_str().unwrap()], &args[..]].concat()).ok();
        let link = to.join("srv/tree/b/zz-hosts");
        assert_eq!(fs::read_to_string(&link).unwrap(), "127.0.0.1 localhost\n");
        let meta = fs::metadata(&link).unwrap();
        assert_eq!((meta.uid(), meta.gid(), meta.mode() & 0o7777), (7, 8, 0o640));
        assert!(!to.join("etc/hostname").exists());
    }
}

#[test]
fn a_selection_that_means_nothing_makes_no_folder() {
    let host = mixed();
    let to = host.beside("out");
    let restore =
        |args: &[&str]| host.run(&[&["restore", "latest", "--to", to.to_str().unwrap()], args].concat());
    let typo = restore(&["--only", "hostz"]).exits(Exit::Usage);
    assert!(typo.err.contains("did you mean 'hosts'?"), "{}", typo.err);
    restore(&["--path", "/nowhere"]).exits(Exit::NotFound);
    restore(&["--path", "/etc/../etc"]).exits(Exit::Usage);
    restore(&["--only", "wireguard"]).exits(Exit::NotFound);
    assert!(!to.exists());
}

#[test]
fn a_target_that_is_used_is_refused_and_left_alone() {
    let host = mixed();
    let beside = host.beside("place");
    fs::create_dir(&beside).unwrap();
    let to = beside.join("used");
    file(&to.join("mine"), "mine");
    let before = picture(&beside, "");
    let done = host.run(&["restore", "latest", "--to", to.to_str().unwrap()]).exits(Exit::Usage);
    assert!(done.err.contains("used: is not empty"), "{}", done.err);
    let under = to.join("mine/below");
    host.run(&["restore", "latest", "--to", under.to_str().unwrap()]).exits(Exit::Failed);
    let orphan = beside.join("no/parent");
    let done = host.run(&["restore", "latest", "--to", orphan.to_str().unwrap()]).exits(Exit::Failed);
    assert!(done.err.contains("its parent directory must exist"), "{}", done.err);
    assert_same(&picture(&beside, ""), &before);
}

#[test]
fn an_empty_folder_is_a_fine_target_and_nothing_is_left_beside_it() {
    let host = mixed();
    let beside = host.beside("place");
    fs::create_dir_all(beside.join("out")).unwrap();
    host.run(&["restore", "latest", "--to", &format!("{}/out/", beside.display())]).ok();
    assert_eq!(fs::read_dir(&beside).unwrap().count(), 1);
    assert_same(&picture(&beside.join("out"), "srv"), &picture(&host.root, "srv"));
}

#[test]
fn a_target_is_made_relative_to_the_current_folder() {
    let host = mixed();
    let beside = host.beside("place");
    fs::create_dir(&beside).unwrap();
    let mut program = Command::new(common::program());
    program.current_dir(&beside).arg("restore").arg(host.snapshot_file());
    let done = program.args(["--to", "out"]).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    assert_same(&picture(&beside.join("out"), "srv"), &picture(&host.root, "srv"));
}

#[test]
fn a_folder_that_is_there_may_be_named_in_every_way() {
    let host = mixed();
    let place = host.beside("place");
    for (n, to) in
        [".", "./", "./.", "../cwd", "dir/", "dir/.", "new/", "new/.", "link", "link/", "dir/../new"]
            .into_iter()
            .enumerate()
    {
        let cwd = place.join(n.to_string()).join("cwd");
        fs::create_dir_all(&cwd).unwrap();
        if to.contains("dir") {
            fs::create_dir(cwd.join("dir")).unwrap();
        }
        if to.starts_with("link") {
            fs::create_dir(place.join(n.to_string()).join("real")).unwrap();
            symlink("../real", cwd.join("link")).unwrap();
        }
        let mut program = Command::new(common::program());
        program.current_dir(&cwd).arg("restore").arg(host.snapshot_file());
        let done = program.args(["--to", to]).output().unwrap();
        assert!(done.status.success(), "{to}: {}", String::from_utf8_lossy(&done.stderr));
        assert_same(&picture(&cwd.join(to), "srv"), &picture(&host.root, "srv"));
        let said = String::from_utf8_lossy(&done.stdout);
        assert_eq!(said.contains("`cd .`"), [".", "./", "./.", "../cwd"].contains(&to), "{to}: {said}");
        if to.starts_with("link") {
            assert_eq!(fs::read_link(cwd.join("link")).unwrap(), Path::new("../real"));
        }
    }
}

#[test]
fn a_target_that_leads_nowhere_is_refused() {
    let host = mixed();
    let place = host.beside("place");
    fs::create_dir(&place).unwrap();
    symlink("missing", place.join("dangling")).unwrap();
    for (to, hint) in [("dangling", "it is a link to nothing"), ("missing/..", "its parent directory")] {
        let to = place.join(to);
        let done = host.run(&["restore", "latest", "--to", to.to_str().unwrap()]).exits(Exit::Failed);
        assert!(done.err.contains(&format!("cannot create {}: ", to.display())), "{}", done.err);
        assert!(done.err.contains(hint), "{}", done.err);
    }
    assert_eq!(fs::read_dir(&place).unwrap().count(), 1);
}

#[test]
fn an_empty_folder_keeps_its_group_and_mode_and_a_new_one_is_private() {
    let host = mixed();
    let to = host.beside("out");
    for (owner, bits) in [((0, 0), 0o755), ((0, 2), 0o2750), ((0, 65534), 0o500)] {
        fs::create_dir(&to).unwrap();
        chown(&to, Some(owner.0), Some(owner.1)).unwrap();
        mode(&to, bits);
        host.run(&["restore", "latest", "--to", to.to_str().unwrap()]).ok();
        let meta = fs::metadata(&to).unwrap();
        assert_eq!(((meta.uid(), meta.gid()), meta.mode() & 0o7777), (owner, bits));
        fs::remove_dir_all(&to).unwrap();
    }
    host.run(&["restore", "latest", "--to", to.to_str().unwrap()]).ok();
    assert_eq!(fs::metadata(&to).unwrap().mode() & 0o7777, 0o700);
}

#[test]
fn nothing_is_written_where_another_user_could_exchange_it() {
    let host = mixed();
    let (theirs, open) = (host.beside("theirs"), host.beside("open"));
    for dir in [&theirs, &theirs.join("out"), &open] {
        fs::create_dir(dir).unwrap();
    }
    chown(&theirs, Some(1000), Some(1000)).unwrap();
    chown(theirs.join("out"), Some(1000), Some(1000)).unwrap();
    mode(&open, 0o777);
    for to in [theirs.join("out"), theirs.join("new"), open.join("new")] {
        for verb in ["restore", "decrypt"] {
            let done = host.run(&[verb, "latest", "--to", to.to_str().unwrap()]).exits(Exit::Failed);
            assert!(done.err.contains("could exchange it"), "{}", done.err);
        }
    }
    assert_eq!(fs::read_dir(&theirs).unwrap().count(), 1);
    assert_eq!(fs::read_dir(&open).unwrap().count(), 0);
}

#[test]
fn a_dry_run_shows_the_same_entries_and_writes_nothing() {
    let host = mixed();
    let to = host.beside("out");
    let args = ["restore", "latest", "--to", to.to_str().unwrap(), "--only", "include", "--json"];
    let before: Vec<PathBuf> = picture(&host.beside(""), "").into_keys().collect();
    let planned = host.run(&[&args[..], &["--dry-run"]].concat()).ok().json();
    assert_eq!(picture(&host.beside(""), "").into_keys().collect::<Vec<_>>(), before);
    let planned: Vec<&str> =
        planned.as_array().unwrap().iter().map(|entry| entry["path"].as_str().unwrap()).collect();
    let done = host.run(&args).ok().json();
    assert_eq!(done["entries"], planned.len());
    let arrived: Vec<String> = picture(&to, "")
        .into_keys()
        .map(|path| path.to_str().unwrap().to_owned())
        .filter(|path| !path.is_empty())
        .collect();
    let mut sorted = planned.clone();
    sorted.sort_by_key(|path| PathBuf::from(path));
    assert_eq!(arrived, sorted);
}

#[test]
fn a_cold_disk_is_read_ahead_and_gives_the_same_snapshot() {
    // On a disk: a temporary folder may be memory.
    let host = TestHost::empty_in(Path::new(env!("CARGO_TARGET_TMPDIR")));
    host.configure("backup: main\n\tinclude /srv\n");
    for n in 0..400 {
        host.write(&format!("srv/d{}/f{n}", n % 7), format!("{n}\n").repeat(n));
    }
    let entries =
        |host: &TestHost| host.run(&["show", "latest", "--files", "--json"]).ok().json()["entries"].clone();
    host.run(&["backup"]).ok();
    let warm = entries(&host);
    assert!(warm.as_array().unwrap().len() > 400);
    // The kernel keeps what it likes; one file that it gave up is enough to read ahead.
    assert!(evict(&host.root.join("srv")) > 0, "no file left the page cache: is the folder on a disk?");
    host.run(&["backup"]).ok();
    assert_eq!(entries(&host), warm);
}

/// Drops the contents of a tree from the page cache; how many files are gone from it.
fn evict(tree: &Path) -> usize {
    use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
    let mut cold = 0;
    for folder in fs::read_dir(tree).unwrap() {
        for file in fs::read_dir(folder.unwrap().path()).unwrap() {
            let file = fs::File::open(file.unwrap().path()).unwrap();
            file.sync_all().unwrap();
            posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED).unwrap();
            cold += usize::from(!pbx_config::sys::fs::files::is_cached(&file));
        }
    }
    cold
}
