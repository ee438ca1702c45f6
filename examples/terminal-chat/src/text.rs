//! Text that somebody else wrote, made harmless and laid out in columns. Pure.
//!
//! Invariant: what [`clean`] returns holds no control character but the line feed, and nothing that reorders or
//! hides the characters around it. Whatever is printed or drawn went through it.
//!
//! Terminals disagree about how wide an emoji of several parts is, and one that is wrong leaves rubbish behind.
//! The parts are therefore shown side by side: every terminal agrees about those.

use unicode_segmentation::UnicodeSegmentation as _;
use unicode_width::UnicodeWidthStr as _;

/// Marks stacked on one character that are still shown; scripts need fewer, mischief uses hundreds.
const MARKS: usize = 6;
/// Columns between two tab stops.
const TAB: &str = "    ";

/// Makes text harmless: control characters and invisible ones become visible, line feeds stay.
pub(crate) fn clean(text: &str) -> String {
    let text = text.replace("\r\n", "\n");
    let mut out = String::with_capacity(text.len());
    let mut marks = 0;
    let mut before_is_emoji = false;
    for c in text.chars() {
        if before_is_emoji && matches!(c, '\u{200d}' | '\u{fe0f}' | '\u{1f3fb}'..='\u{1f3ff}') {
            continue;
        }
        before_is_emoji = is_emoji(c);
        if is_mark(c) {
            marks += 1;
            if marks > MARKS {
                continue;
            }
        } else {
            marks = 0;
        }
        match c {
            '\n' => out.push('\n'),
            '\t' => out.push_str(TAB),
            '\0'..='\u{1f}' => out.push(char::from_u32(0x2400 + u32::from(c)).unwrap_or('\u{fffd}')),
            '\u{7f}' => out.push('\u{2421}'),
            c if is_hidden(c) => out.push_str(&format!("‹U+{:04X}›", u32::from(c))),
            c => out.push(c),
        }
    }
    out
}

/// As [`clean`], on one line.
pub(crate) fn clean_line(text: &str) -> String {
    clean(text).replace('\n', " ⏎ ")
}

/// Controls of the second range, what reorders text, and what takes no room and is no joiner of a script.
fn is_hidden(c: char) -> bool {
    matches!(
        c,
        '\u{80}'..='\u{9f}'
            | '\u{ad}'
            | '\u{61c}'
            | '\u{180e}'
            | '\u{200b}'
            | '\u{200e}'
            | '\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e007f}'
    )
}

/// What may join with others to one emoji.
fn is_emoji(c: char) -> bool {
    matches!(c, '\u{203c}'..='\u{3299}' | '\u{1f000}'..='\u{1faff}')
}

fn is_mark(c: char) -> bool {
    !c.is_control() && !is_hidden(c) && unicode_width::UnicodeWidthChar::width(c) == Some(0)
}

/// The beginning of an id, enough for a person to tell two apart.
pub(crate) fn short(id: impl std::fmt::Display) -> String {
    id.to_string().chars().take(12).collect()
}

/// Columns a line takes.
pub(crate) fn width(line: &str) -> usize {
    line.width()
}

/// Breaks text into lines of at most `columns`, at spaces where there are any. Never empty.
pub(crate) fn wrap(text: &str, columns: usize) -> Vec<String> {
    text.split('\n').flat_map(|line| wrap_line(line, columns.max(2))).collect()
}

fn wrap_line(line: &str, columns: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let (mut current, mut used) = (String::new(), 0);
    for word in line.split_word_bounds() {
        let space = word.chars().all(char::is_whitespace);
        let wide = width(word);
        if used + wide <= columns {
            current.push_str(word);
            used += wide;
            continue;
        }
        if space {
            // The break stands for the space.
            lines.push(std::mem::take(&mut current));
            used = 0;
            continue;
        }
        if wide <= columns {
            lines.push(std::mem::take(&mut current).trim_end().to_owned());
            current.push_str(word);
            used = wide;
            continue;
        }
        for symbol in word.graphemes(true) {
            let wide = width(symbol);
            if used + wide > columns {
                lines.push(std::mem::take(&mut current));
                used = 0;
            }
            current.push_str(symbol);
            used += wide;
        }
    }
    lines.push(current);
    lines
}

/// The beginning of a line that fits, with an ellipsis if something is left out.
pub(crate) fn cut(line: &str, columns: usize) -> String {
    if width(line) <= columns {
        return line.to_owned();
    }
    let mut out = String::new();
    let mut used = 0;
    for symbol in line.graphemes(true) {
        let wide = width(symbol);
        if used + wide + 1 > columns {
            break;
        }
        out.push_str(symbol);
        used += wide;
    }
    if columns > 0 {
        out.push('…');
    }
    out
}

/// A line cut or filled with spaces to exactly so many columns.
pub(crate) fn pad(line: &str, columns: usize) -> String {
    let mut out = cut(line, columns);
    let missing = columns.saturating_sub(width(&out));
    out.extend(std::iter::repeat_n(' ', missing));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escape_sequences_are_shown_and_do_nothing() {
        assert_eq!(clean("\u{1b}[31mred\u{7}"), "␛[31mred␇");
        assert_eq!(clean("a\rb\u{7f}"), "a␍b␡");
        assert_eq!(clean("\u{9b}2J"), "‹U+009B›2J");
        assert_eq!(clean("one\r\ntwo\n\tthree"), "one\ntwo\n    three");
    }

    #[test]
    fn what_reorders_or_hides_text_is_named() {
        assert_eq!(clean("a\u{202e}b\u{2066}c"), "a‹U+202E›b‹U+2066›c");
        assert_eq!(clean("pay\u{200b}pal"), "pay‹U+200B›pal");
        assert_eq!(clean("x\u{2028}y"), "x‹U+2028›y");
    }

    #[test]
    fn scripts_stay_whole() {
        for text in ["नमस्ते", "👩", "e\u{301}", "שלום", "日本語", "می‌خواهم"] {
            assert_eq!(clean(text), text);
        }
    }

    #[test]
    fn emoji_of_several_parts_are_shown_in_parts() {
        assert_eq!(clean("👩\u{200d}👩\u{200d}👧"), "👩👩👧");
        assert_eq!(clean("\u{2764}\u{fe0f} 👍\u{1f3fd}"), "\u{2764} 👍");
    }

    #[test]
    fn towers_of_marks_are_cut() {
        let tower = format!("a{}b", "\u{301}".repeat(500));
        assert_eq!(clean(&tower).chars().count(), 2 + MARKS);
    }

    #[test]
    fn no_character_survives_that_moves_a_cursor() {
        for c in (0..=0x10_ffff).filter_map(char::from_u32) {
            assert!(clean(&c.to_string()).chars().all(|c| c == '\n' || !c.is_control()), "{c:?}");
        }
    }

    #[test]
    fn lines_break_at_spaces_and_long_words_anywhere() {
        assert_eq!(wrap("one two three", 7), ["one two", "three"]);
        assert_eq!(wrap("abcdefghij", 4), ["abcd", "efgh", "ij"]);
        assert_eq!(wrap("日本語", 4), ["日本", "語"]);
        assert_eq!(wrap("a\n\nb", 9), ["a", "", "b"]);
        assert_eq!(wrap("", 9), [""]);
        assert_eq!(wrap("日", 0), ["日"]);
    }

    #[test]
    fn cutting_never_halves_a_wide_character() {
        assert_eq!(cut("日本語", 5), "日本…");
        assert_eq!(cut("日本語", 4), "日…");
        assert_eq!(cut("abc", 3), "abc");
        assert_eq!(cut("abc", 0), "");
        assert_eq!(pad("日本語", 6), "日本語");
        assert_eq!(pad("日本語", 4), "日… ");
    }
}
