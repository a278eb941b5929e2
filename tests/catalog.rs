//! The catalogue is sound: what a row says can be meant.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::HashSet;

use pbx_config::catalog::{self, Item, On, RestoreRule, Source};
use pbx_config::sys::fs::glob::Pattern;

fn globs(item: &Item) -> Vec<String> {
    match item.source {
        Source::Files(globs) | Source::LeftOut(globs) => {
            globs.iter().map(|glob| (*glob).to_owned()).collect()
        }
        Source::Pmxcfs(globs) => globs.iter().map(|glob| format!("/etc/pve/{glob}")).collect(),
        _ => Vec::new(),
    }
}

#[test]
fn ids_and_output_names_are_unique_and_well_formed() {
    let mut ids = HashSet::new();
    let mut names = HashSet::new();
    for item in catalog::items() {
        assert!(
            item.id.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-'),
            "{}",
            item.id
        );
        assert!(ids.insert(item.id), "{} stands twice", item.id);
        assert!(!item.title.is_empty(), "{} has no title", item.id);
        if let Some(name) = item.source.answer() {
            assert!(names.insert(name), "{name} is written twice");
            assert!(
                matches!(item.restore, RestoreRule::Never(_)),
                "{}: an answer is never restored",
                item.id
            );
        }
        if let Source::Output { argv, .. } = item.source {
            assert!(!argv[0].contains('/'), "{}: a tool is named without its folder", item.id);
        }
        if let Source::Api { path, .. } = item.source {
            assert!(path.starts_with('/') && catalog::api::of(item.on).is_some(), "{}", item.id);
        }
    }
    assert!(ids.len() > 300, "the tables were not read");
}

#[test]
fn category_words_and_item_ids_do_not_clash_in_meaning() {
    // `--only network` takes the category; a row of that name must be in it.
    for category in catalog::Category::ALL {
        if let Some(item) = catalog::items().find(|item| item.id == category.name()) {
            assert_eq!(item.category, category, "{}", item.id);
        }
    }
}

#[test]
fn every_glob_is_one() {
    for item in catalog::items() {
        let relative = matches!(item.source, Source::Pmxcfs(_) | Source::PmxcfsRest);
        let except = item
            .except
            .iter()
            .map(|glob| if relative { format!("/etc/pve/{glob}") } else { (*glob).to_owned() });
        for glob in globs(item).into_iter().chain(except) {
            Pattern::new(&glob).unwrap_or_else(|error| panic!("{}: {error}", item.id));
        }
    }
}

#[test]
fn what_is_left_out_or_never_restored_says_why() {
    for item in catalog::items() {
        if matches!(item.source, Source::LeftOut(_)) {
            assert!(matches!(item.restore, RestoreRule::Never(_)), "{} has no reason", item.id);
        }
        if let RestoreRule::Never(reason) = item.restore {
            assert!(reason.len() > 5 && !reason.ends_with('.'), "{}: '{reason}'", item.id);
        }
    }
}

#[test]
fn no_literal_path_is_claimed_twice() {
    // Rows that take what others leave.
    const REST: [&str; 2] = ["pve-other", "pbs-other"];
    let rows: Vec<_> = catalog::items().filter(|item| !REST.contains(&item.id)).collect();
    let claims = |item: &Item, path: &str| {
        let path = std::path::Path::new(path.trim_start_matches('/'));
        let covers = |glob: &String| Pattern::new(glob).unwrap().covers(path);
        let relative = matches!(item.source, Source::Pmxcfs(_));
        let except = item
            .except
            .iter()
            .map(|glob| if relative { format!("/etc/pve/{glob}") } else { (*glob).to_owned() });
        globs(item).iter().any(covers) && !except.collect::<Vec<_>>().iter().any(covers)
    };
    for item in rows.iter().filter(|item| !matches!(item.source, Source::LeftOut(_))) {
        for path in globs(item).iter().filter(|glob| !glob.contains('*')) {
            for other in rows.iter().filter(|other| other.id != item.id && claims(other, path)) {
                let never = [item, other].iter().any(|row| matches!(row.restore, RestoreRule::Never(_)));
                assert!(never, "{path} is claimed by {} and {}", item.id, other.id);
            }
        }
    }
}

#[test]
fn rows_of_pve_and_pbs_belong_to_their_product() {
    for item in catalog::items() {
        match item.source {
            Source::Pmxcfs(_) | Source::PmxcfsRest | Source::Database => {
                assert_eq!(item.on, On::Pve, "{}", item.id);
            }
            _ => {}
        }
        if item.id.starts_with("pbs-") {
            assert_eq!(item.on, On::Pbs, "{}", item.id);
        }
    }
}
