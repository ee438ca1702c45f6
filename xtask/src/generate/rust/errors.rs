//! The error codes: consts of the newtype `Code` and the table behind its methods, included by `proto/src/error.rs`.

use super::{camel, doc, shout, writeln_to};
use crate::registry::Registry;

/// The file's text.
pub(super) fn file(registry: &Registry) -> String {
    let mut out = "impl Code {\n".to_owned();
    for error in &registry.errors {
        doc(&mut out, &error.text);
        if !error.reqs.is_empty() {
            out.push_str("///\n");
            doc(&mut out, &format!("Raised by {}.", error.reqs.join(", ")));
        }
        writeln_to(
            &mut out,
            &format!("pub const {}: Self = Self(0x{:02x});", shout(&error.name), error.code),
        );
    }
    out.push_str("}\n\nconst TABLE: &[Entry] = &[\n");
    for error in &registry.errors {
        writeln_to(
            &mut out,
            &format!(
                "Entry {{ code: 0x{:02x}, name: {:?}, scope: Scope::{}, retry: Retry::{}, show: {}, text: {:?} }},",
                error.code,
                error.name,
                camel(&error.scope),
                camel(&error.retry),
                error.show,
                error.text,
            ),
        );
    }
    out.push_str("];\n");
    out
}
