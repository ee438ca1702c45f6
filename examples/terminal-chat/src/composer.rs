//! The line, or lines, a person types. Pure.
//!
//! Invariant: the cursor stands between two characters as a person counts them (grapheme clusters), never inside.

use unicode_segmentation::UnicodeSegmentation as _;

use crate::text;

/// Text with a cursor.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Composer {
    text: String,
    /// Byte index into `text`.
    cursor: usize,
}

impl From<String> for Composer {
    fn from(text: String) -> Self {
        let cursor = text.len();
        Self { text, cursor }
    }
}

impl Composer {
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    /// Takes the text out and leaves nothing.
    pub(crate) fn take(&mut self) -> String {
        self.cursor = 0;
        std::mem::take(&mut self.text)
    }

    fn before(&self) -> &str {
        self.text.get(..self.cursor).unwrap_or_default()
    }

    fn after(&self) -> &str {
        self.text.get(self.cursor..).unwrap_or_default()
    }

    /// Writes at the cursor. Line ends become line feeds; other control characters but the tab are left out.
    pub(crate) fn insert(&mut self, text: &str) {
        let text = text.replace("\r\n", "\n").replace('\r', "\n");
        let kept: String = text.chars().filter(|&c| c == '\n' || c == '\t' || !c.is_control()).collect();
        let before = format!("{}{kept}", self.before());
        self.text = format!("{before}{}", self.after());
        // A mark may have joined the character before the cursor: go behind the whole of it.
        self.cursor = self.boundary_from(before.len());
    }

    fn boundary_from(&self, at: usize) -> usize {
        let starts = self.text.grapheme_indices(true).map(|(start, _)| start);
        starts.chain([self.text.len()]).find(|&start| start >= at).unwrap_or(self.text.len())
    }

    pub(crate) fn left(&mut self) {
        self.cursor -= self.before().graphemes(true).next_back().map_or(0, str::len);
    }

    pub(crate) fn right(&mut self) {
        self.cursor += self.after().graphemes(true).next().map_or(0, str::len);
    }

    pub(crate) fn word_left(&mut self) {
        let mut words = self.before().split_word_bound_indices();
        let start = words.rfind(|(_, word)| !word.trim().is_empty()).map_or(0, |(start, _)| start);
        self.cursor = start;
    }

    pub(crate) fn word_right(&mut self) {
        let mut words = self.after().split_word_bound_indices();
        let word = words.find(|(_, word)| !word.trim().is_empty());
        self.cursor += word.map_or_else(|| self.after().len(), |(start, word)| start + word.len());
    }

    /// To the beginning of the line.
    pub(crate) fn home(&mut self) {
        self.cursor = self.before().rfind('\n').map_or(0, |at| at + 1);
    }

    /// To the end of the line.
    pub(crate) fn end(&mut self) {
        self.cursor += self.after().find('\n').unwrap_or_else(|| self.after().len());
    }

    /// One line up; false if this is the first.
    pub(crate) fn up(&mut self) -> bool {
        let start = self.before().rfind('\n');
        let Some(start) = start else { return false };
        let column = self.text.get(start + 1..self.cursor).map_or(0, text::width);
        self.cursor = start;
        self.home();
        self.go_to_column(column);
        true
    }

    /// One line down; false if this is the last.
    pub(crate) fn down(&mut self) -> bool {
        let Some(end) = self.after().find('\n') else { return false };
        let start = self.before().rfind('\n').map_or(0, |at| at + 1);
        let column = self.text.get(start..self.cursor).map_or(0, text::width);
        self.cursor += end + 1;
        self.go_to_column(column);
        true
    }

    fn go_to_column(&mut self, column: usize) {
        let mut used = 0;
        let mut at = self.cursor;
        for symbol in self.after().graphemes(true) {
            used += text::width(symbol);
            if symbol == "\n" || used > column {
                break;
            }
            at += symbol.len();
        }
        self.cursor = at;
    }

    fn remove(&mut self, from: usize, to: usize) {
        self.text.replace_range(from..to, "");
        self.cursor = self.boundary_from(from);
    }

    pub(crate) fn backspace(&mut self) {
        let end = self.cursor;
        self.left();
        self.remove(self.cursor, end);
    }

    pub(crate) fn delete(&mut self) {
        let start = self.cursor;
        self.right();
        self.remove(start, self.cursor);
    }

    pub(crate) fn delete_word(&mut self) {
        let end = self.cursor;
        self.word_left();
        self.remove(self.cursor, end);
    }

    pub(crate) fn delete_to_home(&mut self) {
        let end = self.cursor;
        self.home();
        self.remove(self.cursor, end);
    }

    pub(crate) fn delete_to_end(&mut self) {
        let start = self.cursor;
        self.end();
        self.remove(start, self.cursor);
    }

    /// The lines as drawn in so many columns, and row and column of the cursor.
    pub(crate) fn rows(&self, columns: usize) -> (Vec<String>, (usize, usize)) {
        let columns = columns.max(2);
        let mut rows = vec![String::new()];
        let (mut used, mut cursor) = (0, None);
        for (start, symbol) in self.text.grapheme_indices(true) {
            let newline = symbol == "\n";
            let shown = if newline { String::new() } else { text::clean_line(symbol) };
            let wide = text::width(&shown);
            if !newline && used + wide > columns {
                rows.push(String::new());
                used = 0;
            }
            if start == self.cursor {
                cursor = Some((rows.len() - 1, used));
            }
            if newline {
                rows.push(String::new());
                used = 0;
            } else if let Some(row) = rows.last_mut() {
                row.push_str(&shown);
                used += wide;
            }
        }
        if cursor.is_none() && used >= columns {
            rows.push(String::new());
            used = 0;
        }
        let cursor = cursor.unwrap_or((rows.len() - 1, used));
        (rows, cursor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(text: &str) -> Composer {
        let mut composer = Composer::default();
        composer.insert(text);
        composer
    }

    #[test]
    fn the_cursor_moves_over_whole_characters() {
        let mut composer = typed("a👩‍👩‍👧e\u{301}");
        composer.left();
        composer.backspace();
        assert_eq!(composer.text(), "ae\u{301}");
        composer.right();
        composer.backspace();
        assert_eq!(composer.text(), "a");
        composer.left();
        composer.left();
        composer.delete();
        composer.delete();
        assert!(composer.is_empty());
    }

    #[test]
    fn a_mark_typed_alone_joins_the_character_before() {
        let mut composer = typed("e");
        composer.insert("\u{301}");
        composer.left();
        assert_eq!(composer.rows(10).1, (0, 0));
    }

    #[test]
    fn lines_are_walked_up_and_down_by_column() {
        let mut composer = typed("日本語\nab\nabcdef");
        assert!(composer.up());
        assert_eq!(composer.rows(80).1, (1, 2));
        assert!(composer.up());
        assert_eq!(composer.rows(80).1, (0, 2));
        assert!(!composer.up());
        assert!(composer.down());
        composer.end();
        assert!(composer.down());
        assert!(!composer.down());
        assert_eq!(composer.rows(80).1, (2, 2));
    }

    #[test]
    fn words_and_line_parts_go_as_a_shell_would() {
        let mut composer = typed("one two  three");
        composer.delete_word();
        assert_eq!(composer.text(), "one two  ");
        composer.word_left();
        composer.delete_to_end();
        assert_eq!(composer.text(), "one ");
        composer.delete_to_home();
        assert!(composer.is_empty());
        composer.insert("one two");
        composer.home();
        composer.word_right();
        assert_eq!(composer.rows(80).1, (0, 3));
    }

    #[test]
    fn pasted_controls_are_left_out_and_lines_kept() {
        assert_eq!(typed("a\r\nb\rc\u{1b}[0m").text(), "a\nb\nc[0m");
    }

    #[test]
    fn rows_break_where_the_width_ends_and_the_cursor_follows() {
        assert_eq!(typed("日本語").rows(4), (vec!["日本".to_owned(), "語".to_owned()], (1, 2)));
        assert_eq!(typed("abcd").rows(4), (vec!["abcd".to_owned(), String::new()], (1, 0)));
        assert_eq!(typed("").rows(0), (vec![String::new()], (0, 0)));
    }
}
