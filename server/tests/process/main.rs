//! The program `tidings` as its operator runs it: killed, stopped, without room on its disk, with mistakes in its
//! files, and between clients that keep no rule.

mod consent;
mod crash;
mod disk;
mod fuzz;
mod handshake;
mod links;
mod operator;
mod overload;
mod program;
mod raw;
mod requests;
mod stop;

#[path = "../wire/client.rs"]
#[allow(dead_code, reason = "shared with the target wire, which uses the rest")]
mod client;
#[path = "../wire/signal.rs"]
mod signal;
