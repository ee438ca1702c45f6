//! What a peer reads when a rule says no: the protocol crate's refusals, and a short way to make one.

pub use tidings_proto::error::{Code, Refusal};

/// Makes refusals of codes.
pub trait Because {
    /// A refusal with a word for the logs of whoever reads it: no names, no bytes of messages.
    fn because(self, detail: &str) -> Refusal;
}

impl Because for Code {
    fn because(self, detail: &str) -> Refusal {
        Refusal::new(self, detail)
    }
}
