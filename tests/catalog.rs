//! The catalogue is sound: what a row says can be meant.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use pbx_config::catalog::matcher::CatalogMatcher;
use pbx_config::catalog::{self, Item, On, RestoreRule, Source};
use pbx_config::sys::fs::glob::Pattern;
use proptest::prelude::*;

fn globs(item: &Item) -> Vec<String> {
    match item.source {
        Source::Files(globs) | Source::LeftOut(globs) => {
            globs.iter().map(|glob| (*glob).to_owned()).collect()
        }
        Source::Pmxcfs(globs) => globs.iter().map(|glob| format!("/etc/pve/{glob}")).collect(),
        Source::PmxcfsRest => vec!["/etc/pve/**".to_owned()],
        Source::Database => vec!["/var/lib/pve-cluster/config.db".to_owned()],
        _ => Vec::new(),
    }
}

fn except(item: &Item) -> Vec<String> {
    let relative = matches!(item.source, Source::Pmxcfs(_) | Source::PmxcfsRest);
    let base = if relative { "/etc/pve/" } else { "" };
    item.except.iter().map(|glob| format!("{base}{glob}")).collect()
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
        for glob in globs(item).into_iter().chain(except(item)) {
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
        let path = Path::new(path.trim_start_matches('/'));
        let covers = |glob: &String| Pattern::new(glob).unwrap().covers(path);
        globs(item).iter().any(covers) && !except(item).iter().any(covers)
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

/// An item with its patterns and its exceptions.
type ItemPatterns = (&'static Item, Vec<Pattern>, Vec<Pattern>);

static PATTERNS: LazyLock<Vec<ItemPatterns>> = LazyLock::new(|| {
    let compiled = |globs: Vec<String>| globs.iter().map(|glob| Pattern::new(glob).unwrap()).collect();
    catalog::items().map(|item| (item, compiled(globs(item)), compiled(except(item)))).collect()
});

/// The matcher's answers are those of a search through all patterns of all items.
fn is_answered_as_by_search(path: &Path) {
    let covers = |globs: &[Pattern]| globs.iter().any(|glob| glob.covers(path));
    let (mut collecting, mut left_out) = (Vec::new(), None);
    let matcher = CatalogMatcher::get();
    for (item, globs, except) in &*PATTERNS {
        let is_covered = covers(globs) && !covers(except);
        assert_eq!(
            matcher.patterns(item.id).unwrap().cover(path),
            is_covered,
            "{} {}",
            item.id,
            path.display()
        );
        match item.source {
            Source::LeftOut(_) if is_covered => left_out = left_out.or(Some(item.id)),
            Source::LeftOut(_) => {}
            _ if is_covered => collecting.push(item.id),
            _ => {}
        }
    }

    let ids = |items: Vec<&Item>| items.iter().map(|item| item.id).collect::<Vec<_>>();
    assert_eq!(ids(matcher.collecting(path)), collecting, "{}", path.display());
    assert_eq!(matcher.owner_of(path).map(|item| item.id), collecting.first().copied(), "{}", path.display());
    assert_eq!(matcher.left_out(path).map(|item| item.id), left_out, "{}", path.display());
}

fn paths_below(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).into_iter().flatten() {
        let entry = entry.unwrap();
        found.push(entry.path());
        if entry.file_type().unwrap().is_dir() {
            paths_below(&entry.path(), found);
        }
    }
}

#[test]
fn paths_of_the_golden_hosts_are_matched_as_by_search() {
    let mut count = 0;
    for host in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/hosts")).unwrap() {
        for (tree, base) in [("root", ""), ("pve", "etc/pve")] {
            let tree = host.as_ref().unwrap().path().join(tree);
            let mut paths = Vec::new();
            paths_below(&tree, &mut paths);
            count += paths.len();
            for path in paths {
                is_answered_as_by_search(&Path::new(base).join(path.strip_prefix(&tree).unwrap()));
            }
        }
    }
    assert!(count > 500, "the hosts were not found");
}

/// Paths that a glob of the catalogue meets, or nearly.
fn near_globs() -> impl Strategy<Value = PathBuf> {
    const NAMES: &[&str] = &["", "a", "7", ".x", "pve", "lock", "a.conf", "x.tmp.1"];
    let all: Vec<String> = catalog::items().flat_map(|item| [globs(item), except(item)].concat()).collect();
    let name = || prop::sample::select(NAMES);
    let changes = prop::collection::vec(name(), 4);
    (prop::sample::select(all), changes, 0..8_usize, prop::bool::ANY).prop_map(
        |(glob, names, at, is_shorter)| {
            let mut names = names.into_iter().cycle();
            let parts = glob.split('/').enumerate().map(|(n, part)| match part {
                "**" => "a/b/c"[..names.next().unwrap().len().min(3)].to_owned(),
                _ if n == at => names.next().unwrap().to_owned(),
                _ => part.replace("[0-9]", "5").replace('*', names.next().unwrap()).replace('?', "q"),
            });
            let path: PathBuf = parts.filter(|part| !part.is_empty()).collect();
            if is_shorter {
                path.parent().unwrap_or(&path).to_owned()
            } else {
                path.join(names.next().unwrap())
            }
        },
    )
}

proptest! {
    #[test]
    fn generated_paths_are_matched_as_by_search(path in near_globs()) {
        is_answered_as_by_search(&path);
    }
}
