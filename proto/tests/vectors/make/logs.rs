//! Chapters 03 and 06: running hashes, positions, Voids, watermarks, epochs.

use prost::Message as _;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tidings_proto::pb;

use crate::vector::File;

type Hash = [u8; 32];

fn next(before: Hash, entry: &[u8]) -> Hash {
    let digest = Sha256::digest(entry);
    Sha256::digest([b"tidings/1 log\0", &before[..], &digest].concat()).into()
}

fn entry(kind: u64, body: &[u8]) -> Vec<u8> {
    pb::Entry { r#type: kind, body: body.to_vec().into() }.encode_to_vec()
}

fn void(from: u64, to: u64, hash: &[u8]) -> Vec<u8> {
    let body = pb::Void { from, to, reason: 1, hash: hash.to_vec().into() };
    entry(0x0a, &body.encode_to_vec())
}

fn position(n: u64, h: Hash) -> Value {
    json!({"incarnation": "01".repeat(16), "n": n.to_string(), "hash": hex::encode(h)})
}

fn shipped(entries: &[(u64, Vec<u8>)]) -> Value {
    entries.iter().map(|(n, entry)| json!({"n": n.to_string(), "entry": hex::encode(entry)})).collect()
}

pub(crate) fn log() -> File {
    let question = "A reader at this position gets these entries: at which position is it then?";
    let mut file = File::new("03-logs", "log", question);
    taken(&mut file);
    voids(&mut file);
    refused(&mut file);
    malformed(&mut file);
    file
}

type Entries = [(u64, Vec<u8>)];

/// A reader at `from` that takes these entries; its hashes on the way, and the number at the end.
fn add(
    file: &mut File,
    (req, comment): (&str, &str),
    from: (u64, Hash),
    entries: &Entries,
    to: (u64, &[Hash]),
) {
    let inputs = json!({"position": position(from.0, from.1), "entries": shipped(entries)});
    let end = to.1.last().copied().unwrap_or(from.1);
    let vector = file.valid(&[req], comment, inputs, position(to.0, end));
    vector.steps(json!({"hashes": to.1.iter().map(hex::encode).collect::<Vec<_>>()}));
}

const START: Hash = [0; 32];
/// What a Void says of its end: not to be checked by a reader.
const BEYOND: Hash = [0xe5; 32];

fn one() -> Vec<u8> {
    entry(0x08, &[0x08, 0x03])
}

fn two() -> Vec<u8> {
    entry(0x02, &[0x18, 0x09])
}

fn taken(file: &mut File) {
    let h1 = next(START, &one());
    let h2 = next(h1, &two());
    let of = |comment: &'static str| ("LOG-011", comment);
    add(file, of("nothing comes"), (0, START), &[], (0, &[]));
    add(file, of("the first entry"), (0, START), &[(1, one())], (1, &[h1]));
    add(file, of("two entries"), (0, START), &[(1, one()), (2, two())], (2, &[h1, h2]));
    add(file, of("going on behind the first"), (1, h1), &[(2, two())], (2, &[h2]));
    for (comment, bytes) in [
        ("an entry of no bytes: type 0 without a body", Vec::new()),
        ("an unknown odd type counts", entry(0x21, b"any")),
        ("an unknown even type counts: it is stored", entry(0x7e, b"any")),
        ("bytes that are no Entry count", vec![0xff]),
    ] {
        let hash = next(h1, &bytes);
        add(file, ("LOG-030", comment), (1, h1), &[(2, bytes)], (2, &[hash]));
    }
}

fn voids(file: &mut File) {
    let h1 = next(START, &one());
    let of = |comment: &'static str| ("LOG-023", comment);
    add(file, of("a Void of four numbers"), (1, h1), &[(2, void(2, 5, &BEYOND))], (5, &[BEYOND]));
    add(file, of("a Void of one number"), (1, h1), &[(2, void(2, 2, &BEYOND))], (2, &[BEYOND]));
    add(file, of("a Void from the first number on"), (0, START), &[(1, void(1, 9, &BEYOND))], (9, &[BEYOND]));
    let after = [BEYOND, next(BEYOND, &two())];
    let entries = [(2, void(2, 5, &BEYOND)), (6, two())];
    add(file, of("a Void, then an entry"), (1, h1), &entries, (6, &after));
}

fn refused(file: &mut File) {
    let h1 = next(START, &one());
    for (req, comment, (n, h), entries) in [
        ("LOG-030", "a number left out", (1, h1), vec![(3, two())]),
        ("LOG-030", "the same number again", (1, h1), vec![(1, one())]),
        ("LOG-030", "number 0", (0, START), vec![(0, one())]),
        ("LOG-024", "a Void that begins before its own number", (1, h1), vec![(2, void(1, 5, &BEYOND))]),
        ("LOG-024", "a Void that begins behind its own number", (1, h1), vec![(2, void(3, 5, &BEYOND))]),
        ("LOG-024", "a Void that ends before it begins", (1, h1), vec![(2, void(2, 1, &BEYOND))]),
        ("LOG-024", "a Void of no numbers at all", (1, h1), vec![(2, entry(0x0a, b""))]),
        ("LOG-024", "a Void without its hash", (1, h1), vec![(2, void(2, 5, b""))]),
        ("LOG-024", "a Void with a hash of 31 bytes", (1, h1), vec![(2, void(2, 5, &BEYOND[1..]))]),
        ("LOG-024", "a Void that does not parse", (1, h1), vec![(2, entry(0x0a, &[0x08]))]),
        (
            "LOG-030",
            "behind a Void comes its last number again",
            (1, h1),
            vec![(2, void(2, 5, &BEYOND)), (5, two())],
        ),
    ] {
        let inputs = json!({"position": position(n, h), "entries": shipped(&entries)});
        file.invalid(&[req], comment, "position-invalid", inputs);
    }
}

fn malformed(file: &mut File) {
    let h1 = hex::encode(next(START, &one()));
    for (comment, incarnation, n, hash) in [
        ("number 0 with a hash", 16, "0", h1.as_str()),
        ("an incarnation of 15 bytes", 15, "1", &h1),
        ("a hash of 31 bytes", 16, "1", &h1[2..]),
        ("no hash", 16, "0", ""),
    ] {
        let position = json!({"incarnation": "01".repeat(incarnation), "n": n, "hash": hash});
        file.invalid(
            &["LOG-013"],
            comment,
            "message-malformed",
            json!({"position": position, "entries": []}),
        );
    }
}

pub(crate) fn compare() -> File {
    let question = "A writer's log ends here; what does this position of its reader say about it?";
    let mut file = File::new("03-logs", "compare", question);
    let end = position(5, [0xe5; 32]);
    let other = |n: u64, h: u8, incarnation: &str| json!({"incarnation": incarnation.repeat(16), "n": n.to_string(), "hash": hex::encode([h; 32])});
    let of = |position: &Value| json!({"end": end, "position": position});
    let add_all = [
        ("LOG-050", "the end itself", end.clone(), "same"),
        ("LOG-050", "an earlier number", other(3, 0xe3, "01"), "behind"),
        ("LOG-050", "before the first entry", other(0, 0, "01"), "behind"),
        ("LOG-050", "another incarnation", other(5, 0xe5, "02"), "other-incarnation"),
    ];
    for (req, comment, position, output) in add_all {
        file.valid(&[req], comment, of(&position), json!({"agreement": output}));
    }
    for (comment, position) in [
        ("beyond the end: the writer lost state", other(6, 0xe6, "01")),
        ("far beyond the end", other(u64::MAX, 0xe6, "01")),
        ("another hash at the same number", other(5, 0xe4, "01")),
        ("zeros at a number above 0", other(5, 0, "01")),
    ] {
        file.invalid(&["LOG-050"], comment, "position-invalid", of(&position));
    }
    file
}

fn mark(upto: u64, except: &[u64]) -> Value {
    let except: Vec<String> = except.iter().map(u64::to_string).collect();
    json!({"upto": upto.to_string(), "except": except})
}

pub(crate) fn watermark() -> File {
    let question = "What is the read watermark that merges these two of one epoch?";
    let mut file = File::new("06-messages", "watermark", question);
    let many: Vec<u64> = (1..=17).collect();
    for (comment, a, b, merged) in [
        ("the greater number holds", mark(5, &[]), mark(7, &[]), mark(7, &[])),
        ("an older one changes nothing", mark(7, &[]), mark(5, &[]), mark(7, &[])),
        ("the same twice", mark(7, &[3]), mark(7, &[3]), mark(7, &[3])),
        ("what either has read is read", mark(7, &[3]), mark(7, &[4]), mark(7, &[])),
        ("what neither has read stays out", mark(7, &[3, 4]), mark(7, &[4, 5]), mark(7, &[4])),
        ("a lower one has read an exception", mark(9, &[3, 8]), mark(5, &[]), mark(9, &[8])),
        ("a lower one does not reach the exception", mark(9, &[8]), mark(5, &[]), mark(9, &[8])),
        ("exceptions of a lower one are read by the higher", mark(5, &[2]), mark(9, &[]), mark(9, &[])),
        ("the highest number is left out itself", mark(5, &[5]), mark(3, &[]), mark(5, &[5])),
        ("16 exceptions", mark(50, &many[..16]), mark(50, &many[..16]), mark(50, &many[..16])),
        (
            "the largest numbers",
            mark(u64::MAX, &[u64::MAX - 1]),
            mark(1, &[]),
            mark(u64::MAX, &[u64::MAX - 1]),
        ),
    ] {
        file.valid(&["RCP-001"], comment, json!({"a": a, "b": b}), merged);
    }
    for (req, comment, code, bad) in [
        ("RCP-006", "17 exceptions", "limit-exceeded", mark(50, &many)),
        ("FRM-010", "an exception twice", "message-malformed", mark(9, &[3, 3])),
        ("FRM-010", "exceptions descend", "message-malformed", mark(9, &[4, 3])),
        ("FRM-010", "exception 0", "message-malformed", mark(9, &[0])),
        ("FRM-010", "an exception above the watermark", "message-malformed", mark(9, &[10])),
    ] {
        file.invalid(&[req], comment, code, json!({"a": bad, "b": mark(1, &[])}));
    }
    file
}
