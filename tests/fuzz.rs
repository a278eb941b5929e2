//! Some thousand cases of every body of tests/fuzz/bodies.rs, always the same ones: real files that are flipped,
//! cut, spliced and doubled. The long run is `make fuzz`; what it finds stays in tests/fuzz/seeds and runs here first.
#![allow(unsafe_code, clippy::unwrap_used, clippy::panic)] // an allocator that counts

#[path = "fuzz/bodies.rs"]
mod bodies;
mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Once;
use std::time::{Duration, Instant};

use bodies::{BETWEEN, BODIES};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

/// What one case may hold at once. Inputs are far below a MiB; the encoder of a backup has buffers of its own.
const MEMORY: usize = 96 << 20;
/// What one case may take, on a machine that is busy with something else.
const HANG: Duration = Duration::from_secs(20);

/// Counts what this thread holds, and the most it ever did.
struct Counting;

thread_local! {
    static HELD: Cell<usize> = const { Cell::new(0) };
    static MOST: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _ = HELD.try_with(|held| {
            held.set(held.get() + layout.size());
            let _ = MOST.try_with(|most| most.set(most.get().max(held.get())));
        });
        // SAFETY: as above.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        // What another thread made may be freed here.
        let _ = HELD.try_with(|held| held.set(held.get().saturating_sub(layout.size())));
        // SAFETY: as above.
        unsafe { System.dealloc(place, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

fn here(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    let mut entries: Vec<PathBuf> =
        fs::read_dir(folder).into_iter().flatten().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        match path.symlink_metadata().unwrap().file_type() {
            kind if kind.is_dir() => files(&path, found),
            kind if kind.is_file() => found.push(path),
            _ => {}
        }
    }
}

fn contents(folder: &str) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    files(&here(folder), &mut found);
    found.iter().map(|path| fs::read(path).unwrap()).collect()
}

/// The member of that name in a tar.
fn member(bytes: &[u8], wanted: &str) -> Vec<u8> {
    use std::io::Read;
    for entry in tar::Archive::new(bytes).entries().unwrap() {
        let mut entry = entry.unwrap();
        if entry.path().unwrap().to_string_lossy().starts_with(wanted) {
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).unwrap();
            return bytes;
        }
    }
    panic!("{wanted}: is not in it");
}

/// Real inputs of a body, to be mutated.
fn seeds(body: &str) -> Vec<Vec<u8>> {
    // The predecessor's archives lie in a folder beside them.
    let snapshots = || -> Vec<Vec<u8>> {
        let entries = fs::read_dir(here("tests/format")).unwrap().map(|entry| entry.unwrap().path());
        let mut paths: Vec<PathBuf> = entries.filter(|path| path.is_file()).collect();
        paths.sort();
        paths.iter().map(|path| fs::read(path).unwrap()).collect()
    };
    let payload = || member(&fs::read(here("tests/format/format-1-none.pbx.tar")).unwrap(), "payload");
    let mut seeds = contents(&format!("tests/fuzz/seeds/{body}"));
    seeds.extend(match body {
        "section" | "objects" => {
            let mut found = Vec::new();
            files(&here("tests/hosts"), &mut found);
            found.retain(|path| path.extension().is_some_and(|ext| ext == "cfg" || ext == "conf"));
            found.push(here("etc/pbx-config.cfg"));
            found.iter().map(|path| fs::read(path).unwrap()).collect()
        }
        "manifest" => snapshots()
            .into_iter()
            .flat_map(|bytes| {
                let manifest = member(&bytes, "MANIFEST.json");
                [bytes[..4096.min(bytes.len())].to_vec(), manifest]
            })
            .chain([b"pve1_20261122T151740Z.pbx.tar".to_vec(), b"pve1/2026-11-22T15:17:40Z".to_vec()])
            .chain([b"a_20261122T15174 Z.pbx.tar".to_vec(), b"a/-000001-01-01T00:00:00+01".to_vec()])
            .collect(),
        "index" => {
            let names = b"etc/../x\n..\n/etc\na//b\n./a\netc/..x\na/b/c\n\xff/\n";
            vec![member(&payload(), ".pbx/index.json"), names.to_vec()]
        }
        "payload" => vec![payload()],
        "decode" => {
            let streams = snapshots().into_iter().map(|bytes| member(&bytes, "payload")).collect::<Vec<_>>();
            let with = |stream: &[u8], n: u8| [&[n], stream].concat();
            streams.iter().flat_map(|stream| (0..6).map(|n| with(stream, n)).collect::<Vec<_>>()).collect()
        }
        "pattern" => [
            "/etc/**/*.conf\netc/a/b.conf\netc/x",
            "/**/a/**/b/**/c\na/b/a/b/c\nc",
            "/root/.[a-z]*\nroot/.ssh/id",
            "/a?/[!b]*/**\nab/c/d/../e",
        ]
        .map(|text| text.as_bytes().to_vec())
        .to_vec(),
        "mounts" => vec![fs::read("/proc/self/mountinfo").unwrap(), b"/mnt/my\\040disk\\134040".to_vec()],
        "snapshot" => {
            let whole = snapshots().into_iter().map(|bytes| [&[0], bytes.as_slice()].concat());
            let scripts = (1..40_u32).map(|n| {
                let mut state = n;
                let noise = std::iter::repeat_with(move || {
                    state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    (state >> 24) as u8
                });
                // Names of the table rather than of the script, and hardly any contents.
                let tame = noise.enumerate().map(|(n, byte)| if n % 4 == 1 { byte % 192 } else { byte % 24 });
                [1, 0, 5].into_iter().chain(tame.take(10 + 4 * n as usize)).collect()
            });
            whole.chain(scripts).collect()
        }
        "config" => {
            let shipped = fs::read_to_string(here("etc/pbx-config.cfg")).unwrap();
            let uncommented = shipped.replace("\n#\t", "\n\t").replace("\n# ", "\n");
            let small = "backup: main\n\tinclude /srv/**/x*\n\tcompression-mode fast\n\ndir: a\n\tpath /x\n";
            let secret: [&[u8]; 2] =
                [b"dir: a\n\tmountpoint no\n", b"dir: a\n\tpath /srv/correct-horse-battery\n"];
            let two = secret.join(BETWEEN);
            let small = small.as_bytes().to_vec();
            vec![shipped.into_bytes(), uncommented.into_bytes(), small, two]
        }
        "host" => ["pve-single", "pve-cluster", "pbs", "both", "bare"]
            .map(|name| {
                let read = |path| {
                    let text = fs::read(here("tests/hosts").join(name).join("root").join(path));
                    let mut text = text.unwrap_or_default();
                    text.truncate(3000);
                    text
                };
                bodies::HOST_FILES.map(read).join(BETWEEN)
            })
            .to_vec(),
        "names" => vec![(0..=255).cycle().take(600).collect()],
        "database" => {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("config.db");
            common::make_database(&path, &here("tests/hosts/pve-single/pve"));
            vec![fs::read(&path).unwrap()]
        }
        "plan" => {
            let plan = r#"{"format":1,"node":"pve1","snapshot":"pve1/2026-11-22T15:17:40Z","steps":[],"integrity":""}"#;
            vec![plan.as_bytes().to_vec()]
        }
        "undo" => {
            let record = r#"{"format":1,"id":"x","snapshot":"pve1/2026-11-22T15:17:40Z","steps":[]}"#;
            vec![[record.as_bytes(), b"begin 0\nend 0\ndone\n"].join(BETWEEN)]
        }
        "sidecars" => {
            let name = b"n1.lan-backup-20260801-020000.tar.xz.age";
            let json = br#"{"hostname":"n1.lan","created_at":"2026-08-01T02:00:00.123456789+02:00","proxmox_type":"dual",
                "pve_version":"9.0.5","sha256":"AB","encryption_mode":"age","passphrase_salt":"x/v2:00"}"#;
            let lines = b"# made by hand\nHOSTNAME=\"n1\"\nCOMPRESSION_TYPE=xz\nPROXMOX_TYPE=pbs\nPROXMOX_VERSION=3.4\n";
            vec![[&name[..], json].join(BETWEEN), [&name[..], lines].join(BETWEEN)]
        }
        "listings" => {
            let rclone = br#"[{"Path":"pve1/pve1_20261122T151740Z.pbx.tar","Size":5,"IsDir":false}]"#;
            let pbs = br#"[{"backup-type":"host","backup-id":"pve1","backup-time":1795360660,"protected":true,
                "files":[{"filename":"head.conf.blob"},{"filename":"snapshot.pxar.didx"},{"filename":"size-5.conf.blob"}]}]"#;
            vec![rclone.to_vec(), pbs.to_vec()]
        }
        "http" => vec![
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nRetry-After: 5\r\n\r\n{}".to_vec(),
            b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n".to_vec(),
        ],
        "smtp" => vec![
            b"220 m\r\n250-m\r\n250 8BITMIME\r\n250 ok\r\n250 ok\r\n354 go\r\n250 done\r\n221 bye\r\n".to_vec(),
            b"220 m\r\n250 m\r\n550-5.1.1 no\r\n550 5.1.1 such user\r\n".to_vec(),
        ],
        other => panic!("{other} has no seeds"),
    });
    seeds
}

/// One change of some bytes; places are shares of their length.
#[derive(Debug, Clone)]
enum Change {
    Flip(f64, u8),
    Set(f64, u8),
    Cut(f64, f64),
    End(f64),
    /// A piece once more, somewhere.
    Double(f64, f64, f64),
    /// A piece of another seed.
    Splice(usize, f64, f64, f64),
    Word(f64, &'static [u8]),
    Noise(f64, Vec<u8>),
}

/// What the readers look for, and what has confused readers before.
const WORDS: [&[u8]; 28] = [
    b"\n",
    b"\t",
    b"\r\n",
    b"\0",
    b"\0\n",
    b":",
    b": ",
    b"#",
    b" ",
    b"../",
    b"/",
    b"**",
    b"*",
    b"[",
    b"]",
    b"?",
    b"=",
    b",",
    b"\"",
    b"{}",
    b"null",
    b"-1",
    b"18446744073709551616",
    b"\\040",
    b"\xff\xfe",
    b"\x1b[2J",
    b"\xef\xbb\xbf",
    b"dir: a\n",
];

fn change() -> impl Strategy<Value = Change> {
    let at = || 0.0..1.0_f64;
    prop_oneof![
        4 => (at(), 0..8_u8).prop_map(|(at, bit)| Change::Flip(at, bit)),
        3 => (at(), any::<u8>()).prop_map(|(at, byte)| Change::Set(at, byte)),
        1 => (at(), at()).prop_map(|(from, to)| Change::Cut(from, to)),
        1 => at().prop_map(Change::End),
        2 => (at(), at(), at()).prop_map(|(from, to, at)| Change::Double(from, to, at)),
        2 => (any::<usize>(), at(), at(), at()).prop_map(|(n, from, to, at)| Change::Splice(n, from, to, at)),
        4 => (at(), prop::sample::select(&WORDS[..])).prop_map(|(at, word)| Change::Word(at, word)),
        1 => (at(), vec(any::<u8>(), 0..40)).prop_map(|(at, noise)| Change::Noise(at, noise)),
    ]
}

#[allow(clippy::cast_possible_truncation, clippy::cast_precision_loss, clippy::cast_sign_loss)]
fn place(bytes: &[u8], share: f64) -> usize {
    ((bytes.len() as f64 * share) as usize).min(bytes.len())
}

fn piece(bytes: &[u8], a: f64, b: f64) -> &[u8] {
    let (a, b) = (place(bytes, a), place(bytes, b));
    &bytes[a.min(b)..a.max(b)]
}

fn changed(seeds: &[Vec<u8>], seed: usize, changes: &[Change]) -> Vec<u8> {
    /// What doubling may make of it.
    const MAX: usize = 64 << 10;
    let mut bytes = seeds[seed % seeds.len()].clone();
    for change in changes {
        let mut insert = |at: f64, more: &[u8]| {
            let at = place(&bytes, at);
            bytes.splice(at..at, more.iter().copied());
        };
        match change {
            Change::Double(from, to, at) => {
                let more = piece(&bytes, *from, *to).to_vec();
                let at = place(&bytes, *at);
                bytes.splice(at..at, more);
            }
            Change::Splice(n, from, to, at) => insert(*at, piece(&seeds[n % seeds.len()], *from, *to)),
            Change::Word(at, word) => insert(*at, word),
            Change::Noise(at, noise) => insert(*at, noise),
            Change::Cut(from, to) => {
                let (a, b) = (place(&bytes, *from), place(&bytes, *to));
                bytes.drain(a.min(b)..a.max(b));
            }
            Change::End(at) => bytes.truncate(place(&bytes, *at)),
            Change::Flip(..) | Change::Set(..) if bytes.is_empty() => {}
            Change::Flip(at, bit) => {
                let at = place(&bytes, *at).min(bytes.len() - 1);
                bytes[at] ^= 1 << bit;
            }
            Change::Set(at, byte) => {
                let at = place(&bytes, *at).min(bytes.len() - 1);
                bytes[at] = *byte;
            }
        }
        bytes.truncate(MAX.max(seeds[seed % seeds.len()].len()));
    }
    bytes
}

thread_local! {
    /// While a failure is made smaller, its panics are no news.
    static SILENT: Cell<bool> = const { Cell::new(false) };
}

fn silence_expected_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if !SILENT.get() {
                usual(panic);
            }
        }));
    });
}

/// One case: no panic, within the memory, within the time.
fn case(body: bodies::Body, bytes: &[u8]) -> Result<(), String> {
    let start = Instant::now();
    let before = HELD.get();
    MOST.set(before);
    SILENT.set(true);
    let done = catch_unwind(AssertUnwindSafe(|| body(bytes)));
    SILENT.set(false);
    let most = MOST.get() - before;
    match done {
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            Err(text.or(panic.downcast_ref::<&str>().map(ToString::to_string)).unwrap_or_default())
        }
        Ok(()) if most > MEMORY => Err(format!("took {most} bytes")),
        Ok(()) if start.elapsed() > HANG => Err(format!("took {:?}", start.elapsed())),
        Ok(()) => Ok(()),
    }
}

fn run(name: &str) {
    let (_, body, cases) = *BODIES.iter().find(|(body, ..)| *body == name).unwrap();
    let seeds = seeds(name);
    silence_expected_panics();
    for seed in seeds.iter().chain([&Vec::new()]) {
        if let Err(error) = case(body, seed) {
            panic!("a seed of {name}: {error}\n{}", String::from_utf8_lossy(&seed[..seed.len().min(300)]));
        }
    }
    let config = Config { cases, failure_persistence: None, max_shrink_iters: 400, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    let changes = vec(change(), 1..12);
    let result = runner.run(&(any::<usize>(), changes), |(seed, changes)| {
        case(body, &changed(&seeds, seed, &changes)).map_err(TestCaseError::fail)
    });
    if let Err(proptest::test_runner::TestError::Fail(why, (seed, changes))) = result {
        let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("fuzz-{name}"));
        fs::write(&kept, changed(&seeds, seed, &changes)).unwrap();
        panic!("{why}\nrepair it, and keep its input: cp {} tests/fuzz/seeds/{name}/", kept.display());
    }
    result.unwrap();
}

/// `make fuzz` begins with the same inputs, as files.
#[test]
#[ignore = "writes files for `make fuzz`"]
fn write_the_seeds() {
    let to = PathBuf::from(std::env::var_os("FUZZ_CORPUS").unwrap());
    for (body, ..) in BODIES {
        fs::create_dir_all(to.join(body)).unwrap();
        for (n, seed) in seeds(body).iter().enumerate() {
            fs::write(to.join(body).join(format!("seed-{n}")), seed).unwrap();
        }
    }
}

macro_rules! bounded_runs {
    ($($name:ident: $body:literal,)*) => {
        $(#[test] fn $name() { run($body); })*

        #[test]
        fn every_body_has_its_run_and_its_target() {
            let runs = [$($body),*];
            let makefile = fs::read_to_string(here("tests/fuzz/Cargo.toml")).unwrap();
            for (body, ..) in BODIES {
                assert!(runs.contains(&body), "{body}");
                let target = here(&format!("tests/fuzz/fuzz_targets/{body}.rs"));
                let target = fs::read_to_string(target).unwrap();
                assert!(target.contains(&format!("bodies::{body}(data)")), "{target}");
                assert!(makefile.contains(&format!("name = \"{body}\"")), "{body}");
            }
        }
    };
}

bounded_runs! {
    any_section_file_is_read_or_refused_at_a_line: "section",
    any_manifest_and_any_name_of_a_snapshot_comes_back_or_is_refused: "manifest",
    any_index_comes_back_or_is_refused: "index",
    any_payload_gives_safe_names_or_is_refused: "payload",
    any_stream_of_any_codec_ends_or_is_refused: "decode",
    any_glob_covers_what_its_meaning_says: "pattern",
    any_mount_table_is_read: "mounts",
    any_file_of_proxmox_is_taken_apart_and_put_together: "objects",
    no_snapshot_writes_outside_its_target: "snapshot",
    any_configuration_is_read_or_refused_in_a_line_without_secrets: "config",
    a_host_of_any_small_files_is_saved: "host",
    a_tree_of_any_names_comes_back_as_it_was: "names",
    any_database_is_saved_or_told_and_never_written: "database",
    any_saved_plan_is_read_or_refused_in_a_line: "plan",
    any_record_of_a_restore_is_read_or_refused_in_a_line: "undo",
    any_sidecar_of_a_legacy_archive_is_read_or_refused_in_a_line: "sidecars",
    any_listing_of_a_store_is_read_or_refused_in_a_line: "listings",
    any_answer_of_an_http_server_is_an_answer_or_an_error: "http",
    any_answer_of_a_mail_server_is_an_error_in_a_line: "smtp",
}
