#!/usr/bin/env python3
"""Checks the vectors with a second implementation, written from the text: Python's standard library and nothing else.

    python3 spec/vectors/check.py [name ...]

It has no opinion where only IDNA can tell, on chains that are too long to be written out, and on the state machines of a
handshake. It needs Python 3.11.
"""

import hashlib
import json
import pathlib
import struct
import sys
import tomllib

HERE = pathlib.Path(__file__).resolve().parent
UNKNOWN = object()  # This program has no opinion.


class Invalid(Exception):
    """With the code of the refusal; empty where the text has none."""


def sha256(data):
    return hashlib.sha256(data).digest()


# ---- 01-conventions: varints and frames -----------------------------------------------------------------------------


def varint(data):
    """The number and the bytes it took; None if bytes are missing."""
    if not data or len(data) < 1 << (data[0] >> 6):
        return None
    used = 1 << (data[0] >> 6)
    value = int.from_bytes(data[:used], "big") & ((1 << (8 * used - 2)) - 1)
    least = next(n for n in (1, 2, 4, 8) if value < 1 << (8 * n - 2))
    if used != least:
        raise Invalid("frame-malformed")
    return value, used


def check_varint(inputs):
    read = varint(bytes.fromhex(inputs["bytes"]))
    if read is None:
        raise Invalid("frame-malformed")
    return {"value": str(read[0]), "used": read[1]}


def frames(data, limit):
    while data:
        kind = varint(data)
        if kind is None:
            raise Invalid("frame-malformed")
        length = varint(data[kind[1]:])
        if length is None:
            raise Invalid("frame-malformed")
        if length[0] > limit:
            raise Invalid("frame-too-large")
        start = kind[1] + length[1]
        if len(data) < start + length[0]:
            raise Invalid("frame-malformed")
        yield kind[0], data[start:start + length[0]]
        data = data[start + length[0]:]


def check_frame(inputs):
    limit = 65536 if inputs["stream"] == "control" else 262144
    found = frames(bytes.fromhex(inputs["bytes"]), limit)
    return [{"type": str(kind), "payload": payload.hex()} for kind, payload in found]


def check_messages(inputs):
    (kind, payload), = frames(bytes.fromhex(inputs["bytes"]), 262144)
    try:
        list(fields(payload, False))
    except Invalid:
        raise Invalid("message-malformed") from None
    return {"type": str(kind), "payload_bytes": len(payload), "frame": UNKNOWN}


# ---- protobuf, and the canonical scan -------------------------------------------------------------------------------


def pb_varint(data, at, minimal=True):
    value = shift = 0
    while True:
        if at >= len(data) or shift >= 70:
            raise Invalid("")
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at += 1
        if not byte & 0x80:
            if value >= 1 << 64 or (minimal and byte == 0 and shift > 0):
                raise Invalid("")
            return value, at
        shift += 7


def fields(data, minimal=True):
    """Number, wire type and value of each field."""
    at = 0
    while at < len(data):
        tag, at = pb_varint(data, at, minimal)
        number, wire = tag >> 3, tag & 7
        if not 1 <= number < 1 << 29 or wire not in (0, 1, 2, 5):
            raise Invalid("")
        if wire == 0:
            value, at = pb_varint(data, at, minimal)
        else:
            length = {1: 8, 5: 4}.get(wire)
            if length is None:
                length, at = pb_varint(data, at, minimal)
            if at + length > len(data):
                raise Invalid("")
            value, at = data[at:at + length], at + length
        yield number, wire, value


BYTES, TEXT, U32, U64, BOOL, PACKED = "bytes", "text", "u32", "u64", "bool", "packed"


def many(kind):
    return ("many", kind)


DEVICE = {1: BYTES, 2: BYTES, 3: U32}
ONE = {1: BYTES}
WORD = {1: TEXT}
LINK = {1: U32, 2: BYTES, 3: BYTES, 4: U64, 5: many(BYTES)}
ACCOUNT = {
    **LINK,
    16: {1: BYTES, 2: TEXT, 3: DEVICE, 4: BYTES},
    17: DEVICE, 18: ONE, 19: ONE, 20: WORD,
    21: {1: BYTES, 2: TEXT, 3: U32, 4: many({1: BYTES, 2: DEVICE})},
    22: ONE, 23: WORD,
}
SERVER = {**LINK, 16: {1: TEXT, 2: BYTES, 3: BYTES, 4: BYTES}, 17: ONE, 18: ONE, 19: ONE}
REF = {1: TEXT, 2: BYTES}
SIGNER = {1: REF, 2: BYTES, 3: BYTES}
PLACE = {1: U64, 2: U64, 3: BYTES}
POLICY = {1: U32, 2: U32, 3: U32, 4: U32}
GROUP = {
    **LINK,
    6: {1: BYTES, 2: BYTES, 3: BYTES, 4: U64},
    16: {1: BYTES, 2: TEXT, 3: REF, 4: POLICY, 5: BYTES},
    17: {1: many({1: BYTES, 2: TEXT})}, 18: WORD, 19: {}, 20: {1: many(BYTES)}, 21: {1: BYTES, 2: U32}, 22: POLICY,
    23: ONE, 24: {1: many(REF)}, 25: {1: TEXT, 2: BOOL}, 26: {1: U32}, 27: {1: U64, 2: SIGNER},
    28: {1: U64, 2: PLACE, 3: SIGNER, 4: many({1: BYTES, 2: BYTES})}, 29: {1: BYTES, 2: SIGNER},
}
VOTE = {1: BYTES, 2: U64, 3: PLACE, 4: REF, 5: SIGNER}
HEAD = {1: BYTES, 2: PLACE, 3: U64, 4: SIGNER}
SHAPES = {
    "GroupLinkBody": GROUP,
    "KeeperVote": VOTE,
    "GroupHead": HEAD,
    "AccountLinkBody": ACCOUNT,
    "ServerLinkBody": SERVER,
    "DeviceRecord": {1: BYTES, 2: BYTES, 3: U64, 4: PACKED},
    "UndecryptableReport": {1: BYTES, 2: BYTES, 3: BYTES, 4: {1: BYTES, 2: BYTES, 3: U64, 4: BYTES}, 5: U64, 6: BYTES},
}


def scan(data, shape):
    """The canonical scan of 1.4."""
    last = 0
    for number, wire, value in fields(data):
        if number < last:
            raise Invalid("")
        kind = shape.get(number)
        repeated = isinstance(kind, tuple)
        if kind is not None:
            if number == last and not repeated:
                raise Invalid("")
            scan_value(wire, value, kind[1] if repeated else kind, repeated)
        last = number


def scan_value(wire, value, kind, repeated):
    if wire != (0 if kind in (U32, U64, BOOL) else 2):
        raise Invalid("")
    if isinstance(kind, dict):
        scan(value, kind)
        return
    if value >= {U32: 1 << 32, BOOL: 2}[kind] if kind in (U32, BOOL) else False:
        raise Invalid("")
    if kind == TEXT:
        try:
            value.decode("utf-8")
        except UnicodeDecodeError:
            raise Invalid("") from None
    if kind == PACKED:
        at = 0
        while at < len(value):
            _, at = pb_varint(value, at)
    if not repeated and not value:
        raise Invalid("")


def check_canonical(inputs):
    scan(bytes.fromhex(inputs["bytes"]), SHAPES[inputs["message"]])
    return True


# ---- labels and signatures ------------------------------------------------------------------------------------------


def label(purpose, data):
    return b"tidings/1\0" + purpose.encode() + b"\0" + data


def check_labelled(inputs):
    if sha256(label(inputs["purpose"], bytes.fromhex(inputs["bytes"]))).hex() != inputs["sha256"]:
        raise Invalid("")
    return True


P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, -1, P) % P
ROOT = pow(2, (P - 1) // 4, P)


def point(data):
    """A point from its canonical encoding; None if it is not one."""
    y = int.from_bytes(data, "little")
    sign, y = y >> 255, y & (2**255 - 1)
    if y >= P:
        return None
    square = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    x = pow(square, (P + 3) // 8, P)
    if (x * x - square) % P:
        x = x * ROOT % P
    if (x * x - square) % P or (x == 0 and sign):
        return None
    if x & 1 != sign:
        x = P - x
    return (x, y, 1, x * y % P)


def add(a, b):
    e, f = (a[1] - a[0]) * (b[1] - b[0]) % P, (a[1] + a[0]) * (b[1] + b[0]) % P
    g, h = 2 * a[3] * b[3] * D % P, 2 * a[2] * b[2] % P
    e, i, j, k = f - e, h - g, h + g, f + e
    return (e * i % P, j * k % P, i * j % P, e * k % P)


def times(n, a):
    out = (0, 1, 1, 0)
    while n:
        if n & 1:
            out = add(out, a)
        a, n = add(a, a), n >> 1
    return out


def same(a, b):
    return (a[0] * b[2] - b[0] * a[2]) % P == 0 and (a[1] * b[2] - b[1] * a[2]) % P == 0


NEUTRAL = (0, 1, 1, 0)
BASE = point((4 * pow(5, -1, P) % P).to_bytes(32, "little"))


def good_key(key):
    a = point(key[1:]) if len(key) == 33 and key[0] == 1 else None
    return a is not None and not same(times(8, a), NEUTRAL)


def verifies(key, purpose, data, signature):
    """The steps of 1.5."""
    if len(signature) != 65 or signature[0] != 1 or not good_key(key):
        return False
    a, r = point(key[1:]), point(signature[1:33])
    if r is None or same(times(8, r), NEUTRAL):
        return False
    s = int.from_bytes(signature[33:], "little")
    if s >= L:
        return False
    hashed = hashlib.sha512(signature[1:33] + key[1:] + label(purpose, data)).digest()
    k = int.from_bytes(hashed, "little") % L
    return same(times(s, BASE), add(r, times(k, a)))


def check_ed25519(inputs):
    key, data, signature = (bytes.fromhex(inputs[name]) for name in ("key", "bytes", "signature"))
    if not verifies(key, inputs["purpose"], data, signature):
        raise Invalid("")
    return {"key_id": sha256(key).hex()}


# ---- names: the grammar without IDNA --------------------------------------------------------------------------------

LOWER = set("abcdefghijklmnopqrstuvwxyz0123456789")


def user(text):
    return 1 <= len(text) <= 63 and text[0] in LOWER and set(text) <= LOWER | set("._-")


def domain(text):
    """True, False, or UNKNOWN where only IDNA can tell."""
    labels = text.split(".")
    if len(text) > 253 or not set(text) <= LOWER | set("-."):
        return False
    if any(not 1 <= len(each) <= 63 or each[0] == "-" or each[-1] == "-" for each in labels):
        return False
    last = labels[-1]
    if last.isdigit() or (last.startswith("0x") and set(last[2:]) <= set("0123456789abcdef")):
        return False
    if any(each[2:4] == "--" and not each.startswith("xn--") for each in labels):
        return False
    return UNKNOWN if any(each.startswith("xn--") for each in labels) else True


def check_name(inputs):
    text = inputs["text"]
    if inputs["kind"] == "user":
        fits = user(text)
    elif inputs["kind"] == "domain":
        fits = domain(text)
    else:
        name, at, rest = text.partition("@")
        fits = domain(rest) if at and user(name) and "@" not in rest else False
    if not fits:
        raise Invalid("message-malformed")
    return fits


# ---- 02-session: proofs ---------------------------------------------------------------------------------------------


def check_proof(inputs):
    who, binding, proof = inputs["identity"], inputs["binding"], inputs["proof"]

    def lp(data):
        return struct.pack(">H", len(data)) + data

    identity = {
        "device": lambda: bytes.fromhex(who["account"] + who["device"]),
        "candidate": lambda: bytes.fromhex(who["key"]),
        "peer": lambda: who["domain"].encode() + bytes.fromhex(who["server_genesis"]),
    }[who["kind"]]()
    welcome = inputs["welcome_payload"]
    transcript = bytes([1 if inputs["role"] == "opener" else 2])
    transcript += lp(inputs["alpn"].encode()) + lp(inputs["domain"].encode()) + lp(identity)
    transcript += bytes.fromhex(inputs["server_genesis"]) + sha256(bytes.fromhex(inputs["hello_payload"]))
    transcript += bytes(32) if welcome is None else sha256(bytes.fromhex(welcome))
    exporter = "exporter" in binding
    transcript += bytes.fromhex(binding["exporter"] if exporter else binding["opener_nonce"] + binding["acceptor_nonce"])
    key = bytes.fromhex(inputs["key"])
    fits = proof["kind"] == (1 if exporter else 2) and proof["key_id"] == sha256(key).hex()
    purpose = "auth-exporter" if exporter else "auth-nonce"
    if not fits or not verifies(key, purpose, transcript, bytes.fromhex(proof["signature"])):
        raise Invalid("auth-failed")
    return True


# ---- 03-logs --------------------------------------------------------------------------------------------------------


def position(value):
    incarnation, hashed, n = bytes.fromhex(value["incarnation"]), bytes.fromhex(value["hash"]), int(value["n"])
    if len(incarnation) != 16 or len(hashed) != 32 or (n == 0 and any(hashed)):
        raise Invalid("message-malformed")
    return incarnation, n, hashed


def message(data):
    """The last value of each field; None if the bytes are no message."""
    try:
        return {number: value for number, _, value in fields(data, False)}
    except Invalid:
        return None


def check_log(inputs):
    incarnation, n, hashed = position(inputs["position"])
    for shipped in inputs["entries"]:
        number, entry = int(shipped["n"]), bytes.fromhex(shipped["entry"])
        if number != n + 1:
            raise Invalid("position-invalid")
        parsed = message(entry)
        if parsed is not None and parsed.get(1, 0) == 0x0A:
            void = message(parsed.get(2, b""))
            if void is None or len(void.get(4, b"")) != 32 or void.get(1, 0) != number or void.get(2, 0) < number:
                raise Invalid("position-invalid")
            n, hashed = void[2], void[4]
        else:
            n, hashed = number, sha256(b"tidings/1 log\0" + hashed + sha256(entry))
    return {"incarnation": incarnation.hex(), "n": str(n), "hash": hashed.hex()}


def check_compare(inputs):
    end, other = position(inputs["end"]), position(inputs["position"])
    if end[0] != other[0]:
        return {"agreement": "other-incarnation"}
    if other[1] > end[1] or (other[1] == end[1] and other[2] != end[2]):
        raise Invalid("position-invalid")
    return {"agreement": "same" if other == end else "behind"}


# ---- 06-messages ----------------------------------------------------------------------------------------------------


def mark(value):
    upto, but = int(value["upto"]), [int(each) for each in value["except"]]
    if len(but) > 16:
        raise Invalid("limit-exceeded")
    if but != sorted(set(but)) or any(not 1 <= each <= upto for each in but):
        raise Invalid("message-malformed")
    return upto, set(but)


def check_watermark(inputs):
    (a, but_a), (b, but_b) = mark(inputs["a"]), mark(inputs["b"])
    unread = [n for n in sorted(but_a | but_b) if not (n <= a and n not in but_a) and not (n <= b and n not in but_b)]
    return {"upto": str(max(a, b)), "except": [str(n) for n in unread]}


# ---- 04-chains ------------------------------------------------------------------------------------------------------


class Link:
    """An opened link (4.2): its id, and its fields by name."""

    def __init__(self, link, shape, purpose, limit=4096):
        body = bytes.fromhex(link["body"])
        if len(body) > limit:
            raise Invalid("link-invalid")
        try:
            scan(body, shape)
        except Invalid:
            raise Invalid("link-invalid") from None
        values = {}
        for number, _, value in fields(body):
            values.setdefault(number, []).append(value)
        self.id = sha256(label(purpose, body))
        self.type, self.number = values.get(1, [0])[0], values.get(4, [0])[0]
        self.chain, self.previous = values.get(2, [b""])[0], values.get(3, [b""])[0]
        self.signers = values.get(5, [])
        known = [number for number in values if number >= 16 and number in shape]
        self.field = known[0] if len(known) == 1 else None
        self.part = values[self.field][0] if self.field else b""
        self.content = message(self.part) if self.field else None
        self.repeated = list(fields(self.part)) if self.field else []
        self.author = values.get(6, [None])[0]
        self.bytes, self.purpose = body, purpose
        self.signatures = [bytes.fromhex(each) for each in link["signatures"]]
        ids = [each for each in (self.chain, self.previous) if each] + self.signers
        if any(len(each) != 32 for each in ids):
            raise Invalid("link-invalid")

    def check_signatures(self, keys):
        good = [sha256(key) for key in keys] == self.signers and len(self.signatures) == len(keys)
        need(good and all(verifies(key, self.purpose, self.bytes, each) for key, each in zip(keys, self.signatures)))

    def take(self, number, length):
        """A bytes field of the type's message, of its stated length."""
        value = self.content.get(number, b"")
        need(len(value) == length)
        return value


def need(condition, code="link-invalid"):
    if not condition:
        raise Invalid(code)


def text_of(value, check):
    text = value.decode("utf-8")
    need(check(text))
    return text


def is_address(text):
    name, at, rest = text.partition("@")
    return at and "@" not in rest and user(name) and domain(rest)


class Chain:
    """What server and account chains have in common: the steps of 4.2."""

    def __init__(self, links):
        need(links)
        for link in links:
            self.append(Link(link, self.SHAPE, self.PURPOSE))

    head = None
    length = 0

    def append(self, link):
        if self.head is None:
            need(not link.chain and not link.previous and link.type == 0 and link.number == 0 and link.field == 16)
            keys = self.begin(link)
            link.check_signatures(keys)
            self.genesis = link.id
        else:
            need(link.chain == self.genesis)
            need(link.number == self.length and link.previous == self.head, "stale-link")
            need(link.type % 2 or link.type <= self.LAST)
            self.before(link)
            if link.type % 2:
                keys = [self.listed().get(signer) for signer in link.signers]
                need(keys and None not in keys)
                change = self.place(link)
            else:
                change = self.place(link)
                need(link.field == 16 + link.type // 2 and link.type > 0)
                keys, effect = self.rules(link)
            link.check_signatures(keys)
            change()
            if not link.type % 2:
                effect()
        self.head, self.length = link.id, self.length + 1

    def before(self, link):
        pass


class Server(Chain):
    SHAPE, PURPOSE, LAST = SERVER, "server-link", 6

    def begin(self, link):
        self.domain = text_of(link.content.get(1, b""), domain)
        self.root, online = link.content.get(2, b""), link.content.get(3, b"")
        incarnation = link.take(4, 16)
        need(good_key(self.root) and good_key(online) and self.root != online and any(incarnation))
        self.online, self.retired, self.incarnations = [online], [], [incarnation]
        return [self.root, online]

    def listed(self):
        return {sha256(key): key for key in [self.root, *self.online]}

    def place(self, _):
        need(self.length < 256, "link-limit")
        return lambda: None

    def rules(self, link):
        if link.type == 2:
            key = link.content.get(1, b"")
            need(good_key(key) and key != self.root and key not in self.online and key not in self.retired)
            return [self.root, key], lambda: self.online.append(key)
        if link.type == 4:
            named = [key for key in self.online if sha256(key) == link.take(1, 32)]
            need(named)
            return [self.root], lambda: (self.online.remove(named[0]), self.retired.append(named[0]))
        incarnation = link.take(1, 16)
        need(any(incarnation) and incarnation not in self.incarnations)
        need(len(link.signers) == 1 and link.signers[0] in self.listed())
        return [self.listed()[link.signers[0]]], lambda: self.incarnations.append(incarnation)

    def output(self):
        return {
            "head": self.head.hex(),
            "links": self.length,
            "domain": self.domain,
            "root_key": self.root.hex(),
            "online_keys": [key.hex() for key in self.online],
            "incarnations": [each.hex() for each in self.incarnations],
        }


class Account(Chain):
    SHAPE, PURPOSE, LAST = ACCOUNT, "account-link", 14

    def device(self, content):
        key, identity, registration = content.get(1, b""), content.get(2, b""), content.get(3, 0)
        need(good_key(key) and len(identity) == 33 and identity[0] == 5 and 1 <= registration <= 16380)
        return key, identity, registration

    def begin(self, link):
        self.recovery = link.content.get(1, b"")
        self.address = text_of(link.content.get(2, b""), is_address)
        need(3 in link.content and good_key(self.recovery))
        first = self.device(message(link.content[3]))
        need(first[0] != self.recovery)
        link.take(4, 16)
        self.address_links, self.ended, self.taken, self.closed = 1, [], 0, False
        self.devices = {link.id: first}
        return [self.recovery, first[0]]

    def listed(self):
        return {sha256(key): key for key in [self.recovery, *(each[0] for each in self.devices.values())]}

    def before(self, link):
        need(not self.closed, "account-closed")

    def place(self, link):
        need(link.signers and link.signers[0] in self.listed())
        most = 1024 if link.signers[0] == sha256(self.recovery) else 1024 - 16
        need(link.type == 10 or self.taken < most, "link-limit")
        return lambda: setattr(self, "taken", self.taken + 1)

    def rules(self, link):
        first = self.listed()[link.signers[0]]
        if link.type == 2:
            new = self.device(link.content)
            need(new[0] != self.recovery and len(self.devices) < 32)
            need(all(new[0] != each[0] and new[1] != each[1] for each in self.devices.values()))
            return [first, new[0]], lambda: self.devices.update({link.id: new})
        if link.type == 4:
            device = link.take(1, 32)
            need(device in self.devices)
            return [first], lambda: self.devices.pop(device)
        need(first == self.recovery)
        if link.type == 6:
            key = link.content.get(1, b"")
            need(good_key(key) and sha256(key) not in self.listed())
            return [first, key], lambda: setattr(self, "recovery", key)
        return [first], getattr(self, {8: "move", 10: "restate", 12: "end", 14: "close"}[link.type])(link)

    def move(self, link):
        address = text_of(link.content.get(1, b""), is_address)
        return lambda: self.__dict__.update(address=address, address_links=self.address_links + 1)

    def restate(self, link):
        stated = [message(value) for number, _, value in link.repeated if number == 4]
        devices = [(each.get(1), message(each.get(2, b""))) for each in stated]
        held = [(name, dict(zip((1, 2, 3), self.devices[name]))) for name in sorted(self.devices)]
        need(devices == held and link.content.get(1) == self.recovery)
        need(link.content.get(2, b"").decode() == self.address and link.content.get(3, 0) == self.address_links)
        return lambda: setattr(self, "taken", 0)

    def end(self, link):
        other = link.take(1, 32)
        need(other not in (link.previous, self.genesis))
        return lambda: self.ended.append(other)

    def close(self, _):
        return lambda: setattr(self, "closed", True)

    def output(self):
        return {
            "head": self.head.hex(),
            "links": self.length,
            "recovery_key": self.recovery.hex(),
            "address": self.address,
            "address_links": self.address_links,
            "devices": [{"id": name.hex(), "key": self.devices[name][0].hex()} for name in sorted(self.devices)],
            "ended_heads": [each.hex() for each in self.ended],
            "places_taken": self.taken,
            "closed": self.closed,
        }


def check_account(inputs):
    return Account(inputs["links"]).output() if "links" in inputs else UNKNOWN


def check_server(inputs):
    return Server(inputs["links"]).output() if "links" in inputs else UNKNOWN


def ids(links, purpose):
    return [sha256(label(purpose, bytes.fromhex(link["body"]))) for link in links]


def check_fork(inputs):
    """The steps of 4.6."""
    held = Account(inputs["held"])
    try:
        came = Account(inputs["came"])
    except Invalid:
        raise Invalid("") from None
    a, b = (ids(inputs[name], "account-link") for name in ("held", "came"))
    if set(b) <= set(a):
        return {"settled": "keep"}
    if set(a) <= set(b):
        return {"settled": "take"}
    a_ends, b_ends = (any(each in set(y) - set(x) for each in chain.ended) for chain, x, y in ((held, a, b), (came, b, a)))
    return {"settled": "open" if a_ends == b_ends else "keep" if a_ends else "take"}


# ---- 07-groups: the state, its encoding, and the steps of 7.2 ---------------------------------------------------------


def packed(value):
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes(out) + bytes([value])


def put(number, value, always=False):
    """A field; none for a default value."""
    if isinstance(value, int):
        return packed(number << 3) + packed(value) if value else b""
    return packed(number << 3 | 2) + packed(len(value)) + value if value or always else b""


def all_of(data, number):
    return [value for each, _, value in fields(data) if each == number]


def whole(value, length=32):
    need(value is not None and len(value) == length)
    return value


def server_ref(data):
    """Domain and genesis."""
    need(data is not None)
    content = message(data)
    return text_of(content.get(1, b""), domain), whole(content.get(2, b""))


def put_server(number, server):
    return put(number, put(1, server[0].encode()) + put(2, server[1]), True)


def policy_of(data):
    need(data is not None)
    content = message(data)
    ranks = [content.get(each, 0) for each in (1, 2, 3)]
    need(all(rank in (1, 2, 3) for rank in ranks) and 1 <= content.get(4, 0) <= 1024)
    return [*ranks, content[4]]


class Evidence:
    """Chains by which links are judged, each as of any of its links."""

    def __init__(self, inputs):
        self.accounts = [(ids(links, "account-link"), links) for links in inputs.get("accounts", [])]
        self.servers = [(ids(links, "server-link"), links) for links in inputs.get("servers", [])]

    def find(self, chains, kind, name, head):
        for names, links in chains:
            if names[0] == name and head in names:
                at = names.index(head)
                return kind(links[:at + 1]), names[:at + 1], links[:at + 1]
        raise Invalid("evidence-missing")

    def author(self, data):
        content = message(data)
        account, device, head = (whole(content.get(each, b"")) for each in (1, 2, 3))
        state, names, links = self.find(self.accounts, Account, account, head)
        need(content.get(4, 0) == len(names) - 1 and not state.closed and device in state.devices)
        types = [message(bytes.fromhex(link["body"])).get(1, 0) for link in links]
        removals = [number for number, kind in enumerate(types) if kind == 4]
        return {
            "account": account, "head": head, "number": len(names) - 1, "key": state.devices[device][0],
            "address": state.address, "domain": state.address.partition("@")[2], "ids": names,
            "last_removal": max(removals, default=0),
        }

    def signer(self, data):
        """The server that signs and its key."""
        need(data is not None)
        content = message(data)
        server, head, key = server_ref(content.get(1)), whole(content.get(2, b"")), content.get(3, b"")
        need(good_key(key))
        state, _, _ = self.find(self.servers, Server, server[1], head)
        need(state.domain == server[0] and key in state.online)
        return server, key


class Group:
    LIMIT = {2: 65536, 8: 65536}

    def __init__(self, evidence):
        self.evidence = evidence

    @classmethod
    def read(cls, data, evidence):
        group, content = cls(evidence), message(data)
        group.id, group.head, group.rotated_head = content[1], content[2], content[13]
        group.number, group.term, group.rotated, group.checkpoint = (content.get(each, 0) for each in (3, 4, 10, 12))
        group.hub, group.policy, group.profile = server_ref(content[5]), policy_of(content[7]), content.get(8, b"")
        group.keepers = [server_ref(each) for each in all_of(data, 6)]
        group.members = {}
        for each in map(message, all_of(data, 9)):
            group.members[each[1]] = {
                "domain": each[2].decode(), "rank": each[3], "invited": each.get(4, 0), "since": each.get(5, 0),
                "head": each.get(6, b""), "number": each.get(7, 0), "by": each.get(8, b""),
            }
        listed, at, group.features = content.get(11, b""), 0, []
        while at < len(listed):
            feature, at = pb_varint(listed, at)
            group.features.append(feature)
        need(group.encoded() == data)
        return group

    def encoded(self):
        out = put(1, self.id) + put(2, self.head) + put(3, self.number) + put(4, self.term) + put_server(5, self.hub)
        out += b"".join(put_server(6, each) for each in self.keepers)
        out += put(7, b"".join(put(place + 1, each) for place, each in enumerate(self.policy))) + put(8, self.profile)
        for account in sorted(self.members):
            member = self.members[account]
            words = [account, member["domain"].encode(), member["rank"], member["invited"], member["since"]]
            words += [member["head"], member["number"], member["by"]]
            out += put(9, b"".join(put(place + 1, each) for place, each in enumerate(words)))
        out += put(10, self.rotated) + put(11, b"".join(map(packed, self.features))) + put(12, self.checkpoint)
        return out + put(13, self.rotated_head)

    def output(self):
        return {"state": self.encoded().hex(), "hash": sha256(self.encoded()).hex()}

    def full(self):
        return {account: member for account, member in self.members.items() if not member["invited"]}

    def append(self, carried):
        link = Link(carried, GROUP, "group-link", 65536)
        need(len(link.bytes) <= self.LIMIT.get(link.type, 8192))
        if not hasattr(self, "id"):
            self.begin(link)
            return
        need(link.chain == self.id)
        need(link.number == self.number + 1 and link.previous == self.head, "stale-group-link")
        need(link.type % 2 or link.type <= 26)
        need(self.full())
        need(self.number - self.checkpoint < 256 or link.type in (22, 24, 26))
        need(link.type % 2 or (link.field == 16 + link.type // 2 and link.type > 0))
        by_server = link.type == 26 or (link.type == 24 and all_of(link.part, 4))
        need((link.author is None) == bool(by_server))
        keys, before = [], Group.read(self.encoded(), self.evidence)
        self.head, self.number = link.id, link.number
        if link.author is not None:
            keys.append(self.by_device(link, before))
        if link.type in (22, 24, 26):
            keys.append(self.by_server(link, before))
        link.check_signatures(keys)

    def begin(self, link):
        need(not link.chain and not link.previous and link.type == 0 and link.number == 0 and link.field == 16)
        need(link.author is not None)
        author = self.evidence.author(link.author)
        content = link.content
        self.hub = server_ref(content.get(3))
        need(content.get(2, b"").decode() == author["address"] and self.hub[0] == author["domain"])
        self.policy, self.profile = policy_of(content.get(4)), content.get(5, b"")
        need(len(content.get(1, b"")) == 16 and len(self.profile) <= 4096)
        link.check_signatures([author["key"]])
        self.id = self.head = self.rotated_head = link.id
        self.number = self.rotated = self.checkpoint = 0
        self.term, self.keepers, self.features = 1, [self.hub], []
        self.members = {author["account"]: {
            "domain": author["domain"], "rank": 3, "invited": 0, "since": 0,
            "head": author["head"], "number": author["number"], "by": b"",
        }}

    def by_device(self, link, before):
        account = whole(message(link.author).get(1, b""))
        member = self.members.get(account)
        need(member and (member["invited"] == (link.type == 4) or link.type == 6), "not-a-member")
        author = self.evidence.author(link.author)
        held = member["number"] if member["head"] else None
        need(held is None or author["ids"][held:held + 1] == [member["head"]])
        went_on = held is not None and author["head"] != member["head"]
        lost = went_on and author["last_removal"] > held
        if not member["invited"]:
            member.update(head=author["head"], number=author["number"])
        least = {2: self.policy[1], 8: 2, 10: 3, 12: 3, 14: self.policy[2], 16: 3, 20: 3, 22: 3, 24: 3}
        need(member["rank"] >= least.get(link.type, 1), "rank-too-low")
        rule = {2: self.add, 4: self.accept, 6: self.leave, 8: self.remove, 10: self.role, 12: self.set_policy,
                14: self.set_profile, 16: self.set_keepers, 20: self.require}.get(link.type)
        if rule:
            rule(link, author)
        if link.type == 18:
            need(link.content.get(1, b"").decode() == author["domain"] and went_on)
            need(bool(link.content.get(2, 0)) == lost)
            member["domain"] = author["domain"]
        if lost:
            self.rotate()
        return author["key"]

    def rotate(self):
        self.rotated, self.rotated_head = self.number, self.head

    def ascending(self, accounts):
        need(accounts and all(len(each) == 32 for each in accounts))
        need(all(a < b for a, b in zip(accounts, accounts[1:])))

    def add(self, link, author):
        invited = [message(each) for each in all_of(link.part, 1)]
        self.ascending([each.get(1, b"") for each in invited])
        need(all(each[1] not in self.members and domain(each.get(2, b"").decode()) for each in invited))
        need(len(self.members) + len(invited) <= self.policy[3], "group-full")
        for each in invited:
            self.members[each[1]] = {
                "domain": each[2].decode(), "rank": 1, "invited": 1, "since": self.number, "head": b"", "number": 0,
                "by": author["account"],
            }

    def accept(self, link, author):
        need(link.content.get(1, b"").decode() == author["domain"])
        self.members[author["account"]].update(
            domain=author["domain"], invited=0, head=author["head"], number=author["number"])

    def leave(self, _, author):
        self.settle([self.members.pop(author["account"])])

    def remove(self, link, author):
        accounts, rank = all_of(link.part, 1), self.members[author["account"]]["rank"]
        self.ascending(accounts)
        need(author["account"] not in accounts and all(each in self.members for each in accounts))
        gone = [self.members.pop(each) for each in accounts]
        need(rank == 3 or all(each["rank"] < rank for each in gone), "rank-too-low")
        self.settle(gone)

    def settle(self, gone):
        if any(not each["invited"] for each in gone):
            self.rotate()
        left = self.full()
        if left and all(member["rank"] < 3 for member in left.values()):
            heir = min(left, key=lambda each: (-left[each]["rank"], left[each]["since"], each))
            left[heir]["rank"] = 3

    def role(self, link, _):
        member = self.full().get(whole(link.content.get(1, b"")))
        need(member and link.content.get(2, 0) in (1, 2, 3))
        member["rank"] = link.content[2]
        need(any(each["rank"] == 3 for each in self.members.values()))

    def set_policy(self, link, _):
        self.policy = policy_of(link.part)

    def set_profile(self, link, _):
        self.profile = link.content.get(1, b"")
        need(len(self.profile) <= 4096)

    def set_keepers(self, link, _):
        keepers = [server_ref(each) for each in all_of(link.part, 1)]
        need(1 <= len(keepers) <= 7 and all(len({each[part] for each in keepers}) == len(keepers) for part in (0, 1)))
        added = [each for each in keepers if each not in self.keepers]
        kept = [each for each in keepers if each in self.keepers]
        stay = [each for each in self.keepers if each in keepers]
        need(kept == stay and len(added) + len(self.keepers) - len(stay) == 1)
        need(all(any(member["domain"] == each[0] for member in self.full().values()) for each in added))
        self.keepers = keepers

    def require(self, link, _):
        feature = link.content.get(1, 0)
        need(feature not in self.features and len(self.features) < 64)
        self.features = sorted([*self.features, feature])

    def by_server(self, link, before):
        if link.type == 26:
            need(before.number > before.checkpoint)
            server, key = self.evidence.signer(link.content.get(2))
            need(server == before.hub and link.take(1, 32) == sha256(before.encoded()))
            self.checkpoint = self.number
            return key
        self.term = link.content.get(1, 0)
        if link.type == 22:
            need(self.term == before.term + 1)
            self.hub, key = self.evidence.signer(link.content.get(2))
            need(self.hub[1] != before.hub[1])
            return key
        need(self.term > before.term)
        start = group_position(link.content.get(2))
        need(start[1] > before.number and start[0] <= before.term)
        self.hub, key = self.evidence.signer(link.content.get(3))
        votes = [message(each) for each in all_of(link.part, 4)]
        if votes:
            need(2 * len(votes) > len(before.keepers))
            given = [vote_of(each.get(1, b""), each.get(2, b""), self.evidence) for each in votes]
            need(all(each[:4] == (self.id, self.term, start, self.hub) for each in given))
            need(all(each[4] in before.keepers for each in given))
            genesis = [each[4][1] for each in given]
            need(all(a < b for a, b in zip(genesis, genesis[1:])))
        return key


def group_position(data):
    need(data is not None)
    content = message(data)
    term, seq, hashed = content.get(1, 0), content.get(2, 0), whole(content.get(3, b""))
    need(term > 0 if seq else term == 0 and not any(hashed))
    return term, seq, hashed


def vote_of(body, signature, evidence):
    """Group, term, from, hub and keeper of a vote that its keeper signed."""
    try:
        scan(body, VOTE)
    except Invalid:
        raise Invalid("link-invalid") from None
    content = message(body)
    keeper, key = evidence.signer(content.get(5))
    need(verifies(key, "keeper-vote", body, signature))
    start, hub = group_position(content.get(3)), server_ref(content.get(4))
    return whole(content.get(1, b"")), content.get(2, 0), start, hub, keeper


def check_group_chain(inputs):
    group = Group(Evidence(inputs))
    for link in inputs["links"]:
        group.append(link)
    return group.output()


def check_group_link(inputs):
    group = Group.read(bytes.fromhex(inputs["state"]), Evidence(inputs))
    group.append(inputs["link"])
    return group.output()


def shown_position(term, seq, hashed):
    return {"term": str(term), "seq": str(seq), "hash": hashed.hex()}


def without_code(check):
    """The text has no code for what is refused here."""
    def checked(inputs):
        try:
            return check(inputs)
        except (Invalid, UnicodeDecodeError):
            raise Invalid("") from None
    return checked


@without_code
def check_group_log(inputs):
    group = Group.read(bytes.fromhex(inputs["state"]), Evidence(inputs))
    given = inputs["position"]
    at = put(1, int(given["term"])) + put(2, int(given["seq"])) + put(3, bytes.fromhex(given["hash"]))
    term, seq, hashed = group_position(at)
    for shipped in inputs["entries"]:
        if "void" in shipped:
            content = message(bytes.fromhex(shipped["void"]))
            hashes = all_of(content.get(4, b""), 1)
            need(content.get(1) == group.id and content.get(2, 0) == seq + 1 and hashes)
            need(content.get(3, 0) == seq + len(hashes))
            term, seq = group.term, content[3]
            for each in hashes:
                hashed = sha256(b"tidings/1 log\0" + hashed + whole(each))
            continue
        entry = bytes.fromhex(shipped["entry"])
        outer = message(entry)
        need(outer is not None)
        kind, inner = outer.get(1, 0), message(outer.get(2, b""))
        need(kind in (16, 18) or kind % 2)
        need(inner.get(1) == group.id and inner.get(3, 0) == seq + 1 and (kind % 2 or 4 in inner))
        due = group.term
        if kind == 18:
            body = message(message(inner[4]).get(1, b""))
            if 28 in body:
                succession = message(body[28])
                need(group_position(succession.get(2)) == (term, seq, hashed))
                due = succession.get(1, 0)
        need(inner.get(2, 0) == due)
        term, seq, hashed = due, seq + 1, sha256(b"tidings/1 log\0" + hashed + sha256(entry))
    return shown_position(term, seq, hashed)


@without_code
def check_group_head(inputs):
    body = bytes.fromhex(inputs["body"])
    scan(body, HEAD)
    content = message(body)
    server, key = Evidence(inputs).signer(content.get(4))
    at, stable = group_position(content.get(2)), content.get(3, 0)
    need(stable <= at[1] and verifies(key, "log-head", body, bytes.fromhex(inputs["signature"])))
    group = whole(content.get(1, b"")).hex()
    return {"group": group, "position": shown_position(*at), "stable": str(stable), "server": server[1].hex()}


@without_code
def check_group_vote(inputs):
    body, signature = bytes.fromhex(inputs["body"]), bytes.fromhex(inputs["signature"])
    group, term, start, hub, keeper = vote_of(body, signature, Evidence(inputs))
    return {
        "group": group.hex(), "term": str(term), "from": shown_position(*start), "hub": hub[1].hex(),
        "keeper": keeper[1].hex(),
    }


def check_group_term(inputs):
    def place(link):
        body = message(bytes.fromhex(link["body"]))
        begins = body.get(28) or body[27]
        voted = 28 in body and bool(all_of(begins, 4))
        return -message(begins)[1], not voted, ids([link], "group-link")[0]

    return {"first": "a" if place(inputs["a"]) < place(inputs["b"]) else "b"}


# ---- what the registry says -----------------------------------------------------------------------------------------


def registry(name):
    with open(HERE.parent / "registry" / f"{name}.toml", "rb") as file:
        return list(tomllib.load(file).values())[0]


def check_placement(inputs):
    kind, on = inputs["type"], inputs["stream"]
    known = next((each for each in registry("frames") if each["code"] == kind), None)
    if known is None:
        if kind % 2 == 0:
            raise Invalid("frame-unknown")
        return {"frame": None}
    pipelines = ("local", "remote", "submit")
    where = known["stream"]
    sent = known["sender"] in ("both", inputs["from"])
    if sent and (where in ("any", on) or (where == "pipeline" and on in pipelines)):
        return {"frame": known["name"]}
    raise Invalid("wrong-pipeline" if sent and where in pipelines and on in pipelines else "frame-unexpected")


def check_failure(inputs):
    payload = bytes.fromhex(inputs["payload"])
    try:
        found = {number: value for number, _, value in fields(payload, False)}
        found.get(5, b"").decode("utf-8")
    except (Invalid, UnicodeDecodeError):
        raise Invalid("message-malformed") from None
    code = found.get(1, 0)
    known = next((each for each in registry("errors") if each["code"] == code), None)
    scope = {1: "request", 2: "stream", 3: "connection"}.get(found.get(2), "request")
    retry = {1: "never", 2: "after-repair", 3: "after-delay", 4: "elsewhere"}.get(found.get(3), "never")
    if known is not None:
        scope, retry = known["scope"], known["retry"]
    if inputs["place"] == "control":
        scope = "connection"
    name = known and known["name"]
    return {"code": code, "name": name, "scope": scope, "retry": retry, "retry_after_ms": found.get(4, 0)}


# ---- running them ---------------------------------------------------------------------------------------------------

CHECKS = {
    "varint": check_varint,
    "frame": check_frame,
    "labelled": check_labelled,
    "canonical": check_canonical,
    "ed25519": check_ed25519,
    "name": check_name,
    "messages": check_messages,
    "proof": check_proof,
    "log": check_log,
    "compare": check_compare,
    "watermark": check_watermark,
    "account": check_account,
    "server": check_server,
    "fork": check_fork,
    "group-chain": check_group_chain,
    "group-link": check_group_link,
    "group-log": check_group_log,
    "group-head": check_group_head,
    "group-vote": check_group_vote,
    "group-term": check_group_term,
    "placement": check_placement,
    "failure": check_failure,
}


def fits(wanted, got):
    if got is UNKNOWN:
        return True
    if isinstance(wanted, dict) and isinstance(got, dict):
        return all(fits(wanted.get(key), value) for key, value in got.items())
    return wanted == got


def judge(name, vector):
    """'agreed', 'no opinion' or what is wrong."""
    try:
        got = CHECKS[name](vector["inputs"])
    except Invalid as refusal:
        code = str(refusal)
        if vector["result"] == "invalid" and (vector["expect"] or "") == code:
            return "agreed"
        return f"refused with '{code}'"
    if vector["result"] == "valid":
        return "agreed" if fits(vector["output"], got) else f"gives {got}"
    return "no opinion" if got is UNKNOWN else "is taken"


def main(names):
    wrong = 0
    for path in sorted(HERE.glob("*/*.json")):
        file = json.loads(path.read_text(encoding="utf-8"))
        name = file["name"]
        if names and name not in names:
            continue
        if name not in CHECKS:
            print(f"{name}: not covered")
            continue
        tally = {"agreed": 0, "no opinion": 0}
        for vector in file["vectors"]:
            verdict = judge(name, vector)
            if verdict in tally:
                tally[verdict] += 1
            else:
                wrong += 1
                print(f"{vector['id']} ({vector['comment']}): {vector['result']}, but {verdict}")
        print(f"{name}: " + ", ".join(f"{count} {word}" for word, count in tally.items() if count))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
