//! The predecessor's manifest: JSON of the Go versions, `KEY=VALUE` of the Bash ones.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::{Deserialize, Deserializer, Serialize};

use crate::model::facts::{Cluster, Product};
use crate::model::index::Name;
use crate::model::legacy::LegacyName;
use crate::model::problem::Outcome;
use crate::model::snapshot::{
    Compression, Counts, FORMAT, Legacy, Payload, Sealed, Snapshot, SnapshotId, Trigger,
};

/// The salts of passphrases before each installation had one of its own.
const OLD_SALTS: [&str; 2] = ["proxsave/age-passphrase/v1", "proxmox-backup-go/age-passphrase/v1"];
/// The predecessor's scrypt: N = 2^15, r = 8, p = 1.
const SCRYPT: &str = "$scrypt$ln=15,r=8,p=1$";
/// A salt is a line of text; more is none.
const SALT_MAX_BYTES: usize = 200;

/// Every field may be missing: versions differ.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Manifest {
    #[serde(deserialize_with = "or_nothing")]
    archive_path: String,
    archive_size: Option<u64>,
    /// Lower-case hex.
    pub sha256: Option<String>,
    #[serde(deserialize_with = "or_nothing")]
    created_at: String,
    #[serde(deserialize_with = "or_nothing")]
    compression_type: String,
    #[serde(deserialize_with = "or_nothing")]
    compression_level: i32,
    #[serde(skip_serializing_if = "Option::is_none")]
    compression_mode: Option<String>,
    #[serde(deserialize_with = "or_nothing")]
    proxmox_type: String,
    #[serde(deserialize_with = "or_nothing")]
    proxmox_targets: Vec<String>,
    #[serde(deserialize_with = "or_nothing")]
    proxmox_version: String,
    #[serde(deserialize_with = "or_nothing")]
    pve_version: String,
    #[serde(deserialize_with = "or_nothing")]
    pbs_version: String,
    #[serde(deserialize_with = "or_nothing")]
    pub hostname: String,
    #[serde(deserialize_with = "or_nothing")]
    script_version: String,
    encryption_mode: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cluster_mode: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    passphrase_salt: Option<String>,
}

/// A `null`, which Go writes for what is not set, is the same as nothing.
fn or_nothing<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(from: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

impl Manifest {
    /// Errors: neither of the two forms.
    pub fn parse(text: &[u8]) -> Result<Self> {
        let text = std::str::from_utf8(text).context("its manifest is damaged")?;
        let mut manifest = if text.trim_start().starts_with('{') {
            serde_json::from_str(text).context("its manifest is damaged")?
        } else {
            Self::lines(text)?
        };
        let trimmed = manifest.sha256.map(|sum: String| sum.trim().to_ascii_lowercase());
        manifest.sha256 = trimmed.filter(|sum| !sum.is_empty());
        Ok(manifest)
    }

    /// `KEY=VALUE`, with or without quotes.
    fn lines(text: &str) -> Result<Self> {
        let mut manifest = Self::default();
        let mut known = 0;
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let Some((key, value)) = line.split_once('=') else { bail!("its manifest is damaged") };
            let value = value.trim().trim_matches(['"', '\'']).to_owned();
            known += 1;
            match key.trim() {
                "COMPRESSION_TYPE" => manifest.compression_type = value,
                "COMPRESSION_LEVEL" => manifest.compression_level = value.parse().unwrap_or_default(),
                "PROXMOX_TYPE" => manifest.proxmox_type = value,
                "BACKUP_TARGETS" | "PROXMOX_TARGETS" => {
                    let words = value.split([',', ' ', ';', '+']).filter(|word| !word.is_empty());
                    manifest.proxmox_targets = words.map(str::to_owned).collect();
                }
                "PROXMOX_VERSION" => manifest.proxmox_version = value,
                "PVE_VERSION" => manifest.pve_version = value,
                "PBS_VERSION" => manifest.pbs_version = value,
                "HOSTNAME" => manifest.hostname = value,
                "SCRIPT_VERSION" => manifest.script_version = value,
                "ENCRYPTION_MODE" => manifest.encryption_mode = Some(value),
                _ => known -= 1,
            }
        }

        ensure!(known > 0, "its manifest is damaged");
        Ok(manifest)
    }

    /// Returns the manifest of the same archive after decryption.
    #[must_use]
    pub fn cleared(&self, archive: &str, size: u64, sha256: &str) -> Self {
        Self {
            archive_path: archive.to_owned(),
            archive_size: Some(size),
            sha256: Some(sha256.to_owned()),
            encryption_mode: Some("none".to_owned()),
            passphrase_salt: None,
            ..self.clone()
        }
    }

    /// Errors: what it says is not what lies beside it.
    pub fn check(&self, name: &LegacyName, size: u64) -> Result<()> {
        let archive = &name.archive;
        let path = self.archive_path.rsplit('/').next().unwrap_or_default();
        ensure!(
            path.is_empty() || path == archive,
            "its manifest belongs to {}, not to {archive}",
            Name::new(path)
        );
        if let Some(told) = self.archive_size {
            ensure!(told == size, "the archive has {size} bytes, its manifest says {told}");
        }

        let codec = match &*self.compression_type.to_ascii_lowercase() {
            "" => None,
            "none" | "tar" => Some("none"),
            "gz" | "gzip" | "pigz" => Some("gzip"),
            "bz2" | "bzip2" | "pbzip2" => Some("bzip2"),
            "xz" => Some("xz"),
            "lzma" => Some("lzma"),
            "zst" | "zstd" => Some("zstd"),
            other => bail!("its manifest names an unknown compression, '{}'", short(other)),
        };
        ensure!(
            codec.is_none_or(|codec| codec == name.codec),
            "its name says {}, its manifest {}",
            name.codec,
            codec.unwrap_or_default()
        );

        let sealed = match self.encryption_mode.as_deref() {
            None | Some("") => None,
            Some("age") => Some(true),
            Some("none" | "plain") => Some(false),
            Some(other) => bail!("it is encrypted in an unknown way, '{}'", short(other)),
        };
        ensure!(
            sealed.is_none_or(|sealed| sealed == name.sealed),
            "its name and its manifest do not agree on whether it is encrypted"
        );
        self.check_origin(name)
    }

    /// Checks that the manifest names the host of the file name, with its domain or without.
    fn check_origin(&self, name: &LegacyName) -> Result<()> {
        if let Some(host) = name.host.as_deref().filter(|_| !self.hostname.is_empty()) {
            let (named, told) = (host.to_ascii_lowercase(), self.hostname.to_ascii_lowercase());
            let short = |host: &str| host.split('.').next().unwrap_or_default().to_owned();
            let is_same = named == told
                || short(&named) == short(&told) && (!named.contains('.') || !told.contains('.'));
            let [host, told] = [host, &self.hostname].map(self::short);
            ensure!(is_same, "its name is of host {host}, its manifest of '{told}'");
        }
        Ok(())
    }

    /// Errors: neither it nor the name tells whose and of when it is.
    pub fn snapshot(&self, name: &LegacyName, size: u64, zone: &TimeZone) -> Result<Snapshot> {
        let told: Option<Timestamp> = self.created_at.parse().ok();
        let at = told
            .or_else(|| name.local(zone))
            .context("neither its name nor its manifest contains its time")?;
        let host = [self.hostname.as_str(), name.host.as_deref().unwrap_or_default()];
        let host = host.into_iter().find(|host| !host.is_empty()).unwrap_or("unknown");
        let id =
            SnapshotId::new(host, at).with_context(|| format!("'{}' is not a host name", short(host)))?;
        let node = host.split('.').next().unwrap_or(host).to_owned();
        let cluster = self.cluster_mode.as_deref().filter(|mode| mode.eq_ignore_ascii_case("cluster"));

        Ok(Snapshot {
            format: FORMAT,
            id,
            node: node.clone(),
            machine_id: None,
            products: self.products(),
            // It never wrote down the cluster's name or its members.
            cluster: cluster.map(|_| Cluster { name: "unknown".to_owned(), nodes: vec![node] }),
            tool: short(&self.script_version),
            codec: Compression {
                name: name.codec.to_owned(),
                level: self.compression_level,
                mode: self.compression_mode.as_deref().map(short),
                threads: 1,
            },
            sealed: name.sealed.then(|| Sealed {
                recipients: 0,
                fingerprints: Vec::new(),
                passphrases: self.passphrases(),
            }),
            payload: Payload {
                name: name.archive.clone(),
                size,
                sha256: self.sha256.clone().unwrap_or_default(),
            },
            installation: None,
            howto: None,
            counts: Counts::default(),
            outcome: Outcome::Ok,
            trigger: Trigger::Manual,
            legacy: Some(Legacy {
                archive: name.archive.clone(),
                bundle: name.bundle,
                created_at: short(&self.created_at),
            }),
            parent: None,
            note: None,
            selection: Vec::new(),
            protected: false,
            skips_unchanged: false,
        })
    }

    fn products(&self) -> BTreeMap<Product, String> {
        let mut words: Vec<String> =
            self.proxmox_targets.iter().map(|word| word.to_ascii_lowercase()).collect();
        if words.is_empty() {
            words = match &*self.proxmox_type.to_ascii_lowercase() {
                "dual" => vec!["pve".to_owned(), "pbs".to_owned()],
                one => vec![one.to_owned()],
            };
        }
        let version = |product: Product| {
            let own = if product == Product::Pve { &self.pve_version } else { &self.pbs_version };
            short(if own.is_empty() { &self.proxmox_version } else { own })
        };
        let of = |product: &Product| words.iter().any(|word| word == product.word());
        Product::ALL.into_iter().filter(of).map(|product| (product, version(product))).collect()
    }

    /// Lists the ways from passphrase to key, one for each salt that was in use; the salt of the manifest comes first.
    fn passphrases(&self) -> Vec<String> {
        let own = self.passphrase_salt.as_deref().map(str::trim).filter(|salt| !salt.is_empty());
        let own = own.filter(|salt| salt.len() <= SALT_MAX_BYTES);
        let mut salts: Vec<&str> = own.into_iter().collect();
        salts.extend(OLD_SALTS.iter().filter(|salt| Some(**salt) != own));
        salts.iter().map(|salt| format!("{SCRYPT}{}", base64(salt.as_bytes()))).collect()
    }
}

fn base64(bytes: &[u8]) -> String {
    use ::base64::Engine;
    ::base64::engine::general_purpose::STANDARD_NO_PAD.encode(bytes)
}

/// Shortens a text to what is shown and kept: 64 characters, no control characters.
fn short(text: &str) -> String {
    const MAX_CHARS: usize = 64;
    text.chars().filter(|c| !c.is_control()).take(MAX_CHARS).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn both_forms_of_a_manifest_are_read() {
        let json = br#"{"hostname":"n1.lan","created_at":"2026-08-01T02:00:00.123456789+02:00","proxmox_type":"dual",
            "pve_version":"9.0.5","pbs_version":"4.0","sha256":"AB","encryption_mode":"age","cluster_mode":"cluster",
            "passphrase_salt":"proxsave/age-passphrase/v2:00"}"#;
        let name = LegacyName::parse("n1.lan-backup-20260801-020000.tar.xz.age").unwrap();
        let told = Manifest::parse(json).unwrap().snapshot(&name, 5, &TimeZone::UTC).unwrap();
        assert_eq!(told.id.to_string(), "n1.lan/2026-08-01T00:00:00Z");
        assert_eq!((told.node.as_str(), told.payload.sha256.as_str()), ("n1", "ab"));
        assert_eq!(told.products[&Product::Pve], "9.0.5");
        assert_eq!(told.sealed.unwrap().passphrases.len(), 3);
        let bash =
            b"# made by hand\nHOSTNAME=\"n1\"\nCOMPRESSION_TYPE=xz\nPROXMOX_TYPE=pbs\nPROXMOX_VERSION=3.4\n";
        let name = LegacyName::parse("proxmox-backup-n1-20250101-020000.tar.xz").unwrap();
        let told = Manifest::parse(bash).unwrap().snapshot(&name, 5, &TimeZone::UTC).unwrap();
        assert_eq!(told.id.to_string(), "n1/2025-01-01T02:00:00Z");
        assert_eq!(told.products[&Product::Pbs], "3.4");
        let nulls =
            br#"{"hostname":"n1","proxmox_targets":null,"compression_level":null,"archive_path":null}"#;
        assert_eq!(Manifest::parse(nulls).unwrap().hostname, "n1", "Go writes null for a list without items");
        for bad in [&b"{"[..], b"nonsense", b"A=b\n", b"\xff"] {
            assert!(Manifest::parse(bad).is_err());
        }
    }
}
