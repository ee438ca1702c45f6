//! Rust text with comments and literals blanked out, line for line, and where its functions begin and end.
//!
//! This is no parser: it knows just enough of the language that braces can be counted.

/// The text with everything in comments, strings and character literals replaced by spaces.
pub(super) fn code_only(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < chars.len() {
        let end = literal_end(&chars, at);
        if end == at {
            out.push(chars[at]);
            at += 1;
        } else {
            out.extend(chars[at..end].iter().map(|each| if *each == '\n' { '\n' } else { ' ' }));
            at = end;
        }
    }
    out
}

/// Where the comment or literal that begins at `at` ends; `at` itself if none begins there.
fn literal_end(chars: &[char], at: usize) -> usize {
    let rest = &chars[at..];
    match rest {
        ['/', '/', ..] => at + rest.iter().position(|each| *each == '\n').unwrap_or(rest.len()),
        ['/', '*', ..] => at + block_comment(rest),
        ['"', ..] => at + 1 + quoted(&rest[1..], '"'),
        ['r', ..] if !follows_name(chars, at) => at + raw_string(rest),
        ['b' | 'c', 'r', ..] if !follows_name(chars, at) => match raw_string(&rest[1..]) {
            0 => at,
            length => at + 1 + length,
        },
        ['\'', '\\', ..] => at + 1 + quoted(&rest[1..], '\''),
        ['\'', _, '\'', ..] => at + 3,
        _ => at,
    }
}

fn follows_name(chars: &[char], at: usize) -> bool {
    at > 0 && (chars[at - 1].is_alphanumeric() || chars[at - 1] == '_')
}

fn block_comment(rest: &[char]) -> usize {
    let mut depth = 0_usize;
    let mut at = 0;
    while at < rest.len() {
        match &rest[at..] {
            ['/', '*', ..] => {
                depth += 1;
                at += 2;
            }
            ['*', '/', ..] => {
                depth -= 1;
                at += 2;
                if depth == 0 {
                    return at;
                }
            }
            _ => at += 1,
        }
    }
    rest.len()
}

fn quoted(rest: &[char], end: char) -> usize {
    let mut at = 0;
    while at < rest.len() {
        match rest[at] {
            '\\' => at += 2,
            found if found == end => return at + 1,
            _ => at += 1,
        }
    }
    rest.len()
}

/// The length of a raw string that begins here with `r`, else 0.
fn raw_string(rest: &[char]) -> usize {
    let hashes = rest[1..].iter().take_while(|each| **each == '#').count();
    if rest.get(1 + hashes) != Some(&'"') {
        return 0;
    }
    let start = hashes + 2;
    let ends = |at: &usize| {
        rest[*at] == '"' && rest[at + 1..].iter().take(hashes).filter(|each| **each == '#').count() == hashes
    };
    (start..rest.len()).find(ends).map_or(rest.len(), |at| at + 1 + hashes)
}

/// A function in a file; lines count from 1.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Function {
    pub(super) name: String,
    pub(super) line: usize,
    pub(super) lines: usize,
}

/// The functions with a body, in the order in which they begin.
pub(super) fn functions(text: &str) -> Vec<Function> {
    let code = code_only(text);
    let mut found = Vec::new();
    for (at, _) in code.match_indices("fn ") {
        let before = code[..at].chars().next_back();
        if before.is_some_and(|each| each.is_alphanumeric() || each == '_') {
            continue;
        }
        let after = code[at + 3..].trim_start();
        let name: String = after.chars().take_while(|each| each.is_alphanumeric() || *each == '_').collect();
        if let Some(length) = body_end(&code[at..]).filter(|_| !name.is_empty()) {
            let line = code[..at].matches('\n').count() + 1;
            let lines = code[at..at + length].matches('\n').count() + 1;
            found.push(Function { name, line, lines });
        }
    }
    found
}

/// The distance to the brace that closes the body; `None` for a function without one.
fn body_end(code: &str) -> Option<usize> {
    let mut braces = 0_usize;
    let mut others = 0_usize;
    for (at, each) in code.char_indices() {
        match each {
            '(' | '[' => others += 1,
            ')' | ']' => others = others.checked_sub(1)?,
            ';' if braces == 0 && others == 0 => return None,
            '{' => braces += 1,
            '}' => {
                braces = braces.checked_sub(1)?;
                if braces == 0 && others == 0 {
                    return Some(at);
                }
            }
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_and_comments_are_blanked() {
        assert_eq!(code_only(r#"a("}\"") // {"#).trim_end(), "a(     )");
        assert_eq!(code_only("x = '{'; y: &'a str"), "x =    ; y: &'a str");
        assert_eq!(code_only("/* { /* } */ */z"), "               z");
        assert_eq!(code_only(r##"br#"{"#;"##), "       ;");
        assert_eq!(code_only("for r in x"), "for r in x");
    }

    #[test]
    fn functions_are_measured_from_their_name_to_the_closing_brace() {
        let text =
            "fn a() {\n  let x = \"}\";\n}\n\ntrait T {\n  fn b(&self);\n  fn c(x: [u8; 2]) -> u8 { 1 }\n}\n";
        let function = |name: &str, line, lines| Function { name: name.to_owned(), line, lines };
        assert_eq!(functions(text), [function("a", 1, 3), function("c", 7, 1)]);
    }

    #[test]
    fn function_pointers_are_no_functions() {
        assert_eq!(functions("type F = fn (u8) -> u8; const fn x() {}").len(), 1);
    }
}
