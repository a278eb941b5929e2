//! Configuration of this program: the section files of the node override those of the cluster.
//! Not here: the keys of each kind of store (`store::open`) and of channel (`notify::open`).

mod check;
pub mod edit;
pub mod exchange;
pub mod legacy;

use anyhow::{Context, Result};
use serde::Deserialize;

pub use self::check::{CheckConfig, ProgramName};
use crate::model::facts::Product;
use crate::model::keep::Keep;
use crate::model::nearest::nearest;
use crate::model::problem::{Fault, Problem};
use crate::model::secret::MASK;
pub use crate::model::secret::Secret;
use crate::model::section::{self, Section, SyntaxError};
use crate::sys::fs::files;
use crate::sys::fs::glob::Pattern;
use crate::sys::host::{CONFIG_DIR, Host};
use crate::sys::net::http::CertFingerprint;
use crate::sys::pmxcfs;

pub const FILE: &str = "pbx-config.cfg";
pub const SECRETS_FILE: &str = "secrets.cfg";
/// Below /etc/pve, shared by all nodes.
const CLUSTER_FILE: &str = "pbx-config.cfg";
const CLUSTER_SECRETS_FILE: &str = "priv/pbx-config-secrets.cfg";
/// Size limit; a real configuration is much smaller.
const FILE_MAX_BYTES: u64 = 4 << 20;
const BACKUP: &str = "backup";
/// Kind of the sections with the access to a product's own API; the id is the product.
pub const API: &str = "api";
const HOOK: &str = "hook";
const PROMETHEUS: &str = "prometheus";
const CHECK: &str = "check";
const VZDUMP: &str = "vzdump";
const MAIN: &str = "main";
const SECRET: &str = "secret";

/// Configuration in force.
#[derive(Debug)]
pub struct Config {
    pub backup: BackupConfig,
    pub apis: Vec<(Product, ApiConfig)>,
    pub hook: HookConfig,
    /// Targets of metrics, by name.
    pub prometheus: Vec<(String, Prometheus)>,
    pub check: CheckConfig,
    /// Sections of the stores, the primary first, without their keep-* keys. Never empty.
    pub stores: Vec<Section>,
    /// Sections of the channels.
    pub channels: Vec<Section>,
    /// Retention by the name of the store.
    keeps: Vec<(String, Keep)>,
    /// All sections in force, in their order, for `config show`.
    pub sections: Vec<Section>,
    /// Names of the files that exist.
    pub files: Vec<String>,
    /// Files that could not be read and were ignored.
    pub problems: Vec<Problem>,
}

/// `backup: main`.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct BackupConfig {
    pub compression: String,
    /// fast, standard, maximum or ultra, instead of a level.
    pub compression_mode: Option<String>,
    pub compression_level: Option<i32>,
    /// 0: one thread for each processor, at most four.
    pub compression_threads: u32,
    pub include: Vec<Glob>,
    pub exclude: Vec<Glob>,
    /// Items or categories that are not collected.
    pub skip: Vec<String>,
    /// Makes no new snapshot when nothing that counts has changed.
    pub skip_unchanged: bool,
    /// Public keys of those who can open encrypted snapshots, as age or SSH write them.
    pub recipient: Vec<String>,
    /// Files with such keys, one per line.
    pub recipient_file: Vec<String>,
    /// None: encrypted when there is a recipient. True: no run without one. False: never encrypted.
    pub seal: Option<bool>,
    /// Reads an encrypted snapshot back with a key that only the run holds in memory.
    pub readback_key: bool,
    /// Signs manifests with the host's SSH key, when it has one.
    pub sign: bool,
    pub preflight: Preflight,
}

/// Effect of the findings of the check before each backup.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Preflight {
    /// Findings are in the report.
    #[default]
    Warn,
    /// A finding that must be fixed ends the run.
    Stop,
    Off,
}

impl Default for BackupConfig {
    fn default() -> Self {
        Self {
            compression: "zstd".to_owned(),
            compression_mode: None,
            compression_level: None,
            compression_threads: 0,
            include: Vec::new(),
            exclude: Vec::new(),
            skip: Vec::new(),
            skip_unchanged: false,
            recipient: Vec::new(),
            recipient_file: Vec::new(),
            seal: None,
            readback_key: true,
            sign: true,
            preflight: Preflight::default(),
        }
    }
}

/// `hook: vzdump`.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct HookConfig {
    /// Minutes after the last start in which the end of a job makes no further backup.
    pub debounce: u16,
}

impl Default for HookConfig {
    fn default() -> Self {
        Self { debounce: 10 }
    }
}

/// `prometheus: ID`.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Prometheus {
    /// Directory of the files; None: the one that `node_exporter` reads on this host.
    pub path: Option<String>,
}

fn read_prometheus(section: &Section) -> Result<(String, Prometheus)> {
    let read: Prometheus = section.read().map_err(fault)?;
    if read.path.as_ref().is_some_and(|path| !path.starts_with('/')) {
        return Err(fault(section.error_at("path", "path: must be absolute")));
    }
    Ok((section.id.clone(), read))
}

/// `api: pve` or `api: pbs`.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct ApiConfig {
    /// `USER@REALM!NAME`.
    pub token: String,
    pub secret: Secret,
    /// Fingerprint of the certificate; None: the node's own certificates are read from disk.
    pub fingerprint: Option<CertFingerprint>,
    #[serde(default = "this_host")]
    pub server: String,
    pub port: Option<u16>,
}

/// Default address of a product's API.
pub const THIS_HOST: &str = "127.0.0.1";

fn this_host() -> String {
    THIS_HOST.to_owned()
}

/// Absolute glob, checked.
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "String")]
pub struct Glob(pub Pattern);

impl TryFrom<String> for Glob {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Pattern::new(&text).map(Self).map_err(|error| format!("{error:#}"))
    }
}

/// Sections in force when nothing is configured.
const DEFAULT: &str = "dir: local\n\tpath /var/lib/proxmox-backup-extra/store\n";

impl Config {
    /// Reads both layers. `store_kinds` are the section kinds that are stores, `channel_kinds` those that are
    /// channels. Errors: `Usage`, with file, line and a hint.
    pub fn load(host: &Host, store_kinds: &[&str], channel_kinds: &[&str]) -> Result<Self> {
        let mut loader = Loader::default();
        let cluster = loader.cluster(host)?;
        let local = loader.local(host)?;
        Self::settle(loader, overlay(cluster, local), store_kinds, channel_kinds)
    }

    /// Builds the configuration from sections that are in no file yet. Errors: see `load`.
    pub fn of_sections(sections: Vec<Section>, store_kinds: &[&str], channel_kinds: &[&str]) -> Result<Self> {
        let mut files: Vec<String> = sections.iter().map(|section| section.file.to_string()).collect();
        files.dedup();
        Self::settle(Loader { files, problems: Vec::new() }, sections, store_kinds, channel_kinds)
    }

    fn settle(
        loader: Loader,
        mut sections: Vec<Section>,
        store_kinds: &[&str],
        channel_kinds: &[&str],
    ) -> Result<Self> {
        check_kinds(&sections, &[store_kinds, channel_kinds].concat())?;
        sections.iter().try_for_each(check_no_identity)?;

        let (backup, hook) = (only(&sections, BACKUP)?, only(&sections, HOOK)?);
        let check = only(&sections, CHECK)?;
        let apis = read_apis(&sections)?;
        let metrics = sections.iter().filter(|section| section.kind == PROMETHEUS);
        let prometheus = metrics.map(read_prometheus).collect::<Result<Vec<_>>>()?;

        let is_store = |section: &&Section| store_kinds.contains(&section.kind.as_str());
        if !sections.iter().any(|section| is_store(&section)) {
            sections.extend(section::parse("(default)", DEFAULT).map_err(fault)?);
        }

        let (mut stores, mut keeps) = (Vec::new(), Vec::new());
        for section in sections.iter().filter(is_store) {
            let (keep, rest) = section.split(&Keep::KEYS);
            keeps.push((section.id.clone(), keep.read().map_err(fault)?));
            no_keep_word(&rest).map_err(fault)?;
            stores.push(rest);
        }

        let is_channel = |section: &&Section| channel_kinds.contains(&section.kind.as_str());
        let channels = sections.iter().filter(is_channel).cloned().collect();

        let Loader { files, problems } = loader;
        Ok(Self { backup, apis, hook, prometheus, check, stores, channels, keeps, sections, files, problems })
    }

    /// Returns the retention of a store. Without keep-* keys all snapshots are kept.
    pub fn keep(&self, store: &str) -> Keep {
        self.keeps.iter().find(|(name, _)| name == store).map(|(_, keep)| *keep).unwrap_or_default()
    }

    /// Returns `backup: main`, when a file has it.
    pub fn main(&self) -> Option<&Section> {
        self.sections.iter().find(|section| section.kind == BACKUP)
    }

    /// Returns `FILE:LINE` of a value of `backup: main`.
    pub fn place(&self, key: &str, value: &str) -> String {
        let mut entries = self.main().into_iter().flat_map(|section| &section.entries);
        let entry = entries.find(|entry| entry.key == key && entry.value == value);
        entry.map_or_else(String::new, |entry| format!("{}:{}", entry.file, entry.line))
    }

    /// Returns the value to show: secrets are masked.
    pub fn shown(entry: &section::SectionEntry) -> &str {
        if entry.private { MASK } else { &entry.value }
    }
}

/// Converts a syntax error to the fault that ends a command.
fn fault(error: SyntaxError) -> anyhow::Error {
    Fault::from(error).into()
}

#[derive(Default)]
struct Loader {
    files: Vec<String>,
    problems: Vec<Problem>,
}

impl Loader {
    /// Reads the files of the cluster. A cluster file system that does not answer is a problem, not the end.
    fn cluster(&mut self, host: &Host) -> Result<Vec<Section>> {
        let found = pmxcfs::files(host, &[CLUSTER_FILE, CLUSTER_SECRETS_FILE]).unwrap_or_else(|error| {
            let what = format!("{error:#}; the configuration of the cluster was not read");
            self.problems.push(Problem::warning(what).hint("see `systemctl status pve-cluster`"));
            Vec::new()
        });
        let mut found = found.into_iter();
        let (public, secret) = (found.next().flatten(), found.next().flatten());
        let name = |path: &str| format!("{}/{path}", pmxcfs::MOUNT);
        self.layer((name(CLUSTER_FILE), public), (name(CLUSTER_SECRETS_FILE), secret))
    }

    fn local(&mut self, host: &Host) -> Result<Vec<Section>> {
        let (public, secret) = (format!("{CONFIG_DIR}/{FILE}"), format!("{CONFIG_DIR}/{SECRETS_FILE}"));
        let secrets = read_optional(host, &secret)?;
        if secrets.is_some() {
            check_private(host, &secret)?;
        }
        let name = |path: &str| host.path(path).display().to_string();
        self.layer((name(&public), read_optional(host, &public)?), (name(&secret), secrets))
    }

    /// Reads a file, and adds the keys of its secrets file to the same sections.
    fn layer(
        &mut self,
        public: (String, Option<Vec<u8>>),
        secret: (String, Option<Vec<u8>>),
    ) -> Result<Vec<Section>> {
        let mut sections = self.parse(&public.0, public.1)?;
        for extra in self.parse(&secret.0, secret.1)? {
            let Some(section) = sections.iter_mut().find(|s| same(s, &extra)) else {
                let error = SyntaxError::new(
                    &extra.file,
                    extra.line,
                    format!("{} '{}': this section does not exist", extra.kind, extra.id),
                );
                return Err(fault(error.hinted(format!("add it to {} too", public.0))));
            };
            let private =
                extra.entries.into_iter().map(|entry| section::SectionEntry { private: true, ..entry });
            section.entries.extend(private);
        }

        Ok(sections)
    }

    fn parse(&mut self, name: &str, data: Option<Vec<u8>>) -> Result<Vec<Section>> {
        let Some(data) = data else { return Ok(Vec::new()) };
        self.files.push(name.to_owned());
        let text = String::from_utf8(data).map_err(|error| {
            let line =
                error.as_bytes()[..error.utf8_error().valid_up_to()].iter().filter(|b| **b == b'\n').count()
                    + 1;
            Fault::usage(format!("{name}:{line}: is not UTF-8"))
        })?;
        section::parse(name, &text).map_err(fault)
    }
}

fn read_optional(host: &Host, path: &str) -> Result<Option<Vec<u8>>> {
    match files::read_small(host.root(), path, FILE_MAX_BYTES) {
        Ok(data) => Ok(Some(data)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).context(Fault::usage(format!("cannot read {path}"))),
    }
}

fn check_private(host: &Host, path: &str) -> Result<()> {
    if files::is_private(&host.metadata(path)?) {
        return Ok(());
    }
    let path = host.path(path);
    let shown = path.display();
    let fault = Fault::usage(format!("{shown}: users other than root can read it"));
    Err(fault.hint(format!("chown root: {shown}; chmod 600 {shown}; then change the secrets in it")).into())
}

fn same(a: &Section, b: &Section) -> bool {
    (&a.kind, &a.id) == (&b.kind, &b.id)
}

/// Replaces the cluster's sections by the node's of the same name, and appends the other ones of the node.
fn overlay(cluster: Vec<Section>, local: Vec<Section>) -> Vec<Section> {
    let mut sections = cluster;
    for section in local {
        match sections.iter_mut().find(|s| same(s, &section)) {
            Some(place) => *place = section,
            None => sections.push(section),
        }
    }
    sections
}

fn check_kinds(sections: &[Section], others: &[&str]) -> Result<()> {
    let known: Vec<&str> =
        [BACKUP, API, HOOK, CHECK, PROMETHEUS].into_iter().chain(others.iter().copied()).collect();
    for section in sections {
        let Section { kind, id, file, line, .. } = section;
        if !known.contains(&kind.as_str()) {
            let hint = nearest(kind, &known).map_or_else(
                || format!("valid kinds are: {}", known.join(", ")),
                |word| format!("did you mean '{word}'?"),
            );
            return Err(fault(SyntaxError::new(file, *line, format!("unknown kind '{kind}'")).hinted(hint)));
        }

        for (only, name) in [(BACKUP, MAIN), (HOOK, VZDUMP), (CHECK, MAIN)] {
            if kind == only && id != name {
                let error =
                    SyntaxError::new(file, *line, format!("{kind} '{id}': there is only '{only}: {name}'"));
                return Err(fault(error.hinted(format!("move its keys to '{only}: {name}'"))));
            }
        }
    }
    Ok(())
}

/// Rejects a secret key of age under any key: the files are read by many and must not open encrypted snapshots.
fn check_no_identity(section: &Section) -> Result<()> {
    let is_secret = |value: &str| value.to_ascii_uppercase().contains("AGE-SECRET-KEY-");
    let Some(entry) = section.entries.iter().find(|entry| is_secret(&entry.value)) else { return Ok(()) };
    let what = format!("{} '{}': {}: is a secret key, not a recipient", section.kind, section.id, entry.key);
    let hint = "remove it and create another key: `pbx-config key generate`. Only the recipient, age1…, belongs here";
    Err(fault(SyntaxError::new(&entry.file, entry.line, what).hinted(hint)))
}

fn read_apis(sections: &[Section]) -> Result<Vec<(Product, ApiConfig)>> {
    let of = |section: &Section| {
        let Some(product) = Product::ALL.into_iter().find(|product| product.word() == section.id) else {
            let error = section.error_at("", "there is only 'api: pve' and 'api: pbs'");
            return Err(fault(error.hinted("the id is the product of the API")));
        };
        section.refuse_public(&[SECRET]).map_err(fault)?;
        if section.entries.iter().all(|entry| entry.key != SECRET) {
            let error = section.error_at("token", "the token's secret is missing");
            let hint = format!("put `secret` under '{API}: {}' in {CONFIG_DIR}/{SECRETS_FILE}", section.id);
            return Err(fault(error.hinted(hint)));
        }

        let api: ApiConfig = section.read().map_err(fault)?;
        if !api.token.split_once('!').is_some_and(|(user, name)| user.contains('@') && !name.is_empty()) {
            let error = section.error_at("token", "a token is USER@REALM!NAME");
            return Err(fault(error.hinted("put its secret in secrets.cfg")));
        }
        Ok((product, api))
    };

    sections.iter().filter(|section| section.kind == API).map(of).collect()
}

/// Rejects an unknown keep-* key here: the stores do not know these keys and could only name their own.
fn no_keep_word(section: &Section) -> Result<(), SyntaxError> {
    let Some(entry) = section.entries.iter().find(|entry| entry.key.starts_with("keep")) else {
        return Ok(());
    };
    let hint = match nearest(&entry.key, &Keep::KEYS) {
        // Proxmox has this key, and it is not needed here.
        _ if entry.key == "keep-all" => {
            "without any keep option all snapshots are kept: remove it".to_owned()
        }
        Some(near) => format!("did you mean '{near}'?"),
        None => format!("valid keys are: {}", Keep::KEYS.join(", ")),
    };
    Err(section.error_at(&entry.key, &format!("unknown key '{}'", entry.key)).hinted(hint))
}

/// Reads the section of a kind that has only one; its defaults when it does not exist.
fn only<T: Default + serde::de::DeserializeOwned>(sections: &[Section], kind: &str) -> Result<T> {
    match sections.iter().find(|section| section.kind == kind) {
        Some(section) => section.read().map_err(fault),
        None => Ok(T::default()),
    }
}
