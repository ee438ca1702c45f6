//! How the chapters are written: capital keywords only in requirements, one in each; no lower-case ones outside
//! notes; at most one requirement in ten is a SHOULD; lengths.
//!
//! A note is a line that begins with `> `. A requirement reaches from its `**[ABC-123]**` to the next, or to the end
//! of its paragraph, list item or table row. Code, generated tables and the paragraph that cites BCP 14 are not
//! looked at. Annexes and the README are explanations: only their length counts.

use std::fs;
use std::path::Path;

use anyhow::Context as _;

use super::requirements::ids;
use super::settings::Requirements;
use super::shown;
use crate::generate::{chapters, is_closing, opening};

const LOWER: [&str; 3] = ["must", "should", "may"];
const KEYWORDS: [&str; 3] = ["MUST", "SHOULD", "MAY"];
const UNUSED: [&str; 5] = ["SHALL", "REQUIRED", "RECOMMENDED", "OPTIONAL", "CANNOT"];

pub(super) fn check(root: &Path, settings: &Requirements) -> anyhow::Result<Vec<String>> {
    let mut found = Vec::new();
    let mut whole = 0;
    let mut tally = Tally::default();
    for path in chapters(root)? {
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let name = shown(root, &path);
        let words = text.split_whitespace().count();
        whole += words;
        if words > settings.chapter_words_max {
            found.push(format!("{name}: {words} words, at most {}", settings.chapter_words_max));
        }
        let file = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with("spec/annexes/") || !file.starts_with(|first: char| first.is_ascii_digit()) {
            continue;
        }
        for block in blocks(&text) {
            let finding = |what: String| format!("{name}:{}: {what}", block.line);
            found.extend(examine(&block.text, &mut tally).into_iter().map(finding));
        }
    }
    if whole > settings.whole_words_max {
        found.push(format!("the specification has {whole} words, at most {}", settings.whole_words_max));
    }
    if tally.shoulds * 10 > tally.requirements {
        found.push(format!("{} of {} requirements are SHOULDs", tally.shoulds, tally.requirements));
    }
    Ok(found)
}

#[derive(Default)]
struct Tally {
    requirements: usize,
    shoulds: usize,
}

/// A paragraph, list item, heading or table row that is normative text.
struct Block {
    line: usize,
    text: String,
}

fn blocks(text: &str) -> Vec<Block> {
    let mut found: Vec<Block> = Vec::new();
    let mut in_code = false;
    let mut in_table = false;
    let mut open = false;
    for (number, line) in (1..).zip(text.lines()) {
        let trimmed = line.trim();
        if trimmed.starts_with("```") {
            in_code = !in_code;
            open = false;
            continue;
        }
        if opening(line).is_some() || is_closing(line) {
            in_table = opening(line).is_some();
            open = false;
            continue;
        }
        if in_code || in_table || trimmed.is_empty() || trimmed.starts_with('>') {
            open = false;
            continue;
        }
        let continues = open && !begins_block(trimmed);
        let visible = without_inline_code(trimmed);
        match found.last_mut().filter(|_| continues) {
            Some(block) => {
                block.text.push(' ');
                block.text.push_str(&visible);
            }
            None => found.push(Block { line: number, text: visible }),
        }
        open = true;
    }
    found
}

fn begins_block(line: &str) -> bool {
    let numbered =
        line.split_once(". ").is_some_and(|(first, _)| first.bytes().all(|each| each.is_ascii_digit()));
    numbered || ["- ", "* ", "#", "|", "<!--"].iter().any(|start| line.starts_with(start))
}

fn without_inline_code(line: &str) -> String {
    line.split('`').step_by(2).collect::<Vec<_>>().join(" ")
}

fn examine(text: &str, tally: &mut Tally) -> Vec<String> {
    if text.contains("BCP 14") {
        return Vec::new();
    }
    let mut found = Vec::new();
    for word in words(text) {
        if LOWER.contains(&word) {
            found.push(format!(
                "`{word}` outside a note: a requirement has it in capitals, the rest says it otherwise"
            ));
        }
        if UNUSED.contains(&word) {
            found.push(format!("`{word}` is not one of the keywords"));
        }
    }
    let mut pieces = text.split("**[");
    let before = pieces.next().unwrap_or_default();
    if let Some(word) = keywords(before).first() {
        found.push(format!("`{word}` in a sentence that is no requirement with an id"));
    }
    for piece in pieces {
        let marked = format!("**[{piece}");
        let Some((id, true)) = ids(&marked).first().copied() else {
            found.push(format!("`**[{}` is no requirement id", piece.chars().take(12).collect::<String>()));
            continue;
        };
        let keywords = keywords(piece);
        tally.requirements += 1;
        tally.shoulds += usize::from(keywords.contains(&"SHOULD"));
        if keywords.len() != 1 {
            found.push(format!("{id} has {} capital keywords, not one", keywords.len()));
        }
    }
    found
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|each: char| !each.is_alphabetic()).filter(|word| !word.is_empty())
}

fn keywords(text: &str) -> Vec<&str> {
    words(text).filter(|word| KEYWORDS.contains(word)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(text: &str) -> Vec<String> {
        let mut tally = Tally::default();
        blocks(text).iter().flat_map(|block| examine(&block.text, &mut tally)).collect()
    }

    #[test]
    fn a_requirement_has_an_id_and_one_keyword() {
        assert!(findings("**[MSG-001]** A home MUST NOT\nlose it.\n").is_empty());
        assert!(findings("**[MSG-001]** A MUST b. **[MSG-002]** C MAY d.").is_empty());
        assert_eq!(findings("**[MSG-001]** A home loses nothing.").len(), 1);
        assert_eq!(findings("**[MSG-001]** A MUST b, and c MUST d.").len(), 1);
        assert_eq!(findings("A home MUST not lose it.").len(), 1);
    }

    #[test]
    fn a_requirement_ends_with_its_paragraph_or_list_item() {
        assert_eq!(findings("- **[MSG-001]** A MUST b.\n- C MUST d.").len(), 1);
        assert_eq!(findings("**[MSG-001]** A MUST b.\n\nC MUST d.").len(), 1);
    }

    #[test]
    fn lower_case_keywords_stand_in_notes_and_code_only() {
        assert_eq!(findings("A home should try.").len(), 1);
        assert!(findings("> A home should try.\n\n```\nit may\n```\n\nThe word `must` and May.").is_empty());
        assert!(findings("<!-- gen:errors -->\n| it may not |\n<!-- /gen:errors -->\n").is_empty());
    }

    #[test]
    fn a_chapter_and_the_whole_that_are_too_long_are_found() {
        use super::super::fixtures::{Folder, settings};
        let long = "word ".repeat(31);
        let files = [("spec/01-a.md", long.as_str()), ("spec/annexes/b.md", &long)];
        let folder = Folder::new("prose-long", &files);
        let found = check(folder.path(), &settings().requirements).expect("the folder can be read");
        let expected = [
            "spec/01-a.md: 31 words, at most 30",
            "spec/annexes/b.md: 31 words, at most 30",
            "the specification has 62 words, at most 50",
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn too_many_shoulds_are_found() {
        use super::super::fixtures::{Folder, settings};
        let folder = Folder::new("prose-should", &[("spec/01-a.md", "**[MSG-001]** A home SHOULD try.\n")]);
        let found = check(folder.path(), &settings().requirements).expect("the folder can be read");
        assert_eq!(found, ["1 of 1 requirements are SHOULDs"]);
    }
}
