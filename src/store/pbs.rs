//! `pbs`: Proxmox Backup Server through its official client. A snapshot is a backup of type `host` whose id is the
//! host's name and whose time is the snapshot's: `host/pve1/2026-11-22T15:17:40Z`, in the same spelling as ours.
//!
//! In it the file lies inside `pbx-config.pxar`, so that the server's web page can download it; its first bytes lie
//! once more in `pbx-head.conf`, and `pbx-size-N.conf` tells by its name how long it is, so that a listing restores
//! nothing.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use serde::Deserialize;

use super::tool::{
    LISTING_MAX_BYTES, SLOWEST_BYTES_PER_SECOND, Tool, last_line, split_secrets, transfer_limit, usage,
};
use super::{Fetched, FoundFile, PutResult, Store};
use crate::model::problem::Fault;
use crate::model::section::{Section, SyntaxError};
use crate::model::snapshot::SnapshotId;
use crate::sys::fs::scratch::Scratch;
use crate::sys::host::Host;
use crate::sys::process::exec::ToolStatus;
use crate::sys::process::signals::check_stopped;

/// The archive with the file, and the blob with its first bytes; and their names on the server.
const ARCHIVE: &str = "pbx-config.pxar";
const ARCHIVE_THERE: &str = "pbx-config.pxar.didx";
const HEAD: &str = "pbx-head.conf";
const HEAD_THERE: &str = "pbx-head.conf.blob";
/// The blob that tells the size of the file by its name; what is in it is the same number.
const SIZE: &str = "pbx-size-";
/// Room for every manifest: 64 KiB and a block of tar, and some.
const HEAD_BYTES: u64 = 80 << 10;
/// The number of looks whether a snapshot that could not be removed is gone all the same, and the time between them.
const LOOKS: u32 = 3;
const LOOK_AGAIN: Duration = Duration::from_millis(300);
/// The owner of the backups when the repository names nobody.
const DEFAULT_USER: &str = "root@pam";
/// A transfer is tried once; the client itself does not try again.
const TRIES: u64 = 1;

/// `pbs: ID`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Options {
    /// `USER@REALM!TOKEN@SERVER:PORT:DATASTORE`.
    repository: String,
    namespace: Option<String>,
    /// The fingerprint of the server's certificate, when no authority vouches for it.
    fingerprint: Option<String>,
    /// A rate as the client's `--rate` takes it.
    bandwidth: Option<String>,
    /// Seconds that an operation may last; a transfer lasts longer as its bytes want it.
    #[serde(default = "five_minutes")]
    timeout: u64,
    /// The client encrypts with a key of its own, over our seal.
    #[serde(default)]
    encrypt: bool,
    keyfile: Option<String>,
}

fn five_minutes() -> u64 {
    300
}

/// The keys in secrets.cfg.
const PASSWORD: &str = "password";
const KEY_PASSWORD: &str = "encryption-password";

struct Pbs {
    tool: Tool,
    options: Options,
    /// The owner of the backups of this store.
    user: String,
    keyfile: Option<PathBuf>,
    downloads: PathBuf,
}

/// A line of `snapshot list`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Listed {
    backup_type: String,
    backup_id: String,
    backup_time: i64,
    #[serde(default)]
    files: Vec<Archive>,
    #[serde(default)]
    owner: Option<String>,
    #[serde(default)]
    protected: bool,
}

#[derive(Debug, Deserialize)]
struct Archive {
    filename: String,
}

impl Listed {
    /// None for what is not a whole backup of ours.
    fn found(&self, user: &str) -> Option<FoundFile> {
        let at = jiff::Timestamp::from_second(self.backup_time).ok()?;
        let id = SnapshotId::new(&self.backup_id, at).filter(|_| self.backup_type == "host")?;
        let archive = |name: &str| self.files.iter().find(|file| file.filename == name);
        archive(HEAD_THERE)?;
        archive(ARCHIVE_THERE)?;
        let size = |name: &str| name.strip_prefix(SIZE)?.strip_suffix(".conf.blob")?.parse().ok();
        let size = self.files.iter().find_map(|file| size(&file.filename))?;
        let held = match &self.owner {
            _ if self.protected => Some("protected on the server"),
            Some(owner) if owner != user => Some("of another owner on the server"),
            _ => None,
        };
        Some(FoundFile { held, ..FoundFile::new(id, size) })
    }
}

pub(super) fn open(section: &Section, host: &Host) -> Result<Box<dyn Store>> {
    let (public, secrets) = split_secrets(section);
    let told = public.entries.iter().find(|entry| [PASSWORD, KEY_PASSWORD].contains(&entry.key.as_str()));
    if let Some(entry) = told {
        let error = public
            .error_at(&entry.key, &format!("'{}' is a secret, and others can read this file", entry.key));
        let hint = format!("create a new one, and put it under 'pbs: {}' in secrets.cfg", section.id);
        return Err(usage(error.hinted(hint)));
    }

    let options: Options = public.read().map_err(usage)?;
    check(&public, &options).map_err(usage)?;
    let mut env = Vec::new();
    for (key, value) in secrets {
        let name = match key.as_str() {
            PASSWORD => "PBS_PASSWORD",
            KEY_PASSWORD => "PBS_ENCRYPTION_PASSWORD",
            _ => {
                let error = section.error_at(&key, &format!("unknown key '{key}'"));
                return Err(usage(error.hinted(format!("the secrets are: {PASSWORD}, {KEY_PASSWORD}"))));
            }
        };
        env.push((name.to_owned(), value));
    }

    if !env.iter().any(|(name, _)| name == "PBS_PASSWORD") {
        let error =
            public.error_at("repository", "the secret of its token, or the password of its user, is missing");
        return Err(usage(
            error.hinted(format!("put `{PASSWORD}` under 'pbs: {}' in secrets.cfg", section.id)),
        ));
    }

    let tool = Tool {
        exec: Arc::clone(&host.exec),
        program: "proxmox-backup-client",
        missing: "install it: `apt install proxmox-backup-client`",
        store: section.id.clone(),
        env,
        plain_env: options
            .fingerprint
            .iter()
            .map(|print| ("PBS_FINGERPRINT".to_owned(), print.clone()))
            .collect(),
        hint,
    };
    let user = options.repository.rsplit_once('@').map_or(DEFAULT_USER, |(user, _)| user).to_owned();
    let keyfile = options.keyfile.as_ref().map(|path| host.path(path));
    Ok(Box::new(Pbs { tool, options, user, keyfile, downloads: host.download_dir() }))
}

fn check(section: &Section, options: &Options) -> Result<(), SyntaxError> {
    let Options { repository, namespace, timeout, encrypt, keyfile, .. } = options;
    let plain = |text: &str| !text.is_empty() && !text.starts_with('-') && !text.contains([' ', '\t']);
    let user = repository.rsplit_once('@').map(|(user, _)| user);
    if !plain(repository) || user.is_some_and(|user| !user.contains('@')) {
        let error = section.error_at("repository", "repository: is USER@REALM!TOKEN@SERVER:DATASTORE");
        return Err(error.hinted("for example pbx@pbs!host@10.0.0.5:store"));
    }

    if namespace.as_deref().is_some_and(|name| !plain(name)) {
        return Err(section.error_at("namespace", "namespace: is NAME or NAME/NAME"));
    }
    if *timeout == 0 {
        let error =
            section.error_at("timeout", "timeout: without a limit a silent server would stop all runs");
        return Err(error.hinted("set a number of seconds"));
    }

    match (encrypt, keyfile) {
        (false, Some(_)) => {
            let error = section.error_at("keyfile", "keyfile: the encryption of the client is not enabled");
            Err(error.hinted(
                "`recipient` encrypts the snapshots; `encrypt yes` encrypts them again in the client",
            ))
        }
        (true, None) => {
            let error = section.error_at("encrypt", "encrypt: needs a keyfile");
            Err(error.hinted("create one with `proxmox-backup-client key create FILE`"))
        }
        _ => Ok(()),
    }
}

impl Pbs {
    fn limit(&self) -> Duration {
        Duration::from_secs(self.options.timeout)
    }

    fn transfer_limit(&self, bytes: u64) -> Duration {
        transfer_limit(self.limit(), bytes, SLOWEST_BYTES_PER_SECOND, TRIES)
    }

    /// `host/pve1/2026-11-22T15:17:40Z`, as the client names it.
    fn path(id: &SnapshotId) -> String {
        format!("host/{id}")
    }

    fn args(&self, words: &[&str]) -> Vec<String> {
        let mut args: Vec<String> = words.iter().map(|&word| word.to_owned()).collect();
        args.extend(["--repository".to_owned(), self.options.repository.clone()]);
        if let Some(namespace) = &self.options.namespace {
            args.extend(["--ns".to_owned(), namespace.clone()]);
        }
        args
    }

    fn done(&self, what: &str, words: &[&str], limit: Duration) -> Result<Vec<u8>> {
        self.tool.done(what, &self.args(words), limit)
    }

    /// Returns the client's options for encryption: without them it uses a key that it finds in root's home.
    fn crypt(&self) -> Vec<String> {
        let words: &[&str] =
            if self.options.encrypt { &["--crypt-mode", "encrypt"] } else { &["--crypt-mode", "none"] };
        let mut words: Vec<String> = words.iter().map(|&word| word.to_owned()).collect();
        if let Some(file) = &self.keyfile {
            words.extend(["--keyfile".to_owned(), file.display().to_string()]);
        }
        words
    }

    fn transfer(&self, what: &str, words: &[&str], bytes: u64) -> Result<Vec<u8>> {
        let crypt = self.crypt();
        let mut command = words.to_vec();
        command.extend(crypt.iter().map(String::as_str));
        if let Some(rate) = &self.options.bandwidth {
            command.extend(["--rate", rate]);
        }
        self.done(what, &command, self.transfer_limit(bytes))
    }

    fn listed(&self, host: Option<&str>) -> Result<Vec<Listed>> {
        let group = host.map(|host| format!("host/{host}"));
        let mut command = vec!["snapshot", "list"];
        command.extend(group.as_deref());
        command.extend(["--output-format", "json"]);
        let output = self.tool.run(&self.args(&command), self.limit(), LISTING_MAX_BYTES)?;
        match output.status {
            ToolStatus::Exit(0) => self.tool.json(&output, "the list from the client"),
            _ => Err(self.tool.failed("list its snapshots", &output)),
        }
    }

    /// One of this store, when it is there.
    fn find(&self, id: &SnapshotId) -> Result<Option<FoundFile>> {
        Ok(self.list(Some(id.host()))?.into_iter().find(|found| found.id == *id))
    }

    fn forget(&self, id: &SnapshotId) -> Result<()> {
        let path = Self::path(id);
        let done = self.done(&format!("remove {id}"), &["snapshot", "forget", &path], self.limit());
        match done {
            // Another run was faster, or is about to be.
            Err(_) if (0..LOOKS).any(|look| self.is_gone(id, look)) => Ok(()),
            done => done.map(drop),
        }
    }

    fn is_gone(&self, id: &SnapshotId, look: u32) -> bool {
        std::thread::sleep(LOOK_AGAIN * look);
        self.find(id).is_ok_and(|found| found.is_none())
    }

    fn place_of(&self, id: &SnapshotId) -> String {
        let namespace = self.options.namespace.as_deref().map(|name| format!("{name}/")).unwrap_or_default();
        format!("{}:{namespace}{}", self.options.repository, Self::path(id))
    }
}

impl Store for Pbs {
    fn name(&self) -> &str {
        &self.tool.store
    }

    fn place(&self) -> String {
        match &self.options.namespace {
            Some(namespace) => format!("{}, namespace {namespace}", self.options.repository),
            None => self.options.repository.clone(),
        }
    }

    fn put(&self, file: &Path, id: &SnapshotId) -> Result<PutResult> {
        let size = fs::metadata(file)?.len();
        if self.find(id)?.is_some() {
            return Err(anyhow!(
                "store '{}': cannot write {id}: a snapshot of this name exists",
                self.tool.store
            ));
        }

        // The archive is a folder: one with nothing but the file.
        let scratch = Scratch::new(&self.downloads)?;
        let inner = |name: &str| scratch.path().join(name);
        let (folder, head, length) = (inner("archive"), inner("head"), inner("size"));
        fs::create_dir(&folder)?;

        let inside = folder.join(id.file_name());
        if fs::hard_link(file, &inside).is_err() {
            fs::copy(file, &inside)?;
        }

        let mut first = Vec::new();
        fs::File::open(file)?.take(HEAD_BYTES).read_to_end(&mut first)?;
        fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&head)?.write_all(&first)?;
        fs::write(&length, size.to_string())?;

        let specs = [
            format!("{ARCHIVE}:{}", folder.display()),
            format!("{HEAD}:{}", head.display()),
            format!("{SIZE}{size}.conf:{}", length.display()),
        ];
        let time = id.at().as_second().to_string();
        let options = ["--backup-type", "host", "--backup-id", id.host(), "--backup-time", &time];
        let mut command = vec!["backup"];
        command.extend(specs.iter().map(String::as_str).chain(options));
        self.transfer(&format!("upload {id}"), &command, size)?;
        let there = self
            .find(id)?
            .with_context(|| format!("store '{}': {id} is not there after its upload", self.tool.store))?;
        ensure!(there.size == size, "store '{}': {id} is not what was uploaded", self.tool.store);
        Ok(PutResult { place: self.place_of(id), medium: None, problems: Vec::new() })
    }

    fn list(&self, host: Option<&str>) -> Result<Vec<FoundFile>> {
        Ok(self.listed(host)?.iter().filter_map(|one| one.found(&self.user)).collect())
    }

    fn head(&self, id: &SnapshotId, len: usize) -> Result<Vec<u8>> {
        let path = Self::path(id);
        let mut head = self.transfer(&format!("read {id}"), &["restore", &path, HEAD, "-"], HEAD_BYTES)?;
        head.truncate(len);
        Ok(head)
    }

    fn remove(&self, id: &SnapshotId) -> Result<()> {
        self.remove_many(std::slice::from_ref(id)).pop().unwrap_or_else(check_stopped)
    }

    fn remove_many(&self, ids: &[SnapshotId]) -> Vec<Result<()>> {
        let mut results = Vec::new();
        let mut there: Option<(&str, Result<Vec<FoundFile>>)> = None;

        for id in ids {
            if check_stopped().is_err() {
                break;
            }
            if there.as_ref().is_none_or(|(host, _)| *host != id.host()) {
                there = Some((id.host(), self.list(Some(id.host()))));
            }
            results.push(match &there {
                Some((_, Ok(found))) => match found.iter().find(|found| found.id == *id) {
                    None => Ok(()),
                    Some(FoundFile { held: Some(why), .. }) => {
                        Err(anyhow!("store '{}': cannot remove {id}: it is {why}", self.tool.store))
                    }
                    Some(_) => self.forget(id),
                },
                Some((_, Err(error))) => Err(anyhow!("{error:#}")),
                None => Ok(()),
            });
        }
        results
    }

    fn get(&self, id: &SnapshotId) -> Result<Fetched> {
        let found = self
            .find(id)?
            .with_context(|| Fault::not_found(format!("store '{}': {id} is not there", self.tool.store)))?;
        let scratch = Scratch::new(&self.downloads)?;
        let (path, folder) = (Self::path(id), scratch.path().join("archive"));
        let target = folder.to_string_lossy();
        self.transfer(&format!("download {id}"), &["restore", &path, ARCHIVE, &target], found.size)?;
        let file = folder.join(id.file_name());
        let whole = file.symlink_metadata().is_ok_and(|meta| meta.is_file());
        ensure!(whole, "store '{}': {id} contains no file of its name", self.tool.store);
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600))?;
        Ok(Fetched::downloaded(file, PathBuf::from(self.place_of(id)), scratch))
    }
}

/// Returns the hint for an error of the client. Only its last line tells: those before it also name the datastore.
fn hint(said: &str) -> Option<&'static str> {
    let said = last_line(said);
    let any = |words: &[&str]| words.iter().any(|word| said.contains(word));

    if any(&["older than last backup"]) {
        Some("the server accepts only snapshots newer than the last one of this host; is the clock right?")
    } else if any(&[
        "permission check failed",
        "authentication failed",
        "401",
        "403",
        "backup owner check failed",
    ]) {
        Some(
            "is the secret of the token right, and does it have the role DatastoreBackup on this datastore and namespace?",
        )
    } else if any(&["certificate validation failed", "fingerprint"]) {
        Some("`fingerprint` is the server's: `proxmox-backup-manager cert info` there shows it")
    } else if any(&["namespace", "no such datastore", "datastore"]) {
        Some("do the datastore and the namespace exist, and are their names right?")
    } else if any(&["no space left", "quota"]) {
        Some("free some space on the server; its garbage collection frees what was removed")
    } else if any(&["connection refused", "timed out", "connect", "dns", "lookup"]) {
        Some("the server does not answer; is it up, and the address right?")
    } else {
        None
    }
}
