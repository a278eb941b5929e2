//! Selection of the catalogue items that a run takes: by product, by `--only` and `--skip`.

use anyhow::Result;
use serde::{Deserialize, Serialize};

use crate::catalog::{self, Category, Item, On, Source};
use crate::model::facts::{Facts, Product};
use crate::model::nearest::nearest;
use crate::model::problem::Fault;

/// Words of `--only` and `--skip`: item ids or categories.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Selection {
    pub only: Vec<String>,
    pub skip: Vec<String>,
}

/// Words that `word` is a part of, as `ha` is of `pve-ha`; else the nearest one.
fn meant(word: &str) -> Option<String> {
    const MAX: usize = 3;
    let all: Vec<&str> = words().collect();
    let holds = |name: &&&str| {
        let name = format!("-{name}-");
        !word.is_empty() && (name.contains(&format!("-{word}-")) || name.contains(&format!("-{word}s-")))
    };
    let mut parts: Vec<&str> = all.iter().filter(holds).copied().collect();
    parts.sort_by_key(|name| (!name.ends_with(word), name.len()));
    parts.truncate(MAX);
    if parts.is_empty() {
        return nearest(word, &all).map(|near| format!("'{near}'"));
    }
    Some(parts.iter().map(|name| format!("'{name}'")).collect::<Vec<_>>().join(" or "))
}

impl Selection {
    /// Errors: `Usage` for a word that is neither, with the nearest one.
    pub fn check(&self) -> Result<()> {
        for word in self.only.iter().chain(&self.skip) {
            if !known(word) {
                let hint = meant(word).map_or_else(
                    || "`pbx-config catalog` shows all items and categories".to_owned(),
                    |near| format!("did you mean {near}?"),
                );
                let fault = Fault::usage(format!("unknown item or category '{word}'"));
                return Err(fault.hint(hint).into());
            }
        }
        Ok(())
    }

    /// Returns the selection as the manifest tells it: `only:WORD`, `skip:WORD`.
    pub fn words(&self) -> Vec<String> {
        let only = self.only.iter().map(|word| format!("only:{word}"));
        only.chain(self.skip.iter().map(|word| format!("skip:{word}"))).collect()
    }

    /// Reports whether the item with this id is wanted. An id that this version's catalogue does not have
    /// (a snapshot of another version) is wanted unless `--only` says otherwise.
    pub fn takes(&self, id: &str) -> bool {
        let category = catalog::items().find(|item| item.id == id).map(|item| item.category.name());
        let named = |words: &[String]| words.iter().any(|word| word == id || Some(word.as_str()) == category);
        (self.only.is_empty() || named(&self.only)) && !named(&self.skip)
    }

    /// Returns the items of this host that collect something, in the catalogue's order.
    pub fn items(&self, facts: &Facts) -> Vec<&'static Item> {
        of_host(facts)
            .filter(|item| !matches!(item.source, Source::LeftOut(_)) && self.takes(item.id))
            .collect()
    }
}

/// Returns the items that belong to this host's products.
pub fn of_host(facts: &Facts) -> impl Iterator<Item = &'static Item> {
    catalog::items().filter(|item| is_on(item.on, facts))
}

/// Reports whether this host has that product.
pub fn is_on(on: On, facts: &Facts) -> bool {
    match on {
        On::Any => true,
        On::Pve => facts.has(Product::Pve),
        On::Pbs => facts.has(Product::Pbs),
    }
}

fn words() -> impl Iterator<Item = &'static str> {
    let categories = Category::ALL.into_iter().map(Category::name);
    categories.chain(catalog::items().map(|item| item.id))
}

pub(super) fn known(word: &str) -> bool {
    words().any(|known| known == word)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn selection(only: &[&str], skip: &[&str]) -> Selection {
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        Selection { only: words(only), skip: words(skip) }
    }

    #[test]
    fn skip_wins_over_only() {
        let selection = selection(&["network", "hostname"], &["resolv-conf"]);
        assert!(selection.takes("hostname"));
        assert!(!selection.takes("fstab"));
    }

    #[test]
    fn a_host_without_a_product_has_only_the_system_rows() {
        let items = Selection::default().items(&Facts::default());
        assert!(!items.is_empty());
        assert!(items.iter().all(|item| item.on == On::Any));
    }

    #[test]
    fn an_unknown_word_is_refused_with_the_nearest_one() {
        let error = selection(&["netwrok"], &[]).check().unwrap_err();
        let fault = error.downcast_ref::<Fault>().unwrap();
        assert_eq!(fault.hint.as_deref(), Some("did you mean 'network'?"));
    }
}
