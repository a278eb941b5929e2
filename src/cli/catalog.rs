//! `catalog`: the items that are saved, and what of them is here.

use anyhow::Result;

use super::render::item::ItemRow;
use super::{App, args, render, selection, worth};
use crate::model::problem::Exit;
use crate::plan::select;
use crate::task::scan::sources;

impl App<'_> {
    pub(super) fn catalog(&mut self, args: args::Catalog) -> Result<Exit> {
        let config = self.config()?;
        let stores = self.open_all(&config, &super::common_args::Stores { names: Vec::new() })?;
        let selection = selection(args.selected);
        let sources = sources::Sources::new(&self.host, &config, &stores, &selection)?;
        let (found, left) = sources::count(&self.host, &sources)?;

        let rows: Vec<ItemRow> = if args.all {
            crate::catalog::items().collect()
        } else {
            select::of_host(&self.host.facts).collect::<Vec<_>>()
        }
        .into_iter()
        .filter(|item| selection.takes(item.id))
        .map(|item| ItemRow::new(item, found.iter().find(|row| row.item == item.id)))
        .collect();
        let mut problems = sources.problems;
        problems.extend(left.problems);

        let problems = worth(&problems);
        let value = serde_json::json!({ "items": rows, "problems": problems });
        self.print(&value, |_| {
            let cells = |row: &ItemRow| {
                vec![
                    row.item.to_owned(),
                    row.category.to_owned(),
                    row.found(),
                    row.restore.clone(),
                    row.title.to_owned(),
                ]
            };
            render::table(
                &["ITEM", "CATEGORY", "HERE", "RESTORE", "TITLE"],
                &rows.iter().map(cells).collect::<Vec<_>>(),
            )
        })?;
        self.tell(&problems);
        Ok(Exit::Ok)
    }
}
