//! The host as seen through a root folder: every path is joined here. The real host is `/`,
//! a dead system on a rescue disk is `/mnt`, a test's host is a temporary folder.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use jiff::Timestamp;
use sha2::{Digest, Sha256};

use super::dpkg;
use super::fs::files;
use super::host_dir::HostDir;
use super::process::exec::{Exec, System};
use crate::model::facts::{Cluster, Facts, Product};

pub const CONFIG_DIR: &str = "/etc/proxmox-backup-extra";
pub const STATE_DIR: &str = "/var/lib/proxmox-backup-extra";
const RUN_DIR: &str = "/run/proxmox-backup-extra";
/// The file in which root's rclone keeps its remotes.
pub const RCLONE_CONFIG: &str = "/root/.config/rclone/rclone.conf";
/// The file that names a host that does not run.
pub const HOSTNAME: &str = "/etc/hostname";
/// The node name of a host without one.
const NAMELESS: &str = "localhost";
const SMALL_MAX_BYTES: u64 = 1 << 20;

/// What tells a product: a program of it, and its package.
const SIGNS: [(Product, &str, &str); 2] = [
    (Product::Pve, "/usr/bin/pmxcfs", "pve-manager"),
    (Product::Pbs, "/usr/sbin/proxmox-backup-manager", "proxmox-backup-server"),
];

pub struct Host {
    root: PathBuf,
    pub now: Timestamp,
    pub facts: Facts,
    /// The host's own tools.
    pub exec: Arc<dyn Exec>,
    /// Time at which the cluster file system last hung.
    pub hangs: Hang,
}

/// The moment at which something was found to hang.
#[derive(Default)]
pub struct Hang(Mutex<Option<Instant>>);

impl Hang {
    pub fn meet(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    pub fn was_met_within(&self, span: Duration) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_some_and(|met| met.elapsed() < span)
    }
}

impl Host {
    /// Looks at the system below `root` (absolute); reads only local files, so it cannot hang on /etc/pve.
    pub fn detect(root: PathBuf, now: Timestamp, exec: Box<dyn Exec>) -> Self {
        let facts = facts(&root);
        Self { root, now, facts, exec: exec.into(), hangs: Hang::default() }
    }

    /// This machine, for the stores that its own configuration names, with what is there of a host that is only
    /// mounted on it.
    #[must_use]
    pub fn machine(&self) -> Self {
        let facts = self.facts.clone();
        Self { root: "/".into(), now: self.now, facts, exec: Arc::new(System), hangs: Hang::default() }
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    /// False when nothing tells a name, so that `localhost` stands in.
    pub fn has_name(&self) -> bool {
        self.facts.node != NAMELESS
    }

    /// True for the running system itself, whose commands and kernel are the ones we talk to.
    pub fn is_live(&self) -> bool {
        self.root == Path::new("/")
    }

    /// An absolute path of the host, as we reach it.
    pub fn path(&self, absolute: impl AsRef<Path>) -> PathBuf {
        join(&self.root, absolute.as_ref())
    }

    /// Opens a directory of the host through no link that leads elsewhere. Errors: as `HostDir::open`.
    pub fn dir(&self, absolute: impl AsRef<Path>) -> io::Result<HostDir> {
        HostDir::open(&self.root, absolute.as_ref())
    }

    /// Opens the directory that a path lies in. Errors: as `HostDir::open`.
    pub fn dir_of(&self, absolute: &Path) -> io::Result<HostDir> {
        self.dir(absolute.parent().unwrap_or(Path::new("/")))
    }

    /// Looks at what a path leads to; links are followed within the root.
    pub fn metadata(&self, absolute: impl AsRef<Path>) -> io::Result<fs::Metadata> {
        files::metadata(&self.root, absolute.as_ref())
    }

    /// Replaces a file of the host; an admin's link to it stays one. Errors: with its path.
    pub fn replace(&self, absolute: &str, mode: u32, content: &[u8]) -> Result<()> {
        let path = self.resolved(absolute);
        let dir =
            self.dir_of(&path).with_context(|| format!("cannot write {}", self.path(&path).display()))?;
        dir.replace(path.file_name().unwrap_or_default(), mode, content)
    }

    /// Removes a file of the host, or what an admin's link leads to.
    pub fn remove(&self, absolute: &str) -> io::Result<()> {
        let path = self.resolved(absolute);
        self.dir_of(&path)?.remove(path.file_name().unwrap_or_default())
    }

    fn resolved(&self, absolute: &str) -> PathBuf {
        let real = files::real_path(&self.root, Path::new(absolute));
        real.map_or_else(|_| PathBuf::from(absolute), |real| Path::new("/").join(real))
    }

    /// The path of the state directory, to be told and compared.
    pub fn state_path(&self) -> PathBuf {
        self.path(STATE_DIR)
    }

    /// Downloaded copies, while they are used: on a disk rather than in memory.
    pub fn download_dir(&self) -> PathBuf {
        if self.is_live() { self.state_path() } else { self.run_dir() }.join("download")
    }

    /// Opens the directory of the configuration, made for all to read when it is not there.
    pub fn make_config_dir(&self) -> Result<HostDir> {
        let made = HostDir::make(&self.root, Path::new(CONFIG_DIR), 0o755);
        made.with_context(|| format!("cannot create {}", self.path(CONFIG_DIR).display()))
    }

    /// Opens the state directory. Errors: as `HostDir::open`.
    pub fn state(&self) -> io::Result<HostDir> {
        self.dir(STATE_DIR)
    }

    /// Opens the state directory, made when it is not there. Errors: it cannot be written, or a link leads out of the
    /// root.
    pub fn make_state(&self) -> Result<HostDir> {
        const CANNOT: &str = "the state directory cannot be written";
        let state = HostDir::make(&self.root, Path::new(STATE_DIR), 0o700).context(CANNOT)?;
        ensure!(self.is_live() || state.is_writable(), CANNOT);
        Ok(state)
    }

    /// Locks and private copies. For another root it is a folder of the running system keyed by that root,
    /// because the other system may be read-only and is nobody's runtime.
    pub fn run_dir(&self) -> PathBuf {
        let base = Path::new(RUN_DIR);
        if self.is_live() {
            return base.to_owned();
        }
        let digest = Sha256::digest(self.root.as_os_str().as_bytes());
        base.join(format!("root-{}", super::hex(&digest[..6])))
    }

    /// Opens that folder, made when it is not there.
    pub fn make_run_dir(&self) -> io::Result<HostDir> {
        HostDir::make(Path::new("/"), &self.run_dir(), 0o700)
    }
}

fn join(root: &Path, absolute: &Path) -> PathBuf {
    root.join(absolute.strip_prefix("/").unwrap_or(absolute))
}

fn facts(root: &Path) -> Facts {
    let status = text(root, dpkg::STATUS, dpkg::STATUS_MAX_BYTES).unwrap_or_default();
    let mut facts = Facts {
        node: node(root),
        os: os_name(root),
        machine_id: line(root, "/etc/machine-id").filter(|id| is_machine_id(id)),
        cluster: cluster(root),
        ..Facts::default()
    };
    for (product, program, package) in SIGNS {
        let version = package_version(&status, package);
        if version.is_some() || files::is_there(root, program) {
            facts.products.insert(product, version.map(short).unwrap_or_default());
        }
        facts.looked_at.push(program.to_owned());
        facts.looked_at.push(format!("package {package} in {}", dpkg::STATUS));
    }

    if !facts.products.is_empty() {
        facts.looked_at.clear();
    }
    facts
}

/// The node name as pmxcfs takes it: the host name up to the first dot.
fn node(root: &Path) -> String {
    let full = if root == Path::new("/") {
        nix::unistd::gethostname().ok().map(|name| name.to_string_lossy().into_owned())
    } else {
        line(root, HOSTNAME)
    };
    let short = full.as_deref().unwrap_or_default().split('.').next().unwrap_or_default();
    let clean = node_name(short);
    if clean.is_empty() { NAMELESS.to_owned() } else { clean }
}

/// Returns the part of a word that can be a node's name.
fn node_name(word: &str) -> String {
    let clean = word.chars().filter(|c| c.is_ascii_alphanumeric() || "-_.".contains(*c));
    clean.skip_while(|c| *c == '-').take(63).collect()
}

/// 32 hex digits; a first boot that never was leaves `uninitialized`, a broken disk anything.
fn is_machine_id(word: &str) -> bool {
    word.len() == 32 && word.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// A fact is a few words: it stands in a manifest that has to be small, and on people's terminals.
fn short(text: &str) -> String {
    const MAX_CHARS: usize = 200;
    text.chars().filter(|c| !c.is_control()).take(MAX_CHARS).collect()
}

/// A foreign byte in a maintainer's name must not cost the versions of all packages.
fn text(root: &Path, path: &str, max: u64) -> Option<String> {
    match files::read_small(root, path, max) {
        Ok(bytes) => Some(String::from_utf8_lossy(&bytes).into_owned()),
        Err(error) => {
            // Not there, or not for this user's eyes: an ordinary state, unlike a FIFO.
            if !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied) {
                log::warn!("{path}: {error}");
            }
            None
        }
    }
}

fn line(root: &Path, path: &str) -> Option<String> {
    let text = text(root, path, SMALL_MAX_BYTES)?;
    let line = text.lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with('#'))?;
    Some(line.to_owned())
}

fn os_name(root: &Path) -> Option<String> {
    let text = text(root, "/etc/os-release", SMALL_MAX_BYTES)?;
    let value = text.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="))?;
    Some(short(value.trim().trim_matches('"')))
}

fn package_version<'a>(status: &'a str, package: &str) -> Option<&'a str> {
    let head = format!("Package: {package}\n");
    let start = if status.starts_with(&head) { 0 } else { status.find(&format!("\n{head}"))? + 1 };
    let paragraph = status[start..].split("\n\n").next()?;
    let field = |name: &str| paragraph.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    // A removed package keeps its paragraph as long as its configuration files stay.
    field("Status:")?.ends_with(" installed").then(|| field("Version:"))?
}

/// Reads the cluster from the node's own copy of corosync.conf, without /etc/pve.
fn cluster(root: &Path) -> Option<Cluster> {
    /// Eight times what corosync has room for.
    const MAX_NODES: usize = 256;
    let text = text(root, "/etc/corosync/corosync.conf", SMALL_MAX_BYTES)?;
    let values = |key: &str| -> Vec<String> {
        text.lines()
            .filter_map(|line| line.trim().strip_prefix(key)?.strip_prefix(':'))
            .map(|value| value.trim().to_owned())
            .collect()
    };
    let name = values("cluster_name").into_iter().next()?;
    let nodes = values("name").into_iter().map(|word| node_name(&word)).filter(|name| !name.is_empty());
    Some(Cluster { name: short(&name), nodes: nodes.take(MAX_NODES).collect() })
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &str = "Package: pve-manager\nStatus: install ok installed\nVersion: 9.1.2\n\n\
                          Package: proxmox-backup-server\nStatus: deinstall ok config-files\nVersion: 4.1\n\n";

    #[test]
    fn the_version_of_an_installed_package_is_found() {
        assert_eq!(package_version(STATUS, "pve-manager"), Some("9.1.2"));
    }

    #[test]
    fn a_removed_package_is_no_product() {
        assert_eq!(package_version(STATUS, "proxmox-backup-server"), None);
        assert_eq!(package_version(STATUS, "backup-server"), None);
    }
}
