//! `key`: who can open the snapshots of this host, new keys, and the proof that the offline one still works.

pub mod identity;
mod paper;
pub mod setup;

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::{Args, Subcommand};
use serde::Serialize;
use zeroize::Zeroizing;

use super::{App, render};
use crate::archive::identity::Identity;
use crate::archive::recipient::{Recipient, at};
use crate::model::problem::{Exit, Fault, FaultKind, Problem};
use crate::sys::input;
use crate::task::keys::key_check::{self, Proof};
use crate::task::keys::{self, Added};

#[derive(Debug, Subcommand)]
pub enum KeyCommand {
    /// Generate a key pair: the identity decrypts and is kept offline, the recipient stays on this host
    Generate(Generate),
    /// Add a recipient: from now on snapshots are encrypted to it, too
    Add {
        /// Recipient: age1..., ssh-ed25519 ..., ssh-rsa ..., or a file of recipients
        #[arg(required = true, value_name = "RECIPIENT|FILE")]
        recipient: Vec<String>,
    },
    /// Print the recipient of an identity
    FromIdentity {
        file: PathBuf,
        /// Also encrypt snapshots to it from now on
        #[arg(long)]
        add: bool,
    },
    /// Show the recipients of this host's snapshots, and when a key was last checked
    Show,
    /// Print an identity for paper, as text and as a QR code; without FILE you are asked for it
    Paper { file: Option<PathBuf> },
    /// Check that the offline key still opens what is encrypted today, and record the date
    Prove,
    /// Set up encryption step by step, on a terminal
    Setup,
}

/// Generate a key pair
#[derive(Debug, Args)]
pub struct Generate {
    /// Write the identity to this new file, readable by root only, instead of printing it once
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Use a passphrase as the identity: you are asked twice, it is stored nowhere
    #[arg(long, conflicts_with = "output")]
    pub passphrase: bool,
    /// Also encrypt snapshots to it from now on
    #[arg(long)]
    pub add: bool,
}

/// A recipient in force.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Row {
    recipient: String,
    kind: String,
    fingerprint: String,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Shown {
    recipients: Vec<Row>,
    proof: Option<Proof>,
    problems: Vec<Problem>,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Made<'a> {
    recipient: String,
    fingerprint: String,
    /// Only where it goes nowhere else.
    identity: Option<&'a str>,
    file: Option<&'a Path>,
    added: Vec<Added>,
}

impl App<'_> {
    pub(in crate::cli) fn key(&mut self, verb: KeyCommand) -> Result<Exit> {
        match verb {
            KeyCommand::Generate(args) if args.passphrase => self.key_of_passphrase(args.add),
            KeyCommand::Generate(args) => self.key_generate(&args),
            KeyCommand::Add { recipient } => {
                let recipients = named(&recipient)?;
                let added = self.add(&recipients)?;
                self.print(&added, |added| told(added))?;
                Ok(Exit::Ok)
            }
            KeyCommand::FromIdentity { file, add } => {
                let recipients = recipients_of(&file)?;
                let added = if add { self.add(&recipients)? } else { Vec::new() };
                let texts: Vec<String> = recipients.iter().map(ToString::to_string).collect();
                self.print(&serde_json::json!({ "recipients": texts, "added": added }), |_| {
                    texts.join("\n") + "\n" + &told(&added)
                })?;
                Ok(Exit::Ok)
            }
            KeyCommand::Show => self.key_show(),
            KeyCommand::Paper { file } => self.key_paper(file.as_deref()),
            KeyCommand::Prove => {
                let proof = key_check::prove(&self.host, &self.config()?, &self.keys)?;
                self.print(&proof, |proof| {
                    format!("ok: the key of {} opens what is encrypted today\n", proof.recipients.join(", "))
                })?;
                Ok(Exit::Ok)
            }
            KeyCommand::Setup => self.key_setup(),
        }
    }

    pub(in crate::cli) fn add(&self, recipients: &[Recipient]) -> Result<Vec<Added>> {
        keys::add(&self.host, &self.config()?, recipients)
    }

    fn key_generate(&mut self, args: &Generate) -> Result<Exit> {
        // What cannot be added shall not leave a key behind that nobody asked for.
        let config = if args.add { Some(self.config()?) } else { None };
        let pair = Identity::generate();
        let recipient = pair.recipient()?;
        let text = keys::identity_file(&self.host, &pair)?;
        if let Some(file) = &args.output {
            keys::write_identity(&self.host, file, &text)?;
        }

        let added = match &config {
            Some(config) => keys::add(&self.host, config, std::slice::from_ref(&recipient))?,
            None => Vec::new(),
        };
        let secret = pair.to_text();

        let made = Made {
            recipient: recipient.to_string(),
            fingerprint: recipient.fingerprint(),
            identity: secret.as_ref().filter(|_| args.output.is_none()).map(|secret| secret.as_str()),
            file: args.output.as_deref(),
            added,
        };
        self.print(&made, |made| {
            let place = match made.file {
                Some(file) => format!("the identity is in {}: remove it from this host\n", file.display()),
                None => format!(
                    "{}\nthis identity is shown once and is not stored on this host: write it down now\n",
                    *text
                ),
            };
            place + &next(made)
        })?;
        Ok(Exit::Ok)
    }

    fn key_of_passphrase(&mut self, add: bool) -> Result<Exit> {
        let config = if add { Some(self.config()?) } else { None };
        let passphrase = identity::new_passphrase(&|text| keys::check_passphrase(&self.host, text))?;
        let recipient = keys::of_passphrase(&self.host, &passphrase)?;
        let added = match &config {
            Some(config) => keys::add(&self.host, config, std::slice::from_ref(&recipient))?,
            None => Vec::new(),
        };
        let fingerprint = recipient.fingerprint();
        let made = Made { recipient: recipient.to_string(), fingerprint, identity: None, file: None, added };
        self.print(&made, |made| {
            "the passphrase opens the snapshots on any machine; it is not stored on this host\n".to_owned()
                + &next(made)
        })?;
        Ok(Exit::Ok)
    }

    fn key_show(&mut self) -> Result<Exit> {
        let config = self.config()?;
        let recipients = keys::recipients(&self.host, &config)?;
        let row = |one: &Recipient| Row {
            recipient: one.to_string(),
            kind: one.kind(),
            fingerprint: one.fingerprint(),
        };
        let shown = Shown {
            recipients: recipients.iter().map(row).collect(),
            proof: key_check::proof(&self.host),
            problems: key_check::overdue(&self.host, &recipients).into_iter().collect(),
        };
        self.print(&shown, listed)?;
        Ok(if shown.problems.is_empty() { Exit::Ok } else { Exit::Problems })
    }

    fn key_paper(&mut self, file: Option<&Path>) -> Result<Exit> {
        let identities = match file {
            Some(file) => unlocked(file)?,
            None => vec![identity::ask_identity()?],
        };
        for one in &identities {
            let sheet = paper::sheet(&self.host.facts.node, self.host.now, one)?;
            self.write(sheet.as_bytes())?;
        }
        Ok(Exit::Ok)
    }
}

/// Reads the recipients that the words name together: an SSH key has blanks. A word with a / or of a file that
/// exists is a file. Errors: `Usage` for a file that cannot be read or has no recipient.
fn named(words: &[String]) -> Result<Vec<Recipient>> {
    // An SSH key may hold a slash, but begins with a word of its own.
    let is_file =
        |word: &str| !Recipient::looks_like(word) && (word.contains('/') || Path::new(word).is_file());
    if let [file] = words
        && is_file(file)
    {
        let cannot = |why: String| {
            Fault::new(FaultKind::Usage, format!("cannot read {file}: {why}"))
                .hint("use a file of recipients, one per line, or a recipient: age1..., ssh-ed25519 ..., ssh-rsa ...")
        };
        let text =
            input::read(Path::new(file), input::TEXT_MAX_BYTES).map_err(|error| cannot(error.to_string()))?;
        let text = std::str::from_utf8(&text).map_err(|_| cannot("not a text".to_owned()))?;
        let all = Recipient::parse_file(file, text)?;
        if all.is_empty() {
            return Err(Fault::new(FaultKind::Usage, format!("{file}: contains no recipient")).into());
        }
        return Ok(all);
    }

    let one = Recipient::parse(&words.join(" ")).map_err(|error| at("what was given", &error))?;
    Ok(vec![one])
}

fn recipients_of(file: &Path) -> Result<Vec<Recipient>> {
    let place = file.display().to_string();
    // The public half of an SSH key is readable though it is locked.
    let identities = Identity::of_file(file)?;
    let public: Result<Vec<_>> = identities.iter().map(Identity::recipient).collect();
    let found = match public {
        Ok(found) => Ok(found),
        Err(_) => unlocked(file)?.iter().map(Identity::recipient).collect(),
    };
    found.map_err(|error: anyhow::Error| at(&place, &error))
}

/// The identities of a file; what locks it is asked for.
pub(in crate::cli) fn unlocked(file: &Path) -> Result<Vec<Identity>> {
    let mut all = Vec::new();
    for one in Identity::of_file(file)? {
        if !one.is_locked() {
            all.push(one);
            continue;
        }
        let mut wrong = None;
        loop {
            let passphrase: Zeroizing<String> = identity::ask_passphrase(file, wrong)?;
            match one.unlock(&passphrase)? {
                Some(found) => break all.extend(found),
                None => wrong = Some("this passphrase does not unlock it"),
            }
        }
    }

    Ok(all)
}

fn next(made: &Made) -> String {
    if made.added.is_empty() {
        return format!(
            "recipient    {}\nfingerprint  {}\nnext         pbx-config key add '{}'\n",
            made.recipient, made.fingerprint, made.recipient
        );
    }
    told(&made.added) + "next         pbx-config key prove, with the key that is offline now\n"
}

pub(in crate::cli) fn told(added: &[Added]) -> String {
    let line = |one: &Added| {
        let what = if one.new { "snapshots are encrypted to it from now on" } else { "it was there already" };
        format!(
            "recipient    {}\nfingerprint  {}\n{}: {what}\n",
            one.recipient,
            one.fingerprint,
            one.file.display()
        )
    };
    added.iter().map(line).collect()
}

fn listed(shown: &Shown) -> String {
    if shown.recipients.is_empty() {
        return "snapshots are not encrypted: anyone who has one can read it; `pbx-config key setup` sets up encryption\n".to_owned();
    }

    let mut text = String::new();
    for row in &shown.recipients {
        text.push_str(&format!(
            "{}\n    {}  {}\n",
            render::one_line(&row.recipient),
            row.fingerprint,
            row.kind
        ));
    }

    if let Some(proof) = &shown.proof {
        text.push_str(&format!("checked {}: {}\n", render::time(proof.at), proof.recipients.join(", ")));
    }
    text + &render::problems(&shown.problems)
}
