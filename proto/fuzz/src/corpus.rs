//! Input that once broke something: `corpus/<target>/*.hex`, hexadecimal with white space; `#` begins a remark.

use std::fs;
use std::path::Path;

/// The inputs for a target, in the order of their file names.
pub(crate) fn read(target: &str) -> Result<Vec<Vec<u8>>, String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let listed = fs::read_dir(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let mut paths: Vec<_> = listed.filter_map(|file| file.ok().map(|file| file.path())).collect();
    paths.sort();
    paths
        .iter()
        .filter(|path| path.extension().is_some_and(|extension| extension == "hex"))
        .map(|path| {
            let text = fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
            parse(&text).map_err(|error| format!("{}: {error}", path.display()))
        })
        .collect()
}

fn parse(text: &str) -> Result<Vec<u8>, hex::FromHexError> {
    let digits = text.lines().map(|line| line.split('#').next().unwrap_or_default());
    let digits: String = digits.flat_map(str::chars).filter(|each| !each.is_whitespace()).collect();
    hex::decode(digits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remarks_and_white_space_are_left_out() {
        assert_eq!(parse("# why\n00 ff # here\n01\n"), Ok(vec![0, 255, 1]));
        assert!(parse("0").is_err());
    }
}
