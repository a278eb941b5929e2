//! Nearest word: the one that was probably meant.

/// The word of `known` that `word` was probably meant to be: at most a third of its letters differ.
pub fn nearest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    let word: Vec<char> = word.to_lowercase().chars().collect();
    let scored = known.iter().filter_map(|candidate| {
        let letters: Vec<char> = candidate.to_lowercase().chars().collect();
        let longer = word.len().max(letters.len());
        let limit = (longer / 3).max(1).min(longer.saturating_sub(1));
        // The lengths first, so that a pasted key of kilobytes costs nothing.
        let alike = word.len().abs_diff(letters.len()) <= limit;
        let distance = alike.then(|| distance(&word, &letters))?;
        (distance <= limit).then_some((distance, *candidate))
    });
    scored.min_by_key(|(distance, _)| *distance).map(|(_, candidate)| candidate)
}

/// Letters added, dropped, replaced or swapped with their neighbour.
fn distance(a: &[char], b: &[char]) -> usize {
    let mut rows: Vec<Vec<usize>> = vec![(0..=b.len()).collect()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let kept = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut least = kept.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                least = least.min(rows[i - 2][j - 2] + 1);
            }
            row.push(least);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_word_that_is_close_is_near() {
        let verbs = ["restore", "prune", "diff", "log"];
        for (word, expected) in [
            ("restroe", Some("restore")),
            ("Prune", Some("prune")),
            ("idff", Some("diff")),
            ("backup", None),
            ("x", None),
            ("", None),
        ] {
            assert_eq!(nearest(word, &verbs), expected, "{word}");
        }
        assert_eq!(nearest("x", &["", "y"]), None);
    }
}
