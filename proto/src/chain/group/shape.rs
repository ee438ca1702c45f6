//! The fields of a group link's body, for the scan.

use crate::canonical::{Kind, Shape, once, repeated};

static AUTHOR: Shape = Shape {
    name: "Author",
    fields: &[once(1, Kind::Bytes), once(2, Kind::Bytes), once(3, Kind::Bytes), once(4, Kind::Uint64)],
};
/// `ServerRef`.
static SERVER: Shape = Shape { name: "ServerRef", fields: &[once(1, Kind::Text), once(2, Kind::Bytes)] };
/// `ServerSigner`.
static SIGNER: Shape = Shape {
    name: "ServerSigner",
    fields: &[once(1, Kind::Message(&SERVER)), once(2, Kind::Bytes), once(3, Kind::Bytes)],
};
/// `GroupPosition`.
static POSITION: Shape = Shape {
    name: "GroupPosition",
    fields: &[once(1, Kind::Uint64), once(2, Kind::Uint64), once(3, Kind::Bytes)],
};
static POLICY: Shape = Shape {
    name: "Policy",
    fields: &[once(1, Kind::Uint32), once(2, Kind::Uint32), once(3, Kind::Uint32), once(4, Kind::Uint32)],
};
static GENESIS: Shape = Shape {
    name: "GroupGenesis",
    fields: &[
        once(1, Kind::Bytes),
        once(2, Kind::Text),
        once(3, Kind::Message(&SERVER)),
        once(4, Kind::Message(&POLICY)),
        once(5, Kind::Bytes),
    ],
};
static INVITEE: Shape = Shape { name: "Invitee", fields: &[once(1, Kind::Bytes), once(2, Kind::Text)] };
static ADD_MEMBERS: Shape = Shape { name: "AddMembers", fields: &[repeated(1, Kind::Message(&INVITEE))] };
static ACCEPT: Shape = Shape { name: "AcceptMembership", fields: &[once(1, Kind::Text)] };
static LEAVE: Shape = Shape { name: "Leave", fields: &[] };
static REMOVE_MEMBERS: Shape = Shape { name: "RemoveMembers", fields: &[repeated(1, Kind::Bytes)] };
static SET_ROLE: Shape = Shape { name: "SetRole", fields: &[once(1, Kind::Bytes), once(2, Kind::Uint32)] };
static SET_PROFILE: Shape = Shape { name: "SetProfile", fields: &[once(1, Kind::Bytes)] };
static SET_KEEPERS: Shape = Shape { name: "SetKeepers", fields: &[repeated(1, Kind::Message(&SERVER))] };
static ADVANCE: Shape = Shape { name: "Advance", fields: &[once(1, Kind::Text), once(2, Kind::Bool)] };
static REQUIRE_FEATURE: Shape = Shape { name: "RequireFeature", fields: &[once(1, Kind::Uint32)] };
static TRANSFER: Shape =
    Shape { name: "HubTransfer", fields: &[once(1, Kind::Uint64), once(2, Kind::Message(&SIGNER))] };
static SIGNED_VOTE: Shape =
    Shape { name: "SignedVote", fields: &[once(1, Kind::Bytes), once(2, Kind::Bytes)] };
static SUCCESSION: Shape = Shape {
    name: "HubSuccession",
    fields: &[
        once(1, Kind::Uint64),
        once(2, Kind::Message(&POSITION)),
        once(3, Kind::Message(&SIGNER)),
        repeated(4, Kind::Message(&SIGNED_VOTE)),
    ],
};
static CHECKPOINT: Shape =
    Shape { name: "GroupCheckpoint", fields: &[once(1, Kind::Bytes), once(2, Kind::Message(&SIGNER))] };

/// `GroupLinkBody`.
pub(super) static BODY: Shape = Shape {
    name: "GroupLinkBody",
    fields: &[
        once(1, Kind::Uint32),
        once(2, Kind::Bytes),
        once(3, Kind::Bytes),
        once(4, Kind::Uint64),
        repeated(5, Kind::Bytes),
        once(6, Kind::Message(&AUTHOR)),
        once(16, Kind::Message(&GENESIS)),
        once(17, Kind::Message(&ADD_MEMBERS)),
        once(18, Kind::Message(&ACCEPT)),
        once(19, Kind::Message(&LEAVE)),
        once(20, Kind::Message(&REMOVE_MEMBERS)),
        once(21, Kind::Message(&SET_ROLE)),
        once(22, Kind::Message(&POLICY)),
        once(23, Kind::Message(&SET_PROFILE)),
        once(24, Kind::Message(&SET_KEEPERS)),
        once(25, Kind::Message(&ADVANCE)),
        once(26, Kind::Message(&REQUIRE_FEATURE)),
        once(27, Kind::Message(&TRANSFER)),
        once(28, Kind::Message(&SUCCESSION)),
        once(29, Kind::Message(&CHECKPOINT)),
    ],
};

/// `KeeperVote`; a proposal is one without field 5.
pub(crate) static VOTE: Shape = Shape {
    name: "KeeperVote",
    fields: &[
        once(1, Kind::Bytes),
        once(2, Kind::Uint64),
        once(3, Kind::Message(&POSITION)),
        once(4, Kind::Message(&SERVER)),
        once(5, Kind::Message(&SIGNER)),
    ],
};

/// `GroupHead`.
pub(crate) static HEAD: Shape = Shape {
    name: "GroupHead",
    fields: &[
        once(1, Kind::Bytes),
        once(2, Kind::Message(&POSITION)),
        once(3, Kind::Uint64),
        once(4, Kind::Message(&SIGNER)),
    ],
};
