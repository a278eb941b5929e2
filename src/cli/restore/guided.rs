//! `restore` without words, on a terminal: which store, which snapshot, what of it. The plan and the one question
//! are the same as with words.

use std::io::{self, BufRead, IsTerminal};

use anyhow::Result;

use super::RestoreMode;
use crate::catalog::Category;
use crate::cli::App;
use crate::cli::render::{one_line, size};
use crate::model::problem::{Fault, FaultKind};
use crate::plan::select;
use crate::task::snapshots;

/// The newest; an older one is named on the command line.
const SNAPSHOTS_SHOWN: usize = 15;

impl App<'_> {
    /// The word of a snapshot and the store to take it from.
    pub(in crate::cli) fn guided_snapshot(
        &mut self,
        stores: &mut crate::cli::common_args::Stores,
    ) -> Result<String> {
        need_terminal("name a snapshot: `pbx-config list` shows them, `latest` is the newest")?;
        if stores.names.is_empty() {
            let names: Vec<String> = self.config()?.stores.iter().map(|store| store.id.clone()).collect();
            if names.len() > 1 {
                let n = self.pick("From which store?", &names)?;
                stores.names = vec![names[n].clone()];
            }
        }

        let config = self.config()?;
        let opened = self.open_all(&config, stores)?;
        let listing = snapshots::list(&opened, None, &|_| true)?;
        let usable: Vec<_> = listing
            .snapshots
            .iter()
            .filter(|listed| listed.snapshot.is_some())
            .take(SNAPSHOTS_SHOWN)
            .collect();
        if usable.is_empty() {
            let fault = Fault::new(FaultKind::NotFound, "there are no snapshots");
            return Err(fault.hint("name a file, or a directory with --store").into());
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
    pub(in crate::cli) fn guided_mode(&mut self) -> Result<RestoreMode> {
        let modes = [
            (RestoreMode::Full, "full     everything"),
            (
                RestoreMode::Storage,
                "storage  storages, datastores and their keys, and the jobs that use them",
            ),
            (
                RestoreMode::Base,
                "base     the host itself: name, network, accounts, SSH, certificates, services",
            ),
            (RestoreMode::Custom, "custom   choose from a list"),
        ];
        let lines: Vec<String> = modes.iter().map(|(_, line)| (*line).to_owned()).collect();
        let n = self.pick("What do you want to restore?", &lines)?;
        Ok(modes[n].0)
    }

    /// Categories, for `--only`.
    pub(in crate::cli) fn guided_categories(&mut self) -> Result<Vec<String>> {
        need_terminal("--mode custom needs a terminal; use --only to select items")?;
        let rows: Vec<_> = select::of_host(&self.host.facts).collect();
        let mut names = Vec::new();
        let mut lines = Vec::new();
        for category in Category::ALL.into_iter().filter(|category| *category != Category::State) {
            let of_it = rows.iter().filter(|row| row.category == category);
            let titles: Vec<&str> = of_it.map(|row| row.title).collect();
            if !titles.is_empty() {
                names.push(category.name().to_owned());
                lines.push(format!("{:<13}  {}", category.name(), cut(&titles.join(", "))));
            }
        }
        self.show_choices(&lines)?;

        loop {
            let answer =
                self.answer("What do you want to restore? Enter numbers or names, separated by blanks.")?;
            let words: Vec<&str> = answer.split([' ', ',']).filter(|word| !word.is_empty()).collect();
            if words.is_empty() {
                return Err(nothing());
            }
            match words.into_iter().map(|word| place(word, &names)).collect::<Result<Vec<_>, _>>() {
                Ok(places) => return Ok(places.into_iter().map(|n| names[n].clone()).collect()),
                Err(wrong) => writeln!(self.err, "{wrong}")?,
            }
        }
    }

    fn pick(&mut self, question: &str, lines: &[String]) -> Result<usize> {
        self.show_choices(lines)?;
        let names: Vec<String> =
            lines.iter().map(|line| line.split_whitespace().next().unwrap_or_default().to_owned()).collect();
        loop {
            let answer = self.answer(&format!("{question} [1]"))?;
            if answer.is_empty() {
                return Ok(0);
            }
            match place(&answer, &names) {
                Ok(n) => return Ok(n),
                Err(wrong) => writeln!(self.err, "{wrong}")?,
            }
        }
    }

    fn show_choices(&mut self, lines: &[String]) -> Result<()> {
        for (n, line) in lines.iter().enumerate() {
            writeln!(self.err, "{:>3}  {}", n + 1, line.trim_end())?;
        }
        Ok(())
    }

    /// Errors: the input ended.
    fn answer(&mut self, question: &str) -> Result<String> {
        write!(self.err, "{question} ").and_then(|()| self.err.flush())?;
        let mut answer = String::new();
        if io::stdin().lock().read_line(&mut answer)? == 0 {
            return Err(nothing());
        }
        Ok(answer.trim().to_owned())
    }
}

/// Shortens a line so that it stays one on a terminal of 80 columns.
fn cut(text: &str) -> String {
    const WIDTH: usize = 58;
    if text.chars().count() <= WIDTH {
        return text.to_owned();
    }
    text.chars().take(WIDTH).chain("…".chars()).collect()
}

/// A number from 1, or a name. Errors: it is neither.
fn place(word: &str, names: &[String]) -> Result<usize, String> {
    let number = word.parse::<usize>().ok().filter(|n| (1..=names.len()).contains(n)).map(|n| n - 1);
    let by_name = || names.iter().position(|name| name == word);
    number.or_else(by_name).ok_or_else(|| format!("'{word}' is not a number from 1 to {}", names.len()))
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
