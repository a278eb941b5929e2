//! `key setup`: turns encryption on by questions, for somebody who does it once.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use anyhow::Result;

use super::{identity, paper};
use crate::archive::identity::Identity;
use crate::archive::recipient::Recipient;
use crate::cli::{App, key as verbs, render};
use crate::model::problem::{Exit, Fault, FaultKind};
use crate::sys::tty;
use crate::task::error;
use crate::task::keys::{self, key_check};

const WELCOME: &str = "\
An encrypted snapshot can only be read with its key: not by someone who finds the disk or runs the cloud.
The key is not stored on this host. If you lose it, you lose the snapshots: keep two copies of it.

  1  a new key, to print or to save on a stick (the usual choice)
  2  a passphrase that you remember; it opens the snapshots on any machine
  3  a key that you already have: age1..., or the public key of an SSH key

";

impl App<'_> {
    /// Errors: `Usage` without a terminal; `Unseal` when the person leaves.
    pub(in crate::cli) fn key_setup(&mut self) -> Result<Exit> {
        let Some(tty) = tty::open() else {
            let fault = Fault::new(FaultKind::Usage, "key setup asks questions, and there is no terminal");
            return Err(fault
                .hint(
                    "`pbx-config key generate --output FILE --add` does it in one command; then keep FILE offline",
                )
                .into());
        };
        let config = self.config()?;
        let there = keys::recipients(&self.host, &config).unwrap_or_default();

        if !there.is_empty() {
            say(
                &tty,
                &format!("snapshots are encrypted to {} recipients already; this adds one\n\n", there.len()),
            )?;
        }
        say(&tty, WELCOME)?;

        let recipient = self.chosen_recipient(&tty)?;
        let added = self.add(std::slice::from_ref(&recipient))?;
        self.print(&added, |added| verbs::told(added))?;
        say(
            &tty,
            "\nLast step: enter the key as you have stored it. It must open what is encrypted to it.\n",
        )?;

        let keys = identity::asking()?;
        let proof = key_check::prove(&self.host, &self.config()?, &keys).map_err(|error| {
            let fault = error.downcast_ref::<Fault>().filter(|fault| fault.kind == FaultKind::Unseal);
            let Some(fault) = fault.cloned() else { return error };
            let message = format!(
                "{}; snapshots are encrypted from now on, but the key was not checked",
                fault.message
            );
            Fault { message, ..fault }.hint("`pbx-config key prove --identity FILE` checks it later").into()
        })?;
        say(
            &tty,
            &format!(
                "ok: checked at {}. The next `pbx-config backup` is encrypted.\n",
                render::time(proof.at)
            ),
        )?;
        Ok(Exit::Ok)
    }

    /// Asks which key to encrypt to, until there is one.
    fn chosen_recipient(&mut self, tty: &File) -> Result<Recipient> {
        loop {
            match ask(tty, "1, 2 or 3 (Ctrl-D cancels): ")?.as_str() {
                "1" => return self.new_key(tty),
                "2" => {
                    let passphrase =
                        identity::new_passphrase(&|text| keys::check_passphrase(&self.host, text))?;
                    return keys::of_passphrase(&self.host, &passphrase);
                }
                "3" => match Recipient::parse(&ask(tty, "its public key: ")?) {
                    Ok(recipient) => return Ok(recipient),
                    Err(error) => {
                        let hint = error::hint(&error).map(|hint| format!("{hint}\n")).unwrap_or_default();
                        say(tty, &format!("it {error:#}\n{hint}"))?;
                    }
                },
                _ => {}
            }
        }
    }

    fn new_key(&mut self, tty: &File) -> Result<Recipient> {
        let pair = Identity::generate();
        let file = ask(tty, "file on a USB stick to write it to, or empty to show it here for printing: ")?;
        if file.is_empty() {
            let sheet = paper::sheet(&self.host.facts.node, self.host.now, &pair)?;
            say(tty, &sheet)?;
            while ask(tty, "type yes when it is printed or written down: ")? != "yes" {}
        } else {
            let path = Path::new(&file);
            keys::write_identity(&self.host, path, &keys::identity_file(&self.host, &pair)?)?;
            say(tty, &format!("{file}: written, readable by root only; remove it from this host\n"))?;
        }
        pair.recipient()
    }
}

fn say(mut tty: &File, text: &str) -> Result<()> {
    Ok(tty.write_all(text.as_bytes())?)
}

/// Errors: the person leaves.
fn ask(tty: &File, prompt: &str) -> Result<String> {
    let answer = tty::ask(tty, prompt)?;
    answer.map(|answer| answer.trim().to_owned()).ok_or_else(|| {
        let fault = Fault::new(FaultKind::Failed, "cancelled: nothing was changed");
        fault.hint("`pbx-config key setup` starts again").into()
    })
}
