//! The Tidings client SDK, as far as it is built: end-to-end encryption between devices, and the code
//! that links a new device.
#![warn(missing_docs)]

pub mod crypto;
pub mod link_code;
