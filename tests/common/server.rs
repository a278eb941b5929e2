//! Servers of tests/notify and tests/api, with TLS by an authority of their own or without: a web server that writes
//! down what it is asked, a mail server, a product's API.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::missing_panics_doc)]

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use super::TestHost;

/// A server of tests/notify in a process of its own.
pub struct Server {
    child: Child,
    pub port: u16,
    pub log: PathBuf,
}

impl Server {
    pub fn start(script: &str, log: PathBuf, args: &[&str]) -> Self {
        let mut command = Self::script("notify", script);
        command.arg(&log).args(args);
        Self::spawn(command, log)
    }

    /// The API of a Proxmox host, which wants to know who asks.
    pub fn api(host: &TestHost, mode: &str) -> Self {
        let (keys, log) = (Keys::make(host, "api"), host.beside("api.log"));
        let mut command = Self::script("api", "server.py");
        command.args([&keys.cert, &keys.key]).arg(&log).args(["another token", mode]);
        Self::spawn(command, log)
    }

    fn script(folder: &str, name: &str) -> Command {
        // Debian's own: it has Debian's aiosmtpd.
        let mut command = super::tool("/usr/bin/python3");
        command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(folder).join(name));
        command
    }

    fn spawn(mut command: Command, log: PathBuf) -> Self {
        let mut child = command
            .stdout(Stdio::piped())
            // What a client breaks off, they report at length.
            .stderr(Stdio::null())
            .spawn()
            .expect("python3 is installed");
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let port = line.trim().parse().expect("the server starts: `make deps` installs what it needs");
        Self { child, port, log }
    }

    pub fn http(host: &TestHost) -> Self {
        Self::start("web.py", host.beside("http.log"), &[])
    }

    pub fn https(host: &TestHost, keys: &Keys) -> Self {
        Self::start("web.py", host.beside("https.log"), &[&keys.cert, &keys.key])
    }

    pub fn smtp(host: &TestHost, mode: &str, keys: &Keys, login: &[&str]) -> Self {
        let args = [&[mode, keys.cert.as_str(), keys.key.as_str()], login].concat();
        Self::start("smtp.py", host.beside("smtp.log"), &args)
    }

    /// What was asked or mailed, a value each.
    pub fn got(&self) -> Vec<Value> {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    pub fn only(&self) -> Value {
        let got = self.got();
        assert_eq!(got.len(), 1, "{got:?}");
        got.into_iter().next().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An authority, and a certificate for localhost that it signed.
pub struct Keys {
    pub ca: String,
    pub cert: String,
    pub key: String,
}

impl Keys {
    pub fn make(host: &TestHost, name: &str) -> Self {
        let file = |end: &str| host.beside(&format!("{name}.{end}")).display().to_string();
        let keys = Self { ca: file("ca.pem"), cert: file("pem"), key: file("key") };
        let script = format!(
            "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=authority \
               -keyout {ca}.key -out {ca} -addext basicConstraints=critical,CA:TRUE\n\
             openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=server -keyout {key} -out {cert}.csr\n\
             printf 'subjectAltName=DNS:localhost\\nbasicConstraints=CA:FALSE\\n' >{cert}.ext\n\
             openssl x509 -req -in {cert}.csr -CA {ca} -CAkey {ca}.key -CAcreateserial -days 2 -extfile {cert}.ext -out {cert}",
            ca = keys.ca,
            cert = keys.cert,
            key = keys.key,
        );
        super::require(&["openssl"]);
        let made = Command::new("sh").args(["-ec", &script]).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        keys
    }

    pub fn fingerprint(&self) -> String {
        let args = ["x509", "-noout", "-fingerprint", "-sha256", "-in", &self.cert];
        let shown = super::tool("openssl").args(args).output().unwrap().stdout;
        String::from_utf8(shown).unwrap().trim().split_once('=').unwrap().1.to_owned()
    }

    /// Puts the authority where the host's configuration can name it.
    pub fn install_ca(&self, host: &TestHost) {
        host.write("etc/ssl/ca.pem", fs::read(&self.ca).unwrap());
    }
}
