//! The manual is complete and reads well to the tools of its kind; the completions are scripts.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

fn made() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    // Examples are built with the tests and lie beside them.
    let test = std::env::current_exe().unwrap();
    let generator = test.parent().unwrap().parent().unwrap().join("examples/manual");
    let status =
        Command::new(generator).arg(dir.path()).env("SOURCE_DATE_EPOCH", "1795000000").status().unwrap();
    assert!(status.success());
    let path = dir.path().to_owned();
    (dir, path)
}

fn pages(made: &Path) -> Vec<(String, String)> {
    let entries = fs::read_dir(made.join("man")).unwrap().map(|entry| entry.unwrap().path());
    entries
        .map(|path| {
            (path.file_name().unwrap().to_string_lossy().into_owned(), fs::read_to_string(path).unwrap())
        })
        .collect()
}

#[test]
fn every_verb_has_a_page_with_every_option() {
    let (_dir, made) = made();
    let pages = pages(&made);
    let mut command = pbx_config::cli::command();
    command.build();
    let verbs: Vec<_> = command.get_subcommands().filter(|verb| !verb.is_hide_set()).collect();
    assert!(verbs.len() > 8);
    for verb in verbs {
        let name = format!("pbx-config-{}.1", verb.get_name());
        let (_, text) = pages.iter().find(|page| page.0 == name).unwrap_or_else(|| panic!("no {name}"));
        for option in verb.get_opts().filter(|option| !option.is_hide_set()) {
            let long = format!("\\-\\-{}", option.get_long().unwrap().replace('-', "\\-"));
            assert!(text.contains(&long), "{name}: {long}");
        }
        assert!(text.contains(".SH EXAMPLES\n") && text.contains(" 2026-11-18 "), "{name}");
        let main = &pages.iter().find(|page| page.0 == "pbx-config.1").unwrap().1;
        assert!(main.contains(&format!("pbx\\-config\\-{}\\fR(1)", verb.get_name())), "{name}");
    }
}

#[test]
fn every_kind_and_key_of_the_shipped_configuration_is_explained() {
    let (_dir, made) = made();
    let pages = pages(&made);
    let page = &pages.iter().find(|page| page.0 == "pbx-config.cfg.5").unwrap().1;
    let mut keys = 0;
    for file in ["etc/pbx-config.cfg", "etc/secrets.cfg.example"] {
        let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap();
        for line in text.lines().filter_map(|line| line.strip_prefix('#')) {
            if let Some(key) = line.strip_prefix('\t').filter(|key| !key.starts_with('#')) {
                let key = key.split(' ').next().unwrap().replace('-', "\\-");
                assert!(page.contains(&format!("\\fB{key}\\fR ")), "{file}: {key}");
                keys += 1;
            } else if let Some((kind, id)) = line.split_once(": ")
                && !kind.contains(' ')
            {
                assert!(page.contains(&format!("{kind}: ")), "{file}: {kind}: {id}");
            }
        }
    }
    assert!(keys > 12, "only {keys} keys were found");
}

#[test]
fn the_pages_are_clean() {
    let (_dir, made) = made();
    for (name, _) in pages(&made) {
        let lint = common::tool("mandoc")
            .args(["-Tlint", "-W", "warning"])
            .arg(made.join("man").join(&name))
            .output();
        let lint = lint.expect("mandoc is installed by `make deps`");
        assert!(lint.status.success(), "{}", String::from_utf8_lossy(&lint.stdout));
    }
}

#[test]
fn the_completions_know_the_verbs() {
    let (_dir, made) = made();
    for name in ["pbx-config.bash", "_pbx-config", "pbx-config.fish"] {
        let text = fs::read_to_string(made.join("completions").join(name)).unwrap();
        for word in ["backup", "verify", "output-format", "vzdump"] {
            assert!(text.contains(word), "{name}: {word}");
        }
    }
    let script = made.join("completions/pbx-config.bash");
    let line = format!(
        "source {}; COMP_WORDS=(pbx-config ver); COMP_CWORD=1; _pbx__config pbx-config ver pbx-config; \
         echo ${{COMPREPLY[*]}}",
        script.display()
    );
    let said = common::tool("bash").args(["-c", &line]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&said.stdout), "verify\n", "{said:?}");
}
