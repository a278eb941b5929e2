//! A whole snapshot file. Nearly all bytes are refused at their first hash, so the script makes one whose
//! manifest, index and payload agree with whatever it puts into them.

use std::fs;
use std::path::Path;

use pbx_config::archive::codec::CODECS;
use pbx_config::archive::reader::Archive;
use pbx_config::model::problem::Exit;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tar::{EntryType, Header};

use super::machine::{Place, said};
use super::tree::{assert_same, picture};
use super::{Script, stays_inside};

const BLOCK: usize = 512;
/// Names that lead out, that are there twice, that are too much for something.
const NAMES: [&[u8]; 24] = [
    b"etc",
    b"etc/hostname",
    b"etc/x",
    b"out",
    b"out/victim",
    b"..",
    b"../victim",
    b"../../victim",
    b"etc/../../victim",
    b"/etc/hostname",
    b"/",
    b".",
    b"",
    b"./x",
    b"a//b",
    b"a/b/c/d/e",
    b".pbx",
    b".pbx/index.json",
    b".pbx/state/x",
    b"new\nline\x1b[2J\xff",
    b"/proc/self/cwd/victim",
    b"etc/x/below",
    b"/dev/shm",
    b"latin \xe9",
];
const KINDS: [EntryType; 10] = [
    EntryType::Regular,
    EntryType::Directory,
    EntryType::Symlink,
    EntryType::Link,
    EntryType::Regular,
    EntryType::Directory,
    EntryType::XHeader,
    EntryType::Char,
    EntryType::GNULongName,
    EntryType::Fifo,
];

/// The first byte says how it is made: as it is, or from the script in the rest.
pub fn snapshot(data: &[u8]) {
    let Some((how, rest)) = data.split_first() else { return };
    let bytes = if how % 4 == 0 { rest.to_vec() } else { forged(&mut Script(rest)) };
    let place = Place::new();
    let snap = place.path("box/tiny_20261122T151740Z.pbx.tar");
    fs::create_dir(place.path("box")).unwrap();
    fs::write(&snap, &bytes).unwrap();
    fs::write(place.path("victim"), "untouched").unwrap();
    let before = picture(&place.path(""), "");
    let mut members = 0;
    let sound = Archive::open(&snap).and_then(|mut archive| {
        archive.read(&snap, &mut |member, _| {
            stays_inside(&member.path);
            members += 1;
            Ok(())
        })
    });
    let word = snap.to_str().unwrap();
    let (verified, _) = said(&place, &["verify", "--deep", word]);
    assert_eq!(verified == Exit::Ok, sound.is_ok(), "{verified:?} {:?}", sound.err());
    let to = place.path("box/to");
    let (taken, _) = said(&place, &["restore", word, "--to", to.to_str().unwrap()]);
    match sound {
        Ok(index) => {
            assert_eq!(index.entries.len(), members);
            assert!(matches!(taken, Exit::Ok | Exit::Problems | Exit::NotFound | Exit::Failed), "{taken:?}");
            for entry in index.entries.iter().filter(|_| taken == Exit::Ok) {
                assert!(to.join(entry.path.as_path()).symlink_metadata().is_ok(), "{}", entry.path);
            }
            assert_eq!(to.exists(), matches!(taken, Exit::Ok | Exit::Problems));
            let _ = fs::remove_dir_all(&to);
        }
        Err(_) => assert_eq!((taken, to.exists()), (verified, false)),
    }
    // Whatever it held: nothing beside the target was touched.
    let mut after = picture(&place.path(""), "");
    let mut before = before;
    for tree in [&mut before, &mut after] {
        // Making and removing the target sets this one's time.
        tree.remove(Path::new("box"));
    }
    assert_same(&after, &before);
}

fn hex(bytes: &[u8]) -> String {
    pbx_config::sys::hex(&Sha256::digest(bytes))
}

fn block(kind: EntryType, name: &[u8], link: &[u8], size: usize, mode: u32) -> Vec<u8> {
    let mut header = Header::new_ustar();
    header.as_mut_bytes()[..name.len().min(100)].copy_from_slice(&name[..name.len().min(100)]);
    header.as_mut_bytes()[157..157 + link.len().min(100)].copy_from_slice(&link[..link.len().min(100)]);
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(1_700_000_000);
    header.set_size(size as u64);
    header.set_cksum();
    header.as_bytes().to_vec()
}

fn member(kind: EntryType, name: &[u8], link: &[u8], content: &[u8], mode: u32) -> Vec<u8> {
    let mut bytes = block(kind, name, link, content.len(), mode);
    bytes.extend_from_slice(content);
    bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
    bytes
}

/// As JSON has a name: text, or bytes.
fn name_json(name: &[u8]) -> Value {
    std::str::from_utf8(name).map_or_else(|_| json!(name), |text| json!(text))
}

fn pick(script: &mut Script, made: &[Vec<u8>]) -> Vec<u8> {
    let n = usize::from(script.byte());
    match n {
        0..48 => NAMES[n % NAMES.len()].to_vec(),
        48..128 if !made.is_empty() => made[n % made.len()].clone(),
        128..192 if !made.is_empty() => [&made[n % made.len()], &b"/x"[..]].concat(),
        _ => script.bytes().to_vec(),
    }
}

fn forged(script: &mut Script) -> Vec<u8> {
    let codec = &CODECS[usize::from(script.byte()) % CODECS.len()];
    let stored_by = if matches!(codec.name, "zstd" | "none") { codec.name } else { "none" };
    let lie = script.byte();
    let mut payload = Vec::new();
    let mut entries: Vec<Value> = Vec::new();
    let mut made: Vec<Vec<u8>> = Vec::new();
    while !script.done() && entries.len() < 64 {
        let kind = KINDS[usize::from(script.byte()) % KINDS.len()];
        let name = pick(script, &made);
        let link =
            if matches!(kind, EntryType::Symlink | EntryType::Link) { pick(script, &made) } else { vec![] };
        let plain = matches!(kind, EntryType::Regular | EntryType::XHeader | EntryType::GNULongName);
        let content = if plain { script.bytes() } else { &[] };
        let bits = u32::from(script.number()) & 0o7777;
        let mut shown = name.clone();
        shown.truncate(100);
        let word = match kind {
            EntryType::Regular => "file",
            EntryType::Directory => "dir",
            EntryType::Symlink => "symlink",
            EntryType::Link => "hardlink",
            _ => "",
        };
        let full = if kind == EntryType::Directory { [&shown, &b"/"[..]].concat() } else { shown.clone() };
        payload.extend(member(kind, &full, &link, content, bits));
        if word.is_empty() {
            continue;
        }
        let mut entry = json!({
            "item": "hosts", "path": name_json(&shown), "kind": word, "mode": bits, "uid": 0, "gid": 0,
            "mtime": [1_700_000_000, 0], "size": content.len(),
        });
        if word == "file" {
            entry["sha256"] = hex(content).into();
        }
        if !link.is_empty() {
            entry["link"] = name_json(&link[..link.len().min(100)]);
        }
        entries.push(entry);
        made.push(shown);
    }
    let index = json!({
        "format": 1, "id": "tiny/2026-11-22T15:17:40Z", "facts": { "node": "tiny", "products": {} },
        "entries": entries, "outputs": [], "absent": [], "problems": [],
    });
    let text = serde_json::to_vec(&index).unwrap();
    payload.extend(member(EntryType::Regular, b".pbx/index.json", b"", &text, 0o600));
    payload.extend([0; 2 * BLOCK]);
    let stored =
        if stored_by == "zstd" { zstd::encode_all(payload.as_slice(), 1).unwrap() } else { payload.clone() };
    let ext = CODECS.iter().find(|codec| codec.name == stored_by).unwrap().ext;
    let name = format!("payload.tar{ext}");
    let files = entries.iter().filter(|entry| entry["kind"] == "file").count();
    let mut manifest = json!({
        "format": 1, "id": "tiny/2026-11-22T15:17:40Z", "node": "tiny", "products": {}, "tool": "0",
        "codec": { "name": stored_by, "level": 1, "threads": 1 },
        "payload": { "name": name, "size": stored.len(), "sha256": hex(&stored) },
        "counts": { "entries": entries.len(), "files": files, "bytes": payload.len(), "absent": 0, "problems": 0 },
        "outcome": "ok", "trigger": "manual",
    });
    match lie {
        1 => manifest["counts"]["bytes"] = u64::MAX.into(),
        2 => manifest["counts"]["entries"] = u64::MAX.into(),
        3 => manifest["payload"]["size"] = u64::MAX.into(),
        4 => manifest["payload"]["name"] = "../victim".into(),
        _ => {}
    }
    let text = serde_json::to_vec(&manifest).unwrap();
    let mut bytes = member(EntryType::Regular, b"MANIFEST.json", b"", &text, 0o600);
    bytes.extend(member(EntryType::Regular, name.as_bytes(), b"", &stored, 0o600));
    bytes.extend([0; 2 * BLOCK]);
    bytes
}
