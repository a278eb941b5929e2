#!/usr/bin/env python3
"""Prints figures of a Rust tree that say how easy it is to live in. Reads text only, good to a line or two.

Usage: house_figures.py [--list NAME] [SRC]     NAME: one of the figures' short names; prints the places behind it

tests/floors.rs holds four of them (circles, folders, types, docs) and counts as this does: change both together.
"""
import argparse
import re
import subprocess
from bisect import bisect_right
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path
from statistics import median_low

MOST_FILES = 14
# Folders that may hold more, by their path below src.
ROOMY = {"task/restore": 20}
# Type names that each module may have for itself.
OWN_NAMES = {"Options"}
# The first words that turn a doc comment of a function around.
BAD_WORDS = ("What Of Whose Who Whom Where Which Whether As How That When If In With For By To From On So Up "
             "Beside").split()
LONG_FUNCTION = 60
NEEDS_A_BLANK_LINE = 20
MOST_CLOSURES = 2
LONG_SUBJECT = 72
SUBJECTS = 300

NOT_CODE = re.compile(
    r"""b?r(?P<hashes>\#*)".*?"(?P=hashes) | b?"(?:\\.|[^"\\])*" | //[^\n]* | /\*.*?\*/ | '(?:\\.|[^\\'\n])'""",
    re.S | re.X)
TEST_MODULE = re.compile(r"#\[cfg\(test\)\]\s*(?:#!?\[[^\]]*\]\s*)*mod\s+\w+\s*\{")
FUNCTION = re.compile(r"\bfn\s+(\w+)")
CLOSURE = re.compile(r"\blet\s+(?:mut\s+)?\w+\s*=\s*(?:move\s*)?\|")
PUBLIC_TYPE = re.compile(r"^[ \t]*pub(?:\([^)]*\))?\s+(?:struct|enum|trait|type)\s+(\w+)", re.M)
FUNCTION_LINE = re.compile(r'(?:pub(?:\([^)]*\))?\s+)?(?:default\s+|const\s+|async\s+|unsafe\s+|extern\s+"\w+"\s+)*fn\b')
USE = re.compile(r"\buse\s+((?:crate|super|self)::[^;]*);")
PATH = re.compile(r"(?<![\w:])(?:crate|super|self)(?:::\w+)+")
CHILD = re.compile(r"(?<![\w:])(\w+)::")


def blanked(text):
    return re.sub(r"[^\n]", " ", text)


def closing_brace(code, opening):
    """The place of the brace that closes the one at `opening`."""
    depth = 0
    for at in range(opening, len(code)):
        depth += {"{": 1, "}": -1}.get(code[at], 0)
        if depth == 0:
            return at
    return len(code) - 1


def code_of(text):
    """The text with comments, strings and test modules blanked; every line stays where it is."""
    code = NOT_CODE.sub(lambda match: blanked(match.group(0)), text)
    at = 0
    while test := TEST_MODULE.search(code, at):
        end = closing_brace(code, test.end() - 1) + 1
        code = code[:test.start()] + blanked(code[test.start():end]) + code[end:]
        at = end
    return code


def spread(tree):
    """The paths of a use tree without white space: `a::{b, c::d}` is a::b and a::c::d."""
    brace = tree.find("{")
    if brace < 0:
        return [tree]
    depth, start, paths = 0, brace + 1, []
    for at in range(brace, len(tree)):
        depth += {"{": 1, "}": -1}.get(tree[at], 0)
        if depth == 0 or depth == 1 and tree[at] == ",":
            if part := tree[start:at]:
                paths += [tree[:brace] + path for path in spread(part)]
            start = at + 1
        if depth == 0:
            break
    return paths


@dataclass
class Function:
    name: str
    place: str
    lines: int
    blank: int
    closures: int


@dataclass
class Source:
    """One file, and what the figures take from it."""
    path: Path
    module: tuple
    raw: list
    code: str
    starts: list

    @classmethod
    def read(cls, path, src):
        text = path.read_text(encoding="utf-8")
        module = path.relative_to(src).with_suffix("").parts
        if module[-1] in ("mod", "lib", "main"):
            module = module[:-1]
        code = code_of(text)
        return cls(path, module, text.split("\n"), code, [0] + [m.end() for m in re.finditer("\n", code)])

    def line(self, at):
        return bisect_right(self.starts, at)

    def place(self, at):
        return f"{self.path}:{self.line(at)}"

    def functions(self):
        for match in FUNCTION.finditer(self.code):
            body = re.compile(r"[{;]").search(self.code, match.end())
            if not body or body.group() == ";":
                continue
            end = closing_brace(self.code, body.start())
            first, last = self.line(match.start()), self.line(end)
            inner = self.raw[first:last - 1]
            yield Function(match.group(1), self.place(match.start()), last - first + 1,
                           sum(not line.strip() for line in inner),
                           len(CLOSURE.findall(self.code, body.start(), end)))

    def public_types(self):
        for match in PUBLIC_TYPE.finditer(self.code):
            yield match.group(1), self.place(match.start(1))

    def function_docs(self):
        """The first line of each doc comment that belongs to a function, and where it is."""
        for number, line in enumerate(self.raw):
            begins = line.strip().startswith("///") and not (number and self.raw[number - 1].strip().startswith("///"))
            if not begins:
                continue
            rest = (other.strip() for other in self.raw[number:])
            item = next((other for other in rest if not other.startswith(("///", "#["))), "")
            if FUNCTION_LINE.match(item):
                yield line.strip()[3:].strip(), f"{self.path}:{number + 1}"

    def imports(self):
        """Each path that begins with crate, super or self, as its segments from the root, and its line."""
        code = self.code
        for use in USE.finditer(self.code):
            for path in spread(re.sub(r"\s+as\s+\w+|\s+", "", use.group(1))):
                yield self.from_root(path.split("::")), self.line(use.start())
            code = code[:use.start()] + blanked(use.group(0)) + code[use.end():]
        for path in PATH.finditer(code):
            yield self.from_root(path.group(0).split("::")), self.line(path.start())

    def names(self, children):
        """Each use of a module that lies right below this one, by its bare name."""
        for match in CHILD.finditer(self.code):
            if match.group(1) in children:
                yield self.module + (match.group(1),), self.line(match.start())

    def from_root(self, segments):
        if segments[0] == "crate":
            return tuple(segments[1:])
        base = list(self.module)
        while segments and segments[0] in ("super", "self"):
            if segments[0] == "super":
                base = base[:-1]
            segments = segments[1:]
        return tuple(base + segments)


def edges(sources):
    """Which file takes from which, with the lines. A file may take from the folder it lies in: that is no edge."""
    modules = {source.module: source for source in sources}
    found = defaultdict(lambda: defaultdict(list))
    for source in sources:
        children = {module[-1] for module in modules if module and module[:-1] == source.module}
        for path, line in [*source.imports(), *source.names(children)]:
            lengths = range(len(path), 0, -1)
            target = next((modules[path[:n]] for n in lengths if path[:n] in modules), None)
            if target and target is not source and source.module[:len(target.module)] != target.module:
                found[str(source.path)][str(target.path)].append(line)
    return found


def circles(graph):
    """The sets of files that reach each other, each sorted."""
    reach = {}
    for start in graph:
        seen, todo = set(), [start]
        while todo:
            for other in graph.get(todo.pop(), ()):
                if other not in seen:
                    seen.add(other)
                    todo.append(other)
        reach[start] = seen
    found = {tuple(sorted(other for other in reach[file] if file in reach.get(other, ()))) for file in graph}
    return sorted(circle for circle in found if circle)


def cheapest_cut(graph, circle):
    """The import within a circle that has the fewest places."""
    pairs = [(len(lines), source, target, lines) for source in circle
             for target, lines in graph[source].items() if target in circle]
    _, source, target, lines = min(pairs)
    return f"{source} -> {target}, line {', '.join(map(str, sorted(lines)))}"


def long_subjects(src):
    run = subprocess.run(["git", "log", "--format=%s", "-n", str(SUBJECTS)], cwd=src, capture_output=True, text=True)
    return [subject for subject in run.stdout.splitlines() if len(subject) > LONG_SUBJECT]


def share(part, whole):
    return f"{100 * part // max(1, whole)} %"


def figures(src):
    """A row a figure: short name, words, value, goal, the places behind it."""
    sources = [Source.read(path, src) for path in sorted(src.rglob("*.rs"))]
    functions = [function for source in sources for function in source.functions()]
    sizes = sorted(function.lines for function in functions)
    lengths = sorted(len(source.raw) - 1 for source in sources)
    graph = edges(sources)
    rings = circles(graph)
    folders = Counter(source.path.parent for source in sources)
    full = [f"{count:4} {folder}" for folder, count in folders.most_common()
            if count > ROOMY.get(str(folder.relative_to(src)), MOST_FILES)]
    names = defaultdict(list)
    for source in sources:
        for name, place in source.public_types():
            names[name].append(place)
    twice = {name: places for name, places in names.items() if len(places) > 1 and name not in OWN_NAMES}
    docs = [doc for source in sources for doc in source.function_docs()]
    bad = re.compile(rf"(?:{'|'.join(BAD_WORDS)})\b")
    odd = [f"{place}: {doc}" for doc, place in docs if bad.match(doc)]
    tall = [function for function in functions if function.lines >= NEEDS_A_BLANK_LINE]

    def listed(chosen, value):
        return [f"{value(one):4} {one.place} {one.name}" for one in sorted(chosen, key=value, reverse=True)]

    walls = listed([one for one in tall if not one.blank], lambda one: one.lines)
    knots = listed([one for one in functions if one.closures > MOST_CLOSURES], lambda one: one.closures)
    long = listed([one for one in functions if one.lines > LONG_FUNCTION], lambda one: one.lines)
    subjects = long_subjects(src)
    return [
        ("files", "files", f"{len(sources)} (median {median_low(lengths)} lines, longest {lengths[-1]})", "",
         [str(source.path) for source in sources]),
        ("functions", "functions", f"{len(functions)} (median {median_low(sizes)} lines, longest {sizes[-1]})", "",
         listed(functions, lambda one: one.lines)),
        ("circles", "circles among files", len(rings), "0",
         [f"{' <-> '.join(ring)}\n     cheapest cut: {cheapest_cut(graph, ring)}" for ring in rings]),
        ("folders", "folders with too many files directly", len(full), "0", full),
        ("types", "public type names borne twice", len(twice), "0",
         [f"{name}: {', '.join(places)}" for name, places in sorted(twice.items())]),
        ("docs", "function docs that begin with What, Of, Who ...", f"{len(odd)} ({share(len(odd), len(docs))})", "0",
         odd),
        ("walls", "functions of 20+ lines without a blank line", share(len(walls), len(tall)), "below 30 %", walls),
        ("closures", "functions with more than two local closures", len(knots), "0", knots),
        ("long", "functions over 60 lines", len(long), "below 10", long),
        ("subjects", "commit subjects over 72 characters, of 300", len(subjects), "0", subjects),
    ]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("src", nargs="?", default="src", type=Path)
    parser.add_argument("--list", metavar="NAME", help="print the places behind one figure")
    args = parser.parse_args()
    rows = figures(args.src)
    if args.list:
        places = {name: places for name, *_, places in rows}
        if args.list not in places:
            parser.error(f"{args.list}: no such figure; there are {', '.join(places)}")
        print(*places[args.list], sep="\n")
        return
    for name, words, value, goal, _ in rows:
        print(f"{name:<10} {words:<48} {value}{f', goal {goal}' if goal else ''}")


if __name__ == "__main__":
    main()
