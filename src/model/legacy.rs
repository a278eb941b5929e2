//! Names of legacy archives: `HOST-backup-YYYYMMDD-HHMMSS.tar.xz`, with `.age` when it is encrypted, alone
//! with its sidecars or in one `.bundle.tar`; the Bash version began them with `proxmox-backup-`. Only read here.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

const BUNDLE: &str = ".bundle.tar";
const DECRYPTED: &str = ".decrypted";
const SEALED: &str = ".age";
const TAR: &str = ".tar";
const BETWEEN: &str = "-backup-";
const BASH: &str = "proxmox-backup-";
/// Suffixes of the files beside a loose archive.
pub const METADATA: &str = ".metadata";
pub const MANIFEST: &str = ".manifest.json";
pub const SHA256: &str = ".sha256";
pub const SIDECARS: [&str; 4] = [METADATA, MANIFEST, SHA256, ".metadata.sha256"];
const NAME_TIME: &str = "%Y%m%d-%H%M%S";
const TIME_LEN: usize = "YYYYMMDD-HHMMSS".len();
/// Endings of the archive, after `.tar`, with the codec that makes them.
const CODECS: [(&str, &str); 6] =
    [("", "none"), (".gz", "gzip"), (".bz2", "bzip2"), (".xz", "xz"), (".lzma", "lzma"), (".zst", "zstd")];

/// Facts that a file name tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LegacyName {
    /// The archive's own name: the file's, or what is in the bundle.
    pub archive: String,
    /// None where the Bash version left it out.
    pub host: Option<String>,
    /// Local time of the host then; None for a name that tells none.
    pub at: Option<DateTime>,
    /// A codec's name of ours.
    pub codec: &'static str,
    pub sealed: bool,
    pub bundle: bool,
}

impl LegacyName {
    /// None for everything else: sidecars, half written ones, snapshots of ours.
    pub fn parse(file: &str) -> Option<Self> {
        if file.starts_with('.') || file.contains('/') || file.ends_with(super::snapshot::SUFFIX) {
            return None;
        }

        let (archive, bundle) = match file.strip_suffix(BUNDLE) {
            Some(inner) => (inner.strip_suffix(DECRYPTED).unwrap_or(inner), true),
            None => (file, false),
        };
        let (packed, sealed) = archive.strip_suffix(SEALED).map_or((archive, false), |inner| (inner, true));
        let (stem, codec) = CODECS
            .iter()
            .find_map(|(ext, codec)| Some((packed.strip_suffix(ext)?.strip_suffix(TAR)?, *codec)))?;
        let tail = stem.len().checked_sub(TIME_LEN).and_then(|at| stem.get(at..));
        let at = tail.and_then(|time| DateTime::strptime(NAME_TIME, time).ok());

        // Behind its host, or alone behind the tool's name.
        let before = at.map_or(stem, |_| stem[..stem.len() - TIME_LEN].trim_end_matches('-'));
        let host = if let Some(host) = before.strip_suffix(BETWEEN.trim_end_matches('-')) {
            at?;
            (host != "proxmox").then(|| host.to_owned())
        } else {
            let rest = before.strip_prefix(BASH)?;
            (!rest.is_empty()).then(|| rest.to_owned())
        };
        let archive = archive.to_owned();
        Some(Self { archive, host, at, codec, sealed, bundle })
    }

    /// Read as a time of this machine's zone, when nothing better is known.
    pub fn local(&self, zone: &TimeZone) -> Option<Timestamp> {
        self.at?.to_zoned(zone.clone()).ok().map(|at| at.timestamp())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[test]
    fn every_name_of_the_old_tool_is_understood() {
        for (file, archive, host, codec, sealed, bundle) in [
            (
                "n1.lan-backup-20260801-020000.tar.xz",
                "n1.lan-backup-20260801-020000.tar.xz",
                Some("n1.lan"),
                "xz",
                false,
                false,
            ),
            (
                "n1-backup-20260801-020000.tar",
                "n1-backup-20260801-020000.tar",
                Some("n1"),
                "none",
                false,
                false,
            ),
            (
                "n1-backup-20260801-020000.tar.zst.age.bundle.tar",
                "n1-backup-20260801-020000.tar.zst.age",
                Some("n1"),
                "zstd",
                true,
                true,
            ),
            (
                "n1-backup-20260801-020000.tar.gz.decrypted.bundle.tar",
                "n1-backup-20260801-020000.tar.gz",
                Some("n1"),
                "gzip",
                false,
                true,
            ),
            (
                "a-backup-b-backup-20260801-020000.tar.bz2",
                "a-backup-b-backup-20260801-020000.tar.bz2",
                Some("a-backup-b"),
                "bzip2",
                false,
                false,
            ),
            (
                "proxmox-backup-n1-20250101-020000.tar.lzma",
                "proxmox-backup-n1-20250101-020000.tar.lzma",
                Some("n1"),
                "lzma",
                false,
                false,
            ),
            (
                "proxmox-backup-20250101-020000.tar.xz",
                "proxmox-backup-20250101-020000.tar.xz",
                None,
                "xz",
                false,
                false,
            ),
        ] {
            let name = LegacyName::parse(file).expect(file);
            assert_eq!((&*name.archive, name.host.as_deref()), (archive, host), "{file}");
            assert_eq!((name.codec, name.sealed, name.bundle), (codec, sealed, bundle), "{file}");
            assert_eq!(name.at.unwrap().hour(), 2);
        }
    }

    #[test]
    fn what_is_no_archive_of_it_is_none() {
        for file in [
            "n1-backup-20260801-020000.tar.xz.sha256",
            "n1-backup-20260801-020000.tar.xz.metadata",
            "n1-backup-20260801-020000.tar.xz.partial",
            "n1-backup-notes.tar.xz",
            ".tmp-n1-backup-20260801-020000.tar.xz-1",
            "vzdump-qemu-100-2026_08_01.tar.zst",
            "x-backup-1_20261122T151740Z.pbx.tar",
            "-backup-.tar",
            "notes.tar",
            ".tar",
        ] {
            assert_eq!(LegacyName::parse(file), None, "{file}");
        }
    }
}
