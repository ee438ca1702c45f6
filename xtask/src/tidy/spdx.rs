//! Licence expressions as packages state them: words with `OR`, `AND`, `WITH`, brackets, and the old `/` for `OR`.

/// Whether the expression can be met with licences of which `allowed` approves.
///
/// # Errors
/// A sentence about what cannot be read.
pub(super) fn satisfied(expression: &str, allowed: &dyn Fn(&str) -> bool) -> Result<bool, String> {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut reader = Reader { words: &words, allowed };
    let answer = reader.any()?;
    if let [word, ..] = reader.words {
        return Err(format!("`{expression}`: `{word}` was not expected"));
    }
    Ok(answer)
}

struct Reader<'a> {
    words: &'a [&'a str],
    allowed: &'a dyn Fn(&str) -> bool,
}

impl<'a> Reader<'a> {
    fn any(&mut self) -> Result<bool, String> {
        let mut answer = self.all()?;
        while self.take("OR") {
            answer |= self.all()?;
        }
        Ok(answer)
    }

    fn all(&mut self) -> Result<bool, String> {
        let mut answer = self.one()?;
        while self.take("AND") {
            answer &= self.one()?;
        }
        Ok(answer)
    }

    fn one(&mut self) -> Result<bool, String> {
        if self.take("(") {
            let answer = self.any()?;
            return if self.take(")") { Ok(answer) } else { Err("a bracket is not closed".to_owned()) };
        }
        let name = self.word()?;
        if self.take("WITH") {
            let exception = self.word()?;
            return Ok((self.allowed)(name) || (self.allowed)(&format!("{name} WITH {exception}")));
        }
        Ok((self.allowed)(name))
    }

    fn take(&mut self, word: &str) -> bool {
        match self.words {
            [first, rest @ ..] if *first == word => {
                self.words = rest;
                true
            }
            _ => false,
        }
    }

    fn word(&mut self) -> Result<&'a str, String> {
        match self.words {
            [first, rest @ ..] if !["OR", "AND", "WITH", "(", ")"].contains(first) => {
                self.words = rest;
                Ok(first)
            }
            _ => Err("a licence was expected".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meets(expression: &str) -> Result<bool, String> {
        satisfied(expression, &|name| ["MIT", "ISC", "Apache-2.0 WITH LLVM-exception"].contains(&name))
    }

    #[test]
    fn one_of_several_is_enough_and_all_of_several_are_needed() {
        assert_eq!(meets("MIT OR GPL-3.0-only"), Ok(true));
        assert_eq!(meets("GPL-3.0-only/MIT"), Ok(true));
        assert_eq!(meets("MIT AND GPL-3.0-only"), Ok(false));
        assert_eq!(meets("(GPL-3.0-only OR MIT) AND ISC"), Ok(true));
        assert_eq!(meets("GPL-3.0-only OR MIT AND ISC"), Ok(true));
    }

    #[test]
    fn an_exception_can_be_what_allows_it() {
        assert_eq!(meets("Apache-2.0 WITH LLVM-exception"), Ok(true));
        assert_eq!(meets("Apache-2.0"), Ok(false));
    }

    #[test]
    fn what_cannot_be_read_is_no_permission() {
        assert!(meets("").is_err() && meets("(MIT").is_err() && meets("MIT MIT").is_err());
    }
}
