//! Checks over the text of a source tree: circles, doubled type names, docs, full folders. Pure functions of
//! paths and texts; `tests/house_figures.py` counts the same way.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

const MOST_FILES: usize = 14;
/// Folders that may hold more.
const ROOMY: [(&str, usize); 1] = [("src/task/restore", 20)];
/// Type names that each module may have for itself.
const OWN_NAMES: [&str; 1] = ["Options"];
/// First words that turn a sentence around.
#[rustfmt::skip]
const BAD_WORDS: [&str; 23] = [
    "What", "Of", "Whose", "Who", "Whom", "Where", "Which", "Whether", "As", "How", "That", "When", "If", "In",
    "With", "For", "By", "To", "From", "On", "So", "Up", "Beside",
];

/// A file of the tree: its path from the top (`src/a/b.rs`) and its text.
pub struct File {
    path: String,
    module: Vec<String>,
    raw: String,
    /// The text with comments, strings and test modules blanked; every line stays where it is.
    code: String,
}

impl File {
    pub fn new(path: &str, raw: &str) -> Self {
        let below = path.trim_start_matches("src/").trim_end_matches(".rs");
        let mut module: Vec<String> = below.split('/').map(str::to_owned).collect();
        if ["mod", "lib", "main"].contains(&module[module.len() - 1].as_str()) {
            module.pop();
        }
        let code = without_tests(&without_text(raw));
        Self { path: path.to_owned(), module, raw: raw.to_owned(), code }
    }

    pub fn path(&self) -> &str {
        &self.path
    }

    fn line(&self, at: usize) -> usize {
        self.code[..at].matches('\n').count() + 1
    }

    /// The path from the root of the crate that `path`, written in this file, names.
    fn absolute(&self, path: &str) -> Vec<String> {
        let mut words: Vec<&str> = path.split("::").collect();
        if words[0] == "crate" {
            words.remove(0);
            return words.into_iter().map(str::to_owned).collect();
        }
        let mut base = self.module.clone();
        while words.first().is_some_and(|word| ["super", "self"].contains(word)) {
            if words.remove(0) == "super" {
                base.pop();
            }
        }
        base.extend(words.into_iter().map(str::to_owned));
        base
    }

    /// Returns what this file names of the crate: paths from its root, each with its line.
    fn imports(&self, children: &BTreeSet<&str>) -> Vec<(Vec<String>, usize)> {
        let mut found = Vec::new();
        let mut rest = self.code.clone();
        for (start, tree) in use_trees(&self.code) {
            found.extend(spread(&tree).iter().map(|path| (self.absolute(path), self.line(start))));
            let end = start + self.code[start..].find(';').unwrap_or_default();
            rest.replace_range(start..end, &blank(&self.code[start..end]));
        }
        for (at, path) in paths(&rest) {
            if ["crate", "super", "self"].contains(&path.split("::").next().unwrap_or_default()) {
                found.push((self.absolute(path), self.line(at)));
            }
        }
        for (at, path) in paths(&self.code) {
            let first = path.split("::").next().unwrap_or_default();
            if children.contains(first) {
                let mut whole = self.module.clone();
                whole.push(first.to_owned());
                found.push((whole, self.line(at)));
            }
        }
        found
    }
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn blank(text: &str) -> String {
    text.chars().flat_map(|c| if c == '\n' { "\n".chars() } else { "    "[..c.len_utf8()].chars() }).collect()
}

/// Returns the length of the comment, string or character that `text` begins with; 0 when it begins with code.
fn text_length(text: &str) -> usize {
    let bytes = text.as_bytes();
    let until =
        |from: usize, end: &str| text[from..].find(end).map_or(text.len(), |at| from + at + end.len());
    if text.starts_with("//") {
        return text.find('\n').unwrap_or(text.len());
    }
    if text.starts_with("/*") {
        return until(2, "*/");
    }

    let prefix = bytes.iter().take(2).take_while(|byte| matches!(byte, b'b' | b'r')).count();
    let hashes = bytes[prefix..].iter().take_while(|byte| **byte == b'#').count();
    let is_string = bytes.get(prefix + hashes) == Some(&b'"');
    if is_string && text[..prefix].contains('r') {
        return until(prefix + hashes + 1, &format!("\"{}", "#".repeat(hashes)));
    }
    if is_string && hashes == 0 {
        let mut at = prefix + 1;
        while at < bytes.len() && bytes[at] != b'"' {
            at += if bytes[at] == b'\\' { 2 } else { 1 };
        }
        return (at + 1).min(text.len());
    }

    if let Some(inner) = text.strip_prefix('\'') {
        let close = text.char_indices().nth(if inner.starts_with('\\') { 3 } else { 2 });
        return close.filter(|(_, c)| *c == '\'').map_or(0, |(at, _)| at + 1);
    }
    0
}

/// Blanks comments, strings and characters.
fn without_text(raw: &str) -> String {
    let mut code = String::with_capacity(raw.len());
    let mut at = 0;
    while let Some(c) = raw[at..].chars().next() {
        let inside_word = is_word(c) && code.chars().next_back().is_some_and(is_word);
        let length = if inside_word { 0 } else { text_length(&raw[at..]) };
        if length == 0 {
            code.push(c);
            at += c.len_utf8();
        } else {
            code.push_str(&blank(&raw[at..at + length]));
            at += length;
        }
    }
    code
}

fn closing_brace(code: &str, opening: usize) -> usize {
    let mut depth = 0;
    for (at, byte) in code.bytes().enumerate().skip(opening) {
        match byte {
            b'{' => depth += 1,
            b'}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return at;
        }
    }
    code.len() - 1
}

/// Blanks each `#[cfg(test)] mod x { .. }`.
fn without_tests(code: &str) -> String {
    let mut code = code.to_owned();
    for (start, mark) in code.clone().match_indices("#[cfg(test)]") {
        let mut rest = start + mark.len();
        // Other attributes may stand between.
        loop {
            rest += code[rest..].len() - code[rest..].trim_start().len();
            if !code[rest..].starts_with('#') {
                break;
            }
            rest += code[rest..].find(']').map_or(1, |at| at + 1);
        }
        let brace = code[rest..].find(['{', ';']).map(|at| rest + at);
        if let Some(brace) =
            brace.filter(|at| code[rest..].starts_with("mod ") && code[*at..].starts_with('{'))
        {
            let end = closing_brace(&code, brace) + 1;
            code.replace_range(start..end, &blank(&code[start..end]));
        }
    }
    code
}

/// Returns each path of two words and more, with the place where it begins.
fn paths(code: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < code.len() {
        let rest = &code[at..];
        let end = rest.find(|c: char| !is_word(c) && c != ':').unwrap_or(rest.len());
        // `name: Type` and `::name` are no paths from here.
        let path = rest[..end].trim_end_matches(':');
        if path.contains("::") && !path.starts_with(':') {
            let first = path.find("::").unwrap_or_default();
            let begin = path[..first].rfind(':').map_or(0, |colon| colon + 1);
            found.push((at + begin, &path[begin..]));
        } else if rest[..end].ends_with("::") && !path.is_empty() && !path.contains(':') {
            // `child::{a, b}`
            found.push((at, path));
        }
        at += end + rest[end..].chars().next().map_or(1, char::len_utf8);
    }
    found
}

/// Returns each tree that is imported from this crate, without white space and without `as` names.
fn use_trees(code: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (at, word) in code.match_indices("use ") {
        let tree = code[at + word.len()..].split(';').next().unwrap_or_default();
        let starts_a_word = !code[..at].chars().next_back().is_some_and(is_word);
        let is_ours = ["crate::", "super::", "self::"].iter().any(|root| tree.trim_start().starts_with(root));
        if starts_a_word && is_ours {
            let words: Vec<&str> = tree.split_whitespace().collect();
            let mut kept = String::new();
            for (n, word) in words.iter().enumerate() {
                let alias = *word == "as";
                let after_as = n > 0 && words[n - 1] == "as";
                let tail = word.trim_start_matches(is_word);
                kept.push_str(if alias {
                    ""
                } else if after_as {
                    tail
                } else {
                    word
                });
            }
            found.push((at, kept));
        }
    }
    found
}

/// Returns the paths of a tree without white space: `a::{b, c::d}` is `a::b` and `a::c::d`.
fn spread(tree: &str) -> Vec<String> {
    let Some(brace) = tree.find('{') else { return vec![tree.to_owned()] };
    let (mut depth, mut start, mut found) = (0, brace + 1, Vec::new());
    for (at, byte) in tree.bytes().enumerate().skip(brace) {
        match byte {
            b'{' => depth += 1,
            b'}' => depth -= 1,
            _ => {}
        }
        if depth == 0 || depth == 1 && byte == b',' {
            let part = &tree[start..at];
            if !part.is_empty() {
                found.extend(spread(part).into_iter().map(|path| format!("{}{path}", &tree[..brace])));
            }
            start = at + 1;
        }
        if depth == 0 {
            break;
        }
    }
    found
}

type Graph<'a> = BTreeMap<&'a str, BTreeMap<&'a str, Vec<usize>>>;

/// Returns which file takes from which, and in what lines. A file may take from the folder it lies in.
fn graph(files: &[File]) -> Graph<'_> {
    let modules: BTreeMap<&[String], &File> =
        files.iter().map(|file| (file.module.as_slice(), file)).collect();
    let mut graph = Graph::new();
    for file in files {
        let below = |module: &&&[String]| {
            module.split_last().is_some_and(|(_, above)| above == file.module.as_slice())
        };
        let children = modules.keys().filter(below).map(|module| module[module.len() - 1].as_str()).collect();
        let targets = graph.entry(file.path.as_str()).or_default();
        for (path, line) in file.imports(&children) {
            let target = (1..=path.len()).rev().find_map(|n| modules.get(&path[..n]));
            if let Some(target) = target.filter(|target| !file.module.starts_with(&target.module)) {
                targets.entry(target.path.as_str()).or_default().push(line);
            }
        }
    }
    graph
}

/// Returns a message for each set of files that take from each other, with the import that is cut most easily.
pub fn circles(files: &[File]) -> Vec<String> {
    let graph = graph(files);
    let reach: BTreeMap<&str, BTreeSet<&str>> =
        graph.keys().map(|file| (*file, reached(&graph, file))).collect();
    let mut circles = BTreeSet::new();
    for (file, reached) in &reach {
        let circle: BTreeSet<&str> =
            reached.iter().copied().filter(|other| reach[other].contains(file)).collect();
        if !circle.is_empty() {
            circles.insert(circle);
        }
    }
    circles.iter().map(|circle| told(&graph, circle)).collect()
}

fn reached<'a>(graph: &Graph<'a>, from: &'a str) -> BTreeSet<&'a str> {
    let (mut seen, mut todo) = (BTreeSet::new(), vec![from]);
    while let Some(file) = todo.pop() {
        todo.extend(graph[file].keys().filter(|other| seen.insert(**other)));
    }
    seen
}

fn told(graph: &Graph, circle: &BTreeSet<&str>) -> String {
    let mut message = format!("a circle: {}", circle.iter().copied().collect::<Vec<_>>().join(" <-> "));
    let edges = circle.iter().flat_map(|from| graph[from].iter().map(move |(to, lines)| (lines, from, to)));
    let cheapest = edges.filter(|(_, _, to)| circle.contains(**to)).min_by_key(|(lines, ..)| lines.len());
    if let Some((lines, from, to)) = cheapest {
        let lines: BTreeSet<usize> = lines.iter().copied().collect();
        let lines = lines.iter().map(usize::to_string).collect::<Vec<_>>().join(", ");
        let _ = write!(message, "\n    cheapest cut: {from}, line {lines}: what it takes from {to}");
    }
    message
}

/// Returns a message for each public type whose name is borne by another one too.
pub fn doubled_types(files: &[File]) -> Vec<String> {
    let mut places: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for file in files {
        for (n, line) in file.code.lines().enumerate() {
            if let Some(name) = public_type(line) {
                places.entry(name).or_default().push(format!("{}:{}", file.path, n + 1));
            }
        }
    }
    places.retain(|name, places| places.len() > 1 && !OWN_NAMES.contains(name));
    places.iter().map(|(name, places)| format!("two types are named {name}: {}", places.join(", "))).collect()
}

/// Returns the name of the public type that a line defines.
fn public_type(line: &str) -> Option<&str> {
    let rest = line.trim_start().strip_prefix("pub")?;
    let rest = if rest.starts_with('(') { rest.split_once(')')?.1 } else { rest };
    let mut words = rest.split_whitespace();
    let kind = words.next().filter(|_| rest.starts_with(char::is_whitespace))?;
    if !["struct", "enum", "trait", "type"].contains(&kind) {
        return None;
    }
    words.next()?.split(|c: char| !is_word(c)).next()
}

/// Returns a message for each doc comment of a function that begins with a word of `BAD_WORDS`.
pub fn odd_docs(files: &[File]) -> Vec<String> {
    let mut found = Vec::new();
    for file in files {
        let lines: Vec<&str> = file.raw.lines().map(str::trim).collect();
        for (n, line) in lines.iter().enumerate() {
            let begins = line.starts_with("///") && !(n > 0 && lines[n - 1].starts_with("///"));
            let doc = line.trim_start_matches("///").trim();
            let word = doc.split(|c: char| !is_word(c)).next().unwrap_or_default();
            let is_bad = BAD_WORDS.contains(&word);
            let item = lines[n..].iter().find(|line| !line.starts_with("///") && !line.starts_with("#["));
            if begins && is_bad && item.is_some_and(|item| is_function(item)) {
                found.push(format!("{}:{}: begin with a verb (Returns, Reads ...): {doc}", file.path, n + 1));
            }
        }
    }
    found
}

fn is_function(line: &str) -> bool {
    let before = line.split_whitespace().take_while(|word| *word != "fn").collect::<Vec<_>>();
    let known = ["pub", "default", "const", "async", "unsafe", "extern"];
    line.split_whitespace().any(|word| word == "fn")
        && before.iter().all(|word| known.contains(word) || word.starts_with("pub(") || word.starts_with('"'))
}

/// Returns a message for each folder that holds too many files directly.
pub fn full_folders<'a>(paths: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for path in paths {
        *counts.entry(path.rsplit_once('/').map_or("", |(folder, _)| folder)).or_default() += 1;
    }
    let most =
        |folder: &str| ROOMY.iter().find(|(roomy, _)| *roomy == folder).map_or(MOST_FILES, |(_, most)| *most);
    let full = counts.iter().filter(|(folder, count)| **count > most(folder));
    full.map(|(folder, count)| format!("{folder} holds {count} files, at most {} fit", most(folder)))
        .collect()
}

mod tests {
    use super::*;

    fn files(texts: &[(&str, &str)]) -> Vec<File> {
        texts.iter().map(|(path, text)| File::new(path, text)).collect()
    }

    #[test]
    fn a_planted_circle_is_told_with_its_cheapest_cut() {
        let a = "use crate::task::{self, c::{X as Y, Z}};\nuse super::b;\nfn f() { b::g(); b::h() }\n";
        let b = "//! use crate::task::a\nfn g() {\n    super::a::f();\n}\n";
        let told =
            circles(&files(&[("src/task/a.rs", a), ("src/task/b.rs", b), ("src/task/c.rs", "fn x() {}")]));
        let [told] = &told[..] else { panic!("{told:?}") };
        assert!(told.contains("src/task/a.rs <-> src/task/b.rs\n"), "{told}");
        assert!(told.contains("cheapest cut: src/task/a.rs, line 2"), "{told}");

        let twice = "fn g() {\n    super::b::f();\n    super::b::f();\n}\n";
        let told = circles(&files(&[("src/task/a.rs", twice), ("src/task/b.rs", b)]));
        assert!(told[0].contains("cheapest cut: src/task/b.rs, line 3: what it takes from src/task/a.rs"));
    }

    #[test]
    fn a_circle_over_a_folder_or_over_three_files_is_one_too() {
        let three =
            [("src/a.rs", "use crate::b::B;"), ("src/b.rs", "use super::c;"), ("src/c.rs", "use crate::a;")];
        assert!(circles(&files(&three))[0].contains("src/a.rs <-> src/b.rs <-> src/c.rs"));
        let folder = [
            ("src/a/mod.rs", "mod b;\nfn f() { b::g() }"),
            ("src/a/b.rs", "use crate::c::C;"),
            ("src/c.rs", "fn x() -> crate::a::A {}"),
        ];
        assert!(circles(&files(&folder))[0].contains("src/a/b.rs <-> src/a/mod.rs <-> src/c.rs"));
    }

    #[test]
    fn what_only_looks_like_a_circle_is_none() {
        let child = [
            ("src/a/mod.rs", "mod b;\npub use self::b::B;\nfn f() { b::g() }"),
            ("src/a/b.rs", "use super::A;\nuse crate::a::X;"),
        ];
        assert!(circles(&files(&child)).is_empty(), "a file may take from the folder it lies in");
        let text = "// crate::a\nconst X: &str = \"crate::a::x()\";\nconst Y: &str = r#\"use crate::a;\"#;\n\
            const C: char = '\"';\n#[cfg(test)]\n#[allow(x)]\nmod tests {\n    use crate::a;\n}\n";
        assert!(circles(&files(&[("src/a.rs", "use crate::b;"), ("src/b.rs", text)])).is_empty());
        let foreign =
            [("src/a.rs", "use crate::b;"), ("src/b.rs", "use std::a;\nfn f(a: u8) { x::crate_a::y() }")];
        assert!(circles(&files(&foreign)).is_empty());
    }

    #[test]
    fn a_doubled_public_type_is_told_with_its_places() {
        let a = "pub struct State;\npub struct Options;\nstruct Own;\n";
        let b = "pub(crate) enum Options {}\n/* pub enum State */\n    pub(super) enum State<T> {\n}\npub struct Own;\n";
        let told = doubled_types(&files(&[("src/a.rs", a), ("src/b.rs", b)]));
        assert_eq!(told, ["two types are named State: src/a.rs:1, src/b.rs:3"]);
    }

    #[test]
    fn a_doc_that_turns_its_sentence_around_is_told() {
        let text = "/// What it is.\n/// Of it.\n#[must_use]\npub(crate) const unsafe fn a() {}\n\
            /// Whatever comes is read.\nfn b() {}\n/// Of a type.\nstruct X;\n/// Reads it.\n/// Where it is.\nfn c() {}\n";
        let told = odd_docs(&files(&[("src/a.rs", text)]));
        assert_eq!(told, ["src/a.rs:1: begin with a verb (Returns, Reads ...): What it is."]);
    }

    #[test]
    fn a_full_folder_is_told() {
        let paths = |folder: &str, count: usize| -> Vec<String> {
            (0..count).map(|n| format!("{folder}/f{n}.rs")).collect()
        };
        let told = |paths: &[String]| full_folders(paths.iter().map(String::as_str));
        assert!(told(&paths("src/sys", 14)).is_empty() && told(&paths("src/task/restore", 20)).is_empty());
        assert_eq!(told(&paths("src/sys", 15)), ["src/sys holds 15 files, at most 14 fit"]);
        assert_eq!(told(&paths("src/task/restore", 21)), ["src/task/restore holds 21 files, at most 20 fit"]);
        let deeper = [paths("src/sys", 14), paths("src/sys/fs", 14)].concat();
        assert!(told(&deeper).is_empty(), "a folder within is counted on its own");
    }
}
