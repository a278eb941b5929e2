//! Sealing: the age stream between codec and file, on the way in and on the way out. Who may open it is
//! `recipient`'s and `identity`'s subject.

use std::collections::HashSet;
use std::io::{BufRead, BufReader, Chain, Cursor, Read, Take, Write};
use std::sync::mpsc;
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use age::secrecy::ExposeSecret;
use age::stream::{StreamReader, StreamWriter};
use age::{DecryptError, EncryptError, Encryptor};
use age_core::format::{FileKey, Stanza};
use anyhow::{Context, Result, bail, ensure};

use super::recipient::{RECIPIENTS_MAX, Recipient};
use crate::model::problem::{Fault, FaultKind};
use crate::model::snapshot::Sealed;
use crate::sys::process::locked_memory::Locked;
use crate::sys::process::signals::check_stopped;

/// Ending of a sealed payload's name, behind the codec's.
pub const SEALED_EXT: &str = ".age";
const FILE_KEY_BYTES: usize = 16;
/// A header of the most and the largest recipients is far smaller.
const HEADER_MAX_BYTES: u64 = 1 << 20;
/// A plugin may wait for a finger on a token, but not for ever.
const PLUGIN_LIMIT: Duration = Duration::from_secs(120);
const STOP_POLL: Duration = Duration::from_millis(50);

/// The file key of one sealed payload, in memory that is neither swapped nor dumped, wiped when it goes.
///
/// This is how a run reads back what it sealed: one more recipient beside the configured ones, which leaves no
/// stanza in the file. An X25519 pair made for the run would leave one: every snapshot would for ever have an
/// opening that no key of the admin's is for, one that would undo what post-quantum recipients are taken for (age
/// refuses to mix them), and its secret would pass through memory that is not ours to lock. It opens one file, this
/// one, and is as dead as the pair would be when the run ends.
#[derive(Clone)]
pub struct HeldFileKey(Arc<Locked>);

impl HeldFileKey {
    pub(super) fn new(key: &FileKey) -> std::io::Result<Self> {
        let mut locked = Locked::new(FILE_KEY_BYTES)?;
        locked.bytes_mut().copy_from_slice(key.expose_secret());
        Ok(Self(Arc::new(locked)))
    }
}

impl age::Identity for HeldFileKey {
    fn unwrap_stanza(&self, _: &Stanza) -> Option<Result<FileKey, DecryptError>> {
        Some(Ok(FileKey::init_with_mut(|key| key.copy_from_slice(self.0.bytes()))))
    }
}

/// A configured recipient that lets the run keep the file key, too.
struct Witness<'a> {
    first: &'a dyn age::Recipient,
    held: OnceLock<HeldFileKey>,
}

impl age::Recipient for Witness<'_> {
    fn wrap_file_key(&self, key: &FileKey) -> Result<(Vec<Stanza>, HashSet<String>), EncryptError> {
        let _ = self.held.set(HeldFileKey::new(key)?);
        self.first.wrap_file_key(key)
    }
}

/// A payload's seal, ready before anything is read: the recipients are sound, their plugins have answered.
pub struct Seal {
    encryptor: Encryptor,
    /// Opens what this seals; None when the run is not to have it.
    pub held: Option<HeldFileKey>,
    /// The description in the manifest.
    pub sealed: Sealed,
}

impl Seal {
    /// `read_back`: keep the key for this run.
    /// Errors: `Usage` without a recipient or with ones that do not go together; a plugin that is not there, refuses
    /// or does not answer in time; no memory that can be locked.
    pub fn new(recipients: &[Recipient], read_back: bool) -> Result<Self> {
        ensure!(
            recipients.len() <= RECIPIENTS_MAX,
            Fault::usage(format!("more than {RECIPIENTS_MAX} recipients")).hint("remove the oldest ones")
        );

        let all: Vec<_> = recipients.iter().map(Recipient::for_age).collect::<Result<_>>()?;
        let wrap = move || wrap(&all, read_back);
        let plugin = recipients.iter().any(Recipient::is_plugin);
        let wrapped = if plugin { within(PLUGIN_LIMIT, wrap)? } else { wrap() };
        let (encryptor, held) = wrapped.map_err(|error| cannot_seal(&error))?;
        let sealed = Sealed {
            recipients: u32::try_from(recipients.len())?,
            fingerprints: recipients.iter().map(Recipient::fingerprint).collect(),
            passphrases: recipients.iter().filter_map(|r| Some(r.derivation.as_ref()?.to_string())).collect(),
        };
        Ok(Self { encryptor, held, sealed })
    }

    /// Encrypts what is written into it into `output`, until `finish`.
    pub fn begin<W: Write>(self, output: W) -> std::io::Result<StreamWriter<W>> {
        self.encryptor.wrap_output(output)
    }
}

type Wrapped = Result<(Encryptor, Option<HeldFileKey>), EncryptError>;

fn wrap(all: &[Box<dyn age::Recipient + Send>], read_back: bool) -> Wrapped {
    let Some((first, others)) = all.split_first() else { return Err(EncryptError::MissingRecipients) };
    let witness = Witness { first: first.as_ref(), held: OnceLock::new() };
    let first: &dyn age::Recipient = if read_back { &witness } else { first.as_ref() };
    let others = others.iter().map(|one| one.as_ref() as &dyn age::Recipient);
    let encryptor = Encryptor::with_recipients(std::iter::once(first).chain(others))?;
    Ok((encryptor, witness.held.into_inner()))
}

fn cannot_seal(error: &EncryptError) -> anyhow::Error {
    let fault = |kind, message: String| Fault::new(kind, message);

    match error {
        EncryptError::MissingRecipients => {
            fault(FaultKind::Usage, "encryption is on, but there is not a recipient".into()).hint(
                "`pbx-config key setup` sets it up; `pbx-config key add RECIPIENT` adds one that you have",
            )
        }
        EncryptError::IncompatibleRecipients { .. } => {
            fault(FaultKind::Usage, "some of the recipients are post-quantum ones and some are not".into())
                .hint("a snapshot is only as safe as its weakest recipient: use one type only")
        }
        EncryptError::Io(error) => {
            fault(FaultKind::Failed, format!("cannot create a key for this run: {error}"))
                .hint("set `readback-key no` in `backup: main` to do without it")
        }
        other => {
            fault(FaultKind::Failed, format!("a plugin could not encrypt: {}", one_line(&other.to_string())))
                .hint("is its token plugged in? `pbx-config key show` lists the recipients")
        }
    }
    .into()
}

/// Joins the lines of a text: messages of plugins may have several.
pub(super) fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Does something that may wait for a foreign program, and goes on without it after `limit` or a signal. What is left
/// behind ends with this process.
pub(super) fn within<T: Send + 'static>(
    limit: Duration,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T> {
    let (done, wait) = mpsc::channel();
    let started = thread::Builder::new().spawn(move || drop(done.send(work())));
    started.context("cannot wait for an age plugin")?;

    let end = Instant::now() + limit;
    loop {
        check_stopped()?;
        match wait.recv_timeout(STOP_POLL) {
            Ok(value) => return Ok(value),
            Err(mpsc::RecvTimeoutError::Timeout) if Instant::now() < end => {}
            Err(_) => {
                let message = format!("an age plugin did not answer within {} s", limit.as_secs());
                return Err(Fault::failed(message)
                    .hint("is its token plugged in, and does it wait for a touch?")
                    .into());
            }
        }
    }
}

/// A sealed stream whose header was read.
pub struct Opening<R> {
    pub header: Vec<u8>,
    rest: R,
}

pub type Clear<R> = StreamReader<Chain<Cursor<Vec<u8>>, R>>;

impl<R: BufRead> Opening<R> {
    /// Errors: no age file, or a header that does not end.
    pub fn new(mut input: R) -> Result<Self> {
        let mut header = Vec::new();
        let mut line = Vec::new();
        loop {
            line.clear();
            let mut bounded: Take<&mut R> = input.by_ref().take(HEADER_MAX_BYTES - header.len() as u64);
            bounded.read_until(b'\n', &mut line)?;
            header.extend_from_slice(&line);
            ensure!(line.ends_with(b"\n"), "the age header of its payload is damaged: it does not end");
            if header.len() == line.len() {
                ensure!(line.starts_with(b"age-encryption.org/"), "its payload is not encrypted by age");
            }
            if line.starts_with(b"---") {
                break;
            }
        }

        // A random number follows, without which the key cannot be tried.
        let mut nonce = [0; 16];
        input.read_exact(&mut nonce).context("ends within its age header")?;
        header.extend_from_slice(&nonce);
        Ok(Self { header, rest: input })
    }

    /// The clear stream. Errors: the key is not of this payload.
    pub fn open(self, key: &HeldFileKey) -> Result<Clear<R>> {
        let input = Cursor::new(self.header).chain(self.rest);
        let decryptor = age::Decryptor::new_buffered(input).map_err(damaged)?;
        decryptor.decrypt(std::iter::once(key as &dyn age::Identity)).map_err(damaged)
    }
}

/// Tries one identity on a header. None: it is sealed to others.
/// Errors: the header is damaged, or what the identity says.
pub fn try_open(header: &[u8], identity: &dyn age::Identity) -> Result<Option<HeldFileKey>> {
    struct Catch<'a>(&'a dyn age::Identity, OnceLock<HeldFileKey>);
    impl Catch<'_> {
        fn keep(
            &self,
            found: Option<Result<FileKey, DecryptError>>,
        ) -> Option<Result<FileKey, DecryptError>> {
            if let Some(Ok(key)) = &found {
                match HeldFileKey::new(key) {
                    Ok(held) => drop(self.1.set(held)),
                    Err(error) => return Some(Err(error.into())),
                }
            }
            found
        }
    }
    impl age::Identity for Catch<'_> {
        fn unwrap_stanza(&self, stanza: &Stanza) -> Option<Result<FileKey, DecryptError>> {
            self.keep(self.0.unwrap_stanza(stanza))
        }

        fn unwrap_stanzas(&self, stanzas: &[Stanza]) -> Option<Result<FileKey, DecryptError>> {
            self.keep(self.0.unwrap_stanzas(stanzas))
        }
    }
    let catch = Catch(identity, OnceLock::new());
    let opened = age::Decryptor::new_buffered(BufReader::new(header)).map_err(damaged)?;
    match opened.decrypt(std::iter::once(&catch as &dyn age::Identity)) {
        Ok(_) => Ok(catch.1.into_inner()),
        Err(DecryptError::NoMatchingKeys) => Ok(None),
        Err(error @ (DecryptError::PluginResolve(_) | DecryptError::Plugin(_))) => {
            let message = format!("a plugin could not open it: {}", one_line(&error.to_string()));
            Err(Fault::unseal(message).hint("is its token plugged in?").into())
        }
        Err(error) => Err(damaged(error)),
    }
}

fn damaged(error: DecryptError) -> anyhow::Error {
    match error {
        DecryptError::Io(error) => {
            anyhow::Error::from(error).context("the age header of its payload is damaged")
        }
        DecryptError::UnknownFormat => {
            anyhow::anyhow!("its payload is encrypted in a way that this version does not know")
        }
        _ => anyhow::anyhow!("the age header of its payload is damaged"),
    }
}

/// The rest of a clear stream, of which nothing may be left: only its end proves that nothing was cut off.
pub fn end(clear: &mut dyn Read) -> Result<()> {
    let mut one = [0];
    match clear.read(&mut one).context("the age header of its payload is damaged")? {
        0 => Ok(()),
        _ => bail!("its payload has data after its end"),
    }
}
