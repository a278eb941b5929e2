//! What others answer or have written: servers, the tools of stores, plans and records of restores, the sidecars of
//! legacy archives. Nothing of it does more than make an error of one line.

use std::cell::RefCell;
use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use jiff::tz::TimeZone;
use pbx_config::archive::legacy::{self, Manifest};
use pbx_config::model::legacy::LegacyName;
use pbx_config::model::section;
use pbx_config::notify;
use pbx_config::store;
use pbx_config::sys::host::Host;
use pbx_config::sys::net::http::{Client, HttpRequest, Trust};
use pbx_config::sys::process::exec::{Cmd, Exec, NoTools, ProcessOutput, ToolStatus};
use pbx_config::task::restore::journal::Journal;
use pbx_config::task::restore::prepare::Saved;
use pbx_config::task::runs::notify::Channels;
use tempfile::TempDir;

use super::machine::{now, scratch};
use super::{one_line, parts};

/// A server that says the same to everybody, whatever it is asked.
struct Server {
    port: u16,
    answer: Arc<Mutex<Vec<u8>>>,
}

impl Server {
    fn with(answer: &[u8]) -> &'static Self {
        static SERVER: OnceLock<Server> = OnceLock::new();
        let server = SERVER.get_or_init(|| {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let port = listener.local_addr().unwrap().port();
            let answer = Arc::new(Mutex::new(Vec::new()));
            let said = Arc::clone(&answer);
            std::thread::spawn(move || {
                listener.incoming().flatten().for_each(|client| Self::speak(client, &said));
            });
            Self { port, answer }
        });
        *server.answer.lock().unwrap_or_else(PoisonError::into_inner) = answer.to_vec();
        server
    }

    /// Reads until the client has gone, so that it is not cut off before it has read the answer.
    fn speak(mut client: TcpStream, answer: &Mutex<Vec<u8>>) {
        let said = answer.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let _ = client.set_read_timeout(Some(Duration::from_secs(1)));
        let _ = client.write_all(&said);
        let _ = client.shutdown(Shutdown::Write);
        let _ = client.read_to_end(&mut Vec::new());
    }
}

fn nobody() -> Host {
    Host::detect("/nonexistent".into(), now(), Box::new(NoTools))
}

/// A mail server.
pub fn smtp(data: &[u8]) {
    // One at a time: all speak with the same server.
    static ALONE: Mutex<()> = Mutex::new(());
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let port = Server::with(data).port;
    let text = format!(
        "smtp: m\n\tserver 127.0.0.1\n\tport {port}\n\tmode insecure\n\tfrom a@b.c\n\tto a@b.c\n\tretries 0\n\ttimeout 2\n"
    );
    let sections = section::parse("f", &text).unwrap();
    let target = notify::open(&sections[0]).unwrap();
    for done in Channels::test(&[&target], &nobody()) {
        if let Some(error) = done.error {
            one_line(&error);
        }
    }
}

/// A server of HTTP.
pub fn http(data: &[u8]) {
    const BODY_MAX_BYTES: usize = 64 << 10;
    static ALONE: Mutex<()> = Mutex::new(());
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let url = format!("http://127.0.0.1:{}/secret-path", Server::with(data).port);
    let client = Client::new(&Trust::Pins(Vec::new()), true).unwrap();
    let request = HttpRequest {
        method: "GET",
        url: &url,
        headers: &[],
        body: None,
        limit: Duration::from_secs(2),
        max_bytes: BODY_MAX_BYTES as u64,
    };
    match client.send(&request) {
        Ok(answer) => assert!(answer.body.len() <= BODY_MAX_BYTES),
        Err(trouble) => assert!(!format!("{:#}", trouble.error).contains("secret-path")),
    }
}

/// A tool that says the same whatever it is asked.
struct Says(Vec<u8>);

impl Exec for Says {
    fn run(&self, _: &Cmd) -> anyhow::Result<Option<ProcessOutput>> {
        let output =
            ProcessOutput { status: ToolStatus::Exit(0), stdout: self.0.clone(), ..Default::default() };
        Ok(Some(output))
    }
}

/// The listings of rclone and of the client of Proxmox Backup Server.
pub fn listings(data: &[u8]) {
    let host = Host::detect("/nonexistent".into(), now(), Box::new(Says(data.to_vec())));
    let text = "rclone: r\n\tremote box:pbx\n\npbs: p\n\trepository u@pbs!t@127.0.0.1:store\n\tpassword 0123456789\n";
    for mut section in section::parse("f", text).unwrap() {
        for entry in &mut section.entries {
            entry.private = entry.key == "password";
        }
        let store = store::open(&section, &host).unwrap();
        for asked in [None, Some("pve1")] {
            match store.list(asked) {
                Err(error) => one_line(&format!("{error:#}")),
                Ok(found) => {
                    for one in found.iter().take(50) {
                        assert_eq!(one.id.to_string().parse().ok().as_ref(), Some(&one.id));
                    }
                }
            }
        }
    }
}

thread_local! {
    static FOLDER: RefCell<Option<TempDir>> = const { RefCell::new(None) };
}

/// Runs something in a folder that all cases of a thread use, one after the other.
fn in_folder(run: impl FnOnce(&std::path::Path)) {
    FOLDER.with_borrow_mut(|folder| run(folder.get_or_insert_with(scratch).path()));
}

/// A saved plan of a restore.
pub fn plan(data: &[u8]) {
    in_folder(|folder| {
        let path = folder.join("plan.json");
        fs::write(&path, data).unwrap();
        match Saved::read(&path) {
            Ok(saved) => assert!(!saved.word().is_empty()),
            Err(error) => one_line(&error.to_string()),
        }
    });
}

/// The record of a restore, and its journal.
pub fn undo(data: &[u8]) {
    in_folder(|folder| {
        let mut parts = parts(data).into_iter();
        let dir = folder.join("var/lib/proxmox-backup-extra/undo/x");
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("record.json"), parts.next().unwrap_or_default()).unwrap();
        fs::write(dir.join("journal"), parts.next().unwrap_or_default()).unwrap();
        let host = Host::detect(folder.to_owned(), now(), Box::new(NoTools));
        match Journal::open(&host, "x") {
            Ok(journal) => {
                let steps = journal.record.steps.len();
                assert!(journal.begun.iter().chain(&journal.finished).all(|step| *step < steps));
            }
            Err(error) => one_line(&error.to_string()),
        }
    });
}

/// The manifest and the name of a legacy archive, and the head of its bundle.
pub fn sidecars(data: &[u8]) {
    let mut parts = parts(data).into_iter();
    let name = String::from_utf8_lossy(parts.next().unwrap_or_default()).into_owned();
    let text = parts.next().unwrap_or_default();
    let usual = LegacyName::parse("n1.lan-backup-20260801-020000.tar.xz.age").unwrap();
    let name = LegacyName::parse(&name).unwrap_or(usual);
    for manifest in [Some(Manifest::parse(text)), legacy::head(data)].into_iter().flatten() {
        let told = manifest.and_then(|manifest| {
            manifest.check(&name, 5)?;
            manifest.snapshot(&name, 5, &TimeZone::UTC)
        });
        match told {
            Ok(snapshot) => assert_eq!(snapshot.id.to_string().parse().ok(), Some(snapshot.id)),
            Err(error) => one_line(&error.to_string()),
        }
    }
}
