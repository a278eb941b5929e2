//! `rclone`: any remote of the real program, Debian's 1.60 and newer. `REMOTE/HOST/NAME`, as in a folder.
//!
//! A snapshot is uploaded under a name that no lister takes for one, compared with the file by the remote's own hash
//! or by reading it back, and only then given its name on the other side.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use serde::Deserialize;

use super::legacy::{self, Relic};
use super::remote::{self, Checksum, Options};
use super::tool::{LISTING_MAX_BYTES, SAID_MAX_BYTES, Tool, split_secrets, transfer_limit, usage};
use super::{Fetched, FoundFile, PutResult, Store, in_batches};
use crate::model::problem::{Fault, Problem};
use crate::model::section::Section;
use crate::model::snapshot::{SUFFIX, SnapshotId};
use crate::sys::fs::leftovers;
use crate::sys::fs::scratch::Scratch;
use crate::sys::host::{Host, RCLONE_CONFIG};
use crate::sys::process::exec::{ProcessOutput, ToolStatus};
use crate::sys::process::signals::check_stopped;

/// rclone's exit status for a folder, and for a file, that is not there.
const NO_FOLDER: ToolStatus = ToolStatus::Exit(3);
const NO_FILE: ToolStatus = ToolStatus::Exit(4);
/// rclone's word for: have no configuration file.
const NO_CONFIG: &str = "/notfound";
/// Manifests that one process reads, and such processes at a time.
const HEADS_AT_ONCE: usize = 32;
const READERS: usize = 8;
/// After an upload that failed, what is half there is taken away if the other side still answers so soon.
const TIDY_LIMIT: Duration = Duration::from_secs(10);
/// The hashes in the order in which they are preferred.
const HASHES: [&str; 3] = ["sha256", "sha1", "md5"];

struct Rclone {
    tool: Tool,
    options: Options,
    config: PathBuf,
    downloads: PathBuf,
    features: OnceLock<Features>,
}

/// The abilities of the remote.
#[derive(Debug, Clone, Default)]
struct Features {
    /// It can give a file another name without moving its bytes.
    renames: bool,
    /// The hash it knows of each file, when it does.
    hash: Option<String>,
}

/// A line of `lsjson`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Listed {
    path: String,
    size: i64,
    #[serde(default)]
    is_dir: bool,
    #[serde(default)]
    hashes: std::collections::BTreeMap<String, String>,
}

pub(super) fn open(section: &Section, host: &Host) -> Result<Box<dyn Store>> {
    let (public, secrets) = split_secrets(section);
    let options: Options = public.read().map_err(usage)?;
    remote::check(&public, &options).map_err(usage)?;

    let named = options.config.as_ref().map(|path| host.path(path));
    if let Some(path) = named.as_ref().filter(|path| !path.is_file()) {
        let error = public.error_at("config", &format!("{}: no such file", path.display()));
        return Err(usage(error.hinted("`rclone config file` shows where rclone keeps its remotes")));
    }

    let has_usual = host.metadata(RCLONE_CONFIG).is_ok_and(|meta| meta.is_file());
    let usual = has_usual.then(|| host.path(RCLONE_CONFIG));
    let tool = Tool {
        exec: Arc::clone(&host.exec),
        program: "rclone",
        missing: "install it: `apt install rclone`",
        store: section.id.clone(),
        env: remote::environment(&options.remote, secrets),
        plain_env: Vec::new(),
        hint: remote::hint,
    };
    let config = named.or(usual).unwrap_or_else(|| PathBuf::from(NO_CONFIG));
    Ok(Box::new(Rclone { tool, options, config, downloads: host.download_dir(), features: OnceLock::new() }))
}

impl Rclone {
    /// `REMOTE/HOST`.
    fn folder(&self, host: &str) -> String {
        let remote = &self.options.remote;
        // `sftp:/x` is another place than `sftp:x`.
        if remote.ends_with([':', '/']) { format!("{remote}{host}") } else { format!("{remote}/{host}") }
    }

    fn path(&self, id: &SnapshotId) -> String {
        format!("{}/{}", self.folder(id.host()), id.file_name())
    }

    fn partial(&self, id: &SnapshotId) -> String {
        format!("{}/{}", self.folder(id.host()), leftovers::locked_name(&id.file_name()))
    }

    fn limit(&self) -> Duration {
        Duration::from_secs(self.options.timeout)
    }

    fn transfer_limit(&self, bytes: u64) -> Duration {
        transfer_limit(self.limit(), bytes, self.options.slowest(), u64::from(self.options.retries))
    }

    fn args(&self, words: &[&str]) -> Vec<String> {
        let Options { connect_timeout, timeout, retries, .. } = &self.options;
        let mut args: Vec<String> = words.iter().map(|&word| word.to_owned()).collect();
        args.extend([
            format!("--config={}", self.config.display()),
            format!("--contimeout={connect_timeout}s"),
            format!("--timeout={timeout}s"),
            format!("--retries={retries}"),
            // The default of 10 makes a server that is away a matter of half an hour.
            "--low-level-retries=3".to_owned(),
            "--ask-password=false".to_owned(),
            "--log-level=ERROR".to_owned(),
            "--stats=0".to_owned(),
        ]);
        args.extend(self.options.flags());
        args
    }

    fn run(&self, words: &[&str], limit: Duration, max_bytes: usize) -> Result<ProcessOutput> {
        self.tool.run(&self.args(words), limit, max_bytes)
    }

    fn done(&self, what: &str, words: &[&str], limit: Duration) -> Result<Vec<u8>> {
        self.tool.done(what, &self.args(words), limit)
    }

    /// Lists a directory; empty when it does not exist.
    fn lsjson(&self, place: &str, words: &[&str]) -> Result<Vec<Listed>> {
        let command = [&["lsjson", place, "--files-only", "--no-modtime", "--no-mimetype"], words].concat();
        let output = self.run(&command, self.limit(), LISTING_MAX_BYTES)?;
        match output.status {
            ToolStatus::Exit(0) => self.tool.json(&output, "the list from rclone"),
            NO_FOLDER => Ok(Vec::new()),
            _ => Err(self.tool.failed(&format!("list {place}"), &output)),
        }
    }

    /// One file, with its hash when the remote knows one; None when it is not there.
    fn stat(&self, place: &str) -> Result<Option<Listed>> {
        let hash = self.features()?.hash.as_ref().filter(|_| self.options.checksum != Checksum::No);
        let typed = hash.map(|hash| format!("--hash-type={hash}"));
        let mut command = vec!["lsjson", "--stat", place, "--no-modtime", "--no-mimetype"];
        if let Some(typed) = &typed {
            command.extend(["--hash", typed]);
        }
        let output = self.run(&command, self.limit(), SAID_MAX_BYTES)?;
        match output.status {
            // Object stores have a folder of every name.
            ToolStatus::Exit(0) => {
                let one: Listed = self.tool.json(&output, "the answer of rclone")?;
                Ok(Some(one).filter(|one| !one.is_dir))
            }
            NO_FOLDER | NO_FILE => Ok(None),
            _ => Err(self.tool.failed(&format!("look at {place}"), &output)),
        }
    }

    fn features(&self) -> Result<&Features> {
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Answer {
            #[serde(default)]
            hashes: Option<Vec<String>>,
            features: std::collections::BTreeMap<String, bool>,
        }
        if let Some(known) = self.features.get() {
            return Ok(known);
        }

        let said = self.done("connect", &["backend", "features", &self.options.remote], self.limit())?;
        let answer: Answer = serde_json::from_slice(&said)
            .with_context(|| format!("store '{}': the features from rclone are not JSON", self.tool.store))?;
        let can = |what: &str| answer.features.get(what).copied().unwrap_or_default();
        let known = answer.hashes.unwrap_or_default();
        let hash =
            HASHES.iter().find(|hash| known.iter().any(|one| one == *hash)).map(|hash| (*hash).to_owned());
        let found = Features { renames: can("Move") || can("Copy"), hash };
        Ok(self.features.get_or_init(|| found))
    }

    /// Proves that what lies at `place` is the file. Returns what could not be proven.
    fn compare(&self, file: &Path, size: u64, place: &str) -> Result<Option<Problem>> {
        let there =
            self.stat(place)?.with_context(|| self.differs(place, "it is not there after its upload"))?;
        if u64::try_from(there.size) != Ok(size) {
            return Err(anyhow!(self.differs(place, &format!("{} bytes there, {size} here", there.size))));
        }

        let local = file.to_string_lossy();
        let sum = |hash: &str, words: &[&str]| -> Result<String> {
            let command = [&["hashsum", hash], words].concat();
            let said = self.done(&format!("hash {}", words[0]), &command, self.transfer_limit(size))?;
            let text = String::from_utf8_lossy(&said);
            Ok(text.split_whitespace().next().unwrap_or_default().to_owned())
        };

        match self.options.checksum {
            Checksum::No => Ok(None),
            Checksum::Download => {
                let (here, there) = (sum("sha256", &[&local])?, sum("sha256", &[place, "--download"])?);
                ensure!(
                    !here.is_empty() && here == there,
                    self.differs(place, "read back, its hash differs")
                );
                Ok(None)
            }
            Checksum::Remote => {
                let Some((hash, there)) = there.hashes.iter().find(|(_, value)| !value.is_empty()) else {
                    let what = format!(
                        "store '{}': the remote has no hash; only the size was compared",
                        self.tool.store
                    );
                    return Ok(Some(
                        Problem::notice(what).hint("use `checksum download` to read it back instead"),
                    ));
                };
                ensure!(sum(hash, &[&local])? == *there, self.differs(place, &format!("its {hash} differs")));
                Ok(None)
            }
        }
    }

    fn differs(&self, place: &str, how: &str) -> String {
        format!("store '{}': {place} is not what was uploaded: {how}", self.tool.store)
    }

    fn upload(&self, file: &Path, size: u64, id: &SnapshotId) -> Result<Vec<Problem>> {
        let (local, path) = (file.to_string_lossy().into_owned(), self.path(id));
        // Where nothing can be renamed, an object appears when it is whole, as object stores do it.
        let renames = self.features()?.renames;
        let place = if renames { self.partial(id) } else { path.clone() };
        let bandwidth = self.options.bandwidth.as_ref().map(|limit| format!("--bwlimit={limit}"));
        let mut command = vec!["copyto", &local, &place];
        command.extend(bandwidth.as_deref());

        let transfers = format!("--transfers={}", self.options.transfers);
        command.push(&transfers);
        self.done(&format!("upload to {place}"), &command, self.transfer_limit(size))?;
        let unproven = self.compare(file, size, &place)?;
        if renames {
            if self.stat(&path)?.is_some() {
                return Err(self.taken(&path));
            }
            // It would rather delete the upload than replace another file; the look afterwards tells.
            let command = ["moveto", "--ignore-existing", &place, &path];
            self.done(&format!("name {path}"), &command, self.transfer_limit(size))?;
            let there = self.stat(&path)?.with_context(|| self.differs(&path, "it is not there"))?;
            ensure!(u64::try_from(there.size) == Ok(size), self.differs(&path, "its size differs"));
        }
        Ok(unproven.into_iter().collect())
    }

    fn taken(&self, path: &str) -> anyhow::Error {
        anyhow!("store '{}': cannot write {path}: a snapshot of this name exists", self.tool.store)
    }

    /// Deletes files of one host's folder by name. What is not there is fine.
    fn delete(&self, host: &str, names: &[String], limit: Duration) -> Result<()> {
        // Without a name the filter would be none, and everything would go.
        if names.is_empty() {
            return Ok(());
        }
        let (folder, at_most) = (self.folder(host), format!("--max-delete={}", names.len()));
        let includes: Vec<String> = names.iter().map(|name| format!("--include=/{name}")).collect();
        let mut command = vec!["delete", &folder, &at_most];
        command.extend(includes.iter().map(String::as_str));
        let output = self.run(&command, limit, SAID_MAX_BYTES)?;
        match output.status {
            ToolStatus::Exit(0) | NO_FOLDER => Ok(()),
            _ => Err(self.tool.failed(&format!("remove from {folder}"), &output)),
        }
    }

    /// One batch of snapshots of one host; when it fails, what is really gone decides.
    fn remove_batch(&self, host: &str, ids: &[SnapshotId]) -> Vec<Result<()>> {
        let names: Vec<String> = ids.iter().map(SnapshotId::file_name).collect();
        let Err(error) = self.delete(host, &names, self.limit()) else {
            return ids.iter().map(|_| Ok(())).collect();
        };
        let left = self.list(Some(host));
        let is_gone =
            |id: &SnapshotId| left.as_ref().is_ok_and(|left| left.iter().all(|found| found.id != *id));
        ids.iter().map(|id| if is_gone(id) { Ok(()) } else { Err(anyhow!("{error:#} ({id})")) }).collect()
    }

    /// The first bytes of snapshots of one host in one process; they come in the order of their names.
    fn read_batch(&self, host: &str, found: &[&FoundFile], len: usize) -> Result<Vec<Result<Vec<u8>>>> {
        let (folder, count) = (self.folder(host), format!("--count={len}"));
        let includes: Vec<String> =
            found.iter().map(|one| format!("--include=/{}", one.id.file_name())).collect();
        let mut command = vec!["cat", &folder, &count, "--checkers=1"];
        command.extend(includes.iter().map(String::as_str));
        let output = self.run(&command, self.limit(), SAID_MAX_BYTES)?;
        let mut rest = &output.stdout[..];
        let sizes = found.iter().map(|one| usize::try_from(one.size).unwrap_or(len).min(len));

        // Whatever else came, they are read one by one.
        if output.status != ToolStatus::Exit(0) || sizes.clone().sum::<usize>() != rest.len() {
            return Ok(found.iter().map(|_| Ok(Vec::new())).collect());
        }

        Ok(sizes
            .map(|size| {
                let (first, after) = rest.split_at(size);
                rest = after;
                Ok(first.to_vec())
            })
            .collect())
    }
}

impl Store for Rclone {
    fn name(&self) -> &str {
        &self.tool.store
    }

    fn place(&self) -> String {
        self.options.remote.clone()
    }

    fn put(&self, file: &Path, id: &SnapshotId) -> Result<PutResult> {
        let size = fs::metadata(file)?.len();
        let there = self.lsjson(&self.folder(id.host()), &[])?;
        if there.iter().any(|one| one.path == id.file_name()) {
            return Err(self.taken(&self.path(id)));
        }

        // A host's folder is written by one run at a time: what is half there, a killed run left.
        let halves = there.into_iter().map(|one| one.path).filter(|name| is_half(name)).collect::<Vec<_>>();
        self.delete(id.host(), &halves, self.limit())?;
        let left = |name: &String| {
            Problem::notice(format!(
                "store '{}': {}/{name}: removed what an interrupted run left",
                self.tool.store,
                self.folder(id.host())
            ))
        };
        let mut problems: Vec<Problem> = halves.iter().map(left).collect();
        match self.upload(file, size, id) {
            Ok(unproven) => problems.extend(unproven),
            Err(error) => {
                let _ = self.delete(id.host(), &[leftovers::locked_name(&id.file_name())], TIDY_LIMIT);
                return Err(error);
            }
        }
        Ok(PutResult { place: self.path(id), medium: None, problems })
    }

    fn list(&self, host: Option<&str>) -> Result<Vec<FoundFile>> {
        let listed = if let Some(host) = host {
            self.lsjson(&self.folder(host), &[])?
        } else {
            let ours = format!("--include=/*/*{SUFFIX}");
            self.lsjson(&self.options.remote, &["--recursive", &ours])?
        };
        let mut found = Vec::with_capacity(listed.len());
        for one in listed {
            let (folder, name) = one.path.rsplit_once('/').unwrap_or((host.unwrap_or_default(), &one.path));
            let Some(id) = SnapshotId::from_file_name(name).filter(|id| id.host() == folder) else {
                continue;
            };
            let Ok(size) = u64::try_from(one.size) else { continue };
            found.push(FoundFile::new(id, size));
        }

        // Some remotes hold a name twice.
        found.sort_by(|a, b| a.id.cmp(&b.id));
        found.dedup_by(|a, b| a.id == b.id);
        Ok(found)
    }

    fn head(&self, id: &SnapshotId, len: usize) -> Result<Vec<u8>> {
        let (path, count) = (self.path(id), format!("--count={len}"));
        self.done(&format!("read {path}"), &["cat", &path, "--offset=0", &count], self.limit())
    }

    fn heads(&self, found: &[FoundFile], len: usize) -> Option<Vec<Result<Vec<u8>>>> {
        // By host, each in the order of names.
        let mut order: Vec<usize> = (0..found.len()).collect();
        order.sort_by(|&a, &b| {
            let key = |n: usize| (found[n].id.host(), found[n].id.file_name());
            key(a).cmp(&key(b))
        });
        let of_one_host = order.chunk_by(|&a, &b| found[a].id.host() == found[b].id.host());
        let batches = of_one_host.flat_map(|of_host| of_host.chunks(HEADS_AT_ONCE));
        let batches: Vec<Vec<&FoundFile>> =
            batches.map(|batch| batch.iter().map(|&n| &found[n]).collect()).collect();
        let read = in_batches(&batches, READERS, |batch| self.read_batch(batch[0].id.host(), batch, len));
        let mut heads: Vec<Result<Vec<u8>>> = found.iter().map(|_| Ok(Vec::new())).collect();
        order.into_iter().zip(read).for_each(|(n, head)| heads[n] = head);
        Some(heads)
    }

    fn remove(&self, id: &SnapshotId) -> Result<()> {
        self.delete(id.host(), &[id.file_name()], self.limit())?;
        // Goes only where it is empty, and where there are folders at all.
        let _ = self.run(&["rmdir", &self.folder(id.host())], TIDY_LIMIT, SAID_MAX_BYTES);
        Ok(())
    }

    fn remove_many(&self, ids: &[SnapshotId]) -> Vec<Result<()>> {
        let mut results = Vec::new();
        let of_one_host = ids.chunk_by(|a, b| a.host() == b.host());
        let batches = of_one_host.flat_map(|of_host| of_host.chunks(self.options.batch_size()));
        for (n, batch) in batches.enumerate() {
            if n > 0 {
                // Clouds count requests.
                thread::sleep(Duration::from_secs(self.options.batch_pause));
            }
            if check_stopped().is_err() {
                break;
            }
            results.extend(self.remove_batch(batch[0].host(), batch));
        }
        results
    }

    fn relics(&self) -> Result<Vec<Relic>> {
        let words = ["--recursive", "--max-depth=2", "--include=/*-backup-*", "--include=/*/*-backup-*"];
        let listed = self.lsjson(&self.options.remote, &words)?;
        let sized = listed.into_iter().filter_map(|one| Some((one.path, u64::try_from(one.size).ok()?)));
        Ok(legacy::among(&sized.collect()))
    }

    fn relic_head(&self, path: &str, len: usize) -> Result<Vec<u8>> {
        let (place, count) = (self.folder(path), format!("--count={len}"));
        self.done(&format!("read {place}"), &["cat", &place, "--offset=0", &count], self.limit())
    }

    fn relic_get(&self, relic: &Relic) -> Result<Fetched> {
        let scratch = Scratch::new(&self.downloads)?;
        let download = |path: &str, bytes: u64| -> Result<PathBuf> {
            let place = self.folder(path);
            let file = scratch.path().join(path.rsplit('/').next().unwrap_or(path));
            let local = file.to_string_lossy().into_owned();
            self.done(&format!("download {place}"), &["copyto", &place, &local], self.transfer_limit(bytes))?;
            fs::set_permissions(&file, fs::Permissions::from_mode(0o600))?;
            Ok(file)
        };
        let file = download(&relic.path, relic.size)?;
        for ending in &relic.beside {
            download(&format!("{}{ending}", relic.path), 0)?;
        }
        Ok(Fetched::downloaded(file, PathBuf::from(self.folder(&relic.path)), scratch))
    }

    fn relic_remove(&self, relic: &Relic) -> Result<()> {
        let beside = relic.beside.iter().map(|ending| format!("{}{ending}", relic.path));
        for path in std::iter::once(relic.path.clone()).chain(beside) {
            let place = self.folder(&path);
            self.done(&format!("remove {place}"), &["deletefile", &place], self.limit())?;
        }
        Ok(())
    }

    fn get(&self, id: &SnapshotId) -> Result<Fetched> {
        let path = self.path(id);
        let there = self
            .stat(&path)?
            .with_context(|| Fault::not_found(format!("store '{}': {path} is not there", self.tool.store)))?;
        let size = u64::try_from(there.size).unwrap_or_default();
        let scratch = Scratch::new(&self.downloads)?;
        let file = scratch.path().join(id.file_name());
        let local = file.to_string_lossy().into_owned();
        self.done(&format!("download {path}"), &["copyto", &path, &local], self.transfer_limit(size))?;
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600))?;
        ensure!(fs::metadata(&file)?.len() == size, "store '{}': {path} is incomplete", self.tool.store);
        Ok(Fetched::downloaded(file, PathBuf::from(path), scratch))
    }
}

/// Reports whether this is the name of an upload that was not finished.
fn is_half(name: &str) -> bool {
    leftovers::parse_locked(OsStr::new(name)).and_then(SnapshotId::from_file_name).is_some()
}
