//! Every rule of the page of rules is cited by a test: as `A2.5` in its text, or as `a2_5` in its name.
#![allow(missing_docs)]

use std::collections::BTreeSet;
use std::path::Path;

const RULES: &str = include_str!("../docs/algorithm.md");

/// Where tests are, seen from this package.
const FOLDERS: [&str; 9] = [
    "tests",
    "src",
    "../conformance/src",
    "../conformance/tests",
    "../cpu/tests",
    "../gpu-cuda/tests",
    "../gpu-wgpu/tests",
    "../integrations/candle/tests",
    "../examples/train/tests",
];

/// Numbers of the form 2.5 that stand behind a letter, `A2.5` or `a2_5`.
fn citations(text: &str, letter: char, point: char) -> impl Iterator<Item = String> + '_ {
    text.match_indices(letter).filter_map(move |(at, _)| {
        let rest = &text[at + 1..];
        let (chapter, rest) = (rest.chars().next()?, rest.get(1..)?);
        let digits: String = rest.strip_prefix(point)?.chars().take_while(char::is_ascii_digit).collect();
        let behind = text[..at].chars().next_back();
        let starts = behind.is_none_or(|c| !c.is_alphanumeric());
        (chapter.is_ascii_digit() && !digits.is_empty() && starts).then(|| format!("A{chapter}.{digits}"))
    })
}

/// The tests of a Rust file: all of it in a folder of tests, else what comes with and after `#[cfg(test)]`.
fn tests_of(path: &Path, text: &str) -> String {
    if path.components().any(|c| c.as_os_str() == "src") && !path.starts_with("../conformance") {
        return text.split_once("#[cfg(test)]").map_or_else(String::new, |(_, tests)| tests.to_string());
    }
    text.to_string()
}

fn read(folder: &Path, cited: &mut BTreeSet<String>, files: &mut usize) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for path in entries.map(|e| e.unwrap().path()) {
        if path.is_dir() {
            read(&path, cited, files);
        } else if path.extension().is_some_and(|e| e == "rs") && path.file_name().is_some_and(|n| n != "rules_cited.rs") {
            let text = tests_of(&path, &std::fs::read_to_string(&path).unwrap());
            cited.extend(citations(&text, 'A', '.').chain(citations(&text, 'a', '_')));
            *files += 1;
        }
    }
}

#[test]
fn every_rule_is_cited_by_a_test() {
    let rules: BTreeSet<String> =
        RULES.lines().filter_map(|l| l.strip_prefix("**")).flat_map(|l| citations(l, 'A', '.').take(1)).collect();
    assert_eq!(rules.len(), 41, "{rules:?}");
    let (mut cited, mut files) = (BTreeSet::new(), 0);
    for folder in FOLDERS {
        read(Path::new(folder), &mut cited, &mut files);
    }
    // Alone in its package this file has the engine's own tests to look at, and no others.
    if !Path::new("../conformance").exists() {
        assert!(files > 20);
        return;
    }
    let missing: Vec<&String> = rules.difference(&cited).collect();
    assert!(missing.is_empty(), "rules that no test cites: {missing:?}");
    let unknown: Vec<&String> = cited.difference(&rules).collect();
    assert!(unknown.is_empty(), "tests cite rules that are not there: {unknown:?}");
}
