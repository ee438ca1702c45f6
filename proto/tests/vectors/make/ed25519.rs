//! Chapter 01: signatures. The made ones come from the curve's arithmetic, not from the library's signer.

use curve25519_dalek::constants::{ED25519_BASEPOINT_POINT, EIGHT_TORSION};
use curve25519_dalek::edwards::EdwardsPoint;
use curve25519_dalek::scalar::Scalar;
use serde_json::json;
use sha2::{Digest as _, Sha256, Sha512};

use crate::vector::File;

const PURPOSE: &str = "report";
const LABEL: &[u8] = b"tidings/1\0report\0";
/// The order of the base point, little-endian.
const L: [u8; 32] = [
    0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0, 0,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
];

/// A signature by parts: R, S, and the key's point as it is encoded.
struct Signed {
    key: Vec<u8>,
    r: [u8; 32],
    s: [u8; 32],
}

impl Signed {
    fn new(seed: u8, message: &[u8]) -> Self {
        let secret = scalar(&[b'a', seed]);
        let nonce = (scalar(&[b'r', seed]), EdwardsPoint::default());
        Self::with(ED25519_BASEPOINT_POINT * secret, secret, nonce, message)
    }

    /// For the point that a verifier is given, by a secret scalar, a nonce, and a point that is added to R.
    fn with(
        point: EdwardsPoint,
        secret: Scalar,
        (nonce, added): (Scalar, EdwardsPoint),
        message: &[u8],
    ) -> Self {
        let r = (ED25519_BASEPOINT_POINT * nonce + added).compress().to_bytes();
        let key = point.compress().to_bytes();
        let s = nonce + challenge(&r, &key, message) * secret;
        Self { key: with_algorithm(&key), r, s: s.to_bytes() }
    }

    fn signature(&self) -> Vec<u8> {
        with_algorithm(&[self.r, self.s].concat())
    }
}

fn with_algorithm(bytes: &[u8]) -> Vec<u8> {
    [&[1], bytes].concat()
}

fn scalar(from: &[u8]) -> Scalar {
    Scalar::from_bytes_mod_order(Sha256::digest(from).into())
}

fn challenge(r: &[u8], key: &[u8], message: &[u8]) -> Scalar {
    Scalar::from_bytes_mod_order_wide(&Sha512::digest([r, key, LABEL, message].concat()).into())
}

pub(crate) fn ed25519() -> File {
    let question = "Does this signature of these bytes, under this purpose, verify with this key?";
    let mut file = File::new("01-conventions", "ed25519", question);
    good(&mut file);
    of_bad_form(&mut file);
    small_keys(&mut file);
    points(&mut file);
    equation(&mut file);
    file
}

fn inputs(key: &[u8], bytes: &[u8], signature: &[u8]) -> serde_json::Value {
    json!({
        "key": hex::encode(key),
        "purpose": PURPOSE,
        "bytes": hex::encode(bytes),
        "signature": hex::encode(signature),
    })
}

fn good(file: &mut File) {
    for (seed, message, comment) in
        [(1, &b""[..], "no bytes"), (2, b"x", "one byte"), (3, &[0xff; 100], "100 bytes")]
    {
        let signed = Signed::new(seed, message);
        let key_id = hex::encode(Sha256::digest(&signed.key));
        let k = challenge(&signed.r, &signed.key[1..], message);
        let inputs = inputs(&signed.key, message, &signed.signature());
        let vector = file.valid(&["FRM-031"], comment, inputs, json!({"key_id": key_id}));
        vector.steps(
            json!({"labelled": hex::encode([LABEL, message].concat()), "k": hex::encode(k.to_bytes())}),
        );
    }
}

fn of_bad_form(file: &mut File) {
    let good = Signed::new(1, b"x");
    let (key, signature) = (good.key.clone(), good.signature());
    let mut add = |step: u8, comment: &str, key: &[u8], signature: &[u8]| {
        let vector = file.invalid(&["FRM-031", "FRM-033"], comment, "", inputs(key, b"x", signature));
        vector.steps(json!({"stops_at_step": step}));
    };
    let algorithm = |bytes: &[u8], algorithm: u8| [&[algorithm], &bytes[1..]].concat();
    add(1, "a key of 32 bytes", &key[1..], &signature);
    add(1, "a key of 34 bytes", &[&key[..], &[0]].concat(), &signature);
    add(1, "a signature of 64 bytes", &key, &signature[1..]);
    add(1, "a signature of 66 bytes", &key, &[&signature[..], &[0]].concat());
    add(2, "algorithm 0 of the key", &algorithm(&key, 0), &signature);
    add(2, "algorithm 2 of the key", &algorithm(&key, 2), &signature);
    add(2, "algorithm 0 of the signature", &key, &algorithm(&signature, 0));
    add(2, "algorithm 2 of the signature", &key, &algorithm(&signature, 2));
    add(2, "algorithm 2 of both", &algorithm(&key, 2), &algorithm(&signature, 2));
}

fn points(file: &mut File) {
    let good = Signed::new(1, b"x");
    let mut add = |step: u8, comment: &str, key: &[u8], signature: &[u8], flag: &str| {
        let vector = file.invalid(&["FRM-031"], comment, "", inputs(key, b"x", signature));
        vector.flag(flag).steps(json!({"stops_at_step": step}));
    };
    let secret = scalar(&[b'a', 1]);
    for (place, point) in EIGHT_TORSION.iter().enumerate() {
        let r = Signed::with(ED25519_BASEPOINT_POINT * secret, secret, (Scalar::ZERO, *point), b"x");
        add(4, &format!("R of small order, point {place}"), &good.key, &r.signature(), "small-order");
    }
    let p_plus = |low: u8, sign: u8| {
        let mut bytes = [0xff; 32];
        (bytes[0], bytes[31]) = (0xed + low, 0x7f | sign);
        bytes
    };
    for (low, sign, comment) in [
        (0, 0, "y = p"),
        (1, 0, "y = p + 1"),
        (1, 0x80, "y = p + 1, sign set"),
        (3, 0, "y = p + 3"),
        (18, 0, "y = 2^255 - 1"),
    ] {
        let bytes = p_plus(low, sign);
        let signature = good.signature();
        add(3, &format!("a key with {comment}"), &with_algorithm(&bytes), &signature, "not-canonical");
        let r = Signed { key: good.key.clone(), r: bytes, s: good.s };
        add(4, &format!("R with {comment}"), &good.key, &r.signature(), "not-canonical");
    }
    let mut minus_zero = [0; 32];
    (minus_zero[0], minus_zero[31]) = (1, 0x80);
    add(
        3,
        "a key with x = 0 and the sign set",
        &with_algorithm(&minus_zero),
        &good.signature(),
        "not-canonical",
    );
    let mut off_curve = [0; 32];
    off_curve[0] = 2;
    add(3, "a key that is no point", &with_algorithm(&off_curve), &good.signature(), "no-point");
    let r = Signed { key: good.key.clone(), r: off_curve, s: good.s };
    add(4, "R that is no point", &good.key, &r.signature(), "no-point");
}

/// Keys of small order, each with bytes for which the equation holds: k is a multiple of 8.
fn small_keys(file: &mut File) {
    for (place, point) in EIGHT_TORSION.iter().enumerate() {
        let nonce = (scalar(b"small"), EdwardsPoint::default());
        let made = |n: u8| (vec![n], Signed::with(*point, Scalar::ZERO, nonce, &[n]));
        let holds = |(message, signed): &(Vec<u8>, Signed)| {
            challenge(&signed.r, &signed.key[1..], message).to_bytes()[0].is_multiple_of(8)
        };
        let (message, signed) = (0..=255).map(made).find(holds).expect("one in eight");
        let comment = format!("a key of small order, point {place}: the equation holds");
        let vector =
            file.invalid(&["FRM-031"], &comment, "", inputs(&signed.key, &message, &signed.signature()));
        vector.flag("small-order").steps(json!({"stops_at_step": 3}));
    }
}

fn equation(file: &mut File) {
    let good = Signed::new(1, b"x");
    let of = |s: [u8; 32]| Signed { key: good.key.clone(), r: good.r, s }.signature();
    let mut above = good.s;
    let mut carry = 0_u16;
    for (byte, add) in above.iter_mut().zip(L) {
        let sum = u16::from(*byte) + u16::from(add) + carry;
        (*byte, carry) = (sum.to_le_bytes()[0], sum >> 8);
    }
    let mut top_bit = good.s;
    top_bit[31] |= 0x80;
    let mut flipped = good.s;
    flipped[0] ^= 1;
    for (step, comment, message, signature) in [
        (5, "S + L", &b"x"[..], of(above)),
        (5, "S = L", b"x", of(L)),
        (5, "S with its top bit set", b"x", of(top_bit)),
        (7, "S = 0", b"x", of([0; 32])),
        (7, "a bit of S flipped", b"x", of(flipped)),
        (7, "other bytes", b"y", good.signature()),
        (7, "another signer's signature", b"x", Signed::new(2, b"x").signature()),
    ] {
        let vector = file.invalid(&["FRM-031"], comment, "", inputs(&good.key, message, &signature));
        vector.steps(json!({"stops_at_step": step}));
    }
    let mut purpose = inputs(&good.key, b"x", &good.signature());
    purpose["purpose"] = "device-record".into();
    file.invalid(&["FRM-030"], "another purpose", "", purpose).steps(json!({"stops_at_step": 7}));
    mixed_order(file);
}

/// Points with a part of small order: the equation without cofactor tells what one with it lets pass.
fn mixed_order(file: &mut File) {
    let secret = scalar(b"mixed");
    let torsion = EIGHT_TORSION[1];
    let point = ED25519_BASEPOINT_POINT * secret + torsion;
    let made = |n: u8| {
        let message = vec![n];
        let nonce = (scalar(b"nonce"), EdwardsPoint::default());
        let signed = Signed::with(point, secret, nonce, &message);
        let k = challenge(&signed.r, &signed.key[1..], &message);
        (message, signed, k.to_bytes()[0] % 8)
    };
    let reqs = &["FRM-031", "FRM-032"];
    let (message, signed, _) = (0..=255).map(made).find(|(.., k)| *k == 0).expect("one in eight");
    let inputs_of = |message: &[u8], signed: &Signed| inputs(&signed.key, message, &signed.signature());
    let key_id = json!({"key_id": hex::encode(Sha256::digest(&signed.key))});
    let comment = "a key of mixed order, k a multiple of 8: the equation holds, and so the signature does";
    file.valid(reqs, comment, inputs_of(&message, &signed), key_id).flag("mixed-order");
    let (message, signed, _) = (0..=255).map(made).find(|(.., k)| *k == 1).expect("one in eight");
    let comment = "a key of mixed order: holds only when multiplied by the cofactor";
    file.invalid(reqs, comment, "", inputs_of(&message, &signed))
        .flag("mixed-order")
        .steps(json!({"stops_at_step": 7}));
    let plain = ED25519_BASEPOINT_POINT * secret;
    let signed = Signed::with(plain, secret, (scalar(b"nonce"), torsion), b"x");
    let comment = "R of mixed order: holds only when multiplied by the cofactor";
    file.invalid(reqs, comment, "", inputs_of(b"x", &signed))
        .flag("mixed-order")
        .steps(json!({"stops_at_step": 7}));
}
