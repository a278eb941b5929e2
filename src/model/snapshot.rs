//! The name and the clear manifest of a snapshot. The only place where snapshot names are built and parsed.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::facts::{Cluster, Product};
use super::problem::Outcome;

/// The format this program writes.
pub const FORMAT: u32 = 1;
/// Ending of a snapshot's file name.
pub const SUFFIX: &str = ".pbx.tar";
/// The manifest is the first entry and never larger, so one short read lists a snapshot anywhere.
pub const MANIFEST_MAX_BYTES: usize = 64 * 1024;

const NAME_TIME: &str = "%Y%m%dT%H%M%SZ";

/// A host and a whole second in UTC. Ordered by time, then host.
/// Text forms: `pve1/2026-11-22T15:17:40Z` (shown), `pve1_20261122T151740Z.pbx.tar` (file).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SnapshotId {
    at: Timestamp,
    host: String,
}

impl SnapshotId {
    /// Fractions of a second are dropped. None when `host`, or a time before the year 0, cannot stand in a file name.
    pub fn new(host: &str, at: Timestamp) -> Option<Self> {
        const YEAR_0: i64 = -62_167_219_200;
        let at = Timestamp::from_second(at.as_second()).ok()?;
        (valid_host(host) && at.as_second() >= YEAR_0).then(|| Self { at, host: host.to_owned() })
    }

    pub fn host(&self) -> &str {
        &self.host
    }

    pub fn at(&self) -> Timestamp {
        self.at
    }

    /// The same host one second later.
    #[must_use]
    pub fn next(&self) -> Self {
        let at = Timestamp::from_second(self.at.as_second() + 1).unwrap_or(self.at);
        Self { at, host: self.host.clone() }
    }

    pub fn file_name(&self) -> String {
        format!("{}_{}{SUFFIX}", self.host, self.at.strftime(NAME_TIME))
    }

    /// None for every other file: partial ones, legacy archives, anything not ours.
    pub fn from_file_name(name: &str) -> Option<Self> {
        let (host, time) = name.strip_suffix(SUFFIX)?.rsplit_once('_')?;
        let at = DateTime::strptime(NAME_TIME, time).ok()?.to_zoned(TimeZone::UTC).ok()?;
        let id = Self::new(host, at.timestamp())?;
        // One name for one snapshot: a spelling that we would not write is not ours.
        (id.file_name() == name).then_some(id)
    }
}

fn valid_host(host: &str) -> bool {
    (1..=64).contains(&host.len())
        && !host.starts_with(['.', '-'])
        && host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b))
}

impl fmt::Display for SnapshotId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}/{}", self.host, self.at))
    }
}

/// The shown form was not met.
#[derive(Debug)]
pub struct BadId;

impl fmt::Display for BadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a snapshot is HOST/TIME, for example pve1/2026-11-22T15:17:40Z")
    }
}

impl std::error::Error for BadId {}

impl FromStr for SnapshotId {
    type Err = BadId;

    fn from_str(text: &str) -> Result<Self, BadId> {
        let (host, time) = text.split_once('/').ok_or(BadId)?;
        let at = time.parse::<Timestamp>().map_err(|_| BadId)?;
        Self::new(host, at).ok_or(BadId)
    }
}

impl Serialize for SnapshotId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for SnapshotId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// A snapshot without a change is enough for so long: then a new one is made, and proven.
pub const UNCHANGED_MAX: SignedDuration = SignedDuration::from_hours(7 * 24);

/// The clear manifest. It names no file of the host and no hash of a single file:
/// a hash of a short secret is the secret. Unknown keys are ignored, so that the format can grow.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Snapshot {
    pub format: u32,
    pub id: SnapshotId,
    pub node: String,
    #[serde(default)]
    pub machine_id: Option<String>,
    /// Product to package version.
    #[serde(default)]
    pub products: BTreeMap<Product, String>,
    #[serde(default)]
    pub cluster: Option<Cluster>,
    /// Version of the program that wrote it.
    pub tool: String,
    pub codec: Compression,
    /// None: the payload is not encrypted.
    #[serde(default)]
    pub sealed: Option<Sealed>,
    pub payload: Payload,
    /// What tells installations without a machine id apart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub installation: Option<String>,
    /// SHA-256 of HOWTO.txt, lower-case hex: what signs the manifest signs that text. None: written before 0.2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub howto: Option<String>,
    pub counts: Counts,
    pub outcome: Outcome,
    pub trigger: Trigger,
    #[serde(default)]
    pub parent: Option<Parent>,
    #[serde(default)]
    pub note: Option<String>,
    /// `only:WORD` and `skip:WORD` when the run was asked for a part; empty for all of the host.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub selection: Vec<String>,
    #[serde(default)]
    pub protected: bool,
    /// A run of this host that finds nothing changed makes no snapshot, for at most `UNCHANGED_MAX`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub skips_unchanged: bool,
    /// Set for a legacy archive, which has no manifest of ours; no file of ours can say it.
    #[serde(skip_deserializing, skip_serializing_if = "Option::is_none")]
    pub legacy: Option<Legacy>,
}

/// Compression that the payload really has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compression {
    pub name: String,
    pub level: i32,
    /// The word the level came from, when one was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
    pub threads: u32,
}

/// Encryption of the payload. It names no key, only what a key is known by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sealed {
    pub recipients: u32,
    /// Fingerprints of the recipients, `SHA256:` and base64: of a public SSH key as `ssh-keygen -l` prints it, of
    /// others over their text. `key show` prints the same.
    #[serde(default)]
    pub fingerprints: Vec<String>,
    /// The rules by which passphrases among them become keys, `$scrypt$ln=18,r=8,p=1$SALT`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub passphrases: Vec<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Payload {
    /// Name of the entry in the bundle, `payload.tar` with the codec's ending.
    pub name: String,
    /// Bytes as stored.
    pub size: u64,
    /// Lower-case hex over the bytes as stored.
    pub sha256: String,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Entries of the payload, directories and links included, the index not.
    pub entries: u64,
    /// Regular files among them.
    pub files: u64,
    /// The payload before compression.
    pub bytes: u64,
    /// Catalogue items of this host that found nothing.
    pub absent: u64,
    pub problems: u64,
    /// Files of /etc/pve among them. Not known of snapshots of the first days.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pmxcfs: Option<u64>,
    /// Files of this host that are neither saved nor left out by name nor as a package brought them. Not known of a
    /// run that was asked for a part, nor without dpkg.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unexplained: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Trigger {
    Manual,
    Timer,
    Vzdump,
    /// Before packages change.
    Apt,
}

/// The manifest before this one on the same host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parent {
    pub id: SnapshotId,
    /// Lower-case hex over the whole MANIFEST.json entry, padding included.
    pub sha256: String,
}

/// Facts about a legacy archive that other snapshots do not have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Legacy {
    /// The archive's own name.
    pub archive: String,
    /// Set when the archive is in one file with what belongs to it.
    pub bundle: bool,
    /// `2026-08-01T02:00:00.123456789+02:00`, as it was written down; empty when the Bash version wrote none.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub created_at: String,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn id(text: &str) -> SnapshotId {
        text.parse().unwrap()
    }

    #[test]
    fn a_name_is_built_and_parsed_back() {
        let id = id("pve1/2026-11-22T15:17:40Z");
        assert_eq!(id.file_name(), "pve1_20261122T151740Z.pbx.tar");
        assert_eq!(SnapshotId::from_file_name(&id.file_name()), Some(id));
    }

    #[test]
    fn a_host_with_an_underscore_keeps_it() {
        let id = id("my_node/2026-11-22T15:17:40Z");
        assert_eq!(SnapshotId::from_file_name(&id.file_name()), Some(id));
    }

    #[test]
    fn foreign_names_are_not_ours() {
        for name in [
            "pve1_20261122T151740Z.pbx.tar.partial",
            ".pve1_20261122T151740Z.pbx.tar",
            "n1.lan-backup-20260801-020000.tar.xz",
            "pve1_20261322T151740Z.pbx.tar",
            "pve1_2026-11-22T15:17:40Z.pbx.tar",
            "_20261122T151740Z.pbx.tar",
            "a/b_20261122T151740Z.pbx.tar",
        ] {
            assert_eq!(SnapshotId::from_file_name(name), None, "{name}");
        }
    }

    #[test]
    fn a_time_that_no_file_name_has_is_no_snapshots() {
        assert!("a/-000001-12-31T23:59:59Z".parse::<SnapshotId>().is_err());
        let first = id("a/0000-01-01T00:00:00Z");
        assert_eq!(SnapshotId::from_file_name(&first.file_name()), Some(first));
    }

    #[test]
    fn ids_sort_by_time() {
        assert!(id("zz/2026-11-22T15:17:40Z") < id("aa/2026-11-22T15:17:41Z"));
    }

    #[test]
    fn a_host_name_that_could_leave_the_folder_is_refused() {
        for host in ["", "..", "a/b", "-x", "a b", "a\n"] {
            assert_eq!(SnapshotId::new(host, Timestamp::UNIX_EPOCH), None, "{host:?}");
        }
    }
}
