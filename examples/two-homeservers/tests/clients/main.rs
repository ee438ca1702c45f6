//! Real devices against a real homeserver: each test starts one as a process of its own.

mod consent;
mod devices;
mod groups;
mod healing;
mod messages;
mod offline;
mod trust;
mod world;
