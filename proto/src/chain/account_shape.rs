//! The fields of an account link's body, for the scan.

use crate::canonical::{Kind, Shape, once, repeated};

static DEVICE: Shape =
    Shape { name: "Device", fields: &[once(1, Kind::Bytes), once(2, Kind::Bytes), once(3, Kind::Uint32)] };
static GENESIS: Shape = Shape {
    name: "AccountGenesis",
    fields: &[
        once(1, Kind::Bytes),
        once(2, Kind::Text),
        once(3, Kind::Message(&DEVICE)),
        once(4, Kind::Bytes),
    ],
};
static ONE_BYTES: Shape = Shape { name: "AccountLink", fields: &[once(1, Kind::Bytes)] };
static ONE_TEXT: Shape = Shape { name: "AccountLink", fields: &[once(1, Kind::Text)] };
static NAMED_DEVICE: Shape =
    Shape { name: "NamedDevice", fields: &[once(1, Kind::Bytes), once(2, Kind::Message(&DEVICE))] };
static CHECKPOINT: Shape = Shape {
    name: "AccountCheckpoint",
    fields: &[
        once(1, Kind::Bytes),
        once(2, Kind::Text),
        once(3, Kind::Uint32),
        repeated(4, Kind::Message(&NAMED_DEVICE)),
    ],
};

/// `AccountLinkBody`.
pub(super) static BODY: Shape = Shape {
    name: "AccountLinkBody",
    fields: &[
        once(1, Kind::Uint32),
        once(2, Kind::Bytes),
        once(3, Kind::Bytes),
        once(4, Kind::Uint64),
        repeated(5, Kind::Bytes),
        once(16, Kind::Message(&GENESIS)),
        once(17, Kind::Message(&DEVICE)),
        once(18, Kind::Message(&ONE_BYTES)),
        once(19, Kind::Message(&ONE_BYTES)),
        once(20, Kind::Message(&ONE_TEXT)),
        once(21, Kind::Message(&CHECKPOINT)),
        once(22, Kind::Message(&ONE_BYTES)),
        once(23, Kind::Message(&ONE_TEXT)),
    ],
};
