//! Stores under test, each with the folder in which its files really lie.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use pbx_config::model::section::{Section, parse};
use pbx_config::store::{self, Store};
use pbx_config::sys::host::Host;
use pbx_config::sys::process::exec::{Exec, System};
use tempfile::TempDir;

use crate::common::{Shims, port_of};

/// A store and what must outlive it.
pub struct Place {
    /// Where the hosts' folders lie.
    pub root: PathBuf,
    pub section: Section,
    pub server: Option<Server>,
    pub dir: TempDir,
}

impl Place {
    pub fn open(&self) -> Box<dyn Store> {
        store::open(&self.section, &host(self.dir.path())).unwrap()
    }
}

/// Another root, so that what is downloaded lies in the running system's /run.
pub fn host(dir: &Path) -> Host {
    let root = dir.join("host");
    fs::create_dir_all(&root).unwrap();
    let bin = dir.join("bin");
    let tools: Box<dyn Exec> = if bin.is_dir() { Box::new(Shims { bin }) } else { Box::new(System) };
    let mut host = Host::detect(root, Timestamp::default(), tools);
    "pve1".clone_into(&mut host.facts.node);
    host
}

/// A section with lines of secrets.cfg.
pub fn section(public: &str, secret: &str) -> Section {
    let mut section = parse("pbx-config.cfg", public).unwrap().remove(0);
    if !secret.is_empty() {
        let mut private = parse("secrets.cfg", secret).unwrap().remove(0);
        private.entries.iter_mut().for_each(|entry| entry.private = true);
        section.entries.extend(private.entries);
    }
    section
}

pub fn dir_in(place: &Path) -> Place {
    let dir = tempfile::tempdir_in(place).unwrap();
    let root = dir.path().join("host/store");
    Place { root, section: section("dir: it\n\tpath /store\n", ""), server: None, dir }
}

/// A remote that is a folder.
pub fn rclone_local() -> Place {
    crate::common::require(&["rclone"]);
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("store");
    let config = dir.path().join("host/rclone.conf");
    fs::create_dir_all(config.parent().unwrap()).unwrap();
    fs::write(&config, format!("[away]\ntype = alias\nremote = {}\n", dir.path().display())).unwrap();
    let text = format!("rclone: it\n\tremote away:store\n\tconfig /rclone.conf\n\tbatch-pause 0\n{QUICK}");
    Place { root, section: section(&text, ""), server: None, dir }
}

/// A server that is away is not waited for long.
pub const QUICK: &str = "\ttimeout 20\n\tconnect-timeout 2\n\tretries 1\n";

pub fn rclone_webdav() -> Place {
    let dir = tempfile::tempdir().unwrap();
    let pass = word();
    let server = Server::start("webdav", dir.path(), &["--user=backup", &format!("--pass={pass}")]);
    let remote = format!(":webdav,url=\"http://127.0.0.1:{}\",vendor=other,user=backup:store", server.port);
    let text = format!("rclone: it\n\tremote {remote}\n\tbatch-pause 0\n\tchecksum download\n{QUICK}");
    let secret = format!("rclone: it\n\tpass {}\n", obscured(&pass));
    Place { root: dir.path().join("store"), section: section(&text, &secret), server: Some(server), dir }
}

pub fn rclone_sftp() -> Place {
    let dir = tempfile::tempdir().unwrap();
    let pass = word();
    let server = Server::start("sftp", dir.path(), &["--user=backup", &format!("--pass={pass}")]);
    let remote = format!(":sftp,host=127.0.0.1,port={},user=backup:store", server.port);
    let text = format!("rclone: it\n\tremote {remote}\n\tbatch-pause 0\n{QUICK}");
    let secret = format!("rclone: it\n\tpass {}\n", obscured(&pass));
    Place { root: dir.path().join("store"), section: section(&text, &secret), server: Some(server), dir }
}

/// An object store, by moto's S3 in memory: rclone 1.60 serves none itself.
pub fn rclone_s3() -> Place {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::s3();
    let config = dir.path().join("host/rclone.conf");
    fs::create_dir_all(config.parent().unwrap()).unwrap();
    let text = format!(
        "[away]\ntype = s3\nprovider = Other\nendpoint = http://127.0.0.1:{}\naccess_key_id = backup\n",
        server.port
    );
    let pass = word();
    fs::write(&config, &text).unwrap();
    let made = crate::common::tool("rclone")
        .args(["mkdir", "away:bucket", "--config"])
        .arg(&config)
        .env("RCLONE_S3_SECRET_ACCESS_KEY", &pass)
        .env_remove("AWS_CA_BUNDLE")
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let text =
        format!("rclone: it\n\tremote away:bucket/store\n\tconfig /rclone.conf\n\tbatch-pause 0\n{QUICK}");
    let secret = format!("rclone: it\n\tsecret_access_key {pass}\n");
    Place { root: dir.path().join("nowhere"), section: section(&text, &secret), server: Some(server), dir }
}

/// A Proxmox Backup Server: the double of its client, and the folder that is its datastore.
pub fn pbs() -> Place {
    let dir = tempfile::tempdir().unwrap();
    let pass = word();
    make_server(dir.path(), &pass);
    let text = "pbs: it\n\trepository pbx@pbs!host@10.0.0.5:store\n\tnamespace hosts\n\tfingerprint aa:bb\n\ttimeout 20\n";
    let section = section(text, &format!("pbs: it\n\tpassword {pass}\n"));
    Place { root: dir.path().join("pbs/data/ns/hosts/host"), section, server: None, dir }
}

/// Below `dir`: the server's folder `pbs`, and `bin` with the client.
pub fn make_server(dir: &Path, pass: &str) {
    fs::create_dir_all(dir.join("pbs/data/ns/hosts")).unwrap();
    fs::create_dir_all(dir.join("bin")).unwrap();
    server_says(dir, pass, "");
    let double = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/store/bin/proxmox-backup-client");
    let script = format!(
        "#!/bin/sh\nPBS_DOUBLE={} exec /usr/bin/python3 {} \"$@\"\n",
        dir.join("pbs").display(),
        double.display()
    );
    crate::common::make_program(&dir.join("bin/proxmox-backup-client"), &script);
}

/// How the server is; `more` are further words of JSON.
pub fn server_says(dir: &Path, pass: &str, more: &str) {
    let users = format!("\"users\": {{\"pbx@pbs!host\": \"{pass}\", \"other@pbs\": \"{pass}\"}}");
    let text = format!("{{\"datastore\": \"store\", \"fingerprint\": \"aa:bb\", {users}{more}}}");
    fs::write(dir.join("pbs/server.json"), text).unwrap();
}

/// A password that stands nowhere else.
pub fn word() -> String {
    let mut bytes = [0; 12];
    std::io::Read::read_exact(&mut fs::File::open("/dev/urandom").unwrap(), &mut bytes).unwrap();
    pbx_config::sys::hex(&bytes)
}

pub fn obscured(word: &str) -> String {
    let output = crate::common::tool("rclone").args(["obscure", word]).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// `rclone serve`, or moto; ends with this value.
pub struct Server {
    child: Child,
    pub port: u16,
}

impl Server {
    pub fn start(kind: &str, folder: &Path, words: &[&str]) -> Self {
        let mut command = crate::common::tool("rclone");
        command.args(["serve", kind, "--addr=127.0.0.1:0", "--dir-cache-time=0", "--poll-interval=0"]);
        command.args(words).args([folder, Path::new("--config=/notfound")]);
        Self::await_port(command)
    }

    fn s3() -> Self {
        let moto = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools/moto");
        assert!(moto.join("moto").is_dir(), "`make test-tools` installs moto");
        let mut command = crate::common::tool("python3");
        command.args(["-m", "moto.server", "-H", "127.0.0.1", "-p", "0"]).env("PYTHONPATH", moto);
        Self::await_port(command)
    }

    /// The server chooses: a port we found free may be another's before it gets there.
    fn await_port(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("installed");
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            if let Some(port) = port_of(child.id()) {
                return Self { child, port };
            }
            assert!(Instant::now() < deadline && child.try_wait().unwrap().is_none(), "{command:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    pub fn pid(&self) -> nix::unistd::Pid {
        nix::unistd::Pid::from_raw(i32::try_from(self.child.id()).unwrap())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}
