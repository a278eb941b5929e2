//! Every snapshot is taken for hostile: cut off, flipped and forged ones are refused by every verb that reads
//! one, with one error that names the file and the thing, and nothing is written anywhere.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;
#[path = "hostile/slash.rs"]
mod slash;

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use common::TestHost;
use common::tree::{assert_same, picture};
use pbx_config::archive::codec::{CODECS, Codec};
use pbx_config::model::problem::Exit;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tar::{EntryType, Header};

const BLOCK: usize = 512;
const HOWTO: &[u8] = b"read me\n";
const MIB: usize = 1 << 20;
const GIB: u64 = 1 << 30;
/// What a verb may take for the worst snapshot.
const LIMIT: Duration = Duration::from_secs(60);
const MEMORY_KIB: u64 = 600 << 10;

// What a refusal is

/// Runs every verb that reads a snapshot on these bytes: each must refuse them, in the same words.
#[track_caller]
fn refused(host: &TestHost, bytes: &[u8], exit: Exit, words: &str) {
    let place = Place::new(host, bytes);
    let path = place.snap.to_str().unwrap();
    let before = picture(&place.dir, "");

    let done = host.run(&["verify", path]);
    assert_eq!(done.exit, exit, "{words}: {}{}", done.out, done.err);
    assert!(done.out.starts_with(&format!("FAILED  {path}: ")), "{words}: {}", done.out);
    assert!(done.out.contains(words), "{words}: {}", done.out);
    let is_hint = |line: &str| line.starts_with("    hint: ");
    assert!(
        done.out.lines().skip(1).all(is_hint) && done.err.is_empty(),
        "{words}: {}{}",
        done.out,
        done.err
    );

    let to = place.dir.join("target");
    let to = to.to_str().unwrap();
    let verbs: [&[&str]; 6] = [
        &["restore", path, "--yes"],
        &["restore", path, "--dry-run"],
        &["show", path],
        &["cat", path, "etc/hostname"],
        &["restore", path, "--to", to],
        &["restore", path, "--to", to, "--dry-run"],
    ];
    for verb in verbs {
        let done = host.run(verb);
        assert_eq!((done.exit, done.out.as_str()), (exit, ""), "{verb:?}, {words}: {}", done.err);
        assert!(done.err.starts_with(&format!("error: {path}: ")), "{verb:?}, {words}: {}", done.err);
        assert!(done.err.contains(words), "{verb:?}, {words}: {}", done.err);
        let errors = done.err.lines().filter(|line| !line.starts_with("hint: ")).count();
        assert_eq!(errors, 1, "{verb:?}, {words}: {}", done.err);
    }
    assert_same(&picture(&place.dir, ""), &before);
    slash::refused_on_slash(bytes, exit as i32, words);
}

#[track_caller]
fn damaged(host: &TestHost, bytes: &[u8], words: &str) {
    refused(host, bytes, Exit::Verification, words);
}

/// A folder with a snapshot, and beside it a file that no snapshot may reach.
struct Place {
    dir: PathBuf,
    snap: PathBuf,
}

const NAME: &str = "tiny_20261122T151740Z.pbx.tar";

impl Place {
    fn new(host: &TestHost, bytes: &[u8]) -> Self {
        let dir = host.beside("place");
        fs::create_dir_all(dir.join("etc")).unwrap();
        fs::write(dir.join("victim"), "untouched").unwrap();
        let snap = dir.join(NAME);
        fs::write(&snap, bytes).unwrap();
        Self { dir, snap }
    }
}

/// The real program, with little memory and little time.
#[track_caller]
fn bounded(args: &[&OsStr]) -> Output {
    let start = Instant::now();
    let seconds = LIMIT.as_secs().to_string();
    let script = format!("ulimit -v {MEMORY_KIB}; exec timeout {seconds} \"$@\"");
    let done =
        Command::new("sh").args(["-c", &script, "sh"]).arg(common::program()).args(args).output().unwrap();
    assert!(start.elapsed() < LIMIT, "{args:?} took {:?}", start.elapsed());
    done
}

/// The peak of the memory of the real program, in MiB.
fn peak(args: &[impl AsRef<OsStr>]) -> (u64, Output) {
    let time = "import resource, subprocess, sys\n\
        done = subprocess.run(sys.argv[1:])\n\
        print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, file=sys.stderr)\n\
        sys.exit(done.returncode)";
    let done = Command::new("python3").args(["-c", time]).arg(common::program()).args(args).output().unwrap();
    let err = String::from_utf8_lossy(&done.stderr);
    let kib: u64 = err.lines().last().unwrap().parse().unwrap();
    (kib >> 10, done)
}

/// Every verb of the real program refuses it before it takes much memory or time.
#[track_caller]
fn refused_early(host: &TestHost, bytes: &[u8], words: &str) {
    let place = Place::new(host, bytes);
    let before = picture(&place.dir, "");
    let snap = place.snap.as_os_str();
    let to = place.dir.join("target");
    let verbs: [Vec<&OsStr>; 3] = [
        vec![OsStr::new("show"), snap],
        vec![OsStr::new("cat"), snap, OsStr::new("etc/hostname")],
        vec![OsStr::new("restore"), snap, OsStr::new("--to"), to.as_os_str()],
    ];
    for verb in &verbs {
        let done = bounded(verb);
        let err = String::from_utf8_lossy(&done.stderr);
        assert_eq!(done.status.code(), Some(4), "{verb:?}, {words}: {err}");
        assert!(err.contains(words), "{verb:?}, {words}: {err}");
    }
    assert_same(&picture(&place.dir, ""), &before);
    slash::refused_on_slash(bytes, 4, words);
}

// A forger's workshop

fn hex(bytes: &[u8]) -> String {
    pbx_config::sys::hex(&Sha256::digest(bytes))
}

/// A header whose fields are written as they are, whatever they say.
fn header(kind: EntryType, name: &[u8], link: &[u8], size: u64) -> Header {
    let mut header = Header::new_ustar();
    header.as_mut_bytes()[..name.len()].copy_from_slice(name);
    header.as_mut_bytes()[157..157 + link.len()].copy_from_slice(link);
    header.set_entry_type(kind);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(1_700_000_000);
    header.set_size(size);
    header.set_cksum();
    header
}

fn member(kind: EntryType, name: &[u8], link: &[u8], content: &[u8]) -> Vec<u8> {
    let mut bytes = header(kind, name, link, content.len() as u64).as_bytes().to_vec();
    bytes.extend_from_slice(content);
    bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
    bytes
}

/// A PAX header with these records.
fn pax(records: &[(&str, &[u8])]) -> Vec<u8> {
    let mut text = Vec::new();
    for (key, value) in records {
        let rest = key.len() + value.len() + 3;
        let length = (rest + 1..rest + 20).find(|length| *length == rest + length.to_string().len()).unwrap();
        text.extend_from_slice(format!("{length} {key}=").as_bytes());
        text.extend_from_slice(value);
        text.push(b'\n');
    }
    member(EntryType::XHeader, b"pax", b"", &text)
}

/// Blocks of a payload, and what the index says of them.
#[derive(Clone)]
struct Part {
    blocks: Vec<u8>,
    entry: Option<Value>,
}

fn entry(kind: &str, path: &str, link: Option<&str>, content: &[u8]) -> Value {
    let mut entry = json!({
        "item": "hosts", "path": path, "kind": kind, "mode": 0o644, "uid": 0, "gid": 0,
        "mtime": [1_700_000_000, 0], "size": content.len(),
    });
    if kind == "file" {
        entry["sha256"] = hex(content).into();
    }
    if let Some(link) = link {
        entry["link"] = link.into();
    }
    entry
}

fn file(path: &str, content: &str) -> Part {
    Part {
        blocks: member(EntryType::Regular, path.as_bytes(), b"", content.as_bytes()),
        entry: Some(entry("file", path, None, content.as_bytes())),
    }
}

fn folder(path: &str) -> Part {
    Part {
        blocks: member(EntryType::Directory, format!("{path}/").as_bytes(), b"", b""),
        entry: Some(entry("dir", path, None, b"")),
    }
}

fn symlink(path: &str, target: &str) -> Part {
    Part {
        blocks: member(EntryType::Symlink, path.as_bytes(), target.as_bytes(), b""),
        entry: Some(entry("symlink", path, Some(target), b"")),
    }
}

fn hard_link(path: &str, first: &str) -> Part {
    Part {
        blocks: member(EntryType::Link, path.as_bytes(), first.as_bytes(), b""),
        entry: Some(entry("hardlink", path, Some(first), b"")),
    }
}

/// A kind that the index has no word for is called a file there.
fn odd(kind: EntryType, path: &str) -> Part {
    Part { blocks: member(kind, path.as_bytes(), b"", b""), entry: Some(entry("file", path, None, b"")) }
}

impl Part {
    /// A PAX header before it.
    fn pax(mut self, records: &[(&str, &[u8])]) -> Self {
        self.blocks = [pax(records), self.blocks].concat();
        self
    }

    fn entry(mut self, edit: impl Fn(&mut Value)) -> Self {
        edit(self.entry.as_mut().unwrap());
        self
    }
}

type Edit = Box<dyn Fn(&mut Value)>;

/// A snapshot whose manifest, index and payload agree on whatever is put into it.
struct Forge {
    manifest: Value,
    index: Value,
    parts: Vec<Part>,
    /// Members behind the index, listed by it.
    behind: Vec<Part>,
    /// Bytes behind the blocks that end the payload.
    tail: Vec<u8>,
    codec: &'static str,
    with_index: bool,
    edit_index: Edit,
    edit_manifest: Edit,
    /// Members of the bundle: after the manifest, and after the payload.
    clear: Vec<u8>,
    after: Vec<u8>,
}

impl Forge {
    /// From a real snapshot of a small host, without its members.
    fn new() -> Self {
        static REAL: OnceLock<Real> = OnceLock::new();
        let real = REAL.get_or_init(|| Real::of(&TestHost::empty()));
        Self {
            manifest: real.manifest.clone(),
            index: real.index.clone(),
            parts: vec![folder("etc"), file("etc/hostname", "tiny\n")],
            behind: Vec::new(),
            tail: Vec::new(),
            codec: "zstd",
            with_index: true,
            edit_index: Box::new(|_| ()),
            edit_manifest: Box::new(|_| ()),
            clear: Vec::new(),
            after: Vec::new(),
        }
    }

    fn with(mut self, parts: impl IntoIterator<Item = Part>) -> Self {
        self.parts.extend(parts);
        self
    }

    fn index(mut self, edit: impl Fn(&mut Value) + 'static) -> Self {
        self.edit_index = Box::new(edit);
        self
    }

    fn manifest(mut self, edit: impl Fn(&mut Value) + 'static) -> Self {
        self.edit_manifest = Box::new(edit);
        self
    }

    /// The payload before compression.
    fn payload(&self) -> (Vec<u8>, Value) {
        let listed = self.parts.iter().chain(&self.behind).filter_map(|part| part.entry.clone());
        let mut index = self.index.clone();
        index["entries"] = listed.collect();
        (self.edit_index)(&mut index);
        let blocks =
            |parts: &[Part]| parts.iter().map(|part| part.blocks.as_slice()).collect::<Vec<_>>().concat();
        let mut bytes = blocks(&self.parts);
        if self.with_index {
            let text = serde_json::to_vec(&index).unwrap();
            bytes.extend(member(EntryType::Regular, b".pbx/index.json", b"", &text));
        }
        bytes.extend_from_slice(&blocks(&self.behind));
        bytes.extend([0; 2 * BLOCK]);
        bytes.extend_from_slice(&self.tail);
        (bytes, index)
    }

    fn bytes(&self) -> Vec<u8> {
        let (payload, index) = self.payload();
        let stored = if self.codec == "zstd" { packed(&payload) } else { payload.clone() };
        self.bundle(&stored, payload.len() as u64, &index)
    }

    /// The snapshot file around a stored payload that is said to unpack to `size` bytes.
    fn bundle(&self, stored: &[u8], size: u64, index: &Value) -> Vec<u8> {
        let entries = index["entries"].as_array().unwrap();
        let name = format!("payload.tar{}", codec(self.codec).ext);
        let mut manifest = self.manifest.clone();
        manifest["codec"]["name"] = self.codec.into();
        manifest["howto"] = hex(b"read me\n").into();
        manifest["payload"] = json!({ "name": name, "size": stored.len(), "sha256": hex(stored) });
        manifest["counts"] = json!({
            "entries": entries.len(),
            "files": entries.iter().filter(|entry| entry["kind"] == "file").count(),
            "bytes": size,
            "absent": index["absent"].as_array().unwrap().len(),
            "problems": index["problems"].as_array().unwrap().len(),
        });
        manifest["howto"] = hex(HOWTO).into();
        (self.edit_manifest)(&mut manifest);
        let name = manifest["payload"]["name"].as_str().unwrap();
        let text = serde_json::to_vec_pretty(&manifest).unwrap();
        let mut bytes = member(EntryType::Regular, b"MANIFEST.json", b"", &text);
        bytes.extend_from_slice(&self.clear);
        bytes.extend(member(EntryType::Regular, b"HOWTO.txt", b"", HOWTO));
        bytes.extend(member(EntryType::Regular, name.as_bytes(), b"", stored));
        bytes.extend_from_slice(&self.after);
        bytes.extend([0; 2 * BLOCK]);
        bytes
    }
}

fn codec(name: &str) -> &'static Codec {
    CODECS.iter().find(|codec| codec.name == name).unwrap()
}

fn packed(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 1).unwrap()
}

/// A few KiB that unpack to so many zeros: one frame after another.
fn packed_zeros(mib: usize) -> Vec<u8> {
    const FRAME_MIB: usize = 64;
    packed(&vec![0; FRAME_MIB * MIB]).repeat(mib / FRAME_MIB)
}

/// A snapshot as `backup` made it, taken apart.
struct Real {
    bytes: Vec<u8>,
    manifest: Value,
    index: Value,
    /// Name, place of the header, place of the content, end of the content; in the file's order.
    members: Vec<(String, usize, usize, usize)>,
}

impl Real {
    fn of(host: &TestHost) -> Self {
        Self::packed(host, "zstd")
    }

    fn packed(host: &TestHost, compression: &str) -> Self {
        host.configure(&format!("backup: main\n\tcompression {compression}\n"));
        host.run(&["backup"]).ok();
        let bytes = fs::read(host.snapshot_file()).unwrap();
        let mut members = Vec::new();
        let mut archive = tar::Archive::new(bytes.as_slice());
        for member in archive.entries().unwrap() {
            let member = member.unwrap();
            let at = usize::try_from(member.raw_file_position()).unwrap();
            let name = String::from_utf8(member.path_bytes().into_owned()).unwrap();
            members.push((name, at - BLOCK, at, at + usize::try_from(member.size()).unwrap()));
        }
        let content = |(_, _, from, to): &(String, usize, usize, usize)| &bytes[*from..*to];
        let manifest = serde_json::from_slice(content(&members[0])).unwrap();
        let stored = content(members.last().unwrap());
        let mut payload = Vec::new();
        (codec(compression).decode)(Box::new(stored)).unwrap().read_to_end(&mut payload).unwrap();
        let mut index = Value::Null;
        for member in tar::Archive::new(payload.as_slice()).entries().unwrap() {
            let member = member.unwrap();
            if *member.path_bytes() == *b".pbx/index.json" {
                index = serde_json::from_reader(member).unwrap();
            }
        }
        Self { bytes, manifest, index, members }
    }

    /// Which part of the file a byte is in: a member's name, and whether its header, content or padding.
    fn region(&self, at: usize) -> (&str, Region) {
        let found = self.members.iter().rev().find(|(_, header, ..)| at >= *header).unwrap();
        let (name, header, from, to) = found;
        let region = match at {
            _ if at < *from => Region::Header(at - header),
            _ if at < *to => Region::Content,
            _ => Region::Slack,
        };
        (name, region)
    }

    /// The payload as stored.
    fn stored(&self) -> &[u8] {
        let (_, _, from, to) = self.members.last().unwrap();
        &self.bytes[*from..*to]
    }

    /// The same snapshot with another payload, and a manifest that agrees.
    fn with_stored(&self, codec: &'static str, stored: &[u8]) -> Vec<u8> {
        let mut forge = Forge::new();
        (forge.manifest, forge.codec) = (self.manifest.clone(), codec);
        forge.bundle(stored, self.manifest["counts"]["bytes"].as_u64().unwrap(), &self.index)
    }

    fn payload_end(&self) -> usize {
        self.members.last().unwrap().3
    }
}

enum Region {
    Header(usize),
    Content,
    /// Padding, and the blocks that end the file.
    Slack,
}

// The forger itself

#[test]
fn what_the_forger_makes_is_sound_until_something_is_wrong() {
    let host = TestHost::empty();
    let victim = [file("etc/b", "2"), symlink("etc/c", "/victim"), hard_link("etc/d", "etc/b")];
    for codec in ["zstd", "none"] {
        let mut forge = Forge::new().with(victim.clone());
        forge.codec = codec;
        let place = Place::new(&host, &forge.bytes());
        let path = place.snap.to_str().unwrap();
        let to = place.dir.join(codec);
        host.run(&["verify", path]).ok();
        host.run(&["show", path]).ok();
        assert_eq!(host.run(&["cat", path, "etc/d"]).ok().out, "2");
        host.run(&["restore", path, "--to", to.to_str().unwrap()]).ok();
        assert_eq!(fs::read(to.join("etc/hostname")).unwrap(), b"tiny\n");
        assert_eq!(fs::read_link(to.join("etc/c")).unwrap(), Path::new("/victim"));
        assert_eq!(bounded(&[OsStr::new("verify"), place.snap.as_os_str()]).status.code(), Some(0));
    }
}

// Accidents

#[test]
fn a_snapshot_that_was_cut_off_is_refused() {
    let host = TestHost::empty();
    let real = Real::of(&host);
    let end = real.payload_end();
    let mut lengths: Vec<usize> = (0..real.bytes.len()).step_by(BLOCK).collect();
    lengths.extend([1, 511, 513, 700, end - 1, end - 2]);
    for length in lengths {
        let cut = &real.bytes[..length];
        if length < end {
            damaged(&host, cut, "");
        } else {
            // Only zeros are missing: all that was saved is there and proven.
            let place = Place::new(&host, cut);
            host.run(&["verify", place.snap.to_str().unwrap()]).ok();
        }
    }
}

/// Nothing repeats these values of the manifest, so no reader can miss them; none of them decides over contents.
const TOLD_ONCE: [&str; 9] =
    ["installation", "howto", "tool", "codec", "outcome", "trigger", "parent", "note", "protected"];

#[test]
fn one_flipped_bit_is_found_wherever_it_matters() {
    const THREADS: usize = 4;
    let host = TestHost::empty();
    let real = Real::of(&host);
    let found: usize = std::thread::scope(|scope| {
        let each = |n: usize| {
            let (host, real) = (&host, &real);
            move || {
                (n..real.bytes.len()).step_by(THREADS).filter(|at| flip_is_found(host, real, n, *at)).count()
            }
        };
        let threads: Vec<_> = (0..THREADS).map(|n| scope.spawn(each(n))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert!(found > 2500, "{found}");
}

/// Flips one bit of a byte; false where it may pass, and then it must.
fn flip_is_found(host: &TestHost, real: &Real, thread: usize, at: usize) -> bool {
    let mut bytes = real.bytes.clone();
    bytes[at] ^= 1 << (at % 8);
    let path = host.beside(&format!("{thread}.pbx.tar"));
    fs::write(&path, &bytes).unwrap();
    let done = host.run(&["verify", path.to_str().unwrap()]);
    let (name, region) = real.region(at);
    let passes = match region {
        // The checksum's own field has room for another spelling of the same number.
        Region::Header(148..156) => done.exit == Exit::Ok,
        Region::Content if name == "MANIFEST.json" => done.exit == Exit::Ok && only_told_once(real, &bytes),
        Region::Content | Region::Header(_) | Region::Slack => false,
    };
    // A manifest of another format is no damage that could be told.
    let newer = done.out.contains("was written in format");
    let should = match (passes, newer) {
        (true, _) => Exit::Ok,
        (false, true) => Exit::Failed,
        (false, false) => Exit::Verification,
    };
    assert_eq!(done.exit, should, "byte {at} of {name}: {}{}", done.out, done.err);
    !passes
}

/// True when a flipped manifest tells the same as the whole one, but for what is told once.
fn only_told_once(real: &Real, bytes: &[u8]) -> bool {
    let (_, _, from, to) = real.members[0];
    let told = |mut manifest: Value, known: &Value| {
        let map = manifest.as_object_mut().unwrap();
        // A flip within a key makes one that nobody knows; what is nothing may as well be missing.
        let nothing = |value: &Value| value.is_null() || *value == json!({});
        map.retain(|key, value| {
            !TOLD_ONCE.contains(&key.as_str()) && !nothing(value) && known.get(key).is_some()
        });
        manifest
    };
    let flipped = serde_json::from_slice(&bytes[from..to]).unwrap();
    told(flipped, &real.manifest) == told(real.manifest.clone(), &real.manifest)
}

#[test]
fn a_damaged_payload_of_any_codec_is_refused() {
    for codec in CODECS {
        let host = TestHost::empty();
        let real = Real::packed(&host, codec.name);
        let stored = real.stored();
        let place = Place::new(&host, &real.with_stored(codec.name, stored));
        host.run(&["verify", place.snap.to_str().unwrap()]).ok();
        for n in 0..40 {
            let at = n * (stored.len() - 1) / 39;
            let mut flipped = stored.to_vec();
            flipped[at] ^= 1 << (n % 8);
            let mut bytes = real.bytes.clone();
            bytes[real.payload_end() - stored.len() + at] = flipped[at];
            fs::write(&place.snap, &bytes).unwrap();
            host.run(&["verify", place.snap.to_str().unwrap()]).exits(Exit::Verification);
            // With a manifest that agrees, only the codec itself can tell; a flip in the margin of its
            // container leaves the contents as they were.
            fs::write(&place.snap, real.with_stored(codec.name, &flipped)).unwrap();
            let done = host.run(&["verify", place.snap.to_str().unwrap()]);
            assert!(matches!(done.exit, Exit::Ok | Exit::Verification), "{} {at}: {}", codec.name, done.err);
        }
        for length in [0, 1, stored.len() / 2, stored.len() - 1] {
            damaged(&host, &real.with_stored(codec.name, &stored[..length]), "");
        }
    }
}

#[test]
fn nothing_may_be_added_to_the_stream_of_any_codec() {
    for codec in CODECS {
        let host = TestHost::empty();
        let real = Real::packed(&host, codec.name);
        // A tool that unpacks one stream after the other would see more than we.
        damaged(&host, &real.with_stored(codec.name, &real.stored().repeat(2)), "");
        for more in [&b"x"[..], b"garbage behind the stream", &[0; 1]] {
            damaged(&host, &real.with_stored(codec.name, &[real.stored(), more].concat()), "");
        }
    }
}

#[test]
fn a_dictionary_of_4_gib_is_not_granted() {
    let host = TestHost::empty();
    let real = Real::packed(&host, "lzma");
    let mut stored = real.stored().to_vec();
    stored[1..5].copy_from_slice(&u32::MAX.to_le_bytes());
    refused_early(&host, &real.with_stored("lzma", &stored), "");
}

#[test]
fn what_is_no_snapshot_is_called_so() {
    let host = TestHost::empty();
    damaged(&host, b"", "shorter than a header");
    damaged(&host, b"short", "shorter than a header");
    damaged(&host, &[0; 4096], "does not begin with MANIFEST.json");
    damaged(&host, "#!/bin/sh\necho no tar\n".repeat(100).as_bytes(), "does not begin with MANIFEST.json");
    damaged(
        &host,
        &member(EntryType::Regular, b"etc/passwd", b"", b"x"),
        "does not begin with MANIFEST.json",
    );
    damaged(&host, &member(EntryType::Regular, b"MANIFEST.json", b"", b"{}"), "its manifest is damaged");
    let deep = "[".repeat(60_000);
    let deep = member(EntryType::Regular, b"MANIFEST.json", b"", deep.as_bytes());
    damaged(&host, &deep, "its manifest is damaged");
}

#[test]
fn what_is_no_file_is_not_found_and_never_waited_for() {
    let host = TestHost::empty();
    let dir = host.beside("odd");
    fs::create_dir_all(dir.join("a-folder.pbx.tar")).unwrap();
    let made = common::tool("mkfifo").arg(dir.join("a-pipe.pbx.tar")).arg(dir.join("pipe")).status().unwrap();
    assert!(made.success());
    std::os::unix::fs::symlink("a-pipe.pbx.tar", dir.join("a-link.pbx.tar")).unwrap();
    let before = picture(&dir, "");
    let to = dir.join("target");
    for name in ["a-folder.pbx.tar", "a-pipe.pbx.tar", "pipe", "a-link.pbx.tar", "missing.pbx.tar", "missing"]
    {
        let snap = dir.join(name);
        let verbs: [&[&OsStr]; 4] = [
            &[OsStr::new("verify"), snap.as_os_str()],
            &[OsStr::new("show"), snap.as_os_str()],
            &[OsStr::new("cat"), snap.as_os_str(), OsStr::new("etc/hostname")],
            &[OsStr::new("restore"), snap.as_os_str(), OsStr::new("--to"), to.as_os_str()],
        ];
        for verb in verbs {
            let done = bounded(verb);
            let err = String::from_utf8_lossy(&done.stderr);
            assert_eq!(done.status.code(), Some(10), "{verb:?}: {err}");
            assert!(err.starts_with(&format!("error: {}: no such file", snap.display())), "{verb:?}: {err}");
            assert_eq!(done.stdout, b"", "{verb:?}");
        }
    }
    assert_same(&picture(&dir, ""), &before);
}

// Members that attack

#[test]
fn names_that_leave_the_target_are_refused() {
    let host = TestHost::empty();
    let words = "absolute paths and '..'";
    for name in
        ["/etc/cron.d/x", "..", "../victim", "etc/../../victim", "", "/", "etc//x", "./etc/x", "etc/."]
    {
        damaged(&host, &Forge::new().with([file(name, "evil")]).bytes(), words);
    }
    // By a PAX record over a harmless name.
    for name in ["../victim", "/etc/cron.d/x", "", "etc/x\0y", "etc/hostname/"] {
        let part = file("etc/x", "evil").pax(&[("path", name.as_bytes())]);
        damaged(&host, &Forge::new().with([part]).bytes(), words);
    }
    let long = "x/".repeat(200_000) + "x";
    let part = file("etc/x", "evil").pax(&[("path", long.as_bytes())]);
    damaged(&host, &Forge::new().with([part]).bytes(), "longer than any path");
}

#[test]
fn nothing_is_written_through_a_link() {
    let host = TestHost::empty();
    for target in ["..", "../..", "/tmp", "etc", "."] {
        let parts = [symlink("out", target), file("out/victim", "evil")];
        damaged(
            &host,
            &Forge::new().with(parts).bytes(),
            "out/victim: is below out, which is not a directory",
        );
    }
    let later = [file("out/victim", "evil"), symlink("out", "..")];
    damaged(&host, &Forge::new().with(later).bytes(), "which is not a directory");
    let deep = [symlink("a", "../.."), folder("a/b"), file("a/b/c", "evil")];
    damaged(&host, &Forge::new().with(deep).bytes(), "is below a, which is not a directory");
    let file_as_folder = [file("a", "1"), file("a/b", "2")];
    damaged(&host, &Forge::new().with(file_as_folder).bytes(), "a/b: is below a, which is not a directory");
    // The index is a member, too, when tar unpacks it.
    let index = [symlink(".pbx", "..")];
    damaged(
        &host,
        &Forge::new().with(index).bytes(),
        ".pbx/index.json: is below .pbx, which is not a directory",
    );
    let below = [file(".pbx/index.json/a", "1")];
    damaged(&host, &Forge::new().with(below).bytes(), "is below .pbx/index.json, which is not a directory");
    let linked = [hard_link("a", "etc/hostname"), file("a/b", "2")];
    damaged(&host, &Forge::new().with(linked).bytes(), "a/b: is below a, which is not a directory");
}

#[test]
fn a_hard_link_must_mean_a_file_that_stands_before_it() {
    let host = TestHost::empty();
    let words = "which is not a file before it";
    for first in ["/etc/shadow", "../victim", "../../../../etc/passwd", "missing", "etc", "etc/x", "."] {
        let link = hard_link("etc/x", first);
        damaged(&host, &Forge::new().with([link]).bytes(), words);
    }
    let later = [hard_link("etc/a", "etc/b"), file("etc/b", "2")];
    damaged(&host, &Forge::new().with(later).bytes(), words);
    let to_link = [symlink("etc/s", "/etc/shadow"), hard_link("etc/h", "etc/s")];
    damaged(&host, &Forge::new().with(to_link).bytes(), words);
    let of_link = [hard_link("etc/h", "etc/hostname"), hard_link("etc/i", "etc/h")];
    damaged(&host, &Forge::new().with(of_link).bytes(), words);
    let to_index = [hard_link("etc/h", ".pbx/index.json")];
    damaged(&host, &Forge::new().with(to_index).bytes(), words);
}

#[test]
fn links_that_cannot_be_made_are_refused() {
    let host = TestHost::empty();
    for target in [&b""[..], b"a\0b", &[b'x'; 5000]] {
        let part = symlink("etc/s", "x").pax(&[("linkpath", target)]).entry({
            let target = String::from_utf8(target.to_vec()).unwrap();
            move |entry| entry["link"] = target.clone().into()
        });
        damaged(&host, &Forge::new().with([part]).bytes(), "etc/s: its link target is not valid");
    }
    let mut bare = symlink("etc/s", "x");
    bare.blocks = member(EntryType::Symlink, b"etc/s", b"", b"");
    damaged(&host, &Forge::new().with([bare]).bytes(), "etc/s: a link without a target");
    let mut full = file("etc/s", "x");
    full.blocks = member(EntryType::Regular, b"etc/s", b"etc/hostname", b"x");
    damaged(&host, &Forge::new().with([full]).bytes(), "etc/s: a link without a target, or a target");
}

#[test]
fn kinds_that_no_snapshot_holds_are_refused() {
    let host = TestHost::empty();
    let kinds = [
        (EntryType::Char, '3'),
        (EntryType::Block, '4'),
        (EntryType::Fifo, '6'),
        (EntryType::Continuous, '7'),
        (EntryType::GNULongName, 'L'),
        (EntryType::GNULongLink, 'K'),
        (EntryType::GNUSparse, 'S'),
        (EntryType::XGlobalHeader, 'g'),
        (EntryType::new(b'V'), 'V'),
        (EntryType::new(b'A'), 'A'),
    ];
    for (kind, letter) in kinds {
        let forge = Forge::new().with([odd(kind, "etc/odd")]);
        damaged(&host, &forge.bytes(), &format!("etc/odd: is of type '{letter}'"));
    }
    // GNU's long name before a harmless one.
    let mut part = file("etc/x", "evil");
    part.blocks.splice(0..0, member(EntryType::GNULongName, b"././@LongLink", b"", b"../victim\0"));
    damaged(&host, &Forge::new().with([part]).bytes(), "is of type 'L'");
    for kind in [EntryType::Directory, EntryType::Symlink, EntryType::Link] {
        let mut part = folder("etc/full");
        part.blocks =
            member(kind, b"etc/full", if kind == EntryType::Directory { b"" } else { b"etc" }, b"content");
        damaged(&host, &Forge::new().with([part]).bytes(), "etc/full: only files have contents");
    }
}

#[test]
fn a_name_stands_in_a_snapshot_once() {
    let host = TestHost::empty();
    let words = "etc/x: is in it twice";
    let pairs = [
        [file("etc/x", "1"), file("etc/x", "1")],
        [file("etc/x", "1"), folder("etc/x")],
        [folder("etc/x"), file("etc/x", "1")],
        [folder("etc/x"), symlink("etc/x", "/tmp")],
        [symlink("etc/x", "/tmp"), folder("etc/x")],
        [file("etc/x", "1"), hard_link("etc/x", "etc/hostname")],
    ];
    for pair in pairs {
        damaged(&host, &Forge::new().with(pair).bytes(), words);
    }
}

#[test]
fn pax_records_that_hide_a_header_are_refused() {
    let host = TestHost::empty();
    let hiding: [(&str, &[u8]); 8] = [
        ("size", b"1"),
        ("uid", b"0"),
        ("gid", b"0"),
        ("GNU.sparse.name", b"../victim"),
        ("GNU.sparse.realsize", b"1000000000000"),
        ("GNU.sparse.major", b"1"),
        ("hdrcharset", b"BINARY"),
        ("SCHILY.realsize", b"1000000"),
    ];
    for record in hiding {
        let part = file("etc/x", "x").pax(&[record]);
        damaged(&host, &Forge::new().with([part]).bytes(), "overrides the header");
    }
    for broken in [&b"garbage"[..], b"5 a=b\n", b"99 a=b\n", b"6 ab\n\n", b"6 a=bc", b"0 a=b\n", b"-1 a=b\n"]
    {
        let mut part = file("etc/x", "x");
        part.blocks.splice(0..0, member(EntryType::XHeader, b"pax", b"", broken));
        damaged(&host, &Forge::new().with([part]).bytes(), "damaged PAX header");
    }
    let twice = file("etc/x", "x").pax(&[("mtime", b"1700000000")]).pax(&[("path", b"etc/y")]);
    damaged(&host, &Forge::new().with([twice]).bytes(), "two PAX headers");
    let mut alone = file("etc/x", "x");
    alone.blocks = pax(&[("path", b"etc/x")]);
    alone.entry = None;
    let mut last = Forge::new();
    last.behind = vec![alone];
    damaged(&host, &last.bytes(), "a PAX header without an entry");
}

// Sizes

#[test]
fn more_or_less_than_the_manifest_says_is_refused() {
    let host = TestHost::empty();
    let say = |place: &'static str, by: i64| {
        Forge::new().manifest(move |manifest| {
            let value = manifest.pointer_mut(place).unwrap();
            *value = (value.as_i64().unwrap() + by).into();
        })
    };
    let cases = [
        ("/counts/bytes", -1, "unpacks to more than its manifest says"),
        ("/counts/bytes", 1, "unpacks to less than its manifest says"),
        ("/counts/entries", -1, "has more entries than its manifest says"),
        ("/counts/entries", 1, "its manifest says 3"),
        ("/counts/files", 1, "count"),
        ("/counts/absent", -1, "count"),
        ("/counts/problems", 1, "count"),
        ("/payload/size", -1, "its manifest says"),
        ("/payload/size", 1, "its manifest says"),
    ];
    for (place, by, words) in cases {
        damaged(&host, &say(place, by).bytes(), words);
    }
    let huge = Forge::new().manifest(|manifest| manifest["payload"]["size"] = u64::MAX.into());
    damaged(&host, &huge.bytes(), "its manifest says 18446744073709551615");
    // A header whose size is beyond every file, in GNU's notation.
    for size in [u64::MAX, u64::MAX - 511, 1 << 62] {
        let mut part = file("etc/x", "x");
        part.blocks = header(EntryType::Regular, b"etc/x", b"", size).as_bytes().to_vec();
        let forge = Forge::new().with([part]);
        damaged(&host, &forge.bytes(), "");
        let mut outer = Forge::new();
        outer.clear = header(EntryType::Regular, b"MANIFEST.sig", b"", size).as_bytes().to_vec();
        damaged(&host, &outer.bytes(), "");
    }
}

#[test]
fn a_bomb_goes_off_neither_in_time_nor_in_memory() {
    let host = TestHost::empty();
    let forge = Forge::new();
    let (payload, index) = forge.payload();
    // A member of 10 GB in a snapshot that says it has a few KiB.
    let mut stored = packed(header(EntryType::Regular, b"zeros", b"", 10 * GIB).as_bytes());
    stored.extend(packed_zeros(10 << 10));
    let words = "unpacks to more than its manifest says";
    refused_early(&host, &forge.bundle(&stored, payload.len() as u64, &index), words);
    // 10 GB behind a payload that is whole.
    let mut stored = packed(&payload);
    stored.extend(packed_zeros(10 << 10));
    refused_early(&host, &forge.bundle(&stored, payload.len() as u64, &index), words);
    // The same, and the manifest says so.
    let size = payload.len() as u64 + 10 * GIB;
    refused_early(&host, &forge.bundle(&stored, size, &index), "data after its end");
    // An index of 10 GB.
    let mut stored = packed(header(EntryType::Regular, b".pbx/index.json", b"", 10 * GIB).as_bytes());
    stored.extend(packed_zeros(10 << 10));
    refused_early(&host, &forge.bundle(&stored, 10 * GIB + 512, &index), "not a file of a plausible size");
}

#[test]
fn a_pax_header_of_100_mb_is_not_read() {
    let host = TestHost::empty();
    let part = file("etc/x", "x").pax(&[("SCHILY.xattr.user.x", &vec![0; 100 * MIB])]);
    refused_early(&host, &Forge::new().with([part]).bytes(), "a PAX header is too large");
}

#[test]
fn attributes_of_all_members_together_are_bounded() {
    const MEMBERS: usize = 300;
    let host = TestHost::empty();
    let forge = Forge::new();
    let (payload, mut index) = forge.payload();
    // Each has an attribute of nearly 1 MiB, and all come from a few KiB.
    let attribute = pax(&[("SCHILY.xattr.user.x", &vec![0; MIB - 100])]);
    let packed_attribute = packed(&attribute);
    let mut stored = Vec::new();
    for n in 0..MEMBERS {
        stored.extend_from_slice(&packed_attribute);
        stored.extend(packed(&file(&format!("etc/{n:04}"), "").blocks));
    }
    stored.extend(packed(&payload));
    let listed = index["entries"][0].clone();
    index["entries"] = vec![listed; MEMBERS + 2].into();
    let size = MEMBERS * (attribute.len() + BLOCK) + payload.len();
    refused_early(
        &host,
        &forge.bundle(&stored, size as u64, &index),
        "has 302 entries, but its index lists 2",
    );
}

#[test]
fn a_window_of_2_gib_is_not_granted() {
    let host = TestHost::empty();
    let forge = Forge::new();
    let (payload, index) = forge.payload();
    // A frame by hand: magic, no content size, window 2^31, raw blocks.
    let mut stored = vec![0x28, 0xb5, 0x2f, 0xfd, 0x00, (31 - 10) << 3];
    let chunks: Vec<&[u8]> = payload.chunks(100_000).collect();
    for (n, chunk) in chunks.iter().enumerate() {
        let last = u32::from(n + 1 == chunks.len());
        let block = u32::try_from(chunk.len()).unwrap() << 3 | last;
        stored.extend_from_slice(&block.to_le_bytes()[..3]);
        stored.extend_from_slice(chunk);
    }
    refused_early(&host, &forge.bundle(&stored, payload.len() as u64, &index), "too much memory");
}

/// Reads it by every verb: each says the same, in little memory beyond what the program takes for a small one.
#[track_caller]
fn refused_in_little_memory(host: &TestHost, bytes: &[u8], words: &str) {
    const BEYOND_MIB: u64 = 64;
    static BASES: OnceLock<Vec<u64>> = OnceLock::new();
    let small = Place::new(host, &Forge::new().bytes());
    let place = Place::new(host, bytes);
    let to = place.dir.join("target");
    let verbs = |place: &Place| -> [Vec<OsString>; 3] {
        let snap = || place.snap.clone().into();
        [
            vec!["verify".into(), snap()],
            vec!["show".into(), snap()],
            vec!["restore".into(), snap(), "--to".into(), to.clone().into()],
        ]
    };
    let bases = BASES.get_or_init(|| verbs(&small).iter().map(|verb| peak(verb).0).collect());
    let _ = fs::remove_dir_all(&to);
    for (verb, base) in verbs(&place).iter().zip(bases) {
        let (most, done) = peak(verb);
        let said = [done.stdout, done.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        assert_eq!(done.status.code(), Some(4), "{verb:?}, {words}: {said}");
        assert!(said.contains(words), "{verb:?}, {words}: {said}");
        assert!(most <= base + BEYOND_MIB, "{verb:?}, {words}: {most} MiB, and {base} MiB for a small one");
    }
}

/// A payload whose parts repeat: what comes before, a part so many times, what comes after.
struct Repeated {
    stored: Vec<u8>,
    size: usize,
}

impl Repeated {
    fn new() -> Self {
        Self { stored: Vec::new(), size: 0 }
    }

    fn add(mut self, bytes: &[u8]) -> Self {
        self.stored.extend(packed(bytes));
        self.size += bytes.len();
        self
    }

    fn times(mut self, count: usize, part: &[u8]) -> Self {
        const CHUNK_BYTES: usize = 8 * MIB;
        let each = (CHUNK_BYTES / part.len()).clamp(1, count);
        let chunk = packed(&part.repeat(each));
        self.stored.extend(chunk.repeat(count / each));
        self.size += count / each * each * part.len();
        self.add(&part.repeat(count % each))
    }
}

/// The index of a small snapshot up to a value that is repeated in it, and what stands behind that.
fn torn_index(edit: impl Fn(&mut Value)) -> (String, String) {
    let mut index = Forge::new().payload().1;
    edit(&mut index);
    let text = index.to_string();
    let (before, after) = text.split_once("\"@@\"").unwrap();
    (before.to_owned(), after.to_owned())
}

#[test]
fn an_index_of_a_million_empty_words_takes_little_memory() {
    const WORDS: usize = 20_000_000;
    let host = TestHost::empty();
    let forge = Forge::new();
    let index = forge.payload().1;
    let front: Vec<u8> = forge.parts.iter().flat_map(|part| part.blocks.clone()).collect();
    let bomb = |edit: &dyn Fn(&mut Value), word: &str, words: &str| {
        let (before, after) = torn_index(edit);
        let count = WORDS * 3 / (word.len() + 1);
        let size = before.len() + count * (word.len() + 1) + word.len() + after.len();
        let blank = vec![0; size.next_multiple_of(BLOCK) - size + 2 * BLOCK];
        let header = header(EntryType::Regular, b".pbx/index.json", b"", size as u64);
        let payload = Repeated::new()
            .add(&[&front, &header.as_bytes()[..], before.as_bytes()].concat())
            .times(count, format!("{word},").as_bytes())
            .add(&[word.as_bytes(), after.as_bytes(), &blank].concat());
        assert!(payload.stored.len() < MIB, "{} bytes", payload.stored.len());
        let bytes = forge.bundle(&payload.stored, payload.size as u64, &index);
        refused_in_little_memory(&host, &bytes, words);
    };

    let rest = "has more to tell beside its entries than any host";
    let long = "has a longer value than any host";
    bomb(&|index| index["facts"]["looked-at"] = json!(["@@"]), "\"\"", long);
    bomb(&|index| index["unknown"] = json!(["@@"]), "[]", long);
    bomb(&|index| index["absent"] = json!(["@@"]), r#"{"item":""}"#, long);
    bomb(&|index| index["problems"] = json!(["@@"]), r#"{"severity":"notice","what":""}"#, long);
    bomb(&|index| index["entries"][0]["xattrs"] = json!(["@@"]), r#"{"name":"","value":[]}"#, long);
    bomb(&|index| index["entries"][1]["path"] = json!(["@@"]), "1", long);
    bomb(&|index| index["@@"] = json!(1), "\"b\":2", rest);
    let other = r#"{"item":"","path":"a","kind":"dir","mode":0,"uid":0,"gid":0,"mtime":[0,0]}"#;
    bomb(&|index| index["entries"] = json!(["@@"]), other, "a: is only in the index");
}

#[test]
fn a_million_entries_take_little_memory() {
    let host = TestHost::empty();
    let forge = Forge::new();
    let index = forge.payload().1;
    let mut tail = member(EntryType::Regular, b".pbx/index.json", b"", index.to_string().as_bytes());
    tail.extend([0; 2 * BLOCK]);
    let more = "has more entries than any host";
    let mut payload = Repeated::new();
    let mut blocks = Vec::new();
    for n in 0..120_000 {
        let mut part = header(EntryType::Regular, format!("etc/{n}").as_bytes(), b"", 0);
        part.set_cksum();
        blocks.extend_from_slice(part.as_bytes());
    }
    payload = payload.add(&blocks).add(&tail);
    let mut text = forge.bundle(&payload.stored, payload.size as u64, &index);
    refused_in_little_memory(&host, &text, "has more entries than its manifest says");

    let many = Forge::new().manifest(|manifest| manifest["counts"]["entries"] = 1_000_000.into());
    text = many.bundle(&payload.stored, payload.size as u64, &index);
    refused_in_little_memory(&host, &text, more);
}

#[test]
fn as_many_entries_as_a_host_may_have_are_read_in_little_memory() {
    const COUNT: usize = 100_000;
    let host = TestHost::empty();
    let forge =
        Forge::new().with((0..COUNT).map(|n| file(&format!("etc/some-folder/and-a-file-{n}.conf"), "")));
    let place = Place::new(&host, &forge.bytes());
    let (base, _) = peak(&[OsStr::new("verify"), Place::new(&host, &Forge::new().bytes()).snap.as_os_str()]);
    let (most, done) = peak(&[OsStr::new("verify"), place.snap.as_os_str()]);
    assert_eq!(done.status.code(), Some(0), "{}", String::from_utf8_lossy(&done.stderr));
    assert!(most <= base + 64, "{most} MiB, and {base} MiB for a small one");
}

#[test]
fn two_gib_of_small_files_take_little_memory() {
    let host = TestHost::empty();
    let forge = Forge::new();
    let index = forge.payload().1;
    let mut payload = Repeated::new();
    let zeros = packed(&vec![0; 256 << 10]);
    for n in 0..8192 {
        payload =
            payload.add(header(EntryType::Regular, format!("etc/{n}").as_bytes(), b"", 256 << 10).as_bytes());
        payload.stored.extend_from_slice(&zeros);
        payload.size += 256 << 10;
    }
    let text = member(EntryType::Regular, b".pbx/index.json", b"", index.to_string().as_bytes());
    let payload = payload.add(&text).add(&[0; 2 * BLOCK]);
    let forge = Forge::new().manifest(|manifest| manifest["counts"]["entries"] = 8192.into());
    let bytes = forge.bundle(&payload.stored, payload.size as u64, &index);
    refused_in_little_memory(&host, &bytes, "etc: is only in the index");
}

// Index and manifest

#[test]
fn the_index_is_the_last_member_and_lists_what_is_there() {
    let host = TestHost::empty();
    let mut none = Forge::new();
    none.with_index = false;
    damaged(&host, &none.bytes(), "has no index");

    let mut behind = Forge::new();
    behind.behind = vec![file("etc/late", "late")];
    damaged(&host, &behind.bytes(), "etc/late: is only in the index");
    behind.behind[0].entry = None;
    damaged(&host, &behind.bytes(), "etc/late: is after the index");

    // Behind the end of the archive, where a patient reader would still find it.
    let mut hidden = Forge::new();
    hidden.tail = file("etc/late", "late").blocks;
    damaged(&host, &hidden.bytes(), "data after its end");
    hidden.tail = vec![0; BLOCK];
    damaged(&host, &hidden.bytes(), "data after its end");

    let mut twice = Forge::new();
    let text = twice.payload().1.to_string();
    let blocks = member(EntryType::Regular, b".pbx/index.json", b"", text.as_bytes());
    twice.behind = vec![Part { blocks, entry: None }];
    damaged(&host, &twice.bytes(), ".pbx/index.json: is after the index");

    let unlisted = Forge::new().with([Part { entry: None, ..file("etc/more", "more") }]);
    damaged(&host, &unlisted.bytes(), "has more entries than its manifest says");
    let unlisted = Forge::new()
        .with([Part { entry: None, ..file("etc/more", "more") }])
        .manifest(|manifest| manifest["counts"]["entries"] = 3.into());
    damaged(&host, &unlisted.bytes(), "has 3 entries, but its index lists 2");
    let instead = Forge::new().index(|index| index["entries"][1]["path"] = "etc/other".into());
    damaged(&host, &instead.bytes(), "etc/other: is only in the index");
    // Listing one member twice must not make up for one that is not listed.
    let double = Forge::new().with([file("etc/more", "more")]).index(|index| {
        index["entries"][2] = index["entries"][1].clone();
    });
    damaged(&host, &double.bytes(), "etc/hostname: is in its index twice");
    let text = Forge::new().index(|index| *index = json!({ "entries": [], "absent": [], "problems": [] }));
    damaged(&host, &text.bytes(), "");
}

#[test]
fn the_index_tells_what_the_headers_tell() {
    let host = TestHost::empty();
    let differs = "etc/hostname: its header and the index differ";
    let cases: [(&str, Value, &str); 10] = [
        ("mode", 0o4755.into(), differs),
        ("uid", 1.into(), differs),
        ("gid", 1.into(), differs),
        ("mtime", json!([1, 0]), differs),
        ("size", 4.into(), differs),
        ("kind", "dir".into(), differs),
        ("link", "etc".into(), differs),
        ("xattrs", json!([{ "name": "user.x", "value": [1] }]), differs),
        ("sha256", hex(b"other").into(), "etc/hostname: its contents are not what the index says"),
        ("sha256", "".into(), "etc/hostname: its contents are not what the index says"),
    ];
    for (key, value, words) in cases {
        let forge = Forge::new().index(move |index| index["entries"][1][key] = value.clone());
        let counted = key == "kind";
        let forge =
            if counted { forge.manifest(|manifest| manifest["counts"]["files"] = 0.into()) } else { forge };
        damaged(&host, &forge.bytes(), words);
    }
    let set = Forge::new().index(|index| index["entries"][0]["mode"] = 0o777.into());
    damaged(&host, &set.bytes(), "etc: its header and the index differ");
}

#[test]
fn the_manifest_tells_what_the_index_tells() {
    let host = TestHost::empty();
    let cases: [(&str, Value, &str); 5] = [
        ("id", "tiny/2026-11-22T15:17:41Z".into(), "its index is of tiny/2026-11-22T15:17:40Z"),
        ("node", "other".into(), "not of the same host"),
        ("machine-id", "0123456789abcdef".into(), "not of the same host"),
        ("products", json!({ "pve": "9.0" }), "not of the same host"),
        ("cluster", json!({ "name": "c", "nodes": ["tiny"] }), "not of the same host"),
    ];
    for (key, value, words) in cases {
        let forge = Forge::new().manifest(move |manifest| manifest[key] = value.clone());
        damaged(&host, &forge.bytes(), words);
    }
    let sum = Forge::new().manifest(|manifest| manifest["payload"]["sha256"] = hex(b"other").into());
    damaged(&host, &sum.bytes(), "the SHA-256 of its payload differs from its manifest");
    let large = Forge::new().manifest(|manifest| manifest["note"] = "n".repeat(70_000).into());
    damaged(&host, &large.bytes(), "its manifest is larger than 65536 bytes");
    let zero = Forge::new().manifest(|manifest| manifest["format"] = 0.into());
    damaged(&host, &zero.bytes(), "its manifest is damaged");
}

#[test]
fn what_a_newer_version_wrote_is_not_called_damaged() {
    let host = TestHost::empty();
    let newer = Forge::new().manifest(|manifest| manifest["format"] = 99.into());
    refused(&host, &newer.bytes(), Exit::Failed, "was written in format 99; this version reads up to 1");
    for name in ["payload.tar.rar", "payload.zip", "other"] {
        let codec = Forge::new().manifest(move |manifest| manifest["payload"]["name"] = name.into());
        refused(&host, &codec.bytes(), Exit::Failed, &format!("this version cannot read {name}"));
    }
    let place = Place::new(&host, &newer.bytes());
    let done = host.run(&["show", place.snap.to_str().unwrap()]);
    assert!(done.err.contains("hint: upgrade proxmox-backup-extra"), "{}", done.err);
}

#[test]
fn an_encrypted_snapshot_is_not_called_damaged() {
    let host = TestHost::empty();
    // Its header is whole, so that it is nobody's here, and not damaged.
    let stanza = "-> X25519 TEiF0ypqr+bpvcqXNyCVJpL7OuwPdVwPL7KQEbFDOCc\n\
                  EmECAEcKN+n/Vs9SbWiV+Hu0r+E8R77DdWYyd83nw7U\n";
    let mac = "--- Vn+54jqiiUCE+WZcEVY3f1sqHjlu/z1LCQ/T7Xm7qI0\n";
    let payload = [format!("age-encryption.org/v1\n{stanza}{mac}").as_bytes(), &[7; 64]].concat();
    let forge = Forge::new().manifest(|manifest| {
        manifest["sealed"] = json!({ "recipients": 1 });
        manifest["payload"]["name"] = "payload.tar.zst.age".into();
    });
    let (clear, index) = forge.payload();
    let place = Place::new(&host, &forge.bundle(&payload, clear.len() as u64, &index));
    let path = place.snap.to_str().unwrap();
    let done = host.run(&["verify", path]).ok();
    assert!(done.out.contains("(encrypted: contents not verified)"), "{}", done.out);
    let to = place.dir.join("target");
    for verb in [
        &["show", path, "--files"][..],
        &["cat", path, "x"],
        &["restore", path, "--to", to.to_str().unwrap()],
    ] {
        let done = host.run(verb).exits(Exit::Unseal);
        assert!(done.err.contains("is encrypted\nhint: "), "{verb:?}: {}", done.err);
    }
}

#[test]
fn a_bundle_reads_the_same_for_every_tool() {
    let host = TestHost::empty();
    let manifest = |text: &str| member(EntryType::Regular, b"MANIFEST.json", b"", text.as_bytes());
    let with_clear = |blocks: Vec<u8>| {
        let mut forge = Forge::new();
        forge.clear = blocks;
        forge.bytes()
    };
    damaged(&host, &with_clear(manifest("{}")), "MANIFEST.json: is in it twice");
    let howto = member(EntryType::Regular, b"HOWTO.txt", b"", b"other");
    damaged(&host, &with_clear(howto), "HOWTO.txt: is in it twice");
    let evil = member(EntryType::Regular, b"evil", b"", b"x");
    damaged(&host, &with_clear(evil.clone()), "has an entry evil that does not belong in a snapshot");
    let link = member(EntryType::Symlink, b"MANIFEST.sig", b"/etc/shadow", b"");
    damaged(&host, &with_clear(link), "MANIFEST.sig: is not a regular file");
    // A PAX header that renames what follows, under a name that is known.
    let mut renamed = pax(&[("path", b"../victim")]);
    let named = header(EntryType::XHeader, b"MANIFEST.sig", b"", (renamed.len() - BLOCK) as u64);
    renamed[..BLOCK].copy_from_slice(named.as_bytes());
    damaged(&host, &with_clear(renamed), "MANIFEST.sig: is not a regular file");
    damaged(&host, &with_clear(vec![0; 2 * BLOCK]), "has no payload");

    let mut second = Forge::new();
    second.after = member(EntryType::Regular, b"payload.tar.zst", b"", b"another payload");
    damaged(&host, &second.bytes(), "after its payload");
    second.after = evil;
    damaged(&host, &second.bytes(), "after its payload");
}

// What is shown

const EVIL: &str = "x\x1b[2J\x1b]0;evil\x07\u{9b}31m\r\ny";

#[test]
fn nothing_a_snapshot_says_moves_the_cursor() {
    let host = TestHost::empty();
    let mut part = file("etc/x", "x").entry(|entry| {
        entry["item"] = EVIL.into();
        entry["owner"] = EVIL.into();
        entry["group"] = EVIL.into();
    });
    let evil_path = "etc/\x1b[2J\nx";
    part.blocks = file(evil_path, "x").blocks;
    let part = part.entry(|entry| entry["path"] = evil_path.into());
    let forge = Forge::new()
        .with([part, symlink("etc/y", "\x1b[2J\n")])
        .index(|index| {
            index["absent"][0]["item"] = EVIL.into();
            index["problems"][0]["what"] = EVIL.into();
            index["problems"][0]["hint"] = EVIL.into();
            index["facts"]["machine-id"] = EVIL.into();
            index["facts"]["products"] = json!({ "pve": EVIL });
            index["facts"]["cluster"] = json!({ "name": EVIL, "nodes": [EVIL] });
        })
        .manifest(|manifest| {
            manifest["note"] = EVIL.into();
            manifest["tool"] = EVIL.into();
            manifest["codec"]["name"] = EVIL.into();
            manifest["machine-id"] = EVIL.into();
            manifest["products"] = json!({ "pve": EVIL });
            manifest["cluster"] = json!({ "name": EVIL, "nodes": [EVIL] });
        });
    let place = Place::new(&host, &forge.bytes());
    let (path, dir) = (place.snap.to_str().unwrap(), place.dir.to_str().unwrap());
    let to = place.dir.join("target");
    let verbs: [&[&str]; 7] = [
        &["show", path],
        &["show", path, "--files"],
        &["list", dir],
        &["verify", path],
        &["cat", path, "etc/xx"],
        &["restore", path, "--to", to.to_str().unwrap(), "--dry-run"],
        &["restore", path, "--to", to.to_str().unwrap()],
    ];
    for verb in verbs {
        let done = host.run(verb);
        assert!(matches!(done.exit, Exit::Ok | Exit::NotFound), "{verb:?}: {}", done.err);
        let text = format!("{}{}", done.out, done.err);
        let bad = text.chars().find(|c| c.is_control() && *c != '\n');
        assert_eq!(bad, None, "{verb:?}: {text:?}");
        assert!(!text.contains("\ny"), "{verb:?}: {text:?}");
    }
    for part in ["note", "machine", "product", "cluster"] {
        let shown = host.run(&["show", path]).out;
        assert_eq!(shown.lines().filter(|line| line.starts_with(part)).count(), 1, "{shown}");
    }
}

#[test]
fn a_listing_shows_the_good_ones_beside_the_damaged() {
    let host = TestHost::empty();
    let real = Real::of(&host);
    let dir = host.beside("folder");
    fs::create_dir(&dir).unwrap();
    let put = |second: u32, bytes: &[u8]| {
        fs::write(dir.join(format!("tiny_20261122T1517{second}Z.pbx.tar")), bytes).unwrap();
    };
    let forged = |edit: fn(&mut Value)| Forge::new().manifest(edit).bytes();
    put(40, &real.bytes);
    put(41, &forged(|manifest| manifest["id"] = "tiny/2026-11-22T15:17:41Z".into()));
    // Damaged where a listing looks: nine of them.
    put(10, b"");
    put(11, &real.bytes[..700]);
    put(12, &[0; 5000]);
    put(13, &forged(|manifest| manifest["format"] = 99.into()));
    put(14, &forged(|manifest| manifest["note"] = "n".repeat(70_000).into()));
    put(15, &real.bytes); // of another second by its manifest
    put(16, &member(EntryType::Regular, b"MANIFEST.json", b"", b"{}"));
    put(17, &member(EntryType::Regular, b"etc/passwd", b"", b"root"));
    put(18, &header(EntryType::Regular, b"MANIFEST.json", b"", u64::MAX).as_bytes()[..]);
    // No files at all: not listed, not waited for.
    fs::create_dir(dir.join("tiny_20261122T151750Z.pbx.tar")).unwrap();
    let pipe = dir.join("tiny_20261122T151751Z.pbx.tar");
    assert!(common::tool("mkfifo").arg(&pipe).status().unwrap().success());
    std::os::unix::fs::symlink(&pipe, dir.join("tiny_20261122T151752Z.pbx.tar")).unwrap();

    let done = host.run(&["list", dir.to_str().unwrap(), "--json"]).exits(Exit::Problems);
    let listing = done.json();
    let rows = |good: bool| -> Vec<String> {
        let rows = listing["snapshots"].as_array().unwrap().iter();
        rows.filter(|row| row["snapshot"].is_object() == good)
            .map(|row| row["id"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(rows(true), ["tiny/2026-11-22T15:17:41Z", "tiny/2026-11-22T15:17:40Z"]);
    assert_eq!(rows(false).len(), 9, "{listing:#}");
    let problems: Vec<&str> =
        listing["problems"].as_array().unwrap().iter().map(|one| one["what"].as_str().unwrap()).collect();
    assert_eq!(problems.len(), 9, "{problems:#?}");
    for id in rows(false) {
        assert_eq!(problems.iter().filter(|what| what.contains(&id)).count(), 1, "{id}: {problems:#?}");
    }
    let text = host.run(&["list", dir.to_str().unwrap()]).exits(Exit::Problems).out;
    assert_eq!(text.lines().filter(|line| line.contains("damaged")).count(), 9, "{text}");
    assert_eq!(text.lines().count(), 12, "{text}");
    let real = bounded(&[OsStr::new("list"), dir.as_os_str()]);
    assert_eq!(real.status.code(), Some(3));
}

// Signals

/// `cat` of a member that does not fit into a pipe: it writes, and waits for its reader.
fn waiting_cat(host: &TestHost) -> std::process::Child {
    host.configure("backup: main\n\tcompression zstd\n\tcompression-mode fast\n\tinclude /srv\n");
    fs::create_dir_all(host.root.join("srv")).unwrap();
    fs::File::create(host.root.join("srv/large")).unwrap().set_len(64 << 20).unwrap();
    host.run(&["backup"]).ok();
    let mut command = Command::new(common::program());
    command.arg("cat").arg(host.snapshot_file()).arg("srv/large");
    command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let mut child = command.spawn().unwrap();
    // The snapshot is proven, and the handlers are there, once its first byte comes.
    child.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
    child
}

fn terminate(child: &std::process::Child) {
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
}

/// Reports whether a signal was sent that it has not taken yet.
fn is_pending(child: &std::process::Child, signal: nix::sys::signal::Signal) -> bool {
    let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
    let masks =
        status.lines().filter_map(|line| line.strip_prefix("ShdPnd:").or(line.strip_prefix("SigPnd:")));
    let bit = 1_u64 << (signal as i32 - 1);
    masks.map(|mask| u64::from_str_radix(mask.trim(), 16).unwrap()).any(|mask| mask & bit != 0)
}

/// Until it has filled its pipe: it sleeps each time one looks.
fn wait_until_it_sleeps(child: &std::process::Child) {
    const LOOKS: usize = 6;
    let sleeps =
        || fs::read_to_string(format!("/proc/{}/stat", child.id())).is_ok_and(|stat| stat.contains(") S "));
    let deadline = Instant::now() + LIMIT;
    let mut seen = 0;
    while seen < LOOKS && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(50));
        seen = if sleeps() { seen + 1 } else { 0 };
    }
}

#[test]
fn a_signal_stops_a_verb_within_a_member_and_is_not_taken_for_damage() {
    let child = waiting_cat(&TestHost::empty());
    terminate(&child);
    let done = child.wait_with_output().unwrap();
    let err = String::from_utf8_lossy(&done.stderr);
    assert_eq!((done.status.code(), err.as_ref()), (Some(1), "error: stopped by a signal\n"));
    assert!(done.stdout.len() < 8 << 20, "{} bytes came after it", done.stdout.len());
}

#[test]
fn a_second_signal_ends_what_waits_for_something_that_does_not_come() {
    use std::os::unix::process::ExitStatusExt;
    let mut child = waiting_cat(&TestHost::empty());
    wait_until_it_sleeps(&child);
    terminate(&child);
    // Two that wait for it at once would be one.
    common::wait_until("the first signal is taken", || {
        !is_pending(&child, nix::sys::signal::Signal::SIGTERM)
    });
    // Nobody reads: it can neither go on nor look for the signal.
    assert!(child.try_wait().unwrap().is_none());
    terminate(&child);
    let deadline = Instant::now() + LIMIT;
    while child.try_wait().unwrap().is_none() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(10));
    }
    // Does nothing to what has ended.
    child.kill().unwrap();
    assert_eq!(child.wait().unwrap().signal(), Some(15));
}
