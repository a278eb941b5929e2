//! `restore` without words, on a terminal: which store, which snapshot, what of it. The plan and the one question
//! are the same as with words.

use std::io::{self, BufRead, IsTerminal};

use anyhow::Result;

use super::render::{one_line, size};
use super::restore::Mode;
use super::{Words, args};
use crate::catalog::Category;
use crate::model::report::{Fault, FaultKind};
use crate::task::snapshots;

/// The newest; an older one is named on the command line.
const SNAPSHOTS_SHOWN: usize = 15;

impl Words<'_> {
    /// The word of a snapshot and the store to take it from.
    pub(super) fn guided_snapshot(&mut self, stores: &mut args::Stores) -> Result<String> {
        need_terminal("name a snapshot: `pbx-config list` shows them, `latest` is the newest")?;
        if stores.names.is_empty() {
            let names: Vec<String> = self.config()?.stores.iter().map(|store| store.id.clone()).collect();
            if names.len() > 1 {
                let n = self.pick("From which store?", &names)?;
                stores.names = vec![names[n].clone()];
            }
        }
        let config = self.config()?;
        let opened = self.stores(&config, stores)?;
        let listing = snapshots::list(&opened, None, &|_| true)?;
        let usable: Vec<_> = listing
            .snapshots
            .iter()
            .filter(|listed| listed.snapshot.is_some())
            .take(SNAPSHOTS_SHOWN)
            .collect();
        if usable.is_empty() {
            let fault = Fault::new(FaultKind::NotFound, "there are no snapshots");
            return Err(fault.hint("name a file, or a folder with --store").into());
        }
        let lines: Vec<String> = usable
            .iter()
            .map(|listed| {
                let note = listed
                    .snapshot
                    .as_ref()
                    .and_then(|snapshot| snapshot.note.as_deref())
                    .unwrap_or_default();
                format!("{}  {}  {}", listed.id, size(listed.size), one_line(note))
            })
            .collect();
        let n = self.pick("Which snapshot?", &lines)?;
        Ok(usable[n].id.to_string())
    }

    /// One of the choices made for people.
    pub(super) fn guided_mode(&mut self) -> Result<Mode> {
        let modes = [
            (Mode::Full, "full     all of it"),
            (Mode::Storage, "storage  storages, datastores and their keys, and the jobs that use them"),
            (Mode::Base, "base     the host itself: name, network, accounts, SSH, certificates, services"),
            (Mode::Custom, "custom   choose from a list"),
        ];
        let lines: Vec<String> = modes.iter().map(|(_, line)| (*line).to_owned()).collect();
        let n = self.pick("What of it?", &lines)?;
        Ok(modes[n].0)
    }

    /// Categories, for `--only`.
    pub(super) fn guided_categories(&mut self) -> Result<Vec<String>> {
        need_terminal("--mode custom asks; name what you want with --only")?;
        let names: Vec<String> = Category::ALL
            .into_iter()
            .filter(|category| *category != Category::State)
            .map(|category| category.name().to_owned())
            .collect();
        self.show_choices("What of it? Numbers with blanks between them.", &names)?;
        let answer = answer()?;
        let chosen: Vec<String> = answer
            .split([' ', ','])
            .filter(|word| !word.is_empty())
            .map(|word| number(word, names.len()).map(|n| names[n].clone()))
            .collect::<Result<_>>()?;
        if chosen.is_empty() { Err(nothing()) } else { Ok(chosen) }
    }

    fn pick(&mut self, question: &str, lines: &[String]) -> Result<usize> {
        self.show_choices(&format!("{question} [1]"), lines)?;
        let answer = answer()?;
        if answer.is_empty() { Ok(0) } else { number(&answer, lines.len()) }
    }

    fn show_choices(&mut self, question: &str, lines: &[String]) -> Result<()> {
        for (n, line) in lines.iter().enumerate() {
            writeln!(self.err, "{:>3}  {line}", n + 1)?;
        }
        write!(self.err, "{question} ")?;
        Ok(self.err.flush()?)
    }
}

fn answer() -> Result<String> {
    let mut answer = String::new();
    if io::stdin().lock().read_line(&mut answer)? == 0 {
        return Err(nothing());
    }
    Ok(answer.trim().to_owned())
}

fn number(word: &str, count: usize) -> Result<usize> {
    match word.parse::<usize>() {
        Ok(n) if (1..=count).contains(&n) => Ok(n - 1),
        _ => {
            Err(Fault::new(FaultKind::Usage, format!("'{word}' is none of the numbers 1 to {count}")).into())
        }
    }
}

fn nothing() -> anyhow::Error {
    Fault::new(FaultKind::Failed, "nothing was chosen, nothing was changed").into()
}

fn need_terminal(hint: &str) -> Result<()> {
    if io::stdin().is_terminal() && io::stderr().is_terminal() {
        return Ok(());
    }
    Err(Fault::new(FaultKind::Usage, "there is no terminal to ask on").hint(hint).into())
}
