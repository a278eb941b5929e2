//! Archives as the predecessor wrote them, made from the description of its format: every packing, bundles and loose
//! files, the Bash version's manifests, encrypted ones, replaced files, both layouts of outputs.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

/// The passphrase of the vectors, and the public half that each salt makes of it.
pub const PASSPHRASE: &str = "Correct-Horse-42!";
pub const SALT_V2: &str = "proxsave/age-passphrase/v2:00112233445566778899aabbccddeeff";
pub const VECTORS: [(&str, &str, &str); 3] = [
    (
        SALT_V2,
        "age1c92l66gk6neh8nhxnjah0gf55rjas0pljknfszyqmdr75vfpwgjsl78n4g",
        "AGE-SECRET-KEY-18REYAGA0D7TXV0U0HWJY9R9CALR394KNHEG628R3RWLEEJAJTDSQKV20QQ",
    ),
    (
        "proxsave/age-passphrase/v1",
        "age1dan6pn3cy5dsv95gxlh2pspdnr43rcq0cezg4pvh5w9z8hr2ucdqwljrj3",
        "AGE-SECRET-KEY-1CZV663X5E5NTAX0GAFAEWWYZVNG2ZCYXQ7MX3QT5QCUKS0QYN3TS96GKUJ",
    ),
    (
        "proxmox-backup-go/age-passphrase/v1",
        "age1tkzx3pk69z4y2s8dv7qz0m8c2s65f67fg9hfdmrujyhal7ffremqy2ene8",
        "AGE-SECRET-KEY-1VPTJZQGQ4X3FWYZ3J7J0XH3VC55DQYG5HNDUW8XL3ZLMW6J4L39SHCAY97",
    ),
];
pub const CODECS: [(&str, &str); 7] = [
    ("none", ""),
    ("gz", ".gz"),
    ("pigz", ".gz"),
    ("bz2", ".bz2"),
    ("xz", ".xz"),
    ("lzma", ".lzma"),
    ("zst", ".zst"),
];

#[derive(Clone, Copy, PartialEq)]
pub enum Form {
    Bundle,
    /// Beside its sidecars, the manifest under this ending.
    Loose(&'static str),
    /// The Bash version's: `KEY=VALUE`.
    Bash,
}

/// An archive to be made. The defaults are today's usual one.
#[derive(Clone)]
pub struct Relic {
    pub host: &'static str,
    pub stamp: &'static str,
    pub created_at: &'static str,
    pub codec: &'static str,
    pub form: Form,
    pub recipients: Vec<String>,
    pub salt: Option<&'static str>,
    /// The layout of outputs of 2025.
    pub seed: bool,
    /// With the list of replaced files, as versions of 2026 write it.
    pub listed: bool,
    pub more: Vec<Piece>,
}

#[derive(Clone)]
pub enum Piece {
    File(&'static str, Vec<u8>, u32),
    Link(&'static str, &'static str),
    Dir(&'static str),
    /// A member of any kind with a header of its own.
    Odd(&'static str, tar::EntryType),
}

impl Default for Relic {
    fn default() -> Self {
        Self {
            host: "n1.lan",
            stamp: "20260801-020000",
            created_at: "2026-08-01T02:00:00.123456789+02:00",
            codec: "xz",
            form: Form::Bundle,
            recipients: Vec::new(),
            salt: None,
            seed: false,
            listed: true,
            more: Vec::new(),
        }
    }
}

impl Relic {
    pub fn archive(&self) -> String {
        let ext = CODECS.iter().find(|codec| codec.0 == self.codec).unwrap().1;
        let age = if self.recipients.is_empty() { "" } else { ".age" };
        let stem = match self.form {
            Form::Bash => format!("proxmox-backup-{}-{}", self.host, self.stamp),
            _ => format!("{}-backup-{}", self.host, self.stamp),
        };
        format!("{stem}.tar{ext}{age}")
    }

    /// Writes it into a folder; the file that a person would name.
    pub fn make(&self, folder: &Path) -> PathBuf {
        fs::create_dir_all(folder).unwrap();
        let name = self.archive();
        let data = seal(&pack(&self.tar(), self.codec), &self.recipients);
        let sum = hex(&Sha256::digest(&data));
        let manifest = self.manifest(&data, &sum);
        let checksum = format!("{sum}  {name}\n");
        if self.form == Form::Bundle {
            let path = folder.join(format!("{name}.bundle.tar"));
            let parts = [
                (format!("{name}.metadata"), manifest.into_bytes()),
                (format!("{name}.sha256"), checksum.into_bytes()),
                (name, data),
            ];
            fs::write(&path, bundle(&parts)).unwrap();
            return path;
        }
        let path = folder.join(&name);
        fs::write(&path, data).unwrap();
        let ending = match self.form {
            Form::Loose(ending) => ending,
            _ => ".metadata",
        };
        fs::write(folder.join(format!("{name}{ending}")), manifest).unwrap();
        fs::write(folder.join(format!("{name}.sha256")), checksum).unwrap();
        path
    }

    fn manifest(&self, data: &[u8], sum: &str) -> String {
        if self.form == Form::Bash {
            return format!(
                "# metadata\nCOMPRESSION_TYPE={}\nCOMPRESSION_LEVEL=9\nPROXMOX_TYPE=pve\nPROXMOX_VERSION=8.4.1\n\
                 HOSTNAME=\"{}\"\nSCRIPT_VERSION=0.7.4\n",
                self.codec, self.host
            );
        }
        let mut value = serde_json::json!({
            "archive_path": format!("/opt/proxsave/backup/{}", self.archive()),
            "archive_size": data.len(),
            "sha256": sum,
            "created_at": self.created_at,
            "compression_type": self.codec,
            "compression_level": 9,
            "compression_mode": "ultra",
            "proxmox_type": "pve",
            "proxmox_targets": ["pve"],
            "proxmox_version": "9.0.5",
            "pve_version": "9.0.5",
            "hostname": self.host,
            "script_version": "0.30.0",
            "encryption_mode": if self.recipients.is_empty() { "none" } else { "age" },
            "cluster_mode": "standalone",
        });
        if let Some(salt) = self.salt {
            value["passphrase_salt"] = salt.into();
        }
        serde_json::to_string_pretty(&value).unwrap()
    }

    /// In the order of a walk. `etc/second` and `usr/local/bin/copy` equal files before them.
    fn tar(&self) -> Vec<u8> {
        let info = if self.seed { "" } else { "var/lib/proxsave-info/" };
        let text = |text: &str| text.as_bytes().to_vec();
        let named = |name: String| -> &'static str { Box::leak(name.into_boxed_str()) };
        let mut pieces = vec![
            Piece::Dir("etc"),
            Piece::File("etc/hostname", text("n1\n"), 0o644),
            Piece::File("etc/hosts", text("127.0.0.1 localhost\n"), 0o644),
            Piece::Dir("etc/network"),
            Piece::File("etc/network/interfaces", text("auto lo\n"), 0o644),
            Piece::Dir("etc/pve"),
            Piece::File("etc/pve/storage.cfg", text("dir: local\n\tpath /var/lib/vz\n"), 0o640),
            Piece::Link("etc/second", "network/interfaces"),
            Piece::File("etc/shadow", text("root:*:1::::::\n"), 0o600),
            Piece::Link("etc/own-link", "/usr/share/zoneinfo/UTC"),
            Piece::Dir("home"),
            Piece::File("home/notes", text("mine\n"), 0o644),
            Piece::Link("usr/local/bin/copy", "../../../etc/network/interfaces"),
        ];
        let commands = if self.seed { "commands/" } else { "commands/pve/" };
        pieces.push(Piece::File(
            named(format!("{info}{commands}pveversion.txt")),
            text("pve-manager/9.0.5\n"),
            0o640,
        ));
        pieces.push(Piece::File("var/lib/pve-cluster/info/jobs/backup_jobs.json", text("[]"), 0o640));
        if self.listed && !self.seed {
            let list = serde_json::json!([
                { "path": "etc/second", "mode": 0o600, "uid": 12, "gid": 34 },
                { "path": "usr/local/bin/copy", "mode": 0o755 },
            ]);
            let name = "var/lib/proxsave-info/dedup_manifest.json";
            pieces.push(Piece::File(name, serde_json::to_vec_pretty(&list).unwrap(), 0o640));
        }
        pieces.push(Piece::File("manifest.json", text("{\"hostname\":\"n1.lan\"}"), 0o640));
        pieces.extend(self.more.iter().cloned());
        let mut builder = tar::Builder::new(Vec::new());
        for piece in &pieces {
            self.append(&mut builder, piece);
        }
        builder.into_inner().unwrap()
    }

    fn append(&self, builder: &mut tar::Builder<Vec<u8>>, piece: &Piece) {
        let mut header = match self.form {
            Form::Bash => tar::Header::new_gnu(),
            _ => tar::Header::new_ustar(),
        };
        let (name, mode, data): (&str, u32, &[u8]) = match piece {
            Piece::File(name, data, mode) => (name, *mode, data),
            Piece::Link(name, _) => (name, 0o777, &[]),
            Piece::Dir(name) => (name, 0o755, &[]),
            Piece::Odd(name, _) => (name, 0o600, &[]),
        };
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_780_000_000);
        header.set_size(data.len() as u64);
        header.set_entry_type(match piece {
            Piece::File(..) => tar::EntryType::Regular,
            Piece::Link(..) => tar::EntryType::Symlink,
            Piece::Dir(_) => tar::EntryType::Directory,
            Piece::Odd(_, kind) => *kind,
        });
        if let Piece::Link(_, target) = piece {
            header.set_link_name_literal(target).unwrap();
        }
        // Go writes a PAX header for each member, with fractions of seconds.
        if self.form != Form::Bash {
            let records: [(&str, &[u8]); 3] =
                [("mtime", b"1780000000.25"), ("atime", b"1780000001.5"), ("ctime", b"1780000000.75")];
            builder.append_pax_extensions(records).unwrap();
        }
        let slash = if matches!(piece, Piece::Dir(_)) { "/" } else { "" };
        let name = format!("./{name}{slash}");
        let bytes = header.as_old_mut();
        bytes.name = [0; 100];
        bytes.name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_cksum();
        builder.append(&header, data).unwrap();
    }
}

/// A plain tar of named parts.
pub fn bundle(parts: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, data) in parts {
        let mut header = tar::Header::new_ustar();
        header.set_size(data.len() as u64);
        header.set_mode(0o600);
        header.set_entry_type(tar::EntryType::Regular);
        builder.append_data(&mut header, name, &data[..]).unwrap();
    }
    builder.into_inner().unwrap()
}

fn pack(data: &[u8], codec: &str) -> Vec<u8> {
    fn written<W: Write>(mut encoder: W, data: &[u8]) -> W {
        encoder.write_all(data).unwrap();
        encoder
    }
    match codec {
        "none" => data.to_vec(),
        "gz" | "pigz" => {
            let encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
            written(encoder, data).finish().unwrap()
        }
        "bz2" => {
            let encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::best());
            written(encoder, data).finish().unwrap()
        }
        "xz" => written(liblzma::write::XzEncoder::new(Vec::new(), 6), data).finish().unwrap(),
        "lzma" => {
            let options = liblzma::stream::LzmaOptions::new_preset(6).unwrap();
            let stream = liblzma::stream::Stream::new_lzma_encoder(&options).unwrap();
            written(liblzma::write::XzEncoder::new_stream(Vec::new(), stream), data).finish().unwrap()
        }
        _ => zstd::encode_all(data, 3).unwrap(),
    }
}

fn seal(data: &[u8], recipients: &[String]) -> Vec<u8> {
    if recipients.is_empty() {
        return data.to_vec();
    }
    let keys: Vec<Box<dyn age::Recipient>> = recipients
        .iter()
        .map(|text| {
            let key =
                text.parse::<age::x25519::Recipient>().map(|key| Box::new(key) as Box<dyn age::Recipient>);
            key.unwrap_or_else(|_| Box::new(text.parse::<age::ssh::Recipient>().unwrap()))
        })
        .collect();
    let encryptor = age::Encryptor::with_recipients(keys.iter().map(|key| &**key)).unwrap();
    let mut out = Vec::new();
    let mut writer = encryptor.wrap_output(&mut out).unwrap();
    writer.write_all(data).unwrap();
    writer.finish().unwrap();
    out
}

pub fn hex(bytes: &[u8]) -> String {
    pbx_config::sys::hex(bytes)
}
