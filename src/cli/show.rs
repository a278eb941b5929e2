//! `list`, `show` and `cat`: the snapshots there are, the contents of one, and one file of it.

use std::io;

use anyhow::Result;

use super::common_args::Format;
use super::{App, args, has_cause, render};
use crate::model::problem::{Exit, Fault, FaultKind};
use crate::store;
use crate::sys::fs::glob::NamePattern;
use crate::task::snapshots;
use crate::task::snapshots::verify::{self, Looked};

impl App<'_> {
    pub(super) fn list(&mut self, args: &args::List) -> Result<Exit> {
        let mut problems = Vec::new();
        let stores = match &args.folder {
            Some(folder) if !folder.is_dir() => {
                return Err(Fault::new(
                    FaultKind::NotFound,
                    format!("{}: no such directory", folder.display()),
                )
                .into());
            }
            Some(folder) => vec![store::folder(&std::path::absolute(folder)?, &self.host)],
            None => {
                let config = self.config()?;
                problems.clone_from(&config.problems);
                self.open_all(&config, &args.stores)?
            }
        };
        let usage = |error: anyhow::Error| Fault::new(FaultKind::Usage, format!("--host: {error:#}"));
        let glob = args.host.as_deref().map(NamePattern::new).transpose().map_err(usage)?.flatten();
        let host = args.host.as_deref().filter(|_| glob.is_none());
        let wanted = |host: &str| glob.as_ref().is_none_or(|glob| glob.matches(host));
        let mut listing = snapshots::list(&stores, host, &wanted)?;
        listing.problems.splice(0..0, problems);

        let bad = !listing.problems.is_empty();
        self.print(&listing, render::listing)?;
        self.tell(&listing.problems);
        Ok(if bad { Exit::Problems } else { Exit::Ok })
    }

    pub(super) fn show(&mut self, args: &args::Show) -> Result<Exit> {
        let chosen = self.choose(&args.stores, &args.snap)?;
        let proven = if args.files {
            verify::verify(&chosen)?
        } else {
            match verify::look(&chosen)? {
                Looked::Into(proven) => *proven,
                Looked::At(snapshot, signed_by) => {
                    self.print(&serde_json::json!({ "snapshot": snapshot, "signed-by": signed_by }), |_| {
                        render::signed(signed_by.as_deref()) + &render::closed(&snapshot)
                    })?;
                    return Ok(Exit::Ok);
                }
            }
        };
        let index = &proven.index;

        if self.format == Format::Text && args.files {
            let text: String = index.entries.iter().map(render::entry).collect();
            self.write(text.as_bytes())?;
            return Ok(Exit::Ok);
        }

        let items: Vec<_> = render::items(index)
            .into_iter()
            .map(|(item, files, bytes)| serde_json::json!({ "item": item, "files": files, "bytes": bytes }))
            .collect();
        let mut value = serde_json::json!({
            "snapshot": proven.snapshot,
            "signed-by": proven.signed_by,
            "facts": index.facts,
            "items": items,
            "outputs": index.outputs,
            "absent": index.absent,
            "problems": index.problems,
        });
        if args.files {
            value["entries"] = serde_json::to_value(&index.entries)?;
        }
        self.print(&value, |_| {
            render::signed(proven.signed_by.as_deref()) + &render::shown(&proven.snapshot, index)
        })?;
        Ok(Exit::Ok)
    }

    pub(super) fn cat(&mut self, args: &args::Cat) -> Result<Exit> {
        let chosen = self.choose(&args.stores, &args.snap)?;
        match verify::cat(&chosen, &args.path, self.out) {
            Err(error) if has_cause(&error, io::ErrorKind::BrokenPipe) => Ok(Exit::Ok),
            done => done.map(|()| Exit::Ok),
        }
    }
}
