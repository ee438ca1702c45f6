//! Homeservers seen through their wire: a raw client over the protocol crate and quinn.

mod away;
mod client;
mod consent;
mod devices;
mod group_rules;
mod groups;
mod one;
mod pair;
mod restore;
mod room;
mod signal;
mod two;
mod world;
